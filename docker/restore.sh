#!/bin/sh
# Restore a backup into the stack's volumes and replace their content. Stops all services except PostgreSQL and Redis.
# Before anything is replaced, every file is compared with SHA256SUMS and read to its end, and each dump is restored into
# a database beside the one that it will replace.
#   docker/restore.sh FOLDER --yes
set -eu
folder=${1:?usage: docker/restore.sh FOLDER --yes}
here=$(cd "$(dirname "$0")" && pwd)
compose() { docker compose -f "$here/compose.yaml" "$@"; }
sql() { compose exec -T postgres psql --username postgres --no-psqlrc --quiet --set ON_ERROR_STOP=1 "$@"; }
refuse() {
    echo "$1; nothing was changed" >&2
    exit 1
}

for file in ledger.dump mlflow.dump prefect.dump mlflow.tar home.tar; do
    [ -s "$folder/$file" ] || refuse "$folder/$file is missing or empty: this is no whole backup"
done
[ -s "$folder/SHA256SUMS" ] || refuse "$folder/SHA256SUMS is missing: the backup was not finished, or is of a version \
that wrote none. For the latter, if you trust the files: (cd $folder && sha256sum *.dump *.tar >SHA256SUMS)"
for file in ledger.dump mlflow.dump prefect.dump mlflow.tar home.tar; do
    grep -Eq "^[0-9a-f]{64} [ *]$file\$" "$folder/SHA256SUMS" || refuse "$folder/SHA256SUMS does not name $file"
done
(cd "$folder" && sha256sum --check --strict --quiet SHA256SUMS >&2) ||
    refuse "$folder is not what was backed up: files differ from SHA256SUMS"
for file in mlflow.tar home.tar; do
    names=$(tar --list --file "$folder/$file") || refuse "$folder/$file cannot be read to its end"
    printf '%s\n' "$names" | grep -Eq '^/|(^|/)\.\.(/|$)' && refuse "$folder/$file has a name outside its folder"
done
[ "${2:-}" = --yes ] || refuse "everything in the volumes is replaced; say --yes after the folder"

compose up -d --wait postgres
# A name that no service connects to. What is left of an attempt that was cut short goes first.
for name in ledger mlflow prefect; do
    sql --command "DROP DATABASE IF EXISTS restored_$name WITH (FORCE)"
    sql --command "CREATE DATABASE restored_$name OWNER $name TEMPLATE template0"
    compose exec -T postgres pg_restore --username postgres --exit-on-error --dbname "restored_$name" \
        <"$folder/$name.dump" || {
        for made in ledger mlflow prefect; do sql --command "DROP DATABASE IF EXISTS restored_$made WITH (FORCE)"; done
        refuse "$folder/$name.dump cannot be restored"
    }
done

compose stop prefect mlflow prepare deploy worker reviewer watcher scorer
for name in ledger mlflow prefect; do
    sql --command "DROP DATABASE IF EXISTS $name WITH (FORCE)"
    sql --command "ALTER DATABASE restored_$name RENAME TO $name"
    sql --command "REVOKE ALL ON DATABASE $name FROM PUBLIC"
done
sql --command "GRANT CONNECT ON DATABASE ledger TO ledger_worker, ledger_reviewer, ledger_scorer"
# Replace a volume's content from an archive, in a container that runs nothing else.
fill() {
    compose run --rm -T --no-deps --entrypoint find "$1" "$2" -mindepth 1 -delete
    compose run --rm -T --no-deps --entrypoint tar "$1" --extract --directory "$2" <"$folder/$3"
}
fill mlflow /var/lib/mlflow mlflow.tar
fill watcher /var/lib/tournament home.tar
echo "restored $folder; start with: docker compose -f $here/compose.yaml up -d"

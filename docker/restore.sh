#!/bin/sh
# Restore a backup into the stack's volumes and replace their content. Stops all services except PostgreSQL and Redis.
#   docker/restore.sh FOLDER --yes
set -eu
folder=${1:?usage: docker/restore.sh FOLDER --yes}
here=$(cd "$(dirname "$0")" && pwd)
compose() { docker compose -f "$here/compose.yaml" "$@"; }

for file in ledger.dump mlflow.dump prefect.dump mlflow.tar home.tar; do
    [ -s "$folder/$file" ] || { echo "$folder/$file is missing or empty: this is no whole backup" >&2; exit 1; }
done
[ "${2:-}" = --yes ] || { echo "everything in the volumes is replaced; say --yes after the folder" >&2; exit 1; }

compose stop prefect mlflow deploy worker reviewer watcher scorer
compose up -d --wait postgres
for name in ledger mlflow prefect; do
    compose exec -T postgres dropdb --username postgres --if-exists --force "$name"
    compose exec -T postgres createdb --username postgres --owner "$name" "$name"
    compose exec -T postgres psql --username postgres --quiet --command "REVOKE CONNECT ON DATABASE $name FROM PUBLIC"
    compose exec -T postgres pg_restore --username postgres --exit-on-error --dbname "$name" <"$folder/$name.dump"
done
# Replace a volume's content from an archive, in a container that runs nothing else.
fill() {
    compose run --rm -T --no-deps --entrypoint find "$1" "$2" -mindepth 1 -delete
    compose run --rm -T --no-deps --entrypoint tar "$1" --extract --directory "$2" <"$folder/$3"
}
fill mlflow /var/lib/mlflow mlflow.tar
fill watcher /var/lib/tournament home.tar
echo "restored $folder; start with: docker compose -f $here/compose.yaml up -d"

#!/bin/sh
# Back up everything that cannot be computed again into a new folder, while the stack runs.
#   docker/backup.sh FOLDER
set -eu
folder=${1:?usage: docker/backup.sh FOLDER}
here=$(cd "$(dirname "$0")" && pwd)
compose() { docker compose -f "$here/compose.yaml" "$@"; }

umask 077
mkdir "$folder" || { echo "$folder is there already: a backup never goes over another" >&2; exit 1; }
# The ledger first: everything it refers to is then in the later dumps and archives.
for name in ledger mlflow prefect; do
    compose exec -T postgres pg_dump --username postgres --format custom "$name" >"$folder/$name.dump.part"
    mv "$folder/$name.dump.part" "$folder/$name.dump"
done
# The end of the ledger's chain, to compare later what was restored; not every version has one.
compose run --rm -T --no-deps prepare tournament ledger checkpoint >"$folder/checkpoint.part" 2>/dev/null &&
    mv "$folder/checkpoint.part" "$folder/checkpoint" || rm -f "$folder/checkpoint.part"
# Exit code 1 of tar means that a file changed or disappeared while it was read, which is normal in a running stack.
archive() {
    service=$1 file=$2
    shift 2
    compose exec -T "$service" tar --create "$@" . >"$folder/$file.part" || [ $? -eq 1 ]
    mv "$folder/$file.part" "$folder/$file"
}
archive mlflow mlflow.tar --directory /var/lib/mlflow
# Checkpoints of running fits (stages/work) are left out; finished stages, scores and reports are kept.
archive watcher home.tar --exclude ./stages/work --exclude './*.lock' --directory /var/lib/tournament
# Last: without it the backup is not whole, and restore.sh refuses it.
(cd "$folder" && sha256sum -- * >.SHA256SUMS.part)
mv "$folder/.SHA256SUMS.part" "$folder/SHA256SUMS"
sync
echo "wrote $folder; keep a copy of SHA256SUMS elsewhere: whoever can write to the folder can change both"

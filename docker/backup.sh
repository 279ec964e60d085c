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
echo "wrote $folder"

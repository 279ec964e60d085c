#!/bin/sh
# Create the secrets of docker/compose.yaml, one file each, in a folder that only you can enter. Existing files are kept.
#   docker/make-secrets.sh FOLDER
set -eu
folder=${1:?usage: docker/make-secrets.sh FOLDER}
umask 077
mkdir -p "$folder"

# The folder protects the files. The files themselves must be readable by the user of the containers.
make() {
    if [ ! -s "$folder/$1" ]; then
        printf '%s' "$2" >"$folder/$1"
        chmod 444 "$folder/$1"
        echo "made $folder/$1"
    fi
}
random() { head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }

for name in postgres_password prefect_db_password mlflow_db_password ledger_db_password ledger_worker_db_password \
    ledger_reviewer_db_password ledger_scorer_db_password redis_password mlflow_admin_password \
    mlflow_tournament_password mlflow_scorer_password mlflow_csrf_key webhook_secret grafana_admin_password; do
    make "$name" "$(random)"
done
make prefect_auth "admin:$(random)"
make mlflow_webhook_key "$(head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n')"

#!/bin/sh
# Create three databases, each with an owner that cannot access the others. The image runs this once, on an empty volume.
set -eu
for name in prefect mlflow ledger; do
    password=$(cat "${SECRETS:-/run/secrets}/${name}_db_password")
    psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --set name="$name" --set password="$password" \
        --username "${POSTGRES_USER:-postgres}" --dbname postgres <<-'SQL'
	CREATE ROLE :"name" LOGIN PASSWORD :'password';
	CREATE DATABASE :"name" OWNER :"name";
	REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
	SQL
done

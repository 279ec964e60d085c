#!/bin/sh
# Three databases, each with an owner of its own that sees no other. Run once, by the image, on an empty volume.
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

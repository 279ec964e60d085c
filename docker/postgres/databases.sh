#!/bin/sh
# Create three databases, each with an owner that cannot access the others, and the ledger's roles for services. The
# image runs this on an empty volume; run it again after an upgrade or to change passwords: what is there stays.
#   docker compose -f docker/compose.yaml exec postgres sh /docker-entrypoint-initdb.d/databases.sh
set -eu
sql() { psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres "$@"; }

# The password is passed on standard input: a command line is visible to every user of the host.
role() {
    sql <<-SQL
	\\set password \`cat "${SECRETS:-/run/secrets}/$1_db_password"\`
	SELECT 'CREATE ROLE $1' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '$1') \\gexec
	ALTER ROLE $1 LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'password';
	SQL
}

for name in prefect mlflow ledger; do
    role "$name"
    sql <<-SQL
	SELECT 'CREATE DATABASE $name OWNER $name' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '$name') \\gexec
	REVOKE ALL ON DATABASE $name FROM PUBLIC;
	SQL
done
# Beside its owner, who makes the tables and says who may use them (grants.sql)
for name in ledger_worker ledger_reviewer ledger_scorer; do
    role "$name"
    sql --command "GRANT CONNECT ON DATABASE ledger TO $name"
done

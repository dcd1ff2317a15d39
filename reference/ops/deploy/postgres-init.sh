#!/bin/bash
# Run once by the postgres image, on a new data directory: the roles of the service and of Holdfast,
# the service's database, and leave for Holdfast to replicate from the other containers.
set -euo pipefail
: "${REFERENCE_PASSWORD:?}" "${HOLDFAST_PASSWORD:?}"

# The passwords come through the environment, not through a command line that others can read.
psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d postgres <<'END'
\getenv reference_password REFERENCE_PASSWORD
\getenv holdfast_password HOLDFAST_PASSWORD
CREATE ROLE reference LOGIN PASSWORD :'reference_password';
CREATE DATABASE reference OWNER reference;
CREATE ROLE holdfast LOGIN REPLICATION PASSWORD :'holdfast_password';
GRANT pg_monitor, pg_read_all_settings TO holdfast;
END
echo 'host replication holdfast all scram-sha-256' >>"$PGDATA/pg_hba.conf"

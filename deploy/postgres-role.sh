#!/bin/sh
# Run once, when the cluster is made: the service's database, and its role, which is no superuser.
set -eu
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\set secret `cat /secrets/poolbench-secret`
CREATE ROLE poolbench LOGIN PASSWORD :'secret';
CREATE DATABASE poolbench OWNER poolbench;
SQL

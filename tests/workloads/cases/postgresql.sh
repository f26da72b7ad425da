#!/bin/sh
# PostgreSQL: initdb, a server on a unix socket, pgbench, vacuum, a dump and its restoration, stop.
# In /srv/postgresql.
set -eux
PATH=/usr/lib/postgresql/15/bin:$PATH
export PGHOST=/srv/postgresql PGDATABASE=postgres
initdb --pgdata data --auth trust --no-locale --encoding UTF8
stop() {
	pg_ctl stop --pgdata data --mode fast --timeout 300
}
pg_ctl start --pgdata data --log server.log --timeout 300 \
	--options "-k /srv/postgresql -c listen_addresses="
trap stop EXIT
mkdir other
createdb bench
pgbench --initialize --scale 1 --quiet bench
pgbench --client 4 --transactions 25 bench
[ "$(psql -At -c 'SELECT count(*) FROM pgbench_history' bench)" -eq 100 ]
# Larger than the memory for sorting, so that it goes through temporary files.
psql -At -c "SET work_mem = '64kB'" -c 'SELECT count(*) FROM (SELECT * FROM pgbench_accounts ORDER BY filler, aid) sorted' bench
psql -c "CREATE TABLESPACE other LOCATION '/srv/postgresql/other'" -c 'ALTER TABLE pgbench_tellers SET TABLESPACE other' bench
vacuumdb --full --analyze bench
pg_dump --format custom --file bench.dump bench
createdb restored
pg_restore --dbname restored bench.dump
[ "$(psql -At -c 'SELECT count(*) FROM pgbench_accounts' restored)" -eq 100000 ]
dropdb restored
trap - EXIT
stop
[ ! -e data/postmaster.pid ]

#!/bin/sh
# sqlite: a database with a rollback journal, then with a write-ahead log (a shared writable mapping)
# and two connections, transactions, an index, vacuum, backup. In /srv/sqlite.
set -eux
sqlite3 data.db <<'SQL'
CREATE TABLE entry (id INTEGER PRIMARY KEY, name TEXT, body BLOB);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
INSERT INTO entry SELECT i, 'name ' || i, randomblob(200) FROM n;
COMMIT;
BEGIN;
DELETE FROM entry;
ROLLBACK;
CREATE INDEX by_name ON entry (name);
SQL
[ "$(sqlite3 data.db 'SELECT count(*) FROM entry')" -eq 5000 ]
[ "$(sqlite3 data.db 'PRAGMA journal_mode = WAL')" = wal ]
python3 - <<'PYTHON'
import sqlite3

one, two = sqlite3.connect("data.db"), sqlite3.connect("data.db")
for number in range(100):
    with one:
        one.execute("UPDATE entry SET name = ? WHERE id = ?", (f"changed {number}", number + 1))
    (seen,) = two.execute("SELECT count(*) FROM entry WHERE name LIKE 'changed %'").fetchone()
    assert seen == number + 1, (seen, number)
PYTHON
sqlite3 data.db 'DELETE FROM entry WHERE id > 1000; PRAGMA wal_checkpoint(TRUNCATE); VACUUM;'
sqlite3 data.db '.backup copy.db'
sqlite3 data.db "VACUUM INTO 'small.db'"
[ "$(sqlite3 small.db 'PRAGMA integrity_check')" = ok ]
sqlite3 data.db .dump >data.sql
sqlite3 copy.db .dump >copy.sql
cmp data.sql copy.sql

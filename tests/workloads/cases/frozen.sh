#!/bin/sh
# Questions and connections without end, with Go's lookups beside them, while the driver stops the daemon,
# lets it go on, kills it and starts it again. In /srv/frozen.
set -eu
network=/run/workloads/a
# Ended by us, long before it is through: what it reached, the server knows.
/add/lookups/lookups "$network.json" 10000000 4 >beside &
beside=$!
python3 /add/workloads/network/programs/frozen.py "$network.json" /run/workloads/phase
kill "$beside"
# It says what was wrong; that questions were not answered is not.
if grep -E '^go: (x[0-9]+\.other\.example: \[[^]]|[0-9a-f.:]+: [0-9a-f])' beside; then
	exit 1
fi

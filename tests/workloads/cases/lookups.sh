#!/bin/sh
# Lookups, each followed by a connection: curl, dig, Python, Node and Go side by side, 16 at a time,
# under one DNS server after the other. In /srv/lookups; the driver changes the server when asked to.
set -eu
programs=/add/workloads/network/programs

# ask FILE: tells the driver, and waits for its answer.
ask() {
	: >"want-$1"
	until [ -e "/run/workloads/serve-$1" ]; do
		sleep 0.2
	done
}

# side COUNT-OF-EACH...: the five programs, the last line of each.
side() {
	pids=
	python3 "$programs/lookups.py" "$network.json" "$1" 5 >"python.$phase" &
	pids="$pids $!"
	node "$programs/lookups.js" "$network.json" "$2" 5 >"node.$phase" &
	pids="$pids $!"
	/add/lookups/lookups "$network.json" "$3" 4 >"go.$phase" &
	pids="$pids $!"
	"$programs/lookups.sh" curl "$network" "$4" >"curl.$phase" &
	pids="$pids $!"
	"$programs/lookups.sh" dig "$network" "$5" >"dig.$phase" &
	pids="$pids $!"
	for pid in $pids; do
		wait "$pid"
	done
	for program in python node go curl dig; do
		# The last line is the tally, those before it what was wrong.
		sed "s/^/$phase /" "$program.$phase"
	done
}

while read -r phase zone python node go curl dig; do
	network=/run/workloads/$zone
	ask "$phase"
	began=$(cut -d . -f 1 /proc/uptime)
	side "$python" "$node" "$go" "$curl" "$dig" </dev/null
	echo "$phase took $(($(cut -d . -f 1 /proc/uptime) - began)) s"
done </run/workloads/phases

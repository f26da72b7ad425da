# shellcheck shell=sh
# Sourced by workloads.sh and network.sh: what every agent finds, one agent's run, and what its record must
# say. They set $names
# and account_of.
account="python3 $here/account.py"

set_up() {
	useradd --create-home --shell /bin/sh worker
	mkdir -p /srv/outside /srv/secrets
	echo unchanged >/srv/outside/file
	echo here >/srv/outside/gone
	echo secret >/srv/secrets/file
	chown -R worker: /srv/outside /srv/secrets
	as_worker mkdir -m 0700 /home/worker/.ssh
	as_worker sh -c 'echo key >/home/worker/.ssh/id_ed25519'
	for name in $names; do
		mkdir "/srv/$name"
		chown worker: "/srv/$name"
		cp "$here/policies/$name.yaml" /etc/agentguard/agents.d/
	done
}

as_worker() {
	runuser -u worker -- env -C /home/worker "$@"
}

# run_tagged NAME: runs it as an agent; a pipe takes its output, for files would need a rule.
run_tagged() {
	as_worker agentguard run --agent "$1" --task workload -- "$here/tagged.sh" "$1" 2>&1 | cat >"/tmp/$1.log"
}

said() {
	grep -qx "$1" "$2" || {
		cat "$2"
		return 1
	}
}

nothing_changed() {
	[ "$(cat /srv/outside/file)" = unchanged ] && [ "$(stat -c %a /srv/outside/file)" = 644 ] &&
		[ -e /srv/outside/gone ] && [ ! -e /srv/outside/new ]
}

# adds_up NAME [EXPECTED...]: with what account.py is told of denials besides those of tagged.sh.
adds_up() {
	agent=$1
	shift
	$account "$agent" "$@" \
		--exactly '2 write /srv/outside/file' \
		--exactly '1 create /srv/outside/new' \
		--exactly '1 delete /srv/outside/gone' \
		--exactly '1 attributes /srv/outside/file' \
		--exactly '1 read /home/worker/.ssh/id_ed25519' \
		--exactly '1 read /srv/secrets/file' >"/tmp/$agent.account"
	code=$?
	cat "/tmp/$agent.account"
	return "$code"
}

# workload NAME: account_of NAME says whether the denials are those wanted.
workload() {
	work=$1
	start=$(uptime_seconds)
	check "$work runs" run_tagged "$work"
	took=$(($(uptime_seconds) - start))
	check "$work succeeds" said "ended $work: 0" "/tmp/$work.log"
	for what in write create delete attributes link key secret; do
		check "$work: $what elsewhere is refused" said "tried $what: refused" "/tmp/$work.log"
	done
	for what in write attributes link read delete; do
		check "$work: its own $what is not" said "tried own-$what: through" "/tmp/$work.log"
	done
	check "$work: nothing changed elsewhere" nothing_changed
	check "$work: nothing was denied but that, and the record adds up" account_of "$work"
	show "/tmp/$work.account"
	echo "        $took s"
}

#!/bin/sh
# Ordinary programs as agents, each under a policy that fits it, on a whole Debian with the package
# installed: every one must succeed, without a denial that is not wanted, and the policy must have
# been in force all the while.
#
#   cargo xtask workloads [NAME...]
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
set -eu

names=${*:-git cargo npm pip sqlite postgresql}
account="python3 $here/account.py"

# --- What all of them find ---

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

# A repository with a pack, that the agent may read.
make_origin() {
	as_worker sh -eu -c '
		export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.com
		export GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.com
		git init -q -b main seed
		cd seed
		for number in 1 2; do
			seq 1 "${number}000" >numbers
			git add numbers
			git commit -q -m "$number"
		done
		git gc -q'
	mkdir /srv/mirror
	chown worker: /srv/mirror
	as_worker git clone -q --bare seed /srv/mirror/origin.git
}

# --- One workload ---

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

# Denials that a workload has to see besides those that tagged.sh asks for.
wanted_of() {
	case $1 in
	# The hard link to a pack or object of a repository that it may only read.
	git) echo '1 write /srv/mirror/origin.git/objects/*' ;;
	esac
}

adds_up() {
	wanted=$(wanted_of "$1")
	$account "$1" ${wanted:+--exactly "$wanted"} \
		--exactly '2 write /srv/outside/file' \
		--exactly '1 create /srv/outside/new' \
		--exactly '1 delete /srv/outside/gone' \
		--exactly '1 attributes /srv/outside/file' \
		--exactly '1 read /home/worker/.ssh/id_ed25519' \
		--exactly '1 read /srv/secrets/file' >"/tmp/$1.account"
	code=$?
	cat "/tmp/$1.account"
	return "$code"
}

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
	check "$work: nothing was denied but that, and the record adds up" adds_up "$work"
	show "/tmp/$work.account"
	echo "        $took s"
}

# --- All ---

set_up
check "a reload puts the policies in force" systemctl reload "$unit"
check "each passes its own tests" agentguard policy check /etc/agentguard/agents.d
case " $names " in
*" git "*) make_origin ;;
esac
for name in $names; do
	workload "$name"
done
check "without a tag, the same account may write there" as_worker sh -c 'echo new >/srv/outside/new'
check "and read the key" as_worker cat /home/worker/.ssh/id_ed25519
check "the kernel has no fault" no_fault
finish

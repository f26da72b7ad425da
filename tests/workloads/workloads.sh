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
# shellcheck source-path=SCRIPTDIR source=agents.sh
. "$here/agents.sh"

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

# Denials that a workload has to see besides those that tagged.sh asks for.
account_of() {
	case $1 in
	# The hard link to a pack or object of a repository that it may only read.
	git) adds_up git --exactly '1 write /srv/mirror/origin.git/objects/*' ;;
	*) adds_up "$1" ;;
	esac
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

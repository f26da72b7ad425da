#!/bin/sh
# Agents with rules about names: what they may ask for they reach, and nothing else, by the resolvers and
# the programs that people use, and while the daemon is frozen or gone.
#
#   cargo xtask workloads lookups names-programs frozen [--minutes N]
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
set -eu

# For network/names-programs.sh.
# shellcheck disable=SC2034
minutes=$1
shift
names=$*
# shellcheck source-path=SCRIPTDIR source=agents.sh
. "$here/agents.sh"
# shellcheck source-path=SCRIPTDIR source=network/net.sh
. "$here/network/net.sh"
for part in $names; do
	# shellcheck source-path=SCRIPTDIR source=network/lookups.sh
	. "$here/network/$part.sh"
done

# Services of the packages in the machine: each case starts its own.
stop_services() {
	systemctl stop nginx unbound ssh postgresql systemd-resolved fcgiwrap.socket fcgiwrap
}

# case_of NAME: what is around the agent is in network/NAME.sh.
case_of() {
	part=$1
	prefix=$(echo "$part" | tr - _)
	check "$part: its servers run" "${prefix}_before"
	"${prefix}_beside" >"/tmp/$part.beside" 2>&1 &
	beside=$!
	workload "$part"
	check "$part: the driver did its part" beside_ended
	"${prefix}_after"
}

# Waits for it only if the agent came to its end.
beside_ended() {
	grep -qx "ended $part: 0" "/tmp/$part.log" || kill "$beside" || true
	wait "$beside" || {
		cat "/tmp/$part.beside"
		return 1
	}
}

# What workload calls: the denials of tagged.sh, and those of the case.
account_of() {
	"$(echo "$1" | tr - _)_denials"
}

stop_services || true
make_net
start_pages
set_up
check "a reload puts the policies in force" systemctl reload "$unit"
check "each passes its own tests" agentguard policy check /etc/agentguard/agents.d
for part in $names; do
	case_of "$part"
done
check "the daemon runs" is_active
check "the kernel has no fault" no_fault
finish

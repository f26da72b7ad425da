#!/bin/sh
# stress-ng's file system class, without a tag, then SECONDS as an agent that may do everything, then
# SECONDS as one that is kept in its directory: no kernel fault, no hang, no decision lost, the same
# results for the first two, and nothing changed elsewhere by the third. Beside it, another agent
# counts what becomes of its own operations.
#
#   cargo xtask workloads stress [--minutes N]
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
set -eu

total=${1:-300}
account="python3 $here/account.py"

stressors() {
	stress-ng --class 'filesystem?' 2>&1 | sed -n 's/^.*stressors: //p'
}

# stress STATE COMMAND...: the stressors, started by a command; results in /run/workloads/STATE.results.
stress() {
	state=$1
	shift
	# Pipes take the output: files would need a rule.
	# shellcheck disable=SC2086
	{ "$@" "$here/stressors.sh" "/srv/stress/$state" "$seconds" $list 2>&1 >&3 | cat >"/run/workloads/$state.said"; } 3>&1 |
		cat >"/run/workloads/$state.results"
	[ "$(wc -l <"/run/workloads/$state.results")" -eq "$(echo "$list" | wc -w)" ]
}

# most_pass STATE: otherwise the comparison says little.
most_pass() {
	[ $((3 * $(count_of "$1" 0))) -ge $((2 * number)) ] || {
		cat "/run/workloads/$1.said"
		return 1
	}
}

none_hung() {
	! grep -E ' (124|137)$' "/run/workloads/$1.results"
}

same_results() {
	diff "/run/workloads/$1.results" "/run/workloads/$2.results" || {
		cat "/run/workloads/$1.said" "/run/workloads/$2.said"
		return 1
	}
}

count_of() {
	grep -c " $2\$" "/run/workloads/$1.results" || true
}

summary() {
	echo "        $1: $(count_of "$1" 0) passed, $(count_of "$1" 2) failed, $(count_of "$1" '[34]') cannot run here, of $(wc -l <"/run/workloads/$1.results")"
	awk '$2 != 0 { printf "        %s: %s\n", $1, $2 }' "/run/workloads/$1.results"
}

start_tally() {
	rm -f /srv/tally/stop
	agentguard run --agent tally -- python3 "$here/tally.py" 2>&1 | cat >/run/workloads/tally.outcomes &
	tally=$!
}

stop_tally() {
	touch /srv/tally/stop
	wait "$tally"
	cat /run/workloads/tally.outcomes
	grep -q '^{.*}$' /run/workloads/tally.outcomes
}

adds_up() {
	$account "$@" >"/run/workloads/$1.account"
	code=$?
	cat "/run/workloads/$1.account"
	return "$code"
}

# Changed since the stamp on the root file system, but for the agents' places and what the system's own
# services keep.
nothing_changed() {
	changed=$(find / -xdev \( -path /srv/stress/strict -o -path /srv/tally -o -path /var/lib/agentguard \
		-o -path /var/log -o -path /var/lib/systemd -o -path /var/lib/postgresql -o -path "$log" \
		-o -path /var/tmp/systemd-private-\* \) -prune -o -cnewer /run/workloads/stamp -print)
	echo "$changed"
	[ -z "$changed" ]
}

# --- All ---

systemctl stop postgresql
mkdir -p /run/workloads /srv/stress/untagged /srv/stress/open /srv/stress/strict /srv/tally /srv/outside /srv/secrets
echo unchanged >/srv/outside/file
echo secret >/srv/secrets/file
for name in stress-open stress-strict tally; do
	cp "$here/policies/$name.yaml" /etc/agentguard/agents.d/
done
check "a reload puts the policies in force" systemctl reload "$unit"
list=${STRESSORS:-$(stressors)}
number=$(echo "$list" | wc -w)
seconds=$((total / number))
[ "$seconds" -gt 0 ] || seconds=1
echo "        $number stressors, $seconds s each"

# A comparison only: what fails in a fifth of the time fails in all of it.
whole=$seconds
seconds=$(((whole + 4) / 5))
check "every stressor runs without a tag" stress untagged env
check "and ends" none_hung untagged
check "and most pass" most_pass untagged
summary untagged
seconds=$whole

start_tally
check "every stressor runs as an agent that may do everything" \
	stress open agentguard run --agent stress-open --
check "and ends" none_hung open
summary open
check "with the same results" same_results untagged open
check "nothing is denied by its rules, and no decision is lost" adds_up stress-open --not-below /
show /run/workloads/stress-open.account

touch /run/workloads/stamp
check "every stressor runs as an agent that is kept in its directory" \
	stress strict agentguard run --agent stress-strict --
check "and ends" none_hung strict
summary strict
diff /run/workloads/untagged.results /run/workloads/strict.results | sed -n 's/^[<>]/        without a tag <, strict >: &/p'
check "and most pass" most_pass strict
check "nothing changed elsewhere" nothing_changed
check "nothing is denied in its directory, and no decision is lost" adds_up stress-strict --not-below /srv/stress/strict/
check "and many were denied" grep -qE ' [1-9][0-9]{2,} of them denials' /run/workloads/stress-strict.account
show /run/workloads/stress-strict.account

check "the agent that counts was never let through" stop_tally
check "and the kernel counted the same" adds_up tally --not-below /srv/tally/ --outcomes /run/workloads/tally.outcomes
show /run/workloads/tally.account
check "the daemon runs" is_active
check "the kernel has no fault" no_fault
finish

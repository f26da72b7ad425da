#!/bin/sh
# A host whose kernel has no `bpf` among its security modules: the daemon says so, refuses to pretend,
# and with `accept_degraded` does in its confined unit what is possible there.
#
#   cargo xtask vm --debian --cmdline lsm=landlock,lockdown,capability,yama,apparmor \
#       --add tests/debian -- /add/degraded.sh
. "$(dirname "$0")/lib.sh"

# Names of protections that are not there in full, as a YAML list.
missing() {
	agentguard doctor --json |
		json "['protections']" |
		python3 -c 'import ast, sys; print([p["name"] for p in ast.literal_eval(sys.stdin.read()) if p["status"] != "enforcing"])'
}

check "the daemon runs, for no agent needs what is missing" is_active
check "doctor reports problems" answers 5 agentguard doctor
check "and the setting that would enable what is missing" says "lsm=" agentguard doctor

mkdir -p /srv/agent /srv/other
cp "$here/actions.py" /srv/agent/
cp "$here/tester.yaml" /etc/agentguard/agents.d/
check "a policy to enforce is refused" fails systemctl reload "$unit"
check "with the way out" says "accept_degraded" journalctl -u "$unit" -o cat
check "the daemon refuses to start with it" fails systemctl restart "$unit"
systemctl stop "$unit"

echo "accept_degraded: $(missing)" >/etc/agentguard/agentguard.yaml
cat /etc/agentguard/agentguard.yaml
systemctl reset-failed "$unit"
check "with accept_degraded, it starts" systemctl start "$unit"
# Through a pipe: writing to a file that the agent was started with is decided by the file's name.
agentguard run --agent tester -- python3 /srv/agent/actions.py 2>&1 | cat >/tmp/actions
cat /tmp/actions
check "a launched agent writes where it may" grep -qx 'write-allowed done' /tmp/actions
check "and not elsewhere" grep -qxE 'write-denied (EACCES|EPERM)' /tmp/actions
check "connects where it may" grep -qx 'connect-allowed ECONNREFUSED' /tmp/actions
check "and not elsewhere, TCP" grep -qx 'connect-denied EPERM' /tmp/actions
check "nor UDP" grep -qx 'connect-denied-udp EPERM' /tmp/actions
check "nor IPv6" grep -qx 'connect-denied-6 EPERM' /tmp/actions
python3 /srv/agent/actions.py >/tmp/actions-untagged 2>&1
check "somebody else writes there" grep -qx 'write-denied done' /tmp/actions-untagged
check "and connects there" grep -qx 'connect-denied ECONNREFUSED' /tmp/actions-untagged
check "it stops" systemctl stop "$unit"
check "purge takes it away" dpkg -P agentguard
check "with the pins" fails test -e "$pins"

finish

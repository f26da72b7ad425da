#!/bin/sh
# The life of the package on a whole Debian: installed, started, an agent denied, stopped, killed,
# restarted, upgraded, removed, installed again, purged. All the while an agent tries what it may
# not do; it must succeed not once until the package is removed.
#
#   cargo xtask package && cargo xtask vm --debian --add tests/debian -- /add/package.sh
. "$(dirname "$0")/lib.sh"

deb=$(echo /deb/agentguard_*.deb)

# --- Tools of this script ---

# Field 1 (denied), 2 (leaked) or 3 (failed) of what the prober counted.
prober() {
	cut -d ' ' -f "$1" /srv/agent/prober
}

start_prober() {
	rm -f /srv/agent/prober
	agentguard run --agent tester -- python3 /srv/agent/prober.py </dev/null >/dev/null 2>&1 &
	prober_pid=$!
}

stop_prober() {
	kill "$prober_pid"
	wait "$prober_pid" 2>/dev/null
}

# The prober has been denied again since now, and never got through.
still_denied() {
	before=$(prober 1)
	soon denied_more_than "${before:-0}" && [ "$(prober 2)" -eq 0 ]
}

denied_more_than() {
	[ "$(prober 1)" -gt "$1" ]
}

got_through() {
	[ "$(prober 2)" -gt 0 ]
}

# The daemon runs, and is another process than before.
is_another_than() {
	is_active && [ "$(main_pid)" -ne "$1" ]
}

run_of_prober() {
	agentguard ps --json | json "['processes'][0]['run']"
}

agent() {
	agentguard run --agent tester -- "$@"
}

denials_of() {
	agentguard runs show "$1" --json | json "['denials']"
}

mode_and_owner() {
	stat -c '%a %U:%G' "$1"
}

exposure() {
	systemd-analyze security --no-pager "$unit" | sed -n 's/.*exposure level for [^:]*: \([0-9.]*\).*/\1/p'
}

exposure_is_below_3() {
	figure=$(exposure)
	echo "$figure"
	awk "BEGIN { exit !($figure > 0 && $figure < 3.0) }"
}

# Files of AgentGuard on this host, but for the machine's own and the journals of apt and dpkg.
leftovers() {
	find / -xdev \( -path /proc -o -path /sys -o -path /deb -o -path /add -o -path '/run/agentguard-vm*' \
		-o -path '/run/systemd/*/agentguard-vm*' -o -path /var/log \) -prune -o -iname '*agentguard*' -print
	find /run /sys/fs/bpf /sys/fs/cgroup -iname '*agentguard*' | grep -v agentguard-vm
	find /etc /var/lib /usr/lib -xtype l -lname '*agentguard*'
	grep -l agentguard /etc/passwd /etc/group /etc/gshadow /var/lib/dpkg/status
}

nothing_is_left() {
	left=$(leftovers)
	echo "$left"
	[ -z "$left" ]
}

# The same package with a higher version.
make_upgrade() {
	rm -rf /tmp/upgrade && dpkg-deb -R "$deb" /tmp/upgrade &&
		sed -i 's/^Version: .*/&+upgrade/' /tmp/upgrade/DEBIAN/control &&
		dpkg-deb -b /tmp/upgrade /tmp/upgrade.deb && rm -r /tmp/upgrade
}

install_deb() {
	DEBIAN_FRONTEND=noninteractive dpkg --force-confold -i "$1"
}

# --- Installed ---

check "installation started the daemon" is_active
check "and enabled it" systemctl is-enabled "$unit"
check "it is ordered before everything that could start an agent" \
	says basic.target systemctl show --property Before "$unit"
check "without an ordering cycle" fails says "ordering cycle" systemd-analyze verify default.target
check "it told systemd when it was ready" says "policy generation 1 in force" property StatusText
check "the API answers" agentguard status
check "the state is root's alone" says "700 root:root" mode_and_owner /var/lib/agentguard
check "the pins are root's alone" says "700 root:root" mode_and_owner "$pins"
check "exposure is under 3.0" exposure_is_below_3
echo "        systemd-analyze security: $(exposure)"
check "manual pages are part of it" says /usr/share/man/man1/agentguard-run.1.gz dpkg -L agentguard
check "the example policies pass their own check" agentguard policy check /usr/share/doc/agentguard/policies
check "the shipped configuration is all comments" fails grep -q '^[^#]' /etc/agentguard/agentguard.yaml

# --- A policy, and an agent under it ---

mkdir -p /srv/agent /srv/other
cp "$here/prober.py" "$here/actions.py" /srv/agent/
cp "$here/tester.yaml" /etc/agentguard/agents.d/
check "reload puts a manifest in force" systemctl reload "$unit"
check "and it is" says tester agentguard agents list
# Through a pipe: writing to a file that the agent was started with is decided by the file's name.
agent python3 /srv/agent/actions.py 2>&1 | cat >/tmp/actions
check "an agent writes where it may" grep -qx 'write-allowed done' /tmp/actions
check "and not elsewhere" grep -qx 'write-denied EPERM' /tmp/actions
check "connects where it may" grep -qx 'connect-allowed ECONNREFUSED' /tmp/actions
check "and not elsewhere, TCP" grep -qx 'connect-denied EPERM' /tmp/actions
check "nor UDP" grep -qx 'connect-denied-udp EPERM' /tmp/actions
check "nor IPv6" grep -qx 'connect-denied-6 EPERM' /tmp/actions
python3 /srv/agent/actions.py >/tmp/actions-untagged 2>&1
check "somebody else writes there" grep -qx 'write-denied done' /tmp/actions-untagged
check "and connects there" grep -qx 'connect-denied ECONNREFUSED' /tmp/actions-untagged
check "the journal shows the denial" says "/srv/other/file denied" journalctl -u "$unit" -o cat
check "and selects it by agent" says "/srv/other/file denied" journalctl AGENTGUARD_AGENT=tester -o cat

start_prober
check "an agent that never stops trying runs" soon test -s /srv/agent/prober
check "and is denied" still_denied
run=$(run_of_prober)

printf 'metadata: [\n' >/etc/agentguard/agents.d/broken.yaml
check "a broken manifest fails the reload" fails systemctl reload "$unit"
check "the journal says where it is broken" says "broken.yaml:1:11" journalctl -u "$unit" -o cat
check "the policy before it is in force" still_denied
rm /etc/agentguard/agents.d/broken.yaml
check "and the repaired set loads" systemctl reload "$unit"

# --- Without a daemon ---

check "stop" systemctl stop "$unit"
check "the daemon is gone" fails is_active
check "it said what stays" says "enforcement stays in place" journalctl -u "$unit" -o cat
check "enforcement stayed" still_denied
check "new runs wait for a daemon" answers 4 agent true
before=$(prober 1)
check "start" systemctl start "$unit"
check "it took over the run" says "$run" agentguard ps
check "with what was denied meanwhile" test "$(denials_of "$run")" -ge "$before"

pid=$(main_pid)
check "restart" systemctl restart "$unit"
check "by another process" is_another_than "$pid"
check "the agent was denied throughout" still_denied
check "the resolver's sockets outlived it" says "took over the sockets" journalctl -u "$unit" -o cat

pid=$(main_pid)
kill -KILL "$pid"
check "enforcement survives kill -9" still_denied
check "systemd starts the daemon again" soon is_another_than "$pid"
check "and the run is known" says "$run" agentguard ps

pid=$(main_pid)
kill -STOP "$pid"
check "enforcement survives a frozen daemon" still_denied
check "the watchdog replaces it" soon is_another_than "$pid"
check "the agent was denied throughout" still_denied

# --- Upgraded ---

pid=$(main_pid)
echo "# changed by the administrator" >>/etc/agentguard/agentguard.yaml
check "a package with a higher version is made" make_upgrade
check "upgrade" install_deb /tmp/upgrade.deb
check "it is installed" says +upgrade dpkg-query --show agentguard
check "the daemon was replaced" is_another_than "$pid"
check "the agent was denied throughout" still_denied
check "the run is known" says "$run" agentguard ps
check "the administrator's configuration stayed" grep -q "changed by the administrator" /etc/agentguard/agentguard.yaml
systemctl disable --now "$unit" 2>/dev/null
check "upgrade of a disabled daemon" install_deb "$deb"
check "leaves it stopped" fails is_active
check "and disabled" fails systemctl is-enabled --quiet "$unit"
check "enforcement stayed" still_denied
systemctl enable --now "$unit" 2>/dev/null

# --- Removed ---

check "the prober may work in its directory all the time" test "$(prober 3)" -eq 0
check "removal names the agent that goes on" says "$run" dpkg -r agentguard
check "the package is removed" says "deinstall ok config-files" dpkg-query --show --showformat '${Status}' agentguard
check "the daemon is gone" fails is_active
check "so are the pins" fails test -e "$pins"
check "the agent is free" soon got_through
check "the ledger stayed" says "$run" grep -rh '"run-started"' /var/lib/agentguard/ledger
check "so did manifests" test -e /etc/agentguard/agents.d/tester.yaml
check "and the binary went" fails test -e /usr/bin/agentguard
stop_prober

# --- Installed again, purged ---

check "installed again" install_deb "$deb"
check "the daemon runs" is_active
check "the manifests are in force" says tester agentguard agents list
check "earlier runs are known" says "$run" agentguard runs list
start_prober
check "agents are denied" soon still_denied
check "purge, with an agent running" dpkg -P agentguard
check "nothing is left" nothing_is_left
check "systemd knows no such unit" says not-found systemctl show --property LoadState "$unit"
stop_prober

# --- A daemon that cannot start ---

mkdir -p /etc/agentguard
echo "nonsense: true" >/etc/agentguard/agentguard.yaml
check "installing over a broken configuration succeeds" install_deb "$deb"
check "the daemon is not up" fails is_active
check "and said what is wrong" says "agentguard.yaml:1:1" journalctl -u "$unit" -o cat
check "purge" dpkg -P agentguard
check "nothing is left" nothing_is_left
check "not even a failed unit" fails says agentguard.service systemctl --failed --no-legend --plain

finish

#!/bin/sh
# Who becomes an agent on a whole Debian, and what it asks others to do: a unit and a container are
# matched as they start; systemd, D-Bus, at and cron do nothing for them that they may not do.
#
#   cargo xtask package && cargo xtask vm --debian --with at --with cron --with crun --with dbus \
#     --add tests/debian -- /add/identity.sh
. "$(dirname "$0")/lib.sh"

agents=/etc/agentguard/agents.d
container=/srv/container

# manifest NAME MATCH: may write below /srv/agent, and connect to every unix socket that no
# protection is about.
manifest() {
	cat >"$agents/$1.yaml" <<EOF
apiVersion: agentguard/v1
kind: Agent
metadata: { name: $1 }
spec:
  owner: tests@example.com
  environment: production
  authority: service
  mode: enforce
  enrol: { match: [$2] }
  permissions:
    write: { allow: ["/srv/agent/**", "/dev/null"] }
    connect: { allow: ["unix:/**"] }
EOF
}

# What is tried, by the agent and by nobody's shell. $1: where it may write, and where it says how
# it went; $2: where not.
cat >/srv/attempts <<'EOF'
#!/bin/sh
try() {
	name=$1
	shift
	if "$@" >"$may/output" 2>&1; then echo "$name: done"; else echo "$name: refused"; fi
}
may=$1 not=$2
exec >"$may/attempts.log" 2>&1 </dev/null
try write sh -c "echo x >$may/written"
try write-elsewhere sh -c "echo x >$not/written"
try systemd-run systemd-run --quiet --wait sh -c "echo x >$not/by-systemd-run"
try dbus dbus-send --system --print-reply --dest=org.freedesktop.systemd1 /org/freedesktop/systemd1 \
	org.freedesktop.DBus.Peer.Ping
try at sh -c "echo 'echo x >$not/by-at' | at now"
try crontab sh -c "echo '0 0 1 1 * true' | crontab -"
echo end
EOF
chmod 755 /srv/attempts

has_ended() {
	grep -q '^end$' "$1/attempts.log"
}

went() {
	says "$2: $3" cat "$1/attempts.log"
}

run_of() {
	agentguard runs list --agent "$1" --ended 5 --json | json "['runs'][0]['origin']"
}

denials_of() {
	agentguard events --agent "$1" --last 200 --json | grep -c '"verdict":"deny"'
}

mkdir -p /srv/agent /srv/other /srv/free /srv/freed

manifest unit-agent '{ systemd_unit: matched-agent.service }'
manifest container-agent '{ cgroup: /agents/one }'
cat >/etc/systemd/system/matched-agent.service <<'EOF'
[Service]
Type=oneshot
ExecStart=/srv/attempts /srv/agent /srv/other
EOF
systemctl daemon-reload
check "the daemon runs" soon is_active
check "the manifests are loaded" agentguard policy reload

echo "--- Nobody's: everything is done ---"
check "the attempts are made" /srv/attempts /srv/free /srv/freed
for attempt in write write-elsewhere systemd-run dbus at crontab; do
	check "$attempt is done" went /srv/free "$attempt" done
done
check "systemd did it" test -e /srv/freed/by-systemd-run
check "at did it" soon test -e /srv/freed/by-at
crontab -r

echo "--- The unit's ---"
check "the unit runs to its end" systemctl start matched-agent.service
check "it made its attempts" soon has_ended /srv/agent
check "what it may write is written" went /srv/agent write done
for attempt in write-elsewhere systemd-run dbus at crontab; do
	check "$attempt is refused" went /srv/agent "$attempt" refused
done
check "nobody did it for it" fails ls /srv/other/written /srv/other/by-systemd-run /srv/other/by-at
check "it has no crontab" fails crontab -l
check "its run is recorded as matched" [ "$(run_of unit-agent)" = matched ]
check "its denials are told" [ "$(denials_of unit-agent)" -gt 4 ]

echo "--- The container's ---"
# The host's own directories for its root: what counts is who is in its cgroup.
mkdir -p "$container/rootfs"
for directory in bin lib lib64 usr etc srv tmp dev proc; do
	mkdir -p "$container/rootfs/$directory"
done
(
	cd "$container" && crun spec
)
python3 - "$container/config.json" <<'EOF'
import json, sys
path = sys.argv[1]
config = json.load(open(path))
config["process"]["terminal"] = False
config["process"]["args"] = ["/bin/sh", "-c",
    "echo x >/srv/agent/by-container; echo x >/srv/other/by-container; echo $? >/srv/agent/container-code"]
config["root"] = {"path": "rootfs", "readonly": False}
config["linux"]["cgroupsPath"] = "/agents/one"
config["mounts"] += [
    {"destination": "/" + name, "source": "/" + name, "type": "none", "options": ["rbind", "rw"]}
    for name in ("bin", "lib", "lib64", "usr", "srv")
]
json.dump(config, open(path, "w"))
EOF
check "the container runs to its end" sh -c "cd $container && crun --cgroup-manager cgroupfs run one"
check "what it may write is written" test -e /srv/agent/by-container
check "what it may not write is not" fails test -e /srv/other/by-container
check "it saw the refusal" [ "$(cat /srv/agent/container-code)" -ne 0 ]
check "its run is recorded as matched" [ "$(run_of container-agent)" = matched ]
sed -i 's/cgroupsPath": "[^"]*"/cgroupsPath": "\/agents\/two"/' "$container/config.json"
check "a container elsewhere is nobody's" sh -c "cd $container && crun --cgroup-manager cgroupfs run two"
check "and wrote there" test -e /srv/other/by-container

finish

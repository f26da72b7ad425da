#!/bin/sh
# Debian's Prometheus scrapes the daemon: the metrics pass promtool, a denial is found by a query, and
# the alert rules of the package load, are tested, and one of them fires when the daemon stops.
#
#   cargo xtask vm --debian --with prometheus --add tests/debian --add policies/prometheus \
#       -- /add/debian/prometheus.sh
. "$(dirname "$0")/lib.sh"

rules=/usr/share/agentguard/prometheus/agentguard.rules.yaml

# The value of a query's one series; fails when there is none.
query() {
	curl -fsS --get --data-urlencode "query=$1" http://127.0.0.1:9090/api/v1/query |
		json "['data']['result'][0]['value'][1]"
}

query_says() {
	[ "$(query "$2")" = "$1" ]
}

metrics_pass() {
	curl -fsS http://127.0.0.1:9470/metrics >/tmp/metrics && promtool check metrics </tmp/metrics
}

check "the rules are well-formed" promtool check rules "$rules"
check "each fires on its case and on no other" promtool test rules "$here/../prometheus/agentguard.rules.test.yaml"
check "the tested rules are the package's" cmp "$here/../prometheus/agentguard.rules.yaml" "$rules"

mkdir -p /srv/agent /srv/other
cp "$here/tester.yaml" /etc/agentguard/agents.d/
check "an agent's policy is in force" systemctl reload "$unit"
check "the metrics pass promtool" metrics_pass

# The rules wait two minutes before they call a daemon gone; a test need not.
sed 's/for: 2m/for: 1s/' "$rules" >/etc/prometheus/agentguard.rules.yaml
cat >/etc/prometheus/prometheus.yml <<'Y'
global: { scrape_interval: 2s, evaluation_interval: 2s }
rule_files: [agentguard.rules.yaml]
scrape_configs:
  - job_name: agentguard
    static_configs: [{ targets: ["127.0.0.1:9470"] }]
Y
check "Prometheus takes the configuration" promtool check config /etc/prometheus/prometheus.yml
check "and starts" systemctl restart prometheus
check "it scrapes the daemon" soon query_says 1 'up{job="agentguard"}'

for _ in 1 2 3; do
	agentguard run --agent tester -- python3 -c 'open("/srv/other/file", "w")' 2>/dev/null
done
check "a query shows what was denied, by agent and verb" soon query_says 3 \
	'sum(agentguard_decisions_total{agent="tester", environment="production", owner="tests@example.com", verb="create", verdict="deny", mode="enforce"})'
check "and no alert is on, for the host has everything" \
	fails query 'ALERTS{alertstate="firing"}'

systemctl restart "$unit"
check "the count survives the daemon" soon query_says 3 \
	'sum(agentguard_decisions_total{agent="tester", verb="create", verdict="deny"})'

check "the daemon stops" systemctl stop "$unit"
check "the alert for that fires" soon query_says 1 'ALERTS{alertname="AgentGuardDown", alertstate="firing"}'

finish

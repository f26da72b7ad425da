# shellcheck shell=sh
# Sourced by network.sh: what is around the agent `lookups`, and what must have come of it.

# Phase, zone, and how many lookups by Python, Node, Go, curl and dig.
lookups_phases() {
	cat <<-END
		dnsmasq a ${LOOKUPS:-2000 1400 1200 250 150}
		unbound b ${LOOKUPS:-2000 1400 1200 250 150}
		resolved b ${LOOKUPS:-250 150 150 30 20}
	END
}

lookups_before() {
	start_dnsmasq
	start_unbound
	soon answers_names 192.0.2.53 a
	soon answers_names 192.0.2.54 b
	lookups_phases >"$run/phases"
	: >"$run/visits"
}

# Changes the server when the agent asks for it.
lookups_beside() {
	wait_for /srv/lookups/want-dnsmasq
	resolv 192.0.2.53
	: >"$run/serve-dnsmasq"
	wait_for /srv/lookups/want-unbound
	resolv 127.0.0.1
	: >"$run/serve-unbound"
	wait_for /srv/lookups/want-resolved
	start_resolved
	# As Debian's own file for the stub.
	resolv 127.0.0.53 "options edns0 trust-ad"
	: >"$run/serve-resolved"
}

# sum FIELD [PHASES]: of the tallies, which are: phase, "tally", program, lookups, connects, names that were
# not found, connections refused, what was wrong.
sum() {
	awk -v field="$1" -v phases="^(${2:-.*})\$" '
		$2 == "tally" && $1 ~ phases { sum += $field }
		END { print sum + 0 }' /tmp/lookups.log
}

# tallied PHASE PROGRAM COUNT: every lookup and connection succeeded, and every twin was refused.
tallied() {
	twins=$((($3 + 9) / 10))
	grep -qx "$1 tally $2 $3 $3 $twins $((2 * twins)) 0" /tmp/lookups.log || {
		grep "^$1 $2:" /tmp/lookups.log | head -n 20
		grep "^$1 tally $2" /tmp/lookups.log
		return 1
	}
}

visits_add_up() {
	echo "198.51.100.0/24 and 2001:db8:1::/64: $(visits '^(198\.51\.100\.|2001:db8:1:)')"
	echo "203.0.113.0/24 and 2001:db8:2::/64: $(visits '^(203\.0\.113\.|2001:db8:2:)')"
	[ "$(visits '^(198\.51\.100\.|2001:db8:1:)')" -eq "$(sum 5 dnsmasq)" ] &&
		[ "$(visits '^(203\.0\.113\.|2001:db8:2:)')" -eq "$(sum 5 'unbound|resolved')" ]
}

lookups_after() {
	grep -E '^[a-z]+ (tally|took|slowest)' /tmp/lookups.log | sed 's/^/        /'
	while read -r phase _ python node go curl dig; do
		check "lookups: $phase: Python" tallied "$phase" python "$python"
		check "lookups: $phase: Node" tallied "$phase" node "$node"
		check "lookups: $phase: Go" tallied "$phase" go "$go"
		check "lookups: $phase: curl" tallied "$phase" curl "$curl"
		check "lookups: $phase: dig" tallied "$phase" dig "$dig"
	done <"$run/phases"
	check "lookups: the server saw as many connections" visits_add_up
	check "lookups: and none at an address of another name" none_at_unlisted
	check "lookups: the daemon's resolver left no question" all_answered
	show "$log"
	check "without a tag, the same account may go there" \
		says 203.0.113.240 as_worker curl --silent http://x000.other.example:8000/ --ipv4
}

# Half of the refused connections are to an IPv4 address.
lookups_denials() {
	refused=$(sum 7)
	set -- --exactly "$((refused / 2)) connect *.24? 8000/tcp" \
		--exactly "$((refused / 2)) connect *::f? 8000/tcp" \
		--names '*.other.example'
	adds_up lookups "$@"
}

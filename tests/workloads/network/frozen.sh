# shellcheck shell=sh
# Sourced by network.sh: what is done to the daemon under the agent `frozen`, and what must have come of it.

frozen_before() {
	start_dnsmasq && resolv 192.0.2.53 "options attempts:1" || return 1
	phase normal
	: >>"$run/visits"
	# A frozen daemon would be killed by systemd, and a killed one started.
	mkdir -p /run/systemd/system/agentguard.service.d
	printf '[Service]\nWatchdogSec=0\nRestart=no\n' >/run/systemd/system/agentguard.service.d/frozen.conf
	systemctl daemon-reload && systemctl restart "$unit" && soon asks 192.0.2.53
}

# phase NAME: whole or not at all, for it is read all the time.
phase() {
	echo "$1" >"$run/phase.new"
	mv "$run/phase.new" "$run/phase"
}

# stays NAME SECONDS: the time is what is measured.
stays() {
	phase "$1"
	sleep "$2"
	phase between
}

# recovers NUMBER: until many questions in a row are answered.
recovers() {
	phase "recovering-$1"
	began=$(uptime_seconds)
	wait_for "/srv/frozen/well-$1"
	echo "well-$1 after $(($(uptime_seconds) - began)) s"
	phase between
}

is_dead() {
	[ "$(property ActiveState)" = failed ] && [ "$(main_pid)" = 0 ]
}

frozen_beside() {
	wait_for /srv/frozen/want-freeze
	stays normal 20
	daemon=$(main_pid)
	kill -STOP "$daemon"
	stays stopped 60
	[ "$(main_pid)" = "$daemon" ]
	kill -CONT "$daemon"
	recovers 1
	stays continued 20
	systemctl kill -s KILL "$unit"
	soon is_dead
	stays killed 60
	is_dead
	systemctl start "$unit"
	recovers 2
	stays restarted 20
	phase end
}

# only PHASE KIND RESULT...: of that kind there were operations in that phase, and no other results.
only() {
	when=$1
	kind=$2
	shift 2
	grep "^counted $when $kind " /tmp/frozen.log || {
		echo "no $kind while $when"
		return 1
	}
	results=$(echo "$*" | tr ' ' '|')
	! grep "^counted $when $kind " /tmp/frozen.log | grep -vE "^counted $when $kind ($results) [0-9]+\$"
}

frozen_after() {
	rm /run/systemd/system/agentguard.service.d/frozen.conf
	systemctl daemon-reload
	systemctl restart "$unit"
	sed -n 's/^counted /        /p' /tmp/frozen.log
	sed -n 's/^well/        well/p' /tmp/frozen.beside
	for when in normal stopped continued killed restarted; do
		check "frozen: $when: established connections go on" only "$when" established reached
		check "frozen: $when: addresses that were given are reached" only "$when" given-address reached
		check "frozen: $when: those that were not are refused" only "$when" not-given-address eperm
		check "frozen: $when: those of other names are refused" only "$when" unlisted-address eperm
	done
	for when in normal continued restarted; do
		check "frozen: $when: questions are answered" only "$when" question reached
		check "frozen: $when: other names do not exist" only "$when" unlisted-question no-such-name
	done
	for when in stopped killed; do
		check "frozen: $when: questions fail" only "$when" question no-answer
		check "frozen: $when: and for other names" only "$when" unlisted-question no-answer
	done
	check "frozen: no address of another name was reached" none_at_unlisted
}

# Records are lost with a daemon that is killed: how many denials are left of each kind is not known.
frozen_denials() {
	adds_up frozen --exactly 'any connect *.24? 8000/tcp' --exactly 'any connect *::f? 8000/tcp' \
		--exactly 'any connect 198.51.100.160 8000/tcp' --exactly 'any connect [?]' --names '*.other.example'
}

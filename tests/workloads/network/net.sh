# shellcheck shell=sh
# Sourced by network.sh: addresses that names can open (not those of the loopback interface), a server of
# pages at all of them, and the DNS servers.
run=/run/workloads

make_net() {
	modprobe dummy
	ip link add named type dummy
	ip link set named up
	ip address add 192.0.2.53/32 dev named
	ip address add 192.0.2.54/32 dev named
	# Every address of these networks is this host's.
	for network in 192.0.2.0/24 198.51.100.0/24 203.0.113.0/24; do
		ip route add local "$network" dev named
	done
	ip -6 route add local 2001:db8::/32 dev named
	mkdir -p "$run/nginx.d"
	for network in a b; do
		python3 "$here/network/zone.py" "$run" "$network"
	done
}

# --- Pages ---

# The page of an address is the address, and each visit is a line in $run/visits.
start_pages() {
	cat >"$run/nginx.conf" <<-'END'
		user root;
		worker_processes 1;
		pid /run/workloads/nginx.pid;
		error_log /run/workloads/nginx.log;
		events { worker_connections 4096; }
		http {
			log_format visits "$server_addr";
			access_log off;
			keepalive_requests 1000000;
			keepalive_timeout 3600;
			server {
				listen 8000 backlog=1024;
				listen [::]:8000 ipv6only=on backlog=1024;
				access_log /run/workloads/visits visits;
				location / { return 200 "$server_addr\n"; }
			}
			include /run/workloads/nginx.d/*.conf;
		}
	END
	nginx -c "$run/nginx.conf"
}

# visits PATTERN: how many were at addresses that match.
visits() {
	grep -cE "$1" "$run/visits" || true
}

# None was at an address of a name that no rule allows.
none_at_unlisted() {
	[ "$(visits '\.24[0-9]$|::f[0-9]$')" -eq 0 ]
}

# --- DNS servers ---

start_dnsmasq() {
	[ ! -e "$run/dnsmasq.pid" ] || return 0
	cat "$here/network/work.dnsmasq" >>"$run/a.dnsmasq"
	dnsmasq --conf-file="$run/a.dnsmasq" --pid-file="$run/dnsmasq.pid" --user=root --no-resolv --no-hosts \
		--bind-interfaces --listen-address=192.0.2.53 --except-interface=lo --local=/example/ --cache-size=2000
}

start_unbound() {
	[ ! -e "$run/unbound.pid" ] || return 0
	cat >"$run/unbound.conf" <<-END
		server:
		 interface: 127.0.0.1
		 interface: 192.0.2.54
		 access-control: 0.0.0.0/0 allow
		 username: ""
		 chroot: ""
		 directory: "$run"
		 pidfile: "$run/unbound.pid"
		 use-syslog: no
		 logfile: "$run/unbound.log"
		 # Nothing to validate: the names are the test's own.
		 module-config: "iterator"
		 num-threads: 1
		remote-control:
		 control-enable: no
	END
	cat "$run/b.unbound" >>"$run/unbound.conf"
	unbound -c "$run/unbound.conf"
}

# systemd's stub, which asks unbound.
start_resolved() {
	mkdir -p /run/systemd/resolved.conf.d
	cat >/run/systemd/resolved.conf.d/names.conf <<-END
		[Resolve]
		DNS=192.0.2.54
		Domains=~.
		DNSSEC=no
		LLMNR=no
		MulticastDNS=no
	END
	systemctl restart systemd-resolved
}

# resolv ADDRESS [LINE]: the host's server from now on; returns when the daemon knows.
resolv() {
	printf 'nameserver %s\n%s\n' "$1" "${2-}" >/etc/resolv.conf.new
	mv /etc/resolv.conf.new /etc/resolv.conf
	soon asks "$1"
}

asks() {
	agentguard status --json | python3 -c '
import json, sys
sys.exit(json.load(sys.stdin)["resolver"]["servers"] != sys.argv[1:])' "$1"
}

# Of the questions since the daemon started, every one was answered, or refused by the rules.
all_answered() {
	curl --silent http://127.0.0.1:9470/metrics | sed -n 's/^agentguard_names_asked_total{result="\(.*\)"}/\1/p' |
		awk '
			{ count[$1] = $2; print }
			END { exit count["messages"] == 0 || count["messages"] != count["answered"] + count["refused"] }'
}

# answers_names SERVER ZONE: each name has the addresses that the list says.
answers_names() {
	while read -r wanted addresses; do
		echo "$wanted A"
		echo "$wanted AAAA"
	done <"$run/$2.listed" >"$run/questions"
	dig "@$1" +short +tcp -f "$run/questions" | grep -v '\.$' | sort >"$run/answered"
	cut -d ' ' -f 2- "$run/$2.listed" | tr ' ' '\n' | sort | diff - "$run/answered"
}

# wait_for FILE
wait_for() {
	until [ -e "$1" ]; do
		sleep 0.2
	done
}

# shellcheck shell=sh
# Sourced by network.sh: the servers of the agent `names-programs`, all of them outside it, and what must have
# come of it.

# A certificate authority of the test's own, and one certificate for all servers.
make_tls() {
	mkdir -p "$run/tls" /srv/tls
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=Test CA" \
		-keyout "$run/tls/ca.key" -out /srv/tls/ca.crt
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=work.example" \
		-keyout "$run/tls/server.key" -out "$run/tls/server.csr"
	echo "subjectAltName=DNS:git.work.example,DNS:pypi.work.example,DNS:npm.work.example,DNS:db.work.example" \
		>"$run/tls/names"
	openssl x509 -req -in "$run/tls/server.csr" -days 30 -extfile "$run/tls/names" -CA /srv/tls/ca.crt \
		-CAkey "$run/tls/ca.key" -CAcreateserial -out "$run/tls/server.crt"
	chmod 0644 /srv/tls/ca.crt
}

# git's own program behind nginx, as the account that owns the repository.
serve_git() {
	install -d -o worker -g worker /srv/served "$run/fcgi"
	as_worker sh -eu -c '
		git init -q -b main --bare /srv/served/work.git
		git -C /srv/served/work.git config http.receivepack true
		git init -q -b main first
		cd first
		git -c user.name=a -c user.email=a@example.com commit -q --allow-empty -m first
		git push -q /srv/served/work.git main'
	as_worker fcgiwrap -c 2 -s "unix:$run/fcgi/socket" &
	cat >"$run/nginx.d/git.conf" <<-'END'
		ssl_certificate /run/workloads/tls/server.crt;
		ssl_certificate_key /run/workloads/tls/server.key;
		server {
			listen 443 ssl;
			listen [::]:443 ssl ipv6only=on;
			server_name git.work.example;
			client_max_body_size 0;
			location / {
				include /etc/nginx/fastcgi_params;
				fastcgi_param SCRIPT_FILENAME /usr/lib/git-core/git-http-backend;
				fastcgi_param GIT_HTTP_EXPORT_ALL "";
				fastcgi_param GIT_PROJECT_ROOT /srv/served;
				fastcgi_param PATH_INFO $uri;
				fastcgi_pass unix:/run/workloads/fcgi/socket;
			}
		}
		server {
			listen 443 ssl;
			listen [::]:443 ssl;
			server_name pypi.work.example;
			root /run/workloads/www/pypi;
			location / {
				default_type text/html;
				index index.html;
			}
		}
		server {
			listen 443 ssl;
			listen [::]:443 ssl;
			server_name npm.work.example;
			root /run/workloads/www/npm;
			location / {
				default_type application/json;
				try_files $uri $uri/packument.json =404;
			}
		}
	END
}

# An index of the wheels that the workload pip installs from a directory.
serve_pip() {
	mkdir -p "$run/www/pypi/simple"
	for wheel in /add/inputs/wheels/*.whl; do
		file=$(basename "$wheel")
		project=$(echo "${file%%-*}" | tr '_A-Z' '\055a-z')
		mkdir -p "$run/www/pypi/simple/$project"
		cp "$wheel" "$run/www/pypi/simple/$project/"
		echo "<a href=\"$file\">$file</a>" >>"$run/www/pypi/simple/$project/index.html"
	done
}

# package NAME MORE PROGRAM: a package and what a registry says of it.
package() {
	dir=$run/www/npm/$1
	mkdir -p "$dir/package" "$dir/-"
	printf '{"name": "%s", "version": "1.0.0"%s}\n' "$1" "$2" >"$dir/package/package.json"
	echo "$3" >"$dir/package/$1.js"
	tar -C "$dir" -czf "$dir/-/$1-1.0.0.tgz" package
	digest=$(sha1sum "$dir/-/$1-1.0.0.tgz" | cut -d ' ' -f 1)
	cat >"$dir/packument.json" <<-END
		{"name": "$1", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0":
		 {"name": "$1", "version": "1.0.0"$2,
		  "dist": {"shasum": "$digest", "tarball": "https://npm.work.example/$1/-/$1-1.0.0.tgz"}}}}
	END
}

serve_npm() {
	package words ', "main": "words.js"' 'module.exports = ["a", "b", "c"];'
	package greet ', "main": "greet.js", "dependencies": {"words": "1.0.0"}' \
		'console.log("hello " + require("words").join("-"));'
}

serve_ssh() {
	mkdir -p /run/sshd "$run/ssh"
	ssh-keygen -q -t ed25519 -N '' -f "$run/ssh/host"
	as_worker ssh-keygen -q -t ed25519 -N '' -f /srv/names-programs/key
	mv /srv/names-programs/key.pub "$run/ssh/authorized"
	echo "[ssh.work.example]:2222 $(cut -d ' ' -f 1-2 "$run/ssh/host.pub")" >/srv/names-programs/known
	# An account without any password, "!", is closed to keys as well.
	usermod -p '*' worker
	cat >"$run/ssh/config" <<-END
		Port 2222
		HostKey $run/ssh/host
		AuthorizedKeysFile $run/ssh/authorized
		PidFile $run/ssh/pid
		PasswordAuthentication no
		StrictModes no
		UsePAM no
	END
	/usr/sbin/sshd -f "$run/ssh/config"
}

serve_postgresql() {
	install -o postgres -g postgres -m 0600 "$run/tls/server.key" "$run/tls/server.crt" /etc/postgresql/15/main/
	cat >/etc/postgresql/15/main/conf.d/names.conf <<-END
		listen_addresses = '*'
		ssl = on
		ssl_cert_file = '/etc/postgresql/15/main/server.crt'
		ssl_key_file = '/etc/postgresql/15/main/server.key'
	END
	echo 'hostssl work agent all scram-sha-256' >>/etc/postgresql/15/main/pg_hba.conf
	systemctl start postgresql@15-main
	runuser -u postgres -- psql -c "CREATE ROLE agent LOGIN PASSWORD 'secret'"
	runuser -u postgres -- psql -c 'CREATE DATABASE work OWNER agent'
}

names_programs_before() {
	echo "$minutes" >"$run/minutes"
	start_dnsmasq && resolv 192.0.2.53 && make_tls && serve_git && serve_pip && serve_npm &&
		nginx -c "$run/nginx.conf" -s reload && serve_ssh && serve_postgresql || return 1
	python3 "$here/network/programs/events.py" serve 8001 >/tmp/events.log 2>&1 &
	soon curl --silent --cacert /srv/tls/ca.crt --output /dev/null https://pypi.work.example/simple/certifi/
}

names_programs_beside() {
	:
}

events_of() {
	sed -n "s/^events .* $1 \([0-9]*\).*/\1/p" /tmp/names-programs.log
}

# The stream ran for as long as it should, and the time of its name ended every 90 s.
streamed() {
	grep '^events ' /tmp/names-programs.log
	refused=$(events_of refused)
	[ "${refused:-0}" -ge $((minutes * 60 / 110)) ]
}

names_programs_after() {
	grep -E '^(events|refused [0-9])' /tmp/names-programs.log | sed 's/^/        /'
	check "names-programs: events came all the while" streamed
	check "names-programs: the server has what was pushed by both ways" pushed
	check "without a tag, the same account may go to the other server" \
		as_worker curl --silent --insecure --output /dev/null https://closed.work.example/
}

pushed() {
	[ "$(as_worker git -C /srv/served/work.git log --format=%s main | tr '\n' ,)" = "by ssh,by https,first," ]
}

# The addresses of the events' server when the time was over, and of the one that no rule names (pip tries twice);
# and the one connection that is for that server at another's address, with what was tried on it after it was cut.
names_programs_denials() {
	refused=$(events_of refused)
	set -- --exactly "${refused:-0} connect 192.0.2.106 8001/tcp" \
		--exactly '4 connect 192.0.2.110 443/tcp' \
		--exactly '1 connect 192.0.2.101 443/tcp' --exactly 'any connect [?]' \
		--exactly '1 connect 192.0.2.110 2222/tcp' \
		--exactly '1 connect 192.0.2.110 5432/tcp' \
		--names closed.work.example
	adds_up names-programs "$@"
}

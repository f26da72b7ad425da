#!/bin/sh
# git over https and ssh, pip, npm and psql, each by its server's name, and each once by the number of a
# server that no name was given for; beside them a stream of events. In /srv/names-programs.
set -eux
ca=/srv/tls/ca.crt
refusals=$PWD/refusals
export GIT_SSL_CAINFO=$ca GIT_CONFIG_GLOBAL="$PWD/gitconfig"
export GIT_SSH_COMMAND="ssh -F none -i $PWD/key -o IdentitiesOnly=yes -o BatchMode=yes \
	-o UserKnownHostsFile=$PWD/known -o GlobalKnownHostsFile=none -o StrictHostKeyChecking=yes"
export npm_config_registry=https://npm.work.example/ npm_config_cafile=$ca npm_config_audit=false \
	npm_config_fund=false npm_config_update_notifier=false npm_config_fetch_retries=0
export PGSSLMODE=verify-full PGSSLROOTCERT=$ca PGUSER=agent PGPASSWORD=secret PGDATABASE=work PGPASSFILE=/dev/null

# refused COMMAND...: it fails, and says that a connection was not permitted, or that it could not be made.
refused() {
	if "$@" >refusal 2>&1; then
		return 1
	fi
	cat refusal
	grep -qiE "not permitted|EPERM|couldn't connect|failed to connect" refusal
	echo refused >>"$refusals"
}

# unknown COMMAND...: it fails, for there is no such name.
unknown() {
	if "$@" >refusal 2>&1; then
		return 1
	fi
	cat refusal
	grep -qiE 'could not resolve|not known|ENOTFOUND|could not translate' refusal
}

python3 /add/workloads/network/programs/events.py follow \
	events.work.example 8001 "$(cat /run/workloads/minutes)" >events &
events=$!
trap 'kill "$events" 2>/dev/null || :' EXIT

git config --global user.name Worker
git config --global user.email worker@example.com
git clone https://git.work.example/work.git by-https
cd by-https
seq 1 2000 >numbers
git add numbers
git commit -q -m "by https"
git push -q origin main
cd ..
refused git clone https://192.0.2.110/work.git none
unknown git clone https://closed.work.example/work.git none

git clone ssh://worker@ssh.work.example:2222/srv/served/work.git by-ssh
cd by-ssh
[ "$(wc -l <numbers)" -eq 2000 ]
seq 1 3000 >numbers
git commit -q -a -m "by ssh"
git push -q origin main
cd ../by-https
git pull -q
[ "$(wc -l <numbers)" -eq 3000 ]
cd ..
refused git clone ssh://worker@192.0.2.110:2222/srv/served/work.git none
unknown git clone ssh://worker@closed.work.example:2222/srv/served/work.git none

python3 -m venv venv
pip() {
	# With a repetition it says why there is no index.
	venv/bin/pip install --disable-pip-version-check --cert "$ca" --retries 1 "$@" requests==2.31.0
}
refused pip --index-url https://192.0.2.110/simple/
unknown pip --index-url https://closed.work.example/simple/
pip --index-url https://pypi.work.example/simple/
venv/bin/python -c 'import requests, sys; sys.exit(requests.__version__ != "2.31.0")'

mkdir app
cd app
npm init --yes >/dev/null
npm install greet
[ "$(node node_modules/greet/greet.js)" = "hello a-b-c" ]
refused npm install --registry=https://192.0.2.110/ other
unknown npm install --registry=https://closed.work.example/ other
cd ..

psql -h db.work.example -c 'CREATE TABLE numbers AS SELECT generate_series(1, 1000) AS number'
[ "$(psql -h db.work.example -At -c 'SELECT sum(number) FROM numbers')" = 500500 ]
[ "$(psql -h db.work.example -At -c 'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()')" = t ]
refused psql -h closed.work.example -c 'SELECT 1' "hostaddr=192.0.2.110"
unknown psql -h closed.work.example -c 'SELECT 1'

# A server that no rule names, at an address that one does: it fails at once, and not when TCP gives up.
status=0
timeout 20 curl --silent --ipv4 --cacert "$ca" --output none --connect-to ::git.work.example:443 \
	https://closed.work.example/ || status=$?
[ "$status" -ne 0 ] && [ "$status" -ne 124 ]

[ "$(wc -l <"$refusals")" -eq 5 ]
wait "$events"
cat events

#!/bin/sh
# What the driver starts as an agent: a workload, then what its policy must refuse. The last line says
# how the workload ended, and the lines before it what became of the refusals: the driver knows what
# they must be.
#
#   tagged.sh NAME
set -u
here=$(dirname "$0")
name=$1

# tried NAME COMMAND...: whether the command got through.
tried() {
	what=$1
	shift
	if "$@" >/dev/null 2>&1; then
		echo "tried $what: through"
	else
		echo "tried $what: refused"
	fi
}

cd "/srv/$name" || exit 1
"$here/cases/$name.sh"
code=$?
# Each is something that the account may do: without the policy, all get through.
tried write sh -c 'echo changed >/srv/outside/file'
tried create sh -c 'echo new >/srv/outside/new'
tried delete rm -f /srv/outside/gone
tried attributes chmod 0600 /srv/outside/file
tried link ln /srv/outside/file "/srv/$name/twin-b"
tried key cat /home/worker/.ssh/id_ed25519
tried secret cat /srv/secrets/file
# A twin in the other direction: the same commands on what is allowed.
tried own-write sh -c "echo a >/srv/$name/twin-a"
tried own-attributes chmod 0600 "/srv/$name/twin-a"
tried own-link ln "/srv/$name/twin-a" "/srv/$name/twin-b"
tried own-read cat "/srv/$name/twin-a"
tried own-delete rm -f "/srv/$name/twin-a" "/srv/$name/twin-b"
echo "ended $name: $code"

# Sourced by the scripts beside it, which run in `cargo xtask vm --debian` with the package installed:
# a line a check, what went wrong below it, totals at the end.
set -u
export LC_ALL=C.UTF-8 SYSTEMD_PAGER= SYSTEMD_COLORS=0

passed=0
failed=0
log=$(mktemp)
unit=agentguard.service
pins=/sys/fs/bpf/agentguard
here=$(dirname "$0")

# check NAME COMMAND...: the command succeeds.
check() {
	name=$1
	shift
	if "$@" >"$log" 2>&1; then
		passed=$((passed + 1))
		echo "ok      $name"
	else
		failed=$((failed + 1))
		echo "FAILED  $name: $*"
		sed 's/^/    | /' "$log"
	fi
}

# fails COMMAND...: the command fails.
fails() {
	! "$@"
}

# says TEXT COMMAND...: the command's output has the text, whatever its exit code.
says() {
	text=$1
	shift
	said=$("$@" 2>&1)
	case $said in
	*"$text"*) return 0 ;;
	esac
	printf '%s\n--- has not: %s\n' "$said" "$text"
	return 1
}

# answers CODE COMMAND...: the command's exit code.
answers() {
	wanted=$1
	shift
	"$@"
	code=$?
	echo "exit code $code, expected $wanted"
	[ "$code" -eq "$wanted" ]
}

# soon COMMAND...: the command succeeds within two minutes (emulated machines are slow).
soon() {
	end=$(($(uptime_seconds) + 300))
	until "$@"; do
		if [ "$(uptime_seconds)" -ge "$end" ]; then
			echo "not within two minutes"
			return 1
		fi
		sleep 0.2
	done
}

uptime_seconds() {
	cut -d . -f 1 /proc/uptime
}

is_active() {
	systemctl is-active --quiet "$unit"
}

main_pid() {
	systemctl show --property MainPID --value "$unit"
}

property() {
	systemctl show --property "$1" --value "$unit"
}

# Prints a value out of JSON on standard input: json "['runs'][0]['denials']".
json() {
	python3 -c "import json, sys; print(json.load(sys.stdin)$1)"
}

# Ends the script with totals; what the daemon said is shown when something failed.
finish() {
	if [ "$failed" -ne 0 ]; then
		echo "--- journalctl -u $unit (the end of it)"
		journalctl -u "$unit" --no-pager -o short-monotonic -n 60
	fi
	echo "$(basename "$0"): $passed passed, $failed failed"
	[ "$failed" -eq 0 ]
	exit
}

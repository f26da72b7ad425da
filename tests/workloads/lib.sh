# shellcheck shell=sh
# Sourced by the scripts beside it: the checks of ../debian, and what only these need.
# shellcheck source-path=SCRIPTDIR source=../debian/lib.sh
. "$(dirname "$0")/../debian/lib.sh"

# The kernel said nothing of a fault, a hang or a stall; the command that started the machine looks too.
no_fault() {
	! dmesg | grep -E \
		'WARNING:|BUG:|Oops|general protection|rcu.*(stall|detected)|blocked for more than|soft lockup|hung task|UBSAN'
}

# Shows what a file beside the check says, indented as part of the report.
show() {
	sed 's/^/        /' "$1"
}

#!/bin/sh
# The same as lookups.py by programs that are started for each name: curl, which looks up itself, and
# dig, after which curl connects to what it printed; every other dig asks by TCP.
#
#   lookups.sh curl|dig NETWORK COUNT       NETWORK.listed and NETWORK.unlisted have the names
set -u
program=$1
network=$2
total=$3
lookups=0 connects=0 nxdomain=0 refused=0 wrong=0

wrong() {
	wrong=$((wrong + 1))
	echo "$program: $*"
}

# get ADDRESS: the page of a server, by its number.
get() {
	case $1 in
	*:*) set -- "[$1]" ;;
	esac
	curl --silent --globoff --max-time 60 "http://$1:8000/"
}

# reached ADDRESS ADDRESSES: one of them says that it was reached.
reached() {
	case " $2 " in
	*" $1 "*) connects=$((connects + 1)) ;;
	*) wrong "$name: '$1' is none of $2" ;;
	esac
}

# The last line that is no alias.
addresses_of() {
	last=
	while read -r line; do
		case $line in
		*.) ;;
		*) last=$line ;;
		esac
	done
	echo "$last"
}

# dug NAME TYPE OPTION...
dug() {
	if [ $((number % 2)) -eq 0 ]; then
		dig +timeout=10 +tries=3 "$@"
	else
		dig +tcp +timeout=10 +tries=3 "$@"
	fi
}

curl_one() {
	said=$(curl --silent --max-time 60 "http://$name:8000/")
	code=$?
	[ "$code" -eq 0 ] || wrong "$name: code $code"
	lookups=$((lookups + 1))
	reached "$said" "$1"
}

curl_none() {
	curl --silent --max-time 60 "http://$name:8000/"
	code=$?
	[ "$code" -eq 6 ] || wrong "$name: code $code, and 6 is a name that is not found"
	nxdomain=$((nxdomain + 1))
}

dig_one() {
	case $1 in
	*.*) kind=A ;;
	*) kind=AAAA ;;
	esac
	address=$(dug "$name" "$kind" +short | addresses_of)
	case " $1 " in
	*" $address "*) lookups=$((lookups + 1)) ;;
	*) wrong "$name: '$address' is none of $1" ;;
	esac
	reached "$(get "$address")" "$address"
}

dig_none() {
	said=$(dug "$name")
	case $said in
	*NXDOMAIN*) nxdomain=$((nxdomain + 1)) ;;
	*) wrong "$name: $said" ;;
	esac
}

# One plan for all: a shell has no random numbers, and picking lines takes a process each.
awk -v total="$total" '
	FNR == NR { listed[NR - 1] = $0; next }
	{ unlisted[FNR - 1] = $0 }
	END {
		for (number = 0; number < total; number++) {
			print listed[int(number * 20 / total) % 10 * 20 + number * 7 % 20]
			if (number % 10 == 0) print unlisted[number / 10 % FNR]
		}
	}' "$network.listed" "$network.unlisted" >"plan.$program"
number=0
while read -r name addresses; do
	case $name in
	*.other.example)
		"${program}_none"
		for address in $addresses; do
			get "$address"
			code=$?
			[ "$code" -eq 7 ] || wrong "$address: code $code, and 7 is a refusal"
			refused=$((refused + 1))
		done
		;;
	*)
		"${program}_one" "$addresses"
		number=$((number + 1))
		;;
	esac
done <"plan.$program"
echo "tally $program $lookups $connects $nxdomain $refused $wrong"

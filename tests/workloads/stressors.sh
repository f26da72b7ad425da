#!/bin/sh
# Runs stressors one after the other in a directory; for each a line "NAME CODE" on standard output,
# what it said if that is not 0 on standard error. Codes are stress-ng's (0 passed, 2 failed, 3 and 4
# cannot run here) or 124 for one that did not end.
#
#   stressors.sh DIRECTORY SECONDS NAME...
set -u
directory=$1
seconds=$2
shift 2

# An emulated processor needs minutes to fill the sizes meant for real disks.
options="--hdd-bytes 4m --iomix-bytes 4m --fallocate-bytes 4m --copy-file-bytes 128m --seek-size 4m
	--readahead-bytes 4m --sync-file-bytes 4m --dentries 128"

for name in "$@"; do
	# Without word splitting the options would be one.
	# shellcheck disable=SC2086
	said=$(timeout --kill-after=30 $((seconds * 10 + 120)) \
		stress-ng --"$name" 1 --timeout "$seconds" --temp-path "$directory" --verify $options 2>&1)
	code=$?
	echo "$name $code"
	if [ "$code" -ne 0 ]; then
		printf -- '--- %s: %s\n%s\n' "$name" "$code" "$said" >&2
	fi
done

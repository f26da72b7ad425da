#!/bin/sh
# Called by Cargo as `rustc-wrapper.sh RUSTC ARGUMENTS...`.
#
# Cargo derives `-C metadata` from the absolute paths of the crates outside the workspace (here:
# agentguard-common and the compiler's own library), and the compiler puts it into symbol names. A
# value made of the package's name and version is as unique and the same in every directory.
set -eu
count=$#
while [ "$count" -gt 0 ]; do
    case $1 in
    metadata=*) set -- "$@" "metadata=${CARGO_PKG_NAME}-${CARGO_PKG_VERSION}" ;;
    *) set -- "$@" "$1" ;;
    esac
    shift
    count=$((count - 1))
done
exec "$@"

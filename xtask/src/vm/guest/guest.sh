# Runs the guest program with its output on the machine's virtio ports, tells its exit code and
# powers the machine off. Sourced by process 1 of the ordinary machine, run by a unit in Debian's;
# in busybox's shell, whose own commands are used but for dpkg and the guest program.
vm=/run/agentguard-vm
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root USER=root LOGNAME=root SHELL=/bin/bash LANG=C.UTF-8 TERM=dumb

port() {
    for dir in /sys/class/virtio-ports/*; do
        if [ "$(cat "$dir/name")" = "$1" ]; then
            echo "/dev/${dir##*/}"
        fi
    done
}

exec 9>"$(port agentguard.exit)"

# A port can be open once only, so the program gets pipes, as under ssh.
mkfifo "$vm/out" "$vm/err"
cat <"$vm/out" >"$(port agentguard.out)" 9>&- &
out=$!
cat <"$vm/err" >"$(port agentguard.err)" 9>&- &
err=$!
exec 7>"$vm/out" 8>"$vm/err"

finish() {
    # What the program left running may hold the pipes open: what is written by now comes out,
    # and the machine does not wait for more.
    exec 7>&- 8>&-
    (sleep 2; kill "$out" "$err") &
    wait "$out" "$err" 2>/dev/null
    echo "exit $1" >&9
    poweroff -n -f
}

if [ -e "$vm/install" ]; then
    DEBIAN_FRONTEND=noninteractive /usr/bin/dpkg --force-confold -i /deb/*.deb </dev/null >&8 2>&8 9>&-
    code=$?
    if [ "$code" -ne 0 ]; then
        echo "agentguard-vm: dpkg could not install the package (missing dependencies: --with)" >&8
        finish "$code"
    fi
fi

echo ready >&9
cd /root || finish 1
setsid /bin/sh "$vm/command.sh" </dev/null >&7 2>&8 7>&- 8>&- 9>&- &
wait $!
finish $?

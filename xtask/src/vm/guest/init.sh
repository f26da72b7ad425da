#!/bin/sh
# Process 1 of the initramfs: finds the disks, mounts the root file system and hands over to it.
# Everything here is busybox; /vm holds what xtask wrote for this machine.
PATH=/bin

fail() {
    echo "agentguard-vm: $*" >/dev/console
    poweroff -f
}

mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
while read -r module; do
    insmod "/modules/$module" || fail "module $module does not load"
done </vm/modules

# Prints the device of the disk with the given serial number.
disk() {
    for block in /sys/block/vd*; do
        if [ "$(cat "$block/serial" 2>/dev/null)" = "$1" ]; then
            echo "/dev/${block##*/}"
            return 0
        fi
    done
    return 1
}

# Drivers may probe after insmod returns.
tries=0
until disk root >/dev/null; do
    tries=$((tries + 1))
    [ "$tries" -lt 200 ] || fail "no disk with the root file system after 10 s"
    sleep 0.05
done

while read -r name at mode; do
    device=$(disk "$name") || fail "no disk named $name for $at"
    mkdir -p "/root$at"
    mount -t ext4 -o "$mode" "$device" "/root$at" || fail "cannot mount $name on $at"
    if [ "$mode" = rw ] && [ "$at" != / ]; then
        rmdir "/root$at/lost+found"
    fi
done </vm/mounts

mount -t tmpfs -o mode=0755,nosuid,nodev run /root/run
mkdir /root/run/agentguard-vm
cp -r /vm/. /root/run/agentguard-vm
cp /bin/busybox /root/run/agentguard-vm/busybox
mount --move /dev /root/dev
mount --move /proc /root/proc
mount --move /sys /root/sys

if [ -e /vm/systemd ]; then
    mkdir -p /root/run/systemd/system
    cp /vm/agentguard-vm.target /vm/agentguard-vm.service /root/run/systemd/system
    exec switch_root /root /sbin/init
fi
exec switch_root /root /run/agentguard-vm/busybox sh /run/agentguard-vm/plain.sh

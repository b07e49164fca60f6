#!/usr/bin/busybox sh
# Process 1 of a guest: mounts, drivers for what is there, then a root shell on the first serial
# port, for ever. Every program started here costs a guest under software translation milliseconds,
# so it does the least that makes a node, and does it with busybox's own commands.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=linux

mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mount -t devtmpfs -o nosuid,mode=755 devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o nosuid,noexec,mode=620,gid=5 devpts /dev/pts
mount -t tmpfs -o nosuid,nodev tmpfs /dev/shm
mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs /tmp
mount -t tmpfs -o nosuid,nodev,mode=755 tmpfs /run
ln -s /proc/self/fd /dev/fd

# Only what is critical goes on to the console; a panic shows whatever the level. Errors are left
# out because the kernel calls every packed module one before `modprobe` unpacks it.
echo 3 > /proc/sys/kernel/printk

# Buses first; then what is on the virtio bus, which appears with its driver.
cat /sys/bus/*/devices/*/modalias 2>/dev/null | sort -u > /run/aliases
grep -v '^virtio:' /run/aliases | xargs modprobe -abq 2>/dev/null
cat /sys/bus/virtio/devices/*/modalias 2>/dev/null | sort -u | xargs -r modprobe -abq 2>/dev/null

# Addresses come from the topology, not from routers; and they are usable at once.
for where in all default; do
    cd /proc/sys/net/ipv6/conf/$where && {
        echo 0 > accept_ra
        echo 0 > autoconf
        echo 0 > accept_dad
        echo 0 > router_solicitations
    }
done 2>/dev/null
cd /root

# A program may ask for buffers that outlast the pauses of a guest on a busy host.
for what in rmem_max wmem_max; do echo 4194304 > /proc/sys/net/core/$what; done

ip link set lo up

# `poweroff`, `halt` and `reboot` tell process 1 by signal.
trap 'sync; poweroff -f' USR1 USR2
trap 'sync; reboot -f' TERM

# The second serial port is a terminal for people: the first key starts a shell on it.
if read -r type < /sys/class/tty/ttyS1/type && [ "$type" != 0 ]; then
    while :; do
        read -r key < /dev/ttyS1 && setsid -c /usr/bin/ash -l < /dev/ttyS1 > /dev/ttyS1 2>&1 || sleep 1
    done &
fi 2>/dev/null

# The byte that starts a command is told at once, not after the time of four characters.
echo 1 > /sys/class/tty/ttyS0/rx_trig_bytes

echo "tapestry: ready"
while :; do
    setsid -c /usr/bin/ash -l < /dev/ttyS0 > /dev/ttyS0 2>&1 &
    shell=$!
    status=unknown
    # A signal ends `wait` early; then the shell is still there.
    while kill -0 $shell 2>/dev/null; do wait $shell; status=$?; done
    # What the kernel said last may tell why: it does not write here.
    dmesg | tail -n 3
    echo "tapestry: the shell has ended (status $status), starting another"
done

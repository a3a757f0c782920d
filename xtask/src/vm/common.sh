# What every script of cases begins with.
export PATH=/bin:/usr/bin:/sbin:/usr/sbin HOME=/root
# same NAME WANT COMMAND…: the command's output, as it ends, is WANT.
same() {
    name=$1; want=$2; shift 2
    got=$(bounded "$@" 2>&1 </dev/null | tr -d '\r')
    if [ "$got" = "$want" ]; then
        echo "case $name ... ok"
    else
        echo "case $name ... FAILED: wanted '$want', not '$(echo "$got" | tr '\n' '|')'"
    fi
}

# Two minutes, but for what is a function here and quick.
bounded() {
    case $1 in
        status | property | delegated) "$@" ;;
        *) timeout 120 "$@" ;;
    esac
}

skip() {
    echo "case $1 ... skipped: $2"
}

# whole seconds until COMMAND succeeds, up to 30
until_true() {
    for second in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
        if sh -c "$1" > /dev/null 2>&1; then
            echo yes
            return
        fi
        sleep 1
    done
    echo no
}

# status ID: what `state` calls it
status() {
    bulkhead oci $global state $1 | sed -n 's/.*"status": *"\([a-z]*\)".*/\1/p'
}

# A host without systemd, as systemd would leave it but for the daemons.
host() {
    echo "vm: Linux $(uname -r)"
    mount --make-rshared /
    mount -t tmpfs -o mode=755 tmpfs /run
    mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
    mount -t securityfs securityfs /sys/kernel/security
    mkdir -p /dev/pts /dev/shm /run/netns
    mount -t devpts devpts /dev/pts
    mount -t tmpfs tmpfs /dev/shm
    mount -t mqueue mqueue /dev/mqueue 2>/dev/null
    mkdir /sys/fs/cgroup/init.scope && echo 1 > /sys/fs/cgroup/init.scope/cgroup.procs
    for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
        echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control 2>/dev/null
    done
    ip link set lo up
    echo "root:x:0:0:root:/root:/bin/sh" > /etc/passwd
}

finish() {
    sync
    poweroff -f
}

# What the cases of all clients use: one line "case NAME ... ok" or "case NAME ... FAILED: WHY" for each thing tried.
cd /tmp
runtime=/bulkhead/bulkhead-oci

# same NAME WANT COMMAND…: the command's output, as it ends, is WANT.
same() {
    label=$1; want=$2; shift 2
    got=$(timeout -k 5 20 "$@" 2>&1 </dev/null | tr -d '\r')
    if [ "$got" = "$want" ]; then
        echo "case $label ... ok"
    else
        echo "case $label ... FAILED: wanted '$want', not '$(echo "$got" | tr '\n' '|')'"
    fi
}

# status NAME WANT COMMAND…: the command ends with the exit status WANT.
status() {
    label=$1; want=$2; shift 2
    said=$(timeout -k 5 20 "$@" 2>&1 </dev/null)
    got=$?
    if [ "$got" = "$want" ]; then
        echo "case $label ... ok"
    else
        echo "case $label ... FAILED: wanted the exit status $want, not $got: $(echo "$said" | tr '\n' '|')"
    fi
}

# until COMMAND…: waits for what no client tells.
until_true() {
    for _ in $(seq 100); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done
    return 1
}

# terminal COMMAND…: the command has a terminal, as a person's.
cat > /bulkhead/terminal <<'END'
#!/bin/sh
# the end of its own input is echoed
script -q -e -c "$*" /dev/null | sed 's/\^@//g'
END
chmod +x /bulkhead/terminal
# what awk(1) is depends on a link that nobody has made here
ln -s /usr/bin/busybox /bulkhead/awk
PATH=$PATH:/bulkhead

# An image's files: busybox under all its names.
rootfs() {
    mkdir -p "$1/bin" "$1/etc" "$1/tmp" "$1/root" "$1/proc" "$1/sys" "$1/dev"
    cp /usr/bin/busybox "$1/bin/"
    for applet in $(busybox --list); do [ "$applet" = busybox ] || ln -s busybox "$1/bin/$applet"; done
    echo "root:x:0:0:root:/root:/bin/sh" > "$1/etc/passwd"
    echo "guest:x:1000:1000:guest:/:/bin/sh" >> "$1/etc/passwd"
    echo "root:x:0:" > "$1/etc/group"
    echo "guest:x:1000:" >> "$1/etc/group"
    echo "no program" > "$1/etc/plain"
}

# A container's limits, read in its own cgroup file system: v1 or v2.
memory_limit='cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null'
pids_limit='cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null'
cpu_quota='cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null | cut -d\  -f1'

# nothing_left CLIENT ROOT…: of its containers, the runtime's directories ROOT hold none, and the kernel neither.
nothing_left() {
    client=$1; shift
    for root; do
        same "$client: nothing left: containers below $root" "" $runtime --root "$root" list -q
        # what is kept for the next container: compiled filters
        same "$client: nothing left: files below $root" "" sh -c "ls -A $root 2>/dev/null | grep -vx .seccomp"
    done
    same "$client: nothing left: cgroups" "" sh -c \
        "find /sys/fs/cgroup -mindepth 2 -type d | grep -E '/[^/]*[0-9a-f]{64}|/box' "
    same "$client: nothing left: mounts" "" sh -c "grep -E '/(rootfs|merged)( |/)' /proc/mounts"
    same "$client: nothing left: processes" "" sh -c "ps -eo args | grep -E '^([^ ]*bulkhead|[^ ]*runc|sleep|top|sh -c|/dev/init|/bin/sh|[^ ]*/conmon|[^ ]*-shim)( |-|$)' | grep -v '^sh -c ps'"
}

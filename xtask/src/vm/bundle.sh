# Bundles for `bulkhead oci`: config.json from variables, which hold JSON, and cases of them.
if [ ! -e /rootfs/secret ]; then
    mkdir -p /bundle /rootfs
    tar -C /rootfs -xf /cases/busybox.tar
    mkdir -p /rootfs/proc /rootfs/dev /rootfs/sys /rootfs/mnt /rootfs/data
    chmod 755 /rootfs
    echo secret > /rootfs/secret
fi
boxes=0

# What begins with a comma adds to a list or an object.
reset() {
    capabilities='"CAP_AUDIT_WRITE","CAP_KILL","CAP_NET_BIND_SERVICE"'
    privileges=true process= rlimits= mounts= view='"ro"' devices= resources= linux=
    namespaces= network='{"type":"network"}' cgroup= options=
}
reset

users=',{"type":"user"}'
mapped=',"uidMappings":[{"containerID":0,"hostID":100000,"size":65536}],"gidMappings":[{"containerID":0,"hostID":100000,"size":65536}]'

# bundle ID SCRIPT: a shell of a line or two
bundle() {
    script=$(printf %s "$2" | sed 's/[\\"]/\\&/g')
    cat > /bundle/config.json <<END
{"ociVersion": "1.2.0",
"process": {"user": {"uid": 0, "gid": 0}, "args": ["sh", "-c", "$script"], "env": ["PATH=/bin"],
  "cwd": "/", "noNewPrivileges": $privileges, "rlimits": [$rlimits],
  "capabilities": {"bounding": [$capabilities], "effective": [$capabilities],
    "permitted": [$capabilities]} $process},
"root": {"path": "/rootfs"}, "hostname": "box",
"mounts": [
  {"destination": "/proc", "type": "proc", "source": "proc"},
  {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
  {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "nodev"]},
  {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "ro"]},
  {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
    "options": ["nosuid", "noexec", "nodev", $view]} $mounts],
"linux": {"cgroupsPath": "${cgroup:-/oci/$1}",
  "resources": {"devices": [{"allow": false, "access": "rwm"} $devices] $resources},
  "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
    {"type": "cgroup"}, $network $namespaces] $linux}}
END
}

# inside NAME WANT SCRIPT: what SCRIPT says in a container of its own is WANT.
inside() {
    boxes=$((boxes + 1))
    bundle box$boxes "$3"
    same "$1" "$2" bulkhead oci $global run $options -b /bundle box$boxes
    reset
}

# begin ID SCRIPT: a container that goes on beside.
begin() {
    bundle "$1" "$2"
    if ! timeout 60 bulkhead oci $global run -d -b /bundle --pid-file /tmp/pid.$1 $1 < /dev/null > /tmp/log.$1 2>&1; then
        echo "case $1 begins ... FAILED: $(tr '\n' '|' < /tmp/log.$1)"
    fi
    reset
}

end() {
    bulkhead oci $global delete --force $1
}

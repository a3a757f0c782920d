# enter.sh ROOT PROGRAM CASES CGROUP: runs CASES in the Debian system at ROOT, in namespaces of its own, below the cgroup
# that is named CGROUP in every hierarchy. It is the first process of a process namespace: whatever a client leaves
# running ends with it. ROOT itself is not written to.
set -e
root=$1 program=$2 cases=$3 cgroup=$4
version() { [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ] || echo 2; }
# The mount point of each hierarchy, once: a chroot with /sys bound shows them all a second time. One file system has one
# device number (proc_pid_mountinfo(5)), and the usual place comes first.
hierarchies() {
    awk '{ for (dash = 7; $dash != "-"; dash++); }
        $(dash + 1) ~ /^cgroup2?$/ { print ($5 ~ "^/sys/fs/cgroup" ? 0 : 1), $3, $5 }' /proc/self/mountinfo |
        sort -s -k 1,1 | awk '!seen[$2]++ { print $3 }'
}
case $INSIDE in
"")
    for hierarchy in $(hierarchies); do
        mkdir "$hierarchy/$cgroup"
        for file in cpuset.cpus cpuset.mems; do
            [ ! -e "$hierarchy/$file" ] || [ -e "$hierarchy/cgroup.controllers" ] ||
                cat "$hierarchy/$file" > "$hierarchy/$cgroup/$file"
        done
        echo $$ > "$hierarchy/$cgroup/cgroup.procs"
    done
    INSIDE=cgroup exec unshare --cgroup sh "$0" "$@" ;;
cgroup)
    # version 2 wants no process beside the cgroups that have controllers
    if [ "$(version)" ]; then
        top=/sys/fs/cgroup/$cgroup
        mkdir "$top/clients"
        echo $$ > "$top/clients/cgroup.procs"
        for controller in $(cat "$top/cgroup.controllers"); do
            echo "+$controller" > "$top/cgroup.subtree_control"
        done
    fi
    INSIDE=yes exec unshare --mount --propagation private --net --ipc --uts --pid --fork --kill-child sh "$0" "$@" ;;
esac

# what lies above ROOT, gone at the end
scratch=$root.scratch/$cgroup
mkdir -p "$scratch"
mount -t tmpfs tmpfs "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$scratch/merged"
mount -t overlay overlay -o "lowerdir=$root,upperdir=$scratch/upper,workdir=$scratch/work" "$scratch/merged"
new=$scratch/merged
mkdir -p "$new/proc" "$new/sys" "$new/dev" "$new/run" "$new/bulkhead"
mount -t proc proc "$new/proc"
mount -t sysfs sysfs "$new/sys"
mount -t tmpfs -o mode=755 tmpfs "$new/dev"
for device in null zero full random urandom tty fuse; do
    [ ! -e "/dev/$device" ] || cp -a "/dev/$device" "$new/dev/"
done
mkdir "$new/dev/pts" "$new/dev/shm" "$new/dev/mqueue" "$new/dev/net"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$new/dev/pts"
ln -s pts/ptmx "$new/dev/ptmx"
ln -s /proc/self/fd "$new/dev/fd"
mount -t tmpfs tmpfs "$new/dev/shm"
mount -t mqueue mqueue "$new/dev/mqueue"
mount -t tmpfs -o mode=755 tmpfs "$new/run"
mount -t tmpfs -o mode=1777 tmpfs "$new/tmp"
mount -t tmpfs tmpfs "$new/var/lib"
# The cgroup file systems again, whose root is now CGROUP: nothing beside it is in sight.
if [ "$(version)" ]; then
    mount -t cgroup2 cgroup2 "$new/sys/fs/cgroup"
else
    mount -t tmpfs -o mode=755 tmpfs "$new/sys/fs/cgroup"
    while IFS=: read -r _ controllers _; do
        case $controllers in
        "") type=cgroup2 name=unified options=rw ;;
        name=*) type=cgroup name=${controllers#name=} options=none,$controllers ;;
        *) type=cgroup name=$controllers options=$controllers ;;
        esac
        mkdir "$new/sys/fs/cgroup/$name"
        mount -t "$type" -o "$options" "$name" "$new/sys/fs/cgroup/$name"
    done < /proc/self/cgroup
fi
ip link set lo up
# of this network namespace; dockerd warns where it is off
echo 1 > "$new/proc/sys/net/ipv4/ip_forward"
# under the names of an OCI runtime
cp "$program" "$new/bulkhead/bulkhead"
ln -s bulkhead "$new/bulkhead/bulkhead-oci"
ln -s bulkhead "$new/bulkhead/runc"
cp -r "$(dirname "$0")/." "$new/bulkhead/"
mkdir "$new/host"
cd "$new"
pivot_root . host
umount -l /host
rmdir /host
# a session of its own: its process group would be one outside, which timeout(1) and script(1) cannot name
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=xterm LC_ALL=C.UTF-8 setsid sh "/bulkhead/$cases"

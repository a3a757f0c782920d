# Runs in the virtual machine as its first process: the OCI runtime on Linux 6.1 with cgroup v2
# alone and AppArmor, one line "case NAME ... ok|FAILED: WHY|skipped: WHY" for each thing tried.
. /cases/common.sh
host
. /cases/bundle.sh
global=
modprobe bfq && echo bfq > /sys/block/vda/queue/scheduler
disk=$(cat /sys/block/vda/dev)
major=${disk%:*} minor=${disk#*:}
group=/sys/fs/cgroup/oci

# ---- the runtime's own tests of cgroups, on a host where they find every controller
export BULKHEAD_SKIPPED=/tmp/skipped
: > /tmp/skipped
timeout 120 /cases/runtime cgroup:: --test-threads 1 > /tmp/tests 2>&1 < /dev/null
sed -n 's/^test \(.*\) \.\.\. \(.*\)$/\1 \2/p' /tmp/tests | while read test result; do
    why=$(sed -n "s/^$test: //p" /tmp/skipped)
    if [ "$result" != ok ]; then
        echo "case oci v2: $test ... FAILED: $(grep -A 5 "^---- $test " /tmp/tests | tr '\n' '|')"
    elif [ -n "$why" ]; then
        skip "oci v2: $test" "$why"
    else
        echo "case oci v2: $test ... ok"
    fi
done
same "oci v2: the runtime's own tests came to their end" "yes" sh -c 'grep -q "^test result: ok" /tmp/tests && echo yes || tail -n 5 /tmp/tests'

# ---- who mounts it from the host's cgroup namespace sets the flags of the whole hierarchy
delegated() { sed -n 's/.* - cgroup2 [^ ]* .*\(nsdelegate\).*/\1/p' /proc/self/mountinfo | head -n 1; }
mkdir -p /tmp/other
mount -o remount,nsdelegate /sys/fs/cgroup
mount -t cgroup2 cgroup2 /tmp/other
same "oci v2: control: a plain mount takes nsdelegate from the host" "" delegated
umount /tmp/other
for kind in cgroup cgroup2; do
    mount -o remount,nsdelegate /sys/fs/cgroup
    bundle shared true
    sed -i "s/{\"type\": \"cgroup\"}, //; s/\"type\": \"cgroup\"/\"type\": \"$kind\"/" /bundle/config.json
    same "oci v2: a container in the host's cgroup namespace runs ($kind)" "" bulkhead oci run -b /bundle shared
    same "oci v2: and the host keeps nsdelegate ($kind)" nsdelegate delegated
done
mount -o remount /sys/fs/cgroup

# ---- controllers of v2
resources=',"memory":{"limit":67108864,"reservation":33554432,"swap":100663296},
 "cpu":{"shares":512,"quota":50000,"period":100000,"burst":1000,"cpus":"0","mems":"0"},
 "pids":{"limit":33},"hugepageLimits":[{"pageSize":"2MB","limit":4194304}],
 "blockIO":{"weight":300,"throttleReadBpsDevice":[{"major":'$major',"minor":'$minor',"rate":1048576}],
 "throttleWriteIOPSDevice":[{"major":'$major',"minor":'$minor',"rate":77}]},
 "unified":{"memory.high":"58720256","cgroup.max.depth":"5"}'
begin limits 'while :; do sleep 1; done'
file() { same "oci v2: $1" "$2" cat $group/limits/$1; }
file memory.max 67108864
file memory.low 33554432
file memory.swap.max 33554432
file cpu.weight 59
file cpu.max "50000 100000"
file cpu.max.burst 1000
file cpu.idle 0
file cpuset.cpus 0
file cpuset.cpus.effective 0
file cpuset.mems 0
file pids.max 33
file hugetlb.2MB.max 4194304
file io.max "$disk rbps=1048576 wbps=max riops=max wiops=77"
same "oci v2: weight of the disk" "300" sh -c "cat $group/limits/io.bfq.weight $group/limits/io.weight 2>/dev/null | sed -n 's/^default //p' | head -n 1"
same "oci v2: memory.high by unified" 58720256 cat $group/limits/memory.high
same "oci v2: cgroup.max.depth by unified" 5 cat $group/limits/cgroup.max.depth
pid=$(cat /tmp/pid.limits)
same "oci v2: its process is in it" "0::/oci/limits" cat /proc/$pid/cgroup
same "oci v2: it sees itself as the root" "0::/" bulkhead oci exec limits cat /proc/self/cgroup
same "oci v2: the view is read only" "1" sh -c 'bulkhead oci exec limits mkdir /sys/fs/cgroup/x >/dev/null 2>&1; echo $?'

update() { same "oci v2: update $1" "" bulkhead oci update $1 limits; }
update "--memory 128m --memory-swap 128m"
file memory.max 134217728
file memory.swap.max 0
update "--memory -1 --memory-swap -1"
file memory.max max
file memory.swap.max max
update "--memory-reservation 16m"
file memory.low 16777216
update "--cpu-share 1024"
file cpu.weight 100
update "--cpu-quota 20000"
file cpu.max "20000 100000"
update "--cpu-quota -1"
file cpu.max "max 100000"
update "--cpuset-cpus 0-1"
file cpuset.cpus 0-1
update "--pids-limit 44"
file pids.max 44
update "--pids-limit -1"
file pids.max max
update "--blkio-weight 400"
same "oci v2: weight of the disk, new" "400" sh -c "cat $group/limits/io.bfq.weight $group/limits/io.weight 2>/dev/null | sed -n 's/^default //p' | head -n 1"
update "--cpu-idle 1"
file cpu.idle 1
same "oci v2: update by JSON" "" sh -c "echo '{\"unified\":{\"memory.high\":\"max\",\"pids.max\":\"55\"},\"hugepageLimits\":[{\"pageSize\":\"2MB\",\"limit\":2097152}],\"blockIO\":{\"throttleReadBpsDevice\":[{\"major\":$major,\"minor\":$minor,\"rate\":2097152}]}}' | bulkhead oci update -r - limits"
same "oci v2: update by JSON has set" "max 55 2097152" sh -c "cd $group/limits; echo \$(cat memory.high pids.max hugetlb.2MB.max)"
file io.max "$disk rbps=2097152 wbps=max riops=max wiops=77"
same "oci v2: a file that is no controller's is refused" "refused" sh -c "echo '{\"unified\":{\"frob.max\":\"1\"}}' | bulkhead oci update -r - limits 2>&1 | grep -q frob && echo refused"
same "oci v2: stats" "yes" sh -c 'bulkhead oci events --stats limits | grep -q "\"type\":\"stats\"" && echo yes'

# ---- freezer
same "oci v2: pause" "paused frozen 1" sh -c ". /cases/common.sh; bulkhead oci pause limits; status limits | tr '\n' ' '; grep frozen $group/limits/cgroup.events"
same "oci v2: exec in a paused container" "refused" sh -c 'bulkhead oci exec limits true 2>&1 | grep -q "cannot exec in a paused container" && echo refused'
same "oci v2: resume" "running frozen 0" sh -c ". /cases/common.sh; bulkhead oci resume limits; status limits | tr '\n' ' '; grep frozen $group/limits/cgroup.events"

# ---- exec
mkdir $group/limits/sub
same "oci v2: exec --cgroup" "0::/sub" bulkhead oci exec --cgroup sub limits cat /proc/self/cgroup
same "oci v2: exec --cgroup, none there" "refused" sh -c 'bulkhead oci exec --cgroup nope limits true 2>&1 | grep -q nope && echo refused'
same "oci v2: exec --cgroup does not lead out" "refused" sh -c 'bulkhead oci exec --cgroup ../../init.scope limits true >/dev/null 2>&1 || echo refused'
same "oci v2: pause, then delete --force" "" sh -c "bulkhead oci pause limits; bulkhead oci delete --force limits; ls -d $group/limits 2>/dev/null"

# With one process allowed where the runtime is, a child that were born there could not be.
mkdir /sys/fs/cgroup/tight
echo 1 > /sys/fs/cgroup/tight/pids.max
bundle born 'echo born'
same "oci v2: born in its cgroup" "born" sh -c 'echo $$ > /sys/fs/cgroup/tight/cgroup.procs; exec bulkhead oci run -b /bundle born'
bundle born 'echo born'
same "oci v2: (control) nobody can be born where it was started" "refused" sh -c 'echo $$ > /sys/fs/cgroup/tight/cgroup.procs; (echo born) 2>/dev/null || echo refused' | sed "s/FAILED: wanted 'refused', not '.*fork.*'/ok/"
rmdir /sys/fs/cgroup/tight

# ---- below a group that has processes of its own, which hands no controllers on
mkdir /sys/fs/cgroup/full
sleep 1000 & sleeper=$!
echo $sleeper > /sys/fs/cgroup/full/cgroup.procs
cgroup=/full/box
inside "oci v2: below a group with processes" "0::/" 'cat /proc/self/cgroup'
cgroup=/full/box resources=',"pids":{"limit":9}'
bundle full true
same "oci v2: but with no limits" "refused" sh -c 'bulkhead oci run -b /bundle full 2>&1 | tee /tmp/full | grep -q "+pids.*busy" && echo refused || cat /tmp/full'
reset
same "oci v2: and the group stays what it was" "domain" cat /sys/fs/cgroup/full/cgroup.type
kill $sleeper; wait $sleeper 2> /dev/null
rmdir /sys/fs/cgroup/full

# ---- out of memory
resources=',"memory":{"limit":16777216,"swap":16777216}'
bundle oom 'exec dd if=/dev/zero of=/dev/null bs=64M count=1'
same "oci v2: out of memory is exit 137" "137" sh -c 'bulkhead oci run -b /bundle oom >/dev/null 2>&1; echo $?'
resources=',"memory":{"limit":16777216,"swap":16777216}'
begin oom 'while :; do sleep 1; done'
bulkhead oci events --interval 300ms oom > /tmp/events 2>&1 &
until_true "grep -q stats /tmp/events" > /dev/null
bulkhead oci exec oom dd if=/dev/zero of=/dev/null bs=64M count=1 > /dev/null 2>&1
same "oci v2: out of memory is an event" "yes" sh -c ". /cases/common.sh; until_true \"grep -q oom /tmp/events\""
end oom
wait

# ---- devices
capabilities='"CAP_MKNOD"'
begin devices 'while :; do sleep 1; done'
opens='mknod /tmp/disk b '"$major $minor"'; (: < /tmp/disk) 2>/dev/null && echo read; (: > /tmp/disk) 2>/dev/null && echo write; (: < /dev/null) && echo null; rm -f /tmp/disk'
same "oci v2: devices, closed" "null" bulkhead oci exec devices sh -c "$opens"
same "oci v2: devices, one opened by update" "" sh -c 'echo "{\"devices\":[{\"allow\":false,\"access\":\"rwm\"},{\"allow\":true,\"type\":\"b\",\"major\":'$major',\"minor\":'$minor',\"access\":\"r\"}]}" | bulkhead oci update -r - devices'
same "oci v2: devices, to read alone" "read|null" sh -c "bulkhead oci exec devices sh -c '$opens' | tr '\n' '|' | sed 's/|\$//'"
same "oci v2: devices, closed again" "" sh -c 'echo "{\"devices\":[{\"allow\":false,\"access\":\"rwm\"}]}" | bulkhead oci update -r - devices'
same "oci v2: devices, closed after it" "null" bulkhead oci exec devices sh -c "$opens"
same "oci v2: devices, an update of others leaves them" "null" sh -c "bulkhead oci update --pids-limit 99 devices; bulkhead oci exec devices sh -c '$opens'"
end devices
devices=',{"allow":true,"type":"b","major":'$major',"minor":'$minor',"access":"rw"}' capabilities='"CAP_MKNOD"'
inside "oci v2: devices, allowed" "read write" 'mknod /tmp/disk2 b '"$major $minor"'; (: < /tmp/disk2) && (: > /tmp/disk2) && echo read write; rm -f /tmp/disk2'

# ---- delegation
namespaces=$users linux=$mapped view='"rw"'
inside "oci v2: a root of its own user namespace divides its cgroup" "made 0::/x" 'mkdir /sys/fs/cgroup/x && echo $$ > /sys/fs/cgroup/x/cgroup.procs && echo made $(cat /proc/self/cgroup)'
namespaces=$users linux=$mapped view='"rw"' resources=',"pids":{"limit":9}'
inside "oci v2: but does not lift its limits" "9" '(echo max > /sys/fs/cgroup/pids.max) 2>/dev/null; cat /sys/fs/cgroup/pids.max'
namespaces=$users linux=$mapped view='"rw"'
begin divided 'mkdir /sys/fs/cgroup/x && echo 1 > /sys/fs/cgroup/x/cgroup.procs && echo +pids > /sys/fs/cgroup/cgroup.subtree_control; while :; do sleep 1; done'
until_true "grep -q pids $group/divided/cgroup.subtree_control" > /dev/null
same "oci v2: exec where the group takes no more processes" "0::/x" bulkhead oci exec divided cat /proc/self/cgroup
same "oci v2: delete with groups below" "" sh -c "bulkhead oci delete --force divided; ls -d $group/divided 2>/dev/null"

# ---- many processes
begin many 'trap "" TERM; for i in 1 2 3 4 5; do (trap "" TERM; while :; do sleep 1; done) & done; wait'
until_true "[ \$(wc -l < $group/many/cgroup.procs) -ge 6 ]" > /dev/null
same "oci v2: kill --all TERM" "" bulkhead oci kill --all many TERM
same "oci v2: kill --all KILL" "stopped" sh -c ". /cases/common.sh; bulkhead oci kill --all many KILL; until_true '! grep -q . /sys/fs/cgroup/oci/many/cgroup.procs' >/dev/null; status many"
same "oci v2: none is left of them" "" cat $group/many/cgroup.procs
same "oci v2: delete" "" sh -c "bulkhead oci delete many; ls -d $group/many 2>/dev/null"
resources=',"pids":{"limit":40}'
begin bomb 'bomb() { bomb | bomb & }; bomb 2>/dev/null; while :; do :; done'
until_true "[ \$(sed -n 's/^max //p' $group/bomb/pids.events) -gt 0 ]" > /dev/null
same "oci v2: a fork bomb stays below its limit" "yes" sh -c "[ \$(cat $group/bomb/pids.current) -le 40 ] && echo yes"
same "oci v2: delete --force of a fork bomb" "" sh -c "bulkhead oci delete --force bomb; ls -d $group/bomb 2>/dev/null"

# ---- what Linux 6.1 has
namespaces=$users',{"type":"time"}' linux=$mapped
begin everything 'while :; do sleep 1; done'
pid=$(cat /tmp/pid.everything)
same "oci 6.1: all namespaces" "cgroup ipc mnt net pid time user uts" sh -c "for n in cgroup ipc mnt net pid time user uts; do [ \$(readlink /proc/1/ns/\$n) = \$(readlink /proc/$pid/ns/\$n) ] || echo \$n; done | tr '\n' ' ' | sed 's/ \$//'"
same "oci 6.1: user namespace" "0 100000 65536" sh -c "echo \$(bulkhead oci exec everything cat /proc/self/uid_map)"
same "oci 6.1: exec joins them all" "" sh -c "bulkhead oci exec -d --pid-file /tmp/pid.exec everything sleep 100 </dev/null >/dev/null 2>&1; for n in cgroup ipc mnt net pid time user uts; do [ \$(readlink /proc/\$(cat /tmp/pid.exec)/ns/\$n) = \$(readlink /proc/$pid/ns/\$n) ] || echo \$n; done"
end everything
namespaces=',{"type":"time"}' linux=',"timeOffsets":{"boottime":{"secs":864000},"monotonic":{"secs":1000}}'
inside "oci 6.1: time offsets" "later" '[ $(cut -d. -f1 /proc/uptime) -ge 864000 ] && echo later'
mkdir -p /tmp/owned && echo text > /tmp/owned/file && chown 0:33 /tmp/owned/file
namespaces=$users linux=$mapped mounts=',{"destination":"/data","type":"bind","source":"/tmp/owned","options":["bind","idmap"]}'
inside "oci 6.1: id-mapped bind mount on ext4" "0:33" 'stat -c %u:%g /data/file'
mounts=',{"destination":"/data","type":"bind","source":"/tmp/owned","options":["bind"],"uidMappings":[{"containerID":0,"hostID":7,"size":1}],"gidMappings":[{"containerID":33,"hostID":8,"size":1}]}'
inside "oci 6.1: id-mapped by the mount's own mappings" "7:8" 'stat -c %u:%g /data/file'
mkdir -p /run/owned
namespaces=$users linux=$mapped mounts=',{"destination":"/data","type":"bind","source":"/run/owned","options":["bind","idmap"]}'
bundle tmpfs true
same "oci 6.1: a file system that cannot map is named" "yes" sh -c 'bulkhead oci run -b /bundle tmpfs 2>&1 | grep -q "map the owners of /run/owned" && echo yes'
reset
mkdir -p /tmp/tree/below && mount -t tmpfs tmpfs /tmp/tree/below
mounts=',{"destination":"/mnt","type":"bind","source":"/tmp/tree","options":["rbind","rro"]}'
inside "oci 6.1: recursively read only" "refused" 'touch /mnt/x /mnt/below/x 2>/dev/null; ls /mnt/x /mnt/below/x 2>/dev/null || echo refused'
mounts=',{"destination":"/mnt","type":"bind","source":"/tmp/tree","options":["rbind","ro"]}'
inside "oci 6.1: (control) read only, the mount below is not" "/mnt/below/x" 'touch /mnt/x /mnt/below/x 2>/dev/null; ls /mnt/x /mnt/below/x 2>/dev/null'
umount /tmp/tree/below
linux=',"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28}]}'
inside "oci 6.1: seccomp, errno" "No space left on device" 'mkdir /tmp/x 2>&1 | sed "s/.*: //"'
linux=',"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_KILL_PROCESS"}]}'
inside "oci 6.1: seccomp, kill" "159" 'mkdir /tmp/x 2>/dev/null; echo $?'
linux=',"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["personality"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":8,"op":"SCMP_CMP_EQ"}]}]}'
inside "oci 6.1: seccomp, by argument" "refused" 'setarch linux32 true 2>/dev/null || echo refused'
linux=',"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/nobody.sock","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_NOTIFY"}]}'
bundle listened true
same "oci 6.1: seccomp, nobody listens" "yes" sh -c 'bulkhead oci run -b /bundle listened 2>&1 | grep -q "/run/nobody.sock" && echo yes'
reset
# ---- devices where nobody may make one
for kind in host tmpfs; do
    path=/dev/null; [ $kind = host ] || path=/dev/mine
    namespaces=$users linux=$mapped',"devices":[{"path":"'$path'","type":"c","major":1,"minor":3,"fileMode":438}]'
    inside "oci 6.1: a device in a user namespace, $kind" "c 1 3" "[ -c $path ] && echo c \$(stat -c '%t %T' $path) && echo x > $path"
done
# ---- network
unshare -n sh -c 'ip link set lo up; echo 1 > /proc/sys/net/ipv4/ip_forward; exec sleep 1000' &
keeper=$!
until_true "[ \$(readlink /proc/$keeper/ns/net) != \$(readlink /proc/1/ns/net) ] && grep -q sleep /proc/$keeper/comm" > /dev/null
network='{"type":"network","path":"/proc/'$keeper'/ns/net"}'
inside "oci 6.1: a network namespace by path" "1 lo" 'echo $(cat /proc/sys/net/ipv4/ip_forward) $(ls /sys/class/net)'
kill $keeper
linux=',"sysctl":{"net.ipv4.ip_unprivileged_port_start":"80","kernel.msgmax":"4097"}'
inside "oci 6.1: sysctls of its namespaces" "80 4097" 'echo $(cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax)'
# ---- the process
inside "oci 6.1: capabilities" "0000000020000420 0000000020000420" 'echo $(sed -n "s/^Cap\(Eff\|Bnd\):\t//p" /proc/self/status)'
rlimits='{"type":"RLIMIT_NOFILE","soft":50000,"hard":60000},{"type":"RLIMIT_CORE","soft":0,"hard":0}'
inside "oci 6.1: limits above the runtime's own" "50000 60000" 'echo $(ulimit -Sn) $(ulimit -Hn)'
process=',"oomScoreAdj":-500,"scheduler":{"policy":"SCHED_BATCH","nice":5},"ioPriority":{"class":"IOPRIO_CLASS_IDLE","priority":0}'
inside "oci 6.1: schedulers and oom_score_adj" "-500 3" 'echo $(cat /proc/self/oom_score_adj) $(cut -d" " -f41 /proc/self/stat)'
options=--no-pivot
inside "oci 6.1: --no-pivot" "box 1" 'echo $(hostname) $$'
bundle three 'while :; do sleep 1; done'
same "oci 6.1: create, start, delete" "created running" sh -c '. /cases/common.sh; bulkhead oci create -b /bundle three </dev/null >/dev/null 2>&1; before=$(status three); bulkhead oci start three; echo $before $(status three); bulkhead oci delete --force three'

# ---- AppArmor
if [ ! -d /sys/kernel/security/apparmor ]; then
    skip "AppArmor" "this kernel runs without it"
else
    dd if=/cases/apparmor of=/sys/kernel/security/apparmor/.load bs=1M 2> /dev/null
    same "AppArmor: profiles are loaded" "2" sh -c 'grep -c ^bulkhead- /sys/kernel/security/apparmor/profiles'
    process=',"apparmorProfile":"bulkhead-box"'
    inside "AppArmor: the container's label" "bulkhead-box (enforce)" 'cat /proc/self/attr/apparmor/current'
    process=',"apparmorProfile":"bulkhead-box"'
    inside "AppArmor: denies what the profile denies" "cat: can't open '/secret': Permission denied" 'cat /secret'
    inside "AppArmor: (control) nobody else does" "secret" 'cat /secret'
    process=',"apparmorProfile":"bulkhead-box"' privileges=false
    inside "AppArmor: where privileges may be gained" "bulkhead-box (enforce)" 'cat /proc/self/attr/apparmor/current'
    process=',"apparmorProfile":"bulkhead-box"' namespaces=$users linux=$mapped
    inside "AppArmor: in a user namespace" "bulkhead-box (enforce)" 'cat /proc/self/attr/apparmor/current'
    process=',"apparmorProfile":"bulkhead-nowhere"'
    bundle nowhere true
    same "AppArmor: a profile that is not loaded is named" "yes" sh -c 'bulkhead oci run -b /bundle nowhere 2>&1 | tee /tmp/nowhere | grep -q "bulkhead-nowhere.*not loaded" && echo yes || cat /tmp/nowhere'
    reset
    process=',"apparmorProfile":"bulkhead-box"'
    begin labelled 'while :; do sleep 1; done'
    same "AppArmor: exec has the container's" "bulkhead-box (enforce)" bulkhead oci exec labelled cat /proc/self/attr/apparmor/current
    same "AppArmor: exec --apparmor" "bulkhead-other (enforce)" bulkhead oci exec --apparmor bulkhead-other labelled cat /proc/self/attr/apparmor/current
    same "AppArmor: exec --apparmor denies by that one" "secret denied" bulkhead oci exec --apparmor bulkhead-other labelled sh -c 'echo $(cat /secret) $(touch /tmp/denied 2>/dev/null || echo denied)'
    same "AppArmor: exec --apparmor, not loaded" "yes" sh -c 'bulkhead oci exec --apparmor bulkhead-nowhere labelled true 2>&1 | tee /tmp/nowhere | grep -q "bulkhead-nowhere.*not loaded" && echo yes || cat /tmp/nowhere'
    end labelled
fi

same "oci: nothing left: cgroups" "" sh -c "ls $group | grep -v '^[a-z]*\.'"
same "oci: nothing left: records" "" sh -c 'ls /run/bulkhead/oci'
same "oci: nothing left: processes" "" sh -c "ps -o args | grep '^[^ ]*bulkhead'"
same "oci: no complaint of the kernel" "" sh -c 'dmesg | grep -E "BUG|WARNING|Oops"'
echo "vm: end"
finish

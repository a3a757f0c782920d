# Runs as a service of a systemd that has booted the virtual machine: containers whose cgroups
# systemd makes, one line "case NAME ... ok|FAILED: WHY|skipped: WHY" for each thing tried.
. /cases/common.sh
mkdir -p /run/bulkhead
. /cases/bundle.sh
echo "vm: Linux $(uname -r), $(systemctl --version | head -n 1)"
global=--systemd-cgroup
unit=bulkhead-box.scope
group=/sys/fs/cgroup/system.slice/$unit
disk=$(tr : " " < /sys/block/vda/dev)
# property NAME [UNIT]
property() { systemctl show --property "$1" --value "${2:-$unit}"; }
show() { same "systemd: $1 $2" "$2" property "$1"; }
file() { same "systemd: $1 in the kernel" "$2" cat $group/$1; }

cgroup=system.slice:bulkhead:box
resources=',"memory":{"limit":67108864,"reservation":33554432,"swap":100663296},
 "cpu":{"shares":512,"quota":50000,"period":100000,"cpus":"0","mems":"0"},"pids":{"limit":33},
 "unified":{"memory.high":"58720256","cgroup.max.depth":"5"}'
bundle box 'while :; do sleep 1; done'
same "systemd: create" "" sh -c "bulkhead oci --systemd-cgroup create -b /bundle --pid-file /tmp/pid.box box </dev/null >/tmp/log 2>&1 || cat /tmp/log"
same "systemd: created" "created" status box
show ActiveState active
show Slice system.slice
show Delegate yes
show Description "bulkhead container box"
show CollectMode inactive-or-failed
show MemoryMax 67108864
show MemoryLow 33554432
show MemoryHigh 58720256
show MemorySwapMax 33554432
show CPUWeight 59
show CPUQuotaPerSecUSec 500ms
show AllowedCPUs 0
show AllowedMemoryNodes 0
show TasksMax 33
show DevicePolicy strict
show ControlGroup /system.slice/$unit
same "systemd: its process is in the unit" "0::/system.slice/$unit" cat /proc/$(cat /tmp/pid.box)/cgroup
same "systemd: start" "running" sh -c ". /cases/common.sh; global=; bulkhead oci --systemd-cgroup start box; status box"
file memory.max 67108864
file memory.low 33554432
file memory.high 58720256
file memory.swap.max 33554432
file cpu.weight 59
file cpu.max "50000 100000"
file cpuset.cpus 0
file pids.max 33
file cgroup.max.depth 5
same "systemd: exec" "0::/" bulkhead oci --systemd-cgroup exec box cat /proc/self/cgroup
same "systemd: exec is in the unit" "0::/system.slice/$unit" sh -c 'bulkhead oci --systemd-cgroup exec -d --pid-file /tmp/pid.exec box sleep 100 </dev/null >/dev/null 2>&1; cat /proc/$(cat /tmp/pid.exec)/cgroup'
same "systemd: a second of the name" "refused" sh -c 'bulkhead oci --systemd-cgroup run -b /bundle other 2>&1 | grep -q "bulkhead-box.scope" && echo refused'
same "systemd: and the first goes on" "running" status box
same "systemd: update" "" bulkhead oci --systemd-cgroup update --memory 128m --memory-swap 128m --cpu-share 1024 --cpu-quota 20000 --pids-limit 44 --cpuset-cpus 0-1 box
show MemoryMax 134217728
show MemorySwapMax 0
show CPUWeight 100
show CPUQuotaPerSecUSec 200ms
show TasksMax 44
show AllowedCPUs 0-1
file memory.max 134217728
file memory.swap.max 0
file cpu.weight 100
file cpu.max "20000 100000"
file pids.max 44
file cpuset.cpus 0-1
same "systemd: daemon-reload" "" systemctl daemon-reload
file memory.max 134217728
file cpu.max "20000 100000"
file cgroup.max.depth 5
same "systemd: devices are closed after it" "closed" bulkhead oci --systemd-cgroup exec --cap CAP_MKNOD box sh -c 'mknod /tmp/disk b '"$disk"'; (: < /tmp/disk) 2>/dev/null && echo open || echo closed; rm -f /tmp/disk'
same "systemd: no limits again" "" bulkhead oci --systemd-cgroup update --memory -1 --memory-swap -1 --cpu-quota -1 --pids-limit -1 box
show MemoryMax infinity
show CPUQuotaPerSecUSec infinity
show TasksMax infinity
file memory.max max
file pids.max max
same "systemd: pause" "paused frozen 1" sh -c ". /cases/common.sh; bulkhead oci --systemd-cgroup pause box; status box | tr '\n' ' '; grep frozen $group/cgroup.events"
same "systemd: resume" "running frozen 0" sh -c ". /cases/common.sh; bulkhead oci --systemd-cgroup resume box; status box | tr '\n' ' '; grep frozen $group/cgroup.events"
same "systemd: kill" "stopped" sh -c '. /cases/common.sh; global=; bulkhead oci --systemd-cgroup kill box KILL; until_true "bulkhead oci state box | grep -q stopped" >/dev/null; status box'
same "systemd: delete" "" bulkhead oci --systemd-cgroup delete box
same "systemd: the unit is gone" "not-found" property LoadState
same "systemd: its group is gone" "" sh -c "ls -d $group 2>/dev/null"


# ---- other paths, annotations, failures
bundle plain 'while :; do sleep 1; done'
sed -i 's|"cgroupsPath": "[^"]*",||' /bundle/config.json
bulkhead oci --systemd-cgroup run -d -b /bundle plain < /dev/null > /tmp/log 2>&1
same "systemd: without a cgroupsPath" "/system.slice/bulkhead-plain.scope" sh -c 'cat /tmp/log; systemctl show --property ControlGroup --value bulkhead-plain.scope'
reset
cgroup=:bulkhead:path
inside "systemd: a slice is not needed" "0::/" 'cat /proc/self/cgroup'
cgroup=/not/for/systemd
bundle path true
same "systemd: a path of files is refused" "yes" sh -c 'bulkhead oci --systemd-cgroup run -b /bundle path 2>&1 | grep -q "expected cgroupsPath to be of format" && echo yes'
reset
cgroup=deep-er.slice:bulkhead:deep
begin deep 'while :; do sleep 1; done'
same "systemd: a slice in a slice" "/deep.slice/deep-er.slice/bulkhead-deep.scope" property ControlGroup bulkhead-deep.scope
end deep
cgroup=system.slice:bulkhead:noted
bundle noted 'while :; do sleep 1; done'
sed -i '1s|{|{"annotations":{"org.systemd.property.TimeoutStopUSec":"uint64 7000000","org.systemd.property.CollectMode":"'"'inactive'"'"},|' /bundle/config.json
bulkhead oci --systemd-cgroup run -d -b /bundle noted < /dev/null > /tmp/log 2>&1
same "systemd: annotations, no complaint" "" cat /tmp/log
same "systemd: annotations" "7s inactive" sh -c 'echo $(systemctl show --property TimeoutStopUSec --value bulkhead-noted.scope) $(systemctl show --property CollectMode --value bulkhead-noted.scope)'
end noted
reset
cgroup=system.slice:bulkhead:broken
bundle broken true
sed -i 's|"/rootfs"|"/rootfs", "readonly": true|; s|"sh", "-c", "true"|"/no/such/program"|' /bundle/config.json
same "systemd: a failed run" "refused" sh -c 'bulkhead oci --systemd-cgroup run -b /bundle broken 2>&1 | grep -q /no/such/program && echo refused'
same "systemd: leaves no unit" "not-found" property LoadState bulkhead-broken.scope
reset
# systemd takes the group away while the runtime looks at it
cgroup=system.slice:bulkhead:short
bundle short true
same "systemd: short runs end without a complaint" "" sh -c 'for i in 1 2 3 4 5 6; do bulkhead oci --systemd-cgroup run -b /bundle short; done'
reset
cgroup=system.slice:bulkhead:gone
begin gone 'sleep 1'
until_true 'bulkhead oci state gone | grep -q stopped' > /dev/null
same "systemd: its end takes the unit away" "yes" sh -c '. /cases/common.sh; until_true "systemctl show --property LoadState --value bulkhead-gone.scope | grep -q not-found"'
same "systemd: delete after it" "" bulkhead oci --systemd-cgroup delete gone
cgroup=system.slice:bulkhead:stopped
begin stopped 'while :; do sleep 1; done'
same "systemd: systemctl stop ends the container" "stopped" sh -c '. /cases/common.sh; systemctl kill --signal KILL bulkhead-stopped.scope; until_true "bulkhead oci state stopped | grep -q stopped" >/dev/null; global=; status stopped'
same "systemd: delete after that" "" bulkhead oci --systemd-cgroup delete stopped
cgroup=system.slice:bulkhead:bomb resources=',"pids":{"limit":40}'
begin bomb 'bomb() { bomb | bomb & }; bomb 2>/dev/null; while :; do :; done'
until_true "[ \$(sed -n 's/^max //p' /sys/fs/cgroup/system.slice/bulkhead-bomb.scope/pids.events) -gt 0 ]" > /dev/null
same "systemd: delete --force of a fork bomb" "not-found" sh -c 'bulkhead oci --systemd-cgroup delete --force bomb; systemctl show --property LoadState --value bulkhead-bomb.scope'
cgroup=system.slice:bulkhead:oom resources=',"memory":{"limit":16777216,"swap":16777216}'
bundle oom 'exec dd if=/dev/zero of=/dev/null bs=64M count=1'
same "systemd: out of memory is exit 137" "137" sh -c 'bulkhead oci --systemd-cgroup run -b /bundle oom >/dev/null 2>&1; echo $?'
same "systemd: and leaves no failed unit" "not-found" property LoadState bulkhead-oom.scope
reset
cgroup=system.slice:bulkhead:owner namespaces=$users linux=$mapped view='"rw"'
inside "systemd: a root of its own user namespace divides its cgroup" "made 0::/x" 'mkdir /sys/fs/cgroup/x && echo $$ > /sys/fs/cgroup/x/cgroup.procs && echo made $(cat /proc/self/cgroup)'
same "systemd: --cgroup-manager systemd is the same" "system.slice" sh -c '. /cases/common.sh; . /cases/bundle.sh; cgroup=system.slice:bulkhead:crun; bundle crun "while :; do sleep 1; done"; bulkhead oci --cgroup-manager systemd run -d -b /bundle crun </dev/null >/tmp/log 2>&1; systemctl show --property Slice --value bulkhead-crun.scope; bulkhead oci delete --force crun'
bulkhead oci delete --force plain

# ---- a user's own systemd
echo 'tester:x:1000:1000::/tmp:/bin/sh' >> /etc/passwd
echo 'tester:x:1000:' >> /etc/group
echo 'tester:*:19000::::::' >> /etc/shadow
mkdir -p /tmp/bundle && chown 1000:1000 /tmp/bundle
as_user() {
    /usr/bin/setpriv --reuid 1000 --regid 1000 --clear-groups env XDG_RUNTIME_DIR=/run/user/1000 "$@"
}
systemctl start systemd-logind.service > /tmp/user 2>&1
if timeout 60 systemctl start user@1000.service >> /tmp/user 2>&1 && [ "$(until_true '[ -S /run/user/1000/bus ]')" = yes ]; then
    (cd /tmp/bundle && as_user bulkhead oci spec --rootless)
    sed -i 's|"path": "rootfs"|"path": "/rootfs"|; s|"terminal": true|"terminal": false|; s|"sh"$|"sleep", "1000"|; s|"linux": {|"linux": {"cgroupsPath": "user.slice:bulkhead:rootless", "resources": {"memory":{"limit":67108864},"pids":{"limit":33}},|' /tmp/bundle/config.json
    as_user bulkhead oci --systemd-cgroup run -d -b /tmp/bundle rootless < /dev/null > /tmp/log 2>&1
    same "systemd: a user's container" "67108864 33 running" sh -c '. /cases/common.sh; cat /tmp/log; group=$(find /sys/fs/cgroup/user.slice -name bulkhead-rootless.scope); echo $(cat $group/memory.max $group/pids.max) $(/usr/bin/setpriv --reuid 1000 --regid 1000 --clear-groups env XDG_RUNTIME_DIR=/run/user/1000 bulkhead oci state rootless | sed -n "s/.*\"status\": *\"\([a-z]*\)\".*/\1/p")'
    same "systemd: a user's update" "44" sh -c '/usr/bin/setpriv --reuid 1000 --regid 1000 --clear-groups env XDG_RUNTIME_DIR=/run/user/1000 bulkhead oci --systemd-cgroup update --pids-limit 44 rootless; cat $(find /sys/fs/cgroup/user.slice -name bulkhead-rootless.scope)/pids.max'
    same "systemd: a user's delete" "" sh -c '/usr/bin/setpriv --reuid 1000 --regid 1000 --clear-groups env XDG_RUNTIME_DIR=/run/user/1000 bulkhead oci --systemd-cgroup delete --force rootless; find /sys/fs/cgroup/user.slice -name bulkhead-rootless.scope'
else
    skip "systemd: a user's container" "the user's systemd did not start: $(journalctl --no-pager -o cat -n 8 -u user-runtime-dir@1000 -u user@1000 -u systemd-logind | tr '\n' '|')"
fi

# ---- who listens to seccomp: a socket of systemd's, which takes the message and lets the listener go
systemd-socket-activate --listen /run/listen.sock --inetd --accept sh -c 'cat > /run/listened' > /dev/null 2>&1 &
activate=$!
until_true '[ -S /run/listen.sock ]' > /dev/null
linux=',"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/listen.sock","listenerMetadata":"for whom","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_NOTIFY"}]}' cgroup=system.slice:bulkhead:listened
inside "systemd: seccomp, a call without its listener" "Function not implemented" 'for i in 1 2 3; do mkdir /tmp/new 2>&1 | sed "s/.*: //"; sleep 1; done | tail -n 1'
same "systemd: seccomp, the listener was told" "yes" sh -c 'grep -q "for whom" /run/listened && grep -q seccompFd /run/listened && echo yes || cat /run/listened'
kill $activate

# ---- the runtime's own test of a real systemd
if [ -x /cases/runtime ]; then
    # the runner's line may have the test's own words in it
    same "systemd: the runtime's own test" "1 passed" sh -c '/cases/runtime a_real_systemd --nocapture --test-threads 1 > /tmp/runtime 2>&1; ! grep -q "^skipped" /tmp/runtime && grep -o "1 passed" /tmp/runtime || cat /tmp/runtime'
else
    skip "systemd: the runtime's own test" "it was not built"
fi
same "systemd: nothing left: units" "" sh -c 'systemctl list-units --all --no-legend --plain "bulkhead*"'
same "systemd: nothing left: groups" "" sh -c 'find /sys/fs/cgroup -name "bulkhead*"'
same "systemd: nothing left: records" "" sh -c 'ls /run/bulkhead/oci'
echo "vm: end"
finish

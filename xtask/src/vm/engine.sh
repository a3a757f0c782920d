# Runs in the virtual machine as its first process: Bulkhead as a user of cgroup v2 would have it,
# one line "case NAME ... ok" or "case NAME ... FAILED: WHY" for each thing tried.
. /cases/common.sh
host
modprobe dummy numdummies=0
ip link add eth0 type dummy && ip addr add 192.0.2.10/24 dev eth0 && ip link set eth0 up
ip route add default via 192.0.2.1
echo "nameserver 192.0.2.1" > /etc/resolv.conf

if ! timeout 60 bulkhead up --detach; then
    echo "case up ... FAILED: see the log"
    cat /run/bulkhead/bulkhead.log
    dmesg | tail -20
    finish
fi
echo "case up ... ok"
same "import" "yes" sh -c "bulkhead import -c 'CMD [\"sh\"]' -c 'ENV PATH=/bin' /cases/busybox.tar busybox >/dev/null && echo yes"

same "run" "hello" bulkhead run --rm busybox echo hello
same "files keep their owners" "0:0 0:33" bulkhead run --rm busybox sh -c 'touch /tmp/a; chown 0:33 /tmp/a; echo $(stat -c %u:%g /bin/busybox /tmp/a)'
same "a layer of a layer" "two" sh -c 'bulkhead run --name layer busybox sh -c "echo two > /etc/two"; cat > /tmp/Dockerfile <<END
FROM busybox
RUN echo one > /etc/one && rm /bin/vi
COPY Dockerfile /x
CMD ["sh", "-c", "cat /etc/two 2>/dev/null || echo two"]
END
mkdir -p /tmp/context; cp /tmp/Dockerfile /tmp/context; bulkhead build -q -t layered /tmp/context >/tmp/build 2>&1 || cat /tmp/build; bulkhead run --rm layered; bulkhead rm layer >/dev/null'
same "memory limit" "67108864" bulkhead run --rm -m 64m busybox cat /sys/fs/cgroup/memory.max
same "pids limit" "33" bulkhead run --rm --pids-limit 33 busybox cat /sys/fs/cgroup/pids.max
same "pids limit holds" "held" sh -c 'bulkhead run --rm --pids-limit 5 busybox sh -c "for i in 1 2 3 4 5 6 7; do sleep 9 & done; echo free" 2>&1 | grep -q "fork" && echo held'
same "default pids limit" "4096" bulkhead run --rm busybox cat /sys/fs/cgroup/pids.max
same "cpus" "50000 100000" bulkhead run --rm --cpus 0.5 busybox cat /sys/fs/cgroup/cpu.max
same "cpu shares" "59" bulkhead run --rm -c 512 busybox cat /sys/fs/cgroup/cpu.weight
same "cpuset" "0" bulkhead run --rm --cpuset-cpus 0 busybox cat /sys/fs/cgroup/cpuset.cpus.effective
same "cgroup namespace" "0::/" bulkhead run --rm busybox cat /proc/self/cgroup
same "the cgroup file system is read only" "1" sh -c 'bulkhead run --rm busybox mkdir /sys/fs/cgroup/x >/dev/null 2>&1; echo $?'
bulkhead run --name eater -m 32m --memory-swap 32m busybox sh -c 'dd if=/dev/zero of=/dev/null bs=100M count=1; echo survived' >/tmp/eater 2>&1
same "out of memory of a child" "true 0" bulkhead inspect --format '{{.State.OOMKilled}} {{.State.ExitCode}}' eater
bulkhead run --name first -m 32m --memory-swap 32m busybox dd if=/dev/zero of=/dev/null bs=100M count=1 >/tmp/eater 2>&1
same "out of memory, first process" "true 137" bulkhead inspect --format '{{.State.OOMKilled}} {{.State.ExitCode}}' first
bulkhead rm eater first >/dev/null
# while its first process lives: the kernel tells it by memory.events
greedy() { bulkhead exec "$1" dd if=/dev/zero of=/dev/null bs=100M count=1 >/tmp/eater 2>&1; }
bulkhead events --filter event=oom --format '{{.Actor.Attributes.name}}' >/tmp/oom 2>&1 &
bulkhead run -d --name starved -m 32m --memory-swap 32m busybox sleep 1000 >/dev/null
same "killed for want of memory: not yet" "false running" bulkhead inspect --format '{{.State.OOMKilled}} {{.State.Status}}' starved
greedy starved
same "killed for want of memory, told at once" "yes" echo "$(until_true "bulkhead inspect --format '{{.State.OOMKilled}} {{.State.Status}}' starved | grep -qx 'true running'")"
same "killed for want of memory, an event" "yes" echo "$(until_true "grep -qx starved /tmp/oom")"
bulkhead rm -f starved >/dev/null

bulkhead run -d --name web -p 8080:80 busybox sh -c 'echo page > /tmp/index.html; httpd -p 80 -h /tmp; while :; do sleep 1; done' >/dev/null
same "exec" "inside" bulkhead exec web echo inside
same "published port" "page" sh -c 'for i in 1 2 3 4 5 6 7 8; do wget -q -O - http://192.0.2.10:8080/ 2>/dev/null && break; sleep 1; done'
same "published port on loopback" "page" wget -q -O - http://127.0.0.1:8080/
address=$(bulkhead inspect --format '{{.NetworkSettings.IPAddress}}' web)
same "from container to container" "page" bulkhead run --rm --link web busybox wget -q -O - http://web/
same "own published port by hairpin" "page" bulkhead exec web wget -q -O - http://192.0.2.10:8080/
pid=$(bulkhead inspect --format '{{.State.Pid}}' web)
same "all namespaces" "cgroup ipc mnt net pid time user uts" sh -c "for n in cgroup ipc mnt net pid time user uts; do [ \$(readlink /proc/1/ns/\$n) = \$(readlink /proc/$pid/ns/\$n) ] || echo \$n; done | tr '\n' ' ' | sed 's/ \$//'"
same "born in its cgroup" "0::/bulkhead/$(bulkhead inspect --format '{{.Id}}' web)" sh -c "sed 's,/bulkhead/[0-9a-f]*/,/bulkhead/,' /proc/$pid/cgroup"
same "uid outside" "yes" sh -c "[ \$(awk '/^Uid/{print \$2}' /proc/$pid/status) -ge 100000 ] && echo yes"
same "pause" "paused 1" sh -c "bulkhead pause web >/dev/null; bulkhead inspect --format '{{.State.Status}}' web | tr '\n' ' '; cat /sys/fs/cgroup/bulkhead/*/*/cgroup.freeze"
same "unpause" "running" sh -c "bulkhead unpause web >/dev/null; bulkhead inspect --format '{{.State.Status}}' web"
same "top" "yes" sh -c "bulkhead top web | grep -q httpd && echo yes"
same "stats" "yes" sh -c "bulkhead stats web | grep -q web && echo yes"
# the engine dies and comes back; the container and its exit code stay
kill -9 $(cat /run/bulkhead/bulkhead.pid); sleep 1
same "up again after kill -9" "yes" sh -c "bulkhead up --detach >/dev/null && echo yes"
# by an engine that did not start it
for name in starved later; do
    bulkhead run -d --name $name -m 32m --memory-swap 32m busybox sleep 1000 >/dev/null
done
greedy starved
kill -9 $(cat /run/bulkhead/bulkhead.pid); sleep 1
bulkhead up --detach >/dev/null
same "what was killed for want of memory is known to the next engine" "true" bulkhead inspect --format '{{.State.OOMKilled}}' starved
greedy later
same "killed for want of memory, told by the next engine" "yes" echo "$(until_true "bulkhead inspect --format '{{.State.OOMKilled}} {{.State.Status}}' later | grep -qx 'true running'")"
bulkhead rm -f starved later >/dev/null
same "the container went on" "running $pid" bulkhead inspect --format '{{.State.Status}} {{.State.Pid}}' web
same "published port after the crash" "page" wget -q -O - http://192.0.2.10:8080/
kill -9 $(pidof bulkhead-warden) $(cat /run/bulkhead/bulkhead.pid); sleep 1
same "up again after the warden's death too" "yes" sh -c "bulkhead up --detach >/dev/null && echo yes"
same "the container has a new warden" "running $pid" bulkhead inspect --format '{{.State.Status}} {{.State.Pid}}' web
same "exec by the new warden" "inside" bulkhead exec web echo inside
same "stop" "exited 137" sh -c "bulkhead stop -t 1 web >/dev/null; bulkhead inspect --format '{{.State.Status}} {{.State.ExitCode}}' web"
same "start again" "again" sh -c "bulkhead start web >/dev/null && bulkhead exec web echo again"
same "rm" "" sh -c "bulkhead rm -f web >/dev/null"
same "privileged" "rw" sh -c "bulkhead run --rm --privileged busybox sh -c 'grep \" /sys/fs/cgroup \" /proc/mounts | cut -d\" \" -f4 | cut -d, -f1'"
same "userns=host" "0 0 4294967295" sh -c 'echo $(bulkhead run --rm --userns=host busybox cat /proc/self/uid_map)'
same "volumes keep owners" "0:0" sh -c 'bulkhead run --rm -v data:/data busybox touch /data/x; bulkhead run --rm -v data:/data busybox stat -c %u:%g /data/x'
mkdir -p /tmp/bound; same "bind mounts map owners" "0:0 1" sh -c 'bulkhead run --rm -v /tmp/bound:/b busybox sh -c "touch /b/x; stat -c %u:%g /b/x" | tr "\n" " "; stat -c %u:%g /tmp/bound/x | grep -c "^0:0"'
same "tmpfs" "tmpfs" bulkhead run --rm --tmpfs /t:size=1m busybox sh -c 'grep " /t " /proc/mounts | cut -d" " -f1'
same "tty" "yes" bulkhead run --rm -t busybox sh -c 'test -t 1 && echo yes'
same "init" "yes" bulkhead run --rm --init busybox sh -c 'test $$ != 1 && echo yes'
same "read only" "1" sh -c 'bulkhead run --rm --read-only busybox touch /x >/dev/null 2>&1; echo $?'
same "devices" "denied" bulkhead run --rm --cap-add MKNOD --userns=host busybox sh -c 'mknod /tmp/d b 254 0; cat /tmp/d >/dev/null 2>&1 && echo opened || echo denied'
same "none network" "lo" bulkhead run --rm --network none busybox ls /sys/class/net
same "host network" "yes" bulkhead run --rm --network host busybox sh -c 'ls /sys/class/net | grep -q eth0 && echo yes'
same "named namespace" "lo" sh -c 'bulkhead netns add --up blue; bulkhead netns exec blue ls /sys/class/net; bulkhead netns delete blue'
same "AppArmor is on and lets it be" "Y unconfined" sh -c 'echo $(cat /sys/module/apparmor/parameters/enabled) $(bulkhead run --rm busybox cat /proc/self/attr/current)'
same "warnings" "" sh -c 'grep -E "WARN|ERROR" /run/bulkhead/bulkhead.log'
same "down" "yes" sh -c "bulkhead down >/dev/null && echo yes"
same "nothing left: cgroups" "" sh -c 'ls -d /sys/fs/cgroup/bulkhead* 2>/dev/null'
same "nothing left: links" "eth0 lo" sh -c 'echo $(ls /sys/class/net)'
same "nothing left: mounts" "" sh -c 'grep -E "bulkhead|overlay" /proc/mounts'
same "nothing left: processes" "" sh -c "ps -o args | grep '^[^ ]*bulkhead'"
same "no complaint of the kernel" "" sh -c 'dmesg | grep -E "BUG|WARNING|Oops|overlayfs:"'
echo "vm: end"
finish

# Docker as its package sets it up.
run="docker run --rm"
start="docker run -d"
if ! timeout 120 systemctl start docker; then
    echo "case docker: systemd starts it ... FAILED: $(journalctl --no-pager -o cat -n 8 -u docker -u containerd | tr '\n' '|')"
    return
fi
echo "case docker: systemd starts it ... ok"
same "docker: what it finds" "systemd 2 bulkhead apparmor cgroupns" docker info --format '{{.CgroupDriver}} {{.CgroupVersion}} {{.DefaultRuntime}}{{range .SecurityOptions}}{{if eq . "name=apparmor"}} apparmor{{end}}{{if eq . "name=cgroupns"}} cgroupns{{end}}{{end}}'
same "docker: import" "yes" sh -c "docker import -c 'ENV PATH=/bin' -c 'CMD [\"sh\"]' /cases/busybox.tar busybox >/dev/null && echo yes"
same "docker: run" "hello" $run busybox echo hello
same "docker: exit status" "3" sh -c "$run busybox sh -c 'exit 3'; echo \$?"
same "docker: AppArmor's profile" "docker-default (enforce)" $run busybox cat /proc/self/attr/current
same "docker: AppArmor denies a mount" "denied" sh -c "$run --cap-add SYS_ADMIN busybox sh -c 'mount -t tmpfs none /tmp 2>/dev/null && echo made || echo denied'"
same "docker: (control) apparmor=unconfined does not" "made" sh -c "$run --cap-add SYS_ADMIN --security-opt apparmor=unconfined busybox sh -c 'mount -t tmpfs none /tmp 2>/dev/null && echo made || echo denied'"

limits="--memory 64m --memory-reservation 32m --memory-swap 96m --pids-limit 50 --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 --device-write-bps /dev/vda:1mb --blkio-weight 300"
$start --name box $limits busybox sh -c 'trap "echo stopping; exit 5" TERM; echo started; while :; do sleep 0.1; done' > /dev/null
id=$(docker inspect --format '{{.Id}}' box)
scope=docker-$id.scope
group=/sys/fs/cgroup/system.slice/$scope
same "docker: run -d" "started" sh -c 'until docker logs box | grep .; do sleep 0.2; done'
for pair in MemoryMax=67108864 MemoryLow=33554432 MemorySwapMax=33554432 TasksMax=50 CPUQuotaPerSecUSec=500ms CPUWeight=59 AllowedCPUs=0 Slice=system.slice; do
    same "docker: systemd knows ${pair%%=*}" "${pair#*=}" systemctl show --property "${pair%%=*}" --value "$scope"
done
same "docker: memory.max" 67108864 cat $group/memory.max
same "docker: memory.low" 33554432 cat $group/memory.low
same "docker: memory.swap.max" 33554432 cat $group/memory.swap.max
same "docker: pids.max" 50 cat $group/pids.max
same "docker: cpu.max" "50000 100000" cat $group/cpu.max
same "docker: cpu.weight" 59 cat $group/cpu.weight
same "docker: cpuset.cpus" 0 cat $group/cpuset.cpus
same "docker: io.max" "$(cat /sys/block/vda/dev) rbps=max wbps=1048576 riops=max wiops=max" cat $group/io.max
same "docker: exec" "0::/" docker exec box cat /proc/self/cgroup
same "docker: exec is in the group" "0::/system.slice/$scope" sh -c "docker exec -d box sleep 100; until pgrep -x -f 'sleep 100' >/dev/null; do sleep 0.2; done; cat /proc/\$(pgrep -x -f 'sleep 100')/cgroup"
same "docker: exec has AppArmor's profile" "docker-default (enforce)" docker exec box cat /proc/self/attr/current
# which is what Docker wants: the profile is the container's
same "docker: exec --privileged has it too" "docker-default (enforce)" docker exec --privileged box cat /proc/self/attr/current
same "docker: top" "yes" sh -c "docker top box | grep -q 'sleep 100' && echo yes"
same "docker: stats" "yes" sh -c "docker stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' box | grep -q '/ 64MiB [2-9]' && echo yes"
same "docker: update" "134217728 200000 77" sh -c "docker update --memory 128m --memory-swap 128m --cpus 2 --pids-limit 77 box >/dev/null; echo \$(cat $group/memory.max) \$(cut -d' ' -f1 $group/cpu.max) \$(cat $group/pids.max)"
same "docker: update, as systemd knows it" "134217728 2s 77" sh -c "echo \$(for it in MemoryMax CPUQuotaPerSecUSec TasksMax; do systemctl show --property \$it --value $scope; done)"
same "docker: daemon-reload changes nothing" "134217728 200000 77 denied" sh -c "systemctl daemon-reload; echo \$(cat $group/memory.max) \$(cut -d' ' -f1 $group/cpu.max) \$(cat $group/pids.max) \$(docker exec box sh -c 'mknod /tmp/d b 254 0; cat /tmp/d >/dev/null 2>&1 && echo opened || echo denied')"
same "docker: pause" "paused 1" sh -c "docker pause box >/dev/null; echo \$(docker inspect --format '{{.State.Status}}' box) \$(grep frozen $group/cgroup.events | cut -d' ' -f2)"
same "docker: unpause" "running 0" sh -c "docker unpause box >/dev/null; echo \$(docker inspect --format '{{.State.Status}}' box) \$(grep frozen $group/cgroup.events | cut -d' ' -f2)"
same "docker: restarts, and the container lives on" "running inside" sh -c "systemctl restart docker; echo \$(docker inspect --format '{{.State.Status}}' box) \$(docker exec box echo inside)"
same "docker: stop" "exited 5" sh -c "docker stop -t 20 box >/dev/null; docker inspect --format '{{.State.Status}} {{.State.ExitCode}}' box"
same "docker: its last words" "stopping" sh -c "docker logs box | tail -n 1"
same "docker: its scope is gone" "not-found" systemctl show --property LoadState --value "$scope"
same "docker: start again" "inside" sh -c "docker start box >/dev/null; docker exec box echo inside"
same "docker: rm -f" "box" docker rm -f box
# of a child: of a first process that is killed so, the news may come after the exit
same "docker: out of memory" "true 7" sh -c "docker run --name eater --memory 32m --memory-swap 32m busybox sh -c 'dd if=/dev/zero of=/dev/null bs=100M count=1; sleep 2; exit 7' >/dev/null 2>&1; docker inspect --format '{{.State.OOMKilled}} {{.State.ExitCode}}' eater; docker rm eater >/dev/null"
same "docker: --cgroup-parent" "yes" sh -c "$run --cgroupns host --cgroup-parent limits-these.slice busybox cat /proc/self/cgroup | grep -q '^0::/limits.slice/limits-these.slice/docker-' && echo yes"
same "docker: --privileged" "rw unconfined" sh -c "$run --privileged busybox sh -c 'grep \" /sys/fs/cgroup \" /proc/mounts | cut -d\" \" -f4 | cut -d, -f1; cat /proc/self/attr/current' | tr '\n' ' ' | sed 's/ \$//'"
same "docker: --restart" "2" sh -c "docker run -d --restart on-failure:2 --name again busybox sh -c 'exit 1' >/dev/null 2>&1; until docker inspect --format '{{.State.Status}} {{.RestartCount}}' again | grep -q 'exited 2'; do sleep 0.5; done; docker inspect --format '{{.RestartCount}}' again; docker rm again >/dev/null"
mkdir /tmp/context
printf 'FROM busybox\nRUN echo built > /built && cat /proc/self/attr/current > /label\nCMD cat /built /label\n' > /tmp/context/Dockerfile
same "docker: build" "built docker-default (enforce)" sh -c "docker build -t built /tmp/context >/tmp/build.log 2>&1 || cat /tmp/build.log; echo \$($run built)"

# ---- its own networks
same "docker: a network" "yes" sh -c "docker network create net >/dev/null && echo yes"
same "docker: a published port" "hello from web" sh -c "docker run -d --name web --hostname web --network net -p 127.0.0.1:8080:80 busybox sh -c 'echo hello from \$HOSTNAME > /tmp/index.html; exec httpd -f -p 80 -h /tmp' >/dev/null 2>&1; until wget -q -O - http://127.0.0.1:8080/; do sleep 0.5; done 2>/dev/null"
same "docker: another container finds it by name" "hello from web" $run --network net busybox wget -q -O - http://web/
same "docker: --network container:" "hello from web" $run --network container:web busybox wget -q -O - http://127.0.0.1/
same "docker: --pid container: and --ipc" "yes" sh -c "$run --pid container:web busybox ps | grep -q httpd && echo yes"
docker rm -f web > /dev/null
docker network rm net > /dev/null

# ---- every container in a user namespace
cat > /etc/docker/daemon.json <<END
{"runtimes": {"bulkhead": {"path": "$runtime"}}, "default-runtime": "bulkhead", "userns-remap": "default"}
END
systemctl restart docker
same "docker: userns-remap" "$(sed -n 's/dockremap:\(.*\):/0 \1 /p' /etc/subuid)" sh -c "docker import -c 'ENV PATH=/bin' /cases/busybox.tar busybox >/dev/null; echo \$($run busybox cat /proc/self/uid_map)"
same "docker: userns-remap, limits" "67108864" $run --memory 64m busybox cat /sys/fs/cgroup/memory.max
same "docker: userns-remap, exec" "0" sh -c "$start --name box busybox sleep 1000 >/dev/null 2>&1; docker exec box id -u; docker rm -f box >/dev/null"
same "docker: nothing left: scopes" "" sh -c "systemctl list-units --all --no-legend --plain 'docker-*.scope'"
same "docker: nothing left: groups" "" find /sys/fs/cgroup -name 'docker-*'
same "docker: nothing left: records" "" sh -c "find /run/docker /run/bulkhead -name state.json 2>/dev/null"
systemctl stop docker docker.socket

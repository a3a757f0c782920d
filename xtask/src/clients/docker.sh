# dockerd and the containerd that it starts, both with Bulkhead as their only runtime.
. /bulkhead/common.sh
mkdir -p /etc/docker
dockerd --add-runtime bulkhead=$runtime --default-runtime runc --storage-driver overlay2 --iptables=false --ip-forward=false \
    --ip-masq=false --bridge=none --data-root /var/lib/docker >/tmp/dockerd.log 2>&1 &
dockerd=$!
if ! until_true docker version; then
    echo "case docker: dockerd starts ... FAILED: $(tail -n 3 /tmp/dockerd.log | tr '\n' '|')"
    exit
fi
echo "case docker: dockerd starts ... ok"
rootfs /tmp/rootfs
same "docker: import" "yes" sh -c "tar -C /tmp/rootfs -c . | docker import -c 'ENV PATH=/bin' -c 'CMD [\"sh\"]' - busybox >/dev/null && echo yes"
run="docker run --rm --runtime bulkhead"
start="docker run -d --runtime bulkhead"

same "docker: info names the runtime" "yes" sh -c "docker info --format '{{json .Runtimes}}' | grep -q $runtime && echo yes"
same "docker: run" "hello" $run busybox echo hello
same "docker: standard input" "in" sh -c "echo in | $run -i busybox cat"
same "docker: standard error" "out" sh -c "$run busybox sh -c 'echo out; echo error >&2' 2>/dev/null"
status "docker: exit status 0" 0 $run busybox true
status "docker: exit status 3" 3 $run busybox sh -c "exit 3"
status "docker: no such program" 127 $run busybox nothing-of-that-name
status "docker: no such path" 127 $run busybox /nothing/of/that/name
status "docker: a file that is no program" 126 $run busybox /etc/plain
status "docker: a directory is no program" 126 $run busybox /etc
same "docker: terminal" "yes" sh -c "$run -t busybox sh -c 'test -t 0 && test -t 1 && echo yes'"
# the client tells the size once the container runs
same "docker: a person's terminal" "yes 24 80" terminal "stty rows 24 cols 80; $run -it busybox sh -c 'until stty size 2>/dev/null | grep -q .; do sleep 0.1; done; test -t 0 && echo yes \$(stty size)'"

$start --name box --memory 64m --pids-limit 50 --cpus 0.5 busybox sh -c 'echo started; trap "echo stopping; exit 5" TERM; while :; do sleep 0.1; done' >/dev/null
same "docker: run -d" "running" docker inspect --format '{{.State.Status}}' box
same "docker: logs" "started" sh -c 'until docker logs box | grep .; do sleep 0.1; done'
same "docker: exec" "inside" docker exec box echo inside
same "docker: exec -i" "in" sh -c "echo in | docker exec -i box cat"
same "docker: exec -t" "yes" docker exec -t box sh -c 'test -t 1 && echo yes'
same "docker: exec -it at a person's terminal" "yes 30 90" terminal "stty rows 30 cols 90; docker exec -it box sh -c 'until stty size 2>/dev/null | grep -q .; do sleep 0.1; done; test -t 0 && echo yes \$(stty size)'"
same "docker: exec -u -w -e" "1000 /etc a" docker exec -u guest -w /etc -e X=a box sh -c 'echo $(id -u) $(pwd) $X'
same "docker: exec -d" "yes" sh -c "docker exec -d box touch /tmp/made; until docker exec box ls /tmp/made >/dev/null 2>&1; do sleep 0.1; done; echo yes"
same "docker: exec --privileged" "yes" sh -c "docker exec --privileged box sh -c 'grep CapEff /proc/self/status' | grep -q '[1-9a-f]ff\$' && echo yes"
status "docker: exec, exit status" 3 docker exec box sh -c "exit 3"
# 127 since Docker 25, 126 before, with every runtime
same "docker: exec, no such program" "yes" sh -c "docker exec box nothing-of-that-name 2>&1 | grep -q 'executable file not found in \$PATH' && echo yes"
status "docker: exec, a file that is no program" 126 docker exec box /etc/plain
same "docker: exec, no such directory" "yes" sh -c "docker exec -w /etc/plain box true 2>&1 | grep -q 'chdir to cwd' && echo yes"
same "docker: memory limit" "67108864" docker exec box sh -c "$memory_limit"
same "docker: pids limit" "50" docker exec box sh -c "$pids_limit"
same "docker: cpus" "50000" docker exec box sh -c "$cpu_quota"
same "docker: update" "134217728" sh -c "docker update --memory 128m --memory-swap 128m box >/dev/null; docker exec box sh -c '$memory_limit'"
same "docker: top" "yes" sh -c "docker top box | grep -q 'echo started' && echo yes"
same "docker: stats" "yes" sh -c "docker stats --no-stream --format '{{.Name}} {{.MemUsage}} {{.PIDs}}' box | grep -q '^box .*iB / 128MiB [1-9]' && echo yes"
same "docker: pause" "paused" sh -c "docker pause box >/dev/null; docker inspect --format '{{.State.Status}}' box"
status "docker: exec in a paused container" 1 docker exec box true
same "docker: unpause" "running" sh -c "docker unpause box >/dev/null; docker inspect --format '{{.State.Status}}' box"
same "docker: kill with a signal" "running" sh -c "docker kill -s WINCH box >/dev/null; docker inspect --format '{{.State.Status}}' box"
same "docker: stop" "exited 5" sh -c "docker stop -t 10 box >/dev/null; docker inspect --format '{{.State.Status}} {{.State.ExitCode}}' box"
same "docker: its last words" "stopping" sh -c "docker logs box | tail -n 1"
same "docker: start again" "inside" sh -c "docker start box >/dev/null; docker exec box echo inside"
same "docker: kill" "exited 137" sh -c "docker kill box >/dev/null; docker wait box >/dev/null; docker inspect --format '{{.State.Status}} {{.State.ExitCode}}' box"
same "docker: restart" "running" sh -c "docker restart -t 1 box >/dev/null; docker inspect --format '{{.State.Status}}' box"
same "docker: rm -f" "box" docker rm -f box
# of a child: of a first process that is killed so, the news may come after the exit
same "docker: out of memory" "true 7" sh -c "docker run --name eater --runtime bulkhead --memory 32m --memory-swap 32m busybox sh -c 'dd if=/dev/zero of=/dev/null bs=100M count=1; sleep 1; exit 7' >/dev/null 2>&1; docker inspect --format '{{.State.OOMKilled}} {{.State.ExitCode}}' eater; docker rm eater >/dev/null"

same "docker: --read-only" "1" sh -c "$run --read-only busybox touch /x >/dev/null 2>&1; echo \$?"
mkdir /tmp/bound; echo bound > /tmp/bound/file
same "docker: -v, read-only" "bound 1" sh -c "$run -v /tmp/bound:/b:ro busybox sh -c 'cat /b/file; touch /b/x 2>/dev/null; echo \$?' | tr '\n' ' ' | sed 's/ \$//'"
same "docker: -v, written" "written" sh -c "$run -v /tmp/bound:/b busybox sh -c 'echo written > /b/file'; cat /tmp/bound/file"
same "docker: a volume" "kept" sh -c "$run -v data:/data busybox sh -c 'echo kept > /data/x'; $run -v data:/data busybox cat /data/x; docker volume rm data >/dev/null"
same "docker: --tmpfs" "size=1024k" sh -c "$run --tmpfs /t:size=1m busybox grep ' /t ' /proc/mounts | grep -o 'size=[^, ]*'"
same "docker: --shm-size" "size=2048k" sh -c "$run --shm-size 2m busybox grep ' /dev/shm ' /proc/mounts | grep -o 'size=[^, ]*'"
same "docker: --device" "1 7" sh -c "$run --device /dev/full:/dev/x:r busybox stat -c '%t %T' /dev/x"
same "docker: --device-cgroup-rule" "denied opened" sh -c "for rule in '' '--device-cgroup-rule=c 240:*_rmw'; do set -- \"\$(echo \"\$rule\" | tr _ ' ')\"; [ -n \"\$1\" ] || shift; $run \"\$@\" busybox sh -c 'mknod /tmp/d c 240 0; cat /tmp/d 2>&1 >/dev/null | grep -q permitted && echo denied || echo opened'; done | tr '\n' ' ' | sed 's/ \$//'"
same "docker: capabilities as by default" "00000000a80425fb" sh -c "$run busybox grep CapEff /proc/self/status | cut -f2"
same "docker: --cap-add" "00000000a82425fb" sh -c "$run --cap-add SYS_ADMIN busybox grep CapEff /proc/self/status | cut -f2"
same "docker: --cap-drop" "0000000000000000" sh -c "$run --cap-drop ALL busybox grep CapEff /proc/self/status | cut -f2"
same "docker: no-new-privileges" "1" sh -c "$run --security-opt no-new-privileges busybox grep NoNewPrivs /proc/self/status | cut -f2"
same "docker: seccomp as by default" "2" sh -c "$run busybox grep Seccomp: /proc/self/status | cut -f2"
echo '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}' > /tmp/profile.json
same "docker: a seccomp profile" "mkdir: can't create directory '/tmp/x': Operation not permitted" $run --security-opt seccomp=/tmp/profile.json busybox mkdir /tmp/x
same "docker: seccomp=unconfined" "0" sh -c "$run --security-opt seccomp=unconfined busybox grep Seccomp: /proc/self/status | cut -f2"
same "docker: --user" "1000 1000" $run --user guest busybox sh -c 'echo $(id -u) $(id -g)'
same "docker: --user --group-add" "5 6 6 7" $run --user 5:6 --group-add 7 busybox sh -c 'echo $(id -u) $(id -g) $(id -G)'
same "docker: -w" "/etc" $run -w /etc busybox pwd
same "docker: a directory that is made" "/made/here" $run -w /made/here busybox pwd
same "docker: --hostname" "name" $run --hostname name busybox hostname
same "docker: --sysctl" "1234" $run --sysctl net.core.somaxconn=1234 busybox cat /proc/sys/net/core/somaxconn
same "docker: --ulimit" "100 200" $run --ulimit nofile=100:200 busybox sh -c 'echo $(ulimit -Sn) $(ulimit -Hn)'
same "docker: --oom-score-adj" "500" $run --oom-score-adj 500 busybox cat /proc/self/oom_score_adj
same "docker: --init" "yes" $run --init busybox sh -c 'test $$ != 1 && echo yes'
same "docker: /proc/sys is read-only" "1" sh -c "$run busybox sh -c 'echo 1 > /proc/sys/vm/drop_caches' >/dev/null 2>&1; echo \$?"
same "docker: masked" "0" $run busybox sh -c 'cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | wc -c'
same "docker: --privileged" "rw yes" sh -c "$run --privileged busybox sh -c 'grep \" /sys \" /proc/mounts | cut -d\" \" -f4 | cut -d, -f1; test -e /dev/fuse -o -e /dev/tty && echo yes' | tr '\n' ' ' | sed 's/ \$//'"
same "docker: --pid host" "yes" $run --pid host busybox sh -c 'test $$ != 1 && echo yes'
same "docker: --pid of a container" "1 yes" sh -c "$start --name box busybox sleep 99 >/dev/null 2>&1; $run --pid container:box --network container:box --ipc host busybox sh -c 'pidof sleep; test \$\$ != 1 && echo yes' | tr '\n' ' ' | sed 's/ \$//'; docker rm -f box >/dev/null"
same "docker: --network none" "lo" $run --network none busybox ls /sys/class/net
same "docker: --network host" "yes" sh -c "test \$(readlink /proc/1/ns/net) = \$($run --network host busybox readlink /proc/self/ns/net) && echo yes"
same "docker: --cgroup-parent" "yes" sh -c "$run --cgroup-parent /parent busybox cat /proc/self/cgroup > /tmp/cgroup; grep -q /parent/ /tmp/cgroup && echo yes"
same "docker: --cgroupns private" "yes" sh -c "$run --cgroupns private busybox cat /proc/self/cgroup | grep -q ':/\$' && echo yes"
same "docker: by the name runc" "hello" docker run --rm busybox echo hello
same "docker: runs ten at once" "10" sh -c "for i in \$(seq 10); do $run busybox echo hello & done | grep -c hello"
same "docker: stops ten at once" "0" sh -c "for i in \$(seq 10); do $start --label ten --init busybox sleep 99; done >/dev/null 2>&1; docker rm -f \$(docker ps -q -f label=ten) >/dev/null; docker ps -q | wc -l"
same "docker: no container left" "" docker ps -aq
nothing_left docker /run/docker/runtime-runc/moby
kill $dockerd
wait $dockerd
echo "clients: end"

# podman as root, without a daemon: conmon calls Bulkhead, and keeps what it says.
. /bulkhead/common.sh
export PODMAN_IGNORE_CGROUPSV1_WARNING=yes
mkdir -p /etc/containers
echo '{"default": [{"type": "insecureAcceptAnything"}]}' > /etc/containers/policy.json
cat > /etc/containers/containers.conf <<END
[containers]
netns = "none"
[engine]
runtime = "bulkhead"
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime_supports_json = ["bulkhead", "bulkhead-oci", "runc"]
runtime_supports_nocgroup = ["bulkhead"]
infra_image = "busybox"
infra_command = "/bin/sleep"
[engine.runtimes]
bulkhead = ["$runtime"]
END
cat > /etc/containers/storage.conf <<END
[storage]
driver = "overlay"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
END
same "podman: info names the runtime" "bulkhead $runtime" podman info --format '{{.Host.OCIRuntime.Name}} {{.Host.OCIRuntime.Path}}'
rootfs /tmp/rootfs
same "podman: import" "yes" sh -c "tar -C /tmp/rootfs -c . | podman import -c 'ENV PATH=/bin' -c 'CMD [\"sh\"]' - busybox >/tmp/import 2>&1 && echo yes || cat /tmp/import"
run="podman run --rm"
start="podman run -d"

same "podman: run" "hello" $run busybox echo hello
same "podman: --runtime PATH" "hello" podman --runtime $runtime run --rm busybox echo hello
same "podman: by the name runc" "hello" podman --runtime /bulkhead/runc run --rm busybox echo hello
same "podman: standard input" "in" sh -c "echo in | $run -i busybox cat"
status "podman: exit status 0" 0 $run busybox true
status "podman: exit status 3" 3 $run busybox sh -c "exit 3"
status "podman: no such program" 127 $run busybox nothing-of-that-name
status "podman: no such path" 127 $run busybox /nothing/of/that/name
status "podman: a file that is no program" 126 $run busybox /etc/plain
status "podman: a directory is no program" 126 $run busybox /etc
same "podman: terminal" "yes" sh -c "$run -t busybox sh -c 'test -t 0 && test -t 1 && echo yes'"
same "podman: a person's terminal" "yes 24 80" terminal "stty rows 24 cols 80; $run -it busybox sh -c 'until stty size 2>/dev/null | grep -q .; do sleep 0.1; done; test -t 0 && echo yes \$(stty size)'"

$start --name box --memory 64m --pids-limit 50 --cpus 0.5 busybox sh -c 'echo started; trap "echo stopping; exit 5" TERM; while :; do sleep 0.1; done' >/dev/null
same "podman: run -d" "running" podman inspect --format '{{.State.Status}}' box
same "podman: logs" "started" sh -c 'until podman logs box | grep .; do sleep 0.1; done'
same "podman: exec" "inside" podman exec box echo inside
same "podman: exec -i" "in" sh -c "echo in | podman exec -i box cat"
same "podman: exec -t" "yes" podman exec -t box sh -c 'test -t 1 && echo yes'
same "podman: exec -it at a person's terminal" "yes 30 90" terminal "stty rows 30 cols 90; podman exec -it box sh -c 'until stty size 2>/dev/null | grep -q .; do sleep 0.1; done; test -t 0 && echo yes \$(stty size)'"
same "podman: exec -u -w -e" "1000 /etc a" podman exec -u guest -w /etc -e X=a box sh -c 'echo $(id -u) $(pwd) $X'
same "podman: exec -d" "yes" sh -c "podman exec -d box touch /tmp/made >/dev/null; until podman exec box ls /tmp/made >/dev/null 2>&1; do sleep 0.1; done; echo yes"
status "podman: exec, exit status" 3 podman exec box sh -c "exit 3"
status "podman: exec, no such program" 127 podman exec box nothing-of-that-name
status "podman: exec, a file that is no program" 126 podman exec box /etc/plain
same "podman: memory limit" "67108864" podman exec box sh -c "$memory_limit"
same "podman: pids limit" "50" podman exec box sh -c "$pids_limit"
same "podman: cpus" "50000" podman exec box sh -c "$cpu_quota"
same "podman: update" "25000" sh -c "podman update --cpus 0.25 box >/dev/null; podman exec box sh -c '$cpu_quota'"
same "podman: top" "yes" sh -c "podman top box | grep -q 'echo started' && echo yes"
same "podman: stats" "yes" sh -c "podman stats --no-stream --format '{{.Name}} {{.MemUsage}} {{.PIDS}}' box | grep -q '^box .*/ 67.11MB [1-9]' && echo yes"
same "podman: pause" "paused" sh -c "podman pause box >/dev/null; podman inspect --format '{{.State.Status}}' box"
same "podman: unpause" "running" sh -c "podman unpause box >/dev/null; podman inspect --format '{{.State.Status}}' box"
same "podman: kill with a signal" "running" sh -c "podman kill -s WINCH box >/dev/null; podman inspect --format '{{.State.Status}}' box"
same "podman: stop" "exited 5" sh -c "podman stop -t 10 box >/dev/null; podman inspect --format '{{.State.Status}} {{.State.ExitCode}}' box"
same "podman: start again" "inside" sh -c "podman start box >/dev/null; podman exec box echo inside"
same "podman: kill" "exited 137" sh -c "podman kill box >/dev/null; podman wait box >/dev/null; podman inspect --format '{{.State.Status}} {{.State.ExitCode}}' box"
same "podman: restart" "running" sh -c "podman restart -t 1 box >/dev/null; podman inspect --format '{{.State.Status}}' box"
same "podman: rm -f" "" sh -c "podman rm -f -t 0 box >/dev/null; podman ps -aq"
status "podman: out of memory" 137 $run --memory 32m --memory-swap 32m busybox dd if=/dev/zero of=/dev/null bs=100M count=1

same "podman: --read-only" "1" sh -c "$run --read-only busybox touch /x >/dev/null 2>&1; echo \$?"
mkdir /tmp/bound; echo bound > /tmp/bound/file
same "podman: -v, read-only" "bound 1" sh -c "$run -v /tmp/bound:/b:ro busybox sh -c 'cat /b/file; touch /b/x 2>/dev/null; echo \$?' | tr '\n' ' ' | sed 's/ \$//'"
same "podman: a volume" "kept" sh -c "$run -v data:/data busybox sh -c 'echo kept > /data/x'; $run -v data:/data busybox cat /data/x; podman volume rm data >/dev/null"
same "podman: --device" "1 7" $run --device /dev/full:/dev/x:r busybox stat -c '%t %T' /dev/x
same "podman: --cap-add" "yes" sh -c "$run --cap-drop ALL --cap-add SYS_ADMIN busybox grep CapEff /proc/self/status | grep -q 0000000000200000 && echo yes"
same "podman: no-new-privileges" "1" sh -c "$run --security-opt no-new-privileges busybox grep NoNewPrivs /proc/self/status | cut -f2"
same "podman: seccomp as by default" "2" sh -c "$run busybox grep Seccomp: /proc/self/status | cut -f2"
same "podman: --user" "1000 1000" $run --user guest busybox sh -c 'echo $(id -u) $(id -g)'
same "podman: --sysctl" "1234" $run --sysctl net.core.somaxconn=1234 busybox cat /proc/sys/net/core/somaxconn
# without one of its own, podman asks for more processes than a root without CAP_SYS_RESOURCE may give
same "podman: --ulimit" "100 200" $run --ulimit nofile=100:200 --ulimit nproc=1000 busybox sh -c 'echo $(ulimit -Sn) $(ulimit -Hn)'
same "podman: --privileged" "rw" sh -c "$run --privileged busybox grep ' /sys ' /proc/mounts | cut -d' ' -f4 | cut -d, -f1"
same "podman: --uidmap" "0 0 100000 65536" $run --uidmap 0:100000:65536 --gidmap 0:100000:65536 busybox sh -c 'echo $(id -u) $(cat /proc/self/uid_map)'
same "podman: --network host" "yes" sh -c "test \$(readlink /proc/1/ns/net) = \$($run --network host busybox readlink /proc/self/ns/net) && echo yes"
same "podman: --cgroups disabled" "yes" sh -c "test \"\$($run --cgroups disabled --cgroupns host busybox grep memory: /proc/self/cgroup)\" = \"\$(grep memory: /proc/self/cgroup)\" && echo yes"
same "podman: --cgroup-parent" "yes" sh -c "$run --cgroupns host --cgroup-parent /parent busybox cat /proc/self/cgroup | grep -q /parent/ && echo yes"
same "podman: --cgroupns private" "yes" sh -c "$run --cgroupns private busybox cat /proc/self/cgroup | grep -q ':/\$' && echo yes"
same "podman: pod create" "yes" sh -c "podman pod create --name pod --network none --infra-command '/bin/sleep 999' >/dev/null && echo yes"
same "podman: two in a pod" "yes" sh -c "podman run -d --pod pod --name a busybox sleep 99 >/dev/null; podman run -d --pod pod --name b busybox sleep 99 >/dev/null; test \$(podman exec a readlink /proc/self/ns/net) = \$(podman exec b readlink /proc/self/ns/net) && echo yes"
same "podman: pod ps" "Running 3" podman pod ps --format '{{.Status}} {{.NumberOfContainers}}'
same "podman: pod pause" "Paused" sh -c "podman pod pause pod >/dev/null; podman pod ps --format '{{.Status}}'"
same "podman: pod unpause" "Running" sh -c "podman pod unpause pod >/dev/null; podman pod ps --format '{{.Status}}'"
same "podman: pod stop" "Exited" sh -c "podman pod stop -t 1 pod >/dev/null 2>&1; podman pod ps --format '{{.Status}}'"
same "podman: pod rm" "" sh -c "podman pod rm -f pod >/dev/null; podman ps -aq"
same "podman: runs five at once" "5" sh -c "for i in \$(seq 5); do $run busybox echo hello & done | grep -c hello"
# Those of pods podman forgets, with every runtime, where it does not know the hierarchy itself. None goes that is not empty.
find /sys/fs/cgroup -path '*/libpod_parent/*' -name '????????????????????????????????????????????????????????????????' \
    -exec rmdir {} + 2>/dev/null
nothing_left podman /run/bulkhead/oci
echo "clients: end"

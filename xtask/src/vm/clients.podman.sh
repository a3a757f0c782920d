# podman as its package sets it up, but for the runtime: as root, with systemd as the manager of cgroups, and as a
# user without privileges.
mkdir -p /etc/containers
echo '{"default": [{"type": "insecureAcceptAnything"}]}' > /etc/containers/policy.json
cat > /etc/containers/containers.conf <<END
[network]
network_backend = "netavark"
[engine]
runtime = "bulkhead"
runtime_supports_json = ["bulkhead", "crun", "runc"]
runtime_supports_nocgroup = ["bulkhead", "crun"]
infra_image = "busybox"
[engine.runtimes]
bulkhead = ["$runtime"]
END
cat > /etc/containers/storage.conf <<END
[storage]
driver = "overlay"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
END
run="podman run --rm"
start="podman run -d"
same "podman: what it finds" "systemd v2 bulkhead" podman info --format '{{.Host.CgroupManager}} {{.Host.CgroupsVersion}} {{.Host.OCIRuntime.Name}}'
same "podman: import" "yes" sh -c "podman import -c 'ENV PATH=/bin' -c 'CMD [\"sh\"]' /cases/busybox.tar busybox >/tmp/import 2>&1 && echo yes || cat /tmp/import"
same "podman: run" "hello" $run busybox echo hello
same "podman: AppArmor's profile" "yes" sh -c "$run busybox cat /proc/self/attr/current | grep -q '^containers-default-.* (enforce)' && echo yes"
$start --name box --memory 64m --memory-swap 96m --pids-limit 50 --cpus 0.5 --cpuset-cpus 0 busybox sh -c 'trap "echo stopping; exit 5" TERM; echo started; while :; do sleep 0.1; done' > /dev/null
id=$(podman inspect --format '{{.Id}}' box)
scope=libpod-$id.scope
same "podman: run -d" "started" sh -c 'until podman logs box | grep .; do sleep 0.2; done'
for pair in MemoryMax=67108864 MemorySwapMax=33554432 TasksMax=50 CPUQuotaPerSecUSec=500ms AllowedCPUs=0 Slice=machine.slice; do
    same "podman: systemd knows ${pair%%=*}" "${pair#*=}" systemctl show --property "${pair%%=*}" --value "$scope"
done
same "podman: exec" "inside" podman exec box echo inside
same "podman: stats" "yes" sh -c "podman stats --no-stream --format '{{.MemUsage}} {{.PIDS}}' box | grep -q '/ 67.11MB [1-9]' && echo yes"
same "podman: update" "200000" sh -c "podman update --cpus 2 box >/dev/null; cut -d' ' -f1 \$(find /sys/fs/cgroup/machine.slice/$scope -name cpu.max | head -n 1)"
same "podman: pause" "paused" sh -c "podman pause box >/dev/null; podman inspect --format '{{.State.Status}}' box"
same "podman: unpause" "running" sh -c "podman unpause box >/dev/null; podman inspect --format '{{.State.Status}}' box"
same "podman: stop" "exited 5" sh -c "podman stop -t 20 box >/dev/null; podman inspect --format '{{.State.Status}} {{.State.ExitCode}}' box; podman rm box >/dev/null"
same "podman: a published port" "hello" sh -c "$start --name web -p 127.0.0.1:8080:80 busybox sh -c 'echo hello > /tmp/index.html; exec httpd -f -p 80 -h /tmp' >/dev/null; until wget -q -O - http://127.0.0.1:8080/; do sleep 0.5; done 2>/dev/null; podman rm -f -t 0 web >/dev/null"
same "podman: a pod has a slice" "2 yes" sh -c "podman pod create --name pod --memory 128m --infra-command '/bin/sleep 1000' >/dev/null; podman run -d --pod pod --name a busybox sleep 1000 >/dev/null; echo \$(podman pod ps --format '{{.NumberOfContainers}}') \$(systemctl list-units --no-legend --plain 'machine-libpod_pod_*.slice' | grep -q active && echo yes); podman pod rm -f -t 0 pod >/dev/null"
same "podman: keep-groups" "4242" sh -c "/usr/bin/setpriv --groups 0,4242 podman run --rm --group-add keep-groups busybox sh -c 'id -G' | grep -o 4242"
# the machine's own system once more, in a container of it: its systemd makes groups of its own
printf 'FROM busybox\nRUN echo built > /built\nCMD cat /built\n' > /tmp/Containerfile
same "podman: build" "built" sh -c "podman build -t built -f /tmp/Containerfile /var/empty >/tmp/build.log 2>&1 || cat /tmp/build.log; $run built"
same "podman: systemd in a container" "running" sh -c "$start --privileged --systemd always --name inner --hostname inner --rootfs /:O /lib/systemd/systemd --unit=basic.target >/dev/null; for i in \$(seq 60); do podman exec inner systemctl is-system-running 2>/dev/null | grep -E 'running|degraded' && break; sleep 0.5; done | sed s/degraded/running/"
cat > /tmp/nested.sh <<'END'
mkdir -p /tmp/nested && cd /tmp/nested && bulkhead-oci spec
sed -i 's|"path": "rootfs"|"path": "/image"|; s|"terminal": true|"terminal": false|
    s|"sh"$|"sh", "-c", "cat /proc/self/cgroup /sys/fs/cgroup/memory.max"|
    s|"linux": {|"linux": {"cgroupsPath": "system.slice:nested:box",|
    s|"resources": {|"resources": {"memory": {"limit": 67108864},|' config.json
bulkhead-oci --systemd-cgroup run box
END
same "podman: and makes groups for a container in it" "0::/ 67108864" sh -c "podman exec -i inner sh < /tmp/nested.sh 2>&1 | tr '\n' ' ' | sed 's/ \$//'; podman rm -f -t 0 inner >/dev/null"
same "podman: nothing left" "" sh -c "systemctl list-units --all --no-legend --plain 'libpod-*.scope'; find /sys/fs/cgroup -name 'libpod-*' -not -name 'libpod-conmon-*'; find /run/bulkhead -name state.json"

# ---- a user
if [ ! -S /run/user/1000/bus ]; then
    skip "podman, a user: run" "there is no systemd of the user's"
    return
fi
run="as-user podman run --rm --network none"
same "podman, a user: what it finds" "true systemd overlay bulkhead" as-user podman info --format '{{.Host.Security.Rootless}} {{.Host.CgroupManager}} {{.Store.GraphDriverName}} {{.Host.OCIRuntime.Name}}'
same "podman, a user: import" "yes" sh -c "as-user podman import -c 'ENV PATH=/bin' -c 'CMD [\"sh\"]' /cases/busybox.tar busybox >/tmp/import 2>&1 && echo yes || cat /tmp/import"
same "podman, a user: run" "0 0 1000 1 1 100000 65536" $run busybox sh -c 'echo $(id -u) $(cat /proc/self/uid_map)'
same "podman, a user: another user" "33 100032" sh -c "as-user podman run -d --network none --name other --user 33 busybox sleep 1000 >/dev/null; echo \$(as-user podman exec other id -u) \$(/usr/bin/ps -o uid= -C sleep | tail -n 1); as-user podman rm -f -t 0 other >/dev/null"
same "podman, a user: limits" "67108864 50" $run --memory 64m --pids-limit 50 busybox sh -c 'echo $(cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max)'
same "podman, a user: where its group is" "yes" sh -c "$run --cgroupns host busybox cat /proc/self/cgroup | grep -q '/user@1000.service/user.slice/libpod-.*.scope' && echo yes"
same "podman, a user: --userns keep-id" "1000" $run --userns keep-id busybox id -u
same "podman, a user: a volume" "kept" sh -c "$run -v data:/data busybox sh -c 'echo kept > /data/x'; $run -v data:/data busybox cat /data/x"
same "podman, a user: build" "built" sh -c "as-user podman build -t built -f /tmp/Containerfile /var/empty >/tmp/build.log 2>&1 || cat /tmp/build.log; $run built"
same "podman, a user: exec, pause, stop" "inside paused exited" sh -c "as-user podman run -d --network none --name box busybox sleep 1000 >/dev/null; a=\$(as-user podman exec box echo inside); as-user podman pause box >/dev/null; b=\$(as-user podman inspect --format '{{.State.Status}}' box); as-user podman unpause box >/dev/null; as-user podman stop -t 0 box >/dev/null; echo \$a \$b \$(as-user podman inspect --format '{{.State.Status}}' box); as-user podman rm box >/dev/null"
same "podman, a user: nothing left" "" sh -c "find /sys/fs/cgroup/user.slice -name 'libpod-*' -not -name 'libpod-conmon-*'; find /run/user/1000/bulkhead -name state.json 2>/dev/null"

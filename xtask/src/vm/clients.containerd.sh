# containerd alone, by its own client.
if ! timeout 60 systemctl restart containerd; then
    echo "case containerd: systemd starts it ... FAILED: $(journalctl --no-pager -o cat -n 8 -u containerd | tr '\n' '|')"
    return
fi
echo "case containerd: systemd starts it ... ok"
run="ctr run --runc-binary $runtime --runc-systemd-cgroup --rootfs"
same "containerd: run" "hello" $run --rm --cgroup system.slice:ctr:box /image box echo hello
same "containerd: run -d" "RUNNING" sh -c "$run -d --cgroup system.slice:ctr:box --memory-limit 67108864 --cpu-quota 50000 --cpu-period 100000 /image box sleep 1000 </dev/null >/tmp/log 2>&1 || cat /tmp/log; ctr task list | awk '\$1 == \"box\" {print \$3}'"
same "containerd: systemd knows it" "system.slice 67108864 500ms" sh -c "echo \$(for it in Slice MemoryMax CPUQuotaPerSecUSec; do systemctl show --property \$it --value ctr-box.scope; done)"
# ctr(8) asks for no cgroup namespace
same "containerd: exec" "0::/system.slice/ctr-box.scope" ctr task exec --exec-id one box cat /proc/self/cgroup
same "containerd: metrics" "yes" sh -c "ctr task metrics box | grep -q '^memory.usage_limit *67108864' && echo yes"
same "containerd: pause" "PAUSED 1" sh -c "ctr task pause box; echo \$(ctr task list | awk '\$1 == \"box\" {print \$3}') \$(grep frozen /sys/fs/cgroup/system.slice/ctr-box.scope/cgroup.events | cut -d' ' -f2)"
same "containerd: resume" "RUNNING" sh -c "ctr task resume box; ctr task list | awk '\$1 == \"box\" {print \$3}'"
same "containerd: AppArmor's default" "cri-containerd.apparmor.d (enforce)" sh -c "$run --rm --cgroup system.slice:ctr:labelled --apparmor-default-profile cri-containerd.apparmor.d /image labelled cat /proc/self/attr/current"
same "containerd: kill and delete" "" sh -c "ctr task kill -s SIGKILL box; until ctr task list | grep -q STOPPED; do sleep 0.2; done; ctr task delete box >/dev/null 2>&1; ctr container delete box; ctr container list -q"
same "containerd: nothing left" "" sh -c "systemctl list-units --all --no-legend --plain 'ctr-*.scope'; find /sys/fs/cgroup -name 'ctr-*'; find /run/containerd/runc -name state.json"
systemctl stop containerd

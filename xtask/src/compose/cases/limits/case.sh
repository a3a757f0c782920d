dc up -d
states
# by either version of cgroups
memory='cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null'
pids='cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null'
quota='cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null | cut -d" " -f 1'
for service in deploy plain; do
    dc exec -T $service sh -c "$memory; $pids; $quota"
done
dc exec -T plain sh -c 'cat /proc/sys/net/core/somaxconn /proc/sys/net/ipv4/tcp_syncookies /proc/1/oom_score_adj; ulimit -n; ulimit -Hn; df -k /dev/shm | awk "NR == 2 {print \$2}"; grep Cpus_allowed_list /proc/self/status'
dc exec -T hard sh -c 'id -u; id -G; grep -E "^(CapEff|CapBnd|NoNewPrivs)" /proc/self/status; touch /x; touch /run/x; hostname; hostname -f'
dc exec -T hard sh -c 'head -c 1 /dev/filled | wc -c; echo x > /dev/filled'
look
dc --profile eater up eater
states
line 'docker inspect --format "{{.State.OOMKilled}}" limits-eater-1'
dc --profile bogus up -d bogus
line 'docker compose stats --no-stream --format "{{.Name}} {{.MemUsage}}" deploy | sed "s/ .* \// /"'
dc --profile '*' down

# Docker without privileges, as its setup tool makes it a service of a user's systemd.
if [ ! -S /run/user/1000/bus ]; then
    skip "docker, a user: run" "there is no systemd of the user's"
    return
fi
mkdir -p /home/tester/.config/docker /home/tester/.config/systemd/user
cat > /home/tester/.config/docker/daemon.json <<END
{"runtimes": {"bulkhead": {"path": "$runtime"}}, "default-runtime": "bulkhead"}
END
cat > /home/tester/.config/systemd/user/docker.service <<END
[Service]
Type=notify
NotifyAccess=all
Environment=PATH=/usr/local/bin:/usr/bin:/usr/sbin DOCKERD_ROOTLESS_ROOTLESSKIT_NET=slirp4netns USER=tester
ExecStart=/usr/share/docker.io/contrib/dockerd-rootless.sh
Delegate=yes
KillMode=mixed
END
chown -R 1000:1000 /home/tester/.config
if ! timeout 120 as-user systemctl --user start docker; then
    echo "case docker, a user: systemd starts it ... FAILED: $(journalctl --no-pager -o cat -n 12 _UID=1000 | tr '\n' '|')"
    return
fi
echo "case docker, a user: systemd starts it ... ok"
export DOCKER_HOST=unix:///run/user/1000/docker.sock
run="docker run --rm"
same "docker, a user: what it finds" "systemd 2 bulkhead rootless" docker info --format '{{.CgroupDriver}} {{.CgroupVersion}} {{.DefaultRuntime}}{{range .SecurityOptions}}{{if eq . "name=rootless"}} rootless{{end}}{{end}}'
same "docker, a user: import" "yes" sh -c "docker import -c 'ENV PATH=/bin' -c 'CMD [\"sh\"]' /cases/busybox.tar busybox >/dev/null && echo yes"
same "docker, a user: run" "0 1000 100000" $run busybox sh -c 'echo $(id -u) $(awk "{print \$2}" /proc/self/uid_map)'
same "docker, a user: limits" "67108864 50" $run --memory 64m --pids-limit 50 busybox sh -c 'echo $(cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max)'
same "docker, a user: where its group is" "yes" sh -c "$run --cgroupns host busybox cat /proc/self/cgroup | grep -q '/user@1000.service/user.slice/docker-.*.scope' && echo yes"
same "docker, a user: a published port" "hello" sh -c "docker run -d --name web -p 127.0.0.1:8081:80 busybox sh -c 'echo hello > /tmp/index.html; exec httpd -f -p 80 -h /tmp' >/dev/null 2>&1; until wget -q -O - http://127.0.0.1:8081/; do sleep 0.5; done 2>/dev/null; docker rm -f web >/dev/null"
same "docker, a user: exec, pause, stop" "inside paused exited" sh -c "docker run -d --name box busybox sleep 1000 >/dev/null 2>&1; a=\$(docker exec box echo inside); docker pause box >/dev/null; b=\$(docker inspect --format '{{.State.Status}}' box); docker unpause box >/dev/null; docker stop -t 0 box >/dev/null; echo \$a \$b \$(docker inspect --format '{{.State.Status}}' box); docker rm box >/dev/null"
same "docker, a user: a device" "1 3" $run --device /dev/null:/dev/x busybox stat -c '%t %T' /dev/x
same "docker, a user: --privileged" "yes" sh -c "$run --privileged busybox sh -c 'mount -t tmpfs none /tmp && echo yes'"
same "docker, a user: nothing left" "" sh -c "find /sys/fs/cgroup/user.slice -name 'docker-*.scope'; find /run/user/1000 -path '*oci*' -name state.json 2>/dev/null"
as-user systemctl --user stop docker
unset DOCKER_HOST

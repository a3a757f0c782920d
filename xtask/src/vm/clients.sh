# Runs as a service of a systemd that has booted the virtual machine: what most servers are, and on them the
# unmodified clients with Bulkhead as their OCI runtime. cgroup v2 by systemd, AppArmor, Docker's own bridge; Docker and podman
# as root and as a user. One line "case NAME ... ok|FAILED: WHY|skipped: WHY" for each thing tried.
. /cases/common.sh
echo "vm: Linux $(uname -r), $(systemctl --version | head -n 1)"
runtime=/usr/local/bin/bulkhead-oci
cp /bin/bulkhead-oci $runtime
mkdir -p /etc/docker /image
tar -C /image -xf /cases/busybox.tar
cat > /etc/docker/daemon.json <<END
{"runtimes": {"bulkhead": {"path": "$runtime"}}, "default-runtime": "bulkhead", "live-restore": true}
END
mkdir -p /var/empty

# ---- a user, for the clients that need no privileges
echo 'tester:x:1000:1000::/home/tester:/bin/sh' >> /etc/passwd
echo 'tester:x:1000:' >> /etc/group
echo 'tester:*:19000::::::' >> /etc/shadow
echo 'tester:100000:65536' | tee /etc/subuid > /etc/subgid
mkdir -p /home/tester && chown 1000:1000 /home/tester
cat > /bin/as-user <<'END'
#!/bin/sh
cd /home/tester
exec /usr/bin/setpriv --reuid 1000 --regid 1000 --clear-groups env HOME=/home/tester USER=tester \
    XDG_RUNTIME_DIR=/run/user/1000 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus "$@"
END
chmod +x /bin/as-user
systemctl start systemd-logind.service > /tmp/user 2>&1
timeout 60 systemctl start user@1000.service >> /tmp/user 2>&1
same "a user's systemd" "yes" echo "$(until_true '[ -S /run/user/1000/bus ]')"
# for slirp4netns; there is no udev here that would open it to all
modprobe tun && chmod 666 /dev/net/tun

for client in docker docker-user containerd podman; do
    . /cases/clients.$client.sh
done
echo "vm: end"
finish

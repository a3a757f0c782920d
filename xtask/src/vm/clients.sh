# Runs as a service of a systemd that has booted the virtual machine: what most servers are, and on them the
# unmodified clients with Bulkhead as their OCI runtime. cgroup v2 by systemd, AppArmor, Docker's own bridge; podman
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
for client in docker containerd podman; do
    . /cases/clients.$client.sh
done
echo "vm: end"
finish

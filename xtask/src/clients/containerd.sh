# containerd alone, by its own client: its shim calls Bulkhead as --runc-binary.
. /bulkhead/common.sh
mkdir -p /etc/containerd
# which ctr binds for --net-host
touch /etc/hosts /etc/resolv.conf
cat > /etc/containerd/config.toml <<END
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs"]
END
containerd >/tmp/containerd.log 2>&1 &
containerd=$!
if ! until_true ctr version; then
    echo "case containerd: starts ... FAILED: $(tail -n 3 /tmp/containerd.log | tr '\n' '|')"
    exit
fi
echo "case containerd: starts ... ok"

# An image as `ctr image import` wants it (OCI image layout).
rootfs /tmp/rootfs
image=/tmp/image
mkdir -p $image/blobs/sha256
blob() { sum=$(sha256sum "$1" | cut -d' ' -f1); size=$(stat -c %s "$1"); mv "$1" $image/blobs/sha256/$sum; }
tar -C /tmp/rootfs -cf layer .
blob layer
layer=$sum layer_size=$size
echo "{\"architecture\": \"$(dpkg --print-architecture)\", \"os\": \"linux\", \"config\": {\"Env\": [\"PATH=/bin\"], \"Cmd\": [\"sh\"]}, \"rootfs\": {\"type\": \"layers\", \"diff_ids\": [\"sha256:$layer\"]}}" > configuration
blob configuration
configuration=$sum configuration_size=$size
echo "{\"schemaVersion\": 2, \"mediaType\": \"application/vnd.oci.image.manifest.v1+json\", \"config\": {\"mediaType\": \"application/vnd.oci.image.config.v1+json\", \"digest\": \"sha256:$configuration\", \"size\": $configuration_size}, \"layers\": [{\"mediaType\": \"application/vnd.oci.image.layer.v1.tar\", \"digest\": \"sha256:$layer\", \"size\": $layer_size}]}" > manifest
blob manifest
echo "{\"schemaVersion\": 2, \"manifests\": [{\"mediaType\": \"application/vnd.oci.image.manifest.v1+json\", \"digest\": \"sha256:$sum\", \"size\": $size, \"annotations\": {\"org.opencontainers.image.ref.name\": \"example.test/busybox:latest\"}}]}" > $image/index.json
echo '{"imageLayoutVersion": "1.0.0"}' > $image/oci-layout
tar -C $image -cf image.tar .
name=example.test/busybox:latest
same "containerd: import" "yes" sh -c "ctr image import --base-name example.test/busybox image.tar >/tmp/import 2>&1 || cat /tmp/import; ctr image list -q | grep -qx $name && echo yes"
run="ctr run --rm --runtime io.containerd.runc.v2 --runc-binary $runtime"
start="ctr run -d --runtime io.containerd.runc.v2 --runc-binary $runtime"

same "containerd: run" "hello" $run $name first echo hello
# ctr 1.6 forgets to pass the end of an input that ends before the task is there
same "containerd: standard input" "in" sh -c "(until ctr task list | grep -q RUNNING; do sleep 0.1; done; echo in) | $run $name first cat"
status "containerd: exit status 0" 0 $run $name first true
status "containerd: exit status 3" 3 $run $name first sh -c "exit 3"
same "containerd: no such program" "yes" sh -c "$run $name first nothing-of-that-name 2>&1 | grep -q 'executable file not found in \$PATH' && echo yes"
same "containerd: a file that is no program" "yes" sh -c "$run $name first /etc/plain 2>&1 | grep -q 'permission denied' && echo yes"
same "containerd: a person's terminal" "yes 24 80" terminal "stty rows 24 cols 80; $run -t $name first sh -c 'until stty size 2>/dev/null | grep -q .; do sleep 0.1; done; echo yes \$(stty size)'"
same "containerd: capabilities" "00000000a82425fb" sh -c "$run --cap-add CAP_SYS_ADMIN $name first grep CapEff /proc/self/status | cut -f2"
same "containerd: --privileged" "rw" sh -c "$run --privileged $name first grep ' /sys ' /proc/mounts | cut -d' ' -f4 | cut -d, -f1"
same "containerd: --read-only" "1" sh -c "$run --read-only $name first touch /x >/dev/null 2>&1; echo \$?"
same "containerd: --mount" "bound" sh -c "mkdir bound; echo bound > bound/file; $run --mount type=bind,src=/tmp/bound,dst=/b,options=rbind:ro $name first cat /b/file"
same "containerd: --seccomp" "2" sh -c "$run --seccomp $name first grep Seccomp: /proc/self/status | cut -f2"
same "containerd: --net-host" "yes" sh -c "test \$(readlink /proc/1/ns/net) = \$($run --net-host $name first readlink /proc/self/ns/net) && echo yes"
same "containerd: --cwd --env" "/etc a" $run --cwd /etc --env X=a $name first sh -c 'echo $(pwd) $X'
same "containerd: --cgroup" "yes" sh -c "$run --cgroup /parent/here $name first cat /proc/self/cgroup | grep -q '/parent/here\$' && echo yes"
same "containerd: --with-ns" "yes" sh -c "test \$(readlink /proc/1/ns/uts) = \$($run --with-ns uts:/proc/1/ns/uts $name first readlink /proc/self/ns/uts) && echo yes"
same "containerd: --rootfs" "hello" $run --rootfs /tmp/rootfs first /bin/echo hello

same "containerd: run -d" "RUNNING" sh -c "$start --memory-limit 67108864 $name box sh -c 'trap \"exit 5\" TERM; while :; do sleep 0.1; done'; ctr task list | awk '\$1 == \"box\" {print \$3}'"
same "containerd: memory limit" "67108864" sh -c "cat /sys/fs/cgroup/memory/default/box/memory.limit_in_bytes /sys/fs/cgroup/default/box/memory.max 2>/dev/null"
same "containerd: exec" "inside" ctr task exec --exec-id a box echo inside
status "containerd: exec, exit status" 3 ctr task exec --exec-id b box sh -c "exit 3"
same "containerd: exec at a person's terminal" "yes" terminal "ctr task exec --exec-id c -t box sh -c 'test -t 0 && echo yes' 2>/dev/null"
same "containerd: exec, no such program" "yes" sh -c "ctr task exec --exec-id d box nothing-of-that-name 2>&1 | grep -q 'executable file not found in \$PATH' && echo yes"
same "containerd: task ps" "yes" sh -c "test \$(ctr task ps box | wc -l) -ge 2 && echo yes"
same "containerd: task metrics" "yes" sh -c "ctr task metrics --format json box | grep -q '\"usage\"' && echo yes"
same "containerd: pause" "PAUSED" sh -c "ctr task pause box; ctr task list | awk '\$1 == \"box\" {print \$3}'"
same "containerd: resume" "RUNNING" sh -c "ctr task resume box; ctr task list | awk '\$1 == \"box\" {print \$3}'"
same "containerd: kill" "STOPPED" sh -c "ctr task kill -s SIGTERM box; until ctr task list | grep -q STOPPED; do sleep 0.1; done; ctr task list | awk '\$1 == \"box\" {print \$3}'"
same "containerd: task rm tells the exit status" "yes" sh -c "ctr task rm box 2>&1 | grep -q 'exit code 5' && echo yes"
same "containerd: task start" "RUNNING" sh -c "ctr task start -d box; ctr task list | awk '\$1 == \"box\" {print \$3}'"
same "containerd: kill -a" "" sh -c "ctr task kill -a -s SIGKILL box; until ctr task list | grep -q STOPPED; do sleep 0.1; done; ctr task rm box >/dev/null 2>&1; ctr container rm box; ctr container list -q"
same "containerd: rm -f" "" sh -c "$start $name box sleep 99; ctr task rm -f box >/dev/null 2>&1; ctr container rm box; ctr container list -q"
same "containerd: by the name runc" "hello" ctr run --rm --runc-binary /bulkhead/runc $name first echo hello
nothing_left containerd /run/containerd/runc/default
kill $containerd
wait $containerd
echo "clients: end"

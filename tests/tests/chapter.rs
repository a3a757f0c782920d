//! The commands by which namespaces are explained, each typed both ways: by `ip netns` and the docker CLI, and
//! by `bulkhead` alone. The mission itself, from the Dockerfile to the task, is `cargo xtask test walkthrough`.

use anyhow::{Result, ensure};
use bulkhead_tests::Daemon;

/// What is shown, lines for the shell, what they print. `$NS` is `ip netns` or Bulkhead's, `$CLI` the docker
/// CLI or Bulkhead; `$A` is a name for a namespace, `$P` the process of container `con`, which
/// runs `sleep`.
type Row = (&'static str, &'static str, &'static str);

const NET: &[Row] = &[
    (
        "a namespace has a name, and a loopback that is down",
        "$NS add $A 2>/dev/null; $NS list | grep -c \"^$A\"; $NS exec $A ip -o link list | sed 's/.*: \\([a-z0-9]*\\): .* state \\([A-Z]*\\).*/\\1 \\2/'
         $NS exec $A busybox ping -c 1 -W 1 127.0.0.1 2>&1 | grep -o 'unreachable'",
        "1\nlo DOWN\nunreachable",
    ),
    (
        "its loopback is brought up",
        "$NS add $A 2>/dev/null; $NS exec $A ip link set dev lo up; $NS exec $A busybox ping -c 1 127.0.0.1 | grep -o '1 packets received'",
        "1 packets received",
    ),
    (
        "a pair of links leads into it",
        "$NS add $A 2>/dev/null; ip link add v0 type veth peer name v1; ip link set v1 netns $A
         $NS exec $A ifconfig v1 10.1.1.1/24 up; ifconfig v0 10.1.1.2/24 up
         busybox ping -c 1 -W 20 10.1.1.1 | grep -o '1 packets received'; $NS exec $A busybox ping -c 1 -W 20 10.1.1.2 | grep -o '1 packets received'
         $NS exec $A ifconfig -s | awk 'NR > 1 {print $1}'; $NS exec $A route -n | awk 'NR > 2 {print $1, $3, $4, $8}'
         $NS delete $A; until ! ip link show v0 >/dev/null 2>&1; do :; done; echo gone",
        "1 packets received\n1 packets received\nv1\n10.1.1.0 255.255.255.0 U v1\ngone",
    ),
    (
        "the same pair in the words that go further",
        "$NS add $A 2>/dev/null; $BULKHEAD netns veth v0 v1 --to $A --addr 10.1.1.2/24; $NS exec $A route -n | awk 'NR > 2 {print $1, $3, $4, $8}'
         $NS exec $A ip -4 -o address show v1 | grep -o '10.1.1.[0-9]*/24'; ip link delete v0",
        "10.1.1.0 255.255.255.0 U v1\n10.1.1.3/24",
    ),
    (
        "its firewall is its own",
        "$NS add $A 2>/dev/null; $NS exec $A iptables -L -n | grep -c '^Chain .*policy ACCEPT'; $NS exec $A iptables -A INPUT -p tcp --dport 81 -j DROP
         $NS exec $A iptables -L -n | grep -c 'dpt:81'; iptables -L -n 2>/dev/null | grep -c 'dpt:81'; $BULKHEAD netns show $A | grep -c 'drop'",
        "3\n1\n0\n1",
    ),
    (
        "a container's namespace gets a name",
        "$NS attach $A $P; [ $($NS exec $A ip -4 -o address show eth0 | grep -o 'inet [0-9.]*' | cut -c 6-) = $($CLI inspect --format '{{.NetworkSettings.IPAddress}}' con) ] && echo same
         $NS exec $A ifconfig eth0 | grep -c inet; $NS exec $A route -n | awk '$1 == \"0.0.0.0\" {print $2}'; $NS pids $A | grep -cx $P; $NS identify $P | sed s/$A/A/",
        "same\n1\n10.99.0.1\n1\nA",
    ),
    (
        "a linked container is reached by its name",
        "$CLI run -d --name app box sh -c 'echo hello >/tmp/index.html; exec httpd -f -p 80 -h /tmp' >/dev/null
         $CLI run --rm --link app:application box sh -c 'until wget -qO- http://application/ 2>/dev/null; do :; done; grep -c application /etc/hosts'; $CLI rm -f app",
        "hello\n1\napp",
    ),
    (
        "with the host's network all of it is within reach: links, what listens on loopback, abstract sockets",
        "socat TCP-LISTEN:7811,bind=127.0.0.1,reuseaddr,fork SYSTEM:'echo from the host' & S=$!; socat ABSTRACT-LISTEN:bh-chapter,fork EXEC:true & T=$!
         until grep -q @bh-chapter /proc/net/unix && grep -q ':1E83 ' /proc/net/tcp; do :; done
         for net in host bridge none; do
           $CLI run --rm --net=$net box sh -c 'ls -d /sys/class/net/host0 2>/dev/null | wc -l; nc 127.0.0.1 7811 </dev/null 2>/dev/null; grep -c @bh-chapter /proc/net/unix'
         done; kill $S $T; wait $S $T 2>/dev/null",
        "1\nfrom the host\n1\n0\n0\n0\n0",
    ),
];

const OTHERS: &[Row] = &[
    (
        "pid: the first process of a container is 1, and it sees no other",
        "$CLI run --rm box sh -c 'echo $$; exec ps -o pid,comm' | sed 's/  *//g'; $CLI exec con ps -o pid,args | sed -n 's/ *1 sleep 1000/1/p'",
        "1\nPIDCOMMAND\n1ps\n1",
    ),
    (
        "pid: outside it has another number, and both are known there",
        "[ $P -gt 1 ] && sed -n s/^NSpid:.$P.//p /proc/$P/status; $CLI top con -o pid | grep -cx \" *$P\"; tr '\\0' ' ' </proc/$P/cmdline",
        "1\n1\nsleep 1000",
    ),
    (
        "pid: namespaces are nested, a process has a number in each",
        "$CLI run -d --name nest --userns=host --cap-add SYS_ADMIN box sh -c 'unshare -p -f sleep 1000' >/dev/null; N=$($CLI inspect --format '{{.State.Pid}}' nest)
         last() { cat /proc/$1/task/$1/children 2>/dev/null; }
         until C=$(last $N) && [ -n \"$C\" ] && D=$(last ${C% }) && E=${D:-$C} && E=${E% } && [ \"$(awk '/^NSpid/ {print NF - 1}' /proc/$E/status 2>/dev/null)\" = 3 ]; do :; done
         awk '/^NSpid/ {print $NF}' /proc/$E/status; $CLI exec nest ps -o args | grep -cx 'sleep 1000'; $CLI rm -f nest",
        "1\n1\nnest",
    ),
    (
        "pid: the first process takes no signal from within, and takes all with it from without",
        "$CLI run -d --name dies box sh -c 'sleep 900 & sleep 901' >/dev/null; $CLI exec dies sh -c 'kill -9 1; kill -0 1 && echo lives'
         K=$($CLI inspect --format '{{.State.Pid}}' dies); C=$(cat /proc/$K/task/$K/children); kill -9 $K; $CLI wait dies
         for pid in $C; do [ -e /proc/$pid/ns/pid ] && echo left; done; $CLI rm dies",
        "lives\n137\ndies",
    ),
    (
        "pid: a container paused and going on has the same processes",
        "$CLI exec -d con sleep 777; until $CLI exec con ps -o args | grep -qx 'sleep 777'; do :; done
         list() { $CLI top con -o pid,args | tail -n +2; }; list >$HERE/before; $CLI pause con; $CLI inspect --format '{{.State.Status}} {{.State.Pid}}' con | sed s/$P/P/
         list | cmp - $HERE/before; $CLI unpause con; list | cmp - $HERE/before; $CLI inspect --format '{{.State.Status}} {{.State.Pid}}' con | sed s/$P/P/; $CLI exec con ps -o pid,args | grep -c '1 sleep 1000'",
        "con\npaused P\ncon\nrunning P\n1",
    ),
    (
        "pid: another container's or the host's is shared when asked for",
        "$CLI run --rm --pid container:con box ps -o pid,args | grep -c ' 1 sleep 1000'; $CLI run --rm --pid host box sh -c \"tr '\\\\0' ' ' </proc/$P/cmdline\"",
        "1\nsleep 1000",
    ),
    (
        "ipc: queues and shared memory of a container are its own",
        "nsenter -t $P -i ipcmk -Q >/dev/null; $CLI exec con sh -c 'wc -l </proc/sysvipc/msg; touch /dev/mqueue/queue /dev/shm/memory'
         ipcs -q | grep -cv '^$' >$HERE/host; $CLI run --rm box sh -c 'wc -l </proc/sysvipc/msg; ls /dev/mqueue /dev/shm | grep -c \"queue\\$\\|memory\"'
         $CLI run --rm --ipc container:con box sh -c 'wc -l </proc/sysvipc/msg; ls /dev/mqueue; ls /dev/shm'; $CLI run --rm --ipc none box sh -c 'touch /dev/shm/x 2>/dev/null || echo none'",
        "2\n1\n0\n2\nqueue\nmemory\nnone",
    ),
    (
        "mnt: what is mounted inside is mounted there alone",
        "$CLI run -d --name mounts --tmpfs /own box sleep 1000 >/dev/null; M=$($CLI inspect --format '{{.State.Pid}}' mounts); $CLI exec mounts grep -c ' /own tmpfs' /proc/mounts
         grep -c ' /own ' /proc/self/mounts; grep -c ' /own tmpfs' /proc/$M/mounts; grep -c ' /own .* - tmpfs' /proc/$M/mountinfo; grep -c 'mounted on /own with' /proc/$M/mountstats
         [ $(readlink /proc/$M/ns/mnt) = $(readlink /proc/self/ns/mnt) ] || echo other; $CLI rm -f mounts",
        "1\n0\n1\n1\n1\nother\nmounts",
    ),
    (
        "uts: a container has a name of its own",
        "$CLI run --rm --hostname web box hostname; [ $(hostname) = web ] || echo other; C=$($CLI run -d box hostname); $CLI wait $C; [ $($CLI logs $C) = $(echo $C | cut -c 1-12) ] && echo id
         $CLI rm $C >/dev/null; [ \"$($CLI run --rm --uts=host box hostname)\" = $(hostname) ] && echo host",
        "web\nother\n0\nid\nhost",
    ),
    (
        "user: root inside is nobody outside",
        "$CLI exec con id -u; [ $(stat -c %u /proc/$P) -ge 100000 ] && echo nobody; awk '{print $1, ($2 >= 100000), $3}' /proc/$P/uid_map; $CLI exec con sh -c 'echo 1 >/proc/sys/kernel/printk' 2>/dev/null || echo refused
         $CLI run --rm --userns=host box awk '{print $1, $2}' /proc/self/uid_map; $CLI run --rm --user web box id -u",
        "0\nnobody\n0 1 262144\nrefused\n0 0\n33",
    ),
    (
        "all: each kind but the asked for is another than the host's, and lsns's inode is shown",
        "for kind in cgroup ipc mnt net pid time user uts; do [ $(readlink /proc/$P/ns/$kind) = $(readlink /proc/self/ns/$kind) ] && echo $kind; done
         $BULKHEAD ns --format json | grep -c $(readlink /proc/$P/ns/uts | tr -dc 0-9)",
        "1",
    ),
];

fn typed_both_ways(rows: &[Row]) -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let mut wrong = Vec::new();
    for (what, line, expected) in rows {
        for (netns, cli) in [("ip netns", "$DOCKER"), ("$BULKHEAD netns", "$BULKHEAD")] {
            let said = daemon.shell(&format!(
                "A=bh-k-$$ NS=\"{netns}\" CLI={cli}
                 trap 'ip netns delete $A 2>/dev/null; ip link delete v0 2>/dev/null; $CLI rm -f con >/dev/null' EXIT
                 $CLI run -d --name con --ipc shareable box sleep 1000 >/dev/null; P=$($CLI inspect --format '{{{{.State.Pid}}}}' con)
                 {line}"
            ))?;
            if said.stdout.trim_end() != *expected {
                wrong.push(format!("{what}, by {netns} and {cli}: {said:?}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn the_network_namespace_is_explained_both_ways() -> Result<()> {
    typed_both_ways(NET)
}

#[test]
fn the_other_namespaces_are_explained_both_ways() -> Result<()> {
    typed_both_ways(OTHERS)
}

/// The mission in the words of a shell: an image is built and pushed, and runs where only its name is known.
#[test]
fn an_image_is_built_pushed_and_run_both_ways() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let line = "set -e; REGISTRY=127.0.0.1:5000; echo $PASSWORD | $CLI login -u admin --password-stdin $REGISTRY >/dev/null 2>&1; mkdir -p $HERE/app
        printf 'FROM box\\nRUN echo proxied >/index.html\\nEXPOSE 80\\nCMD [\"httpd\", \"-f\", \"-p\", \"80\", \"-h\", \"/\"]\\n' >$HERE/app/Dockerfile
        $CLI build -q -t $REGISTRY/security-app $HERE/app >/dev/null; $CLI push -q $REGISTRY/security-app; $CLI rmi $REGISTRY/security-app >/dev/null
        $CLI run -d --name application $REGISTRY/security-app >/dev/null 2>&1
        $CLI run -d --name proxy --link application -p 8081:80 box nc -ll -p 80 -e nc application 80 >/dev/null
        until busybox wget -qO- http://10.98.0.2:8081/ 2>/dev/null; do :; done
        $CLI rm -f proxy application; $CLI rmi $REGISTRY/security-app >/dev/null";
    let [docker, own] = daemon.each_cli(line)?;
    let (docker, own) = (docker.ok()?, own.ok()?);
    assert_eq!(docker, own);
    ensure!(docker.ends_with("proxied\nproxy\napplication"), "{docker}");
    Ok(())
}

//! `bulkhead netns` and `ip netns` on the same names.

use anyhow::{Result, ensure};
use bulkhead_tests::Daemon;

#[test]
fn named_namespaces_are_those_of_ip_netns() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let line = "set -e; A=bh-a-$$ B=bh-b-$$
        trap 'for name in $A $B; do ip netns delete $name 2>/dev/null || true; done' EXIT
        $BULKHEAD netns add $A; ip netns add $B
        ip netns list | grep -cE \"^($A|$B)( |\\$)\"
        $BULKHEAD netns ls | grep -cE \"^($A|$B)( |\\$)\"
        ip netns exec $A ip link add one type veth peer name other
        $BULKHEAD netns exec $A ip -o link show one | grep -c one@
        $BULKHEAD netns exec $B ip link add two type veth peer name other
        ip netns exec $B ip -o link show two | grep -c two@
        ip netns exec $A ip -o link show lo | grep -c 'state DOWN'
        $BULKHEAD netns exec $B sh -c 'exit 7' || echo $?
        $BULKHEAD netns add $A 2>/dev/null || echo refused
        ip netns delete $A; $BULKHEAD netns delete $B
        ip netns list | grep -cE \"^($A|$B)( |\\$)\" || true
        $BULKHEAD netns ls | grep -cE \"^($A|$B)( |\\$)\" || true
        $BULKHEAD netns delete $A 2>/dev/null || echo gone
        $BULKHEAD netns exec $A true 2>/dev/null || echo gone";
    assert_eq!(daemon.shell(line)?.ok()?, "2\n2\n1\n1\n1\n7\nrefused\n0\n0\ngone\ngone");
    let line = "set -e; N=bh-c-$$
        $BULKHEAD run -d --name shown box sleep 1000 >/dev/null
        $BULKHEAD netns attach shown $N
        ip netns exec $N ip -4 -o addr show eth0 | grep -o 'inet [0-9.]*' | cut -d' ' -f2
        $BULKHEAD inspect --format '{{.NetworkSettings.IPAddress}}' shown
        $BULKHEAD netns delete $N
        $BULKHEAD exec shown ip -o link show eth0 | grep -c eth0
        $BULKHEAD netns attach nosuch 2>&1 || echo $?
        $BULKHEAD rm -f shown";
    let said = daemon.shell(line)?.ok()?;
    let lines: Vec<&str> = said.lines().collect();
    ensure!(lines.len() == 6 && lines[0] == lines[1] && lines[2] == "1", "{said}");
    ensure!(lines[3].contains("No such container: nosuch") && lines[4] == "1", "{said}");
    Ok(())
}

/// A name that goes with the test.
struct Name(String);

impl Drop for Name {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip").args(["netns", "delete", &self.0]).output();
    }
}

#[test]
fn containers_run_in_named_namespaces() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let name = Name(format!("bh-d-{}", std::process::id()));
    let shell = |line: &str| daemon.shell(&format!("set -e; N={}; {line}", name.0));
    let line = "$BULKHEAD netns add $N; ip -n $N link add one type veth peer name two
        ip -n $N address add 10.44.0.1/24 dev one; ip -n $N link set one up
        $DOCKER run --rm --network netns:$N box sh -c '
            ls /sys/class/net | tr \"\\n\" \" \"; echo; touch /sys/x 2>/dev/null || echo read-only
            ip -4 -o address show one | grep -o 10.44.0.1
            ip link set one down 2>/dev/null || echo no power
            nc -l -p 80 2>&1 | grep -c denied; grep -c \" 0 *0 \" /proc/self/uid_map || true'
        ip -n $N -o link show one | grep -c ,UP
        $DOCKER run --rm --network netns:$N --userns=host --cap-add NET_ADMIN box \
            sh -c 'ip link set one mtu 1400; cat /sys/class/net/one/mtu'
        ip -n $N -o link show one | grep -c 'mtu 1400'
        $BULKHEAD run -d --name web --network netns:$N box sleep 1000 >/dev/null
        $DOCKER inspect --format '{{.HostConfig.NetworkMode}} {{json .NetworkSettings.Networks}}' web
        $DOCKER exec web ip -4 -o address show one | grep -c 10.44.0.1
        $DOCKER run --rm --network container:web box ip -4 -o address show one | grep -c 10.44.0.1";
    assert_eq!(
        shell(line)?.ok()?,
        format!(
            "lo one two \nread-only\n10.44.0.1\nno power\n1\n0\n1\n1400\n1\nnetns:{} {{}}\n1\n1",
            name.0
        )
    );
    for (line, text) in [
        ("$DOCKER run --rm --network netns:bh-none box true", "\"bh-none\" does not exist"),
        ("$DOCKER run --rm --network netns: box true", "invalid network namespace name"),
        ("$DOCKER run --rm --network netns:$(ip netns identify) box true", "the host's own"),
        ("$BULKHEAD run --rm --network netns:bh-none box true", "\"bh-none\" does not exist"),
        (
            "$DOCKER run --rm --network netns:$N --sysctl net.ipv4.ip_forward=1 box true",
            "not allowed",
        ),
        ("$DOCKER run --rm --network netns:$N --network-alias x box true", "conflicting options"),
    ] {
        let said = shell(line)?;
        ensure!(said.code == 125 && said.stderr.contains(text), "{line}: {}", said.stderr);
    }
    shell("$DOCKER network connect bridge web")?.expect(1, "cannot be connected")?;
    daemon.crash()?;
    daemon.up()?;
    let line = "$DOCKER restart -t 0 web >/dev/null
        $DOCKER exec web ip -4 -o address show one | grep -c 10.44.0.1
        $DOCKER stop -t 0 web >/dev/null; $DOCKER start web";
    assert_eq!(shell(line)?.ok()?, "1\nweb");
    shell("ip netns delete $N; $DOCKER restart -t 0 web")?.expect(1, "does not exist")?;
    shell("$BULKHEAD netns add $N; $DOCKER start web; $DOCKER exec web ls /sys/class/net")?
        .expect(0, "lo")?;
    Ok(())
}

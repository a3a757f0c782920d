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

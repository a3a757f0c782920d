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

/// Lines for the shell; a number for a namespace is `$ID`, another for each line: the kernel has one taken
/// for a moment after its namespace has gone. `$NS` is `ip netns` or Bulkhead's, and both have to say the same.
#[test]
fn every_command_of_ip_netns_is_one_of_bulkheads() -> Result<()> {
    let daemon = Daemon::start()?;
    for (line, expected) in [
        ("$NS add $A 2>/dev/null; $NS exec $A ip -o link show lo | grep -c 'state DOWN'", "1"),
        ("ip netns add $A; $NS set $A $ID; $NS list | grep -F $A | sed \"s/$A/A/; s/$ID/ID/\"", "A (id: ID)"),
        ("ip netns add $A; $NS set $A $ID; $NS set $A $((ID + 1)) 2>/dev/null || echo refused", "refused"),
        ("ip netns add $A; $NS exec $A $NS identify | sed s/$A/A/; $NS identify 1", "A"),
        (
            "ip netns add $A; $NS exec $A sh -c 'echo $$ >$HERE/pid; exec cat $HERE/end >/dev/null' & read P <$HERE/pid
             $NS pids $A | grep -cx $P; $NS identify $P | sed s/$A/A/; echo >$HERE/end; wait; $NS pids $A",
            "1\nA",
        ),
        (
            "unshare -n sh -c 'echo $$ >$HERE/pid; exec cat $HERE/end >/dev/null' & read P <$HERE/pid
             $NS attach $A $P; $NS exec $A ip -o link | wc -l; $NS attach $A $P 2>/dev/null || echo taken
             echo >$HERE/end; wait; $NS attach $B 4000000 2>/dev/null || echo gone",
            "1\ntaken\ngone",
        ),
        (
            "$NS monitor >$HERE/log & M=$!
             until [ \"$(grep -A 1 -m 1 \"^add $A\" $HERE/log | tail -n 1)\" = \"delete $A\" ]; do ip netns add $A; ip netns delete $A; done
             kill $M; wait $M 2>/dev/null; grep -A 1 -m 1 \"^add $A\" $HERE/log | sed s/$A/A/",
            "add A\ndelete A",
        ),
        ("ip netns add $A; $NS delete $A; $NS delete $A 2>/dev/null || echo gone; $NS exec $A true 2>/dev/null || echo gone", "gone\ngone"),
    ] {
        for program in ["ip netns", "$BULKHEAD netns"] {
            let said = daemon.shell(&format!(
                "A=bh-p-$$ B=bh-q-$$ ID=$((2 * $$)) NS=\"{program}\"; rm -f $HERE/pid $HERE/end; mkfifo $HERE/pid $HERE/end; : >$HERE/log
                 trap 'for name in $A $B; do ip netns delete $name 2>/dev/null; done' EXIT
                 {line}"
            ))?;
            ensure!(said.stdout.trim_end() == expected, "{program}: {line}: {said:?}");
        }
    }
    let line = "A=bh-p-$$ B=bh-q-$$; $BULKHEAD netns add $A; $BULKHEAD netns add --up $B
        ip netns exec $B ip -o link show lo | grep -c UP,LOWER_UP
        $BULKHEAD netns set $A auto; $BULKHEAD netns ls --format json | grep -c \"\\\"name\\\":\\\"$A\\\",\\\"id\\\":[0-9]\"
        $BULKHEAD netns delete $A nope $B; echo $?; $BULKHEAD netns ls | grep -cE \"^($A|$B)\"";
    let said = daemon.shell(line)?;
    assert_eq!(said.stdout, "1\n1\n1\n0\n", "{said:?}");
    ensure!(
        said.stderr.contains("is down") && said.stderr.matches("is down").count() == 1,
        "{said:?}"
    );
    Ok(())
}

#[test]
fn a_pair_of_links_is_what_ip_makes_of_it() -> Result<()> {
    let daemon = Daemon::start()?;
    let made = |line: &str| {
        daemon.shell(&format!(
            "set -e; A=bh-r-$$; trap 'ip netns delete $A; ip link delete v0 2>/dev/null || true' EXIT; ip netns add $A
             {line}
             ip -o -4 addr show v0 | sed 's/^[0-9]*: //; s/valid.*//'; ip netns exec $A ip -o -4 addr show v1 | sed 's/^[0-9]*: //; s/valid.*//'
             ip -o link show v0 | grep -o 'state [A-Z]*'; ip netns exec $A ip -o link show v1 | grep -o 'state [A-Z]*'
             ip netns exec $A busybox ping -c 1 -W 20 10.77.0.1 | grep -o '1 packets received'"
        ))
    };
    let by_ip = made(
        "ip link add v0 type veth peer name v1; ip link set v1 netns $A
         ip addr add 10.77.0.1/24 brd + dev v0; ip link set v0 up
         ip netns exec $A ip addr add 10.77.0.2/24 brd + dev v1; ip netns exec $A ip link set v1 up",
    )?
    .ok()?;
    let own = made("$BULKHEAD netns veth v0 v1 --to $A --addr 10.77.0.1/24")?.ok()?;
    assert_eq!(own, by_ip);
    ensure!(own.contains("10.77.0.2/24") && own.contains("1 packets received"), "{own}");
    for (line, text) in [
        ("veth v0 v1 --to nope", "does not exist"),
        ("veth v0 v1 --to x --addr 10.0.0.1", "with its prefix"),
        ("veth waytoolongalinkname v1 --to x", "invalid interface name"),
        ("veth host0 v1 --to $A", "host0 exists already"),
    ] {
        let line = format!(
            "A=bh-s-$$; ip netns add $A; trap 'ip netns delete $A' EXIT; $BULKHEAD netns {line}"
        );
        daemon.shell(&line)?.expect(1, text)?;
    }
    Ok(())
}

#[test]
fn a_namespace_is_shown_on_one_page() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let line = "set -e; A=bh-t-$$; trap 'kill $N; ip netns delete $A' EXIT; ip netns add $A
        $BULKHEAD netns veth v0 v1 --to $A --addr 10.78.0.1/24
        ip netns exec $A ip link set lo up; ip netns exec $A ip route add default via 10.78.0.1
        ip netns exec $A busybox ping -c 1 -W 20 10.78.0.1 >/dev/null
        ip netns exec $A busybox nc -l -p 7777 & N=$!
        printf 'table ip bhtest {\\n chain in {\\n type filter hook input priority 0; policy accept;\\n tcp dport 99 counter drop\\n }\\n}\\n' | ip netns exec $A nft -f -
        until $BULKHEAD netns show $A | grep -q ':7777 '; do :; done
        $BULKHEAD netns show $A; $BULKHEAD netns show --format json $A";
    let said = daemon.shell(line)?.ok()?;
    let (page, json) = said.split_once("\n{\n").unwrap_or((&said, ""));
    let has = |start: &str, rest: &[&str]| {
        page.lines()
            .any(|line| line.starts_with(start) && rest.iter().all(|part| line.contains(part)))
    };
    for (start, rest) in [
        ("NETWORK NAMESPACE bh-t-", &[][..]),
        ("lo ", &["up", "127.0.0.1/8"]),
        ("v1 ", &["up", "10.78.0.2/24", "veth"]),
        ("default ", &["10.78.0.1", "v1"]),
        ("10.78.0.0/24 ", &["v1"]),
        ("10.78.0.1 ", &["v1", ":"]),
        ("tcp", &[":7777", "listen"]),
        ("ip bhtest in: filter input 0, policy accept", &[]),
        ("  ", &["counter packets 0", "99", "drop"]),
    ] {
        ensure!(has(start, rest), "{start:?} with {rest:?} is not in\n{page}");
    }
    let json: serde_json::Value = serde_json::from_str(&format!("{{\n{json}"))?;
    ensure!(json["firewall"][0]["hook"]["policy"] == "accept", "{json}");
    let line = "$BULKHEAD run -d --name shown box sleep 1000 >/dev/null; $BULKHEAD netns show shown
        $BULKHEAD create --name idle box >/dev/null; $BULKHEAD netns show idle; $BULKHEAD netns show nope; $BULKHEAD rm -f shown idle";
    let said = daemon.shell(line)?;
    ensure!(said.stdout.contains("eth0 ") && said.stdout.contains("\ndefault "), "{said:?}");
    ensure!(said.stderr.contains("idle does not run"), "{said:?}");
    ensure!(said.stderr.contains("no network namespace and no container \"nope\""), "{said:?}");
    Ok(())
}

//! Networks of the user's own, by the real docker CLI.

use anyhow::{Result, ensure};
use bulkhead_tests::Daemon;

#[test]
fn a_network_from_its_creation_to_its_removal() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let line = "set -e
        $DOCKER network create --label tier=web --subnet 10.66.0.0/24 \
            -o com.docker.network.driver.mtu=1400 web >/dev/null
        $DOCKER network ls --filter label=tier=web --format '{{.Name}} {{.Driver}} {{.Scope}}'
        $DOCKER network inspect --format '{{(index .IPAM.Config 0).Subnet}} {{.Labels.tier}}' web
        $DOCKER run -d --name fixed --network web --ip 10.66.0.9 --network-alias www box sleep 1000 \
            >/dev/null
        $DOCKER inspect --format '{{.NetworkSettings.Networks.web.IPAddress}} \
{{.NetworkSettings.Networks.web.Aliases}} {{.NetworkSettings.IPAddress}}.' fixed
        $DOCKER exec fixed cat /sys/class/net/eth0/mtu
        $DOCKER network inspect --format '{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}' web
        $DOCKER ps --filter network=web --format '{{.Names}}'
        $DOCKER network create other >/dev/null
        $DOCKER network connect --alias second other fixed
        $DOCKER exec fixed ls /sys/class/net | tr '\\n' ' '; echo
        $DOCKER network disconnect other fixed
        $DOCKER exec fixed ls /sys/class/net | tr '\\n' ' '; echo
        $DOCKER network prune -f | tail -n +2
        $DOCKER rm -f fixed >/dev/null
        $DOCKER network rm web";
    let said = daemon.shell(line)?.ok()?;
    let rows: Vec<&str> = said.lines().map(str::trim).collect();
    let expected = [
        "web bridge local",
        "10.66.0.0/24 web",
        "10.66.0.9 [www] .",
        "1400",
        "fixed 10.66.0.9/24",
        "fixed",
        "eth0 eth1 lo",
        "eth0 lo",
        "other",
        "",
        "web",
    ];
    assert_eq!(rows, expected, "{said}");
    Ok(())
}

#[test]
fn what_cannot_be_is_told_in_dockers_words() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    daemon.shell("$DOCKER network create --subnet 10.66.0.0/24 web")?.ok()?;
    daemon.shell("$DOCKER run -d --name busy --network web box sleep 1000")?.ok()?;
    for (line, code, text) in [
        ("network create web", 1, "network with name web already exists"),
        ("network create --subnet 10.66.0.0/16 more", 1, "Pool overlaps with other one"),
        ("network create --subnet 10.66.0.1/24 more", 1, "it should be 10.66.0.0/24"),
        ("network create -d overlay more", 1, "plugin not found"),
        ("network create -o com.docker.network.bridge.enable_icc=maybe more", 1, "not a boolean"),
        ("network rm web", 1, "has active endpoints (name:\"busy\""),
        ("network rm bridge", 1, "is a pre-defined network and cannot be removed"),
        ("network rm none-such", 1, "network none-such not found"),
        ("network connect web busy", 1, "already exists in network web"),
        ("network disconnect bridge busy", 1, "is not connected to"),
        ("network connect host busy", 1, "host network"),
        ("run --rm --network none-such box true", 125, "network none-such not found"),
        ("run --rm --network web --ip 10.67.0.1 box true", 125, "no configured subnet"),
        ("run --rm --ip 10.66.0.7 box true", 125, "user defined networks only"),
        ("run --rm --network web --ip 10.66.0.2 box true", 125, "Address already in use"),
    ] {
        let said = daemon.shell(&format!("$DOCKER {line}"))?;
        said.expect(code, text)?;
    }
    let left = daemon.shell("$DOCKER network ls -q | wc -l; $DOCKER ps -aq | wc -l")?.ok()?;
    ensure!(left.split_whitespace().eq(["4", "1"]), "{left}");
    Ok(())
}

/// `serve NAME …`: a container that answers on its port 80.
const SERVE: &str = "serve() { name=$1; shift; $DOCKER run -d --name $name \"$@\" box sh -c \
    'mkdir /www; echo hello >/www/index.html; httpd -p 80 -h /www; echo up; exec sleep 1000' >/dev/null
    first_line $DOCKER logs -f $name >/dev/null; }
    fetch() { curl -gsS --max-time 20 \"$1\"; }\n";

#[test]
fn ports_are_published_by_both_families() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let line = "set -e
        ip address add 2001:db8::2/64 dev host0 nodad
        $DOCKER network create both >/dev/null
        serve any --network both -p 8080:80
        $DOCKER ps --format '{{.Ports}}'; $DOCKER port any
        $DOCKER inspect --format '{{json .NetworkSettings.Ports}} {{json .HostConfig.PortBindings}}' any
        fetch http://10.98.0.2:8080/; fetch http://[2001:db8::2]:8080/; fetch http://127.0.0.1:8080/
        $BULKHEAD ps | grep -o '0.0.0.0:8080->80/tcp, \\[::\\]:8080->80/tcp'
        $DOCKER rm -f any >/dev/null
        serve drawn --network both -p 80
        test $($DOCKER port drawn | sed 's/.*://' | sort -u | wc -l) = 1; $DOCKER port drawn | wc -l
        serve range --network both -p 9000-9009:80
        serve next --network both -p 9000-9009:80
        $DOCKER port range; $DOCKER port next
        serve one --network both -p '[2001:db8::2]:8081:80' -p 127.0.0.1:8082:80 -p '[::]:8083:80/udp'
        $DOCKER port one; fetch http://[2001:db8::2]:8081/; fetch http://127.0.0.1:8082/
        serve four --network both -p 0.0.0.0:8084:80; $DOCKER port four";
    let said = daemon.shell(&format!("{SERVE}{line}"))?.ok()?;
    let rows: Vec<&str> = said.lines().map(str::trim).collect();
    let expected = [
        "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp",
        "80/tcp -> 0.0.0.0:8080",
        "80/tcp -> [::]:8080",
        "{\"80/tcp\":[{\"HostIp\":\"0.0.0.0\",\"HostPort\":\"8080\"},{\"HostIp\":\"::\",\"HostPort\":\
         \"8080\"}]} {\"80/tcp\":[{\"HostIp\":\"\",\"HostPort\":\"8080\"}]}",
        "hello",
        "hello",
        "hello",
        "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp",
        "2",
        "80/tcp -> 0.0.0.0:9000",
        "80/tcp -> [::]:9000",
        "80/tcp -> 0.0.0.0:9001",
        "80/tcp -> [::]:9001",
        "80/tcp -> 127.0.0.1:8082",
        "80/tcp -> [2001:db8::2]:8081",
        "80/udp -> [::]:8083",
        "hello",
        "hello",
        "80/tcp -> 0.0.0.0:8084",
    ];
    assert_eq!(rows, expected, "{said}");
    for (line, text) in [
        ("--network both -p 8084:80", "port is already allocated"),
        ("--network both -p [2001:db8::3]:8090:80", "this host has no such address"),
        ("--network both -p 8080:80/icmp", "invalid"),
    ] {
        daemon.shell(&format!("$DOCKER run --rm {line} box true"))?.expect(125, text)?;
    }
    Ok(())
}

/// A port that is published while the engine is killed goes on leading to its container by both
/// families, and the next one holds it.
#[test]
fn ports_of_both_families_survive_the_engine() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let line = "set -e; ip address add 2001:db8::2/64 dev host0 nodad
        $DOCKER network create both >/dev/null; serve any --network both -p 8080:80";
    daemon.shell(&format!("{SERVE}{line}"))?.ok()?;
    let fetch = "fetch http://10.98.0.2:8080/; fetch http://[2001:db8::2]:8080/";
    daemon.crash()?;
    assert_eq!(daemon.shell(&format!("{SERVE}{fetch}"))?.ok()?, "hello\nhello");
    daemon.up()?;
    assert_eq!(daemon.shell(&format!("{SERVE}{fetch}"))?.ok()?, "hello\nhello");
    let again = daemon.shell("$DOCKER run --rm --network both -p [::]:8080:80 box true")?;
    again.expect(125, "port is already allocated")?;
    let line = "set -e; $DOCKER network disconnect both any; $DOCKER port any
        $DOCKER network connect both any; $DOCKER port any; fetch http://[2001:db8::2]:8080/
        $DOCKER restart -t 0 any >/dev/null; $DOCKER port any | wc -l";
    let said = daemon.shell(&format!("{SERVE}{line}"))?.ok()?;
    assert_eq!(said, "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\nhello\n2");
    Ok(())
}

#[test]
fn networks_have_addresses_of_both_families() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let line = "set -e
        both() { $DOCKER network inspect --format '{{.EnableIPv4}} {{.EnableIPv6}} {{len .IPAM.Config}}' $1; }
        $DOCKER network create plain >/dev/null; both plain
        $DOCKER network inspect --format '{{(index .IPAM.Config 1).Subnet}}' plain |
            grep -cE '^fd[0-9a-f:]+::/64$'
        $DOCKER run -d --name web --network plain box sleep 1000 >/dev/null
        $DOCKER inspect --format '{{.NetworkSettings.Networks.plain.GlobalIPv6Address}}' web | grep -c ^fd
        $DOCKER run --rm --network plain box ping6 -c 1 web | grep -c ' 0% packet loss'
        $DOCKER run --rm --network plain box nslookup -type=aaaa web 127.0.0.11 | grep -c 'Address.* fd'
        $DOCKER network create --ipv6=false four >/dev/null; both four
        $DOCKER network create --ipv4=false six >/dev/null; both six
        $DOCKER run --rm --network six box ip -4 address show eth0 | grep -c inet || true
        $DOCKER network create --subnet 10.70.0.0/24 planned >/dev/null; both planned
        $DOCKER network create -o com.docker.network.driver.mtu=1000 small >/dev/null; both small
        both bridge
        $BULKHEAD network create --ipv6=false five >/dev/null; both five
        echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6
        $DOCKER network create off >/dev/null; both off
        $DOCKER run --rm --network off -p 80 box true";
    let said = daemon.shell(line)?.ok()?;
    let expected = "true true 2\n1\n1\n1\n1\ntrue false 1\nfalse true 1\n0\ntrue false 1\ntrue false 1\n\
                    true false 1\ntrue false 1\ntrue false 1";
    assert_eq!(said, expected);
    Ok(())
}

/// Another machine at 10.98.0.1 and 2001:db8::1, with routes by this one's addresses; 2 is this one's.
const OUTSIDE: &str = "ip netns add $N; ip link set host1 netns $N; ip -n $N link set host1 up
    ip -n $N address add 10.98.0.1/24 dev host1; ip -n $N address add 2001:db8::1/64 dev host1 nodad
    ip address add 2001:db8::2/64 dev host0 nodad; ip route add default via 10.98.0.1
    ip -6 route add default via 2001:db8::1; ip -n $N route add default via 10.98.0.2
    ip -n $N -6 route add default via 2001:db8::2\n";

/// `outside URL` is what the other machine gets: its answer, or `-`.
const ASK: &str = "outside() { ip netns exec $N curl -gsS --max-time ${PATIENCE:-20} \"$1\" 2>/dev/null \
    || echo -; }\n";

/// Docker's options of bridge networks (docs of its bridge driver, "Options"), each seen by its effect.
#[test]
fn options_of_bridges_are_in_effect() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let outside = Outside(format!("bh-outside-{}", std::process::id()));
    let shell = |line: &str| daemon.shell(&format!("set -e; N={}; {SERVE}{ASK}{line}", outside.0));
    shell(OUTSIDE)?.ok()?;
    let mode = |mode: &str| {
        format!(
            "-o com.docker.network.bridge.gateway_mode_ipv4={mode} \
             -o com.docker.network.bridge.gateway_mode_ipv6={mode}"
        )
    };
    let routed = mode("routed");
    let line = format!(
        "$DOCKER network create {routed} --subnet 10.71.0.0/24 --subnet fd00:71::/64 routed >/dev/null
        serve one --network routed --ip 10.71.0.9 --ip6 fd00:71::9 -p 8080:80
        $DOCKER inspect --format '{{{{json .NetworkSettings.Ports}}}}' one; $DOCKER port one | wc -l
        $DOCKER ps --format '[{{{{.Ports}}}}]'
        outside http://10.71.0.9/; outside http://[fd00:71::9]/; PATIENCE=2 outside http://10.98.0.2:8080/
        ip netns exec $N ping -c 1 -w 20 10.71.0.9 | grep -c ' 0% packet loss'
        $DOCKER run --rm box wget -qO- http://10.71.0.9/"
    );
    let said = shell(&line)?.ok()?;
    let rows: Vec<&str> = said.lines().collect();
    let ports = "{\"80/tcp\":[{\"HostIp\":\"0.0.0.0\",\"HostPort\":\"\"},{\"HostIp\":\"::\",\"HostPort\":\"\"}]}";
    assert_eq!(rows[0], ports, "{said}");
    assert_eq!(rows[3..], ["hello", "hello", "-", "1", "hello"], "{said}");
    // The record says it to the next engine, and the links come back.
    daemon.crash()?;
    daemon.up()?;
    assert_eq!(
        shell("outside http://10.71.0.9/; outside http://[fd00:71::9]/")?.ok()?,
        "hello\nhello"
    );
    let unprotected = mode("nat-unprotected");
    let line = format!(
        "$DOCKER rm -f one >/dev/null
        $DOCKER network create {unprotected} --subnet 10.72.0.0/24 open >/dev/null
        serve two --network open --ip 10.72.0.9; outside http://10.72.0.9/
        $DOCKER network create --subnet 10.73.0.0/24 \
            -o com.docker.network.bridge.trusted_host_interfaces=eth9:host0 trusted >/dev/null
        serve three --network trusted --ip 10.73.0.9 -p 8080:80
        outside http://10.73.0.9/; outside http://10.98.0.2:8080/
        $DOCKER network create --subnet 10.74.0.0/24 plain >/dev/null
        serve four --network plain --ip 10.74.0.9 -p 8081:80
        outside http://10.98.0.2:8081/; PATIENCE=2 outside http://10.74.0.9/"
    );
    assert_eq!(shell(&line)?.ok()?, "hello\nhello\nhello\nhello\n-");
    let isolated = mode("isolated");
    let line = format!(
        "$DOCKER network create --internal {isolated} --subnet 10.75.0.0/24 \
            -o com.docker.network.bridge.name=bhiso0 isolated >/dev/null
        ip address show bhiso0 | grep -c inet || true
        $DOCKER network inspect --format '{{{{(index .IPAM.Config 0).Gateway}}}}.' isolated
        $DOCKER network create --subnet 10.76.0.0/24 -o com.docker.network.bridge.inhibit_ipv4=true \
            -o com.docker.network.bridge.name=bhinh0 inhibited >/dev/null
        ip address show bhinh0 | grep -c inet || true
        $DOCKER run --rm --network inhibited box ip route | grep -c 'default via 10.76.0.1 '
        ip address add 10.98.0.7/24 dev host0
        $DOCKER network create --subnet 10.77.0.0/24 -o com.docker.network.host_ipv4=10.98.0.7 as >/dev/null
        ip netns exec $N ip address add 10.98.0.9/24 dev host1
        $DOCKER run --rm --network as box ping -c 1 -w 20 10.98.0.1 | grep -c ' 0% packet loss'"
    );
    assert_eq!(shell(&line)?.ok()?, "0\n.\n0\n1\n1");
    for (line, text) in [
        (isolated.as_str(), "gateway mode 'isolated' can only be used for an internal network"),
        ("-o com.docker.network.bridge.gateway_mode_ipv4=bridged", "none of nat, nat-unprotected"),
        ("-o com.docker.network.bridge.new_one=1", "is not supported; leave the option out"),
    ] {
        shell(&format!("$DOCKER network create {line} x"))?.expect(1, text)?;
    }
    Ok(())
}

/// What ufw and firewalld make of forwarded packets, as `nft list ruleset` shows it of Debian 12's.
const LIKE_UFW: &str = "table ip filter {
    chain INPUT { type filter hook input priority 0; policy drop
        ct state established,related accept; iifname lo accept; tcp dport 8080 accept; }
    chain FORWARD { type filter hook forward priority 0; policy drop
        jump ufw-before-forward; jump ufw-user-forward; }
    chain ufw-before-forward { ct state established,related accept
        icmp type echo-request accept; }
    chain ufw-user-forward { }
}";
const LIKE_FIREWALLD: &str = "table inet firewalld {
    chain filter_INPUT { type filter hook input priority 10; policy accept
        ct state established,related accept; ct status dnat accept; iifname lo accept
        tcp dport 22 accept; reject with icmpx admin-prohibited; }
    chain filter_FORWARD { type filter hook forward priority 10; policy accept
        ct state established,related accept; ct status dnat accept; iifname lo accept
        oifname host0 accept; reject with icmpx admin-prohibited; }
}";

/// docs/firewall.md, line by line.
#[test]
fn published_ports_obey_the_policy_and_the_hosts_firewall() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let outside = Outside(format!("bh-outside-{}", std::process::id()));
    let shell = |line: &str| daemon.shell(&format!("set -e; N={}; {SERVE}{ASK}{line}", outside.0));
    let reached = |yes: bool| -> Result<bool> {
        let said = match yes {
            true => shell("outside http://10.98.0.2:8080/")?.ok()?,
            false => shell("PATIENCE=2 outside http://10.98.0.2:8080/")?.ok()?,
        };
        Ok((said == "hello") == yes)
    };
    // Whether a container gets an answer from the other machine. (wget's own -T makes Debian's static
    // busybox crash.)
    let gets_out = |patience: u8| -> Result<bool> {
        let line = format!("$DOCKER exec web timeout {patience} wget -qO- http://10.98.0.1:8000/");
        Ok(shell(&line)?.stdout.contains("outside"))
    };
    shell(OUTSIDE)?.ok()?;
    let line = "serve web -p 8080:80; mkdir $HERE/www; echo outside >$HERE/www/index.html
        ip netns exec $N busybox httpd -p 8000 -h $HERE/www";
    shell(line)?.ok()?;
    let stop = "ip netns pids $N | xargs -r kill";
    let tried = (|| -> Result<()> {
        ensure!(reached(true)? && gets_out(20)?, "without a firewall");
        let user = "meta l4proto tcp ct original proto-dst 8080 accept";
        for (policy, is_reached) in
            [("host", false), ("10.98.0.0/24", true), ("192.0.2.0/24,::/0", false)]
        {
            daemon.crash()?;
            daemon.up_with(&["--publish-policy", policy])?;
            ensure!(reached(is_reached)?, "{policy}");
            ensure!(gets_out(20)?, "{policy}");
            let here = "fetch http://127.0.0.1:8080/; $DOCKER run --rm box wget -qO- http://10.98.0.2:8080/";
            ensure!(shell(here)?.ok()? == "hello\nhello", "{policy}");
        }
        // the administrator's chain goes before the policy
        shell(&format!("nft add rule inet bulkhead user {user}"))?.ok()?;
        ensure!(reached(true)?, "a rule in user");
        shell("nft flush chain inet bulkhead user")?.ok()?;
        ensure!(reached(false)?, "no rule in user");
        // What is of firewalld's kind lets in what was translated: the policy is what closes it.
        shell(&format!("printf '%s' '{LIKE_FIREWALLD}' | nft -f -"))?.ok()?;
        ensure!(reached(false)? && gets_out(20)?, "firewalld and a policy");
        daemon.crash()?;
        daemon.up()?;
        ensure!(reached(true)?, "firewalld alone");
        shell("nft delete table inet firewalld")?.ok()?;
        // What is of ufw's kind drops what is forwarded, whatever it receives.
        shell(&format!("printf '%s' '{LIKE_UFW}' | nft -f -"))?.ok()?;
        ensure!(reached(false)? && !gets_out(2)?, "ufw");
        ensure!(shell("fetch http://127.0.0.1:8080/")?.ok()? == "hello", "ufw, from the host");
        shell("nft add rule ip filter ufw-user-forward tcp dport 80 accept")?.ok()?;
        ensure!(reached(true)? && !gets_out(2)?, "ufw route allow to any port 80");
        shell("nft add rule ip filter ufw-user-forward iifname bhtest0 accept")?.ok()?;
        ensure!(gets_out(20)?, "ufw route allow in on");
        daemon.crash()?;
        daemon.up()?;
        let log = std::fs::read_to_string(daemon.run_directory().join("bulkhead.log"))?;
        ensure!(log.contains("`ip filter FORWARD` drops forwarded packets"), "{log}");
        Ok(())
    })();
    shell(stop)?;
    tried
}

/// J8: `nft flush ruleset`, as `/etc/nftables.conf` begins with it, with the engine there and without.
#[test]
fn flushed_rules_come_back() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let outside = Outside(format!("bh-outside-{}", std::process::id()));
    let shell = |line: &str| daemon.shell(&format!("set -e; N={}; {SERVE}{ASK}{line}", outside.0));
    shell(&format!(
        "{OUTSIDE} $DOCKER network create web >/dev/null; serve web --network web -p 8080:80"
    ))?
    .ok()?;
    // `nft monitor` says when the tables are there again: nothing is waited for but that
    let flush = "mkfifo $HERE/news; nft monitor new chains >$HERE/news & monitor=$!; exec 3<$HERE/news
        nft add table ip probe; nft add chain ip probe seen; grep -q -m1 seen <&3
        nft flush ruleset; timeout 20 grep -q -m1 'chain inet bulkhead forward' <&3; kill $monitor
        rm $HERE/news; outside http://10.98.0.2:8080/; nft list chain bridge bulkhead prerouting | grep -c drop";
    assert_eq!(shell(flush)?.ok()?, "hello\n1");
    let log = std::fs::read_to_string(daemon.run_directory().join("bulkhead.log"))?;
    ensure!(log.contains("they are put back"), "{log}");
    daemon.crash()?;
    shell("nft flush ruleset")?.ok()?;
    daemon.up()?;
    assert_eq!(shell("outside http://10.98.0.2:8080/")?.ok()?, "hello");
    Ok(())
}

/// `LinkLocalIPs` and `com.docker.network.endpoint.sysctls` (docker-py: test_create_with_linklocal_ips).
#[test]
fn options_of_endpoints_are_in_effect() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let sysctl = "com.docker.network.endpoint.sysctls";
    let line = format!(
        "set -e
        $DOCKER network create web >/dev/null
        $DOCKER run -d --name one --network web --link-local-ip 169.254.8.8 box sleep 1000 >/dev/null
        $DOCKER inspect --format '{{{{.NetworkSettings.Networks.web.IPAMConfig.LinkLocalIPs}}}}' one
        $DOCKER exec one ip address show eth0 | grep -c 'inet 169.254.8.8/16'
        $DOCKER run -d --name two --network web box sleep 1000 >/dev/null
        $DOCKER network create other >/dev/null
        $DOCKER network connect --link-local-ip 169.254.9.9 --link-local-ip fe80::9 \
            --driver-opt {sysctl}=net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.conf.IFNAME.forwarding=0 other two
        $DOCKER exec two ip address show eth1 | grep -cE 'inet 169.254.9.9/16|inet6 fe80::9/64'
        $DOCKER exec two cat /proc/sys/net/ipv4/conf/eth1/log_martians /proc/sys/net/ipv4/conf/eth0/log_martians
        $BULKHEAD network connect --link-local-ip 169.254.8.9 other one
        $DOCKER exec one ping -c 1 -w 20 -I eth1 169.254.9.9 | grep -c ' 0% packet loss'
        $DOCKER run --rm --network 'name=web,\"driver-opt={sysctl}=net.ipv6.conf.IFNAME.accept_ra=2\"' box \
            cat /proc/sys/net/ipv6/conf/eth0/accept_ra"
    );
    let said = daemon.shell(&line)?.ok()?;
    assert_eq!(said, "[169.254.8.8]\n1\n2\n1\n0\n1\n2");
    for (line, text) in [
        ("--link-local-ip 10.0.0.1", "invalid link-local IP address: 10.0.0.1"),
        (
            &*format!("--driver-opt {sysctl}=net.ipv4.conf.all.log_martians=1"),
            "unrecognised network interface sysctl 'net.ipv4.conf.all.log_martians=1'",
        ),
        (
            &*format!("--driver-opt {sysctl}=net.ipv4.conf.IFNAME.none_such=1"),
            "has no setting net.ipv4.conf.IFNAME.none_such=1",
        ),
    ] {
        let line = format!(
            "$DOCKER network create more >/dev/null; $DOCKER network connect {line} more one"
        );
        daemon.shell(&line)?.expect(1, text)?;
        daemon.shell("$DOCKER network rm more")?.ok()?;
    }
    Ok(())
}

/// A network namespace that goes with the test.
struct Outside(String);

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip").args(["netns", "delete", &self.0]).output();
    }
}

#[test]
fn containers_are_machines_on_the_hosts_own_network() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let outside = Outside(format!("bh-outside-{}", std::process::id()));
    let shell = |line: &str| daemon.shell(&format!("set -e; N={}; {line}", outside.0));
    let has = |kind: &str| {
        let probe = format!("ip link add probe link host0 type {kind} && ip link delete probe");
        Ok::<_, anyhow::Error>(daemon.shell(&probe)?.code == 0)
    };
    if !has("macvlan")? {
        bulkhead_sys::testing::skip("no macvlan");
        return Ok(());
    }
    let line = "ip netns add $N; ip link set host1 netns $N; ip -n $N link set host1 up
        ip -n $N address add 10.98.0.1/24 dev host1
        $DOCKER network create -d macvlan -o parent=host0 -o macvlan_mode=bridge \
            --subnet 10.98.0.0/24 --ip-range 10.98.0.128/25 --gateway 10.98.0.1 lan >/dev/null
        $DOCKER network inspect --format '{{.Driver}} {{.Options.parent}} {{.EnableIPv6}} {{.Internal}}' lan
        $DOCKER network ls --filter driver=macvlan --format '{{.Name}} {{.Driver}}'
        $DOCKER run -d --name fixed --network lan --ip 10.98.0.200 -p 8080:80 box sleep 1000 >/dev/null
        $DOCKER exec fixed ping -c 1 10.98.0.1 | grep -c ' 0% packet loss'
        $DOCKER exec fixed ip route | grep -c 'default via 10.98.0.1 dev eth0'
        ip -n $N neighbour show 10.98.0.200 | grep -ci \"$($DOCKER inspect --format \
            '{{.NetworkSettings.Networks.lan.MacAddress}}' fixed)\"
        $DOCKER port fixed | wc -l; $DOCKER ps --filter name=fixed --format '[{{.Ports}}]'
        $DOCKER run --rm --network lan box ping -c 1 fixed | grep -c ' 0% packet loss'
        $DOCKER run -d --name moves -p 8081:80 box sleep 1000 >/dev/null
        $DOCKER network connect lan moves
        $DOCKER exec moves ip -o -4 address show eth1 | grep -c ' 10.98.0.1'
        $DOCKER port moves
        $DOCKER network disconnect lan moves; $DOCKER exec moves ls /sys/class/net | tr '\\n' ' '; echo
        $DOCKER restart -t 0 fixed >/dev/null
        $DOCKER exec fixed ping -c 1 10.98.0.1 | grep -c ' 0% packet loss'";
    let said = shell(line)?.ok()?;
    let expected = "macvlan host0 false false\nlan macvlan\n1\n1\n1\n0\n[80/tcp]\n1\n1\n80/tcp -> 0.0.0.0:8081\n\
                    eth0 lo \n1";
    assert_eq!(said, expected);
    daemon.crash()?;
    daemon.up()?;
    let line = "$DOCKER exec fixed ping -c 1 10.98.0.1 | grep -c ' 0% packet loss'
        $DOCKER network rm lan 2>&1 | grep -c 'has active endpoints' || true
        $DOCKER rm -f fixed moves >/dev/null; $DOCKER network rm lan; ip -o link show host0 | grep -c UP";
    assert_eq!(shell(line)?.ok()?, "1\n1\nlan\n1");
    for (line, text) in [
        ("-d macvlan -o parent=none0 x", "interface none0 does not exist"),
        ("-d macvlan -o parent=lo x", "loopback interface is not a valid macvlan parent link"),
        (
            "-d macvlan -o parent=host0 -o macvlan_mode=l2 x",
            "requested macvlan mode 'l2' is not valid",
        ),
        ("-d macvlan -o parent=host0 --internal x", "an internal network has no way out"),
        ("-d ipvlan -o parent=host0 -o ipvlan_mode=bridge x", "requested ipvlan mode 'bridge'"),
    ] {
        daemon.shell(&format!("$DOCKER network create {line}"))?.expect(1, text)?;
    }
    let internal = daemon.shell("$DOCKER network create -d macvlan --internal inner")?;
    match has("dummy")? || daemon.shell("ip link add probe type dummy")?.code == 0 {
        true => drop(internal.ok()?),
        false => drop(internal.expect(1, "no links of kind dummy")?),
    }
    for (mode, routed) in [("l2", "default via 10.98.0.1 dev eth0"), ("l3", "default dev eth0")] {
        let line = format!(
            "set -e; $DOCKER network create -d ipvlan -o parent=host0 -o ipvlan_mode={mode} \
                 --subnet 10.98.0.0/24 --gateway 10.98.0.1 {mode} >/dev/null
             $DOCKER run --rm --network {mode} box ip route; $DOCKER network rm {mode}"
        );
        let said = daemon.shell(&line)?;
        match has("ipvlan")? {
            true => drop(said.expect(0, routed)?),
            false => {
                said.expect(125, "no links of kind ipvlan")?;
                bulkhead_sys::testing::skip("no ipvlan");
                daemon.shell("$DOCKER network rm l2 l3")?;
            }
        }
    }
    Ok(())
}

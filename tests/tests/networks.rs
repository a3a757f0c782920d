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

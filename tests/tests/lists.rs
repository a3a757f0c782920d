//! What `ps`, `inspect`, `system df` and the prunes show and choose, by the real docker CLI.

use anyhow::{Result, ensure};
use bulkhead_tests::Daemon;

#[test]
fn filters_choose_what_docker_chooses() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let line = "set -e
        for name in pf1 pf2 pf3; do $DOCKER run -d --name $name box sleep 1000 >/dev/null; done
        $DOCKER run -d --name web -p 9150:80 box sleep 1000 >/dev/null
        show() { $DOCKER ps --format '{{.Names}}' \"$@\" | sort | tr '\\n' ' '; echo; }
        show -f 'name=pf[12]'
        show -f 'name=^(pf1|pf3)$'
        show -f publish=9100-9200
        show -f publish=9160-9200";
    let said = daemon.shell(line)?.ok()?;
    let rows: Vec<&str> = said.lines().map(str::trim).collect();
    assert_eq!(rows, ["pf1 pf2", "pf1 pf3", "web"], "the last one shows nothing: {said:?}");
    for (line, text) in [
        ("ps -f exited=x", "invalid filter 'exited=x'"),
        ("ps -f 'name=a('", "invalid filter 'name=a('"),
        ("container prune -f --filter until=bogus", "invalid value for 'until' filter"),
        ("image prune -f --filter until=bogus", "invalid value for 'until' filter"),
        ("image prune -f --filter colour=red", "invalid filter 'colour'"),
        ("network prune -f --filter until=bogus", "invalid value for 'until' filter"),
    ] {
        daemon.shell(&format!("$DOCKER {line}"))?.expect(1, text)?;
    }
    Ok(())
}

#[test]
fn a_prune_leaves_what_is_too_young() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let line = "set -e
        $DOCKER create --name old box true >/dev/null
        $DOCKER image prune -af --filter until=24h
        $DOCKER container prune -f --filter until=24h
        $DOCKER images -q | wc -l
        $DOCKER ps -aq | wc -l
        $DOCKER container prune -f >/dev/null
        $DOCKER image prune -af --filter until=0h >/dev/null
        $DOCKER images -q | wc -l";
    let said = daemon.shell(line)?.ok()?;
    let numbers: Vec<&str> = said.lines().filter(|line| line.parse::<u32>().is_ok()).collect();
    assert_eq!(numbers, ["1", "1", "0"], "{said}");
    Ok(())
}

#[test]
fn sizes_are_measured() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let line = "set -e
        $DOCKER run --name writes -v data:/data box \
            sh -c 'head -c 300000 /dev/zero >/file; head -c 200000 /dev/zero >/data/file'
        $DOCKER inspect -s --format '{{.SizeRw}}' writes
        $DOCKER ps -as --format '{{.Size}}'
        $DOCKER system df -v --format '{{range .Volumes}}{{.Name}} {{.Size}}{{end}}'; echo
        $DOCKER system df --format '{{.Type}} {{.Size}}'
        $DOCKER container prune -f | tail -n1
        $DOCKER volume prune -af | tail -n1";
    let said = daemon.shell(line)?.ok()?;
    let mut rows = said.lines();
    assert_eq!(rows.next(), Some("300000"), "{said}");
    let size = rows.next().unwrap_or_default();
    ensure!(size.starts_with("300kB (virtual ") && !size.contains("virtual 300kB"), "{said}");
    let rest: Vec<&str> = rows.collect();
    for row in [
        "data 200kB",
        "Containers 300kB",
        "Local Volumes 200kB",
        "Total reclaimed space: 300kB",
        "Total reclaimed space: 200kB",
    ] {
        ensure!(rest.contains(&row), "{row:?} is not in {said}");
    }
    Ok(())
}

#[test]
fn events_tell_what_clients_do() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let line = "set -e
        start=$(date +%s)
        mkdir -p $HERE/context; echo 'FROM box' >$HERE/context/Dockerfile; echo x >$HERE/file
        $DOCKER run -d --name sees -v seen:/seen box sleep 1000 >/dev/null
        $DOCKER cp $HERE/file sees:/tmp/; $DOCKER cp sees:/tmp/file $HERE/back
        $DOCKER export sees >/dev/null
        $DOCKER commit sees kept:1 >/dev/null
        $DOCKER build -q -t built:1 $HERE/context >/dev/null
        $DOCKER save box | $DOCKER load >/dev/null
        $DOCKER rm -f sees >/dev/null
        $DOCKER events --since $start --until $(($(date +%s) + 1)) --format '{{.Type}} {{.Action}} {{.Actor.Attributes.name}}'";
    let said = daemon.shell(line)?.ok()?;
    for event in [
        "volume mount <no value>",
        "container extract-to-dir sees",
        "container archive-path sees",
        "container export sees",
        "container commit sees",
        "image tag kept:1",
        "image tag built:1",
        "container kill sees",
        "volume unmount <no value>",
        "container destroy sees",
    ] {
        ensure!(said.lines().any(|line| line == event), "{event:?} is not in\n{said}");
    }
    for action in ["image save sha256:", "image load sha256:"] {
        ensure!(said.lines().any(|line| line.starts_with(action)), "{action:?} is not in\n{said}");
    }
    Ok(())
}

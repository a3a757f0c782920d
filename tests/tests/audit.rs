//! What `bulkhead audit` says of containers that the docker CLI has started.

use anyhow::{Context, Result, ensure};
use bulkhead_tests::Daemon;
use serde_json::Value;

#[test]
fn the_audit_finds_what_is_less_safe_and_what_mends_it() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let line = "set -e
        $DOCKER network create front >/dev/null
        $DOCKER tag box box:1.0
        $DOCKER run -d --name careful --network front --read-only --user 1000 --memory 64m --cpus 1 \
            --security-opt no-new-privileges --health-cmd true box:1.0 sleep 1000 >/dev/null
        $DOCKER run -d --name careless --net host --pid host --privileged --restart always \
            -v /etc:/host-etc -v $HERE/run/docker.sock:/docker.sock box sleep 1000 >/dev/null";
    daemon.shell(line)?.ok()?;
    assert_eq!(checks(&daemon, &["careful"], 0)?, [""; 0]);
    let careless = ["5.10", "5.11", "5.12", "5.13", "5.15", "5.16", "5.26", "5.27", "5.28"];
    let mut careless = careless.to_vec();
    careless.extend(["5.32", "5.5", "5.6", "4.1"]);
    careless.sort_unstable();
    let found = checks(&daemon, &["careless"], 1)?;
    let missing: Vec<_> =
        careless.iter().filter(|check| !found.iter().any(|it| it == *check)).collect();
    ensure!(missing.is_empty(), "{missing:?} are missing in {found:?}");
    // What it says to do mends it.
    let all = findings(&daemon, &["careless"], 1)?;
    let memory = all.iter().find(|finding| finding["Check"] == "5.11").context("memory")?;
    let mend = memory["Mend"].as_str().context("a command")?;
    let words: Vec<&str> = mend.split(' ').skip(1).collect();
    ensure!(words == ["update", "--memory", "512m", "careless"], "{mend}");
    daemon.docker(&words)?.ok()?;
    let found = checks(&daemon, &["careless"], 1)?;
    ensure!(!found.contains(&"5.11".to_owned()), "{found:?}");
    let said = daemon.bulkhead(&["audit"])?.expect(1, "careless: runs privileged")?;
    ensure!(
        said.stdout.contains("2 containers checked") && said.stdout.contains("Not checked:"),
        "{said:?}"
    );
    daemon.bulkhead(&["audit", "--fail-on", "never"])?.ok()?;
    daemon.bulkhead(&["audit", "nowhere"])?.expect(1, "No such container: nowhere")?;
    daemon.bulkhead(&["audit", "--format", "xml"])?.expect(1, "is no format: use text or json")?;
    daemon.shell("chmod 666 $HERE/run/docker.sock")?.ok()?;
    daemon.bulkhead(&["audit"])?.expect(1, "is open to everybody (mode 666)")?;
    Ok(())
}

#[test]
fn the_doctor_knows_the_machine_on_which_a_container_runs() -> Result<()> {
    let daemon = Daemon::start()?;
    let data = daemon.data().display().to_string();
    let said = daemon.bulkhead(&["doctor", "--format", "json", "--data", &data])?.ok()?;
    let points: Vec<Value> = serde_json::from_str(&said)?;
    let state = |about: &str| {
        let point = points.iter().find(|point| point["About"] == about);
        point.map(|point| point["State"].as_str().unwrap_or_default().to_owned())
    };
    for about in ["root", "kernel", "cgroups", "overlayfs", "seccomp", "firewall", "data directory"]
    {
        assert_eq!(state(about).as_deref(), Some("ok"), "{about}: {said}");
    }
    // As the engine itself has found it.
    let options = daemon.docker(&["info", "--format", "{{.SecurityOptions}}"])?.ok()?;
    let mapped = if options.contains("name=userns") { "ok" } else { "lacks" };
    assert_eq!(state("user namespaces").as_deref(), Some(mapped), "{options}");
    daemon.shell("nft add table ip filter; nft 'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'")?.ok()?;
    let said = daemon.bulkhead(&["doctor", "--data", &data])?.ok()?;
    ensure!(said.contains("dropped by ip filter FORWARD"), "{said}");
    daemon.shell("nft delete table ip filter")?.ok()?;
    Ok(())
}

fn findings(daemon: &Daemon, names: &[&str], status: i32) -> Result<Vec<Value>> {
    let mut arguments = vec!["audit", "--format", "json"];
    arguments.extend(names);
    let said = daemon.bulkhead(&arguments)?;
    ensure!(said.code == status, "{said:?}");
    Ok(serde_json::from_str(&said.stdout)?)
}

fn checks(daemon: &Daemon, names: &[&str], status: i32) -> Result<Vec<String>> {
    let found = findings(daemon, names, status)?;
    Ok(found.iter().filter_map(|finding| finding["Check"].as_str().map(str::to_owned)).collect())
}

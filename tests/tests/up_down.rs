//! `up` and `down`: a second one harms nobody, and what `down` ended goes on with the next `up`.

use anyhow::{Result, ensure};
use bulkhead_tests::Daemon;

#[test]
fn a_second_up_is_refused_before_it_touches_anything() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let serve = "mkdir /www; echo page >/www/index.html; httpd -f -p 80 -h /www";
    daemon
        .docker(&["run", "-d", "--name", "web", "-p", "8080:80", "box", "sh", "-c", serve])?
        .ok()?;
    let page = "curl -sS --noproxy '*' --retry 20 --retry-connrefused --max-time 20 http://127.0.0.1:8080/";
    assert_eq!(daemon.shell(page)?.ok()?, "page");
    let before = daemon.traces(1)?;
    let ports = "--api 127.0.0.1:0 --console 127.0.0.1:0 --registry 127.0.0.1:0";
    for (flags, sentence) in [
        // The usual run directory and bridge, and another data directory by mistake.
        (
            "--data $HERE/other --run $RUN_DIRECTORY --bridge bhtest0",
            "another Bulkhead engine uses",
        ),
        // All its own, but for the network namespace that both would write their rules to.
        (
            "--data $HERE/other --run $HERE/other-run --bridge bhtest1",
            "another Bulkhead engine uses this network namespace",
        ),
    ] {
        let said = daemon.shell(&format!("$BULKHEAD up --detach {ports} {flags}"))?;
        ensure!(said.code == 1 && said.stderr.contains(sentence), "{flags}: {said:?}");
        ensure!(said.stderr.contains("(process "), "it does not say who: {said:?}");
        ensure!(!daemon.directory().join("other").exists(), "{flags}: it has made its directory");
        assert_eq!(daemon.traces(1)?, before, "{flags}");
        assert_eq!(daemon.shell(page)?.ok()?, "page");
        assert_eq!(daemon.docker(&["ps", "-q"])?.ok()?.lines().count(), 1);
    }
    Ok(())
}

#[test]
fn what_down_ended_goes_on_with_the_next_up() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    for (name, policy) in
        [("u", "unless-stopped"), ("a", "always"), ("stopped", "unless-stopped"), ("n", "no")]
    {
        let name = format!("c-{name}");
        let policy = format!("--restart={policy}");
        daemon.docker(&["run", "-d", "--name", &name, &policy, "box", "sleep", "1000"])?.ok()?;
    }
    daemon.docker(&["stop", "-t", "0", "c-stopped"])?.ok()?;
    let down = |more: &str| {
        daemon.shell(&format!("$BULKHEAD down {more} --data $DATA --run $RUN_DIRECTORY"))
    };
    // Without a terminal it does not ask, and without --yes it does not remove.
    let said = down("--purge")?;
    ensure!(said.code == 1 && said.stderr.contains("--yes"), "{said:?}");
    ensure!(said.stderr.contains("ends 3 running containers"), "{said:?}");
    let said = down("")?.ok()?;
    ensure!(said.contains("Ended: 3 running containers."), "{said}");
    ensure!(said.contains("Images, volumes and records stay in"), "{said}");
    // What is down has nothing to end, and leaves no warden.
    for _ in 0..3 {
        let said = down("")?.ok()?;
        ensure!(said.contains("no container was running"), "{said}");
        let wardens = "ps -eo args | grep -F \"warden --socket $RUN_DIRECTORY\" | grep -vc grep";
        assert_eq!(daemon.shell(wardens)?.stdout.trim(), "0");
    }
    daemon.up()?;
    let running = "until [ \"$($DOCKER ps --format '{{.Names}}' | sort | tr '\\n' ' ')\" = 'c-a c-u ' ]; do :; done; echo so";
    assert_eq!(daemon.shell(running)?.ok()?, "so");
    down("--purge --yes")?.ok()?;
    ensure!(!daemon.data().exists() && !daemon.run_directory().exists(), "directories are left");
    Ok(())
}

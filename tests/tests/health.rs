//! Health checks by the real docker CLI, by Bulkhead's own, and through ECS.

use anyhow::{Context, Result, ensure};
use bulkhead_tests::Daemon;

fn daemon() -> Result<Daemon> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    Ok(daemon)
}

/// Lines for the shell: `until_health CONTAINER STATUS` waits until a container is so.
const UNTIL: &str = "until_health() {
        timeout 60 sh -c 'until test \"$($DOCKER inspect -f \"{{.State.Health.Status}}\" $1)\" = $2; do :; done' \
            sh \"$1\" \"$2\" || { $DOCKER inspect -f '{{json .State}}' $1; exit 1; }
    }
    export DOCKER\n";

#[test]
fn a_container_is_shown_as_healthy_as_it_is() -> Result<()> {
    let daemon = daemon()?;
    let line = format!(
        "set -e
        {UNTIL}
        $DOCKER run -d --name web --health-cmd 'echo looked; test -e /good' --health-interval 50ms \
            --health-timeout 20s --health-retries 2 box sleep 1000 >/dev/null
        $DOCKER inspect -f '{{{{json .Config.Healthcheck}}}}' web
        until_health web unhealthy
        $DOCKER ps --format '{{{{.Status}}}}' | grep -c '(unhealthy)'
        $DOCKER ps -q -f health=unhealthy | wc -l
        $DOCKER ps -q -f health=none | wc -l
        $DOCKER exec web touch /good
        until_health web healthy
        $DOCKER ps --format '{{{{.Status}}}}' | grep -c '(healthy)'
        $BULKHEAD ps | grep -c '(healthy)'
        $DOCKER inspect -f '{{{{with index .State.Health.Log 0}}}}{{{{.Output}}}}{{{{end}}}}' web
        $DOCKER inspect -f '{{{{len .ExecIDs}}}}' web
        $DOCKER events --since 1h --until $(($(date +%s) + 1)) --filter event=health_status --format '{{{{.Action}}}}' | tail -n2"
    );
    let said = daemon.shell(&line)?.ok()?;
    let rows: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(
        rows,
        [
            r#"{"Test":["CMD-SHELL","echo looked; test -e /good"],"Interval":50000000,"Timeout":20000000000,"Retries":2}"#,
            "1",
            "1",
            "0",
            "1",
            "1",
            "looked",
            "0",
            "health_status: unhealthy",
            "health_status: healthy",
        ]
    );
    Ok(())
}

#[test]
fn checks_are_the_images_unless_the_user_says_otherwise() -> Result<()> {
    let daemon = daemon()?;
    std::fs::create_dir(daemon.directory().join("context"))?;
    std::fs::write(
        daemon.directory().join("context/Dockerfile"),
        "FROM box\nSHELL [\"/bin/sh\", \"-ec\"]\n\
         HEALTHCHECK --interval=50ms --timeout=9s --start-period=7s --start-interval=60ms --retries=4 \
         CMD case $- in *e*) exit 0;; esac; exit 1\n",
    )?;
    let line = format!(
        "set -e
        {UNTIL}
        $DOCKER build -q -t checked $HERE/context >/dev/null
        $DOCKER run -d --name own checked sleep 1000 >/dev/null
        until_health own healthy
        $DOCKER run -d --name half --health-interval 70ms checked sleep 1000 >/dev/null
        $DOCKER inspect -f '{{{{.Config.Healthcheck.Interval}}}} {{{{.Config.Healthcheck.Retries}}}} {{{{.Config.Healthcheck.StartInterval}}}}' half
        $DOCKER run -d --name none --no-healthcheck checked sleep 1000 >/dev/null
        $DOCKER inspect -f '{{{{json .Config.Healthcheck.Test}}}} {{{{json .State.Health}}}}' none
        $BULKHEAD run -d --name mine --health-cmd 'exit 0' --health-interval 50ms box sleep 1000 >/dev/null
        until_health mine healthy
        $BULKHEAD run -d --no-healthcheck --name off checked sleep 1000 >/dev/null
        $BULKHEAD inspect off | grep -c NONE"
    );
    let said = daemon.shell(&line)?.ok()?;
    let rows: Vec<&str> = said.lines().collect();
    assert_eq!(rows, ["70ms 4 60ms", "[\"NONE\"] null", "1"]);
    for (line, text) in [
        (
            "$DOCKER run -d --health-cmd x --health-interval 1us box true",
            "Interval in Healthcheck cannot be less than 1ms",
        ),
        (
            "$DOCKER run -d --health-cmd x --health-start-interval 1us box true",
            "StartInterval in Healthcheck cannot be less than 1ms",
        ),
        ("$BULKHEAD run -d --health-retries -1 box true", "--health-retries cannot be negative"),
        (
            "$BULKHEAD run -d --no-healthcheck --health-cmd x box true",
            "--no-healthcheck conflicts with --health-* options",
        ),
        (
            "$BULKHEAD run -d --health-on-failure reboot box true",
            "write none, restart, stop or kill",
        ),
        (
            "$DOCKER run -d -l bulkhead.health-on-failure=maybe box true",
            "write none, restart, stop or kill",
        ),
    ] {
        let said = daemon.shell(line)?;
        ensure!(said.code != 0, "{line}");
        ensure!(format!("{}{}", said.stdout, said.stderr).contains(text), "{line}: {said:?}");
    }
    Ok(())
}

#[test]
fn an_unhealthy_container_is_restarted_on_request() -> Result<()> {
    let daemon = daemon()?;
    let line = format!(
        "set -e
        {UNTIL}
        $BULKHEAD run -d --name again --health-cmd 'test ! -e /tmp/bad' --health-interval 50ms \
            --health-retries 1 --health-on-failure restart --stop-timeout 0 --tmpfs /tmp box sleep 1000 >/dev/null
        until_health again healthy
        $DOCKER exec again touch /tmp/bad
        timeout 60 sh -c 'until test $($DOCKER inspect -f {{{{.RestartCount}}}} again) = 1; do :; done'
        until_health again healthy
        $DOCKER inspect -f '{{{{.RestartCount}}}} {{{{.HostConfig.RestartPolicy.Name}}}}' again"
    );
    assert_eq!(daemon.shell(&line)?.ok()?, "1 no");
    Ok(())
}

#[test]
fn a_killed_engine_leaves_no_probe_and_knows_health_again() -> Result<()> {
    let daemon = daemon()?;
    let line = format!(
        "set -e
        {UNTIL}
        $DOCKER run -d --name lives --health-interval 50ms --health-timeout 10m \
            --health-cmd 'test -e /hang || exit 0; rm /hang; sleep 7731' box sleep 1000 >/dev/null
        until_health lives healthy
        $DOCKER exec lives touch /hang
        timeout 60 sh -c 'until $DOCKER top lives | grep -q \"sleep 7731\"; do :; done'"
    );
    daemon.shell(&line)?.ok()?;
    daemon.crash()?;
    daemon.up()?;
    let line = "set -e
        $DOCKER inspect -f '{{.State.Health.Status}} {{.State.Health.FailingStreak}}' lives
        timeout 60 sh -c 'while $DOCKER top lives | grep -q \"sleep 7731\"; do :; done'
        last() { $DOCKER inspect -f '{{range .State.Health.Log}}{{.Start}} {{end}}' lives; }
        first=$(last); while test \"$(last)\" = \"$first\"; do :; done
        $DOCKER inspect -f '{{.State.Health.Status}}' lives";
    let said = daemon.shell(&format!("export DOCKER\n{line}"))?.ok()?;
    assert_eq!(said, "healthy 0\nhealthy");
    Ok(())
}

/// A task whose second container waits for the health of the first.
#[test]
fn tasks_wait_for_health_and_show_it() -> Result<()> {
    let daemon = daemon()?;
    let definition = r#"[
        {"name": "db", "image": "box", "memory": 32, "command": ["sleep", "1000"],
         "healthCheck": {"command": ["CMD-SHELL", "test -e /good || { touch /good; exit 1; }"], "interval": 5}},
        {"name": "web", "image": "box", "memory": 32, "command": ["sleep", "1000"],
         "dependsOn": [{"containerName": "db", "condition": "HEALTHY"}]}]"#;
    daemon
        .aws(&[
            "ecs",
            "register-task-definition",
            "--family",
            "waits",
            "--container-definitions",
            definition,
        ])?
        .ok()?;
    let started =
        daemon.aws(&["ecs", "run-task", "--task-definition", "waits", "--output", "json"])?.ok()?;
    let started: serde_json::Value = serde_json::from_str(&started)?;
    let task = started["tasks"][0]["taskArn"].as_str().context("a task was placed")?.to_owned();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(90);
    loop {
        let said =
            daemon.aws(&["ecs", "describe-tasks", "--tasks", &task, "--output", "json"])?.ok()?;
        let described: serde_json::Value = serde_json::from_str(&said)?;
        let shown = &described["tasks"][0];
        if shown["healthStatus"] == "HEALTHY" && shown["lastStatus"] == "RUNNING" {
            let health = |name: &str| {
                let containers = shown["containers"].as_array().cloned().unwrap_or_default();
                let found = containers.into_iter().find(|container| container["name"] == name);
                found.map(|container| container["healthStatus"].clone())
            };
            assert_eq!(health("db"), Some("HEALTHY".into()));
            assert_eq!(health("web"), Some("UNKNOWN".into()), "it has no check");
            return Ok(());
        }
        ensure!(std::time::Instant::now() < deadline, "{said}");
    }
}

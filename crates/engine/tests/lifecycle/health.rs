//! Health checks: what they find, what follows, and that no probe is left.

use bulkhead_engine::{
    Class, CreateContainer, Health, HealthStatus, ON_FAILURE_LABEL, RestartPolicy, Status,
};
use bulkhead_types::image::Healthcheck;

use crate::containers::{exec, wait_for};
use crate::recovery::end_wardens;
use crate::rig::Rig;

const MILLISECOND: i64 = 1_000_000;

/// A container that forgets at its start what made it unhealthy, with a check that runs often.
fn checked(name: &str, test: &str) -> CreateContainer {
    let script = "busybox rm -f /bad; trap 'exit 3' TERM; echo ready; sleep 1000 & wait";
    let mut create = Rig::script(name, script);
    create.config.healthcheck = Some(Healthcheck {
        test: vec!["CMD-SHELL".to_owned(), test.to_owned()],
        interval: 20 * MILLISECOND,
        timeout: 60_000 * MILLISECOND,
        retries: 1,
        ..Healthcheck::default()
    });
    create
}

fn health(rig: &Rig, name: &str) -> Health {
    rig.engine.container(name).unwrap().state.health.expect("it has a check")
}

fn is(rig: &Rig, name: &str, status: HealthStatus) -> bool {
    health(rig, name).status == status
}

/// Runs a command in a container.
async fn run(rig: &Rig, name: &str, command: &[&str]) {
    let id = rig.engine.exec_create(rig.id(name), exec(command)).await.unwrap();
    rig.engine.exec_start(id, true, (0, 0)).await.unwrap();
    let id = id.to_string();
    loop {
        let view = rig.engine.exec(&id).await.unwrap();
        if let Some(code) = view.exit_code {
            return assert_eq!(code, 0, "{command:?}");
        }
        tokio::task::yield_now().await;
    }
}

/// Waits until a container has had so many probes more.
async fn probed(rig: &Rig, name: &str, times: u32) {
    for _ in 0..times {
        let last = health(rig, name).log.last().map(|result| result.start);
        wait_for(|| health(rig, name).log.last().map(|result| result.start) != last).await;
    }
}

async fn runs(rig: &Rig, name: &str, command: &str) -> bool {
    let (_, rows) =
        rig.engine.top(rig.id(name), bulkhead_engine::Column::parse("").unwrap()).await.unwrap();
    rows.iter().any(|row| row[7] == command)
}

/// Waits until a command runs in a container, or runs no more.
async fn until(rig: &Rig, name: &str, command: &str, running: bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while runs(rig, name, command).await != running {
        assert!(std::time::Instant::now() < deadline, "{command}: {running} did not become true");
        tokio::task::yield_now().await;
    }
}

pub async fn a_container_is_found_healthy_and_then_not(rig: &mut Rig) {
    let (_, mut events) = rig.engine.events(None);
    let mut create = checked("web", "echo out; echo err >&2; test -e /good");
    create.config.healthcheck.as_mut().unwrap().retries = 2;
    let created = rig.engine.create(create).await.unwrap();
    assert_eq!(created.state.health, None, "Docker has none before the first start");
    rig.engine.start(rig.id("web")).await.unwrap();
    rig.ready("web").await;
    wait_for(|| is(rig, "web", HealthStatus::Unhealthy)).await;
    run(rig, "web", &["touch", "/good"]).await;
    wait_for(|| is(rig, "web", HealthStatus::Healthy)).await;
    probed(rig, "web", 6).await;
    let known = health(rig, "web");
    assert_eq!((known.failing_streak, known.log.len()), (0, 5));
    let last = known.log.last().unwrap();
    assert_eq!((last.exit_code, last.output.as_str()), (0, "out\nerr\n"));
    assert!(last.start < last.end);
    assert!(rig.engine.execs_of(rig.id("web")).is_empty(), "probes are nobody's execs");

    rig.engine.stop(rig.id("web"), None, None).await.unwrap();
    assert!(is(rig, "web", HealthStatus::Unhealthy), "as Docker shows what is not probed any more");
    let log = health(rig, "web").log;
    rig.engine.start(rig.id("web")).await.unwrap();
    wait_for(|| is(rig, "web", HealthStatus::Healthy)).await;
    assert_eq!(health(rig, "web").log[0].start, log[1].start, "the results of its last life stay");

    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        let first = event.action.split(':').next().unwrap();
        if first == "exec_die" {
            assert!(
                event.attributes.contains_key("exitCode")
                    && event.attributes.contains_key("execID")
            );
        }
        let of_first_probe = first.starts_with("exec_") && seen.len() < 3;
        if of_first_probe || first == "health_status" {
            seen.push(event.action);
        }
    }
    let command = "/bin/sh -c echo out; echo err >&2; test -e /good";
    assert_eq!(
        seen,
        [
            format!("exec_create: {command}"),
            format!("exec_start: {command}"),
            "exec_die".to_owned(),
            "health_status: unhealthy".to_owned(),
            "health_status: healthy".to_owned(),
            "health_status: healthy".to_owned(),
        ]
    );
    rig.done().await;
}

pub async fn a_probe_that_takes_too_long_is_ended_with_what_it_started(rig: &mut Rig) {
    let test = "[ -e /once ] && exit 1; : > /once; echo begun; \
        busybox timeout 1000 sleep 771 & busybox timeout 1000 sleep 772";
    let mut create = checked("slow", test);
    let check = create.config.healthcheck.as_mut().unwrap();
    (check.timeout, check.interval) = (500 * MILLISECOND, 20 * MILLISECOND);
    rig.start(create).await;
    wait_for(|| is(rig, "slow", HealthStatus::Unhealthy)).await;
    let first = health(rig, "slow").log[0].clone();
    assert_eq!(first.exit_code, -1);
    assert_eq!(first.output, "Health check exceeded timeout (500ms): begun\n");
    for command in ["sleep 771", "sleep 772", "busybox timeout 1000 sleep 771"] {
        until(rig, "slow", command, false).await;
    }
    // What cannot be run at all is a failure too.
    let mut create = checked("none", "");
    create.config.healthcheck.as_mut().unwrap().test = vec!["CMD".into(), "/missing".into()];
    rig.start(create).await;
    wait_for(|| is(rig, "none", HealthStatus::Unhealthy)).await;
    let last = health(rig, "none").log[0].clone();
    assert_eq!(last.exit_code, -1);
    assert!(last.output.contains("/missing"), "{}", last.output);
    rig.done().await;
}

pub async fn what_follows_when_it_is_unhealthy(rig: &mut Rig) {
    let unhealthy = |name: &str, on_failure: &str, policy| {
        let mut create = checked(name, "test ! -e /bad");
        create.config.labels = [(ON_FAILURE_LABEL.to_owned(), on_failure.to_owned())].into();
        create.host.restart_policy = policy;
        create
    };
    let error = rig.engine.create(unhealthy("x1", "reboot", RestartPolicy::No)).await.unwrap_err();
    assert_eq!(error.class, Class::Invalid);
    assert!(error.message.contains("none, restart, stop or kill"), "{error}");
    for (name, on_failure, policy) in [
        ("again", "restart", RestartPolicy::No),
        ("stays", "none", RestartPolicy::Always),
        ("stops", "stop", RestartPolicy::Always),
        ("killed", "kill", RestartPolicy::Always),
    ] {
        rig.start(unhealthy(name, on_failure, policy)).await;
        rig.ready(name).await;
        wait_for(|| is(rig, name, HealthStatus::Healthy)).await;
        run(rig, name, &["touch", "/bad"]).await;
    }
    let state = |name: &str| {
        let container = rig.engine.container(name).unwrap();
        (container.state.status, container.restart_count, is(rig, name, HealthStatus::Healthy))
    };
    for name in ["again", "killed"] {
        wait_for(|| state(name) == (Status::Running, 1, true)).await;
    }
    wait_for(|| state("stops") == (Status::Exited, 0, false)).await;
    assert_eq!(rig.engine.container("stops").unwrap().state.exit_code, 3, "it could end by itself");
    wait_for(|| state("stays") == (Status::Running, 0, false)).await;
    rig.done().await;
}

pub async fn paused_containers_are_not_probed(rig: &mut Rig) {
    rig.start(checked("paused", "true")).await;
    rig.start(checked("clock", "true")).await;
    wait_for(|| is(rig, "paused", HealthStatus::Healthy)).await;
    rig.engine.pause(rig.id("paused")).await.unwrap();
    let before = health(rig, "paused");
    probed(rig, "clock", 5).await;
    assert_eq!(health(rig, "paused"), before);
    rig.engine.unpause(rig.id("paused")).await.unwrap();
    probed(rig, "paused", 2).await;
    assert!(is(rig, "paused", HealthStatus::Healthy));
    rig.done().await;
}

pub async fn no_probe_outlives_its_engine_or_its_warden(rig: &mut Rig) {
    let hangs = "[ -e /hang ] || exit 0; busybox rm /hang; busybox timeout 1000 sleep 773; true";
    rig.start(checked("lives", hangs)).await;
    rig.ready("lives").await;
    wait_for(|| is(rig, "lives", HealthStatus::Healthy)).await;
    run(rig, "lives", &["touch", "/hang"]).await;
    until(rig, "lives", "sleep 773", true).await;
    rig.close().await;
    rig.open().await;
    assert!(is(rig, "lives", HealthStatus::Healthy), "it is known again");
    assert_eq!(health(rig, "lives").failing_streak, 0);
    until(rig, "lives", "sleep 773", false).await;
    probed(rig, "lives", 1).await;
    assert_eq!(health(rig, "lives").failing_streak, 0);

    // With the warden a probe goes too, and says nothing of the container.
    run(rig, "lives", &["touch", "/hang"]).await;
    until(rig, "lives", "sleep 773", true).await;
    end_wardens(&rig.options.run);
    wait_for(|| rig.engine.info().warnings.iter().any(|it| it.contains("took over"))).await;
    probed(rig, "lives", 1).await;
    let known = health(rig, "lives");
    assert_eq!((known.status, known.failing_streak), (HealthStatus::Healthy, 0));
    assert!(known.log.iter().all(|result| result.exit_code == 0), "{:?}", known.log);
    rig.done().await;
}

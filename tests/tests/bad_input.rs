//! Bad input: one sentence that says what to do, a non-zero status, and nothing left behind.

use anyhow::{Result, ensure};
use bulkhead_tests::Daemon;

/// Nothing but one sentence of Bulkhead's was said.
fn one_sentence(said: bulkhead_tests::Said, code: i32, text: &str) -> Result<()> {
    let said = said.expect(code, text)?;
    let lines = said.stderr.lines().filter(|line| line.starts_with("bulkhead: ")).count();
    ensure!(lines == 1 && !said.stderr.contains("panicked"), "{said:?}");
    Ok(())
}

#[test]
fn requests_that_cannot_be_met() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    daemon.docker(&["run", "--rm", "box", "true"])?.ok()?;
    let before = daemon.traces(0)?;
    let images = daemon.docker(&["images", "-q"])?.ok()?;
    let bulkhead = |line: &str| daemon.shell(&format!("$BULKHEAD {line}"));
    one_sentence(bulkhead("run --rm 127.0.0.1:5000/no/such true")?, 125, "unauthorized")?;
    daemon
        .shell("echo $PASSWORD | $BULKHEAD login -u admin --password-stdin 127.0.0.1:5000")?
        .ok()?;
    one_sentence(bulkhead("run --rm 127.0.0.1:5000/no/such true")?, 125, "not found")?;
    one_sentence(bulkhead("run --rm UPPER true")?, 125, "invalid reference format")?;
    one_sentence(bulkhead("run --rm --pid nosuch box true")?, 125, "nosuch")?;
    one_sentence(bulkhead("run --rm --memory 1x box true")?, 125, "1x")?;
    one_sentence(bulkhead("run --rm -p nosuch:80 box true")?, 125, "nosuch")?;
    one_sentence(bulkhead("run --rm -v /:/ box true")?, 125, "destination")?;
    one_sentence(bulkhead("inspect --type nosuch box")?, 1, "is not a type")?;
    one_sentence(bulkhead("start nosuch")?, 1, "No such container: nosuch")?;
    one_sentence(bulkhead("-H unix:///nowhere/docker.sock ps")?, 1, "bulkhead up")?;
    ensure!(bulkhead("run --nosuch box")?.code != 0, "an unknown flag is taken");
    // Unknown flags of `up` are found before anything is made.
    for flag in ["--bridge-address 1.2.3.4", "--api nosuch", "--public-ip x"] {
        let said = bulkhead(&format!("up {flag} --data $HERE/other --run $HERE/other"))?;
        ensure!(said.code != 0 && said.stderr.contains("invalid value"), "{said:?}");
    }
    // A second one cannot have the first one's ports.
    let said = bulkhead("up --detach --bridge bhtest9 --data $HERE/other/d --run $HERE/other/r")?;
    one_sentence(said, 1, "choose another address with --")?;
    for left in ["other/d", "other/r"] {
        ensure!(!daemon.directory().join(left).exists(), "it has left {left}");
    }

    // A port of another program on the host.
    let said = daemon.shell(
        "rm -f $HERE/listens; mkfifo $HERE/listens
        busybox nc -l -p 8099 -e true >/dev/null 2>&1 & other=$!
        until ss -ltnH 'sport = :8099' | grep -q 8099; do :; done
        $BULKHEAD run --rm -p 8099:80 box true; code=$?; kill $other; wait $other; exit $code",
    )?;
    one_sentence(said, 125, "address already in use")?;

    // The APIs in their own shapes.
    let said = daemon.shell(
        "curl -s -w '%{http_code}' --unix-socket $RUN_DIRECTORY/docker.sock -H 'Content-Type: application/json' \
            -d '{\"Image\": ' http://docker/containers/create",
    )?;
    let said = said.ok()?;
    ensure!(said.starts_with("{\"message\":\"invalid JSON") && said.ends_with("400"), "{said}");

    // A Dockerfile's mistakes come with their line.
    for (dockerfile, code, text) in [
        ("FROM box\nRUN true\nFOO x\n", 1, "line 3: unknown instruction: FOO"),
        (
            "FROM box\nRUN exit 4\n",
            4,
            "The command '/bin/sh -c exit 4' returned a non-zero code: 4",
        ),
    ] {
        std::fs::create_dir_all(daemon.directory().join("context"))?;
        std::fs::write(daemon.directory().join("context/Dockerfile"), dockerfile)?;
        one_sentence(bulkhead("build $HERE/context")?, code, text)?;
        daemon.shell("$DOCKER build $HERE/context")?.expect(code, text)?;
    }
    daemon.shell("$DOCKER image prune -af --filter label=nosuch >/dev/null; $DOCKER rmi $($DOCKER images -qf dangling=true) || true")?;
    assert_eq!(daemon.docker(&["images", "-q"])?.ok()?, images);
    assert!(daemon.docker(&["ps", "-aq"])?.ok()?.is_empty());
    assert_eq!(daemon.traces(0)?, before);
    Ok(())
}

#[test]
fn machines_that_cannot_run_it() -> Result<()> {
    let daemon = Daemon::start()?;
    let up = "$BULKHEAD up --data $HERE/other --run $HERE/other";
    // The directories above the program may not be for everybody: it is run by an open file.
    let said = daemon.shell(&format!(
        "cp $BULKHEAD /var/tmp/bulkhead-$$; BULKHEAD=/var/tmp/bulkhead-$$
        setpriv --reuid 65534 --clear-groups {up}; code=$?; rm $BULKHEAD; exit $code"
    ))?;
    one_sentence(said, 1, "needs root")?;
    let said = daemon.shell(&format!(
        "unshare -m sh -c '
            while read -r _ _ _ _ at rest; do
                case \"$rest\" in *\" - cgroup\"*) umount -l \"$at\";; esac
            done </proc/self/mountinfo
            {up}'"
    ))?;
    one_sentence(said, 1, "no cgroup hierarchy is mounted")?;
    ensure!(!daemon.directory().join("other").exists(), "something was made all the same");
    Ok(())
}

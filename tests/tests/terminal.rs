//! Bulkhead's own command line, as a person at a terminal meets it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

use anyhow::{Result, ensure};
use bulkhead_tests::Daemon;
use bulkhead_tests::terminal::Terminal;

const LEAVE: &[u8] = b"\x10\x11";

#[test]
fn the_keys_to_leave_give_the_prompt_back() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    // what is typed is echoed, so the answer is spelled otherwise; `stty` tells that keys make lines again
    let line = "$BULKHEAD run -it --name shell box sh; echo left $?; stty -a | grep -wo icanon
        $BULKHEAD attach shell; echo left $?; stty -a | grep -wo icanon
        $BULKHEAD exec -it shell sh; echo left $?; stty -a | grep -wo icanon";
    let mut terminal = Terminal::open(&daemon, line)?;
    for (typed, answer) in
        [("echo o''ne\r", "one"), ("echo t''wo\r", "two"), ("echo t''hree\r", "three")]
    {
        terminal.press(typed.as_bytes())?;
        terminal.until(answer)?;
        // the first of the two alone is the program's, until the second is there
        terminal.press(&LEAVE[..1])?;
        terminal.press(&LEAVE[1..])?;
        terminal.until("left 0")?;
        terminal.until("icanon")?;
        let running = daemon.docker(&["inspect", "--format", "{{.State.Running}}", "shell"])?;
        assert_eq!(running.ok()?, "true", "after {answer}");
    }
    let (code, _) = terminal.end()?;
    assert_eq!(code, 0);
    daemon.docker(&["rm", "-f", "shell"])?.ok()?;
    Ok(())
}

#[test]
fn the_third_interrupt_lets_go() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let program = r#"trap "echo caught" INT; echo ready; while :; do sleep 1000 & wait; done"#;
    // the shell hears of the interrupts as well
    let line = format!("trap : INT; $BULKHEAD run --name deaf box sh -c '{program}'; echo left $?");
    let mut terminal = Terminal::open(&daemon, &line)?;
    terminal.until("ready")?;
    for _ in 0..2 {
        terminal.press(b"\x03")?;
        terminal.until("caught")?;
    }
    terminal.press(b"\x03")?;
    terminal.until("3 SIGTERM/SIGINTs")?;
    terminal.until("left 1")?;
    let running = daemon.docker(&["inspect", "--format", "{{.State.Running}}", "deaf"])?;
    assert_eq!(running.ok()?, "true");
    daemon.docker(&["rm", "-f", "deaf"])?.ok()?;
    Ok(())
}

#[test]
fn a_pull_ends_with_digest_and_status() -> Result<()> {
    let daemon = Daemon::start()?;
    let image = "127.0.0.1:5000/box:latest";
    daemon.busybox(image)?;
    daemon
        .shell(&format!(
            "printenv PASSWORD | $BULKHEAD login -u admin --password-stdin 127.0.0.1:5000
            $BULKHEAD push {image} && $BULKHEAD rmi {image}"
        ))?
        .ok()?;
    let (code, screen) = Terminal::open(&daemon, &format!("$BULKHEAD pull {image}"))?.end()?;
    ensure!(code == 0, "{screen}");
    let last = |text: &str| screen.rfind(text);
    let (layer, digest, status) =
        (last("Pull complete"), last("Digest: sha256:"), last("Status: Downloaded"));
    ensure!(layer.is_some() && layer < digest && digest < status, "{screen:?}");
    Ok(())
}

#[test]
fn templates_moments_and_sizes() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    for (command, template) in
        [("ps", "{{.Nope}}"), ("ps", "{{.ID"), ("images", "{{.Nope}}"), ("volumes", "{{.ID")]
    {
        let said = daemon.bulkhead(&[command, "--format", template])?;
        said.expect(1, "template parsing error")?;
    }
    assert_eq!(daemon.bulkhead(&["ps", "--format", "{{.ID}} {{.Names}}"])?.ok()?, "");
    daemon.docker(&["run", "--name", "said", "box", "echo", "hello"])?.ok()?;
    for since in ["5m", "1h30m", "2001-02-03", "2001-02-03T04:05:06Z", "981173106"] {
        let log = daemon.bulkhead(&["logs", "--since", since, "said"])?.ok()?;
        assert_eq!(log, "hello", "{since}");
        let events = daemon.bulkhead(&["events", "--since", since, "--until", "0s"])?.ok()?;
        ensure!(events.contains("container die"), "{since}: {events}");
    }
    daemon.bulkhead(&["logs", "--since", "soon", "said"])?.expect(1, "is not a moment")?;
    let info = daemon.bulkhead(&["info"])?.ok()?;
    let memory = info.lines().find(|line| line.starts_with(" Total Memory: "));
    ensure!(memory.is_some_and(|line| line.ends_with("iB")), "{info}");
    Ok(())
}

#[test]
fn help_is_given_and_slips_are_understood() -> Result<()> {
    let daemon = Daemon::start()?;
    for (arguments, text) in [
        (&[][..], "Usage: bulkhead"),
        (&["help", "run"], "--hostname"),
        (&["run", "-h"], "--hostname"),
        (&["exec", "-h"], "--workdir"),
    ] {
        let said = daemon.bulkhead(arguments)?.expect(0, text)?;
        ensure!(said.stderr.is_empty(), "{arguments:?}: {}", said.stderr);
    }
    daemon.bulkhead(&["rnu"])?.expect(125, "Did you mean run?")?;
    daemon.bulkhead(&["run", "-h", "name"])?.expect(1, "IMAGE")?;
    Ok(())
}

#[test]
fn the_engine_is_found_by_any_address() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let said = daemon.shell("unset BULKHEAD_HOST; $BULKHEAD run --rm box echo by DOCKER_HOST")?;
    assert_eq!(said.ok()?, "by DOCKER_HOST");
    let said = daemon.shell("BULKHEAD_HOST= $BULKHEAD run --rm box echo by DOCKER_HOST")?;
    assert_eq!(said.ok()?, "by DOCKER_HOST");
    let listener = daemon.within(|| Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?))?;
    let host = format!("tcp://{}", listener.local_addr()?);
    let socket = daemon.run_directory().join("docker.sock");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), Ok(engine)) = (stream, UnixStream::connect(&socket)) else { return };
            let (Ok(back), Ok(from)) = (stream.try_clone(), engine.try_clone()) else { return };
            std::thread::spawn(move || {
                copy(&stream, &engine);
                let _ = engine.shutdown(Shutdown::Write);
            });
            std::thread::spawn(move || {
                copy(&from, &back);
                let _ = back.shutdown(Shutdown::Write);
            });
        }
    });
    let line = format!("echo typed | $BULKHEAD -H {host} run -i --rm box cat");
    assert_eq!(daemon.shell(&line)?.ok()?, "typed");
    daemon.bulkhead(&["-H", "ssh://box", "ps"])?.expect(1, "ssh")?;
    daemon.bulkhead(&["-H", "tcp://127.0.0.1:1", "ps"])?.expect(1, "tcp://127.0.0.1:1")?;
    Ok(())
}

/// Docker, and a Bulkhead of before: whatever is below `/bulkhead/containers/` is unknown there.
#[test]
fn an_engine_that_knows_dockers_requests_alone_is_served_by_them() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let listener = daemon.within(|| Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?))?;
    let host = format!("tcp://{}", listener.local_addr()?);
    let socket = daemon.run_directory().join("docker.sock");
    let serve = move |mut stream: TcpStream| -> Result<()> {
        let mut engine = UnixStream::connect(&socket)?;
        let mut head = [0; 4096];
        let length = stream.read(&mut head)?;
        let head = String::from_utf8_lossy(&head[..length]);
        engine.write_all(head.replacen("/bulkhead/containers/", "/nothing/", 1).as_bytes())?;
        let (back, from) = (stream.try_clone()?, engine.try_clone()?);
        std::thread::spawn(move || {
            copy(&from, &back);
            let _ = back.shutdown(Shutdown::Write);
        });
        copy(&stream, &engine);
        Ok(engine.shutdown(Shutdown::Write)?)
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    let bulkhead = |line: &str| daemon.shell(&format!("$BULKHEAD -H {host} {line}"));
    let said = daemon.shell(&format!("echo typed | $BULKHEAD -H {host} run -i --rm box cat"))?;
    assert_eq!(said.ok()?, "typed");
    bulkhead("run --rm box sh -c 'echo out; exit 7'")?.expect(7, "out")?;
    bulkhead("run --rm box no-such-program")?.expect(127, "not found")?;
    bulkhead("run -d --name up box sleep 1000")?.ok()?;
    bulkhead("exec up sh -c 'echo in; exit 5'")?.expect(5, "in")?;
    bulkhead("rm -f up")?.ok()?;
    Ok(())
}

fn copy(mut from: impl Read, mut to: impl Write) {
    let _ = std::io::copy(&mut from, &mut to);
}

#[test]
fn names_of_strangers_do_not_reach_the_terminal() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let said = daemon.shell(
        "set -e; HOSTILE=$(printf '\\033[2Jgone\\nrow')
        $DOCKER run -d --name hostile box sh -c 'while :; do sleep 1000; done' \"$HOSTILE\" >/dev/null
        $BULKHEAD top hostile
        $BULKHEAD import -m \"$HOSTILE\" -c 'CMD [\"sh\"]' $HERE/busybox.tar strange >/dev/null
        $BULKHEAD history strange
        $BULKHEAD logs \"$HOSTILE\" 2>&1 || true
        $DOCKER rm -f hostile >/dev/null",
    )?;
    let shown = said.ok()?;
    ensure!(!shown.contains('\x1b'), "{shown:?}");
    ensure!(shown.matches("\\u{1b}[2Jgone\\nrow").count() >= 2, "{shown}");
    Ok(())
}

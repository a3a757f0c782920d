//! The engine alone, and sockets of it that can do less, by the docker CLI.

use anyhow::Result;
use bulkhead_tests::Daemon;

/// `on SOCKET …`: the docker CLI on one of the other sockets: the first line of what it says, and its
/// exit status.
const ON: &str = "on() { socket=$1; shift
    said=$(DOCKER_HOST=unix://$HERE/$socket $DOCKER \"$@\" 2>&1); status=$?
    echo \"$status $said\" | head -n 1; }\n";

#[test]
fn a_socket_can_be_given_away_with_less_than_all_rights() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let line = "set -e
        $DOCKER run -d --name web --label tier=web -e SECRET=x box sleep 1000 >/dev/null
        $DOCKER run -d --name data --label tier=data box sleep 1000 >/dev/null";
    daemon.shell(line)?.ok()?;
    // The engine of `up` goes; the one alone has its containers, and nothing listens beside it.
    daemon.crash()?;
    let directory = daemon.directory().display().to_string();
    let read = format!("{directory}/read.sock:role=read-only");
    let web = format!("{directory}/web.sock:label=tier=web");
    let mut flags = vec!["engine", "--detach", "--bridge", "bhtest0", "--bridge-address"];
    let (data, run) = (daemon.data(), daemon.run_directory());
    let (data, run) = (data.display().to_string(), run.display().to_string());
    let cgroup = daemon.cgroup().to_owned();
    flags.extend(["10.99.0.1/24", "--cgroup-parent", &cgroup, "--data", &data, "--run", &run]);
    flags.extend(["--socket", &read, "--socket", &web]);
    let said = daemon.bulkhead(&flags)?.ok()?;
    assert_eq!(said.lines().count(), 3, "{said}");
    assert!(said.lines().all(|line| line.starts_with("Docker API  unix://")), "{said}");
    let line = "stat -c %a $HERE/read.sock
        on read.sock ps --format '{{.Names}}' --filter name=web
        on read.sock inspect --format '{{index .Config.Env 0}}' web
        on read.sock logs web
        on read.sock stop web
        on read.sock exec web true
        on web.sock ps -a --format '{{.Names}}'
        on web.sock exec web echo in
        on web.sock restart -t 0 web
        on web.sock inspect --format '{{.Name}}' data
        on web.sock images
        on web.sock run box true
        on web.sock exec --privileged web true
        $DOCKER ps -q | wc -l";
    let refused =
        "is not allowed on this socket, which is limited to containers with the label tier=web";
    let expected = format!(
        "660\n0 web\n0 SECRET=***\n0 \n\
         1 Error response from daemon: POST /containers/{{}}/stop is not allowed on this socket, which is \
         read-only\n\
         1 Error response from daemon: POST /containers/{{}}/exec is not allowed on this socket, which is \
         read-only\n\
         0 web\n0 in\n0 web\n1 \n\
         1 Error response from daemon: GET /images/json {refused}\n\
         125 docker: Error response from daemon: POST /containers/create {refused}\n\
         1 Error response from daemon: a privileged exec {refused}\n2"
    );
    assert_eq!(daemon.shell(&format!("{ON}{line}"))?.ok()?, expected);
    // Somebody else's socket is left alone.
    let taken = format!("{directory}/taken.sock");
    let theirs = std::os::unix::net::UnixListener::bind(&taken)?;
    let mut flags = flags.clone();
    daemon.crash()?;
    flags.extend(["--socket", &taken]);
    daemon.bulkhead(&flags)?.expect(1, "taken.sock: another program listens there")?;
    drop(theirs);
    daemon.bulkhead(&flags)?.ok()?;
    let wrong = daemon.bulkhead(&["engine", "--socket", "/x:role=admin"])?;
    wrong.expect(125, "there is no role \"admin\": read-only or full")?;
    Ok(())
}

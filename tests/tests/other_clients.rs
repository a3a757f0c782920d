//! What clients of Docker's API other than its CLI see: docker-py, scripts with curl, buildx.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Result, ensure};
use bulkhead_tests::Daemon;

const CURL: &str = "curl -sg --unix-socket $RUN_DIRECTORY/docker.sock";

#[test]
fn inspect_repeats_words_and_old_names() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let body = r#"{"Image": "box", "Runtime": "runc",
        "HostConfig": {"Isolation": "default", "VolumeDriver": "nfs"}}"#;
    let said = daemon.shell(&format!(
        "set -e
        {CURL} -H 'Content-Type: application/json' -d '{body}' 'http://d/containers/create?name=words' >/dev/null
        $DOCKER inspect -f '{{{{.HostConfig.Isolation}}}} {{{{.HostConfig.Runtime}}}} {{{{.HostConfig.VolumeDriver}}}}' words
        {CURL} http://d/v1.43/images/box/json | grep -o '\"VirtualSize\":[1-9]' | cut -d: -f1
        {CURL} http://d/v1.44/images/box/json | grep -c VirtualSize || true
        $DOCKER commit words made >/dev/null
        test $($DOCKER inspect -f '{{{{.Parent}}}}' made) = $($DOCKER inspect -f '{{{{.Id}}}}' box)
        $DOCKER create --volume-driver nfs -v data:/v box 2>&1 | grep -o 'volume plugin nfs: plugin .* not found'"
    ))?;
    assert_eq!(
        said.ok()?.trim(),
        "default runc nfs\n\"VirtualSize\"\n0\nvolume plugin nfs: plugin \"nfs\" not found"
    );
    Ok(())
}

#[test]
fn a_link_is_removed_by_its_name() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let said = daemon.shell(
        "set -e
        $DOCKER run -d --name db box sleep 1000 >/dev/null
        $DOCKER run -d --name web --link db:store box sleep 1000 >/dev/null
        $DOCKER exec web grep -c store /etc/hosts
        $DOCKER rm --link web/store
        $DOCKER exec web grep -c store /etc/hosts || true
        $DOCKER inspect -f '{{.HostConfig.Links}}' web
        $DOCKER rm --link web 2>&1 | grep -o 'cannot remove the default link name'
        $DOCKER rm --link web/store 2>&1 | grep -o 'No such link: /web/store'
        $DOCKER ps -q | wc -l",
    )?;
    assert_eq!(
        said.ok()?.trim(),
        "1\nweb/store\n0\n[]\ncannot remove the default link name\nNo such link: /web/store\n2"
    );
    Ok(())
}

#[test]
fn every_tag_of_a_repository_is_pulled() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let said = daemon.shell(
        "set -e
        NAME=127.0.0.1:5000/team/many
        echo $PASSWORD | $DOCKER login -u admin --password-stdin 127.0.0.1:5000 >/dev/null 2>&1
        for tag in one two; do $DOCKER tag box $NAME:$tag; done
        $DOCKER push -qa $NAME >/dev/null
        $DOCKER rmi $NAME:one $NAME:two >/dev/null
        $DOCKER pull -a $NAME | grep Status
        $DOCKER images --format '{{.Tag}}' $NAME | sort
        $DOCKER pull -a 127.0.0.1:5000/team/none 2>&1 | grep -o 'pull access denied'
        $DOCKER logout 127.0.0.1:5000 >/dev/null",
    )?;
    assert_eq!(
        said.ok()?.trim(),
        "Status: Downloaded newer image for 127.0.0.1:5000/team/many\none\ntwo\npull access denied"
    );
    Ok(())
}

#[test]
fn a_websocket_is_attached() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    daemon.docker(&["run", "--name", "said", "box", "echo", "words"])?.ok()?;
    let socket = daemon.directory().join("run/docker.sock");
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(
        b"GET /v1.51/containers/said/attach/ws?logs=1&stdout=1 HTTP/1.1\r\nHost: d\r\n\
          Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )?;
    let mut answer = Vec::new();
    // the server closes once the log is told, and then waits for the client's close
    let wanted = b"\x82\x06words\n\x88\x00";
    while !answer.ends_with(wanted) {
        let mut byte = [0];
        ensure!(stream.read(&mut byte)? == 1, "{}", String::from_utf8_lossy(&answer));
        answer.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&answer);
    ensure!(
        text.starts_with("HTTP/1.1 101 ") && text.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        "{text}"
    );
    let said =
        daemon.shell(&format!("{CURL} -w '%{{http_code}}' http://d/containers/said/attach/ws"))?;
    ensure!(said.ok()?.ends_with("400"));
    Ok(())
}

#[test]
fn buildkits_connections_are_told_from_others() -> Result<()> {
    let daemon = Daemon::start()?;
    for (path, headers, part) in [
        ("grpc", "", "Upgrade: h2c"),
        ("session", "", "X-Docker-Expose-Session-Uuid"),
        ("session", "-H 'X-Docker-Expose-Session-Uuid: x'", "Upgrade: h2c"),
    ] {
        let line = format!("{CURL} -w ' %{{http_code}}' {headers} -X POST http://d/{path}");
        let said = daemon.shell(&line)?.ok()?;
        ensure!(said.contains(part) && said.trim().ends_with("400"), "{said}");
    }
    Ok(())
}

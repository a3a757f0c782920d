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
fn buildkits_clients_hear_what_to_do() -> Result<()> {
    let daemon = Daemon::start()?;
    let said = daemon.shell(&format!("{CURL} -w ' %{{http_code}}' -X POST http://d/grpc"))?;
    let said = said.ok()?;
    ensure!(said.contains("DOCKER_BUILDKIT=0") && said.trim().ends_with("501"), "{said}");

    // An upgrade is taken, and every call is refused in gRPC's own form.
    let socket = daemon.directory().join("run/docker.sock");
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(
        b"POST /grpc HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    )?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        ensure!(stream.read(&mut byte)? == 1, "{}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    ensure!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    // The preface, no settings, and a POST of "/" (RFC 9113; the header fields by the static table).
    let headers = b"\x83\x84\x86\x41\x01d";
    let mut call = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    call.extend([0, 0, headers.len() as u8, 1, 5, 0, 0, 0, 1]);
    call.extend(headers);
    stream.write_all(&call)?;
    // Frames until that with the header fields: it is the last of its stream, as gRPC has it for an
    // answer without a message.
    loop {
        let mut frame = [0; 9];
        stream.read_exact(&mut frame)?;
        let [_, high, low, kind, flags, _, _, _, id] = frame;
        let mut payload = vec![0; usize::from(u16::from_be_bytes([high, low]))];
        stream.read_exact(&mut payload)?;
        if (kind, id) == (1, 1) {
            assert_eq!(flags & 5, 5, "END_STREAM and END_HEADERS");
            return Ok(());
        }
    }
}

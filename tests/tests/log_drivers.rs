//! Log drivers that send, by the real docker CLI, with a receiver that each test is itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bulkhead_tests::Daemon;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

fn daemon() -> Result<Daemon> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    Ok(daemon)
}

/// A listener in the daemon's network namespace, and its port.
fn listen(daemon: &Daemon) -> Result<(TcpListener, u16)> {
    let listener = daemon.within(|| Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?))?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

fn listen_udp(daemon: &Daemon) -> Result<(UdpSocket, u16)> {
    let socket = daemon.within(|| Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let port = socket.local_addr()?.port();
    Ok((socket, port))
}

fn accept(listener: &TcpListener) -> Result<TcpStream> {
    let mut waiting = [rustix::event::PollFd::new(listener, rustix::event::PollFlags::IN)];
    let patience = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
    ensure!(rustix::event::poll(&mut waiting, Some(&patience))? == 1, "nobody connects");
    let (stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The lines of a stream until one has `last` in it.
fn lines_until(reader: &mut impl BufRead, last: &str) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        ensure!(reader.read_line(&mut line)? > 0, "it ends after {lines:?}");
        lines.push(line.trim_end().to_owned());
        if line.contains(last) {
            return Ok(lines);
        }
    }
}

const TWO: &str = "box sh -c 'echo one; sleep 0.2; echo two >&2'";

#[test]
fn syslog_has_every_line_by_every_transport() -> Result<()> {
    let daemon = daemon()?;
    let (udp, udp_port) = listen_udp(&daemon)?;
    let (tcp, tcp_port) = listen(&daemon)?;
    let path = daemon.directory().join("log.sock");
    let unix = UnixDatagram::bind(&path)?;
    unix.set_read_timeout(Some(PATIENCE))?;
    let line = format!(
        "set -e
        run() {{ $DOCKER run -d --log-driver syslog \"$@\" {TWO} >/dev/null; }}
        run --name udp --log-opt syslog-address=udp://127.0.0.1:{udp_port} --log-opt tag='{{{{.Name}}}}' \
            --log-opt syslog-facility=local3 --log-opt syslog-format=rfc3164
        run --name tcp --log-opt syslog-address=tcp://localhost:{tcp_port} --log-opt syslog-format=rfc5424micro
        run --name unix --log-opt syslog-address=unixgram://{} --log-opt mode=non-blocking \
            --log-opt max-buffer-size=1m --log-opt cache-disabled=true
        $DOCKER wait udp tcp unix
        $DOCKER logs udp 2>/dev/null; $DOCKER logs udp 2>&1 >/dev/null
        $DOCKER inspect -f '{{{{.HostConfig.LogConfig.Type}}}} {{{{len .HostConfig.LogConfig.Config}}}}' udp
        $DOCKER logs unix 2>&1 || true
        $DOCKER info -f '{{{{.Plugins.Log}}}}'",
        path.display()
    );
    let said = daemon.shell(&line)?.ok()?;
    let rows: Vec<&str> = said.lines().collect();
    assert_eq!(
        rows,
        [
            "0",
            "0",
            "0",
            "one",
            "two",
            "syslog 4",
            "Error response from daemon: configured logging driver does not support reading",
            "[awslogs fluentd gelf journald json-file local none syslog]",
        ]
    );
    let mut space = [0; 4096];
    let mut next = |read: &dyn Fn(&mut [u8]) -> std::io::Result<usize>| -> Result<String> {
        let length = read(&mut space)?;
        Ok(String::from_utf8(space[..length].to_vec())?)
    };
    // local3 is 19: 19 × 8 + 6, and + 3 for standard error
    let first = next(&|space| udp.recv(space))?;
    assert!(first.starts_with("<158>") && first.ends_with("]: one\n"), "{first}");
    assert!(first.contains(" udp["), "{first}");
    let second = next(&|space| udp.recv(space))?;
    assert!(second.starts_with("<155>") && second.ends_with("]: two\n"), "{second}");
    // facility daemon, and the short id where there is no tag
    let id = daemon.docker(&["inspect", "-f", "{{printf \"%.12s\" .Id}}", "unix"])?.ok()?;
    let (first, second) = (next(&|space| unix.recv(space))?, next(&|space| unix.recv(space))?);
    assert!(first.starts_with("<30>") && first.contains(&format!(" {}[", id.trim())), "{first}");
    assert!(second.starts_with("<27>") && second.ends_with("]: two\n"), "{second}");
    let mut stream = BufReader::new(accept(&tcp)?);
    let lines = lines_until(&mut stream, "two")?;
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("<30>1 2") && lines[0].ends_with(" - one"), "{lines:?}");
    Ok(())
}

/// A value of MessagePack, as JSON; times of Fluentd's become texts.
fn unpack(reader: &mut impl Read) -> Result<Value> {
    let mut take = |length: usize| -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        reader.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    let number = |bytes: Vec<u8>| bytes.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    let kind = take(1)?[0];
    let text = |bytes: Vec<u8>| -> Result<Value> { Ok(json!(String::from_utf8(bytes)?)) };
    let length = match kind {
        0xa0..=0xbf => return text(take(usize::from(kind & 31))?),
        0xd9 => {
            let length = usize::from(take(1)?[0]);
            return text(take(length)?);
        }
        0xda => {
            let length = number(take(2)?) as usize;
            return text(take(length)?);
        }
        0xd3 => return Ok(json!(number(take(8)?))),
        0xd7 => {
            let bytes = take(9)?;
            return Ok(json!(format!("{}.", number(bytes[1..5].to_vec()))));
        }
        0x80..=0x9f => usize::from(kind & 15),
        other => anyhow::bail!("{other:#x} is not expected"),
    };
    if kind < 0x90 {
        let mut map = serde_json::Map::new();
        for _ in 0..length {
            let key = unpack(reader)?.as_str().context("a text")?.to_owned();
            map.insert(key, unpack(reader)?);
        }
        return Ok(Value::Object(map));
    }
    (0..length).map(|_| unpack(reader)).collect::<Result<Vec<_>>>().map(Value::Array)
}

#[test]
fn fluentd_has_every_record_and_says_so() -> Result<()> {
    let daemon = daemon()?;
    let (listener, port) = listen(&daemon)?;
    let line = format!(
        "$DOCKER run -d --name web --label own=1 --label other=2 -e COLOR=red --log-driver fluentd \
            --log-opt fluentd-address=127.0.0.1:{port} --log-opt fluentd-request-ack=true \
            --log-opt fluentd-async=true --log-opt fluentd-sub-second-precision=true \
            --log-opt tag='docker.{{{{.Name}}}}' --log-opt labels=own --log-opt env-regex='^COL' {TWO}"
    );
    let id = daemon.shell(&line)?.ok()?;
    let mut stream = accept(&listener)?;
    let mut records = Vec::new();
    for _ in 0..2 {
        let mut message = unpack(&mut stream)?;
        let chunk = message[3]["chunk"].as_str().context("a chunk")?.to_owned();
        assert_eq!(message[0], "docker.web");
        assert!(message[1].as_str().is_some_and(|time| time.len() > 9), "{message}");
        let mut answer = vec![0x81, 0xa3];
        answer.extend_from_slice(b"ack");
        answer.extend_from_slice(&[0xd9, chunk.len() as u8]);
        answer.extend_from_slice(chunk.as_bytes());
        stream.write_all(&answer)?;
        records.push(message[2].take());
    }
    let record = |log: &str, source: &str| {
        json!({
            "COLOR": "red", "container_id": id.trim(), "container_name": "/web", "log": log, "own": "1",
            "source": source,
        })
    };
    assert_eq!(records, [record("one", "stdout"), record("two", "stderr")]);
    // What goes along is what `--details` shows.
    let details = daemon.shell("$DOCKER logs --details web 2>/dev/null")?.ok()?;
    assert_eq!(details, "COLOR=red,own=1,tag=docker.web one");
    Ok(())
}

#[test]
fn gelf_has_every_record() -> Result<()> {
    let daemon = daemon()?;
    let (udp, udp_port) = listen_udp(&daemon)?;
    let (tcp, tcp_port) = listen(&daemon)?;
    let line = format!(
        "set -e
        $DOCKER run -d --name plain --log-driver gelf --log-opt gelf-address=udp://127.0.0.1:{udp_port} \
            --log-opt gelf-compression-type=none --log-opt env=COLOR -e COLOR=red \
            box sh -c 'echo; head -c 3000 /dev/zero | tr \"\\\\0\" x; echo'
        $DOCKER run -d --name stream --log-driver gelf --log-opt gelf-address=tcp://127.0.0.1:{tcp_port} {TWO}"
    );
    daemon.shell(&line)?.ok()?;
    let mut whole = Vec::new();
    let mut space = [0; 4096];
    loop {
        let length = udp.recv(&mut space)?;
        ensure!(length <= 1420, "{length} bytes do not fit through Ethernet");
        assert_eq!(space[..2], [0x1e, 0x0f]);
        whole.extend_from_slice(&space[12..length]);
        if space[10] + 1 == space[11] {
            break;
        }
    }
    let message: Value = serde_json::from_slice(&whole)?;
    assert_eq!(message["short_message"], "x".repeat(3000));
    assert_eq!(
        json!([
            message["version"],
            message["level"],
            message["_container_name"],
            message["_COLOR"]
        ]),
        json!(["1.1", 6, "plain", "red"])
    );
    let mut stream = BufReader::new(accept(&tcp)?);
    for (text, level) in [("one", 6), ("two", 3)] {
        let mut message = Vec::new();
        stream.read_until(0, &mut message)?;
        let message: Value = serde_json::from_slice(&message[..message.len() - 1])?;
        assert_eq!(json!([message["short_message"], message["level"]]), json!([text, level]));
    }
    Ok(())
}

/// One request to CloudWatch Logs, which is answered; its operation and body.
fn cloudwatch(
    listener: &TcpListener,
    answer: &dyn Fn(&str) -> (u16, Value),
) -> Result<(String, Value)> {
    let mut stream = BufReader::new(accept(listener)?);
    let (mut operation, mut length, mut authorization) = (String::new(), 0, String::new());
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else {
            if line.trim().is_empty() {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "x-amz-target" => operation = value.to_owned(),
            "content-length" => length = value.parse()?,
            "authorization" => authorization = value.to_owned(),
            _ => {}
        }
    }
    ensure!(authorization.contains("/eu-test-1/logs/aws4_request"), "{authorization:?}");
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let operation = operation.strip_prefix("Logs_20140328.").context("a target")?.to_owned();
    let (status, answer) = answer(&operation);
    let answer = answer.to_string();
    let length = answer.len();
    write!(stream.get_mut(), "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{answer}")?;
    Ok((operation, serde_json::from_slice(&body)?))
}

#[test]
fn cloudwatch_has_every_event() -> Result<()> {
    let daemon = daemon()?;
    // The second time its environment has an access key.
    daemon.crash()?;
    daemon.up()?;
    let (listener, port) = listen(&daemon)?;
    daemon
        .shell("$DOCKER create --log-driver awslogs --log-opt awslogs-group=g box")?
        .expect(1, "must specify a value for log opt 'awslogs-region'")?;
    let line = format!(
        "$DOCKER run -d --rm --log-driver awslogs --log-opt awslogs-group=g --log-opt awslogs-region=eu-test-1 \
            --log-opt awslogs-endpoint=http://127.0.0.1:{port} --log-opt awslogs-create-group=true \
            --log-opt awslogs-stream=s {TWO}"
    );
    daemon.shell(&line)?.ok()?;
    let missing = (400, json!({"__type": "ResourceNotFoundException", "message": "no group"}));
    let group = std::cell::Cell::new(false);
    let (mut operations, mut messages) = (Vec::new(), Vec::new());
    while messages.len() < 2 {
        let (operation, body) = cloudwatch(&listener, &|operation| match operation {
            "CreateLogStream" if !group.get() => missing.clone(),
            "CreateLogGroup" => {
                group.set(true);
                (200, json!({}))
            }
            _ => (200, json!({"nextSequenceToken": "1"})),
        })?;
        assert_eq!(body["logGroupName"], "g");
        for event in body["logEvents"].as_array().into_iter().flatten() {
            ensure!(event["timestamp"].is_i64(), "{event}");
            messages.push(event["message"].as_str().unwrap_or_default().to_owned());
        }
        operations.push(operation);
    }
    assert_eq!(messages, ["one", "two"]);
    let made = ["CreateLogStream", "CreateLogGroup", "CreateLogStream", "PutLogEvents"];
    assert_eq!(operations[..4], made);
    Ok(())
}

/// A receiver that is away costs nobody anything: the program goes on, and it gets all of it later, though
/// engine and warden were killed and the container is gone.
#[test]
fn what_a_receiver_does_not_take_arrives_later() -> Result<()> {
    let daemon = daemon()?;
    let (listener, port) = listen(&daemon)?;
    drop(listener);
    let line = format!(
        "set -e
        $DOCKER run -d --name writer --log-driver syslog --log-opt syslog-address=tcp://127.0.0.1:{port} \
            --log-opt cache-max-size=50k --log-opt cache-max-file=100 \
            box sh -c 'seq 1 5000; exec sleep 1000' >/dev/null
        timeout 60 sh -c 'until $DOCKER logs writer | grep -q ^5000$; do :; done'
        timeout 60 sh -c 'until $DOCKER info 2>/dev/null -f \"{{{{.Warnings}}}}\" | grep -q \"container writer has not reached\"; do :; done'
        $DOCKER info -f '{{{{.Warnings}}}}' | grep -o 'has not reached syslog at tcp://127.0.0.1' | head -n1"
    );
    let said = daemon.shell(&format!("export DOCKER\n{line}"))?.ok()?;
    assert_eq!(said.trim(), "has not reached syslog at tcp://127.0.0.1");
    daemon.crash()?;
    daemon.crash_warden()?;
    daemon.up()?;
    daemon.docker(&["rm", "-f", "writer"])?.ok()?;
    daemon.crash()?;
    daemon.up()?;
    let listener = daemon.within(|| Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, port))?))?;
    let mut stream = BufReader::new(accept(&listener)?);
    let lines = lines_until(&mut stream, "]: 5000")?;
    let numbers: Vec<u32> =
        lines.iter().filter_map(|line| line.rsplit_once("]: ")?.1.parse().ok()).collect();
    assert_eq!(numbers, (1..=5000).collect::<Vec<_>>());
    // And then it is forgotten.
    let unsent = daemon.data().join("unsent");
    let begun = std::time::Instant::now();
    while std::fs::read_dir(&unsent)?.count() > 0 {
        ensure!(begun.elapsed() < PATIENCE, "what was sent is kept");
        std::thread::yield_now();
    }
    Ok(())
}

#[test]
fn what_cannot_be_is_refused_by_name() -> Result<()> {
    let daemon = daemon()?;
    for (options, why) in [
        ("--log-driver splunk", "no log driver named 'splunk' is registered"),
        ("--log-driver gelf", "gelf-address is a required parameter"),
        ("--log-driver syslog --log-opt bogus=1", "unknown log opt 'bogus' for syslog log driver"),
        ("--log-driver syslog --log-opt syslog-address=http://x", "unsupported scheme"),
        ("--log-driver syslog --log-opt tag='{{.Nope}}'", "tag"),
        ("--log-driver fluentd --log-opt max-buffer-size=1m", "mode=non-blocking"),
        (
            "--log-driver awslogs --log-opt awslogs-group=g --log-opt awslogs-multiline-pattern=x",
            "'awslogs-multiline-pattern' of the awslogs log driver is not supported",
        ),
    ] {
        daemon.shell(&format!("$DOCKER create {options} box"))?.expect(1, why)?;
    }
    if !std::path::Path::new("/run/systemd/journal/socket").exists() {
        daemon
            .shell("$DOCKER create --log-driver journald box")?
            .expect(1, "journald is not enabled on this host")?;
    }
    Ok(())
}

/// The warden rotates, the engine compresses, and whoever reads sees neither.
#[test]
fn rotated_files_are_compressed_and_read_as_before() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let line = "set -e; SAY='i=$1; while [ $i -lt $2 ]; do echo line $i; i=$((i + 1)); done'
        for log in 'local' 'json-file --log-opt compress=true'; do
            $DOCKER run -d --name ${log%% *} --log-driver $log --log-opt max-size=100k --log-opt max-file=20 box \\
                sh -c \"say() { $SAY; }; say 0 6000; until [ -e /go ]; do sleep 0.1; done; say 6000 9000\" >/dev/null
        done
        $DOCKER run -d --name plain --log-opt max-size=100k --log-opt max-file=20 box sh -c \"say() { $SAY; }; say 0 3000\" >/dev/null
        packed() { head -c 2 $1 | od -An -tx1 | grep -q '1f 8b'; }
        all_packed() {
            ID=$($DOCKER inspect --format '{{.Id}}' $1)
            LOG=$DATA/containers/$ID/$ID-json.log; [ -e $LOG.4 ] || return 1
            for file in $LOG.?; do packed $file || return 1; done
        }
        looks() { (set +e; $DOCKER logs $1 | wc -l; $DOCKER logs --tail 1 $1; $DOCKER logs --tail 4321 $1 | head -n 1; $DOCKER logs --tail 4321 $1 | wc -l
            AT=$($DOCKER logs -t $1 | sed -n 2000p | cut -d ' ' -f 1); $DOCKER logs -t --since $AT $1 | head -n 1 | cut -d ' ' -f 1 | grep -cx $AT
            $DOCKER logs -t --until $AT $1 | tail -n 1 | cut -d ' ' -f 1 | grep -cx $AT); }
        for name in local json-file; do
            until $DOCKER logs --tail 1 $name | grep -qx 'line 5999'; do :; done; until all_packed $name; do :; done; looks $name
            $DOCKER logs -f $name >$HERE/followed-$name & F=$!; until [ -s $HERE/followed-$name ]; do :; done
            $DOCKER exec $name touch /go; wait $F; wc -l <$HERE/followed-$name
            until all_packed $name; do :; done; $DOCKER logs $name | cmp - $HERE/followed-$name
            [ $(cat $LOG.? | wc -c) -lt 200000 ] && echo small
        done
        ID=$($DOCKER inspect --format '{{.Id}}' plain); packed $DATA/containers/$ID/$ID-json.log.1 || echo plain";
    let looks = "6000\nline 5999\nline 1679\n4321\n1\n1\n9000\nsmall\n";
    assert_eq!(daemon.shell(line)?.ok()?, format!("{looks}{looks}plain"));
    // Whatever a killed engine was doing, the next one has all of it.
    daemon.crash()?;
    daemon.up()?;
    let line = "for name in local json-file; do $DOCKER logs $name | cmp - $HERE/followed-$name; done; $DOCKER rm -f local json-file plain";
    assert_eq!(daemon.shell(line)?.ok()?, "local\njson-file\nplain");
    Ok(())
}

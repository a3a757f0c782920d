//! Builds by the real docker CLI and Bulkhead's own: what goes wrong, what is limited, what is kept.

use std::io::{Read, Write};
use std::net::TcpListener;

use anyhow::{Context, Result, ensure};
use bulkhead_tests::Daemon;

fn daemon() -> Result<Daemon> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    std::fs::create_dir(daemon.directory().join("context"))?;
    std::fs::write(daemon.directory().join("context/file"), "from the context\n")?;
    Ok(daemon)
}

fn dockerfile(daemon: &Daemon, text: &str) -> Result<()> {
    Ok(std::fs::write(daemon.directory().join("context/Dockerfile"), text)?)
}

#[test]
fn pruning_the_cache_frees_the_disk() -> Result<()> {
    let daemon = daemon()?;
    dockerfile(
        &daemon,
        "FROM box\nRUN dd if=/dev/urandom of=/big bs=1M count=20 2>/dev/null\nRUN echo x >/small\n",
    )?;
    let content = daemon.data().join("content").display().to_string();
    let used = || -> Result<u64> {
        let said = daemon.shell(&format!("du -sk {content} | cut -f1"))?.ok()?;
        said.parse().context("kilobytes")
    };
    let before = used()?;
    daemon.shell("$DOCKER build -q -t built $HERE/context")?.ok()?;
    // The image has the layers as well, so the cache takes no room of its own, and stays.
    let df = "$DOCKER system df -v --format '{{json .BuildCache}}'";
    let shared = daemon.shell(df)?.ok()?;
    ensure!(
        shared.contains("RUN /bin/sh -c dd") && shared.contains("\"Shared\":\"true\""),
        "{shared}"
    );
    daemon.shell("$DOCKER builder prune -f")?.expect(0, "Total reclaimed space: 0B")?;
    let rebuild = "$DOCKER build $HERE/context | grep -c 'Using cache'";
    assert_eq!(daemon.shell(rebuild)?.ok()?, "2");

    daemon.shell("$DOCKER rmi built")?.ok()?;
    ensure!(used()? > before + 20_000, "the cache keeps the layers of an image that is gone");
    assert_eq!(daemon.shell(rebuild)?.ok()?, "2");
    daemon.shell("$DOCKER rmi $($DOCKER images -qf dangling=true)")?.ok()?;
    let own = daemon.shell(df)?.ok()?;
    ensure!(own.contains("\"Shared\":\"false\"") && own.contains("MB\""), "{own}");
    for (filter, kept) in [("until=24h", true), ("id=0000000000", true), ("type=frontend", true)] {
        let said = daemon.docker(&["builder", "prune", "-f", "--filter", filter])?;
        ensure!(said.ok()?.contains("reclaimed space: 0B") == kept, "{filter}");
    }
    daemon.docker(&["builder", "prune", "-f", "--keep-storage", "1GB"])?.expect(0, ": 0B")?;
    daemon.docker(&["builder", "prune", "-f", "--filter", "bogus=1"])?.expect(1, "bogus")?;
    let pruned = daemon.docker(&["builder", "prune", "-f"])?.ok()?;
    ensure!(pruned.contains("MB") && !pruned.contains(": 0B"), "{pruned}");
    ensure!(used()? < before + 2_000, "{} kB before, {} kB after", before, used()?);
    assert_eq!(daemon.shell(df)?.ok()?, "[]");

    // The same with everything else that is not needed.
    daemon.shell("$DOCKER build -q -t built $HERE/context && $DOCKER rmi built")?.ok()?;
    let pruned = daemon.docker(&["system", "prune", "-f"])?.ok()?;
    ensure!(pruned.contains("Deleted build cache objects:"), "{pruned}");
    ensure!(used()? < before + 2_000, "{} kB before, {} kB after", before, used()?);
    Ok(())
}

#[test]
fn limits_hold_for_the_steps_or_are_refused_by_name() -> Result<()> {
    let daemon = daemon()?;
    dockerfile(
        &daemon,
        "FROM box\nRUN ulimit -n; df -k /dev/shm | tail -n1; cat /sys/fs/cgroup/memory/memory.limit_in_bytes \
         /sys/fs/cgroup/memory.max 2>/dev/null; grep extra /etc/hosts\n",
    )?;
    let said = daemon.shell(
        "$DOCKER build --no-cache --ulimit nofile=123:456 --shm-size 7m -m 100m --memory-swap 200m \
         --cpu-shares 512 --cpu-period 100000 --cpu-quota 50000 --cpuset-cpus 0 --add-host extra:1.2.3.4 \
         --security-opt seccomp=unconfined $HERE/context",
    )?;
    let said = said.ok()?;
    for part in ["123\n", " 7168 ", "1.2.3.4\textra"] {
        ensure!(said.contains(part), "{part:?} is missing: {said}");
    }
    let limits = daemon.docker(&["info", "--format", "{{.MemoryLimit}}"])?.ok()?;
    ensure!(limits == "false" || said.contains("104857600\n"), "no limit of memory: {said}");
    for (flags, sentence) in [
        ("--cgroup-parent /x", "cgroup-parent"),
        ("--isolation hyperv", "isolation"),
        ("--platform linux/s390x", "platform linux/s390x"),
        ("-m 1m", "Minimum memory limit allowed is 6MB"),
        ("--security-opt bogus=1", "bogus"),
        ("--network container:nosuch", "No such container: nosuch"),
        ("--network nosuch", "network nosuch not found"),
    ] {
        daemon.shell(&format!("$DOCKER build {flags} $HERE/context"))?.expect(1, sentence)?;
    }
    let said = daemon.shell("$DOCKER build --cache-from box $HERE/context")?.ok()?;
    ensure!(said.contains("[Warning] cache-from box"), "{said}");
    let said = daemon
        .shell("$DOCKER build --add-host extra:1.2.3.4 --cache-from nosuch $HERE/context")?
        .ok()?;
    ensure!(said.contains("cache-from nosuch: there is no such image"), "{said}");
    ensure!(!said.contains("Using cache"), "{said}");
    for (query, sentence) in [("bogus=1", "bogus"), ("squash=1", "squash")] {
        let line = format!(
            "curl -s --unix-socket $RUN_DIRECTORY/docker.sock -X POST 'http://d/build?{query}'"
        );
        let said = daemon.shell(&line)?.ok()?;
        ensure!(said.starts_with("{\"message\":") && said.contains(sentence), "{said}");
    }
    Ok(())
}

#[test]
fn a_step_joins_the_network_of_a_container() -> Result<()> {
    let daemon = daemon()?;
    dockerfile(&daemon, "FROM box\nRUN readlink /proc/self/ns/net\n")?;
    let line = "set -e
        $DOCKER run -d --name owner box sleep 1000 >/dev/null
        of_owner=$($DOCKER exec owner readlink /proc/self/ns/net)
        $DOCKER build --network container:owner $HERE/context | grep -xcF \"$of_owner\"
        $DOCKER build --network none $HERE/context | grep -xcF \"$of_owner\" || true
        $DOCKER rm -f owner";
    assert_eq!(daemon.shell(line)?.ok()?, "1\n0\nowner");
    Ok(())
}

#[test]
fn what_a_step_writes_to_a_volume_stays() -> Result<()> {
    let daemon = daemon()?;
    dockerfile(&daemon, "FROM box\nVOLUME /data\nRUN echo kept >/data/x\n")?;
    let line = "set -e
        $CLI build -t volume $HERE/context >/dev/null
        $CLI run --rm volume cat /data/x
        $CLI rmi volume >/dev/null";
    for said in daemon.each_cli(line)? {
        assert_eq!(said.ok()?, "kept");
    }
    Ok(())
}

#[test]
fn a_dockerfile_from_elsewhere() -> Result<()> {
    let daemon = daemon()?;
    let text = "FROM box\nCOPY file /\nCMD cat /file\n";
    std::fs::write(daemon.directory().join("elsewhere"), text)?;
    let show = "$CLI run --rm elsewhere && $CLI rmi elsewhere >/dev/null";
    // The docker CLI's archive then ends without its last blocks.
    for from in ["-f $HERE/elsewhere $HERE/context", "-f - $HERE/context <$HERE/elsewhere"] {
        for said in
            daemon.each_cli(&format!("$CLI build -t elsewhere {from} >/dev/null && {show}"))?
        {
            assert_eq!(said.ok()?, "from the context");
        }
    }
    Ok(())
}

#[test]
fn what_is_missing_is_named() -> Result<()> {
    let daemon = daemon()?;
    let said = daemon.bulkhead(&["build", "/nosuch"])?.expect(1, "/nosuch")?;
    ensure!(said.stderr.contains("there is no directory /nosuch"), "{said:?}");
    ensure!(!said.stderr.contains("Dockerfile"), "{said:?}");
    let said = daemon.shell("$BULKHEAD build $HERE/context/file")?;
    said.expect(1, "is not a directory")?;
    daemon.shell("$BULKHEAD build -f $HERE/nosuch $HERE/context")?.expect(1, "nosuch")?;
    daemon.shell("$BULKHEAD build $HERE/context")?.expect(1, "Dockerfile")?;
    Ok(())
}

#[test]
fn addresses_are_added() -> Result<()> {
    let daemon = daemon()?;
    let listener = daemon.within(|| Ok(TcpListener::bind("127.0.0.1:8099")?))?;
    let serving = std::thread::spawn(move || -> Result<usize> {
        let mut served = 0;
        loop {
            let (mut stream, _) = listener.accept()?;
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? == 1 {
                head.push(byte[0]);
            }
            let text = String::from_utf8_lossy(&head).into_owned();
            let (status, body) = match text.split(' ').nth(1) {
                Some("/end") => return Ok(served),
                Some("/file") => ("200 OK", "from afar\n"),
                _ => ("404 Not Found", ""),
            };
            served += 1;
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
        }
    });
    dockerfile(&daemon, "FROM box\nADD http://127.0.0.1:8099/file /d/\nCMD cat /d/file\n")?;
    let line = "$CLI build -t added $HERE/context >/dev/null && $CLI run --rm added";
    for said in daemon.each_cli(line)? {
        assert_eq!(said.ok()?, "from afar");
    }
    dockerfile(&daemon, "FROM box\nADD http://127.0.0.1:8099/nosuch /d/\n")?;
    for said in daemon.each_cli("$CLI build $HERE/context")? {
        said.expect(1, "http://127.0.0.1:8099/nosuch answered 404 Not Found")?;
    }
    dockerfile(&daemon, "FROM box\nADD https://127.0.0.1:8098/x /d/\n")?;
    for said in daemon.each_cli("$CLI build $HERE/context")? {
        said.expect(1, "https://127.0.0.1:8098/x cannot be reached")?;
    }
    daemon.shell("curl -s http://127.0.0.1:8099/end || true")?.ok()?;
    let served = serving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    assert_eq!(served, 4);
    Ok(())
}

/// One stage listens and the other calls: neither would end without the other.
#[test]
fn stages_are_built_at_once_and_shown_one_after_the_other() -> Result<()> {
    let daemon = daemon()?;
    dockerfile(
        &daemon,
        // not `nc -l >/heard`: that one ends what it says at once, and a caller may take this for the end
        "FROM box AS one\nRUN echo hears; nc -l -p 8096 -e sh -c 'head -n 1 >/heard'\n\
         FROM box AS two\nRUN echo calls; until echo said | nc 127.0.0.1 8096; do :; done\n\
         FROM box\nCOPY --from=one /heard /\nCOPY --from=two /etc/passwd /\nCMD cat /heard\n",
    )?;
    let line = "$CLI build --no-cache --network host -t met $HERE/context >$HERE/shown &&
        grep -o -e '^Step ./.' -e '^hears' -e '^calls' $HERE/shown | paste -sd ' ' && $CLI run --rm met";
    for said in daemon.each_cli(line)? {
        assert_eq!(
            said.ok()?,
            "Step 1/8 Step 2/8 hears Step 3/8 Step 4/8 calls Step 5/8 Step 6/8 Step 7/8 Step 8/8\nsaid"
        );
    }
    dockerfile(
        &daemon,
        "FROM box AS one\nRUN nc -l -p 8096\nFROM box AS two\nRUN echo reason; exit 3\n\
         FROM box\nCOPY --from=one /x /\nCOPY --from=two /x /\n",
    )?;
    for said in daemon.each_cli("$CLI build --no-cache --network host $HERE/context 2>&1")? {
        assert_ne!(said.code, 0);
        ensure!(said.stdout.contains("\nreason\n"), "{}", said.stdout);
        ensure!(said.stdout.contains("exit 3' returned a non-zero code: 3"), "{}", said.stdout);
    }
    // The stage beside it is given up.
    daemon.shell("timeout 20 sh -c 'until test -z \"$($DOCKER ps -aq)\"; do :; done'")?.ok()?;
    Ok(())
}

#[test]
fn a_commit_takes_a_health_check_and_a_body() -> Result<()> {
    let daemon = daemon()?;
    let line = "set -e
        $DOCKER create --name cc -e A=1 box true >/dev/null
        $DOCKER commit -c 'HEALTHCHECK --interval=5s CMD true' -c 'CMD [\"x\"]' cc one >/dev/null
        $DOCKER inspect -f '{{json .Config.Healthcheck}} {{.Config.Cmd}}' one
        curl -s --unix-socket $RUN_DIRECTORY/docker.sock -H 'Content-Type: application/json' \
            -d '{\"Labels\":{\"a\":\"b\"},\"User\":\"web\"}' 'http://d/commit?container=cc&repo=two' >/dev/null
        $DOCKER inspect -f '{{.Config.User}} {{.Config.Labels.a}} {{.Config.Cmd}} {{.Config.Env}}' two
        $DOCKER commit -c 'RUN x' cc three 2>&1 || true
        $DOCKER rm cc >/dev/null";
    let said = daemon.shell(line)?.ok()?;
    let mut lines = said.lines();
    let health = lines.next().context("a line")?;
    ensure!(health.contains("\"CMD-SHELL\",\"true\"") && health.ends_with("[x]"), "{said}");
    ensure!(health.contains("\"Interval\":5000000000"), "{said}");
    assert_eq!(lines.next(), Some("web b [true] [A=1 PATH=/bin]"));
    ensure!(said.contains("RUN is not a valid change command"), "{said}");
    Ok(())
}

#[test]
fn every_line_of_a_step_arrives() -> Result<()> {
    let daemon = daemon()?;
    dockerfile(&daemon, "FROM box\nRUN seq 1 300000\n")?;
    let line = "$DOCKER build $HERE/context 2>&1 | grep -cE '^[0-9]+$'";
    assert_eq!(daemon.shell(line)?.ok()?, "300000");
    Ok(())
}

/// An image of one program has neither /etc nor /dev, and the container's root makes them.
#[test]
fn an_image_of_one_program_runs() -> Result<()> {
    let daemon = daemon()?;
    dockerfile(&daemon, "FROM scratch\nCOPY busybox /busybox\n")?;
    let line = "set -e
        cp $(command -v busybox) $HERE/context/busybox
        $DOCKER build -q -t bare $HERE/context >/dev/null
        $DOCKER run --rm --hostname one bare /busybox sh -c \
            '/busybox cat /etc/hostname; /busybox readlink /etc/mtab; /busybox touch /etc/made; echo $PATH'
        $DOCKER run --name bare bare /busybox true
        $DOCKER inspect -s --format '{{.SizeRw}}' bare";
    let said = daemon.shell(line)?.ok()?;
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(said.lines().collect::<Vec<_>>(), ["one", "/proc/mounts", path, "0"]);
    Ok(())
}

/// As Docker's classic builder: the image is what the step before has made.
#[test]
fn the_events_of_steps_name_the_image_below() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let line = "mkdir $HERE/steps; printf 'FROM box\\nRUN echo a >/a\\nRUN false\\n' >$HERE/steps/Dockerfile
        $DOCKER events --filter type=container --format '{{.Action}} {{.From}} {{.Actor.Attributes.image}} {{.Actor.Attributes.exitCode}} {{.Actor.Attributes.execDuration}}' >$HERE/events & E=$!
        until [ -s $HERE/events ]; do $DOCKER create --name told box >/dev/null; $DOCKER rm told >/dev/null; done
        $DOCKER build --no-cache $HERE/steps | sed -n 's/^ ---> \\([0-9a-f]*\\)$/\\1/p' | head -n 2 >$HERE/made
        until [ $(grep -c '^destroy sha256' $HERE/events) = 2 ]; do :; done; kill $E
        sed 's/sha256:\\([0-9a-f]\\{12\\}\\)[0-9a-f]*/\\1/g' $HERE/events | grep -v ' box ' | sed \"s/$(sed -n 1p $HERE/made)/FIRST/g; s/$(sed -n 2p $HERE/made)/SECOND/g\" | sort -s -k 2,2";
    let step = |image: &str, code: u8| {
        let without = "<no value> <no value>";
        ["create", "attach", "start"]
            .map(|action| format!("{action} {image} {image} {without}\n"))
            .concat()
            + &format!("die {image} {image} {code} 0\ndestroy {image} {image} {without}\n")
    };
    assert_eq!(daemon.shell(line)?.ok()? + "\n", step("FIRST", 0) + &step("SECOND", 1));
    Ok(())
}

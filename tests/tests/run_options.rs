//! What `run`, `update` and `ps` are asked for by the real docker CLI: in effect, or refused by name.

use anyhow::{Context, Result, ensure};
use bulkhead_tests::Daemon;

#[test]
fn what_cannot_be_is_refused_by_name() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    daemon.docker(&["run", "-d", "--name", "one", "box", "sleep", "1000"])?.ok()?;
    let joins = "conflicting options: ";
    for (flags, sentence) in [
        ("--platform linux/arm64", "platform linux/arm64 is not this machine's"),
        ("--oom-score-adj 2000", "Invalid value 2000, range for oom score adj is [-1000, 1000]"),
        ("--log-opt bogus=1", "unknown log opt 'bogus'"),
        ("--log-driver splunk", "no log driver named 'splunk' is registered"),
        ("--cgroup-parent ../../x", "HostConfig.CgroupParent"),
        ("--cgroup-parent /x", "HostConfig.CgroupParent"),
        ("--oom-kill-disable", "HostConfig.OomKillDisable"),
        ("--storage-opt size=1G", "HostConfig.StorageOpt"),
        ("--gpus all", "HostConfig.DeviceRequests"),
        ("--runtime nope", "nope"),
        ("--security-opt apparmor=nope", "apparmor=nope"),
        ("--security-opt label=type:x", "label"),
        ("--security-opt bogus", "bogus"),
        ("--memory-swappiness 200", "200"),
        ("--blkio-weight 5", "Range of blkio weight"),
        ("--device-cgroup-rule 'c 1:3 x'", "c 1:3 x"),
        ("--device /nosuch", "/nosuch"),
        ("--tmpfs /t:bogus", "bogus"),
        ("--mount type=tmpfs,dst=/t,tmpfs-mode=9", "tmpfs-mode"),
        ("-v /a:/b:bogus", "bogus"),
        ("--mount type=volume,src=v,dst=/x,volume-driver=nope", "nope"),
        ("--uts host -h x", "conflicting options: hostname and the UTS mode"),
        ("--net host --dns 1.1.1.1 -p 80:80 --mac-address 02:42:00:00:00:01", joins),
        ("--net container:one -h x", "conflicting options: hostname and the network mode"),
        ("--net container:one --dns 1.1.1.1", "conflicting options: dns and the network mode"),
        ("--net container:one --expose 80", "conflicting options: port exposing"),
        ("--net container:one -p 80:80", "conflicting options: port publishing"),
        ("--net container:one --add-host a:1.1.1.1", "conflicting options: custom host-to-IP"),
        ("--net container:one --link one", joins),
        ("--net container:missing", "No such container: missing"),
        ("--ipc container:missing", "No such container: missing"),
        ("--pid container:missing", "No such container: missing"),
        ("--volumes-from missing", "No such container: missing"),
        ("--sysctl kernel.shm_rmid_forced=1 --ipc host", "kernel.shm_rmid_forced"),
        ("--ulimit nofile=5:4", "nofile"),
        ("--stop-signal SIGNOPE", "SIGNOPE"),
        ("--user nosuch", "nosuch"),
        ("--group-add nosuch", "nosuch"),
        ("--cap-add NOPE", "NOPE"),
        ("-m 1m", "Minimum memory limit allowed is 6MB"),
    ] {
        let said = daemon.shell(&format!("$DOCKER run --rm {flags} box true"))?;
        said.expect(125, sentence).with_context(|| flags.to_owned())?;
    }
    // Whoever hears of an image that is missing pulls it.
    let said = daemon.docker(&["run", "--rm", "--net", "container:missing", "box", "true"])?;
    ensure!(!said.stderr.contains("Unable to find image"), "{said:?}");
    daemon.docker(&["update", "--restart", "sometimes", "one"])?.expect(1, "sometimes")?;
    daemon.docker(&["update", "-m", "1m", "one"])?.expect(1, "Minimum memory limit")?;
    assert_eq!(daemon.docker(&["ps", "-aq"])?.ok()?.lines().count(), 1, "something is left");
    Ok(())
}

#[test]
fn what_is_asked_for_is_in_effect() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    // The file systems of a cgroup of v1, or those of v2.
    let group = "cd /sys/fs/cgroup; cat";
    for (flags, script, want) in [
        ("--oom-score-adj 500", "cat /proc/self/oom_score_adj".to_owned(), "500"),
        ("--mount type=tmpfs,dst=/t", "stat -c %a /t".to_owned(), "1777"),
        ("--mount type=tmpfs,dst=/t,tmpfs-mode=0700", "stat -c %a /t".to_owned(), "700"),
        ("--shm-size 7m", "df -k /dev/shm | tail -n1 | grep -c ' 7168 '".to_owned(), "1"),
        (
            "--security-opt systempaths=unconfined",
            "grep -c ' /proc/' /proc/self/mountinfo || true".to_owned(),
            "0",
        ),
        ("--ulimit nofile=123:456", "ulimit -Sn; ulimit -Hn".to_owned(), "123\n456"),
        (
            "--domainname ex.com -h web",
            "hostname; cat /proc/sys/kernel/domainname".to_owned(),
            "web\nex.com",
        ),
        (
            "--memory-swappiness 50",
            format!("{group} memory/memory.swappiness 2>/dev/null || echo 50"),
            "50",
        ),
        (
            "--device-cgroup-rule 'c 10:200 rwm'",
            format!(
                "{group} devices/devices.list 2>/dev/null | grep -x 'c 10:200 rwm' || {{ test -e cgroup.controllers && echo 'c 10:200 rwm'; }}"
            ),
            "c 10:200 rwm",
        ),
    ] {
        let said = daemon.shell(&format!("$DOCKER run --rm {flags} box sh -c \"{script}\""))?;
        assert_eq!(said.ok()?.trim_end(), want.trim_end(), "{flags}");
    }
    Ok(())
}

#[test]
fn what_is_changed_later_is_shown() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let line = "set -e
        since=$(date +%s)
        $DOCKER run -d --init --name first box sleep 1000 >/dev/null
        $DOCKER update --restart always -m 64m --memory-swap 128m --cpus 0.5 first >/dev/null
        $DOCKER inspect -f '{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.RestartPolicy.Name}}' first
        $DOCKER top first -o pid,args | grep -o '/sbin/docker-init -- sleep 1000'
        $DOCKER run -d --name second --link first:store --link first -v /data box sleep 1000 >/dev/null
        $DOCKER ps --format '{{.Names}}'
        $DOCKER ps --no-trunc --format '{{.Names}}'
        $BULKHEAD ps --no-trunc --format '{{.Names}}'
        $DOCKER rm --link second/store
        $DOCKER rename second third
        $DOCKER ps --no-trunc --format '{{.Names}}'
        $DOCKER volume ls -f label=com.docker.volume.anonymous -q | wc -l
        $DOCKER rm -f first third >/dev/null
        $DOCKER events --since $since --until $(($(date +%s) + 1)) --filter type=network \
            --format '{{.Action}} {{.Actor.Attributes.name}}' | sort | uniq -c | tr -s ' '";
    let said = daemon.shell(line)?.ok()?;
    let rows: Vec<&str> = said.lines().map(str::trim).collect();
    assert_eq!(
        rows,
        [
            "67108864 500000000 always",
            "/sbin/docker-init -- sleep 1000",
            "second",
            "first",
            "second",
            "first,second/first,second/store",
            "second",
            "first,second/first,second/store",
            "second/store",
            "third",
            "first,third/first",
            "1",
            "2 connect bridge",
            "2 disconnect bridge",
        ]
    );
    Ok(())
}

/// People write filters for curl as they are; a body of the wrong kind is told in a sentence.
#[test]
fn requests_by_hand() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    daemon.docker(&["create", "--name", "one", "box"])?.ok()?;
    daemon.docker(&["create", "--name", "two", "box"])?.ok()?;
    let curl = "curl -sg --unix-socket $RUN_DIRECTORY/docker.sock";
    let line = format!(
        "{curl} 'http://d/v1.51/containers/json?all=1&filters={{\"name\":[\"one\"]}}' | grep -o '\"Names\":[^]]*'"
    );
    assert_eq!(daemon.shell(&line)?.ok()?, "\"Names\":[\"/one\"");
    // the rest of what was sent with the line is a request's body
    let line = format!(
        "{curl} -w ' %{{http_code}}' -H 'Content-Type: application/json' -d '{{\"Image\": \"box\", \"Cmd\": 7}}' \
            'http://d/containers/create?name=\"x\"'
        echo; {curl} -w ' %{{http_code}}' -H 'Content-Type: application/json' \
            -d '{{\"Image\": \"box\", \"Cmd\": 7}}' 'http://d/containers/create'"
    );
    let said = daemon.shell(&line)?.ok()?;
    let told = "{\"message\":\"invalid JSON: Cmd is the number 7, and must be a word or a list of words\"} 400";
    assert_eq!(said.lines().collect::<Vec<_>>(), [told, told]);
    Ok(())
}

//! The real docker CLI and Bulkhead's own, side by side, against a whole Bulkhead.

use anyhow::{Result, ensure};
use bulkhead_tests::Daemon;

fn daemon() -> Result<Daemon> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    Ok(daemon)
}

#[test]
fn run_gives_output_and_the_exit_status() -> Result<()> {
    let daemon = daemon()?;
    for said in daemon.each_cli("$CLI run --rm box sh -c 'echo out; echo err >&2; exit 7'")? {
        assert_eq!((said.code, &*said.stdout, &*said.stderr), (7, "out\n", "err\n"));
    }
    for said in daemon.each_cli("echo line | $CLI run --rm -i box cat")? {
        assert_eq!(said.ok()?, "line");
    }
    for (line, code, text) in [
        ("run --rm box nosuch", 127, "exec: \"nosuch\": executable file not found in $PATH"),
        ("run --rm box /etc", 126, "exec: \"/etc\": permission denied"),
        ("run --rm --memory 1x box true", 125, "invalid"),
        ("run --rm --network nosuch box true", 125, "network nosuch not found"),
        ("run --rm --link nosuch:other box true", 125, "could not get container for nosuch"),
    ] {
        for said in daemon.each_cli(&format!("$CLI {line}"))? {
            said.expect(code, text)?;
        }
    }
    // As often as a race would show: the exit status comes after the output's end.
    let line = "$CLI run -d --name one box sleep 1000 >/dev/null
        for i in 1 2 3 4 5 6 7 8 9 10; do $CLI exec one sh -c 'exit 9'; echo $?; done | sort | uniq -c
        $CLI rm -f one >/dev/null; $CLI ps -aq";
    for said in daemon.each_cli(line)? {
        assert_eq!(said.ok()?.trim(), "10 9");
    }
    Ok(())
}

#[test]
fn a_container_from_its_start_to_its_removal() -> Result<()> {
    let daemon = daemon()?;
    let line = "set -e
        $CLI run -d --name first box sh -c 'echo ready; exec sleep 1000' >$HERE/id
        first_line $CLI logs -f first
        $CLI ps --format '{{.Names}} {{.Image}}'
        test $($CLI ps -q --no-trunc) = $(cat $HERE/id)
        $CLI inspect --format '{{.State.Status}} {{.Name}} {{.Path}} {{json .Args}}' first
        $CLI top first | grep -c 'sleep 1000'
        $CLI exec -e A=b -w /tmp first sh -c 'echo $A $(pwd)'
        $CLI exec first nosuch || echo $?
        $CLI rename first second
        $CLI restart -t 0 second
        $CLI kill second
        $CLI wait second
        $CLI inspect --format '{{.State.Status}} {{.State.ExitCode}} {{.State.Pid}}' second
        $CLI start second
        $CLI stop -t 0 second
        $CLI rm second
        $CLI ps -aq";
    let expected = "ready
        first box
        running /first sh [\"-c\",\"echo ready; exec sleep 1000\"]
        1
        b /tmp
        exec: \"nosuch\": executable file not found in $PATH
        127
        second
        second
        137
        exited 137 0
        second
        second
        second";
    for said in daemon.each_cli(line)? {
        let lines: Vec<String> =
            said.ok()?.lines().map(|line| line.trim_end().to_owned()).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).filter(|l| !l.is_empty()).collect();
        let expected: Vec<&str> = expected.lines().map(str::trim).collect();
        assert_eq!(lines, expected);
    }
    for said in daemon.each_cli("$CLI rm nosuch")? {
        said.expect(1, "No such container: nosuch")?;
    }
    let id = daemon.docker(&["create", "--name", "taken", "box"])?.ok()?;
    let conflict = format!(
        "Conflict. The container name \"/taken\" is already in use by container \"{id}\". \
         You have to remove (or rename) that container to be able to reuse that name."
    );
    for said in daemon.each_cli("$CLI run --name taken box true")? {
        said.expect(125, &conflict)?;
    }
    Ok(())
}

#[test]
fn a_paused_container_stands_still() -> Result<()> {
    let daemon = daemon()?;
    // It counts into a file as fast as it can; other containers' work is the time that passes.
    let line = "set -e
        mkdir -p $HERE/shared
        $CLI run -d --name counts -v $HERE/shared:/shared box \
            sh -c 'i=0; while :; do i=$((i+1)); echo $i >/shared/new; mv /shared/new /shared/count; done' >/dev/null
        $CLI exec counts sh -c 'until [ -e /shared/count ]; do :; done'
        $CLI pause counts
        $CLI inspect --format '{{.State.Status}} {{.State.Paused}} {{.State.Running}}' counts
        before=$(cat $HERE/shared/count)
        $CLI run --rm box sh -c 'i=0; while [ $i -lt 10000 ]; do i=$((i+1)); done'
        test $before = $(cat $HERE/shared/count)
        $CLI exec counts true 2>&1 || echo $?
        $CLI unpause counts
        $CLI exec -e before=$before counts sh -c 'while [ $(cat /shared/count) = $before ]; do :; done'
        $CLI rm -f counts";
    for said in daemon.each_cli(line)? {
        let said = said.ok()?;
        ensure!(said.starts_with("counts\npaused true true\n"), "{said}");
        ensure!(said.contains("is paused, unpause the container before exec\n1\ncounts"), "{said}");
    }
    Ok(())
}

#[test]
fn a_terminal_is_one() -> Result<()> {
    let daemon = daemon()?;
    let line = "script -qefc \"stty rows 33 cols 77; $CLI run --rm -it box \
        sh -c 'tty; stty size; echo \\$TERM; exit 3'\" /dev/null </dev/null";
    for said in daemon.each_cli(line)? {
        ensure!(said.code == 3, "{said:?}");
        let output: String =
            said.stdout.chars().filter(|c| !c.is_control() || *c == '\n').collect();
        // What script(1) types at the end of its own input is echoed, early or late.
        let output = output.replace("^@", "");
        ensure!(output.contains("/dev/pts/0\n33 77\nxterm\n"), "{output:?}");
    }
    // Keys typed once it listens arrive; Control-C is the signal that the container's terminal makes.
    let line = "rm -f $HERE/keys $HERE/screen; mkfifo $HERE/keys $HERE/screen
        script -qefc \"$CLI run --rm -it box \
            sh -c 'trap \\\"echo interrupted; exit 5\\\" INT; echo listening; read line; echo got \\$line; while :; do :; done'\" \
            /dev/null <$HERE/keys >$HERE/screen &
        exec 4>$HERE/keys 3<$HERE/screen
        until read line <&3; [ \"${line%?}\" = listening ]; do :; done
        printf 'abc\\n' >&4
        until read line <&3; [ \"${line%?}\" = 'got abc' ]; do :; done
        printf '\\003' >&4; cat <&3; wait $!";
    for said in daemon.each_cli(line)? {
        ensure!(said.code == 5 && said.stdout.contains("interrupted"), "{said:?}");
    }
    for said in daemon.each_cli("$CLI run --rm -t box sh -c 'tty; tty <&2' </dev/null")? {
        ensure!(said.code == 0 && said.stdout.contains("/dev/pts/0"), "{said:?}");
    }
    Ok(())
}

const NAMESPACES: &str =
    "for name in pid net ipc mnt uts user cgroup time; do readlink /proc/self/ns/$name; done";

#[test]
fn every_namespace_is_its_own_unless_shared() -> Result<()> {
    let daemon = daemon()?;
    let host = daemon.shell(NAMESPACES)?.ok()?;
    let host: Vec<&str> = host.lines().collect();
    // Sharing what belongs to the host's user namespace brings that one along.
    let cases: [(&str, &[&str]); 7] = [
        ("", &[]),
        ("--pid=host", &["pid", "user"]),
        ("--net=host", &["net", "user"]),
        ("--ipc=host", &["ipc", "user"]),
        ("--uts=host", &["uts"]),
        ("--userns=host", &["user"]),
        ("--cgroupns=host", &["cgroup"]),
    ];
    for (flag, shared) in cases {
        for said in daemon.each_cli(&format!("$CLI run --rm {flag} box sh -c '{NAMESPACES}'"))? {
            let inside = said.ok()?;
            let inside: Vec<&str> = inside.lines().collect();
            assert_eq!((inside.len(), host.len()), (8, 8));
            let same: Vec<&str> = host
                .iter()
                .zip(&inside)
                .filter(|(host, inside)| host == inside)
                .filter_map(|(host, _)| host.split_once(':').map(|(name, _)| name))
                .collect();
            let mut expected = shared.to_vec();
            expected.sort_unstable();
            let mut sorted = same;
            sorted.sort_unstable();
            assert_eq!(sorted, expected, "{flag}");
        }
    }
    let line = "set -e
        $CLI run -d --name who box sh -c 'echo $$ $(id -u) $(cat /proc/self/uid_map); exec sleep 1000' >/dev/null
        first_line $CLI logs -f who
        stat -c %u /proc/$($CLI inspect --format '{{.State.Pid}}' who)
        $CLI rm -f who >/dev/null";
    for said in daemon.each_cli(line)? {
        let said = said.ok()?;
        let words: Vec<&str> = said.split_whitespace().collect();
        let [pid, uid, inside, outside, count, owner] = words[..] else {
            anyhow::bail!("expected six words: {said}");
        };
        assert_eq!((pid, uid, inside, count), ("1", "0", "0", "262144"));
        assert_eq!(outside, owner);
        ensure!(outside.parse::<u32>()? >= 100_000, "root inside is {outside} outside");
    }
    Ok(())
}

#[test]
fn network_modes_and_how_inspect_reveals_them() -> Result<()> {
    let daemon = daemon()?;
    let names = "ip -o link | cut -d: -f2 | cut -d@ -f1 | tr -d ' '";
    for said in
        daemon.each_cli(&format!("$CLI run --rm --net=host box sh -c \"{names}\"; {names}"))?
    {
        let said = said.ok()?;
        let links: Vec<&str> = said.lines().collect();
        ensure!(links.contains(&"bhtest0") && !links.contains(&"eth0"), "{links:?}");
    }
    for said in daemon.each_cli(&format!("$CLI run --rm --net=none box sh -c \"{names}\""))? {
        assert_eq!(said.ok()?, "lo");
    }
    for said in daemon.each_cli(&format!("$CLI run --rm box sh -c \"{names}\""))? {
        assert_eq!(said.ok()?, "lo\neth0");
    }
    // The line is the issue's own, word for word.
    let line = "set -e; alias docker=\"$CLI\"
        for mode in bridge host none; do $CLI run -d --net=$mode box sleep 1000; done >$HERE/ids
        for mode in none host bridge; do echo $mode; done >$HERE/modes
        $CLI ps -q | xargs $CLI inspect --format '{{ .Id }}: NetworkMode={{ .HostConfig.NetworkMode }}' >$HERE/said
        tac $HERE/ids | paste -d' ' - $HERE/modes | sed 's/ /: NetworkMode=/' | cmp - $HERE/said
        $CLI rm -f $(cat $HERE/ids) >/dev/null; wc -l <$HERE/said";
    for said in daemon.each_cli(line)? {
        assert_eq!(said.ok()?, "3");
    }
    Ok(())
}

#[test]
fn images_are_built_pushed_and_pulled() -> Result<()> {
    let daemon = daemon()?;
    let context = daemon.directory().join("context");
    std::fs::create_dir(&context)?;
    std::fs::write(context.join("file"), "from the context\n")?;
    std::fs::write(
        context.join("Dockerfile"),
        "ARG BASE=box
FROM box AS first
ARG WHO=nobody
WORKDIR /made
RUN echo \"hello $WHO from $(pwd)\" >greeting && test $(id -u) = 0
FROM ${BASE}
COPY --from=first /made/greeting /srv/
COPY --chown=web file /srv/
CMD cat /srv/greeting /srv/file && stat -c %U /srv/greeting /srv/file
",
    )?;
    let build = "$CLI build -t built:$WHO --build-arg WHO=$WHO $HERE/context";
    let output = "hello world from /made\nfrom the context\nroot\nweb";
    for said in daemon.each_cli(&format!("WHO=world; {build} && {build}"))? {
        ensure!(said.stdout.matches("Successfully tagged built:world").count() == 2, "{said:?}");
        ensure!(said.stdout.contains("Using cache"), "{said:?}");
    }
    for said in
        daemon.each_cli(&format!("WHO=you; {build} >/dev/null && $CLI run --rm built:you"))?
    {
        ensure!(said.stdout.starts_with("hello you from /made\n"), "{said:?}");
    }
    for said in
        daemon.each_cli("echo wrong | $CLI login -u admin --password-stdin 127.0.0.1:5000")?
    {
        said.expect(1, "unauthorized: incorrect username or password")?;
    }
    let line = "set -e
        NAME=127.0.0.1:5000/team/built:1
        $CLI tag built:world $NAME
        ! $CLI push $NAME 2>&1 | grep -q digest:
        echo $PASSWORD | $CLI login -u admin --password-stdin 127.0.0.1:5000 2>&1 | grep Succeeded
        $CLI push $NAME | grep -o 'digest: sha256'
        $CLI rmi $NAME >/dev/null
        $CLI run --rm --pull never $NAME true 2>/dev/null || echo $?
        $CLI run --rm $NAME 2>/dev/null
        $CLI rmi $NAME >/dev/null
        $CLI pull $NAME >/dev/null
        $CLI run --rm $NAME
        $CLI rmi $NAME >/dev/null
        $CLI logout 127.0.0.1:5000 >/dev/null";
    for said in daemon.each_cli(line)? {
        let said = said.ok()?;
        assert_eq!(said, format!("Login Succeeded\ndigest: sha256\n125\n{output}\n{output}"));
    }
    Ok(())
}

#[test]
fn volumes_and_binds_keep_owners() -> Result<()> {
    let daemon = daemon()?;
    let line = "set -e
        rm -rf $HERE/bind; mkdir -p $HERE/bind; echo host >$HERE/bind/given; chown 1234:1235 $HERE/bind/given
        $CLI run --rm -v kept:/kept -v $HERE/bind:/bind box \
            sh -c 'stat -c \"%u %g\" /bind/given; echo new >/bind/made; echo kept >/kept/file'
        stat -c '%u %g' $HERE/bind/made
        $CLI run --rm -v kept:/kept box sh -c 'cat /kept/file; stat -c %u /kept/file'
        $CLI run --rm -v $HERE/bind:/bind:ro box sh -c 'echo no >/bind/made' 2>&1 || cat $HERE/bind/made
        $CLI run --rm -u web -v $HERE/bind:/bind box sh -c 'echo no >/bind/made' 2>&1 || cat $HERE/bind/made
        $DOCKER volume rm kept";
    for said in daemon.each_cli(line)? {
        let said = said.ok()?;
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(
            lines,
            [
                "1234 1235",
                "0 0",
                "kept",
                "0",
                "sh: can't create /bind/made: Read-only file system",
                "new",
                "sh: can't create /bind/made: Permission denied",
                "new",
                "kept"
            ]
        );
    }
    Ok(())
}

#[test]
fn ports_are_published_and_links_resolve() -> Result<()> {
    let daemon = daemon()?;
    let line = "set -e
        get() { curl -sS --noproxy '*' --max-time 20 --retry 50 --retry-connrefused --retry-delay 1 $1; }
        $CLI run -d --name web -p 8080:80 box \
            sh -c 'mkdir /www; echo page >/www/index.html; exec httpd -f -p 80 -h /www' >/dev/null
        # It listens once its socket is seen from within.
        $CLI exec web sh -c 'until wget -q -O /dev/null http://127.0.0.1/; do :; done' 2>/dev/null
        get http://127.0.0.1:8080/
        get http://10.99.0.1:8080/
        get http://$($CLI inspect --format '{{.NetworkSettings.IPAddress}}' web)/
        $CLI inspect --format '{{json .NetworkSettings.Ports}}' web | grep -o '\"HostPort\":\"8080\"' | head -n1
        $CLI run --rm -p 8080:80 box true 2>&1 | grep -o 'Bind for 0.0.0.0:8080 failed: port is already allocated'
        $CLI run --rm --link web:application -e KEPT=yes box \
            sh -c 'wget -q -O - http://application/; wget -q -O - http://web/; echo $APPLICATION_PORT_80_TCP_PROTO $KEPT'
        $CLI rm -f web >/dev/null
        $CLI run --rm -p 8080:80 box echo free";
    for said in daemon.each_cli(line)? {
        assert_eq!(
            said.ok()?,
            "page\npage\npage\n\"HostPort\":\"8080\"\n\
             Bind for 0.0.0.0:8080 failed: port is already allocated\npage\npage\ntcp yes\nfree"
        );
    }
    Ok(())
}

#[test]
fn files_are_copied_and_events_told() -> Result<()> {
    let daemon = daemon()?;
    let said = daemon.shell(
        "set -e
        echo in >$HERE/in; mkdir $HERE/tree; echo deep >$HERE/tree/leaf
        $DOCKER run -d --name one box sleep 1000 >/dev/null
        $DOCKER cp -q $HERE/in one:/tmp/ && $DOCKER cp -q $HERE/tree one:/tmp/
        $DOCKER exec one cat /tmp/in /tmp/tree/leaf
        $DOCKER exec one sh -c 'echo out >/tmp/out; ln -s /etc/shadow /tmp/link'
        $DOCKER cp -q one:/tmp/out $HERE/out && cat $HERE/out
        $DOCKER cp -q one:/tmp/tree $HERE/back && cat $HERE/back/leaf
        $DOCKER rm -f one >/dev/null",
    );
    // Old clients have no -q, and are quiet when their output is no terminal.
    let said = match said?.expect(0, "deep") {
        Ok(said) => said,
        Err(_) => daemon.shell(
            "set -e; $DOCKER rm -f one >/dev/null; rm -rf $HERE/back
            $DOCKER run -d --name one box sleep 1000 >/dev/null
            $DOCKER cp $HERE/in one:/tmp/ && $DOCKER cp $HERE/tree one:/tmp/
            $DOCKER exec one cat /tmp/in /tmp/tree/leaf
            $DOCKER exec one sh -c 'echo out >/tmp/out'
            $DOCKER cp one:/tmp/out $HERE/out && cat $HERE/out
            $DOCKER cp one:/tmp/tree $HERE/back && cat $HERE/back/leaf
            $DOCKER rm -f one >/dev/null",
        )?,
    };
    assert_eq!(said.ok()?, "in\ndeep\nout\ndeep");
    let line = "set -e; since=$(date +%s.%N)
        $CLI run --rm --name told box true
        $CLI events --since $since --until $(date +%s.%N) --filter container=told --format '{{.Action}}'";
    for said in daemon.each_cli(line)? {
        let said = said.ok()?;
        let actions: Vec<&str> = said.lines().collect();
        for action in ["create", "start", "die", "destroy"] {
            ensure!(actions.contains(&action), "no {action} in {actions:?}");
        }
    }
    // Followed as they happen: `since` lets the listener come after the container, or before.
    let line = "set -e; since=$(date +%s.%N)
        $CLI run -d --name later box sh -c 'read line </dev/tty; exit 6' >/dev/null
        (first_line $CLI events --since $since --filter container=later --filter event=die \
            --format '{{.Actor.Attributes.exitCode}}') &
        $CLI wait later >/dev/null; wait $!; $CLI rm later >/dev/null";
    for said in daemon.each_cli(line)? {
        assert_eq!(said.ok()?, "6");
    }
    Ok(())
}

#[test]
fn limits_hold_policies_restart_and_nothing_is_left() -> Result<()> {
    let daemon = daemon()?;
    daemon.docker(&["run", "--rm", "box", "true"])?.ok()?;
    let before = daemon.traces(0)?;
    let line = "set -e
        $CLI run --name big --memory 16m box sh -c 'tail /dev/zero' || echo $?
        $CLI inspect --format '{{.State.OOMKilled}} {{.State.ExitCode}} {{.HostConfig.Memory}}' big
        $CLI rm big >/dev/null
        $CLI run --rm --pids-limit 5 box sh -c 'for i in 1 2 3 4 5 6 7; do sleep 1000 & done' 2>&1 | grep -o \"can't fork\"
        since=$(date +%s.%N)
        $CLI run -d --name again --restart on-failure:2 box sh -c 'echo line; exit 3' >/dev/null
        LINES_WANTED=3 first_line $CLI events --since $since --filter container=again --filter event=die \
            --format '{{.Actor.Attributes.exitCode}}'
        $CLI logs again
        $CLI inspect --format '{{.RestartCount}} {{.State.ExitCode}} {{.State.Status}}' again
        $CLI rm again >/dev/null
        $CLI run --rm -v /anonymous -p 8081:80 --name gone box true
        $CLI ps -aq";
    for said in daemon.each_cli(line)? {
        assert_eq!(
            said.ok()?,
            "137\ntrue 137 16777216\ncan't fork\n3\n3\n3\nline\nline\nline\n2 3 exited"
        );
    }
    ensure!(
        daemon.docker(&["volume", "ls", "-q"])?.ok()?.is_empty(),
        "an anonymous volume is left"
    );
    assert_eq!(daemon.traces(0)?, before);
    Ok(())
}

#[test]
fn no_byte_of_output_is_lost() -> Result<()> {
    let daemon = daemon()?;
    // The reader begins when the program has long written what every buffer on the way holds: what
    // another container takes from its start to its end is long enough.
    let line = "$CLI run -d --name one box sleep 1000 >/dev/null
        { $CLI exec one dd if=/dev/zero bs=1M count=100 2>/dev/null; echo $? >$HERE/status; } |
            { $CLI run --rm box true; wc -c; }; cat $HERE/status
        { $CLI run --rm box sh -c 'dd if=/dev/zero bs=1M count=20 2>/dev/null; exit 5';
            echo $? >$HERE/status; } | { $CLI run --rm box true; wc -c; }; cat $HERE/status
        yes | $CLI run --rm -i box sh -c 'echo out; exit 6'; echo $?
        $CLI rm -f one >/dev/null";
    for said in daemon.each_cli(line)? {
        let (code, errors) = (said.code, said.stderr.clone());
        ensure!(
            (code, &*said.stdout) == (0, "104857600\n0\n20971520\n5\nout\n6\n"),
            "{code}: {}{errors}",
            said.stdout
        );
    }
    Ok(())
}

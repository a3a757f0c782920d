//! Every command of `docker`, by Docker's command line and by Bulkhead's own, on one engine: the same on
//! standard output, and the same exit status.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use bulkhead_tests::{Daemon, program, run};

/// Runs a line by both command lines, and compares what they say and end with.
fn same(daemon: &Daemon, line: &str) -> Result<String> {
    compared(daemon, line, 1)
}

/// The same for what shows how old things are, which may change between the two: they have to agree once.
fn same_at_once(daemon: &Daemon, line: &str) -> Result<String> {
    compared(daemon, line, 20)
}

fn compared(daemon: &Daemon, line: &str, most: u32) -> Result<String> {
    let mut said = daemon.each_cli(line)?;
    for _ in 1..most {
        if said[0].code == said[1].code && said[0].stdout == said[1].stdout {
            break;
        }
        said = daemon.each_cli(line)?;
    }
    let [docker, bulkhead] = said;
    ensure!(
        docker.code == bulkhead.code && docker.stdout == bulkhead.stdout,
        "{line}\ndocker   {}: {}{}\nbulkhead {}: {}{}",
        docker.code,
        docker.stdout,
        docker.stderr,
        bulkhead.code,
        bulkhead.stdout,
        bulkhead.stderr,
    );
    Ok(bulkhead.stdout)
}

#[test]
fn what_is_shown_is_what_docker_shows() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let line = "set -e
        $DOCKER run -d --name web -p 8080-8081:80-81 -p 90:90 -l a=b -l c=d -v vol:/data box sleep 1000
        $DOCKER run --name done box sh -c 'echo hi >/new; rm /etc/passwd; exit 3' || true
        $DOCKER network create -d bridge --label x=y front
        $DOCKER tag box box:other; $DOCKER volume create --label k=v named
        mkdir $HERE/context; printf 'FROM box\\nRUN echo a >/a\\nLABEL x=y\\n' >$HERE/context/Dockerfile
        $DOCKER build -q -t built $HERE/context";
    daemon.shell(line)?.ok()?;
    for line in [
        "ps; $CLI ps -a; $CLI ps -as; $CLI ps -aq; $CLI ps -a --no-trunc; $CLI ps -l; $CLI ps -n 1 -q",
        "container ls -a --filter status=exited; $CLI container ps -q; $CLI container list",
        "ps -a --format json; $CLI ps -a --format '{{json .}}'; $CLI ps --format table",
        "ps --format 'table {{.ID}}\\t{{.Label \"a\"}}\\t{{lower .Names}}'",
        "ps --format '{{.Label \"a\"}} {{.Mounts}} {{.Networks}} {{.CreatedAt}} {{.LocalVolumes}}'",
        "ps --format '{{join (split .Image \":\") \"/\"}} {{printf \"%q\" .Names}} {{println .ID}}'",
        "ps -a --format '{{pad .Names 2 2}}|{{truncate .ID 3}}|{{title .State}}'",
        "images; $CLI images --digests; $CLI images --format json; $CLI images -q --no-trunc",
        "image ls box; $CLI images --filter dangling=true; $CLI image ls --filter reference='b*'",
        "history built; $CLI history --no-trunc --human=false box; $CLI image history -q box",
        "history --format json built",
        "network ls; $CLI network ls --format json; $CLI network ls -q --no-trunc",
        "network ls --format '{{.Name}} {{.Label \"x\"}} {{.CreatedAt}}'",
        "volume ls; $CLI volume ls --format json; $CLI volume ls -q --filter label=k",
        "system df; $CLI system df -v; $CLI system df --format json",
        "system df -v --format '{{json .Volumes}}'",
        "port web; $CLI port web 80; $CLI port web 81/tcp; $CLI port web 99",
        "diff done; $CLI container diff done",
        "top web; $CLI top web -o pid,args",
        "inspect web box; $CLI inspect --type container done; $CLI inspect -s --format '{{.SizeRw}}' done",
        "inspect --format '{{.State.Pid}} {{json .Config.Labels}} {{.ID}}' web",
        "inspect --format '{{range $k, $v := .NetworkSettings.Ports}}{{$k}}={{(index $v 0).HostPort}} {{end}}' web",
        "inspect --format '{{index .Config.Labels \"a\"}}|{{index .Config.Labels \"nope\"}}' web",
        "inspect -f json web; $CLI inspect nope; $CLI container inspect web nope; $CLI image inspect nope",
        "volume inspect vol; $CLI network inspect front; $CLI volume inspect nope; $CLI network inspect nope",
        "inspect --format '{{.State.Pid' web",
        "version --format '{{.Server.APIVersion}} {{.Server.Version}}'; $CLI version --format '{{.Nope'",
        "info --format '{{.NCPU}} {{.ServerVersion}} {{.ID}}'; $CLI info --format '{{.Nope'",
        "stats --no-stream --format '{{.Name}} {{.PIDs}} {{.Container}}' web; $CLI stats --no-stream nope",
        "wait done; $CLI logs done; $CLI logs -t --tail 1 web; $CLI logs nope",
        "system events --since 1h --until 0s; $CLI events --since 1h --until 0s --format json",
        "events --since 1h --until 0s --format '{{.Type}} {{.Action}} {{.Actor.Attributes.name}} {{.TimeNano}}'",
        "events --format '{{.Nope'",
        "run --gpus all box true; $CLI run; $CLI run --nope box; $CLI ps extra",
    ] {
        // one at a time, for each may show how old things are
        for command in line.split("; $CLI ") {
            same_at_once(&daemon, &format!("$CLI {command}"))?;
        }
    }
    // what the engine says is the same; the client's own part is its own
    // (docker has the runtimes in no order)
    let line = "$CLI info | sed -n '/^Server:/,$p' | sed '/^ Runtimes:/d'";
    ensure!(same(&daemon, line)?.contains(" Server Version: "), "info says nothing of the engine");
    let line = "$CLI info | grep '^ Runtimes:' | tr ' ' '\\n' | sort | paste -sd ' '";
    ensure!(same(&daemon, line)?.contains("bulkhead"), "info says nothing of runtimes");
    daemon.shell("$BULKHEAD system info")?.expect(0, "Live Restore Enabled: true")?;
    daemon.shell("$BULKHEAD version")?.expect(0, "minimum version 1.24")?;
    Ok(())
}

#[test]
fn what_is_done_is_what_docker_does() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    for (line, expected) in [
        // lives of containers
        (
            "$CLI create --name one --label x=1 box sleep 1000 >/dev/null; $CLI container start one
             $CLI rename one two; $CLI pause two; $CLI ps --format '{{.Status}}' | grep -c Paused; $CLI unpause two
             $CLI restart -t 0 two; $CLI kill -s TERM two; $CLI kill two; $CLI wait two; $CLI start two nope
             $CLI stop --timeout 0 two nope; $CLI container rm two; $CLI rm two",
            "one\ntwo\n1\ntwo\n",
        ),
        ("$CLI run --rm -d --name many box sleep 1000 >/dev/null; $CLI rm -f many nope; echo $?", "many\n0"),
        ("$CLI run --rm=false --name kept box true; $CLI ps -aq --filter name=kept | wc -l; $CLI rm kept", "1\nkept"),
        ("$CLI run --rm --label a=1 --label a=2 --rm box echo twice", "twice"),
        // flags of run
        (
            "printf 'x=1\\n# no\\ny\\n' >$HERE/labels; printf 'E=1\\nF=2\\n' >$HERE/env
             $CLI create --name limits --blkio-weight 100 --blkio-weight-device /dev/loop0:200 --device-read-bps /dev/loop0:1mb \
                --device-write-iops /dev/loop0:10 --memory-swappiness 10 --device-cgroup-rule 'c 42:* rwm' --runtime bulkhead \
                --sysctl net.ipv4.ip_forward=0 box true >/dev/null
             $CLI inspect --format '{{.HostConfig.BlkioWeight}} {{json .HostConfig.BlkioDeviceReadBps}} {{json .HostConfig.DeviceCgroupRules}}' limits
             $CLI rm limits; $CLI run -d --name kin -v /shared box sleep 1000 >/dev/null
             $CLI run -d --name flags2 --label-file $HERE/labels --env-file $HERE/env -e F=3 --cpus 0.5 -m 64m \
                --memory-swap -1 --pids-limit 50 --restart on-failure:3 --stop-signal INT --stop-timeout 3 \
                --volumes-from kin --init --shm-size 1m --ulimit nofile=90:90 --add-host h:10.0.0.1 --dns 10.0.0.2 \
                --group-add 5 --isolation default box sleep 1000 >/dev/null
             $CLI inspect --format '{{json .Config.Labels}} {{json .Config.Env}} {{.HostConfig.NanoCpus}} {{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.PidsLimit}} {{json .HostConfig.RestartPolicy}} {{.Config.StopSignal}} {{json .HostConfig.VolumesFrom}} {{json .HostConfig.Ulimits}} {{json .HostConfig.ExtraHosts}} {{json .HostConfig.Dns}} {{json .HostConfig.GroupAdd}} {{.HostConfig.ShmSize}}' flags2
             $CLI rm -fv flags2 kin",
            "{\"x\":\"1\"}",
        ),
        ("$CLI run --rm -a stdout box sh -c 'echo out; echo err >&2'", "out"),
        ("$CLI run --rm -a stderr box sh -c 'echo out; echo err >&2'; echo $?", "0"),
        ("echo in | $CLI run --rm -i -a stdin -a stdout box cat", "in"),
        ("$CLI run -d -a stdout box true", ""),
        ("$CLI run --rm -q --cidfile $HERE/$$.id box true; wc -c <$HERE/$$.id", "64"),
        ("$CLI exec nope true; echo $?", "1"),
        // update
        (
            "$CLI run -d --name up box sleep 1000 >/dev/null
             $CLI update --restart always -m 64m --memory-swap 64m --pids-limit 9 up nope
             $CLI inspect --format '{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.RestartPolicy.Name}}' up
             $CLI update up; $CLI update -m much up; $CLI rm -f up",
            "up\n67108864 9 always",
        ),
        // files
        (
            "cd $HERE; rm -rf cp; mkdir -p cp/d/sub; echo f >cp/f; echo s >cp/d/sub/s; ln -s f cp/l
             $CLI run -d --name files box sleep 1000 >/dev/null
             $CLI cp cp/f files:/f; $CLI cp cp/d files:/d1; $CLI cp cp/d files:/d1; $CLI cp cp/d/. files:/d2
             $CLI cp cp/f files:/no/dir/; $CLI cp cp/d files:/f; $CLI cp cp/l files:/link; $CLI cp -L cp/l files:/followed
             $CLI exec files sh -c 'ln -s /d1 /tod; ln -s nowhere /dangling; find /f /d1 /d2 /link /followed | sort; readlink /link'
             $CLI cp files:/d1 cp/out; $CLI cp files:/d1 cp/out; $CLI cp files:/d1/. cp/flat; $CLI cp files:/f cp/f2
             $CLI cp files:/f cp/no/; $CLI cp files:/d1 cp/f2; $CLI cp -L files:/tod cp/tod; $CLI cp files:/tod cp/link
             $CLI cp cp/f files:/tod; $CLI exec files cat /d1/f
             find cp | sort; readlink cp/link; $CLI cp files:/f - | tar t; tar c -C cp f | $CLI cp - files:/root
             $CLI exec files cat /root/f; tar c -C cp f | $CLI cp - files:/nope; $CLI cp files:/nope .; $CLI cp a b
             $CLI cp nope:/a .; $CLI cp files:/a files:/b; $CLI cp cp/none files:/; ln -sf f2 cp/tof2; $CLI cp files:/d1/sub/s cp/tof2
             cat cp/f2; readlink cp/tof2; $CLI rm -f files",
            "/d1/d/sub/s",
        ),
        // archives and images
        (
            "cd $HERE; $CLI run --name makes box sh -c 'echo made >/made' ; $CLI export makes | tar tf - | grep -c '^made$'
             $CLI export -o $HERE/made.tar makes; $CLI import -c 'CMD [\"cat\", \"/made\"]' -m why $HERE/made.tar imported:1 >/dev/null
             $CLI run --rm -e PATH=/bin imported:1; $CLI inspect --format '{{.Comment}}' imported:1
             $CLI commit -a me -m what -c 'CMD [\"cat\",\"/made\"]' makes kept:1 | cut -c1-7
             $CLI run --rm kept:1; $CLI inspect --format '{{.Author}} {{.Comment}}' kept:1
             $CLI save kept:1 imported:1 >$HERE/both.tar; $CLI save -o $HERE/one.tar kept:1; stat -c %a $HERE/one.tar
             $CLI rmi kept:1 >/dev/null; $CLI load -i $HERE/both.tar | sort; $CLI load <$HERE/one.tar; $CLI load -qi $HERE/one.tar
             $CLI tag kept:1 other/kept:2; $CLI rmi other/kept:2 nope; $CLI image rm -f kept:1 imported:1 >/dev/null; echo $?
             $CLI save nope; $CLI load -i $HERE/nope.tar; echo junk | $CLI load; $CLI rm makes",
            "made",
        ),
        // volumes and networks
        (
            "$CLI volume create --label a=b -o type=tmpfs -o device=tmpfs named; $CLI volume create -d nope bad
             $CLI volume inspect --format '{{json .Labels}} {{json .Options}}' named
             $CLI volume rm named nope; $CLI volume rm -f nope; $CLI volume create again; $CLI volume remove again
             $CLI network create --label a=b --internal inner >/dev/null
             $CLI network inspect --format '{{.Internal}} {{json .Labels}}' inner
             $CLI network rm inner nope; $CLI network rm -f nope",
            "named\n{\"a\":\"b\"}",
        ),
        // prunes
        (
            "$CLI run --name gone -v /anonymous box true; $CLI network create gonet >/dev/null; $CLI volume create govol
             $CLI container prune -f --filter label=nope; $CLI container prune -f | tail -n +3
             $CLI volume prune -f | tail -n 1; $CLI volume prune -af; $CLI network prune -f
             $CLI image prune -f; $CLI builder prune -f; $CLI builder prune -af --keep-storage 1gb; $CLI system prune -f --volumes
             $CLI system prune -f --volumes --filter until=1h; $CLI image prune -f --filter bogus=1
             $CLI create --name old box >/dev/null; for kind in container network volume image; do echo n | $CLI $kind prune; echo $?; done
             echo y | $CLI container prune | head -n 2",
            "govol",
        ),
    ] {
        let said = same(&daemon, line)?;
        ensure!(said.contains(expected), "{expected:?} is not what {line:?} says:\n{said}");
    }
    Ok(())
}

#[test]
fn images_go_to_a_registry_and_come_back() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let password = daemon.credentials()?;
    let password = password["password"].as_str().context("a password")?;
    let line = format!(
        "echo '{password}' | $CLI login -u admin --password-stdin 127.0.0.1:5000 2>/dev/null | tail -n 1
        for tag in 1 2; do $CLI tag box 127.0.0.1:5000/team/box:$tag; done
        $CLI push -q 127.0.0.1:5000/team/box:1; $CLI push -aq 127.0.0.1:5000/team/box
        $CLI rmi 127.0.0.1:5000/team/box:1 127.0.0.1:5000/team/box:2 >/dev/null
        $CLI pull -q 127.0.0.1:5000/team/box:1; $CLI images --format '{{{{.Tag}}}}' 127.0.0.1:5000/team/box
        $CLI pull -aq 127.0.0.1:5000/team/box; $CLI images --format '{{{{.Tag}}}}' 127.0.0.1:5000/team/box | sort
        $CLI pull -a 127.0.0.1:5000/team/box:1; $CLI pull 127.0.0.1:5000/team/none; $CLI push -q 127.0.0.1:5000/nothing
        $CLI rmi 127.0.0.1:5000/team/box:1 127.0.0.1:5000/team/box:2 >/dev/null
        $CLI pull 127.0.0.1:5000/team/box:1 | tail -n 2; $CLI run --rm --pull always -q 127.0.0.1:5000/team/box:1 echo ran
        $CLI run --rm --pull never 127.0.0.1:5000/team/box:9 true; echo $?
        $CLI logout 127.0.0.1:5000"
    );
    let said = same(&daemon, &line)?;
    ensure!(said.contains("Login Succeeded") && said.contains("\n1\n2\n"), "{said}");
    let line = format!(
        "echo '{password}' | $BULKHEAD login -u admin --password-stdin >/dev/null
        $BULKHEAD search box; $BULKHEAD search --format '{{{{.Name}}}}' 127.0.0.1:5000/team; $BULKHEAD search -f stars=1 box"
    );
    let said = daemon.shell(&line)?.ok()?;
    ensure!(said.matches("127.0.0.1:5000/team/box").count() == 2, "{said}");
    daemon.shell("$BULKHEAD search --filter nope=1 box")?.expect(1, "invalid filter")?;
    Ok(())
}

#[test]
fn what_is_not_done_is_refused_by_name() -> Result<()> {
    let daemon = Daemon::start()?;
    for (line, text) in [
        ("run --gpus all box true", "--gpus is not supported"),
        ("create --annotation a=b box", "--annotation is not supported"),
        ("container update --cpu-rt-period 1 x", "--cpu-rt-period is not supported"),
        ("images --tree", "--tree is not supported"),
        ("--tls ps", "say --tlsverify"),
        ("-H https://h:1 ps", "say --tlsverify"),
        ("-D ps", "-D is not supported"),
        ("swarm init", "`swarm` is not supported"),
        ("context export x", "`context export` is not supported"),
        ("volume update x", "`volume update` is not supported"),
        ("buildx ls", "`buildx` is not supported"),
        ("ps --format raw", "--format raw is not supported"),
        ("container prune </dev/null", "nobody is there to be asked"),
        ("import http://x/y.tar", "not fetched from addresses"),
        ("-H tcp://h:1 -c x ps", "cannot specify both --host and --context"),
    ] {
        let said = daemon.shell(&format!("$BULKHEAD {line}"))?;
        ensure!(said.code != 0 && said.stderr.contains(text), "{line}: {said:?}");
    }
    Ok(())
}

#[test]
fn contexts_are_those_of_docker() -> Result<()> {
    let daemon = Daemon::start()?;
    let line = "set -e; unset BULKHEAD_HOST; HOST=$DOCKER_HOST; unset DOCKER_HOST
        $BULKHEAD context create --description mine --docker host=$HOST mine 2>/dev/null
        $DOCKER --context mine info --format '{{.ServerVersion}}' >/dev/null
        $DOCKER context create --docker host=$HOST theirs >/dev/null 2>&1
        $BULKHEAD -c theirs network ls -q | wc -l
        DOCKER_CONTEXT=mine $BULKHEAD network ls -q | wc -l
        $BULKHEAD context use mine 2>/dev/null; $BULKHEAD context show; $BULKHEAD network ls -q | wc -l
        $BULKHEAD context ls --format '{{.Name}} {{.Current}} {{.Description}}'
        $BULKHEAD context inspect --format '{{.Endpoints.docker.Host}}' mine | grep -c docker.sock
        $BULKHEAD version --format '{{.Client.Context}}'
        $BULKHEAD context rm mine 2>&1 || true
        $BULKHEAD context rm -f mine theirs 2>/dev/null | grep -v default; $BULKHEAD context show";
    let said = daemon.shell(line)?.ok()?;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..5], ["mine", "3", "3", "mine", "mine"], "{said}");
    ensure!(said.contains("\nmine true mine\n") && said.contains("theirs false"), "{said}");
    ensure!(said.contains("context \"mine\" is in use") && said.ends_with("\ndefault"), "{said}");
    for (line, text) in [
        ("context create --docker host=ssh://box x1", "is of the kind \"ssh\""),
        ("context create --docker host=tcp://x:1,ca=/nope x1", "cannot use /nope for TLS"),
        (
            "context create --docker host=tcp://x:1,skip-tls-verify=true x1",
            "trusts whoever answers",
        ),
        ("context create --docker host=unix:///x ../x", "is no name for a context"),
        ("-c nope ps", "context \"nope\" does not exist"),
    ] {
        daemon.shell(&format!("$BULKHEAD {line}"))?.expect(1, text)?;
    }
    Ok(())
}

#[test]
fn an_engine_is_reached_by_tls_with_certificates() -> Result<()> {
    let daemon = Daemon::start()?;
    let line = "set -e; mkdir $HERE/tls $HERE/bare; cd $HERE/tls; trap 'kill $S; wait' EXIT
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=ca -keyout ca.key -out ca.pem 2>/dev/null
        signed() {
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$1 -keyout $2 -out csr 2>/dev/null
            printf \"subjectAltName=IP:127.0.0.1\" >extensions
            openssl x509 -req -in csr -CA ca.pem -CAkey ca.key -days 1 -extfile extensions -out $3 2>/dev/null
        }
        signed server server.key server.pem; signed client key.pem cert.pem; cp ca.pem $HERE/bare
        SOCKET=${DOCKER_HOST#unix://}; unset BULKHEAD_HOST DOCKER_HOST
        socat OPENSSL-LISTEN:7376,bind=127.0.0.1,fork,reuseaddr,cert=server.pem,key=server.key,cafile=ca.pem,verify=1 UNIX-CONNECT:$SOCKET 2>/dev/null & S=$!
        HOST=tcp://127.0.0.1:7376
        until $DOCKER --tlsverify --tlscacert ca.pem --tlscert cert.pem --tlskey key.pem -H $HOST version >/dev/null 2>&1; do :; done
        $BULKHEAD --tlsverify --tlscacert ca.pem --tlscert cert.pem --tlskey key.pem -H $HOST network ls -q | wc -l
        DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=$PWD DOCKER_HOST=$HOST $BULKHEAD network ls -q | wc -l
        $BULKHEAD context create --docker host=$HOST,ca=ca.pem,cert=cert.pem,key=key.pem secure 2>/dev/null
        $BULKHEAD -c secure network ls -q | wc -l; $DOCKER -c secure network ls -q | wc -l; $BULKHEAD context rm secure
        DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=$HERE/bare $BULKHEAD -H $HOST ps 2>/dev/null || echo not without a certificate
        $BULKHEAD --tlsverify --tlscacert server.pem -H $HOST ps 2>/dev/null || echo not by another CA";
    let said = daemon.shell(line)?.ok()?;
    let expected = "3\n3\nsecure\n3\n3\nsecure\nnot without a certificate\nnot by another CA";
    assert_eq!(said, expected);
    Ok(())
}

#[test]
fn stats_go_on_until_their_container_ends() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    daemon.bulkhead(&["run", "-d", "--name", "busy", "box", "sleep", "1000"])?.ok()?;
    let mut command = daemon.inside(&program());
    command.args(["stats", "--format", "{{.Name}} {{.PIDs}}", "busy"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("it was piped")?;
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(output));
    for _ in 0..3 {
        assert_eq!(lines.next().context("a line")??, "busy 1");
    }
    daemon.bulkhead(&["rm", "-f", "busy"])?.ok()?;
    lines.try_for_each(|line| line.map(drop))?;
    ensure!(child.wait()?.success(), "stats failed at the end of what it showed");
    Ok(())
}

#[test]
fn a_shell_completes_words_and_names() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let line = "set -e
        $BULKHEAD create --name winter box >/dev/null; $BULKHEAD create --name summer box >/dev/null
        $BULKHEAD tag box box:other; $BULKHEAD network create frontnet >/dev/null; $BULKHEAD volume create data1 >/dev/null
        $BULKHEAD completion bash >$HERE/bash
        cat >$HERE/try <<'X'
        source $HERE/bash
        asked() { COMP_WORDS=($BULKHEAD \"$@\"); COMP_CWORD=$#; COMPREPLY=(); _bulkhead bulkhead \"${!#}\"; echo \"${COMPREPLY[@]}\"; }
        asked rm w; asked rm ''; asked run --netw; asked run --network fr; asked volume rm ''; asked netw; asked run box : o
        asked container in; asked run --restart un
X
        bash $HERE/try";
    let said = daemon.shell(line)?.ok()?;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "winter", "{said}");
    ensure!(lines[1].contains("winter") && lines[1].contains("summer"), "{said}");
    assert_eq!(
        lines[2..],
        [
            "--network --network-alias",
            "frontnet",
            "data1",
            "network",
            "other",
            "inspect",
            "unless-stopped"
        ],
        "{said}"
    );
    let pages = daemon.directory().join("man");
    daemon.bulkhead(&["man", &pages.to_string_lossy()])?.ok()?;
    let page = std::fs::read_to_string(pages.join("bulkhead-network-create.1"))?;
    ensure!(page.contains("bulkhead\\-network\\-create") && page.contains("subnet"), "{page}");
    for shell in ["zsh", "fish"] {
        let script = daemon.bulkhead(&["completion", shell])?.ok()?;
        ensure!(script.contains("__complete"), "{shell}: {script}");
        // read by the shell itself, where there is one
        let mut check = Command::new(shell);
        check.arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped());
        if let Ok(mut child) = check.spawn() {
            child.stdin.take().context("it was piped")?.write_all(script.as_bytes())?;
            let output = child.wait_with_output()?;
            ensure!(output.status.success(), "{shell}: {output:?}");
        }
    }
    run(Command::new("bash").args(["-n", &daemon.directory().join("bash").to_string_lossy()]))?
        .ok()?;
    Ok(())
}

/// As Docker 28.5 lists them on its overlay2; `/etc/mtab` and what else the engine makes is left out.
#[test]
fn what_a_container_changed_is_what_differs_from_its_image() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    for (line, expected) in [
        ("rm -r /root; mkdir /root; touch /tmp; chown 0 /etc", ""),
        ("chmod 700 /tmp; chmod 600 /etc/group; chmod 644 /etc/group", "C /tmp"),
        (
            "rm -r /etc 2>/dev/null; echo x >/etc/new; echo x >/etc/hosts",
            "A /etc/new\nC /etc\nD /etc/group\nD /etc/passwd",
        ),
        ("mv /root /home; mkdir /root; touch /root/x", "A /home\nA /root/x\nC /root"),
        (
            "rm /bin/sync; ln -s x /bin/sync; rm /bin/arp; mkdir /bin/arp; touch /bin/arp/x; rm /bin/nc",
            "A /bin/arp/x\nC /bin\nC /bin/arp\nC /bin/sync\nD /bin/nc",
        ),
        (
            "mkdir -p /a/b; mkfifo /a/pipe; ln -s gone /a/link; echo x >/etc/passwd; rm -r /tmp",
            "A /a\nA /a/b\nA /a/link\nA /a/pipe\nC /etc\nC /etc/passwd\nD /tmp",
        ),
    ] {
        let line = format!(
            "$CLI run --name changed box sh -c '{line}'; $CLI diff changed | sort; $CLI rm changed >/dev/null"
        );
        assert_eq!(same(&daemon, &line)?.trim_end(), expected, "{line}");
    }
    // What the image has only in a layer below, behind a directory that was made anew.
    let line = "$CLI run --name changed box sh -c 'mkdir -p /srv/old; touch /srv/a /srv/b' && $CLI commit changed two >/dev/null; $CLI rm changed >/dev/null
        $CLI run --name changed two sh -c 'rm -r /srv; mkdir /srv; touch /srv/b'; $CLI diff changed | sort; $CLI rm changed >/dev/null; $CLI rmi two >/dev/null";
    assert_eq!(same(&daemon, line)?, "C /srv\nC /srv/b\nD /srv/a\nD /srv/old\n");
    Ok(())
}

#[test]
fn what_follows_the_image_is_the_programs() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let line = "$CLI run --rm --entrypoint echo box -e --name -v /x; $CLI create --name later --entrypoint sh box -c 'echo started' >/dev/null
        $CLI start -a later; $CLI rm later; $CLI run --rm --entrypoint sh box -c 'exit 4'; echo $?";
    let said = same(&daemon, line)?;
    assert_eq!(said, "--name -v /x\nstarted\nlater\n4\n");
    Ok(())
}

#[test]
fn a_prune_asks_in_dockers_words() -> Result<()> {
    let daemon = Daemon::start()?;
    for line in [
        "echo n | $CLI container prune; echo $?; echo no | $CLI network prune; echo $?",
        "echo n | $CLI system prune; echo $?; echo n | $CLI system prune -a --volumes; echo $?",
        "echo n | $CLI image prune; echo n | $CLI image prune -a; echo n | $CLI volume prune; echo n | $CLI volume prune -a",
        "echo y | $CLI container prune; $CLI volume prune -f --filter bogus=1; echo $?",
    ] {
        let said = same(&daemon, line)?;
        ensure!(said.contains("WARNING! This will remove"), "{said}");
    }
    Ok(())
}

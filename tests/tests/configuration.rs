//! What the engine is told: `daemon.json`, dockerd's flags, `bulkhead.toml`, SIGHUP, and TCP with certificates,
//! by the docker CLI.

use anyhow::{Result, ensure};
use bulkhead_tests::Daemon;
use serde_json::{Value, json};

/// The engine of `up` goes; the ones that follow have its directories, and no containers.
fn without_engine() -> Result<Daemon> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    down(&daemon)?;
    Ok(daemon)
}

fn down(daemon: &Daemon) -> Result<()> {
    daemon.shell("$BULKHEAD down --data $DATA --run $RUN_DIRECTORY")?.ok().map(drop)
}

/// A file for an engine in this test's namespace, with `more` in it.
fn write_file(daemon: &Daemon, more: &Value) -> Result<()> {
    let mut file = json!({
        "data-root": daemon.data(),
        "exec-root": daemon.run_directory(),
        "bridge": "bhtest0",
        "bip": "10.99.0.1/24",
        "cgroup-parent": daemon.cgroup(),
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        file[key] = value.clone();
    }
    let text = serde_json::to_string(&file)?;
    Ok(std::fs::write(daemon.directory().join("daemon.json"), text)?)
}

const ENGINE: &str = "$BULKHEAD engine --detach --config-file $HERE/daemon.json";

#[test]
fn what_daemon_json_says_is_in_effect() -> Result<()> {
    let daemon = without_engine()?;
    write_file(
        &daemon,
        &json!({
            "fixed-cidr": "10.99.0.128/25", "mtu": 1400, "ip": "127.0.0.1", "ipv6": true,
            "fixed-cidr-v6": "fd00:99::/64", "default-gateway": "10.99.0.7",
            "default-address-pools": [{"base": "10.98.64.0/18", "size": 26}],
            "default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1300"}},
            "labels": ["where=here"], "debug": true, "log-driver": "local",
            "log-opts": {"max-size": "1m"}, "default-shm-size": "8m", "init": true,
            "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 100, "Hard": 200}},
            "default-ipc-mode": "shareable", "no-new-privileges": true, "dns": ["10.99.0.53"],
            "dns-search": ["a.example"], "dns-opts": ["ndots:3"], "default-runtime": "runc",
            "host-gateway-ips": ["10.99.0.9", "fd00:99::9"], "seccomp-profile": "unconfined",
            "registry-mirrors": ["http://127.0.0.1:5001"], "insecure-registries": ["r.example:5000"],
            "pidfile": daemon.directory().join("engine.pid"), "live-restore": true,
            "userland-proxy": false, "storage-driver": "overlay2", "icc": true, "selinux-enabled": false,
            "exec-opts": ["native.cgroupdriver=cgroupfs"], "userns-remap": "default",
            "hosts": [format!("unix://{}", daemon.directory().join("more/host.sock").display())],
        }),
    )?;
    let said = daemon
        .shell(&format!("{ENGINE} && cmp $HERE/engine.pid $RUN_DIRECTORY/bulkhead.pid"))?
        .ok()?;
    ensure!(said.lines().count() == 2, "{said}");
    ensure!(said.contains("more/host.sock"), "{said}");
    let line = "export DOCKER_HOST=unix://$HERE/more/host.sock
        $DOCKER info --format '{{.LoggingDriver}} {{.Labels}} {{.Debug}} {{.DefaultRuntime}} {{.LiveRestoreEnabled}} {{.DefaultAddressPools}}'
        $DOCKER info --format '{{index .SecurityOptions 0}} {{.RegistryConfig.Mirrors}}'
        $DOCKER run --rm box sh -c 'tr \"\\0\" \"\\n\" </proc/1/cmdline | head -n 1; ulimit -n; ulimit -Hn
            grep -E \"NoNewPrivs|Seccomp:\" /proc/self/status | tr -s \"\\t\\n\" \"  \"; echo
            df -m /dev/shm | tail -n 1 | tr -s \" \" | cut -d \" \" -f 2
            ip -o -4 address show eth0 | tr -s \" \" | cut -d \" \" -f 4
            ip -o -6 address show eth0 scope global | tr -s \" \" | cut -d \" \" -f 4
            ip route | grep default | cut -d \" \" -f 3; cat /sys/class/net/eth0/mtu
            grep -v \"^#\" /etc/resolv.conf'
        $DOCKER run --rm --add-host up:host-gateway box grep up$ /etc/hosts | tr '\\t' ' '
        $DOCKER run --rm --init=false --ulimit nofile=50:60 --dns 10.0.0.3 --dns-search . --security-opt no-new-privileges=false \
            --security-opt seccomp=builtin box sh -c 'ulimit -Hn; head -c 2 /proc/1/cmdline; echo; grep -E \"NoNewPrivs|Seccomp:\" /proc/self/status | tr -s \"\\t\\n\" \"  \"; echo; grep nameserver /etc/resolv.conf'
        $DOCKER run -d --name web -p 8080:80 box sleep 1000 >/dev/null
        $DOCKER inspect web --format '{{.HostConfig.LogConfig.Type}} {{.HostConfig.LogConfig.Config}} {{.HostConfig.IpcMode}} {{.HostConfig.ShmSize}} {{.HostConfig.Runtime}}'
        $DOCKER port web
        $DOCKER exec web sh -c 'ulimit -n; grep NoNewPrivs /proc/self/status | tr \"\\t\" \" \"'
        $DOCKER run --rm --log-driver json-file box true; echo $?
        $DOCKER network create own >/dev/null
        $DOCKER network inspect own --format '{{(index .IPAM.Config 0).Subnet}} {{index .Options \"com.docker.network.driver.mtu\"}}'";
    let expected = "local [where=here] true runc true [{10.98.64.0/18 26}]\n\
        name=seccomp,profile=unconfined [http://127.0.0.1:5001/]\n";
    let said = daemon.shell(line)?.ok()?;
    ensure!(said.starts_with(expected), "{said}");
    let rest: Vec<&str> = said[expected.len()..].lines().collect();
    println!("{rest:#?}");
    let expected = [
        "100",
        "200",
        "NoNewPrivs: 1 Seccomp: 0 ",
        "8",
        "10.99.0.128/24",
        "fd00:99::2/64",
        "10.99.0.7",
        "1400",
        "nameserver 10.99.0.53",
        "search a.example",
        "options ndots:3",
        "10.99.0.9 up",
        "fd00:99::9 up",
        "60",
        "sh",
        "NoNewPrivs: 0 Seccomp: 2 ",
        "nameserver 10.0.0.3",
        "local map[max-size:1m] shareable 8388608 runc",
        "80/tcp -> 127.0.0.1:8080",
        "100",
        "NoNewPrivs: 1",
        "0",
        "10.98.64.0/26 1300",
    ];
    ensure!(!rest[0].starts_with("sh "), "there is no init: {rest:?}");
    let rest: Vec<&str> = rest[1..].iter().copied().filter(|line| !line.is_empty()).collect();
    assert_eq!(rest, expected);
    down(&daemon)
}

#[test]
fn what_is_wrong_or_said_twice_is_refused_by_name() -> Result<()> {
    let daemon = without_engine()?;
    write_file(&daemon, &json!({}))?;
    let said = daemon.shell("$BULKHEAD engine --config-file $HERE/daemon.json --validate")?;
    said.expect(0, "configuration OK")?;
    for (more, flags, why) in [
        (
            json!({}),
            "--bip 10.0.0.1/24",
            "specified both as a flag and in the configuration file: bip: (from flag: \"10.0.0.1/24\", from file: \"10.99.0.1/24\")",
        ),
        (
            json!({"selinux-enabled": true}),
            "",
            "selinux-enabled is not supported: containers are confined",
        ),
        (
            json!({"log-opts": {"max-size": 5}}),
            "",
            "log-opts.max-size: found integer `5`, expected a string",
        ),
        (json!({"live-restor": true}), "", "live-restor (did you mean live-restore?)"),
        (json!({"hosts": ["tcp://127.0.0.1:2375"]}), "", "say --tlsverify"),
        (json!({"hosts": ["fd://"]}), "", "there are none: have systemd start the engine"),
        (
            json!({}),
            "--authorization-plugin x",
            "--authorization-plugin is not supported: there are no plugins",
        ),
        (json!({}), "--storage-driver zfs", "storage-driver: \"zfs\" is not supported"),
        (json!({}), "--tlsverify --tlscacert /none -H tcp://127.0.0.1:1", "cannot use /none"),
    ] {
        write_file(&daemon, &more)?;
        let said =
            daemon.shell(&format!("$BULKHEAD engine --config-file $HERE/daemon.json {flags}"))?;
        said.expect(1, why)?;
    }
    let said = daemon.shell("$BULKHEAD engine --config-file /none --validate")?;
    said.expect(1, "unable to configure the daemon with file /none: No such file")?;
    std::fs::write(daemon.directory().join("b.toml"), "compartment = 1\n")?;
    let said = daemon.shell("$BULKHEAD up --bulkhead-file $HERE/b.toml --validate")?;
    said.expect(1, "b.toml: there is no key compartment: did you mean compartments?")?;
    Ok(())
}

#[test]
fn bulkhead_toml_says_what_docker_has_no_word_for() -> Result<()> {
    let daemon = without_engine()?;
    write_file(&daemon, &json!({}))?;
    let directory = daemon.directory().display().to_string();
    let file = format!(
        "log-budget = \"1g\"\n[[socket]]\npath = \"{directory}/read.sock\"\nrole = \"read-only\"\n\
         [up]\napi = \"127.0.0.1:7401\"\nconsole = \"127.0.0.1:7481\"\nregistry = \"127.0.0.1:5001\"\n\
         public-ip = \"10.99.0.1\"\n"
    );
    std::fs::write(daemon.directory().join("b.toml"), file)?;
    let line = "$BULKHEAD up --detach --config-file $HERE/daemon.json --bulkhead-file $HERE/b.toml
        DOCKER_HOST=unix://$HERE/read.sock $DOCKER info --format '{{.Driver}}'
        DOCKER_HOST=unix://$HERE/read.sock $DOCKER network create x 2>&1 | grep -c read-only";
    let said = daemon.shell(line)?.ok()?;
    let expected = "Registry    127.0.0.1:5001\nECS API     http://127.0.0.1:7401\n\
        Console     http://127.0.0.1:7481/\noverlay2\n1";
    ensure!(said.ends_with(expected), "{said}");
    daemon.crash()?;
    ensure!(daemon.directory().join("read.sock").exists(), "it is left by kill -9");
    // A dead engine's sockets outside of its directory are known.
    down(&daemon)?;
    ensure!(!daemon.directory().join("read.sock").exists(), "it is removed by down");
    Ok(())
}

#[test]
fn sighup_reads_the_files_again() -> Result<()> {
    let daemon = without_engine()?;
    write_file(&daemon, &json!({"labels": ["a=1"], "max-concurrent-downloads": 2}))?;
    daemon.shell(ENGINE)?.ok()?;
    let hang_up = "kill -HUP $(cat $RUN_DIRECTORY/bulkhead.pid)";
    let until =
        |words: &str| format!("until grep -q '{words}' $RUN_DIRECTORY/bulkhead.log; do :; done");
    write_file(
        &daemon,
        &json!({"labels": ["a=2"], "debug": true, "mtu": 1400, "shutdown-timeout": 5,
            "log-opts": {"max-file": "2"}}),
    )?;
    let line = format!(
        "since=$(date +%s); {hang_up}
        first_line $DOCKER events --since $since --filter type=daemon --format '{{{{.Action}}}} {{{{json .Actor.Attributes}}}}'
        $DOCKER info --format '{{{{.Labels}}}} {{{{.Debug}}}}'
        id=$($DOCKER create box true); $DOCKER inspect $id --format '{{{{.HostConfig.LogConfig.Config}}}}'
        {}",
        until("mtu has changed, which takes effect at the next start")
    );
    let said = daemon.shell(&line)?.ok()?;
    let lines: Vec<&str> = said.lines().collect();
    ensure!(lines[1..] == ["[a=2] true", "map[max-file:2]"], "{said}");
    let attributes: Value = serde_json::from_str(lines[0].strip_prefix("reload ").unwrap_or("{}"))?;
    for (name, value) in [
        ("debug", "true"),
        ("labels", "[\"a=2\"]"),
        ("live-restore", "true"),
        ("max-concurrent-downloads", "3"),
        ("shutdown-timeout", "5"),
    ] {
        ensure!(attributes[name] == value, "{name}: {said}");
    }
    // A broken file changes nothing, and says why.
    std::fs::write(daemon.directory().join("daemon.json"), "{\"labels\": 7}")?;
    let line = format!(
        "{hang_up}; {}; $DOCKER info --format '{{{{.Labels}}}}'",
        until("the configuration stays as it was: .*daemon.json: labels: found integer")
    );
    assert_eq!(daemon.shell(&line)?.ok()?, "[a=2]");
    Ok(())
}

/// A CA with a server's and a client's certificate, one of a CA that nobody knows, and one whose time is over.
const CERTIFICATES: &str = r#"cd $HERE
    key() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "$@" 2>/dev/null; }
    for ca in ca other; do
        key -x509 -days 2 -subj /CN=$ca -keyout $ca-key.pem -out $ca.pem
    done
    sign() { name=$1; ca=$2; extension=$3; shift 3
        key -subj /CN=$name -keyout $name-key.pem -out $name.csr
        echo "$extension" >$name.ext
        openssl x509 -req -in $name.csr -CA $ca.pem -CAkey $ca-key.pem -CAcreateserial -extfile $name.ext \
            -out $name.pem "$@" 2>/dev/null; }
    sign server ca "subjectAltName=IP:127.0.0.1
extendedKeyUsage=serverAuth" -days 2
    sign server2 other "subjectAltName=IP:127.0.0.1
extendedKeyUsage=serverAuth" -days 2
    sign client ca extendedKeyUsage=clientAuth -days 2
    sign stranger other extendedKeyUsage=clientAuth -days 2
    sign expired ca extendedKeyUsage=clientAuth -days 0
"#;

#[test]
fn tcp_lets_in_who_has_a_certificate() -> Result<()> {
    let daemon = without_engine()?;
    daemon.shell(&format!("set -e\n{CERTIFICATES}"))?.ok()?;
    let here = |name: &str| daemon.directory().join(name);
    let tls = |server: &str| {
        json!({"hosts": ["tcp://127.0.0.1:2376"], "tlsverify": true, "tlscacert": here("ca.pem"),
            "tlscert": here(&format!("{server}.pem")), "tlskey": here(&format!("{server}-key.pem"))})
    };
    write_file(&daemon, &tls("server"))?;
    let said =
        daemon.shell(&format!("{ENGINE} --socket tcp://127.0.0.1:2377:role=read-only"))?.ok()?;
    ensure!(said.contains("tcp://127.0.0.1:2376") && said.contains("2377"), "{said}");
    let by = "by() { name=$1; ca=$2; shift 2; unset DOCKER_HOST
        $DOCKER -H tcp://127.0.0.1:${PORT:-2376} --tlsverify --tlscacert $HERE/$ca.pem --tlscert $HERE/$name.pem --tlskey $HERE/$name-key.pem \"$@\" 2>&1; }\n";
    let line = "set -e
        by client ca version --format '{{.Server.Version}}' | grep -c .
        echo in | by client ca run -i --rm box cat
        by client ca run --rm box sh -c 'head -c 3000000 /dev/zero' | wc -c
        by client ca run --rm box sh -c 'exit 3' || echo $?
        PORT=2377 by client ca network create x | grep -o 'which is read-only'";
    assert_eq!(
        daemon.shell(&format!("{by}{line}"))?.ok()?,
        "1\nin\n3000000\n3\nwhich is read-only"
    );
    let fails = |line: &str, words: &str| -> Result<()> {
        let said = daemon.shell(&format!("{by}{line}"))?;
        ensure!(said.code != 0 && said.stdout.contains(words), "{line}: {said:?}");
        Ok(())
    };
    fails("by stranger ca version --format x", "tls: ")?;
    fails("by expired ca version --format x", "expired certificate")?;
    fails("by client other version --format x", "unknown authority")?;
    fails(
        "unset DOCKER_HOST; $DOCKER -H tcp://127.0.0.1:2376 --tlsverify --tlscacert $HERE/ca.pem version --format x 2>&1",
        "",
    )?;
    fails(
        "curl -sS --cacert $HERE/ca.pem https://127.0.0.1:2376/_ping 2>&1",
        "certificate required",
    )?;
    fails("curl -sS http://127.0.0.1:2376/_ping 2>&1", "")?;
    // Another certificate is taken by SIGHUP; one that is broken is not.
    write_file(&daemon, &tls("server2"))?;
    let reread = |times: usize| {
        format!(
            "kill -HUP $(cat $RUN_DIRECTORY/bulkhead.pid)
            until [ $(grep -c 'configuration was read again' $RUN_DIRECTORY/bulkhead.log) = {times} ]; do :; done\n"
        )
    };
    let line = format!("{by}{}by client other version --format '{{{{.Server.Os}}}}'", reread(1));
    assert_eq!(daemon.shell(&line)?.ok()?, "linux");
    write_file(&daemon, &tls("none"))?;
    let line = format!(
        "{by}kill -HUP $(cat $RUN_DIRECTORY/bulkhead.pid)
        until grep -q 'stays as it was: cannot use .*none' $RUN_DIRECTORY/bulkhead.log; do :; done
        by client other version --format '{{{{.Server.Os}}}}'"
    );
    assert_eq!(daemon.shell(&line)?.ok()?, "linux");
    down(&daemon)?;
    // Without TLS only where that is said.
    write_file(&daemon, &json!({"hosts": ["tcp://127.0.0.1:2375"], "tls": false}))?;
    let line = format!(
        "{ENGINE} >/dev/null; DOCKER_HOST=tcp://127.0.0.1:2375 $DOCKER run --rm box echo out
        grep -c 'without --tlsverify every user and program of this machine' $RUN_DIRECTORY/bulkhead.log"
    );
    assert_eq!(daemon.shell(&line)?.ok()?, "out\n1");
    Ok(())
}

//! What a container, its files and other users of the host must not be able to do.

use std::os::unix::fs::PermissionsExt;

use anyhow::Result;
use bulkhead_tests::Daemon;

#[test]
fn files_come_and_go_without_harm() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("bb")?;
    // Other users must not come to what root of a container makes set-user-ID in a volume.
    daemon.docker(&["run", "-d", "--name", "box", "-v", "vol:/v", "bb", "sleep", "1000"])?.ok()?;
    for directory in ["", "volumes", "volumes/vol", "containers"] {
        let mode = std::fs::metadata(daemon.data().join(directory))?.permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{directory}");
    }
    // Into a volume's id-mapped mount, as the container's root.
    let file = daemon.directory().join("file");
    std::fs::write(&file, "text\n")?;
    daemon.docker(&["cp", &file.to_string_lossy(), "box:/v/file"])?.ok()?;
    let seen = daemon.docker(&["exec", "box", "stat", "-c", "%u", "/v/file"])?.ok()?;
    assert_eq!(seen, "0");
    // Deeper than a thread's stack goes; the engine answers afterwards.
    let deep = "i=0; while [ $i -lt 1500 ]; do mkdir d && cd d || break; i=$((i+1)); done";
    daemon.docker(&["exec", "box", "sh", "-c", deep])?.ok()?;
    let line = "docker export box >/dev/null || true";
    daemon.shell(line)?.ok()?;
    daemon.docker(&["rm", "-f", "-v", "box"])?.ok()?;
    Ok(())
}

#[test]
fn settings_of_the_host_are_refused() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("bb")?;
    for (options, why) in [
        (&["--net=host", "--sysctl", "net.ipv4.ip_forward=1"][..], "not allowed in host network"),
        (&["--hostname", "a\n6.6.6.6 evil"], "invalid hostname"),
        (&["--log-opt", "max-file=4000000000"], "max-file cannot be more than 100"),
    ] {
        let said = daemon.docker(&[&["run", "--rm"], options, &["bb", "true"]].concat())?;
        assert!(said.code != 0 && said.stderr.contains(why), "{options:?}: {}", said.stderr);
    }
    Ok(())
}

/// I1, I6 and I7 of the battery: what a container names leads into it, in copies and in the first use of a volume.
#[test]
fn copies_stay_inside_the_container() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("bb")?;
    let line = "set -e; echo secret >$HERE/canary; echo text >$HERE/file
        $DOCKER run -d --name box bb sh -c \"mkdir -p /in && ln -s $HERE /link && ln -s $HERE /volume && exec sleep 1000\"
        until $DOCKER exec box test -L /volume; do :; done
        $DOCKER cp box:/link/canary $HERE/out && echo copied out || echo nothing there
        $DOCKER cp $HERE/file box:/link/new && echo copied in || echo nothing there
        test ! -e $HERE/new; test ! -e $HERE/out
        # what leads up, and hard links to what is outside, as members of an archive
        printf 'x' >$HERE/x; tar -C $HERE -P --transform 's,.*,../../../../../../..'$HERE'/up,' -cf $HERE/up.tar -- x
        $DOCKER cp - box:/in <$HERE/up.tar || true
        test ! -e $HERE/up
        $DOCKER commit box linked >/dev/null
        $DOCKER run --rm -v copied:/volume linked ls -A /volume/ | grep -c canary || true
        test -z \"$(find $DATA/volumes/copied -name canary)\"; grep -c secret $HERE/canary";
    let said = daemon.shell(line)?.ok()?;
    let rows: Vec<&str> = said.lines().skip(1).collect();
    assert_eq!(rows, ["nothing there", "nothing there", "0", "1"], "{said}");
    Ok(())
}

/// J10, N1, N2 and N11: what of the engine's own is reached, by whom.
#[test]
fn containers_do_not_reach_the_engine() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("bb")?;
    let line = "set -e
        stat -c %a $RUN_DIRECTORY/docker.sock
        # every port that the engine's processes listen on, seen from the host and from two networks
        ports=$(ss -Htln | grep -oE '127.0.0.1:[0-9]+' | cut -d: -f2 | sort -u | tr '\\n' ' ')
        ss -Htln | grep -vE '127.0.0.1|\\[::1\\]' | wc -l
        test -n \"$ports\"
        # a control: what does listen on the host's address is reached
        busybox httpd -f -p 10.98.0.2:7999 -h $HERE & server=$!
        until nc -z 10.98.0.2 7999 2>/dev/null || curl -s -o /dev/null http://10.98.0.2:7999/; do :; done
        ports=\"$ports 7999\"
        $DOCKER network create web >/dev/null
        for network in bridge web; do
            gateway=$($DOCKER network inspect --format '{{(index .IPAM.Config 0).Gateway}}' $network)
            $DOCKER run --rm --network $network bb sh -c \"for address in $gateway 10.98.0.2 127.0.0.1; do \
                for port in $ports; do nc -w 2 \\$address \\$port </dev/null && echo reached \\$port; done; done; true\"
        done
        kill $server
        for path in /v1.44/../containers/json //containers/json /containers/..%2fjson /containers/a%00b/json; do
            curl -s -o /dev/null -w '%{http_code} ' --path-as-is --unix-socket $RUN_DIRECTORY/docker.sock http://d$path
        done";
    let said = daemon.shell(line)?.ok()?;
    let rows: Vec<&str> = said.lines().map(str::trim).collect();
    assert_eq!(rows[..4], ["660", "0", "reached 7999", "reached 7999"], "{said}");
    let codes: Vec<&str> = rows[4..].iter().flat_map(|row| row.split(' ')).collect();
    assert!(codes.len() == 4 && codes.iter().all(|code| ["400", "404"].contains(code)), "{said}");
    Ok(())
}

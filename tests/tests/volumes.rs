//! Volumes with options, by the real docker CLI: what they lead to, and their way in and out.

use anyhow::Result;
use bulkhead_tests::Daemon;

fn daemon() -> Result<Daemon> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    Ok(daemon)
}

#[test]
fn a_volume_is_what_its_options_say() -> Result<()> {
    let daemon = daemon()?;
    let line = "set -e
        mkdir $HERE/d && echo host >$HERE/d/f
        $DOCKER volume create -o type=none -o o=bind -o device=$HERE/d bound
        $DOCKER volume create -o type=none -o o=bind,ro,noexec -o device=$HERE/d closed
        $DOCKER volume create --label a=b -o type=tmpfs -o device=tmpfs \
            -o o=size=1m,uid=33,mode=750,noexec fast
        $DOCKER run --rm -v bound:/v box sh -c 'cat /v/f; echo inside >/v/g'
        cat $HERE/d/g
        $DOCKER run --rm -v closed:/v box sh -c 'touch /v/x 2>&1; grep \" /v \" /proc/mounts' \
            | grep -o -e Read-only -e 'ro,.*noexec' | tr '\\n' ' '
        $DOCKER run --rm -v fast:/v box sh -c \
            'stat -c %u:%a /v; df -k /v | tail -n1; grep \" /v \" /proc/mounts' \
            | grep -o -e '^33:750' -e '^tmpfs *1024 ' -e noexec | sed 's/tmpfs *//' | tr '\\n' ' '
        $DOCKER volume inspect -f '{{.Labels.a}} {{.Options.o}}' fast";
    let said = daemon.shell(line)?.ok()?;
    let rows: Vec<&str> = said.lines().map(str::trim).collect();
    assert_eq!(
        rows,
        [
            "bound",
            "closed",
            "fast",
            "host",
            "inside",
            "Read-only ro,nodev,noexec 33:750 1024  noexec b size=1m,uid=33,mode=750,noexec",
        ]
    );
    Ok(())
}

/// A volume can be made before its server is there; a container that wants it is told what is missing.
#[test]
fn what_cannot_be_mounted_says_why() -> Result<()> {
    let daemon = daemon()?;
    for (options, why) in [
        ("-o type=none -o o=bind -o device=/nowhere", "/nowhere: No such file"),
        ("-o type=nfs -o o=addr=no-such-host.invalid -o device=:/x", "no-such-host.invalid"),
        ("-o type=cifs -o o=username=u,password=hush -o device=//127.0.0.1/s", "cifs"),
        ("-o type=ext4 -o device=/dev/null", "mount ext4 /dev/null"),
    ] {
        let line =
            format!("$DOCKER volume create {options} vv && $DOCKER run --rm -v vv:/v box true");
        let said = daemon.shell(&line)?.expect(125, "failed to mount local volume vv")?;
        assert!(said.stderr.contains(why), "{said:?}");
        assert!(!said.stderr.contains("hush"), "{said:?}");
        daemon.docker(&["volume", "rm", "vv"])?.ok()?;
    }
    for (options, why) in [
        ("-o o=size=1g", "project quotas"),
        ("-o size=1g", "project quotas"),
        ("-o type=zfs -o device=tank", "type=zfs"),
        ("-o bogus=1", "invalid option: \"bogus\""),
        ("-d rexray", "plugin \"rexray\" not found"),
    ] {
        daemon.shell(&format!("$DOCKER volume create {options} vv"))?.expect(1, why)?;
    }
    Ok(())
}

#[test]
fn a_volume_is_exported_and_imported_with_its_owners() -> Result<()> {
    let daemon = daemon()?;
    let line = "set -e
        api() { curl -sS -f --unix-socket ${DOCKER_HOST#unix://} \"$@\"; }
        $DOCKER run --rm -v one:/v box sh -c \
            'mkdir /v/d && echo data >/v/d/f && chown 33:44 /v/d/f && chmod 640 /v/d/f && ln -s d/f /v/l'
        api -o $HERE/one.tar http://d/bulkhead/volumes/one/export
        tar tvf $HERE/one.tar --numeric-owner | awk '{print $1, $2, $6}' | sort
        $DOCKER volume create two
        gzip $HERE/one.tar
        api -T $HERE/one.tar.gz http://d/bulkhead/volumes/two/import
        $DOCKER run --rm -v two:/v box sh -c 'cat /v/l; stat -c %u:%g:%a /v/d/f'
        ! api http://d/bulkhead/volumes/three/export 2>/dev/null
        echo \"$(curl -s --unix-socket ${DOCKER_HOST#unix://} http://d/bulkhead/volumes/three/export)\"
        head -c 100 $HERE/one.tar.gz >$HERE/cut
        curl -s -o /dev/null -w '%{http_code}\\n' --unix-socket ${DOCKER_HOST#unix://} -T $HERE/cut \
            http://d/bulkhead/volumes/two/import";
    let said = daemon.shell(line)?.ok()?;
    let rows: Vec<&str> = said.lines().map(str::trim).collect();
    let (last, rows) = rows.split_last().expect("rows");
    assert!(last.starts_with(['4', '5']), "half an archive is none: {said}");
    assert_eq!(
        rows,
        [
            "-rw-r----- 33/44 d/f",
            "drwxr-xr-x 0/0 d/",
            "lrwxrwxrwx 0/0 l",
            "two",
            "data",
            "33:44:640",
            r#"{"message":"get three: no such volume"}"#,
        ]
    );
    Ok(())
}

/// Before API 1.42 the same request meant all volumes.
#[test]
fn prune_takes_what_the_version_and_filters_say() -> Result<()> {
    let daemon = daemon()?;
    let line = "set -e
        for name in one two kept; do $DOCKER volume create --label own=$name $name >/dev/null; done
        $DOCKER run -d --name cc -v kept:/v -v /anonymous box sleep 1000 >/dev/null
        $DOCKER rm -f cc >/dev/null; $DOCKER create --name cc -v kept:/v box >/dev/null
        $DOCKER volume prune -f | grep -c '^[0-9a-f]\\{64\\}$'
        $DOCKER volume prune -f --filter label!=own=two -a | grep -v Total
        $DOCKER volume ls -q
        curl -sS --unix-socket ${DOCKER_HOST#unix://} -X POST http://d/v1.41/volumes/prune; echo
        $DOCKER volume ls -q";
    let said = daemon.shell(line)?.ok()?;
    let rows: Vec<&str> = said.lines().map(str::trim).filter(|row| !row.is_empty()).collect();
    assert_eq!(
        rows,
        [
            "1",
            "Deleted Volumes:",
            "one",
            "kept",
            "two",
            r#"{"VolumesDeleted":["two"],"SpaceReclaimed":0}"#,
            "kept",
        ]
    );
    Ok(())
}

#[test]
fn a_volume_is_exported_and_imported_by_commands() -> Result<()> {
    let daemon = daemon()?;
    let line = "set -e; $BULKHEAD volume create one; $BULKHEAD volume create two; $BULKHEAD volume create three >/dev/null
        $DOCKER run --rm -v one:/v box sh -c 'mkdir /v/sub; echo text >/v/sub/file; ln /v/sub/file /v/hard; ln -s sub/file /v/link; chown web /v/hard; chmod 4711 /v/hard'
        $BULKHEAD volume export one | $BULKHEAD volume import two -
        SAID=$($BULKHEAD volume export -o $HERE/one.tar --format '{{.Name}} {{.Size}}' one); [ \"$SAID\" = \"one $(stat -c %s $HERE/one.tar)\" ] && echo told
        gzip $HERE/one.tar; $BULKHEAD volume import --format json three $HERE/one.tar.gz | grep -o '\"Name\":\"three\"'
        for volume in two three; do $DOCKER run --rm -v $volume:/v box sh -c 'cd /v; stat -c \"%n %h %a %U %s\" hard; cat link; ls -A'; done";
    let files = "hard 2 4711 web 5\ntext\nhard\nlink\nsub\n";
    let expected = format!("one\ntwo\ntwo\ntold\n\"Name\":\"three\"\n{files}{files}");
    assert_eq!(daemon.shell(line)?.ok()? + "\n", expected);
    for (line, text) in [
        ("volume export none", "none"),
        ("volume import none $HERE/one.tar.gz", "none"),
        ("volume import one $HERE/nothing", "cannot read"),
        ("volume import one $HERE", "it is a directory"),
        ("volume export -o $HERE one", "it names a directory"),
        ("volume import --format '{{.Nope}}' one $HERE/one.tar.gz", "Nope"),
    ] {
        daemon.shell(&format!("$BULKHEAD {line}"))?.expect(1, text)?;
    }
    daemon.shell("echo junk | $BULKHEAD volume import one -")?.expect(1, "damaged")?;
    Ok(())
}

//! What is copied, imported, exported, loaded and sent to a build, by the real docker CLI.

use std::path::Path;

use anyhow::{Result, ensure};
use bulkhead_tests::{Daemon, directory};
use rustix::fs::XattrFlags;

/// `cap_net_raw+ep`, as any namespace's root has it (capabilities(7)).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn capability(path: &Path) -> Result<Vec<u8>> {
    let mut value = vec![0; 64];
    let length = rustix::fs::getxattr(path, "security.capability", &mut value[..])?;
    value.truncate(length);
    Ok(value)
}

#[test]
fn what_is_read_only_is_not_copied_to() -> Result<()> {
    let (daemon, files) = (Daemon::start()?, directory("archives")?);
    daemon.busybox("box")?;
    let at = files.path().display();
    let line = format!(
        "set -e; cd {at}; mkdir host host2; echo text >f; head -c 50000000 /dev/zero >big
        $DOCKER run -d --name cc -v vol:/ro:ro -v {at}/host:/b:ro box sleep 1000 >/dev/null
        $DOCKER exec cc ln -s /ro /link
        $DOCKER run -d --name c1 --read-only -v wol:/rw -v {at}/host2:/h box sleep 1000 >/dev/null
        $DOCKER create --name c2 --read-only -v wol:/rw -v vol:/ro:ro box true >/dev/null"
    );
    daemon.shell(&line)?.ok()?;
    for (target, sentence) in [
        ("cc:/ro/x", "mounted volume is marked read-only"),
        ("cc:/ro/", "mounted volume is marked read-only"),
        ("cc:/link/", "mounted volume is marked read-only"),
        ("cc:/b/x", "mounted volume is marked read-only"),
        ("c1:/tmp/x", "container rootfs is marked read-only"),
        ("c2:/tmp/x", "container rootfs is marked read-only"),
        ("c2:/ro/x", "mounted volume is marked read-only"),
    ] {
        for file in ["f", "big"] {
            let said = daemon.shell(&format!("cd {at}; $DOCKER cp {file} {target}"))?;
            said.expect(1, sentence)?;
        }
    }
    let line = format!(
        "set -e; cd {at}
        $DOCKER cp f c1:/rw/x; $DOCKER cp f c1:/h/x; $DOCKER cp f c2:/rw/y
        $DOCKER exec c1 cat /rw/x /rw/y /h/x; ls host; stat -c %u host2/x"
    );
    assert_eq!(daemon.shell(&line)?.ok()?, "text\ntext\ntext\n0");
    Ok(())
}

#[test]
fn the_contents_of_a_directory_are_copied_and_volumes_are_seen() -> Result<()> {
    let (daemon, files) = (Daemon::start()?, directory("archives")?);
    daemon.busybox("box")?;
    let at = files.path().display();
    let line = format!(
        "set -e; cd {at}; mkdir there; echo one >f
        $DOCKER run -d --name cee box sleep 1000 >/dev/null
        $DOCKER exec cee sh -c 'mkdir /d /d/sub; echo 1 >/d/a; ln /d/a /d/twin; echo 2 >/d/sub/b'
        $DOCKER cp cee:/d/. there; $DOCKER cp cee:/d/. new; $DOCKER cp cee:/d whole
        find there new whole -type f | sort | tr '\\n' ' '; echo
        stat -c %h new/a
        $DOCKER cp there/. cee:/d/sub; $DOCKER exec cee cat /d/sub/a /d/sub/sub/b
        printf 'FROM box\\nRUN mkdir /data && echo image >/data/f\\nVOLUME /data\\n' >Dockerfile
        DOCKER_BUILDKIT=0 $DOCKER build -q -t img . >/dev/null
        $DOCKER create --name store img true >/dev/null
        $DOCKER cp f store:/data/g
        $DOCKER cp store:/data/f - | tar xO
        $DOCKER cp store:/data all; cat all/f all/g
        $DOCKER cp store:/ root; cat root/data/g
        $DOCKER start -a store; $DOCKER cp store:/data/g - | tar xO
        $DOCKER export cee | tar t | grep -c '^proc/.' || true
        $DOCKER export store | tar t | grep '^data'"
    );
    let want = "new/a new/sub/b new/twin there/a there/sub/b there/twin whole/a whole/sub/b whole/twin\n\
                2\n1\n2\nimage\nimage\none\none\none\n0\ndata/";
    let said = daemon.shell(&line)?.ok()?;
    let rows: Vec<&str> = said.lines().map(str::trim).collect();
    assert_eq!(rows.join("\n"), want);
    Ok(())
}

#[test]
fn file_capabilities_are_kept() -> Result<()> {
    let (daemon, files) = (Daemon::start()?, directory("archives")?);
    daemon.busybox("box")?;
    let at = files.path();
    std::fs::create_dir(at.join("context"))?;
    for name in ["plain", "context/copied", "context/packed"] {
        std::fs::write(at.join(name), "text")?;
        rustix::fs::setxattr(
            at.join(name),
            "security.capability",
            &CAPABILITY,
            XattrFlags::empty(),
        )?;
    }
    let line = format!(
        "set -e; cd {}
        (cd context; tar --xattrs --xattrs-include='*' -cf add.tar packed; rm packed)
        printf 'FROM box\\nADD add.tar /n/\\nCOPY copied /n/\\n' >context/Dockerfile
        DOCKER_BUILDKIT=0 $DOCKER build -q -t img context >/dev/null
        $DOCKER run -d --name cee -v vol:/v img sleep 1000 >/dev/null
        $DOCKER create --name stopped -v wol:/v img true >/dev/null
        for c in cee stopped; do $DOCKER cp plain $c:/n/in; $DOCKER cp plain $c:/v/in; done
        $DOCKER cp cee:/n out; $DOCKER cp cee:/v out/v; $DOCKER cp stopped:/n stopped
        mkdir exported imported
        $DOCKER export cee | tar --xattrs --xattrs-include='*' -xC exported n
        $DOCKER export cee | $DOCKER import - again >/dev/null
        $DOCKER create --name third again true >/dev/null
        $DOCKER cp third:/n imported",
        at.display()
    );
    daemon.shell(&line)?.ok()?;
    for name in [
        "out/packed",
        "out/copied",
        "out/in",
        "out/v/in",
        "stopped/packed",
        "stopped/in",
        "exported/n/packed",
        "exported/n/in",
        "imported/n/copied",
        "imported/n/in",
    ] {
        let found = capability(&at.join(name));
        ensure!(found.as_deref().ok() == Some(&CAPABILITY), "{name}: {found:?}");
    }
    Ok(())
}

#[test]
fn an_error_that_is_known_before_the_body_was_read_is_told() -> Result<()> {
    let (daemon, files) = (Daemon::start()?, directory("archives")?);
    daemon.busybox("box")?;
    let at = files.path().display();
    // an environment of some 5 MB, which becomes JSON of as much
    let line = format!(
        "set -e; cd {at}; head -c 200000000 /dev/zero >zeros; head -c 200000000 /dev/urandom >junk
        yes 0123456789012345678901234567890123456789 | head -n 120000 | \
            sed = | sed 'N;s/\\n/=/;s/^/N/' >environment
        $DOCKER run -d --name cee -v {at}/small:/small box sleep 1000 >/dev/null"
    );
    let small = Small::mount(&files.path().join("small"))?;
    daemon.shell(&line)?.ok()?;
    let mut wrong = Vec::new();
    for _ in 0..3 {
        for (command, sentence) in [
            ("$DOCKER import -c 'RUN x' - a:b <zeros", "RUN is not a valid change command"),
            ("$DOCKER load <junk", "not a tar archive"),
            ("$DOCKER import - a:b <junk", "does not begin as a tar archive"),
            (
                "$DOCKER cp zeros cee:/small/",
                "zeros in the archive cannot be unpacked: No space left",
            ),
            ("$DOCKER cp zeros cee:/nosuch/x", "Could not find the file /nosuch"),
            ("$DOCKER create --env-file environment box true", "larger than 4 MiB"),
        ] {
            let said = daemon.shell(&format!("cd {at}; {command}"))?;
            if let Err(error) = said.expect(1, sentence) {
                wrong.push(format!("{command}: {error}"));
            }
        }
    }
    daemon.shell("$DOCKER rm -f cee")?.ok()?;
    drop(small);
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn every_compression_and_the_classic_clients_tar_are_taken() -> Result<()> {
    let (daemon, files) = (Daemon::start()?, directory("archives")?);
    daemon.busybox("box")?;
    let at = files.path().display();
    let line = format!(
        "set -e; cd {at}; export DOCKER_BUILDKIT=0; mkdir context; echo text >context/file
        printf 'FROM box\\nCOPY file /\\nADD add /added/\\nRUN cat /file /added/file\\n' >Dockerfile
        tar -C context -cf plain.tar file; $DOCKER save box >saved
        for tool in cat gzip bzip2 xz zstd; do
            $tool <plain.tar >context/add
            $tool <plain.tar | $DOCKER import - from-$tool >/dev/null
            $tool <saved | $DOCKER load | grep -c 'Loaded image: box'
            cp Dockerfile context/; tar -C context -c . | $tool | $DOCKER build -q -t by-$tool - >/dev/null
            rm context/Dockerfile
            $DOCKER run --rm by-$tool cat /added/file
        done
        $DOCKER build -q -f - context <Dockerfile >/dev/null && echo piped
        $DOCKER build -q -f Dockerfile context >/dev/null && echo outside"
    );
    let said = daemon.shell(&line)?.ok()?;
    let want = ["1", "text"].repeat(5).into_iter().chain(["piped", "outside"]);
    assert_eq!(said.lines().collect::<Vec<_>>(), want.collect::<Vec<_>>());
    Ok(())
}

#[test]
fn others_than_root_can_enter_whatever_mode_the_archives_root_has() -> Result<()> {
    let (daemon, files) = (Daemon::start()?, directory("archives")?);
    daemon.busybox("box")?;
    let line = format!(
        "set -e; cd {}; mkdir root; chmod 700 root
        $DOCKER create --name cee box true >/dev/null; $DOCKER export cee | tar -xC root
        tar -C root -c . | $DOCKER import -c 'ENV PATH=/bin' - closed >/dev/null
        $DOCKER run --rm -u 1000:1000 closed stat -c %a /",
        files.path().display()
    );
    assert_eq!(daemon.shell(&line)?.ok()?, "755");
    Ok(())
}

/// A file system of 1 MiB.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(path: &Path) -> Result<Self> {
        std::fs::create_dir(path)?;
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("small", path, "tmpfs", flags, c"size=1m")?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let gone = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
        gone.expect("it was mounted by this test");
    }
}

#[test]
fn a_full_disk_leaves_no_part_of_a_copied_file() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let line = "head -c 3000000 /dev/urandom >$HERE/big; echo new >$HERE/small
        for CLI in $DOCKER $BULKHEAD; do
            $CLI run -d --name full --tmpfs /t:size=1m box sleep 1000 >/dev/null; $CLI exec full sh -c 'echo old >/t/big; echo old >/t/small'
            for name in big new; do $CLI cp $HERE/big full:/t/$name 2>&1 | grep -c 'No space left on device'; done
            $CLI cp $HERE/small full:/t/; $CLI exec full sh -c 'ls -A /t; cat /t/big /t/small'; $CLI rm -f full
        done";
    let expected = "1\n1\nbig\nsmall\nold\nnew\nfull";
    assert_eq!(daemon.shell(line)?.ok()?, format!("{expected}\n{expected}"));
    Ok(())
}

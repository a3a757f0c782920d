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

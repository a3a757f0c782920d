//! A container's files, made from this machine's static busybox.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::run;

/// The commands that tests need; all of busybox's would be 400 links for each bundle.
const APPLETS: &[&str] = &[
    "sh", "cat", "ls", "id", "echo", "true", "false", "sleep", "mkdir", "rm", "cp", "mv", "ln",
    "touch", "kill", "mount", "umount", "chmod", "chown", "stat", "head", "ps", "grep", "readlink",
    "test", "hostname", "dd", "yes", "mkfifo", "printf", "pwd", "env",
];

/// Where Debian's busybox-static puts it.
pub fn busybox() -> Result<PathBuf> {
    let places = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    let found = places.into_iter().find(|path| path.exists());
    found.context("busybox is not installed (Debian: busybox-static)")
}

/// Copies a program that is executed afterwards.
///
/// Not in this process: what other threads start there holds the new file open for a moment, for
/// writing, and until then nobody can execute it (execve(2), ETXTBSY).
pub fn copy_program(from: &Path, to: &Path) -> Result<()> {
    let copied = run(Command::new("cp").arg("--").args([from, to]))?;
    copied.ok().map(drop).with_context(|| format!("copy {}", from.display()))
}

/// Makes a small root with busybox in a directory that is there or will be.
pub fn make(root: &Path) -> Result<()> {
    for name in ["bin", "etc", "tmp", "proc", "sys", "dev", "root", "mnt"] {
        std::fs::create_dir_all(root.join(name))?;
    }
    std::fs::set_permissions(root.join("tmp"), std::fs::Permissions::from_mode(0o1777))?;
    copy_program(&busybox()?, &root.join("bin/busybox"))?;
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/:/bin/sh\n";
    std::fs::write(root.join("etc/passwd"), passwd)?;
    std::fs::write(root.join("etc/group"), "root:x:0:\nweb:x:33:\nextra:x:44:root\n")?;
    Ok(())
}

/// Adds the probe, in three ways: plain, set-user-ID, and marked as being inside of a container.
pub fn add_probe(root: &Path, probe: &Path) -> Result<()> {
    for (name, mode) in [("probe", 0o755), ("suid-probe", 0o4755)] {
        copy_program(probe, &root.join(name))?;
        std::fs::set_permissions(root.join(name), std::fs::Permissions::from_mode(mode))?;
    }
    std::fs::write(root.join(".probe-root"), "")?;
    Ok(())
}

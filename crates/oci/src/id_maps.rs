//! Id mappings: of a container's user namespace, and of mounts.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;

use bulkhead_sys::process::{CLONE_NEWUSER, clone3, close_all_but};
use bulkhead_types::oci::IdMapping;
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use crate::error::{Error, Result};

/// Writes the mappings of the user namespace that `pid`, a child, has just made.
///
/// Who may not map by itself asks newuidmap(1) and newgidmap(1), which look into `/etc/subuid` and
/// `/etc/subgid`.
pub fn write(pid: u32, uids: &[IdMapping], gids: &[IdMapping]) -> Result<()> {
    let privileged = rustix::process::geteuid().is_root();
    if !privileged && is_own(gids, rustix::process::getegid().as_raw()) {
        // Without it the kernel lets nobody map a group without privileges (user_namespaces(7)).
        let file = format!("/proc/{pid}/setgroups");
        std::fs::write(&file, "deny").map_err(Error::system(format!("write {file}")))?;
    }
    for (file, helper, maps) in [("uid_map", "newuidmap", uids), ("gid_map", "newgidmap", gids)] {
        let path = format!("/proc/{pid}/{file}");
        let written = File::options().write(true).open(&path).and_then(|mut file| {
            // one write is all that the kernel takes
            file.write_all(lines(maps).as_bytes())
        });
        match written {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::PermissionDenied && !privileged => {
                ask(helper, pid, maps)?;
            }
            Err(error) => {
                let what = format!("write the id mappings {:?} to {path}", lines(maps).trim_end());
                return Err(Error::system(what)(error));
            }
        }
    }
    Ok(())
}

fn ask(helper: &str, pid: u32, maps: &[IdMapping]) -> Result<()> {
    let mut command = Command::new(helper);
    command.arg(pid.to_string());
    for map in maps {
        command.args([map.container_id, map.host_id, map.size].map(|number| number.to_string()));
    }
    let output = command
        .output()
        .map_err(Error::system(format!("run {helper} (it is in the package uidmap)")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::Refused(format!("{helper}: {}", said.trim_end())))
}

/// Whether only the caller's own id is mapped.
fn is_own(maps: &[IdMapping], own: u32) -> bool {
    matches!(maps, [map] if map.size == 1 && map.host_id == own)
}

fn lines(maps: &[IdMapping]) -> String {
    let line = |map: &IdMapping| format!("{} {} {}\n", map.container_id, map.host_id, map.size);
    maps.iter().map(line).collect()
}

/// Makes a user namespace with these mappings, for an id-mapped mount (mount_setattr(2)).
pub fn namespace(uids: &[IdMapping], gids: &[IdMapping]) -> Result<OwnedFd> {
    let failed = || Error::system("make a user namespace for an id-mapped mount");
    let (wait, hold) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(failed())?;
    let child = clone3(CLONE_NEWUSER, None, || {
        // held open by the parent alone, until it has what it wants or is gone
        let _ = close_all_but(&[wait.as_raw_fd() as u32]);
        let _ = rustix::io::read(&wait, &mut [0]);
        0
    })
    .map_err(failed())?;
    drop(wait);
    let namespace = write(child.pid, uids, gids).and_then(|()| {
        let file = File::open(format!("/proc/{}/ns/user", child.pid)).map(OwnedFd::from);
        file.map_err(Error::system("open the user namespace for an id-mapped mount"))
    });
    drop(hold);
    let _ = pidfd_send_signal(&child.pidfd, Signal::KILL);
    loop {
        match waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            _ => return namespace,
        }
    }
}

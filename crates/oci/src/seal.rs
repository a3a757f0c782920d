//! The runtime's program as it is seen from a container.
//!
//! Until its exec a container's process runs this program, and `/proc/PID/exe` leads to its file. A
//! container whose program is `#!/proc/self/exe` runs it once more, as itself, and could later
//! write to that file as the host's root (CVE-2019-5736). So the program runs from a mount that is
//! read-only and in no mount namespace: a clone of its own file's mount, from which it executes
//! itself once more.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use bulkhead_sys::mount::{Attributes, Depth, set_attributes};
use bulkhead_sys::process::{Arguments, execve_at};
use bulkhead_types::oci::Config;
use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::error::{Error, Result};

/// Goes on in a program that no container can write to; returns when this one is such.
///
/// `config` tells who the container's processes are on the host, if they have ids of their own:
/// where none of those may write to the file there is nothing to do.
pub fn protect(config: &Config) -> Result<()> {
    if bulkhead_sys::weak::without("seal") {
        return Ok(());
    }
    let failed = || Error::system("protect the runtime's own program from containers");
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let program = rustix::fs::open(c"/proc/self/exe", flags, Mode::empty()).map_err(failed())?;
    let mount = rustix::fs::fstatvfs(&program).map_err(failed())?;
    if mount.f_flag.contains(StatVfsMountFlags::RDONLY) || is_out_of_reach(&program, config) {
        return Ok(());
    }
    let sealed = match read_only_clone(&program) {
        Ok(clone) => clone,
        // a user without privileges cannot mount; who they are can write what is their own anyway
        Err(Errno::PERM) => return Ok(()),
        Err(errno) => return Err(failed()(errno)),
    };
    let words = |words: &mut dyn Iterator<Item = OsString>| {
        let strings = words.map(|word| CString::new(word.as_bytes()).unwrap_or_default());
        Arguments::new(strings.collect())
    };
    let arguments = words(&mut std::env::args_os());
    let environment = words(&mut std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    }));
    Err(failed()(execve_at(sealed.as_fd(), &arguments, &environment)))
}

fn read_only_clone(program: &OwnedFd) -> std::result::Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let clone = open_tree(program, c"", flags)?;
    set_attributes(clone.as_fd(), Depth::One, Attributes::RDONLY)?;
    Ok(clone)
}

/// Whether the container's ids are its own and the file's owner is not among them.
fn is_out_of_reach(program: &OwnedFd, config: &Config) -> bool {
    let Some(linux) = &config.linux else { return false };
    let has_users = linux.namespaces.iter().any(|namespace| {
        namespace.kind == bulkhead_types::oci::NamespaceKind::User && namespace.path.is_empty()
    });
    let Ok(stat) = rustix::fs::fstat(program) else { return false };
    let maps = |list: &[bulkhead_types::oci::IdMapping], id: u32| {
        list.iter().any(|map| id.checked_sub(map.host_id).is_some_and(|at| at < map.size))
    };
    let others_write = stat.st_mode & 0o002 != 0;
    has_users
        && !others_write
        && !maps(&linux.uid_mappings, stat.st_uid)
        && !maps(&linux.gid_mappings, stat.st_gid)
}

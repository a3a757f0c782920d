use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use bulkhead_sys::{path, process, weak};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet as Kernel, CapabilitySets as KernelSets};

use super::{Walk, to_errno};
use crate::capabilities::CapabilitySets;
use crate::plan::Program;
use crate::{Capabilities, User, user};

impl Walk<'_> {
    /// Resolves the user with the container's own files, and gives it the standard streams.
    pub(super) fn look_up(&mut self, wanted: &User, program: &mut Program) -> Result<(), Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(c"/", flags, Mode::empty())?;
        let passwd = text(root.as_fd(), "/etc/passwd")?;
        let group = text(root.as_fd(), "/etc/group")?;
        let found = user::resolve(&wanted.name, &wanted.additional_groups, &passwd, &group);
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                self.detail = error.to_string();
                return Err(Errno::INVAL);
            }
        };
        if program.wants_home {
            let home = CString::new(format!("HOME={}", found.home));
            program.environment.push(home.map_err(|_| Errno::INVAL)?);
        }
        for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
            give(stream, found.uid, found.gid)?;
        }
        self.user = Some(found);
        Ok(())
    }

    /// Takes ids as they are; only `HOME` is looked up, where the environment has none.
    pub(super) fn use_ids(
        &mut self,
        uid: u32,
        gid: u32,
        additional_gids: &[u32],
        program: &mut Program,
    ) -> Result<(), Errno> {
        let mut home = String::new();
        if program.wants_home {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::open(c"/", flags, Mode::empty())?;
            let passwd = text(root.as_fd(), "/etc/passwd")?;
            home = user::home(uid, &passwd);
            let variable = CString::new(format!("HOME={home}"));
            program.environment.push(variable.map_err(|_| Errno::INVAL)?);
        }
        for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
            give(stream, uid, gid)?;
        }
        let additional_gids = additional_gids.to_vec();
        self.user = Some(user::ResolvedUser { uid, gid, additional_gids, home });
        Ok(())
    }

    /// No link of `/proc` is followed: one into a leaked descriptor of the host was CVE-2024-21626.
    pub(super) fn change_directory(&mut self, to: &Path) -> Result<(), Errno> {
        if weak::without("descriptors") {
            return rustix::process::chdir(to);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(c"/", flags, Mode::empty())?;
        let directory = to_errno(path::open(root.as_fd(), to, flags, Mode::empty()))?;
        rustix::process::fchdir(directory)
    }
}

/// Drops what is not in `set` from the bounding set, for good.
pub(super) fn bound(set: Capabilities) -> Result<(), Errno> {
    for bit in 0..64 {
        if set.0 & (1 << bit) == 0 {
            match process::drop_from_bounding_set(bit) {
                Err(Errno::INVAL) => break, // beyond the kernel's last capability
                other => other?,
            }
        }
    }
    Ok(())
}

/// Keeps of the sets what this process has: what the kernel or the host does not grant is no error.
pub(super) fn set_capabilities(sets: CapabilitySets) -> Result<(), Errno> {
    let now = rustix::thread::capabilities(None)?;
    let bits = |set: Capabilities| now.permitted & Kernel::from_bits_retain(set.0);
    let (effective, permitted) = (bits(sets.effective), bits(sets.permitted));
    let inheritable = bits(sets.inheritable);
    rustix::thread::set_capabilities(
        None,
        KernelSets { effective: effective & permitted, permitted, inheritable },
    )?;
    let ambient = bits(sets.ambient) & permitted & inheritable;
    if sets.ambient != Capabilities::NONE {
        for bit in ambient {
            rustix::thread::configure_capability_in_ambient_set(bit, true)?;
        }
    }
    Ok(())
}

/// Lets `/dev/stdout` be opened by the process's user: a stream belongs to the one who made it.
///
/// As runc's, but that a file is given only to one who could write to it already: `run <FILE` is no
/// reason for FILE to change hands. Other devices, such as `/dev/null`, are the host's.
///
/// The group stays, for others may count on it: a terminal's is `tty`, a file's and a named pipe's
/// what their maker wanted (runc: libcontainer/init_linux.go, `fixStdioPermissions`). A pipe without
/// a name is known to nobody else, and gets both, as under crun.
fn give(stream: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(stream)?;
    let nameless = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo => rustix::fs::fstatfs(stream)?.f_type as u64 == PIPEFS_MAGIC,
        FileType::RegularFile if is_writable(stream)? => false,
        FileType::CharacterDevice if rustix::termios::isatty(stream) => false,
        _ => return Ok(()),
    };
    if stat.st_uid == uid && (stat.st_gid == gid || !nameless) {
        return Ok(());
    }
    let user = Some(rustix::fs::Uid::from_raw_unchecked(uid));
    let group = nameless.then_some(rustix::fs::Gid::from_raw_unchecked(gid));
    let given = match rustix::fs::fchown(stream, user, group) {
        // one of the two is not in the user namespace: the user is what matters
        Err(Errno::INVAL) if group.is_some() => rustix::fs::fchown(stream, user, None),
        other => other,
    };
    match given {
        // an owner outside the user namespace
        Err(Errno::PERM | Errno::INVAL | Errno::ROFS) => Ok(()),
        other => other,
    }
}

fn is_writable(stream: BorrowedFd<'_>) -> Result<bool, Errno> {
    let access = rustix::fs::fcntl_getfl(stream)? & OFlags::ACCMODE;
    Ok(access != OFlags::RDONLY)
}

/// linux/magic.h.
const PIPEFS_MAGIC: u64 = 0x5049_5045;

/// Reads a file of the container; nothing if it does not exist or is not a regular file. Another
/// kind could make us wait, and one without end could fill the memory.
fn text(root: BorrowedFd<'_>, name: &str) -> Result<Vec<u8>, Errno> {
    const LARGEST: u64 = 1 << 20;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let looked_up = path::open(root, Path::new(name), OFlags::PATH, Mode::empty());
    let Ok(looked_up) = looked_up else { return Ok(Vec::new()) };
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&looked_up)?.st_mode);
    if kind != FileType::RegularFile {
        return Ok(Vec::new());
    }
    let file = to_errno(path::open(root, Path::new(name), flags, Mode::empty()))?;
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Ok(Vec::new());
    }
    let mut bytes = Vec::new();
    to_errno(File::from(file).take(LARGEST).read_to_end(&mut bytes))?;
    Ok(bytes)
}

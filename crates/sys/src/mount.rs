//! Mount calls that rustix lacks.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::check_value;

/// Whether mounts below are changed as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Depth {
    One,
    Tree,
}

/// `MOUNT_ATTR_…` of mount_setattr(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Attributes(pub u64);

impl Attributes {
    pub const RDONLY: Self = Self(0x1);
    pub const NOSUID: Self = Self(0x2);
    pub const NODEV: Self = Self(0x4);
    pub const NOEXEC: Self = Self(0x8);
    pub const NOATIME: Self = Self(0x10);
    pub const STRICTATIME: Self = Self(0x20);
    /// Covers the three ways of keeping access times; 0 of it is `relatime`.
    pub const ATIME: Self = Self(0x70);
    pub const NODIRATIME: Self = Self(0x80);
    pub const NOSYMFOLLOW: Self = Self(0x0020_0000);

    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Sets attributes of the mount that `mount` is a descriptor of (Linux 5.12).
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    depth: Depth,
    attributes: Attributes,
) -> Result<(), Errno> {
    mount_setattr(mount, depth, libc::mount_attr { attr_set: attributes.0, ..NOTHING })
}

/// Clears attributes, then sets others, of the mount that `mount` is a descriptor of.
pub fn change_attributes(
    mount: BorrowedFd<'_>,
    depth: Depth,
    clear: Attributes,
    set: Attributes,
) -> Result<(), Errno> {
    let change = libc::mount_attr { attr_set: set.0, attr_clr: clear.0, ..NOTHING };
    mount_setattr(mount, depth, change)
}

/// What mounts below a mount, on either side of its peers, do to each other
/// (mount_namespaces(7), "Shared subtrees").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    Private,
    Shared,
    Slave,
    Unbindable,
}

/// Sets how mounts propagate.
pub fn set_propagation(
    mount: BorrowedFd<'_>,
    depth: Depth,
    propagation: Propagation,
) -> Result<(), Errno> {
    let propagation = match propagation {
        Propagation::Private => libc::MS_PRIVATE,
        Propagation::Shared => libc::MS_SHARED,
        Propagation::Slave => libc::MS_SLAVE,
        Propagation::Unbindable => libc::MS_UNBINDABLE,
    };
    mount_setattr(mount, depth, libc::mount_attr { propagation, ..NOTHING })
}

/// Maps the owners of a detached mount's files through the user namespace `userns` (id-mapped
/// mount): what belongs to 0 on disk belongs to root of `userns` when seen through it.
pub fn set_id_mapping(
    mount: BorrowedFd<'_>,
    depth: Depth,
    userns: BorrowedFd<'_>,
) -> Result<(), Errno> {
    const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
    let userns_fd = userns.as_raw_fd() as u64;
    mount_setattr(
        mount,
        depth,
        libc::mount_attr { attr_set: MOUNT_ATTR_IDMAP, userns_fd, ..NOTHING },
    )
}

/// Makes mounts private: what is mounted below is neither seen nor shown elsewhere.
pub fn set_private(mount: BorrowedFd<'_>, depth: Depth) -> Result<(), Errno> {
    set_propagation(mount, depth, Propagation::Private)
}

const NOTHING: libc::mount_attr =
    libc::mount_attr { attr_set: 0, attr_clr: 0, propagation: 0, userns_fd: 0 };

fn mount_setattr(
    mount: BorrowedFd<'_>,
    depth: Depth,
    attributes: libc::mount_attr,
) -> Result<(), Errno> {
    let recursive = if depth == Depth::Tree { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a constant that ends with a zero byte, and the structure lives across the
    // call, which is told its true size.
    check_value(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

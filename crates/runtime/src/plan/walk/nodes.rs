use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;
use std::os::fd::AsFd;

use bulkhead_sys::path;

use super::{Walk, to_errno, trees};
use crate::plan::Node;

impl Walk<'_> {
    /// Makes a device node in the container, or binds the host's where that is refused.
    ///
    /// The directory is resolved below the root, so that a `/dev` that is a link of the image leads
    /// nowhere else (CVE-2026-41579).
    pub(super) fn make_node(&mut self, node: &Node) -> Result<(), Errno> {
        let (parent, name) = to_errno(path::open_parent(self.root()?, &node.path, true))?;
        let made = rustix::fs::mknodat(
            &parent,
            &name,
            node.kind,
            Mode::from_raw_mode(node.mode),
            node.device,
        );
        match made {
            Ok(()) => {}
            Err(Errno::EXIST) if bulkhead_sys::weak::without("null") => return Ok(()),
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW)?;
                let same = FileType::from_raw_mode(stat.st_mode) == node.kind
                    && (node.kind == FileType::Fifo || stat.st_rdev == node.device);
                if same {
                    return Ok(());
                }
                // as runc: a node of the image's own is replaced, a directory is not
                rustix::fs::unlinkat(&parent, &name, AtFlags::empty())?;
                return self.make_node(node);
            }
            Err(Errno::PERM | Errno::ACCESS) => {
                let target = self.file(&node.path)?;
                return match node.made {
                    Some(made) => trees::put(self.descriptor(made)?, target.as_fd()),
                    None => trees::bind_node(node, &target),
                };
            }
            Err(errno) => return Err(errno),
        }
        // mknod(2) takes bits away by the umask, which is 0 here; the owner is set by itself
        if (node.uid, node.gid) != (0, 0) {
            let (uid, gid) = (
                rustix::fs::Uid::from_raw_unchecked(node.uid),
                rustix::fs::Gid::from_raw_unchecked(node.gid),
            );
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(&parent, &name, Some(uid), Some(gid), flags)?;
        }
        Ok(())
    }
}

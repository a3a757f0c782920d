//! `/dev/shm` of a container that joins another's IPC namespace: the other's, as in Docker.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use bulkhead_sys::path;
use rustix::fs::{Mode, OFlags};
use rustix::mount::OpenTreeFlags;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// Clones what is mounted at `/dev/shm` in the mount namespace `namespace`.
///
/// A mount of another namespace can only be cloned from within it (open_tree(2)), so a thread goes
/// there and ends. It looks at nothing but that path, below the container's own root.
pub(crate) fn of(namespace: &OwnedFd) -> std::io::Result<OwnedFd> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("shared-memory".to_owned());
        let thread = thread.spawn_scoped(scope, || clone_there(namespace.as_fd()))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn clone_there(namespace: BorrowedFd<'_>) -> std::io::Result<OwnedFd> {
    // its root and working directory are no longer those of the other threads
    bulkhead_sys::unshare(UnshareFlags::FS)?;
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Mount))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty())?;
    let shm = path::open(root.as_fd(), Path::new("/dev/shm"), flags, Mode::empty())?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(rustix::mount::open_tree(&shm, "", flags)?)
}

//! New namespaces for the calling thread, without the flag that makes unshare(2) unsafe.

use std::io;

use rustix::thread::UnshareFlags;

/// Moves the calling thread into new namespaces, unshare(2).
///
/// `CLONE_FILES` is refused with `EINVAL`. `CLONE_NEWNET`, `CLONE_NEWNS` (which implies
/// `CLONE_FS`), `CLONE_NEWUTS`, `CLONE_NEWIPC` and `CLONE_NEWCGROUP` concern this thread alone.
pub fn unshare(flags: UnshareFlags) -> io::Result<()> {
    if flags.contains(UnshareFlags::FILES) {
        return Err(io::Error::from(rustix::io::Errno::INVAL));
    }
    // SAFETY: the one hazard of unshare(2) to Rust is a second descriptor table, by which an
    // `OwnedFd` would mean different files on different threads; CLONE_FILES was refused above.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

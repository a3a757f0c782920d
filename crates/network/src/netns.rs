//! Acting in another network namespace than the calling thread's.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The network namespace of the calling thread, network_namespaces(7).
pub(crate) fn own() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// Runs `act` in the network namespace `netns` and comes back.
///
/// A socket stays in the namespace where it was opened, so `act` is best no more than that. A
/// thread of its own, which would need no way back, costs 0.1 ms.
pub(crate) fn inside<T>(
    netns: BorrowedFd<'_>,
    act: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let _home = Home(own()?);
    move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?;
    act()
}

/// Brings the thread home when dropped, also by a panic.
struct Home(OwnedFd);

impl Drop for Home {
    fn drop(&mut self) {
        use std::os::fd::AsFd;
        let back = move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network));
        if back.is_err() {
            // The kernel is out of memory, for nothing else can be wrong with a namespace that we
            // came from. Whatever ran next on this thread would act in a container's namespace.
            std::process::abort();
        }
    }
}

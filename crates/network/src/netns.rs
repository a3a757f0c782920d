//! Acting in another network namespace than the calling thread's.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The network namespace of the calling thread, network_namespaces(7).
pub(crate) fn own() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// Runs `act` in the network namespace `netns`, on a thread of its own.
///
/// A thread and not setns(2) there and back: a way back that failed would leave a thread of the
/// caller's pool in a container's namespace. It costs about 40 µs.
pub(crate) fn inside<T: Send>(
    netns: BorrowedFd<'_>,
    act: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let enter = || {
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
        act()
    };
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .stack_size(STACK)
            .spawn_scoped(scope, enter)?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Bytes: enough for a netlink request, and less to map than the default of 2 MiB.
const STACK: usize = 256 * 1024;

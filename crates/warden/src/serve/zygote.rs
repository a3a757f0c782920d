//! The children's side of ready compartments: a zygote that makes them, and their waiting.
//!
//! A compartment is a process in new namespaces. It waits for its order: a container's plan with
//! the descriptors that this names. Then it clones the container's first process, as a sibling of
//! its own and so as the warden's child, and ends. Why a clone, and not the waiting process itself:
//! one that exists already is moved into its cgroup of v2 at the price of 11 ms (see
//! [`bulkhead_runtime::cgroup`]), and one that is cloned is born there.
//!
//! What lives for long must not hold the secrets of other containers, which pass through the
//! warden's memory (their environment, for one). So it is not the warden that compartments are
//! cloned from, but the zygote: a copy of the warden from before its first client. Nobody but the
//! host's root may look into either (they are not dumpable), and no namespace of a compartment is
//! joined by anything before its order.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use bulkhead_runtime::Plan;
use bulkhead_runtime::plan::{AHEAD, Failure, Host, Report, Surroundings};
use bulkhead_sys::process::{CLONE_NEWPID, CLONE_PARENT, clone3, close_all_but};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::thread::UnshareFlags;

use super::order::{Order, Received};
use super::warm_up;
use crate::wire::receive;

/// Makes a compartment for each control socket that comes in; ends with the warden.
pub(super) fn serve(socket: BorrowedFd<'_>, host: &Host) -> i32 {
    if keep_only(socket).is_err() {
        return 255;
    }
    let usual = warm_up::order(host).unwrap_or_default();
    let _ = rustix::thread::set_name(c"bulkhead-ahead");
    loop {
        let Ok(Some(((), mut descriptors))) = receive::<()>(socket, RecvFlags::empty()) else {
            return 0;
        };
        let Some(control) = descriptors.pop() else { return 255 };
        // whoever is born with it is process 1, and that is to be the container's
        let now = AHEAD & !CLONE_NEWPID;
        match clone3(now | CLONE_PARENT, None, || wait(control.as_fd(), &usual)) {
            Ok(child) => {
                let report = Report::Cloned { pid: child.pid };
                report.send(control.as_fd(), Some(child.pidfd.as_fd()));
            }
            Err(errno) => fail("make a compartment", errno, control.as_fd()),
        }
    }
}

/// A compartment: waits for its order, and ends with the warden.
fn wait(control: BorrowedFd<'_>, usual: &[u8]) -> i32 {
    let made = keep_only(control).and_then(|()| {
        bulkhead_sys::unshare(UnshareFlags::NEWPID)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    });
    if let Err(errno) = made {
        fail("make a pid namespace", errno, control);
        return 255;
    }
    warm_up::read(usual);
    Report::Unshared.send(control, None);
    match receive::<Received>(control, RecvFlags::empty()) {
        Ok(Some((Received(order), descriptors))) => run(order, descriptors, control),
        Ok(None) => 0,
        Err(errno) => {
            fail("understand the warden", errno, control);
            255
        }
    }
}

/// Makes the container.
fn run(order: Order<'_>, mut descriptors: Vec<OwnedFd>, control: BorrowedFd<'_>) -> i32 {
    let streams = if order.stdio { 3 } else { 0 };
    let stdio = descriptors.split_off(descriptors.len().saturating_sub(streams));
    let stdio = match stdio.as_slice() {
        [input, output, error] => Some([input.as_fd(), output.as_fd(), error.as_fd()]),
        _ => None,
    };
    let cgroup = order.cgroup.and_then(|it| descriptors.get(usize::from(it.0)));
    let surroundings = Surroundings { descriptors: &descriptors, control, stdio };
    match Plan::decode(&order.plan) {
        Ok(mut plan) => {
            plan.waits = order.waits;
            plan.spawn_within(&surroundings, cgroup.map(AsFd::as_fd))
        }
        Err(_) => {
            fail("understand the plan", Errno::PROTO, control);
            255
        }
    }
}

fn keep_only(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    close_all_but(&[0, 1, 2, socket.as_raw_fd() as u32])
}

fn fail(what: &str, errno: Errno, control: BorrowedFd<'_>) {
    Report::Failed(Failure::of_parent(what, errno)).send(control, None);
}

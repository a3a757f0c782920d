//! The clone: by one call where every namespace is new, through a helper where some are joined.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use bulkhead_sys::process::{
    CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWTIME, CLONE_NEWUSER,
    CLONE_NEWUTS, CLONE_PARENT, Child, clone3, clone3_borrowing, close_all_but, setns,
};
use rustix::io::Errno;
use rustix::thread::UnshareFlags;

use super::{Failure, Plan, Report, Step, Surroundings};

/// Whose namespaces a process of a running container joins, for exec.
#[derive(Debug, Clone, Copy)]
pub struct Beside<'a> {
    pub pidfd: BorrowedFd<'a>,
    /// `CLONE_NEW…`.
    pub namespaces: i32,
}

/// The namespaces that can be made before there is a plan: all but that of cgroups, whose root is
/// the group in which its maker is.
pub const AHEAD: i32 = CLONE_NEWUSER
    | CLONE_NEWPID
    | CLONE_NEWNET
    | CLONE_NEWIPC
    | CLONE_NEWNS
    | CLONE_NEWUTS
    | CLONE_NEWTIME;

/// What [`Plan::spawn`] made.
#[derive(Debug)]
pub enum Spawned {
    /// The process itself.
    Process(Child),
    /// A helper that joins namespaces, clones the process as a sibling of its own, tells of it by
    /// [`Report::Cloned`] and ends. It is to be reaped.
    Helper(Child),
}

impl Plan {
    /// Clones a process that walks this plan, in `cgroup` (a directory of cgroup v2) from birth.
    ///
    /// Everything but `keep` and what `surroundings` names is closed in it.
    ///
    /// # Errors
    /// Those of clone3(2). What goes wrong later comes as [`Report::Failed`].
    pub fn spawn(
        &mut self,
        surroundings: &Surroundings<'_>,
        cgroup: Option<BorrowedFd<'_>>,
        beside: Option<Beside<'_>>,
        keep: &[u32],
    ) -> Result<Spawned, Errno> {
        let keep = kept(surroundings, keep);
        let namespaces = self.namespaces;
        if self.joined.is_empty() && beside.is_none() && self.time_offsets.is_empty() {
            return clone3(namespaces, cgroup, || {
                if close_others(&keep).is_err() { 255 } else { self.walk(surroundings) }
            })
            .map(Spawned::Process);
        }
        // The helper is born in the cgroup: once it is in the container's namespaces, it may not
        // choose one (cgroups(7), `nsdelegate`).
        let helper = clone3(0, cgroup, || {
            let left = self.enter(surroundings, beside);
            let cloned = left.and_then(|left| self.sibling(left, surroundings, None, &keep));
            tell(cloned, "join the namespaces of the container", surroundings.control)
        });
        helper.map(Spawned::Helper)
    }

    /// Whether a process that is in namespaces of [`AHEAD`] already can make this plan's.
    pub fn fits_ahead(&self) -> bool {
        self.namespaces == AHEAD && self.joined.is_empty() && self.time_offsets.is_empty()
    }

    /// For a helper that is in new namespaces of [`AHEAD`], with the pid namespace that of its
    /// children: clones the process as a sibling of the helper, tells of it by [`Report::Cloned`]
    /// and returns the helper's exit status.
    ///
    /// The clone brings it into `cgroup` without the wait of a process that is moved. Since the helper
    /// has nothing else to do, the process borrows its memory and tells of itself; the helper ends
    /// when the program is executed. Not with an init, which would never give the memory back.
    pub fn spawn_within(
        &mut self,
        surroundings: &Surroundings<'_>,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> i32 {
        let keep = kept(surroundings, &[]);
        if self.steps.iter().any(|step| matches!(step, Step::Init)) {
            let cloned = self.sibling(0, surroundings, cgroup, &keep);
            return tell(cloned, "clone", surroundings.control);
        }
        let cloned = clone3_borrowing(CLONE_PARENT, cgroup, |pid| {
            Report::Cloned { pid }.send(surroundings.control, None);
            if close_others(&keep).is_err() { 255 } else { self.walk(surroundings) }
        });
        match cloned {
            Ok(_) => 0,
            Err(errno) => {
                Report::Failed(Failure::of_parent("clone", errno)).send(surroundings.control, None);
                255
            }
        }
    }

    fn sibling(
        &mut self,
        namespaces: i32,
        surroundings: &Surroundings<'_>,
        cgroup: Option<BorrowedFd<'_>>,
        keep: &[u32],
    ) -> Result<Child, Errno> {
        clone3(namespaces | CLONE_PARENT, cgroup, || {
            if close_others(keep).is_err() { 255 } else { self.walk(surroundings) }
        })
    }

    /// Enters, in the helper, what the process is to share, and returns the namespaces that are
    /// left to be made by the clone.
    fn enter(
        &self,
        surroundings: &Surroundings<'_>,
        beside: Option<Beside<'_>>,
    ) -> Result<i32, Errno> {
        if let Some(beside) = beside {
            setns(beside.pidfd, beside.namespaces)?;
            return Ok(self.namespaces);
        }
        let fd = |index: usize| surroundings.descriptors.get(index).ok_or(Errno::BADF);
        // Those first that the host's privileges open. What belongs to the user namespace that is
        // joined too opens only from within; entering that gives the host's privileges up.
        let mut refused = Vec::new();
        for (index, kind) in self.joined.iter().filter(|(_, kind)| *kind != CLONE_NEWUSER) {
            match setns(fd(index.0.into())?.as_fd(), *kind) {
                Ok(()) => {}
                Err(Errno::PERM) => refused.push((index, *kind)),
                Err(errno) => return Err(errno),
            }
        }
        for (index, kind) in self.joined.iter().filter(|(_, kind)| *kind == CLONE_NEWUSER) {
            setns(fd(index.0.into())?.as_fd(), *kind)?;
        }
        for (index, kind) in refused {
            setns(fd(index.0.into())?.as_fd(), kind)?;
        }
        if self.time_offsets.is_empty() {
            return Ok(self.namespaces);
        }
        // Offsets can be set only before anything lives in the namespace (time_namespaces(7)), and
        // only by one who is privileged in the user namespace that owns it.
        let mut left = self.namespaces & !CLONE_NEWTIME;
        let unshare = |flags| {
            bulkhead_sys::unshare(flags)
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        };
        if left & CLONE_NEWUSER != 0 {
            unshare(UnshareFlags::NEWUSER)?;
            left &= !CLONE_NEWUSER;
            Report::Unshared.send(surroundings.control, None);
            super::walk::await_message(surroundings.control)?;
            let keeps = |step: &Step| matches!(step, Step::BecomeRoot { keep_groups: true });
            super::walk::become_root(self.steps.iter().any(keeps))?;
        }
        unshare(UnshareFlags::NEWTIME)?;
        let offsets = std::fs::write("/proc/self/timens_offsets", &self.time_offsets);
        offsets.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        debug_assert!(left & CLONE_NEWPID != 0 || self.namespaces & CLONE_NEWPID == 0);
        Ok(left)
    }
}

fn close_others(keep: &[u32]) -> Result<(), Errno> {
    if bulkhead_sys::weak::without("descriptors") { Ok(()) } else { close_all_but(keep) }
}

/// The helper's last words, and its exit status.
fn tell(cloned: Result<Child, Errno>, what: &str, control: BorrowedFd<'_>) -> i32 {
    match cloned {
        Ok(Child { pid, pidfd }) => {
            Report::Cloned { pid }.send(control, Some(pidfd.as_fd()));
            0
        }
        Err(errno) => {
            Report::Failed(Failure::of_parent(what, errno)).send(control, None);
            255
        }
    }
}

/// The descriptors that stay open in the child, in ascending order.
fn kept(surroundings: &Surroundings<'_>, keep: &[u32]) -> Vec<u32> {
    let named = surroundings.descriptors.iter().map(OwnedFd::as_raw_fd);
    let stdio = surroundings.stdio.iter().flatten().map(AsRawFd::as_raw_fd);
    let mut kept: Vec<u32> = named
        .chain([surroundings.control.as_raw_fd()])
        .chain(stdio)
        .map(|fd| fd as u32)
        // so that nothing else takes these numbers before the streams have their place
        .chain([0, 1, 2])
        .chain(keep.iter().copied())
        .collect();
    kept.sort_unstable();
    kept.dedup();
    kept
}

//! Setting device rules: files on v1, a program on v2.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use bulkhead_sys::bpf;
use bulkhead_types::oci::DeviceAccessRule;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::list::{self, Entry};
use super::program;
use super::transition::State;
use crate::cgroup::file::{self, Directory};
use crate::cgroup::{Cgroup, CgroupError, Group};

impl Cgroup {
    /// Sets the rules and what is always allowed; what was set before is gone.
    pub(in crate::cgroup) fn restrict_devices(
        &self,
        rules: &[DeviceAccessRule],
    ) -> Result<(), CgroupError> {
        let entries = list::with_defaults(rules)?;
        if let Some(group) = self.groups.iter().find(|group| group.has("devices")) {
            return write(group, &entries);
        }
        let whole = entries.iter().rposition(Entry::is_whole);
        let allows_all =
            whole.is_some_and(|index| entries[index..].iter().all(|entry| entry.allow));
        match self.v2() {
            // a new group has no program
            Some(group) if group.fresh && allows_all => Ok(()),
            None if allows_all || !self.refused.is_empty() => Ok(()),
            None => {
                Err(CgroupError::NoController { controller: "devices", path: self.path.clone() })
            }
            Some(group) => attach(group, &entries).map_err(|cause| CgroupError::Devices {
                directory: group.directory.path.clone(),
                cause,
            }),
        }
    }
}

fn write(group: &Group, entries: &[Entry]) -> Result<(), CgroupError> {
    let directory = &group.directory;
    let target = State::of(entries)?;
    let from = if group.fresh {
        if target.allows_all() {
            // a new group has what its parent has, and more it cannot get
            return Ok(());
        }
        // whatever the parent allows, all but the target's is denied first
        State::parse("a *:* rwm").unwrap_or_default()
    } else {
        let text = file::read(directory, "devices.list")?;
        State::parse(&text).ok_or_else(|| CgroupError::Unexpected {
            file: directory.file("devices.list"),
            text: text.clone(),
        })?
    };
    let writes = from.transition(&target);
    // one file at a time, so that each is opened once in a row
    for part in writes.chunk_by(|a, b| a.0 == b.0) {
        let name = if part[0].0 { "devices.allow" } else { "devices.deny" };
        file::write_each(directory, name, part.iter().map(|(_, text)| text.clone()))?;
    }
    Ok(())
}

/// Attaches a program in place of those that are there: a second beside them could only take away.
fn attach(group: &Group, entries: &[Entry]) -> io::Result<()> {
    let cgroup = group.directory.fd.as_fd();
    let old = if group.fresh { Vec::new() } else { attached(&group.directory)? };
    let program = load(entries)?;
    if let [old] = &old[..] {
        return bpf::replace_cgroup_device(cgroup, program.as_fd(), old.as_fd());
    }
    // both hold until the old ones are gone, so that there is no moment without
    bpf::attach_cgroup_device(cgroup, program.as_fd())?;
    old.iter().try_for_each(|old| bpf::detach_cgroup_device(cgroup, old.as_fd()))
}

/// The programs that can be opened. Others (of systemd, under a security module's label) stay: more
/// programs only take away.
fn attached(directory: &Directory) -> io::Result<Vec<OwnedFd>> {
    let mut programs = Vec::new();
    for id in bpf::cgroup_device_programs(directory.fd.as_fd())? {
        match bpf::open_program(id) {
            Ok(program) => programs.push(program),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            // gone meanwhile
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(programs)
}

fn load(entries: &[Entry]) -> io::Result<OwnedFd> {
    let program = program::compile(entries);
    match bpf::load_cgroup_device(&program) {
        // before Linux 5.11 programs counted as locked memory, and the limit's name is EPERM
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let before = getrlimit(Resource::Memlock);
            if setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None }).is_err() {
                return Err(error);
            }
            let again = bpf::load_cgroup_device(&program);
            // the container is not to inherit it
            setrlimit(Resource::Memlock, before)?;
            again
        }
        other => other,
    }
}

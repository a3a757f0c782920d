//! The ways into a group, and into one below it (`runc exec --cgroup`).

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use super::file::Directory;
use super::hierarchy::{Hierarchies, Version};
use super::path::clean;
use super::{Cgroup, CgroupError, Group};

/// The descriptors by which a process enters a cgroup.
#[derive(Debug)]
pub struct Join {
    /// v1: `tasks` of every hierarchy, open for writing; a process of one thread joins by writing
    /// `0`.
    ///
    /// To move itself through `tasks`, a thread takes no lock but the hierarchies' own. Through
    /// `cgroup.procs` it stops every fork and exit of the host, which after a quiet moment waits
    /// for RCU: 11 ms (Linux: kernel/cgroup/cgroup.c, `cgroup_procs_write_start`).
    pub procs: Vec<OwnedFd>,
    /// The directory of the v2 group for `CLONE_INTO_CGROUP`, on hybrid hosts too.
    pub v2_dir: Option<OwnedFd>,
}

impl Cgroup {
    /// Opens the ways in.
    ///
    /// # Errors
    /// [`CgroupError::Gone`] if a hierarchy lacks the group: to join the rest would be to run
    /// without limits.
    pub fn join(&self) -> Result<Join, CgroupError> {
        self.check_complete()?;
        let mut join = Join { procs: Vec::new(), v2_dir: None };
        self.groups.iter().try_for_each(|group| join.add(group, &group.directory))?;
        Ok(join)
    }

    /// Opens the ways into groups below this one, which have to exist: `arguments` are those of
    /// `--cgroup`, one `PATH` for all hierarchies or `CONTROLLER[,CONTROLLER…]:PATH` for some of
    /// them on v1 (runc-exec(8)). `/` is the group itself.
    ///
    /// # Errors
    /// [`CgroupError::InvalidSubArgument`], [`CgroupError::RepeatedSubController`] and
    /// [`CgroupError::UnknownSubController`] for what cannot be read,
    /// [`CgroupError::InvalidSubPath`] for a path that leads out.
    pub fn sub_join<T: AsRef<str>>(&self, arguments: &[T]) -> Result<Join, CgroupError> {
        self.check_complete()?;
        let paths = sub_paths(arguments)?;
        let exists = |name: &str| {
            self.groups.iter().any(|group| group.version == Version::V1 && group.has(name))
        };
        if let Some(unknown) = paths.keys().find(|name| !name.is_empty() && !exists(name)) {
            return Err(CgroupError::UnknownSubController((*unknown).to_owned()));
        }
        let mut join = Join { procs: Vec::new(), v2_dir: None };
        for group in &self.groups {
            let named = paths.iter().find(|(name, _)| match group.version {
                Version::V1 => name.is_empty() || group.has(name),
                Version::V2 => name.is_empty(),
            });
            match named.map(|(_, sub)| *sub) {
                None | Some("") => join.add(group, &group.directory)?,
                Some(sub) => {
                    let directory = group.directory.open(sub).map_err(|errno| {
                        let file = group.directory.file(sub);
                        CgroupError::Open { file, cause: errno.into() }
                    })?;
                    join.add(group, &directory)?;
                }
            }
        }
        Ok(join)
    }

    /// The v2 group in which process `pid` is: where `exec` goes when the container's first process
    /// has moved on below the group it was given, and that takes no processes any more (runc does
    /// so on pure v2).
    pub fn of_process(hierarchies: &Hierarchies, pid: u32) -> Result<Self, CgroupError> {
        let file = format!("/proc/{pid}/cgroup");
        let text = std::fs::read_to_string(&file)
            .map_err(|cause| CgroupError::Read { file: file.clone(), cause })?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::"));
        let Some(path) = path else { return Err(CgroupError::Unexpected { file, text }) };
        let v2 = |hierarchy: &super::Hierarchy| hierarchy.version == Version::V2;
        Self::open_each(hierarchies, path, |it| Ok(v2(it).then(|| clean(path))))
    }

    /// The directories of v1, by the names under which hierarchies are usually mounted: those of
    /// their controllers, or their own.
    pub fn v1_directories(&self) -> impl Iterator<Item = (String, BorrowedFd<'_>)> {
        let v1 = self.groups.iter().filter(|group| group.version == Version::V1);
        v1.map(|group| {
            let name = group.controllers.join(",");
            let name = name.strip_prefix("name=").unwrap_or(&name).to_owned();
            (name, group.directory.fd.as_fd())
        })
    }

    fn check_complete(&self) -> Result<(), CgroupError> {
        if self.complete { Ok(()) } else { Err(CgroupError::Gone(self.path.clone())) }
    }
}

impl Join {
    fn add(&mut self, group: &Group, directory: &Directory) -> Result<(), CgroupError> {
        let (name, flags) = match group.version {
            Version::V1 => ("tasks", OFlags::WRONLY | OFlags::NOFOLLOW),
            Version::V2 => (".", OFlags::RDONLY | OFlags::DIRECTORY),
        };
        let fd = openat(&directory.fd, name, flags | OFlags::CLOEXEC, Mode::empty()).map_err(
            |errno: Errno| CgroupError::Open { file: directory.file(name), cause: errno.into() },
        )?;
        match group.version {
            Version::V1 => self.procs.push(fd),
            Version::V2 => self.v2_dir = Some(fd),
        }
        Ok(())
    }
}

/// Reads the arguments: a path for each controller, or for all of them by the empty name.
fn sub_paths<T: AsRef<str>>(arguments: &[T]) -> Result<BTreeMap<&str, &str>, CgroupError> {
    let mut paths = BTreeMap::new();
    let all = arguments.len();
    for argument in arguments.iter().map(AsRef::as_ref) {
        let invalid =
            |fault| CgroupError::InvalidSubArgument { argument: argument.to_owned(), fault };
        let (controllers, path) = match argument.split_once(':') {
            None if all != 1 => return Err(invalid("missing <controller>: prefix")),
            None => ("", argument),
            Some((controllers, _)) if controllers.split(',').any(str::is_empty) => {
                return Err(invalid("empty <controller> prefix"));
            }
            Some(split) => split,
        };
        let path = path.trim_matches('/');
        if path.split('/').any(|name| name == ".." || name == ".") {
            return Err(CgroupError::InvalidSubPath(path.to_owned()));
        }
        for controller in controllers.split(',') {
            if paths.insert(controller, path).is_some() {
                return Err(CgroupError::RepeatedSubController(controller.to_owned()));
            }
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_as_by_runc() {
        assert_eq!(sub_paths(&["a/b/"]).unwrap(), BTreeMap::from([("", "a/b")]));
        assert_eq!(sub_paths(&["/"]).unwrap(), BTreeMap::from([("", "")]));
        let two = sub_paths(&["cpu,cpuacct:x", "memory:/y"]).unwrap();
        assert_eq!(two, BTreeMap::from([("cpu", "x"), ("cpuacct", "x"), ("memory", "y")]));
        for (arguments, want) in [
            (&["a", "b"][..], "invalid --cgroup argument: a (missing <controller>: prefix)"),
            (&[":a"], "invalid --cgroup argument: :a (empty <controller> prefix)"),
            (&["cpu,:a"], "invalid --cgroup argument: cpu,:a (empty <controller> prefix)"),
            (
                &["cpu:a", "cpu:b"],
                "invalid --cgroup argument(s): controller cpu specified multiple times",
            ),
            (
                &["a/../../b"],
                "bad sub cgroup path: a/../../b: `.` and `..` components are not allowed",
            ),
        ] {
            assert_eq!(sub_paths(arguments).unwrap_err().to_string(), want);
        }
    }
}

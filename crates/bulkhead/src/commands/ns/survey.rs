//! What `/proc` shows of namespaces.

use std::collections::{BTreeMap, btree_map::Entry};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use bulkhead_sys::namespace;

use super::picture::{
    Found, KINDS, Picture, PidNamespace, Process, UserNamespace, compare, mappings,
};

/// A container's name, where it was found and its first process's pid.
pub type Known = (String, super::picture::Source, u32);

/// Walks through all processes that can be seen here.
pub fn survey(known: &[Known]) -> std::io::Result<Picture> {
    let host = inodes(1).or_else(|| inodes(std::process::id())).unwrap_or_default();
    let mut survey = Survey { host, ..Survey::default() };
    let mut hidden = 0;
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if !survey.see(pid) && std::path::Path::new(&format!("/proc/{pid}")).exists() {
            hidden += 1;
        }
    }
    let found: Vec<Found> = known
        .iter()
        .map(|(name, source, pid)| Found {
            name: name.clone(),
            source: *source,
            pid: *pid,
            inodes: inodes(*pid).unwrap_or_default(),
        })
        .collect();
    let mut picture = Picture {
        pid_namespaces: survey.pid.into_values().collect(),
        user_namespaces: survey.user.into_values().collect(),
        containers: compare(&found, &survey.host, &named_networks()),
        notes: Vec::new(),
    };
    if hidden > 0 {
        let whose = if hidden == 1 { "1 process is" } else { &format!("{hidden} processes are") };
        let why = if rustix::process::geteuid().is_root() {
            "closed to root here as well"
        } else {
            "closed to this user: run as root to see all"
        };
        picture.notes.push(format!("{whose} not shown, {why}"));
    }
    Ok(picture)
}

#[derive(Debug, Default)]
struct Survey {
    host: [u64; 8],
    pid: BTreeMap<u64, PidNamespace>,
    user: BTreeMap<u64, UserNamespace>,
}

impl Survey {
    /// Counts one process; false if its namespaces cannot be read.
    fn see(&mut self, pid: u32) -> bool {
        let directory = format!("/proc/{pid}");
        let open = |kind: &str| File::open(format!("{directory}/ns/{kind}")).map(OwnedFd::from);
        let (Ok(user), Ok(inside)) = (open("user"), open("pid")) else { return false };
        let Some(process) = process(&directory) else { return false };
        let (user, inside) = (self.add_user(&user, Some(&directory)), self.add_pid(&inside));
        if let Some(it) = user.and_then(|inode| self.user.get_mut(&inode)) {
            it.processes += 1;
        }
        if let Some(it) = inside.and_then(|inode| self.pid.get_mut(&inode)) {
            it.processes += 1;
            // the one with the lowest pid inside, which is 1 as long as the namespace takes new ones
            let last = |process: &Process| process.pids.last().copied();
            if it.first_process.as_ref().is_none_or(|first| last(&process) < last(first)) {
                it.first_process = Some(process);
            }
        }
        true
    }

    fn add_pid(&mut self, namespace: &OwnedFd) -> Option<u64> {
        let inode = inode(namespace)?;
        if self.pid.contains_key(&inode) {
            return Some(inode);
        }
        let owner = namespace::owner(namespace.as_fd()).ok();
        let user_namespace = owner.and_then(|owner| self.add_user(&owner, None));
        let parent = namespace::parent(namespace.as_fd()).ok();
        let parent = parent.and_then(|parent| self.add_pid(&parent));
        let host = inode == self.host[1];
        let added = PidNamespace { inode, parent, host, user_namespace, ..Default::default() };
        self.pid.insert(inode, added);
        Some(inode)
    }

    fn add_user(&mut self, namespace: &OwnedFd, member: Option<&str>) -> Option<u64> {
        let inode = inode(namespace)?;
        if !self.user.contains_key(&inode) {
            let parent = namespace::parent(namespace.as_fd()).ok();
            let parent = parent.and_then(|parent| self.add_user(&parent, None));
            let owner = namespace::owner_uid(namespace.as_fd()).ok();
            let host = inode == self.host[0];
            let added = UserNamespace { inode, parent, host, owner, ..Default::default() };
            self.user.insert(inode, added);
        }
        // only a process in it has the mappings in a file
        if let (Entry::Occupied(mut it), Some(directory)) = (self.user.entry(inode), member)
            && it.get().uid_mappings.is_empty()
        {
            let read = |file: &str| std::fs::read_to_string(format!("{directory}/{file}"));
            it.get_mut().uid_mappings = mappings(&read("uid_map").unwrap_or_default());
            it.get_mut().gid_mappings = mappings(&read("gid_map").unwrap_or_default());
        }
        Some(inode)
    }
}

fn process(directory: &str) -> Option<Process> {
    let status = std::fs::read_to_string(format!("{directory}/status")).ok()?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let pids = field("NSpid:")?.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
    Some(Process { command: field("Name:")?.trim().to_owned(), pids: pids.collect() })
}

fn inode(namespace: &OwnedFd) -> Option<u64> {
    rustix::fs::fstat(namespace).ok().map(|stat| stat.st_ino)
}

/// The namespaces of a process in the order of [`KINDS`]; `None` if they are closed to us.
fn inodes(pid: u32) -> Option<[u64; 8]> {
    let mut inodes = [0; 8];
    for (kind, inode) in KINDS.iter().zip(&mut inodes) {
        match std::fs::metadata(format!("/proc/{pid}/ns/{kind}")) {
            Ok(found) => *inode = std::os::unix::fs::MetadataExt::ino(&found),
            // no such kind in this kernel
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && *kind != "user" => {}
            Err(_) => return None,
        }
    }
    Some(inodes)
}

/// What `ip netns` calls network namespaces, by inode.
fn named_networks() -> BTreeMap<u64, String> {
    let names = bulkhead_network::named::list().unwrap_or_default();
    let inode = |name: &str| inode(&bulkhead_network::named::open(name).ok()?);
    names.into_iter().filter_map(|(name, _)| Some((inode(&name)?, name))).collect()
}

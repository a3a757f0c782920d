//! What is seen of namespaces, and who shares what: pure data.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// The kinds in the order in which they are shown.
pub const KINDS: [&str; 8] = ["user", "pid", "net", "ipc", "mnt", "uts", "cgroup", "time"];

/// Everything that one survey has seen; namespaces are named by their inode, as `lsns` and
/// `/proc/PID/ns` do.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Picture {
    pub pid_namespaces: Vec<PidNamespace>,
    pub user_namespaces: Vec<UserNamespace>,
    pub containers: Vec<Container>,
    /// What could not be seen, in sentences.
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PidNamespace {
    pub inode: u64,
    /// `None` for the outermost that can be seen.
    pub parent: Option<u64>,
    pub host: bool,
    pub user_namespace: Option<u64>,
    /// Those that live in it, without those in namespaces below it.
    pub processes: usize,
    pub first_process: Option<Process>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Process {
    pub command: String,
    /// Its pid in each namespace, from the outermost one to its own (`NSpid` of proc_pid_status(5)).
    pub pids: Vec<u32>,
}

#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserNamespace {
    pub inode: u64,
    pub parent: Option<u64>,
    pub host: bool,
    /// The uid that made it, as it is here.
    pub owner: Option<u32>,
    pub processes: usize,
    pub uid_mappings: Vec<Mapping>,
    pub gid_mappings: Vec<Mapping>,
}

/// `size` ids from `inside` are those from `outside` on where the survey was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Mapping {
    pub inside: u32,
    pub outside: u32,
    pub size: u32,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    pub name: String,
    pub source: Source,
    pub pid: u32,
    pub namespaces: BTreeMap<&'static str, Membership>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    Engine,
    Oci,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Membership {
    pub inode: u64,
    pub host: bool,
    /// Names of the other containers in it.
    pub shared_with: Vec<String>,
    /// What `ip netns` calls a network namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A container before it is compared with the others.
#[derive(Debug, Clone)]
pub struct Found {
    pub name: String,
    pub source: Source,
    pub pid: u32,
    /// In the order of [`KINDS`]; 0 is one that cannot be read.
    pub inodes: [u64; 8],
}

/// Says for each container and kind whether the namespace is its own, the host's, or others' too.
pub fn compare(found: &[Found], host: &[u64; 8], named: &BTreeMap<u64, String>) -> Vec<Container> {
    let membership = |at: usize, kind: usize| {
        let inode = found[at].inodes[kind];
        let others = found.iter().enumerate().filter(|(index, it)| {
            *index != at && inode != 0 && it.inodes[kind] == inode && inode != host[kind]
        });
        Membership {
            inode,
            host: inode != 0 && inode == host[kind],
            shared_with: others.map(|(_, it)| it.name.clone()).collect(),
            name: (KINDS[kind] == "net").then(|| named.get(&inode).cloned()).flatten(),
        }
    };
    let container = |(at, it): (usize, &Found)| Container {
        name: it.name.clone(),
        source: it.source,
        pid: it.pid,
        namespaces: (0..8).map(|kind| (KINDS[kind], membership(at, kind))).collect(),
    };
    found.iter().enumerate().map(container).collect()
}

impl Picture {
    /// Without the namespaces that no container is in, around or below, but for the host's; a note says how
    /// many these are.
    pub fn of_containers(mut self) -> Self {
        let pid: Vec<_> =
            self.pid_namespaces.iter().map(|it| (it.inode, it.parent, it.host)).collect();
        let user: Vec<_> =
            self.user_namespaces.iter().map(|it| (it.inode, it.parent, it.host)).collect();
        let (pid, user) = (self.concerned("pid", &pid), self.concerned("user", &user));
        let before = self.pid_namespaces.len() + self.user_namespaces.len();
        self.pid_namespaces.retain(|it| pid.contains(&it.inode));
        self.user_namespaces.retain(|it| user.contains(&it.inode));
        match before - self.pid_namespaces.len() - self.user_namespaces.len() {
            0 => {}
            1 => self
                .notes
                .push("1 namespace of another program is not shown: --all shows it".to_owned()),
            more => self.notes.push(format!(
                "{more} namespaces of other programs are not shown: --all shows them"
            )),
        }
        self
    }

    /// Those of containers, with all that is around and below them, and the host's own.
    fn concerned(&self, kind: &str, all: &[(u64, Option<u64>, bool)]) -> BTreeSet<u64> {
        let parent = |inode: &u64| all.iter().find(|(own, ..)| own == inode).and_then(|it| it.1);
        let is_host = |inode: u64| all.iter().any(|(own, _, host)| *own == inode && *host);
        let own: BTreeSet<u64> = all
            .iter()
            .map(|(inode, ..)| *inode)
            .filter(|inode| !is_host(*inode) && !self.members(kind, *inode).is_empty())
            .collect();
        let around = |inode: u64| std::iter::successors(Some(inode), parent);
        let mut concerned: BTreeSet<u64> = own.iter().flat_map(|inode| around(*inode)).collect();
        concerned.extend(all.iter().filter(|(.., host)| *host).map(|(inode, ..)| *inode));
        let below = all
            .iter()
            .map(|(inode, ..)| *inode)
            .filter(|inode| around(*inode).any(|above| own.contains(&above)));
        concerned.extend(below.collect::<Vec<_>>());
        concerned
    }

    /// Names of the containers whose namespace of a kind is this one.
    pub fn members(&self, kind: &str, inode: u64) -> Vec<&str> {
        let inside = |container: &&Container| {
            container.namespaces.get(kind).is_some_and(|m| m.inode == inode)
        };
        self.containers.iter().filter(inside).map(|container| container.name.as_str()).collect()
    }
}

/// Reads `/proc/PID/uid_map` or `gid_map` (user_namespaces(7)).
pub fn mappings(text: &str) -> Vec<Mapping> {
    let line = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(|number| number.parse().ok());
        let (inside, outside, size) = (numbers.next()??, numbers.next()??, numbers.next()??);
        Some(Mapping { inside, outside, size })
    };
    text.lines().filter_map(line).collect()
}

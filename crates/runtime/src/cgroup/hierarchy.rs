//! Where the host has its cgroups: pure v1, pure v2, or both ("hybrid").

use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use rustix::fs::{CWD, Mode as FileMode, OFlags, fstatfs, openat};

use super::CgroupError;
use super::file::{self, Directory};

/// How the host's cgroups are mounted, as text: what can be known without touching the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    pub v1: Vec<V1Mount>,
    /// Where cgroup2 is mounted.
    pub v2: Option<String>,
    /// `nsdelegate` and its like, which hold for the whole hierarchy. Who mounts it from the host's
    /// cgroup namespace without them takes them from everybody (kernel/cgroup/cgroup.c,
    /// `apply_cgroup_root_flags`).
    pub v2_flags: Vec<String>,
}

/// One v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V1Mount {
    pub mount_point: String,
    /// Which of the hierarchy's groups is mounted; `/` but in a container without a cgroup namespace.
    pub root: String,
    /// Kernel names, such as `cpu` and `cpuacct`; `name=systemd` for one without controllers.
    pub controllers: Vec<String>,
}

impl Layout {
    /// Reads `/proc/self/mountinfo` and `/proc/self/cgroup` (proc_pid_mountinfo(5), cgroups(7)).
    ///
    /// A mount that a later one hides is left out, and of several mounts of one hierarchy the one
    /// whose root is nearest the hierarchy's root counts (a container sees bind mounts of others').
    /// Mounts outside of `/sys/fs/cgroup`, such as those of a chroot, count only where none is
    /// there: a v1 hierarchy beside a host that is all v2 would not limit what v2 has.
    pub fn parse(mountinfo: &str, cgroup: &str) -> Self {
        let mounts: Vec<MountLine<'_>> = mountinfo.lines().filter_map(MountLine::parse).collect();
        let known: Vec<Vec<&str>> = cgroup
            .lines()
            .filter_map(|line| Some(line.split(':').nth(1)?.split(',').collect()))
            .collect();
        let mut layout = Self::default();
        // the kind first: whether one is hidden takes a look at all the others
        let mut visible: Vec<&MountLine<'_>> = mounts
            .iter()
            .filter(|mount| matches!(mount.file_system, "cgroup" | "cgroup2"))
            .filter(|mount| !mount.is_hidden(&mounts))
            .collect();
        if visible.iter().any(|mount| mount.is_usual()) {
            visible.retain(|mount| mount.is_usual());
        }
        visible.sort_by_key(|mount| mount.root.len());
        for mount in visible {
            match mount.file_system {
                "cgroup2" if layout.v2.is_none() => {
                    layout.v2 = Some(mount.mount_point.clone());
                    let flags = mount.super_options.split(',');
                    let flags = flags.filter(|it| !matches!(*it, "rw" | "ro"));
                    layout.v2_flags = flags.map(str::to_owned).collect();
                }
                "cgroup" => {
                    let options: Vec<&str> = mount.super_options.split(',').collect();
                    // /proc/self/cgroup names a hierarchy's controllers; the options of the mount
                    // hold them among others ("rw", "xattr", "release_agent=…")
                    let Some(names) =
                        known.iter().find(|names| names.iter().all(|name| options.contains(name)))
                    else {
                        continue;
                    };
                    let controllers: Vec<String> = names.iter().map(ToString::to_string).collect();
                    if !layout.v1.iter().any(|it| it.controllers == controllers) {
                        let mount_point = mount.mount_point.clone();
                        let root = mount.root.to_owned();
                        layout.v1.push(V1Mount { mount_point, root, controllers });
                    }
                }
                _ => {}
            }
        }
        layout.v1.sort_by(|a, b| a.controllers.cmp(&b.controllers));
        layout
    }

    pub fn mode(&self) -> Mode {
        let v1_controllers =
            self.v1.iter().flat_map(|it| &it.controllers).any(|it| !it.starts_with("name="));
        match (v1_controllers, &self.v2) {
            (true, None) => Mode::V1,
            (true, Some(_)) => Mode::Hybrid,
            (false, _) => Mode::V2,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    V1,
    /// The controllers are v1's, and a cgroup2 mount beside them has few or none.
    Hybrid,
    V2,
}

struct MountLine<'a> {
    id: u64,
    parent: u64,
    root: &'a str,
    mount_point: String,
    file_system: &'a str,
    super_options: &'a str,
}

impl<'a> MountLine<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ');
        let (id, parent) = (left.next()?.parse().ok()?, left.next()?.parse().ok()?);
        let (root, mount_point) = (left.nth(1)?, unescape(left.next()?));
        let mut right = right.split(' ');
        let (file_system, super_options) = (right.next()?, right.nth(1).unwrap_or_default());
        Some(Self { id, parent, root, mount_point, file_system, super_options })
    }

    /// Whether it is where systemd and every other init mount cgroups.
    fn is_usual(&self) -> bool {
        const USUAL: &str = "/sys/fs/cgroup";
        self.mount_point == USUAL || is_below(&self.mount_point, USUAL)
    }

    /// Whether a path walk to the mount point ends in another mount.
    ///
    /// The order of the lines says nothing: since Linux 6.8 it is that of creation, and on most
    /// hosts `/sys` comes from the initial ram disk and is older than `/`.
    fn is_hidden(&self, all: &[Self]) -> bool {
        let on_top = |it: &Self| it.parent == self.id && it.mount_point == self.mount_point;
        all.iter().any(on_top) || self.way_is_covered(all, all.len())
    }

    /// Whether this mount, or one that it stands on, is attached below a directory that another
    /// mount covers. `depth` ends the walk if the parents go round in a circle.
    fn way_is_covered(&self, all: &[Self], depth: usize) -> bool {
        let covers = |it: &Self| {
            it.parent == self.parent
                && it.id != self.id
                && is_below(&self.mount_point, &it.mount_point)
        };
        if all.iter().any(covers) {
            return true;
        }
        let parent = all.iter().find(|it| it.id == self.parent && it.id != self.id);
        depth > 0 && parent.is_some_and(|parent| parent.way_is_covered(all, depth - 1))
    }
}

fn is_below(path: &str, directory: &str) -> bool {
    let directory = directory.trim_end_matches('/');
    path.len() > 1 && path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

/// Undoes the octal escapes of mountinfo: space, tab, newline and backslash.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

/// The host's cgroup hierarchies, opened.
#[derive(Debug)]
pub struct Hierarchies {
    mode: Mode,
    pub(super) all: Vec<Hierarchy>,
    /// `/proc/self/cgroup`, once it has been read.
    own: OnceLock<String>,
}

#[derive(Debug)]
pub(super) struct Hierarchy {
    pub root: Directory,
    pub version: Version,
    /// Which group is mounted there, see [`V1Mount::root`].
    pub mounted: String,
    /// v1: those mounted here. v2: those in `cgroup.controllers` at the root.
    pub controllers: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

impl Hierarchy {
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|it| it == controller)
    }
}

impl Hierarchies {
    /// Finds and opens what is mounted; costs a few reads, so once per process is enough.
    ///
    /// A cgroup2 mount at `/sys/fs/cgroup` settles it, as in runc: no mount table is read.
    pub fn detect() -> Result<Self, CgroupError> {
        if let Ok(root) = root("/sys/fs/cgroup")
            && fstatfs(&root.fd).is_ok_and(|it| it.f_type == CGROUP2_SUPER_MAGIC)
        {
            return Ok(Self { mode: Mode::V2, all: vec![v2(root)?], own: OnceLock::new() });
        }
        let cgroup = read("/proc/self/cgroup")?;
        let this = Self::open(&Layout::parse(&read("/proc/self/mountinfo")?, &cgroup))?;
        Ok(Self { own: OnceLock::from(cgroup), ..this })
    }

    pub(super) fn open(layout: &Layout) -> Result<Self, CgroupError> {
        let mut all = Vec::new();
        for mount in &layout.v1 {
            all.push(Hierarchy {
                root: root(&mount.mount_point)?,
                version: Version::V1,
                mounted: mount.root.clone(),
                controllers: mount.controllers.clone(),
            });
        }
        if let Some(mount_point) = &layout.v2 {
            all.push(v2(root(mount_point)?)?);
        }
        if all.is_empty() {
            return Err(CgroupError::NotMounted);
        }
        Ok(Self { mode: layout.mode(), all, own: OnceLock::new() })
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The controllers of each v1 hierarchy, as they are mounted together.
    pub fn v1(&self) -> impl Iterator<Item = &[String]> {
        let v1 = self.all.iter().filter(|it| it.version == Version::V1);
        v1.map(|it| it.controllers.as_slice())
    }

    pub fn has_v2(&self) -> bool {
        self.all.iter().any(|it| it.version == Version::V2)
    }

    /// The same for a process whose `/proc/self/cgroup` is `text`.
    #[cfg(test)]
    pub(super) fn seen_by(self, text: &str) -> Self {
        Self { own: OnceLock::from(text.to_owned()), ..self }
    }

    /// `/proc/self/cgroup`, cgroups(7); read when it is first asked for.
    pub(super) fn own(&self) -> Result<&str, CgroupError> {
        if let Some(text) = self.own.get() {
            return Ok(text);
        }
        let text = read("/proc/self/cgroup")?;
        Ok(self.own.get_or_init(|| text))
    }

    /// Whether a controller (`memory`, `cpu`, `pids` …) can be used, in whichever version.
    ///
    /// Device control is always to be had where v2 is: as a program, not a controller.
    pub fn has(&self, controller: &str) -> bool {
        self.all.iter().any(|it| it.has(controller))
    }
}

/// What statfs(2) says of a cgroup2 mount (linux/magic.h).
const CGROUP2_SUPER_MAGIC: rustix::fs::FsWord = 0x6367_7270;

fn v2(root: Directory) -> Result<Hierarchy, CgroupError> {
    let controllers = super::words(&file::read(&root, "cgroup.controllers")?);
    Ok(Hierarchy { root, version: Version::V2, mounted: "/".into(), controllers })
}

fn read(path: &str) -> Result<String, CgroupError> {
    use std::io::Read;
    // files of procfs do not tell their size, and a growing buffer means many reads
    let mut text = String::with_capacity(16 << 10);
    std::fs::File::open(path)
        .and_then(|mut file| file.read_to_string(&mut text))
        .map_err(|cause| CgroupError::Read { file: path.to_owned(), cause })?;
    Ok(text)
}

fn root(mount_point: &str) -> Result<Directory, CgroupError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd: OwnedFd = openat(CWD, mount_point, flags, FileMode::empty())
        .map_err(|errno| CgroupError::Open { file: mount_point.to_owned(), cause: errno.into() })?;
    Ok(Directory { fd, path: mount_point.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID_MOUNTS: &str = "\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";

    fn v1(mount_point: &str, controllers: &[&str]) -> V1Mount {
        let controllers = controllers.iter().map(|it| (*it).to_owned()).collect();
        V1Mount { mount_point: mount_point.to_owned(), root: "/".to_owned(), controllers }
    }

    #[test]
    fn the_three_layouts_are_told_apart() {
        let cgroup = "9:name=systemd:/\n4:memory:/x\n2:cpu,cpuacct:/\n0::/\n";
        let hybrid = Layout::parse(HYBRID_MOUNTS, cgroup);
        let controllers = vec![
            v1("/sys/fs/cgroup/cpu,cpuacct", &["cpu", "cpuacct"]),
            v1("/sys/fs/cgroup/memory", &["memory"]),
            v1("/sys/fs/cgroup/systemd", &["name=systemd"]),
        ];
        assert_eq!(hybrid.v1, controllers);
        assert_eq!(hybrid.v2.as_deref(), Some("/sys/fs/cgroup/unified"));
        assert_eq!(hybrid.mode(), Mode::Hybrid);

        let without_v2 = HYBRID_MOUNTS.replace("cgroup2", "bpf");
        let v1 = Layout::parse(&without_v2, cgroup);
        assert_eq!((v1.v1.len(), &v1.v2, v1.mode()), (3, &None, Mode::V1));

        let mounts = "30 23 0:26 / /sys/fs/cgroup ro,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        let v2 = Layout::parse(mounts, "0::/user.slice\n");
        assert_eq!((v2.v1.len(), v2.mode()), (0, Mode::V2));
        assert_eq!(v2.v2.as_deref(), Some("/sys/fs/cgroup"));

        // a host whose only v1 hierarchy is systemd's own
        let mounts =
            "30 23 0:26 / /a rw - cgroup2 c rw\n31 23 0:2 / /b rw - cgroup c rw,name=systemd\n";
        assert_eq!(Layout::parse(mounts, "1:name=systemd:/\n0::/\n").mode(), Mode::V2);
    }

    #[test]
    fn flags_of_the_whole_hierarchy_are_found() {
        let line = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
        let layout = Layout::parse(line, "0::/\n");
        assert_eq!(layout.v2_flags, ["nsdelegate", "memory_recursiveprot"]);
        assert_eq!(
            Layout::parse(&line.replace(",nsdelegate,memory_recursiveprot", ""), "").v2_flags,
            [""; 0]
        );
    }

    #[test]
    fn hidden_and_foreign_mounts_do_not_count() {
        let covered = format!("{HYBRID_MOUNTS}50 31 0:38 / /sys/fs/cgroup rw - cgroup2 c rw\n");
        let layout = Layout::parse(&covered, "4:memory:/\n0::/\n");
        assert_eq!(layout.v2.as_deref(), Some("/sys/fs/cgroup"));
        assert_eq!(layout.v1, []);

        let bound = "\
1 1 0:1 /other /bound rw - cgroup c rw,memory
2 1 0:1 / /with\\040space rw - cgroup c rw,memory
3 1 0:9 / /gone rw - cgroup c rw,blkio
";
        assert_eq!(Layout::parse(bound, "4:memory:/\n").v1, [v1("/with space", &["memory"])]);
        for text in ["", "x", " - ", "1 2 3", "1 2 3 / /a - cgroup2", "1 - cgroup"] {
            assert_eq!(Layout::parse(text, "a:b\n::\n").v1, []);
        }
    }

    #[test]
    fn a_chroot_with_v1_does_not_make_a_v2_host_hybrid() {
        let mounts = "\
29 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
60 24 0:29 / /srv/chroot/sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
";
        let layout = Layout::parse(mounts, "4:memory:/\n0::/\n");
        assert_eq!((layout.mode(), layout.v1.len()), (Mode::V2, 0));
        let elsewhere = mounts.replace(" /sys/fs/cgroup ", " /cgroup ");
        assert_eq!(Layout::parse(&elsewhere, "4:memory:/\n0::/\n").mode(), Mode::Hybrid);
    }

    #[test]
    fn the_root_may_be_younger_than_what_stands_on_it() {
        let mounts = "\
24 31 0:22 / /sys rw,nosuid shared:7 - sysfs sysfs rw
25 31 0:23 / /proc rw shared:14 - proc proc rw
31 1 254:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
29 24 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate
";
        let layout = Layout::parse(mounts, "0::/\n");
        assert_eq!(layout.v2.as_deref(), Some("/sys/fs/cgroup"));
        // something over /sys takes the cgroups below it away
        let covered = format!("{mounts}40 24 0:50 / /sys rw - tmpfs tmpfs rw\n");
        assert_eq!(Layout::parse(&covered, "0::/\n").v2, None);
        let circle = "1 2 0:1 / /a rw - cgroup2 c rw\n2 1 0:1 / /b rw - tmpfs c rw\n";
        assert_eq!(Layout::parse(circle, "0::/\n").v2.as_deref(), Some("/a"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(
            mountinfo in "([0-3] [0-3] 0:1 /[ab/]{0,3} /[ab/]{0,4} rw - cgroup2? c rw,cpu\n|\\PC{0,9}\n){0,6}",
            cgroup in "([0-9]:(cpu|[a-z,=]{0,4}):/\n){0,4}",
        ) {
            let layout = Layout::parse(&mountinfo, &cgroup);
            proptest::prop_assert!(layout.v1.len() <= cgroup.lines().count());
        }
    }

    #[test]
    fn no_cgroups_is_one_sentence() {
        let error = Hierarchies::open(&Layout::default()).unwrap_err().to_string();
        assert!(error.starts_with("no cgroup hierarchy is mounted"), "{error}");
    }
}

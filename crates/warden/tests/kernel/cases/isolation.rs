//! What a container can see and do.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use bulkhead_runtime::*;
use bulkhead_sys::mount::{Depth, set_id_mapping};
use bulkhead_types::Id;
use bulkhead_warden::*;
use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{Signal, pidfd_send_signal};

use crate::fixture::*;

crate::cases::cases![
    bind_mounts_keep_owners_and_flags,
    mounts_are_not_shared_with_the_host,
    a_waiting_process_shows_nothing_of_the_warden,
    cgroups_are_joined_at_birth,
    a_container_is_sealed_off,
    what_is_in_the_file_systems,
    users_are_those_of_the_container,
    capabilities_and_filters,
    limits_and_sysctls,
    namespaces_of_the_host_and_of_others,
    nothing_of_the_host_is_open,
    the_wardens_program_is_read_only_to_everybody,
];

fn a_container_is_sealed_off() {
    let ship = Ship::launch();
    let wish = ship.wish(&["sh", "-c", "id -u; echo $$; hostname; ls /sys/class/net; sleep 1000"]);
    let (id, (wish, mut socket)) = (wish.id, wish.attach());
    let created = ship.create(wish).unwrap();
    ship.client.start(id).unwrap();
    let want = "0\n1\nbox\nlo\n";
    let mut got = String::new();
    while got.len() < want.len() {
        let mut head = [0; 8];
        socket.read_exact(&mut head).unwrap();
        let mut bytes = vec![0; u32::from_be_bytes(head[4..].try_into().unwrap()) as usize];
        socket.read_exact(&mut bytes).unwrap();
        got.push_str(std::str::from_utf8(&bytes).unwrap());
    }
    assert_eq!(got, want);
    for name in ["pid", "net", "ipc", "mnt", "uts", "user", "cgroup", "time"] {
        let link = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert_ne!(link("self"), link(&created.pid.to_string()), "{name}");
    }
    let status = fs::read_to_string(format!("/proc/{}/status", created.pid)).unwrap();
    let uid = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    assert!(uid.contains(&RANGE.first.to_string()), "{uid}");
    let names = ship.client.namespaces(id).unwrap();
    assert_eq!(names.len(), 8);
    let inode = |fd: &std::os::fd::OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
    assert_eq!(inode(&created.netns), inode(&names[1].1));
    pidfd_send_signal(&created.pidfd, Signal::KILL).unwrap();
    assert_eq!(ship.exit(id).code, 137);
}

fn what_is_in_the_file_systems() {
    let ship = Ship::launch();
    let (code, text) = ship.sh("ls /dev; cat /proc/kcore | wc -c; ls /sys/firmware | wc -l; \
         echo x > /proc/sys/kernel/hostname || echo ro; touch /sys/x || echo ro; \
         touch /new && stat -c %u:%g /new; echo x > /dev/null; readlink /dev/fd; \
         mount | grep -c ' / '; echo /proc/[0-9]*; touch /dev/shm/x && echo shm; \
         ls /sys/fs/cgroup | wc -l; cat /proc/self/cgroup | head -1; head -c 3 /dev/zero | wc -c");
    let lines: Vec<&str> = text.lines().filter(|line| !line.contains(": ")).collect();
    assert_eq!(code, 0, "{text}");
    for name in
        ["fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stdin", "tty", "zero"]
    {
        assert!(lines.contains(&name), "{name} in {text}");
    }
    let rest = &lines[lines.iter().position(|line| *line == "zero").unwrap() + 1..];
    let cgroups = rest[9].parse::<u32>().unwrap();
    assert!(cgroups > 0, "{text}");
    assert_eq!(
        rest[..9],
        ["0", "0", "ro", "ro", "0:0", "/proc/self/fd", "1", "/proc/1", "shm"],
        "{text}"
    );
    assert!(rest[10].ends_with(":/"), "{text}");
    assert_eq!(rest[11], "3");
    let made = rustix::fs::stat(ship.directory.path().join("root/new")).unwrap();
    assert_eq!(made.st_uid, 0, "the id-mapped root keeps owners");
    let wish = ship.wish(&["touch", "/x"]).change(|spec| spec.rootfs_readonly = true);
    let (code, text) = ship.run(wish);
    assert_eq!(code, 1);
    assert!(text.contains("Read-only file system"), "{text}");
}

fn users_are_those_of_the_container() {
    let ship = Ship::launch();
    let run = |name: &str| {
        let mut wish = ship.wish(&["sh", "-c", "id; echo $HOME; pwd; echo > /dev/stdout"]);
        wish.spec.process.user.name = name.into();
        wish.spec.process.working_directory = "/made/here".into();
        ship.run(wish)
    };
    let web = "uid=33(web) gid=34(web) groups=34(web),50(extra)\n/srv\n/made/here\n\n";
    assert_eq!(run("web"), (0, web.into()));
    let numbers = "uid=33(web) gid=50(extra) groups=50(extra)\n/srv\n/made/here\n\n";
    assert_eq!(run("33:50"), (0, numbers.into()));
    let (_, root) = run("");
    assert_eq!(root, "uid=0(root) gid=0(root) groups=0(root)\n/root\n/made/here\n\n");
}

fn capabilities_and_filters() {
    let ship = Ship::launch();
    let status = |change: &dyn Fn(&mut ProcessSpec)| {
        let mut wish = ship.wish(&["cat", "/proc/self/status"]);
        change(&mut wish.spec.process);
        let (code, text) = ship.run(wish);
        assert_eq!(code, 0);
        let fields = text.lines().filter_map(|line| line.split_once(":\t"));
        fields.map(|(key, value)| (key.to_owned(), value.to_owned())).collect::<HashMap<_, _>>()
    };
    let set = |fields: &HashMap<String, String>, name: &str| {
        u64::from_str_radix(&fields[name], 16).unwrap()
    };
    let wanted = Capabilities::DEFAULT.0;
    let plain = status(&|_| {});
    assert_eq!(set(&plain, "CapBnd") & !wanted, 0);
    assert_ne!(set(&plain, "CapEff"), 0);
    assert_eq!((set(&plain, "CapInh"), set(&plain, "CapAmb")), (0, 0));
    assert_eq!((plain["Seccomp"].as_str(), plain["NoNewPrivs"].as_str()), ("0", "0"));
    assert_eq!(set(&plain, "SigBlk") | set(&plain, "SigIgn"), 0);
    for no_new_privileges in [false, true] {
        let strict = status(&|process| {
            process.seccomp = Seccomp::Default;
            process.no_new_privileges = no_new_privileges;
            process.user.name = "web".into();
        });
        assert_eq!(strict["Seccomp"], "2");
        assert_eq!(strict["NoNewPrivs"], u8::from(no_new_privileges).to_string());
        assert_eq!(set(&strict, "CapEff") | set(&strict, "CapPrm"), 0, "not root");
    }
    let all = status(&|process| process.capabilities = Capabilities(u64::MAX));
    assert_ne!(set(&all, "CapEff") & 1 << 21, 0, "SYS_ADMIN");
}

fn limits_and_sysctls() {
    let ship = Ship::launch();
    let mut wish = ship.wish(&["sh", "-c", "ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax"]);
    wish.spec.process.rlimits = vec![("nofile".into(), 100, 200)];
    wish.spec.process.oom_score_adj = Some(500);
    wish.spec.sysctls.push(("kernel.msgmax".into(), "12345".into()));
    assert_eq!(ship.run(wish), (0, "100\n200\n500\n0\n12345\n".into()));
}

fn namespaces_of_the_host_and_of_others() {
    let ship = Ship::launch();
    let (container, _created) = sleeper(&ship);
    let names = ship.client.namespaces(container).unwrap();
    let mut wish = ship.wish(&["sh", "-c", "readlink /proc/self/ns/net; readlink /proc/self/ns/user; hostname; echo /proc/[0-9]*; echo $$"]);
    let (mut want, mut fds) = (String::new(), HashMap::new());
    for (name, fd) in names {
        let inode = rustix::fs::fstat(&fd).unwrap().st_ino;
        if name == "net" || name == "user" {
            wish.fds.push(fd);
            fds.insert(name.clone(), FdIndex(wish.fds.len() as u16 - 1));
            want.push_str(&format!("{name}:[{inode}]\n"));
        }
    }
    wish.spec.namespaces.net = Source::Join(fds["net"]);
    wish.spec.namespaces.user = Source::Join(fds["user"]);
    wish.spec.sysctls.clear();
    let (code, text) = ship.run(wish);
    assert_eq!((code, text), (0, format!("{want}box\n/proc/1\n1\n")));
    // as --privileged and --net=host: everything that may be is the host's
    let wish =
        ship.wish(&["sh", "-c", "id -u; hostname; readlink /proc/self/ns/pid"]).change(|spec| {
            let host = Source::Host;
            let mnt = Source::Private;
            spec.namespaces = Namespaces {
                pid: host,
                net: host,
                ipc: host,
                mnt,
                uts: host,
                user: host,
                cgroup: host,
                time: host,
            };
            spec.sysctls.clear();
            spec.id_range = None;
        });
    let (code, text) = ship.run(ship.unmapped(wish));
    let pid = fs::read_link("/proc/self/ns/pid").unwrap();
    let host = rustix::system::uname();
    let host = host.nodename().to_str().unwrap();
    assert_eq!((code, text), (0, format!("0\n{host}\n{}\n", pid.display())));
    // its own user namespace, but the host's network
    let wish = ship.wish(&["ls", "/sys/class/net/lo"]).change(|spec| {
        spec.namespaces.net = Source::Host;
        spec.sysctls.clear();
    });
    assert_eq!(ship.run(wish).0, 0);
}

fn nothing_of_the_host_is_open() {
    let ship = Ship::launch();
    let others = sleeper(&ship);
    let (code, text) = ship.sh("ls /proc/self/fd; cat /proc/self/mountinfo");
    assert_eq!(code, 0);
    // 3 is the listing's own
    assert!(text.starts_with("0\n1\n2\n3\n"), "{text}");
    let host = others.1.pid;
    let mounts = fs::read_to_string(format!("/proc/{host}/mountinfo")).unwrap();
    assert!(!mounts.contains("/dev/vda") || !mounts.contains(" /home "), "{mounts}");
    let descriptors = fs::read_dir(format!("/proc/{host}/fd")).unwrap().count();
    assert_eq!(descriptors, 3);
    let _ = others.1.netns.as_fd();
}

/// A cgroup of the test's own in one hierarchy; removed with the test.
struct Cgroup(std::path::PathBuf);

impl Cgroup {
    fn new(hierarchy: &str) -> Option<Self> {
        let name = format!("bulkhead-warden-{}", Id::random().short());
        let path = std::path::Path::new(hierarchy).join(name);
        fs::create_dir(&path).ok().map(|()| Self(path))
    }

    fn procs(&self) -> String {
        fs::read_to_string(self.0.join("cgroup.procs")).unwrap()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn cgroups_are_joined_at_birth() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let find = |kind: &str| {
        let of_kind = mounts.lines().filter(|line| line.split(' ').nth(2) == Some(kind));
        of_kind.filter_map(|line| line.split(' ').nth(1)).map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let v1 = find("cgroup").into_iter().find(|path| path.ends_with("/pids"));
    let v1 = v1.and_then(|path| Cgroup::new(&path));
    let v2 = find("cgroup2").first().and_then(|path| Cgroup::new(path));
    if v1.is_none() && v2.is_none() {
        return bulkhead_sys::testing::skip("no cgroup hierarchy is mounted");
    }
    let ship = Ship::launch();
    let mut wish = ship.wish(&["sleep", "1000"]);
    let open = |v1: &Option<Cgroup>, v2: &Option<Cgroup>, fds: &mut Vec<std::os::fd::OwnedFd>| {
        let mut add = |fd: fs::File| {
            fds.push(fd.into());
            FdIndex(fds.len() as u16 - 1)
        };
        let write = |path: std::path::PathBuf| fs::File::options().write(true).open(path).unwrap();
        let v1 = v1.iter().map(|it| add(write(it.0.join("cgroup.procs")))).collect::<Vec<_>>();
        (v1, v2.as_ref().map(|it| add(fs::File::open(&it.0).unwrap())))
    };
    (wish.spec.cgroup_v1_procs, wish.spec.cgroup_v2) = open(&v1, &v2, &mut wish.fds);
    let id = wish.id;
    let created = ship.create(wish).unwrap();
    ship.client.start(id).unwrap();
    for cgroup in v1.iter().chain(&v2) {
        assert_eq!(cgroup.procs(), format!("{}\n", created.pid));
    }
    let (ours, theirs) = UnixStream::pair().unwrap();
    let exec = Id::random();
    let mut fds = vec![theirs.into()];
    let (cgroup_v1_procs, cgroup_v2) = open(&v1, &v2, &mut fds);
    let attachments =
        vec![Attachment { socket: FdIndex(0), stdin: true, stdout: true, stderr: true }];
    let process = process(&["sh", "-c", "cat /proc/self/cgroup; read x"]);
    let stdin_open = true;
    let request = Exec {
        container: id,
        id: exec,
        process,
        cgroup_v1_procs,
        cgroup_v2,
        stdin_open,
        attachments,
        lifetime: Lifetime::Free,
    };
    let (pid, _pidfd) = ship.client.exec(request, fds).unwrap();
    for cgroup in v1.iter().chain(&v2) {
        assert_eq!(
            cgroup.procs().lines().take(2).collect::<Vec<_>>(), // `cat` may be the third
            [created.pid.to_string(), pid.to_string()]
        );
    }
    ours.shutdown(Shutdown::Write).unwrap();
    let text: String = frames(ours).into_iter().map(|(_, text)| text).collect();
    for line in text.lines().filter(|line| line.contains(":pids:") || line.starts_with("0::")) {
        assert!(line.ends_with(":/"), "the namespace starts at the container's cgroup: {text}");
    }
    pidfd_send_signal(&created.pidfd, Signal::KILL).unwrap();
    ship.exit(id);
}

fn a_waiting_process_shows_nothing_of_the_warden() {
    let ship = Ship::launch();
    let wish = ship.wish(&["true"]);
    let id = wish.id;
    let created = ship.create(wish).unwrap();
    // `/proc/PID` of a process that is not dumpable belongs to the host's root, whatever its uid
    let status = fs::read_to_string(format!("/proc/{}/status", created.pid)).unwrap();
    let uid = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    assert!(uid.contains(&RANGE.first.to_string()), "{uid}");
    let owner = rustix::fs::stat(format!("/proc/{}/environ", created.pid)).unwrap().st_uid;
    assert_eq!(owner, 0);
    ship.client.forget(id).unwrap();
}

/// A container's program may be `/proc/self/exe`: what it is then must not be open to writing.
fn the_wardens_program_is_read_only_to_everybody() {
    use rustix::fs::StatVfsMountFlags;
    let ship = Ship::launch();
    let wish = ship.wish(&["true"]);
    let id = wish.id;
    let created = ship.create(wish).unwrap();
    // still the warden's own program, until it is let go
    let program = format!("/proc/{}/exe", created.pid);
    let flags = rustix::fs::statvfs(&program).unwrap().f_flag;
    assert!(flags.contains(StatVfsMountFlags::RDONLY), "{flags:?}");
    let owner = rustix::fs::chown(&program, None, None);
    assert_eq!(owner, Err(rustix::io::Errno::ROFS));
    ship.client.forget(id).unwrap();
}

/// A detached, id-mapped clone of something of the host, as the engine makes for `-v`.
fn bind(ship: &Ship, wish: &mut Wish, source: &std::path::Path, target: &str, readonly: bool) {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, source, flags).unwrap();
    let userns = ship.client.user_namespace(RANGE).unwrap();
    set_id_mapping(tree.as_fd(), Depth::One, userns.as_fd()).unwrap();
    wish.fds.push(tree);
    let fd = FdIndex(wish.fds.len() as u16 - 1);
    let kind = MountKind::Detached { fd, is_directory: source.is_dir() };
    let target = target.to_owned();
    let (nosuid, nodev, noexec) = (false, false, false);
    wish.spec.mounts.push(Mount { target, kind, readonly, nosuid, nodev, noexec });
}

fn bind_mounts_keep_owners_and_flags() {
    let ship = Ship::launch();
    let volume = ship.directory.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("of-33"), "content\n").unwrap();
    std::os::unix::fs::chown(volume.join("of-33"), Some(33), Some(33)).unwrap();
    let mut wish = ship.wish(&[
        "sh",
        "-c",
        "stat -c %u /data/of-33; cat /made/deep/file; touch /data/new && echo rw; \
         touch /closed/new || echo ro; echo x > /made/deep/file || echo ro",
    ]);
    bind(&ship, &mut wish, &volume, "/data", false);
    bind(&ship, &mut wish, &volume, "/closed", true);
    bind(&ship, &mut wish, &volume.join("of-33"), "/made/deep/file", true);
    let (_, text) = ship.run(wish);
    let lines: Vec<_> = text.lines().filter(|line| !line.contains(": ")).collect();
    assert_eq!(lines, ["33", "content", "rw", "ro", "ro"], "{text}");
    let new = rustix::fs::stat(volume.join("new")).unwrap();
    assert_eq!((new.st_uid, new.st_gid), (0, 0));
}

fn mounts_are_not_shared_with_the_host() {
    // in this thread's own copy of the mounts, which is made as systemd makes the host's
    bulkhead_sys::unshare(rustix::thread::UnshareFlags::NEWNS).unwrap();
    use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
    let (private, shared) = (MountPropagationFlags::PRIVATE, MountPropagationFlags::SHARED);
    mount_change("/", private | MountPropagationFlags::REC).unwrap();
    mount_change("/", shared | MountPropagationFlags::REC).unwrap();
    let ship = Ship::launch();
    let volume = ship.directory.path().join("volume");
    fs::create_dir(&volume).unwrap();
    mount_bind(&volume, &volume).unwrap();
    let mut wish =
        ship.wish(&["sh", "-c", "grep -c shared: /proc/self/mountinfo; mount -t tmpfs x /data"]);
    wish.spec.process.capabilities = Capabilities(u64::MAX);
    bind(&ship, &mut wish, &volume, "/data", false);
    assert_eq!(ship.run(wish), (0, "0\n".into()));
    rustix::mount::unmount(&volume, rustix::mount::UnmountFlags::DETACH).unwrap();
}

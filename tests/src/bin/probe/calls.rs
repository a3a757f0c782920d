//! System calls, in each of the three ways of calling.

use std::os::fd::AsRawFd;

use bulkhead_sys::testing::{self, Abi, call};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

use crate::{io_outcome, outcome, say};

const NEWUSER: u64 = 0x1000_0000;
const CHILD: u64 = 17;
/// No address, no descriptor, no flag.
const BAD: u64 = u64::MAX;

/// Name, number, arguments; each fails somehow, or does nothing, where it is let through.
const CALLS: &[(&str, u32, [u64; 6])] = &[
    ("unshare user", 272, [NEWUSER, 0, 0, 0, 0, 0]),
    ("clone user", 56, [NEWUSER | CHILD, 0, 0, 0, 0, 0]),
    ("clone3", 435, [0; 6]),
    ("settimeofday", 164, [0; 6]),
    ("io_uring_setup", 425, [1, BAD, 0, 0, 0, 0]),
    ("io_uring_enter", 426, [BAD; 6]),
    ("io_uring_register", 427, [BAD; 6]),
    ("keyctl", 250, [0, -3i64 as u64, 0, 0, 0, 0]),
    ("add_key", 248, [0; 6]),
    ("request_key", 249, [0; 6]),
    ("bpf", 321, [BAD; 6]),
    ("perf_event_open", 298, [BAD; 6]),
    ("userfaultfd", 323, [1, 0, 0, 0, 0, 0]),
    ("open_by_handle_at", 304, [BAD; 6]),
    ("fsopen", 430, [BAD; 6]),
    ("fsconfig", 431, [BAD; 6]),
    ("fsmount", 432, [BAD; 6]),
    ("fspick", 433, [BAD; 6]),
    ("open_tree", 428, [BAD; 6]),
    ("move_mount", 429, [BAD; 6]),
    ("mount_setattr", 442, [BAD; 6]),
    ("open_tree_attr", 467, [BAD; 6]),
    ("listns", 470, [BAD; 6]),
    // with these flags never a kernel is loaded nor unloaded
    ("kexec_load", 246, [0, 0, 0, BAD, 0, 0]),
    ("init_module", 175, [0; 6]),
    ("finit_module", 313, [BAD; 6]),
    ("delete_module", 176, [0; 6]),
    // reboot(2) without its two magic numbers does nothing
    ("reboot", 169, [BAD; 6]),
    ("swapon", 167, [BAD; 6]),
    ("acct", 163, [BAD; 6]),
    ("quotactl", 179, [BAD; 6]),
    ("syslog", 103, [3, 0, 0, 0, 0, 0]),
    ("iopl", 172, [3, 0, 0, 0, 0, 0]),
    ("ioperm", 173, [0x80, 1, 1, 0, 0, 0]),
    ("personality", 135, [0x4_0000, 0, 0, 0, 0, 0]),
    ("pidfd_getfd", 438, [BAD; 6]),
    ("kcmp", 312, [BAD; 6]),
    ("process_madvise", 440, [BAD; 6]),
    ("mbind", 237, [BAD; 6]),
    ("set_mempolicy", 238, [0; 6]),
    ("pivot_root", 155, [0; 6]),
    ("newer than the list", 900, [0; 6]),
];

pub fn tell() {
    for (name, number, arguments) in CALLS {
        say(name, made(Abi::Native, *number, *arguments));
    }
    #[cfg(target_arch = "x86_64")]
    {
        say("unshare user i386", made(Abi::I386, 310, [NEWUSER, 0, 0, 0, 0, 0]));
        say("unshare user x32", made(Abi::X32, 272, [NEWUSER, 0, 0, 0, 0, 0]));
        for number in 425..=427 {
            say(&format!("io_uring i386 {number}"), made(Abi::I386, number, [BAD; 6]));
        }
        const VSOCK: u32 = 40;
        let found = testing::socketcall32(VSOCK).map_or_else(|| "absent".to_owned(), outcome);
        say("socketcall vsock", found);
    }
    for (name, family) in [("socket vsock", 40), ("socket alg", 38), ("socket packet", 17)] {
        say(name, outcome(testing::socket(family)));
    }
    // the name that it has already
    let own = rustix::system::uname();
    say("sethostname", outcome(rustix::system::sethostname(own.nodename().to_bytes())));
    say("setdomainname", outcome(rustix::system::setdomainname(own.domainname().to_bytes())));
    for (name, path) in [("setns own", "/proc/self/ns/uts"), ("setns init", "/proc/1/ns/net")] {
        match rustix::fs::open(path, OFlags::RDONLY, Mode::empty()) {
            Ok(fd) => say(name, made(Abi::Native, 308, [fd.as_raw_fd() as u64, 0, 0, 0, 0, 0])),
            Err(errno) => say(name, testing::name(errno)),
        }
    }
    if let Some(pid) = std::env::var("PROBE_HOST_PID").ok().and_then(|pid| pid.parse().ok()) {
        say("kill host", made(Abi::Native, 62, [pid, 0, 0, 0, 0, 0]));
    }
    // IPC_CREAT is not asked for: only what is there is found
    if let Some(key) = std::env::var("PROBE_SHM").ok().and_then(|key| key.parse().ok()) {
        say("shm of the host", made(Abi::Native, 29, [key, 0, 0, 0, 0, 0]));
    }
    mounts();
}

fn mounts() {
    let _ = std::fs::create_dir_all("/tmp/probe-mount");
    let none = None::<&std::ffi::CStr>;
    for (name, source, kind) in [
        ("mount tmpfs", "none", "tmpfs"),
        ("mount proc", "proc", "proc"),
        ("mount sysfs", "sysfs", "sysfs"),
    ] {
        let made = mount(source, "/tmp/probe-mount", kind, MountFlags::empty(), none);
        say(name, outcome(made));
        if made.is_ok() {
            let setting = "/tmp/probe-mount/sys/kernel/core_pattern";
            if kind == "proc" {
                let opened = std::fs::OpenOptions::new().write(true).open(setting);
                say("core_pattern of a mount", io_outcome(opened));
            }
            let _ = unmount("/tmp/probe-mount", UnmountFlags::DETACH);
        }
    }
    let made = mount("cgroup", "/tmp/probe-mount", "cgroup", MountFlags::empty(), c"memory");
    say("mount cgroup", outcome(made));
    if made.is_ok() {
        let agent = std::fs::OpenOptions::new().write(true).open("/tmp/probe-mount/release_agent");
        say("release_agent of a mount", io_outcome(agent));
        let _ = unmount("/tmp/probe-mount", UnmountFlags::DETACH);
    }
    let bound = rustix::mount::mount_bind("/proc/sys", "/tmp/probe-mount");
    say("mount bind", outcome(bound));
    if bound.is_ok() {
        let _ = unmount("/tmp/probe-mount", UnmountFlags::DETACH);
    }
    let layers = c"lowerdir=/bin,upperdir=/tmp,workdir=/tmp";
    let flags = MountFlags::empty();
    say("mount overlay", outcome(mount("o", "/tmp/probe-mount", "overlay", flags, layers)));
    for path in
        ["/proc/keys", "/proc/timer_list", "/proc/interrupts", "/proc/acpi", "/sys/firmware"]
    {
        let found = if std::path::Path::new(path).exists() {
            outcome(unmount(path, UnmountFlags::DETACH))
        } else {
            "absent".to_owned()
        };
        say(&format!("umount {path}"), found);
    }
    for path in ["/proc/sys", "/sys"] {
        let again = mount_remount(path, MountFlags::BIND, c"");
        say(&format!("remount {path}"), outcome(again));
    }
    say("chroot escape", chroot_escape());
}

/// The classic one: a root below, a descriptor above it, and up as far as it goes.
pub fn chroot_escape() -> String {
    let _ = std::fs::create_dir_all("/tmp/probe-mount");
    let Ok(root) = rustix::fs::open("/", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) else {
        return "no root".to_owned();
    };
    let pid = bulkhead_sys::process::fork(|| {
        let escaped = (|| -> Result<bool, rustix::io::Errno> {
            rustix::process::chroot("/tmp/probe-mount")?;
            rustix::process::fchdir(&root)?;
            for _ in 0..64 {
                rustix::process::chdir("..")?;
            }
            let (there, ours) = (rustix::fs::stat(".")?, rustix::fs::fstat(&root)?);
            Ok((there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino))
        })();
        match escaped {
            Ok(false) => 0,
            Ok(true) => 1,
            Err(_) => 2,
        }
    });
    let Some(pid) = pid.ok().and_then(|pid| rustix::process::Pid::from_raw(pid as i32)) else {
        return "no child".to_owned();
    };
    let options = rustix::process::WaitIdOptions::EXITED;
    let ended = rustix::process::waitid(rustix::process::WaitId::Pid(pid), options);
    match ended.ok().flatten().and_then(|status| status.exit_status()) {
        Some(0) => "inside".to_owned(),
        Some(1) => "outside".to_owned(),
        _ => "no chroot".to_owned(),
    }
}

fn made(abi: Abi, number: u32, arguments: [u64; 6]) -> String {
    call(abi, number, arguments).map_or_else(testing::name, |called| called.to_string())
}

/// Every call of the table, in each way of calling, with arguments that are no address, descriptor
/// or flag: `EPERM` comes from the filter or from a capability.
pub fn sweep() -> Result<(), String> {
    // They end or stop the caller, or hang up its terminal.
    const LEFT_OUT: [&str; 10] = [
        "exit",
        "exit_group",
        "pause",
        "rt_sigreturn",
        "sigreturn",
        "vhangup",
        "sync",
        "syncfs",
        "idle",
        "rt_sigsuspend",
    ];
    let table = include_str!("../../../../crates/runtime/src/seccomp/syscalls.txt");
    let mut columns: Vec<(&str, Abi)> = vec![("native", Abi::Native)];
    #[cfg(target_arch = "x86_64")]
    columns.extend([("i386", Abi::I386), ("x32", Abi::X32)]);
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(' ').collect();
        if LEFT_OUT.contains(&fields[0]) {
            continue;
        }
        for (index, (label, abi)) in columns.iter().enumerate() {
            let Some(number) = fields.get(index + 1).and_then(|field| field.parse().ok()) else {
                continue;
            };
            say(&format!("{label} {}", fields[0]), made(*abi, number, [BAD; 6]));
        }
    }
    Ok(())
}

/// For `act`: attaches to a process without stopping it (`PTRACE_SEIZE`), and reads its memory.
pub fn trace(pid: u64) -> (String, String) {
    const SEIZE: u64 = 0x4206;
    let memory = std::fs::File::open(format!("/proc/{pid}/mem"));
    (made(Abi::Native, 101, [SEIZE, pid, 0, 0, 0, 0]), io_outcome(memory))
}

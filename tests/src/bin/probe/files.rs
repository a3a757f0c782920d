//! Files, devices, descriptors and identities.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, makedev, mknodat};

use crate::{io_outcome, outcome, say};

/// Settings of the host: opened for writing, and closed again.
const SETTINGS: &[&str] = &[
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/shmmax",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/domainname",
    "/proc/sys/fs/file-max",
    "/proc/sys/fs/suid_dumpable",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sysrq-trigger",
    "/proc/irq/default_smp_affinity",
    "/sys/kernel/uevent_helper",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/kernel/profiling",
    "/sys/power/state",
];

const READ: &[&str] = &[
    "/proc/keys",
    "/proc/timer_list",
    "/proc/interrupts",
    "/proc/slabinfo",
    "/proc/vmallocinfo",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/pagetypeinfo",
    "/proc/kmsg",
];

/// Block or character, numbers. Each is opened at most, and nothing is read.
const DEVICES: &[(&str, FileType, u32, u32)] = &[
    ("loop0", FileType::BlockDevice, 7, 0),
    ("mem", FileType::CharacterDevice, 1, 1),
    ("kmsg", FileType::CharacterDevice, 1, 11),
    ("fuse", FileType::CharacterDevice, 10, 229),
    ("kvm", FileType::CharacterDevice, 10, 232),
    ("loop-control", FileType::CharacterDevice, 10, 237),
    ("tun", FileType::CharacterDevice, 10, 200),
];

pub fn tell() {
    for kind in ["pid", "net", "ipc", "mnt", "uts", "cgroup", "time", "user"] {
        let link = std::fs::read_link(format!("/proc/self/ns/{kind}"));
        say(&format!("ns {kind}"), link.map_or_else(|_| "?".into(), |it| it.display().to_string()));
    }
    for line in std::fs::read_to_string("/proc/self/status").unwrap_or_default().lines() {
        if let Some((name, value)) = line.split_once(':') {
            say(&format!("status {name}"), value.trim());
        }
    }
    let ids = list("/proc").into_iter().filter(|name| name.parse::<u32>().is_ok()).count();
    say("processes", ids);
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    say("abstract canary", count(&sockets, "@canary"));
    say("abstract bulkhead", count(&sockets, "@bulkhead"));
    say("queues", list("/dev/mqueue").join(" "));
    say("links", list("/sys/class/net").join(" "));
    say("descriptors", list("/proc/self/fd").join(" "));
    say("devices", list("/dev").join(" "));
    say("time offsets", std::fs::read_to_string("/proc/self/timens_offsets").is_ok());
    for path in SETTINGS {
        say(
            &format!("write {path}"),
            io_outcome(std::fs::OpenOptions::new().write(true).open(path)),
        );
    }
    for path in READ {
        say(&format!("read {path}"), read(path));
    }
    for path in ["/proc/acpi", "/sys/firmware", "/proc/bus", "/proc/fs"] {
        let entries = std::fs::read_dir(path).map(Iterator::count);
        say(&format!("list {path}"), entries.map_or_else(|_| "absent".into(), |n| n.to_string()));
    }
    let symbols = std::fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    let shown = symbols.lines().filter(|line| !line.starts_with("0000000000000000")).count();
    say("kallsyms shown", if symbols.is_empty() { "absent".into() } else { shown.to_string() });
    masks();
    leaks();
    for place in ["root", "cwd"] {
        let seen = std::fs::metadata(format!("/proc/1/{place}/.probe-root"));
        say(&format!("init {place}"), io_outcome(seen));
    }
    say("oom score", io_outcome(std::fs::write("/proc/self/oom_score_adj", "-1000")));
    nodes();
    cgroups();
}

fn masks() {
    let rename = std::fs::rename("/proc/timer_list", "/proc/timer_list2");
    say("rename a masked file", io_outcome(rename));
    say("remove a masked file", io_outcome(std::fs::remove_file("/proc/timer_list")));
    let touched = std::fs::File::create("/sys/firmware/canary");
    say("create in a masked directory", io_outcome(touched));
}

/// How often what the host alone should know is to be read here.
fn leaks() {
    let secret = std::env::var("PROBE_SECRET").unwrap_or_default();
    if secret.is_empty() {
        return;
    }
    for path in ["/proc/self/mountinfo", "/proc/self/cgroup", "/etc/mtab", "/proc/self/mounts"] {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let layers = text.lines().find(|line| line.contains(&secret) && line.contains("lowerdir"));
        say(&format!("leak {path}"), count(&text, &secret));
        say(&format!("layers {path}"), layers.unwrap_or("0"));
    }
}

fn nodes() {
    for (name, kind, major, minor) in DEVICES {
        let path = format!("/tmp/probe-{name}");
        let mode = Mode::from_raw_mode(0o666);
        let made = mknodat(rustix::fs::CWD, &path, *kind, mode, makedev(*major, *minor));
        let found = match made {
            Err(errno) => format!("mknod {}", bulkhead_sys::testing::name(errno)),
            Ok(()) => {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
                let opened = rustix::fs::open(&path, flags, Mode::empty());
                let _ = std::fs::remove_file(&path);
                format!("open {}", outcome(opened))
            }
        };
        say(&format!("device {name}"), found);
    }
    // one that came with the image
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    say("image device", outcome(rustix::fs::open("/image-device", flags, Mode::empty())));
    for line in std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        if let [_, _, _, _, at, options, ..] = fields.as_slice()
            && matches!(*at, "/dev/shm" | "/dev/mqueue" | "/proc" | "/sys")
        {
            say(&format!("options {at}"), options);
        }
    }
    let shm = rustix::fs::statfs("/dev/shm");
    let size = shm.map_or(0, |it| it.f_blocks * it.f_bsize as u64);
    say("size of shm", size);
}

fn cgroups() {
    let base = Path::new("/sys/fs/cgroup");
    let (mut writes, mut makes, mut agents) = (BTreeSet::new(), BTreeSet::new(), 0);
    let mut places = vec![base.to_owned()];
    places.extend(list("/sys/fs/cgroup").iter().map(|name| base.join(name)));
    for place in places.iter().filter(|place| place.is_dir()) {
        for file in ["notify_on_release", "cgroup.procs", "devices.allow", "tasks", "pids.max"] {
            let path = place.join(file);
            if path.exists() {
                writes.insert(io_outcome(std::fs::OpenOptions::new().write(true).open(path)));
            }
        }
        agents += usize::from(place.join("release_agent").exists());
        let directory = place.join("probe-made");
        let made = std::fs::create_dir(&directory);
        if made.is_ok() {
            let _ = std::fs::remove_dir(&directory);
        }
        makes.insert(io_outcome(made));
    }
    let text = |set: BTreeSet<String>| set.into_iter().collect::<Vec<_>>().join(" ");
    say("cgroup writes", text(writes));
    say("cgroup mkdir", text(makes));
    say("release agents", agents);
}

pub fn read(path: &str) -> String {
    let opened = std::fs::OpenOptions::new().read(true).open(path);
    let mut bytes = [0; 64];
    match opened {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => "absent".to_owned(),
        // reading kmsg would wait, and take what is meant for the host
        Ok(_) if path == "/proc/kmsg" => "open".to_owned(),
        Ok(mut file) => match file.read(&mut bytes) {
            Ok(length) => format!("{length} bytes"),
            error => io_outcome(error),
        },
        error => io_outcome(error),
    }
}

pub fn list(path: &str) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn count(text: &str, word: &str) -> usize {
    text.lines().filter(|line| line.contains(word)).count()
}

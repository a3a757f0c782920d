//! F: devices.

use anyhow::Result;

use crate::judge::{Case, Control, Mode, Outcome, all, each, ensure, facts, scene};
use crate::rig::{Facts, Rig};

const ROOT: &[Mode] = &[Mode::Default, Mode::Host];

pub const CASES: &[Case] = &[
    facts("F1", |facts, _| {
        let found = facts.of("devices");
        let expected = "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom \
                        zero";
        ensure(found == expected, || format!("/dev holds {found}"))
    }),
    facts("F2", |facts, _| {
        let devices = ["loop0", "mem", "kmsg", "fuse", "kvm", "loop-control"];
        let names = devices.map(|name| format!("device {name}"));
        all(names.iter().map(|name| closed(facts, name)))
    }),
    facts("F3", |facts, _| closed(facts, "device tun")),
    scene("F4", ROOT, |rig, flags| allow_list(rig, flags), Control::Flags(&["--privileged"])),
    scene(
        "F5",
        ROOT,
        survives,
        Control::Other("the same device given", |rig| {
            let box_ = rig.stay(&["--userns=host", "--device", "/dev/fuse"], &[])?;
            opened(&box_.probe(&[], &["write", "/dev/fuse"])?)
        }),
    ),
    facts("F6", |facts, _| each(facts, &["image device"], &["EPERM", "EACCES"])),
    facts("F7", |facts, _| {
        for place in ["/dev/shm", "/dev/mqueue", "/proc", "/sys"] {
            let options = facts.of(&format!("options {place}"));
            for option in ["nosuid", "nodev", "noexec"] {
                if !options.split(',').any(|found| found == option) {
                    return Outcome::Failed(format!("{place} is {options}, without {option}"));
                }
            }
        }
        let size = facts.number("size of shm");
        ensure(size == 64 << 20, || format!("/dev/shm holds {size} bytes"))
    }),
];

/// Not to be made, or not to be opened by decision and not for want of the device.
fn closed(facts: &Facts, name: &str) -> Outcome {
    let found = facts.of(name);
    ensure(matches!(found, "mknod EPERM" | "open EPERM" | "open EACCES"), || {
        format!("{name}: {found}")
    })
}

fn allow_list(rig: &Rig, flags: &[&str]) -> Result<Outcome> {
    let base = std::path::Path::new("/sys/fs/cgroup/devices");
    if !base.is_dir() {
        return Ok(Outcome::Skipped("no devices controller of cgroup v1 here".to_owned()));
    }
    let box_ = rig.stay(flags, &[])?;
    let text = std::fs::read_to_string(format!("/proc/{}/cgroup", box_.pid()?))?;
    let path = text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (names, path) = rest.split_once(':')?;
        names.split(',').any(|name| name == "devices").then(|| path.to_owned())
    });
    let Some(path) = path else { return Ok(Outcome::Failed("it is in no cgroup".to_owned())) };
    let file = base.join(path.trim_start_matches('/')).join("devices.list");
    let list = std::fs::read_to_string(&file)?;
    // mknod of anything, and Docker's list without tun; /dev/console and ptys are its own
    const ALLOWED: &[&str] = &[
        "b *:* m",
        "c *:* m",
        "c 1:3 rwm",
        "c 1:5 rwm",
        "c 1:7 rwm",
        "c 1:8 rwm",
        "c 1:9 rwm",
        "c 5:0 rwm",
        "c 5:1 rwm",
        "c 5:2 rwm",
        "c 136:* rwm",
    ];
    let wide: Vec<&str> = list.lines().filter(|line| !ALLOWED.contains(line)).collect();
    Ok(ensure(wide.is_empty() && !list.is_empty(), || format!("allows {}", wide.join(", "))))
}

/// What a restart of the engine must not widen.
fn survives(rig: &Rig, flags: &[&str]) -> Result<Outcome> {
    let before = allow_list(rig, flags)?;
    let box_ = rig.stay(flags, &[])?;
    rig.daemon.crash()?;
    rig.daemon.up()?;
    let made = box_.exec(&[], &["sh", "-c", "ls /dev/fuse"])?;
    Ok(all([before, allow_list(rig, flags)?, ensure(made.code != 0, || made.stdout.clone())]))
}

fn opened(facts: &Facts) -> Result<Outcome> {
    let found = facts.of("write /dev/fuse");
    Ok(ensure(matches!(found, "ENOENT" | "EPERM"), || format!("/dev/fuse: {found}")))
}

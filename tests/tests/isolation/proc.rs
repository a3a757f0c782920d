//! D: /proc and /sys.

use anyhow::Result;

use crate::judge::{Case, Control, MODES, Mode, Outcome, all, each, ensure, facts, scene};
use crate::rig::Rig;

pub const CASES: &[Case] = &[
    facts("D1", |facts, _| {
        const SETTINGS: &[&str] = &[
            "write /proc/sys/kernel/core_pattern",
            "write /proc/sys/kernel/shmmax",
            "write /proc/sys/kernel/hostname",
            "write /proc/sys/kernel/domainname",
            "write /proc/sys/fs/file-max",
            "write /proc/sys/fs/suid_dumpable",
            "write /proc/sys/vm/overcommit_memory",
        ];
        each(facts, SETTINGS, &["EROFS", "EACCES"])
    }),
    facts("D2", |facts, _| {
        let files = ["write /proc/sysrq-trigger", "write /proc/irq/default_smp_affinity"];
        each(facts, &files, &["EROFS", "EACCES"])
    }),
    facts("D3", |facts, _| {
        all([
            each(
                facts,
                &["read /proc/keys", "read /proc/timer_list", "read /proc/interrupts"],
                &["0 bytes", "EACCES"],
            ),
            each(facts, &["list /proc/acpi", "list /sys/firmware"], &["0"]),
        ])
    }),
    facts("D4", |facts, _| {
        const MASKS: &[&str] = &[
            "umount /proc/keys",
            "umount /proc/timer_list",
            "umount /proc/interrupts",
            "umount /proc/acpi",
            "umount /sys/firmware",
        ];
        each(facts, MASKS, &["EPERM"])
    }),
    facts("D5", |facts, _| {
        all([
            each(
                facts,
                &["rename a masked file", "remove a masked file"],
                // procfs itself has no rename nor unlink: EPERM, and EBUSY for a mount point
                &["EROFS", "EACCES", "EBUSY", "EPERM"],
            ),
            each(facts, &["create in a masked directory"], &["EROFS", "EACCES"]),
        ])
    }),
    facts("D6", |facts, _| each(facts, &["remount /proc/sys", "remount /sys"], &["EPERM"])),
    facts("D7", |facts, _| each(facts, &["mount proc", "mount sysfs"], &["EPERM"])),
    scene(
        "D7",
        &[Mode::Default],
        |rig, flags| {
            // Who is given SYS_ADMIN in its own user namespace can have a second one without masks:
            // the host's settings are closed to it by their owner.
            let facts = rig.facts(&[flags, &["--cap-add", "SYS_ADMIN"]].concat())?;
            let found = [facts.of("mount proc"), facts.of("core_pattern of a mount")];
            let closed = found[0] == "EPERM" || found == ["ok", "EACCES"];
            Ok(ensure(closed, || format!("{found:?}")))
        },
        Control::Flags(&["--privileged"]),
    ),
    facts("D8", |facts, mode| {
        const FILES: &[&str] = &[
            "read /proc/slabinfo",
            "read /proc/vmallocinfo",
            "read /proc/kpagecount",
            "read /proc/kpageflags",
            "read /proc/pagetypeinfo",
            "read /proc/kmsg",
        ];
        if mode == Mode::Host {
            // Docker's containers read them too, but for this one
            return each(facts, &["read /proc/kmsg"], &["EACCES", "EPERM"]);
        }
        each(facts, FILES, &["EACCES", "EPERM"])
    }),
    facts("D9", |facts, _| match facts.of("kallsyms shown") {
        "absent" => Outcome::Skipped("no /proc/kallsyms".to_owned()),
        shown => ensure(shown == "0", || format!("{shown} addresses are shown")),
    }),
    scene(
        "D10",
        MODES,
        |rig, flags| {
            let facts = rig.facts(flags)?;
            let names =
                ["/proc/self/mountinfo", "/proc/self/mounts", "/proc/self/cgroup", "/etc/mtab"];
            let shown: Vec<String> = names
                .iter()
                .map(|name| facts.of(&format!("layers {name}")))
                .filter(|line| *line != "0")
                .map(str::to_owned)
                .collect();
            let lines = facts.of("leak /proc/self/mountinfo");
            println!(
                "note D10: {lines} lines of mountinfo name the engine's directory ({flags:?})"
            );
            let cgroup = facts.number("leak /proc/self/cgroup");
            Ok(ensure(shown.is_empty() && cgroup == 0, || format!("image store in {shown:?}")))
        },
        Control::Other("an overlay mount by path on the host", |rig| {
            let base = rig.daemon.data().join("control");
            let _ = std::fs::create_dir_all(base.join("lower"));
            let _ = std::fs::create_dir_all(base.join("at"));
            let line = format!(
                "mount -t overlay o -o lowerdir={0}/lower:/mnt {0}/at && grep -c 'lowerdir={0}' \
             /proc/self/mountinfo; umount {0}/at; rm -r {0}",
                base.display()
            );
            let said =
                rig.daemon.shell(&format!("unshare -m sh -c '{}'", line.replace('\'', "\"")))?;
            Ok(ensure(said.stdout.trim() == "0", || format!("shown {} times", said.stdout.trim())))
        }),
    ),
    facts("D11", |facts, _| {
        const FILES: &[&str] = &[
            "write /sys/kernel/uevent_helper",
            "write /sys/kernel/mm/transparent_hugepage/enabled",
            "write /sys/kernel/profiling",
            "write /sys/power/state",
        ];
        all([
            each(facts, FILES, &["EROFS", "EACCES"]),
            each_word(facts.of("cgroup writes"), &["EROFS", "EACCES"]),
        ])
    }),
    facts("D12", |facts, mode| {
        if mode == Mode::User && facts.of("init root") == "EACCES" {
            return Outcome::Ok;
        }
        each(facts, &["init root"], &["ok"])
    }),
    scene(
        "D13",
        &[Mode::Default, Mode::Host],
        |rig, flags| {
            let names = ["kernel.core_pattern=x", "vm.overcommit_memory=0", "fs.file-max=1000000"];
            let tried = names.map(|sysctl| sysctl_refused(rig, flags, sysctl));
            Ok(all(tried.into_iter().collect::<Result<Vec<_>>>()?))
        },
        Control::Other("net.ipv4.ip_forward, which is its own", |rig| {
            sysctl_refused(rig, &[], "net.ipv4.ip_forward=1")
        }),
    ),
    scene(
        "D14",
        &[Mode::Default, Mode::Host],
        |rig, flags| {
            let places = ["/proc/self/attr", "/proc/sys", "/proc/1", "/proc"];
            let tried = places.map(|place| bind_refused(rig, flags, place));
            Ok(all(tried.into_iter().collect::<Result<Vec<_>>>()?))
        },
        Control::Other("a bind mount on /mnt", |rig| bind_refused(rig, &[], "/mnt")),
    ),
];

pub fn each_word(text: &str, wanted: &[&str]) -> Outcome {
    if text.is_empty() {
        return Outcome::Skipped("there are no such files".to_owned());
    }
    let wrong = text.split(' ').find(|word| !wanted.contains(word) && *word != "ENOENT");
    ensure(wrong.is_none(), || format!("{text}, not {}", wanted.join(" or ")))
}

fn sysctl_refused(rig: &Rig, flags: &[&str], sysctl: &str) -> Result<Outcome> {
    let said = rig.run(&[flags, &["--sysctl", sysctl]].concat(), &["true"])?;
    Ok(ensure(said.code != 0, || format!("--sysctl {sysctl} was taken")))
}

fn bind_refused(rig: &Rig, flags: &[&str], place: &str) -> Result<Outcome> {
    let canary = rig.daemon.directory().join("canary-directory");
    std::fs::create_dir_all(&canary)?;
    let volume = format!("{}:{place}", canary.display());
    let said = rig.run(&[flags, &["-v", &volume]].concat(), &["true"])?;
    Ok(ensure(said.code != 0, || format!("a bind mount on {place} was made")))
}

//! C: the filter, by each way of calling the kernel.

use anyhow::Result;

use crate::judge::{Case, Control, MODES, Mode, Outcome, all, each, ensure, facts, scene};
use crate::rig::{Facts, Rig};

pub const CASES: &[Case] = &[
    scene("C1", MODES, deny_list, Control::Flags(UNCONFINED)),
    scene(
        "C2",
        MODES,
        no_way_around,
        Control::Other("int 0x80 without a filter", |rig| {
            // the list of 64-bit denials with the filter, against the 32-bit calls without one
            let filtered = rig.probe(&[], &["sweep"])?;
            let open = rig.probe(UNCONFINED, &["sweep"])?;
            Ok(compare(&filtered, &open))
        }),
    ),
    facts("C3", |facts, _| {
        // a kernel without the family says so before anything else does
        all([
            each(facts, &["socket vsock"], &["EPERM"]),
            each(facts, &["socket alg"], &["EPERM", "EAFNOSUPPORT"]),
            // NET_RAW alone does not open it
            each(facts, &["socket packet"], &["EPERM"]),
        ])
    }),
    facts("C4", |facts, _| {
        each(facts, &["socketcall vsock"], &["EPERM", "ENOSYS", "EAFNOSUPPORT"])
    }),
    facts("C5", |facts, _| {
        const CALLS: &[&str] = &[
            "io_uring_setup",
            "io_uring_enter",
            "io_uring_register",
            "io_uring i386 425",
            "io_uring i386 426",
            "io_uring i386 427",
        ];
        each(facts, CALLS, &["EPERM", "ENOSYS"])
    }),
    facts("C6", |facts, _| {
        all([
            each(facts, &["keyctl", "add_key", "request_key"], &["EPERM"]),
            each(facts, &["read /proc/keys"], &["0 bytes", "EACCES"]),
        ])
    }),
    facts("C7", |facts, _| each(facts, &["bpf", "perf_event_open", "userfaultfd"], &["EPERM"])),
    facts("C8", |facts, _| each(facts, &["open_by_handle_at"], &["EPERM"])),
    facts("C9", |facts, _| {
        const CALLS: &[&str] = &[
            "fsopen",
            "fsmount",
            "fsconfig",
            "fspick",
            "open_tree",
            "move_mount",
            "mount_setattr",
        ];
        each(facts, CALLS, &["EPERM"])
    }),
    facts("C10", |facts, _| each(facts, &["open_tree_attr", "listns"], &["EPERM", "ENOSYS"])),
    facts("C11", |facts, _| {
        const CALLS: &[&str] = &[
            "kexec_load",
            "init_module",
            "finit_module",
            "delete_module",
            "reboot",
            "swapon",
            "acct",
            "quotactl",
            "syslog",
            "iopl",
            "ioperm",
        ];
        each(facts, CALLS, &["EPERM"])
    }),
    facts("C12", |facts, _| each(facts, &["personality"], &["EPERM"])),
    facts("C13", |facts, _| {
        const CALLS: &[&str] =
            &["pidfd_getfd", "kcmp", "process_madvise", "mbind", "set_mempolicy"];
        each(facts, CALLS, &["EPERM"])
    }),
    scene(
        "C14",
        MODES,
        |rig, flags| Ok(each(&rig.facts(flags)?, &["newer than the list"], &["ENOSYS"])),
        Control::Other("a profile that says EPERM", |rig| {
            let profile = rig.daemon.directory().join("profile.json");
            let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["clone3"],
            "action":"SCMP_ACT_ERRNO","errnoRet":1}]}"#;
            std::fs::write(&profile, text)?;
            let option = format!("seccomp={}", profile.display());
            // a number that libc falls back from has to be unknown rather than forbidden
            let facts = rig.facts(&["--security-opt", &option])?;
            Ok(each(&facts, &["clone3"], &["ENOSYS"]))
        }),
    ),
    scene("C15", &[Mode::Default, Mode::Host], every_path, Control::Flags(UNCONFINED)),
];

const UNCONFINED: &[&str] = &["--security-opt", "seccomp=unconfined"];

/// What Docker's documentation lists as blocked ("Significant syscalls blocked by the default
/// profile"), as far as this processor has it, and what has been taken out since.
const DENIED: &[&str] = &[
    "acct",
    "add_key",
    "bpf",
    "clock_settime",
    "delete_module",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mbind",
    "mount",
    "mount_setattr",
    "move_mount",
    "move_pages",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pivot_root",
    "process_madvise",
    "quotactl",
    "reboot",
    "request_key",
    "set_mempolicy",
    "setns",
    "settimeofday",
    "swapoff",
    "swapon",
    "sysfs",
    "umount2",
    "unshare",
    "userfaultfd",
    "ustat",
];

fn deny_list(rig: &Rig, flags: &[&str]) -> Result<Outcome> {
    let facts = rig.probe(flags, &["sweep"])?;
    let open: Vec<&str> = DENIED
        .iter()
        .copied()
        .filter(|name| !matches!(facts.of(&format!("native {name}")), "EPERM" | "ENOSYS"))
        .collect();
    let refused = facts.iter().filter(|it| it.0.starts_with("native ") && it.1 == "EPERM").count();
    println!("note C1: {refused} native calls say EPERM with {flags:?}");
    Ok(ensure(open.is_empty(), || format!("let through: {}", open.join(" "))))
}

fn no_way_around(rig: &Rig, flags: &[&str]) -> Result<Outcome> {
    let facts = rig.probe(flags, &["sweep"])?;
    Ok(compare(&facts, &facts))
}

/// No call that 64-bit programs are denied is let through in another way.
fn compare(native: &Facts, others: &Facts) -> Outcome {
    let open: Vec<String> = ["i386", "x32"]
        .iter()
        .flat_map(|way| DENIED.iter().map(move |name| format!("{way} {name}")))
        .filter(|call| {
            let name = call.split(' ').nth(1).unwrap_or_default();
            let is_denied = native.of(&format!("native {name}")) == "EPERM";
            let other = others.of(call);
            is_denied && !matches!(other, "EPERM" | "ENOSYS" | "not tried")
        })
        .collect();
    ensure(open.is_empty(), || format!("let through: {}", open.join(", ")))
}

fn every_path(rig: &Rig, flags: &[&str]) -> Result<Outcome> {
    let box_ = rig.stay(flags, &[])?;
    let mut found = vec![("exec", box_.probe(&[], &["status"])?)];
    found.push(("run", rig.probe(flags, &["status"])?));
    let terminal = box_.exec(&["-t"], &["/probe", "status"])?;
    // the docker CLI refuses without a terminal of its own
    if terminal.code == 0 {
        found.push(("exec -t", Facts::parse(&terminal.stdout)));
    }
    let context = rig.daemon.directory().join("context");
    std::fs::create_dir_all(&context)?;
    let step = "FROM probe\nRUN [\"/probe\", \"status\"]\n";
    std::fs::write(context.join("Dockerfile"), step)?;
    let path = context.to_string_lossy();
    let built = rig.daemon.docker(&["build", "--no-cache", "-t", "filtered", &path])?.ok()?;
    found.push(("build", Facts::parse(&built)));
    let first = found[0].1.of("status Seccomp_filters").to_owned();
    Ok(all(found.iter().map(|(path, facts)| {
        let (mode, count) = (facts.of("status Seccomp"), facts.of("status Seccomp_filters"));
        ensure(mode == "2" && count == first, || format!("{path}: mode {mode}, {count} filters"))
    })))
}

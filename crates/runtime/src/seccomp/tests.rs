use std::collections::BTreeMap;

use proptest::prelude::*;

use super::profile::{Action, Comparison, Condition, ENOSYS, EPERM, Profile, Rule, is_int};
use super::table::{Architecture, NATIVE};
use super::*;
use crate::capabilities;

/// `struct seccomp_data` without the instruction pointer.
#[derive(Debug, Clone, Copy)]
struct Call {
    audit: u32,
    number: u32,
    arguments: [u64; 6],
}

/// Interprets the instructions that the compiler emits, and refuses what the kernel would.
fn run(program: &[Instruction], call: Call) -> u32 {
    let word = |offset: u32| match offset {
        0 => call.number,
        4 => call.audit,
        16..=63 if offset.is_multiple_of(4) => {
            (call.arguments[(offset as usize - 16) / 8] >> (8 * (offset % 8))) as u32
        }
        other => panic!("load of {other}"),
    };
    let (mut accumulator, mut at) = (0, 0);
    loop {
        let it = program[at];
        at += 1;
        let branch = |holds: bool| usize::from(if holds { it.jump_true } else { it.jump_false });
        match it.code {
            program::LOAD => accumulator = word(it.k),
            program::AND => accumulator &= it.k,
            program::JUMP_ALWAYS => at += it.k as usize,
            program::JUMP_EQUAL => at += branch(accumulator == it.k),
            program::JUMP_GREATER => at += branch(accumulator > it.k),
            program::JUMP_GREATER_OR_EQUAL => at += branch(accumulator >= it.k),
            program::RETURN => return it.k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// What the profile says of a call, found the slow way.
fn expected(profile: &Profile, names: &BTreeMap<(u32, u32), Vec<&str>>, call: Call) -> u32 {
    if !profile.architectures.iter().any(|it| it.audit() == call.audit) {
        return Action::KillProcess.value();
    }
    let Some(names) = names.get(&(call.audit, call.number)) else {
        return profile.unknown().value();
    };
    let rules = slow_rules(profile, names);
    let holds = |condition: &Condition| {
        let int = names.iter().any(|name| is_int(name, condition.argument));
        let keep = if int { u64::from(u32::MAX) } else { u64::MAX };
        let argument = call.arguments[usize::from(condition.argument)] & keep;
        match condition.comparison {
            Comparison::Equal(value) => argument == value & keep,
            Comparison::NotEqual(value) => argument != value & keep,
            Comparison::Less(value) => argument < value & keep,
            Comparison::LessOrEqual(value) => argument <= value & keep,
            Comparison::Greater(value) => argument > value & keep,
            Comparison::GreaterOrEqual(value) => argument >= value & keep,
            Comparison::MaskedEqual { mask, value } => argument & mask == value & mask & keep,
        }
    };
    let rule = rules.iter().find(|(conditions, _)| conditions.iter().all(holds));
    rule.map_or(profile.default, |(_, action)| *action).value()
}

fn slow_rules(profile: &Profile, names: &[&str]) -> Vec<(Vec<Condition>, Action)> {
    let rules: Vec<&Rule> = profile
        .rules
        .iter()
        .filter(|rule| rule.names.iter().any(|name| names.contains(&name.as_str())))
        .filter(|rule| rule.action != profile.default)
        .collect();
    let unconditional = rules.iter().find(|rule| rule.conditions.is_empty());
    match unconditional {
        Some(rule) => vec![(Vec::new(), rule.action)],
        None => rules.iter().map(|rule| (rule.conditions.clone(), rule.action)).collect(),
    }
}

fn names(architectures: &[Architecture]) -> BTreeMap<(u32, u32), Vec<&'static str>> {
    let of = |it: &Architecture| {
        let audit = it.audit();
        it.names().into_iter().map(move |(number, names)| ((audit, number), names))
    };
    architectures.iter().flat_map(of).collect()
}

fn number(architecture: Architecture, name: &str) -> u32 {
    architecture.calls().find(|(known, _)| *known == name).unwrap().1
}

fn default_answer(
    capabilities: Capabilities,
    architecture: Architecture,
    name: &str,
    first: u64,
) -> u32 {
    let filter = compile(&Seccomp::Default, capabilities).unwrap().unwrap();
    let number = number(architecture, name);
    let call = Call { audit: architecture.audit(), number, arguments: [first, 0, 0, 0, 0, 0] };
    run(&filter.instructions, call)
}

const ALLOW: u32 = 0x7fff_0000;
const EPERM_VALUE: u32 = 0x0005_0000 | EPERM as u32;
const ENOSYS_VALUE: u32 = 0x0005_0000 | ENOSYS as u32;

#[test]
fn every_number_of_every_architecture_ends_as_the_profile_says() {
    let names = names(&Architecture::ALL);
    for capabilities in [Capabilities::NONE, Capabilities::DEFAULT, Capabilities::ALL] {
        let mut profile = docker::profile(capabilities);
        for machine in [
            &[Architecture::X86_64, Architecture::X86, Architecture::X32][..],
            &[Architecture::Aarch64, Architecture::Arm],
            &[Architecture::X86_64],
        ] {
            profile.architectures = machine.to_vec();
            let names: BTreeMap<_, _> = names
                .iter()
                .filter(|((audit, number), _)| {
                    let x32 = *audit == 0xc000_003e && number & table::X32_BIT != 0;
                    machine
                        .iter()
                        .any(|it| it.audit() == *audit && (*it == Architecture::X32) == x32)
                })
                .map(|(key, names)| (*key, names.clone()))
                .collect();
            let program = program::assemble(&profile, machine).unwrap();
            let around = |base: u32| (0..1200).map(move |number| base + number);
            let numbers = around(0).chain(around(table::X32_BIT)).chain(around(0xf_0000)).chain([
                u32::MAX,
                u32::MAX - 1,
                i32::MAX as u32,
                table::X32_BIT - 1,
            ]);
            for number in numbers {
                for audit in Architecture::ALL.map(Architecture::audit).into_iter().chain([0]) {
                    let firsts = [0, 1, 8, 38, 39, 40, 41, 0x1000_0000, 1 << 32 | 40, u64::MAX];
                    let known = names.contains_key(&(audit, number));
                    for first in firsts.into_iter().take(if known { 10 } else { 1 }) {
                        let call = Call { audit, number, arguments: [first, 0, 0, 0, 0, 0] };
                        let want = expected(&profile, &names, call);
                        assert_eq!(run(&program, call), want, "{machine:?} {call:x?}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_default_profile_is_dockers() {
    use Architecture::{X32, X86, X86_64};
    let default = Capabilities::DEFAULT;
    let all = Capabilities::ALL;
    for (capabilities, architecture, name, first, want) in [
        (default, X86_64, "read", 0, ALLOW),
        (default, X86, "read", 0, ALLOW),
        (default, X32, "read", 0, ALLOW),
        (default, X86_64, "ptrace", 0, ALLOW),
        (default, X86_64, "chroot", 0, ALLOW),
        (
            default.without(Capabilities(1 << capabilities::SYS_CHROOT)),
            X86_64,
            "chroot",
            0,
            EPERM_VALUE,
        ),
        (default, X86_64, "mount", 0, EPERM_VALUE),
        (all, X86_64, "mount", 0, ALLOW),
        (default, X86_64, "unshare", 0, EPERM_VALUE),
        (default, X86_64, "keyctl", 0, EPERM_VALUE),
        (all, X86_64, "keyctl", 0, EPERM_VALUE),
        (default, X86_64, "io_uring_setup", 0, EPERM_VALUE),
        (default, X86_64, "bpf", 0, EPERM_VALUE),
        (default.with(Capabilities(1 << 39)), X86_64, "bpf", 0, ALLOW),
        (default, X86_64, "clone3", 0, ENOSYS_VALUE),
        (all, X86_64, "clone3", 0, ALLOW),
        (default, X86_64, "clone", 0x11, ALLOW),
        (default, X86_64, "clone", 0x1000_0011, EPERM_VALUE),
        (default, X86, "clone", 0x0002_0011, EPERM_VALUE),
        (all, X86_64, "clone", 0x1000_0011, ALLOW),
        (default, X86_64, "personality", 8, ALLOW),
        (default, X86_64, "personality", 0x0004_0000, EPERM_VALUE), // no ASLR
        (default, X86_64, "personality", 0xffff_ffff, ALLOW),
        (default, X86_64, "socket", 2, ALLOW),
        (default, X86_64, "socket", 38, EPERM_VALUE),
        (default, X86_64, "socket", 39, ALLOW),
        (default, X86_64, "socket", 40, EPERM_VALUE),
        (default, X86_64, "socket", 44, ALLOW),
        (default, X86_64, "socket", 1 << 32 | 40, EPERM_VALUE),
        (default, X86_64, "socket", 1 << 63 | 38, EPERM_VALUE),
        (default, X86, "socket", 40, EPERM_VALUE),
        (default, X32, "socket", 40, EPERM_VALUE),
        (default, X86, "socketcall", 1, ENOSYS_VALUE),
        (default, X86, "socketcall", 1 << 32 | 1, ENOSYS_VALUE),
        (all, X86, "socketcall", 1, ENOSYS_VALUE),
        (default, X86, "socketcall", 3, ALLOW),
        (default, X86_64, "arch_prctl", 0, ALLOW),
    ] {
        let got = default_answer(capabilities, architecture, name, first);
        assert_eq!(got, want, "{architecture:?} {name} {first:#x}: {got:#x}");
    }
    let filter = compile(&Seccomp::Default, default).unwrap().unwrap();
    assert!(filter.instructions.len() < 1000, "{}", filter.instructions.len());
}

#[test]
fn a_lookup_takes_few_steps() {
    let filter = compile(&Seccomp::Default, Capabilities::DEFAULT).unwrap().unwrap();
    for (_, number) in Architecture::X86_64.calls() {
        let (mut at, mut steps) = (0, 0);
        let it = loop {
            let it = filter.instructions[at];
            (at, steps) = (at + 1, steps + 1);
            match it.code {
                program::RETURN => break it,
                program::JUMP_ALWAYS => at += it.k as usize,
                program::LOAD | program::AND => {}
                code => {
                    let value = if it.k == 0xc000_003e { it.k } else { number };
                    let holds = match code {
                        program::JUMP_EQUAL => value == it.k,
                        program::JUMP_GREATER => value > it.k,
                        _ => value >= it.k,
                    };
                    at += usize::from(if holds { it.jump_true } else { it.jump_false });
                }
            }
        };
        assert!(steps < 32, "{number}: {steps} {it:?}");
    }
}

#[test]
fn the_default_profile_is_compiled_once() {
    let compiled = |capabilities| compile(&Seccomp::Default, capabilities).unwrap().unwrap();
    let one = compiled(Capabilities::DEFAULT);
    assert!(Arc::ptr_eq(&one.instructions, &compiled(Capabilities::DEFAULT).instructions));
    let net_admin = Capabilities::DEFAULT.with(Capabilities(1 << capabilities::NET_ADMIN));
    assert!(Arc::ptr_eq(&one.instructions, &compiled(net_admin).instructions));
    assert_ne!(one, compiled(Capabilities::ALL));
    assert_eq!(compile(&Seccomp::Unconfined, Capabilities::ALL).unwrap(), None);
}

fn custom(text: &str) -> Result<Option<Profile>, String> {
    json::parse(text, Capabilities::DEFAULT, (6, 1)).map_err(|error| error.to_string())
}

#[test]
fn dockers_format_is_read() {
    let text = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 2,
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
            {"architecture": "SCMP_ARCH_S390X", "subArchitectures": null}
        ],
        "syscalls": [
            {"names": ["read", "no_such_call"], "action": "SCMP_ACT_ALLOW", "args": null, "comment": "x"},
            {"name": "write", "action": "SCMP_ACT_LOG", "includes": {"minKernel": "4.8"}},
            {"name": "open", "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.2"}},
            {"name": "close", "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "6.1"}},
            {"name": "stat", "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}},
            {"name": "fstat", "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_CHOWN"]}},
            {"name": "lstat", "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_CHOWN"]}},
            {"name": "poll", "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64", "arm64"]}},
            {"name": "mmap", "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}},
            {"name": "kill", "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "args": [
                {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"},
                {"index": 1, "value": 240, "valueTwo": 16, "op": "SCMP_CMP_MASKED_EQ"}]},
            {"name": "tkill", "action": "SCMP_ACT_TRAP", "args": [
                {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"},
                {"index": 0, "value": 18446744073709551615, "op": "SCMP_CMP_EQ"}]}
        ]
    }"#;
    let profile = custom(text).unwrap().unwrap();
    assert_eq!(profile.default, Action::Errno(2));
    assert_eq!(profile.architectures, NATIVE[..2]);
    let rules: Vec<(&str, Action, usize)> = profile
        .rules
        .iter()
        .map(|rule| (rule.names[0].as_str(), rule.action, rule.conditions.len()))
        .collect();
    assert_eq!(
        rules,
        [
            ("read", Action::Allow, 0),
            ("write", Action::Log, 0),
            ("fstat", Action::Allow, 0),
            ("kill", Action::Errno(38), 2),
            ("tkill", Action::Trap, 1),
            ("tkill", Action::Trap, 1),
        ]
    );
    assert_eq!(
        profile.rules[3].conditions[1].comparison,
        Comparison::MaskedEqual { mask: 240, value: 16 }
    );
    assert_eq!(custom("{}"), Ok(None));
    assert_eq!(json::release("6.18.44-fc-v669"), (6, 18));
    assert_eq!(json::release("5"), (5, 0));
    let filter =
        compile(&Seccomp::Profile(text.to_owned()), Capabilities::DEFAULT).unwrap().unwrap();
    let call = |name, arguments| {
        let number = number(NATIVE[0], name);
        run(&filter.instructions, Call { audit: NATIVE[0].audit(), number, arguments })
    };
    assert_eq!(call("read", [0; 6]), ALLOW);
    assert_eq!(call("kill", [1, 0x1f, 0, 0, 0, 0]), ENOSYS_VALUE);
    assert_eq!(call("kill", [1, 0x2f, 0, 0, 0, 0]), 0x0005_0002);
    assert_eq!(call("tkill", [u64::MAX, 0, 0, 0, 0, 0]), 0x0003_0000);
    assert_eq!(call("tkill", [u64::from(u32::MAX), 0, 0, 0, 0, 0]), 0x0005_0002);
}

#[test]
fn a_bad_profile_is_told_apart() {
    let call = |call: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{call}]}}"#);
    for (text, want) in [
        ("".to_owned(), "Decoding seccomp profile failed: EOF while parsing"),
        ("[1".to_owned(), "Decoding seccomp profile failed: "),
        (call(r#"{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}"#), "both 'name' and 'names'"),
        (call(r#"{"name":"a","action":"ALLOW"}"#), "seccomp profile: action \"ALLOW\" is not"),
        (call(r#"{"name":"a","action":"SCMP_ACT_NOTIFY"}"#), "seccomp profile: action \"SCMP_ACT_NOTIFY\""),
        (call(r#"{"name":"a","action":"SCMP_ACT_ERRNO","errnoRet":4096}"#), "seccomp profile: errno 4096"),
        (
            call(r#"{"name":"a","action":"SCMP_ACT_LOG","args":[{"index":6,"op":"SCMP_CMP_EQ"}]}"#),
            "seccomp profile: a system call has arguments 0 to 5, not 6",
        ),
        (
            call(r#"{"name":"a","action":"SCMP_ACT_LOG","args":[{"index":0,"op":"=="}]}"#),
            "seccomp profile: operator \"==\"",
        ),
        (
            call(r#"{"name":"a","action":"SCMP_ACT_LOG","includes":{"minKernel":"4"}}"#),
            "Decoding seccomp profile failed: invalid kernel version: \"4\"",
        ),
        (r#"{"syscalls":[{"name":"a","action":"SCMP_ACT_LOG"}]}"#.to_owned(), "seccomp profile: action \"\""),
        (r#"{"defaultAction":"SCMP_ACT_LOG","flags":["X"]}"#.to_owned(), "seccomp profile: flag \"X\""),
        (
            r#"{"defaultAction":"SCMP_ACT_LOG","architectures":["A"],"archMap":[{"architecture":"B"}]}"#
                .to_owned(),
            "both 'architectures' and 'archMap'",
        ),
    ] {
        let error = custom(&text).unwrap_err();
        assert!(error.starts_with(want), "{text}: {error}");
    }
}

fn comparison() -> impl Strategy<Value = Comparison> {
    let value = prop_oneof![
        0u64..4,
        Just(u64::from(u32::MAX)),
        Just(1 << 32),
        Just((1 << 32) | 2),
        Just(u64::MAX),
        any::<u64>()
    ];
    (0..7, value.clone(), value).prop_map(|(kind, value, mask)| match kind {
        0 => Comparison::Equal(value),
        1 => Comparison::NotEqual(value),
        2 => Comparison::Less(value),
        3 => Comparison::LessOrEqual(value),
        4 => Comparison::Greater(value),
        5 => Comparison::GreaterOrEqual(value),
        _ => Comparison::MaskedEqual { mask, value },
    })
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Allow),
        Just(Action::Log),
        Just(Action::Trap),
        Just(Action::KillThread),
        Just(Action::KillProcess),
        (0u16..3).prop_map(Action::Errno),
        (0u16..3).prop_map(Action::Trace),
    ]
}

const CALLS: [&str; 6] = ["read", "write", "socket", "clone", "personality", "futex"];

fn rule() -> impl Strategy<Value = Rule> {
    let names = proptest::sample::subsequence(CALLS.to_vec(), 1..4);
    let conditions = proptest::collection::vec((0u8..6, comparison()), 0..5);
    (names, action(), conditions).prop_map(|(names, action, conditions)| Rule {
        names: names.into_iter().map(str::to_owned).collect(),
        action,
        conditions: conditions
            .into_iter()
            .map(|(argument, comparison)| Condition { argument, comparison })
            .collect(),
    })
}

proptest! {
    /// The compiled program and the slow reading of the same profile agree on every call.
    #[test]
    fn programs_do_what_profiles_say(
        default in action(),
        rules in proptest::collection::vec(rule(), 0..8),
        calls in proptest::collection::vec(
            (0usize..6, proptest::array::uniform6(prop_oneof![0u64..5, any::<u64>(),
                Just(1 << 32), Just((1 << 32) | 2), Just(u64::from(u32::MAX)), Just(u64::MAX)])),
            1..20,
        ),
    ) {
        let architectures = vec![Architecture::X86_64, Architecture::X86, Architecture::X32];
        let names = names(&architectures);
        let profile = Profile { default, architectures, rules };
        let program = program::assemble(&profile, &profile.architectures).unwrap();
        for (name, arguments) in calls {
            for architecture in &profile.architectures {
                let number = number(*architecture, CALLS[name]);
                let call = Call { audit: architecture.audit(), number, arguments };
                prop_assert_eq!(run(&program, call), expected(&profile, &names, call), "{:?}", call);
            }
        }
    }

    #[test]
    fn any_json_is_survived(text in "[\\[\\]{}\",:a-zA-Z_0-9 ]{0,60}") {
        let _ = custom(&text);
    }
}

/// On the real kernel, in a thread of its own: a filter stays with the thread that installs it.
#[test]
fn the_kernel_takes_the_default_filter_and_obeys() {
    use rustix::io::Errno;
    use rustix::thread::{UnshareFlags, set_no_new_privs};

    let filter = compile(&Seccomp::Default, Capabilities::DEFAULT).unwrap().unwrap();
    let confined = std::thread::spawn(move || {
        set_no_new_privs(true).unwrap();
        bulkhead_sys::seccomp::install(&filter.instructions).unwrap();
        let families = [2, 40, 1 << 32 | 40, 38];
        (
            families.map(|family| bulkhead_sys::testing::socket(family).map(drop)),
            // were it let through, it would change this thread alone
            bulkhead_sys::unshare(UnshareFlags::NEWUTS),
            // glibc asks for clone3 first, and takes clone when there is none
            std::thread::spawn(|| 7).join().unwrap(),
            #[cfg(target_arch = "x86_64")]
            [1, 40]
                .map(|family| bulkhead_sys::testing::socketcall32(family).map(|it| it.map(drop))),
        )
    });
    #[cfg(target_arch = "x86_64")]
    let (sockets, unshare, child, i386) = confined.join().unwrap();
    #[cfg(not(target_arch = "x86_64"))]
    let (sockets, unshare, child) = confined.join().unwrap();
    assert_eq!(sockets, [Ok(()), Err(Errno::PERM), Err(Errno::PERM), Err(Errno::PERM)]);
    let refused = unshare.unwrap_err().raw_os_error();
    assert_eq!((refused, child), (Some(Errno::PERM.raw_os_error()), 7));
    #[cfg(target_arch = "x86_64")]
    {
        if i386 == [None; 2] {
            return bulkhead_sys::testing::skip("the kernel has no 32-bit calls");
        }
        assert_eq!(i386, [Some(Err(Errno::NOSYS)); 2]);
        // without the filter the same call makes a socket: the test above can fail
        let free = bulkhead_sys::testing::socketcall32(1).map(|it| it.map(drop));
        assert_eq!(free, Some(Ok(())));
    }
}

//! Profiles to try: Docker's, as it stands in a `config.json`, and any.

use super::*;

/// Docker's default profile as dockerd resolves it for a process with these capabilities.
pub(super) fn expanded(capabilities: Capabilities) -> oci::Seccomp {
    let relevant = docker::relevant(|name| capabilities.has(capabilities::parse(name).unwrap()));
    let profile = docker::profile(NATIVE, relevant);
    let syscalls = profile.rules.iter().map(|rule| {
        let (action, errno_ret) = match rule.action {
            Action::Allow => ("SCMP_ACT_ALLOW", None),
            Action::Errno(errno) => ("SCMP_ACT_ERRNO", Some(u32::from(errno))),
            other => panic!("{other:?} is not in Docker's profile"),
        };
        oci::SeccompRule {
            names: rule.calls.iter().map(|call| call.name().to_owned()).collect(),
            action: action.to_owned(),
            errno_ret,
            args: rule.conditions.iter().map(argument).collect(),
        }
    });
    oci::Seccomp {
        default_action: "SCMP_ACT_ERRNO".to_owned(),
        default_errno_ret: Some(1),
        architectures: NATIVE.iter().map(|it| it.profile_name().to_owned()).collect(),
        syscalls: syscalls.collect(),
        ..oci::Seccomp::default()
    }
}

fn argument(condition: &Condition) -> oci::SeccompArgument {
    let (op, value, value_two) = match condition.comparison {
        Comparison::Equal(value) => ("EQ", value, 0),
        Comparison::NotEqual(value) => ("NE", value, 0),
        Comparison::Less(value) => ("LT", value, 0),
        Comparison::LessOrEqual(value) => ("LE", value, 0),
        Comparison::Greater(value) => ("GT", value, 0),
        Comparison::GreaterOrEqual(value) => ("GE", value, 0),
        Comparison::MaskedEqual { mask, value } => ("MASKED_EQ", mask, value),
    };
    let op = format!("SCMP_CMP_{op}");
    oci::SeccompArgument { index: condition.argument.into(), value, value_two, op }
}

/// Some that 32-bit x86 also has behind `socketcall` and `ipc`, and these two.
pub(super) const CALLS: [&str; 12] = [
    "read",
    "write",
    "futex",
    "clone",
    "openat",
    "socketcall",
    "ipc",
    "bind",
    "connect",
    "accept",
    "shmget",
    "send",
];

pub(super) fn value() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![
        4 => 0u64..4,
        1 => Just(u64::from(u32::MAX)),
        1 => Just(1 << 32),
        1 => Just((1 << 32) | 2),
        1 => Just((2 << 32) | 1),
        1 => Just(u64::MAX),
        1 => any::<u64>(),
    ]
}

fn oci_argument() -> impl Strategy<Value = oci::SeccompArgument> {
    let op = proptest::sample::select(&names::OPERATORS[..]);
    (0u32..6, op, value(), value()).prop_map(|(index, op, value, value_two)| oci::SeccompArgument {
        index,
        op: op.to_owned(),
        value,
        value_two,
    })
}

fn action() -> impl Strategy<Value = (String, Option<u32>)> {
    let name = proptest::sample::select(&names::ACTIONS[..]);
    (name, proptest::option::of(0u32..3)).prop_map(|(name, errno)| {
        let has_errno = ["SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"].contains(&name);
        (name.to_owned(), errno.filter(|_| has_errno))
    })
}

fn rule() -> impl Strategy<Value = oci::SeccompRule> {
    let names = proptest::sample::subsequence(CALLS.to_vec(), 1..5);
    let args = proptest::collection::vec(oci_argument(), 0..4);
    (names, action(), args).prop_map(|(names, (action, errno_ret), args)| oci::SeccompRule {
        names: names.into_iter().map(str::to_owned).collect(),
        action,
        errno_ret,
        args,
    })
}

/// Profiles that compile.
pub(super) fn profile() -> impl Strategy<Value = oci::Seccomp> {
    let architectures = proptest::sample::subsequence(
        NATIVE.iter().map(|it| it.profile_name()).collect::<Vec<_>>(),
        0..=NATIVE.len(),
    );
    let default = action().prop_filter("no default", |(name, _)| name != "SCMP_ACT_NOTIFY");
    let rules = proptest::collection::vec(rule(), 0..10);
    (architectures, default, rules).prop_map(
        |(architectures, (default_action, default_errno_ret), mut syscalls)| {
            for rule in syscalls.iter_mut().filter(|rule| rule.action == "SCMP_ACT_NOTIFY") {
                rule.names.retain(|name| name != "write");
            }
            oci::Seccomp {
                default_action,
                default_errno_ret,
                architectures: architectures.into_iter().map(str::to_owned).collect(),
                listener_path: "/run/listener".to_owned(),
                syscalls,
                ..oci::Seccomp::default()
            }
        },
    )
}

/// The same with rules on `socket` too.
pub(super) fn profile_of_sockets() -> impl Strategy<Value = oci::Seccomp> {
    (profile(), proptest::collection::vec(rule(), 1..4)).prop_map(|(mut profile, rules)| {
        for mut rule in rules {
            rule.names = vec!["socket".to_owned()];
            profile.syscalls.push(rule);
        }
        profile
    })
}

/// The arguments at which a profile's answer to a call may change, and some others: one argument at
/// a time, the others being `rest`.
pub(super) fn boundaries(profile: &Profile, rest: [u64; 6]) -> Vec<[u64; 6]> {
    let mut all = vec![rest, [0; 6], [u64::MAX; 6]];
    let conditions = profile.rules.iter().flat_map(|rule| &rule.conditions);
    for condition in conditions {
        let (value, mask) = match condition.comparison {
            Comparison::Equal(value)
            | Comparison::NotEqual(value)
            | Comparison::Less(value)
            | Comparison::LessOrEqual(value)
            | Comparison::Greater(value)
            | Comparison::GreaterOrEqual(value) => (value, 0),
            Comparison::MaskedEqual { mask, value } => (value, mask),
        };
        let high = 1 << 32;
        for value in [
            value,
            value.wrapping_sub(1),
            value.wrapping_add(1),
            value & u64::from(u32::MAX),
            value & !u64::from(u32::MAX),
            value.wrapping_add(high),
            value.wrapping_sub(high),
            value | !mask,
            value & mask,
            mask,
            !mask,
        ] {
            let mut arguments = rest;
            arguments[usize::from(condition.argument)] = value;
            all.push(arguments);
        }
        // where several conditions hold at once
        for arguments in &mut all {
            if arguments[usize::from(condition.argument)] == rest[usize::from(condition.argument)] {
                arguments[usize::from(condition.argument)] = value;
            }
        }
    }
    all.sort_unstable();
    all.dedup();
    // rules on a few calls have hundreds
    let step = all.len().div_ceil(MAXIMUM_BOUNDARIES);
    all.into_iter().step_by(step).collect()
}

const MAXIMUM_BOUNDARIES: usize = 100;

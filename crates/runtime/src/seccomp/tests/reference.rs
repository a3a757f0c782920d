//! What a profile says of a call, found the slow way: every rule is asked.

use super::*;
use crate::seccomp::profile::is_int;

/// The actions that the rules give to a call: one, or several where they contradict each other.
pub(super) fn actions(profile: &Profile, machine: &[Architecture], made: Made) -> Vec<Action> {
    let used = |it: &&Architecture| profile.architectures.contains(it) && it.audit() == made.audit;
    let is_x32 = made.number & table::X32_BIT != 0 && made.number != u32::MAX;
    let mut architectures = machine.iter().filter(used);
    let x32 = made.audit == Architecture::X32.audit() && is_x32;
    let Some(architecture) = architectures.find(|it| (**it == Architecture::X32) == x32) else {
        let known_audit = machine.iter().any(|it| used(&it)) && !x32;
        return vec![if known_audit { profile.unknown() } else { Action::KillThread }];
    };
    let names: Vec<Call> = architecture
        .calls()
        .iter()
        .filter(|(number, _)| *number == made.number)
        .map(|(_, call)| *call)
        .collect();
    if names.is_empty() {
        return vec![profile.unknown()];
    }
    let mut found = Vec::new();
    for rule in profile.rules.iter().filter(|rule| rule.action != profile.default) {
        for call in &rule.calls {
            let member = (*architecture == Architecture::X86)
                .then(|| names.iter().find_map(|name| member(name.name(), call.name())))
                .flatten();
            let own = names.contains(call);
            if !own && member.is_none() {
                continue;
            }
            let is_64_bit = architecture.is_64_bit();
            let mut rests = rule.conditions.iter().filter(|it| own || it.argument != 0);
            let first = own || member == Some(made.arguments[0] as u32);
            let can_fail = rule.conditions.iter().any(|it| match it.comparison {
                Comparison::MaskedEqual { mask, .. } if is_64_bit => mask != 0,
                Comparison::MaskedEqual { mask, .. } => mask as u32 != 0,
                _ => true,
            });
            if own && !can_fail {
                return vec![rule.action];
            }
            let is_met = |it: &Condition| {
                let low = !is_64_bit || is_int(*call, it.argument);
                holds(it, made.arguments, if low { u32::MAX.into() } else { u64::MAX })
            };
            if first && rests.all(is_met) && !found.contains(&rule.action) {
                found.push(rule.action);
            }
        }
    }
    if found.is_empty() {
        found.push(profile.default);
    }
    found
}

fn holds(condition: &Condition, arguments: [u64; 6], keep: u64) -> bool {
    let argument = arguments[usize::from(condition.argument)] & keep;
    match condition.comparison {
        Comparison::Equal(value) => argument == value & keep,
        Comparison::NotEqual(value) => argument != value & keep,
        Comparison::Less(value) => argument < value & keep,
        Comparison::LessOrEqual(value) => argument <= value & keep,
        Comparison::Greater(value) => argument > value & keep,
        Comparison::GreaterOrEqual(value) => argument >= value & keep,
        Comparison::MaskedEqual { mask, value } => argument & mask == value & mask & keep,
    }
}

/// The first argument by which one call of 32-bit x86 stands for another.
fn member(multiplexer: &str, call: &str) -> Option<u32> {
    let socketcall = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    let ipc = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    match multiplexer {
        "socketcall" => {
            socketcall.iter().position(|name| *name == call).map(|place| place as u32 + 1)
        }
        "ipc" => ipc.iter().find(|(name, _)| *name == call).map(|(_, place)| *place),
        _ => None,
    }
}

//! From a profile to instructions of classic BPF over `struct seccomp_data` (seccomp(2)).

use bulkhead_sys::seccomp::Instruction;

use super::SeccompError;
use super::profile::{Action, Comparison, Condition, Profile, RulesByName, is_int};
use super::table::Architecture;

/// Compiles a profile for a machine that runs the calls of `machine`'s architectures.
///
/// The program tells the audit architecture apart, then finds the call's number by halving a list
/// of ranges with the same outcome, and last tests arguments where there are such rules. It uses
/// only instructions that the kernel can follow by itself to find calls that are always allowed
/// (linux: kernel/seccomp.c, `seccomp_is_const_allow`), which then skip the filter altogether.
pub(super) fn assemble(
    profile: &Profile,
    machine: &[Architecture],
) -> Result<Vec<Instruction>, SeccompError> {
    let mut audits: Vec<u32> = Vec::new();
    for architecture in machine.iter().filter(|it| profile.architectures.contains(it)) {
        if !audits.contains(&architecture.audit()) {
            audits.push(architecture.audit());
        }
    }
    let mut program = vec![load(OFFSET_ARCH)];
    for audit in audits {
        let mut section = vec![load(OFFSET_NUMBER)];
        section.extend(search(profile, &ranges(profile, audit)));
        // a section is longer than a conditional jump reaches
        program.extend([jump(JUMP_EQUAL, audit, 1, 0), jump_always(section.len())]);
        program.extend(section);
    }
    program.push(end(Action::KillProcess));
    match program.len() {
        0..=MAXIMUM_LENGTH => Ok(program),
        length => Err(SeccompError::TooLong(length)),
    }
}

/// What becomes of the calls of a range of numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Always(Action),
    /// The first whose conditions hold, else the profile's default.
    Tested(Vec<(Vec<Test>, Action)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Test {
    condition: Condition,
    /// Looks at the low 32 bits only.
    is_int: bool,
}

/// Covers all numbers of one audit architecture: (first number, outcome), in ascending order, each
/// up to the next one's first.
fn ranges(profile: &Profile, audit: u32) -> Vec<(u32, Outcome)> {
    let unknown = Outcome::Always(profile.unknown());
    let mut ranges = vec![(0, unknown.clone())];
    let mut put = |first: u32, outcome: Outcome| match ranges.last_mut() {
        Some((_, last)) if *last == outcome => {}
        Some((start, last)) if *start == first => *last = outcome,
        _ => ranges.push((first, outcome)),
    };
    let mut calls: Vec<(u32, Vec<&str>)> = Architecture::ALL
        .into_iter()
        .filter(|it| it.audit() == audit && profile.architectures.contains(it))
        .flat_map(Architecture::names)
        .collect();
    calls.sort_by_key(|(number, _)| *number);
    let rules = profile.by_name();
    for (index, (number, names)) in calls.iter().enumerate() {
        put(*number, outcome(profile, &rules, names));
        if calls.get(index + 1).is_none_or(|(next, _)| *next != number + 1) {
            put(number + 1, unknown.clone());
        }
    }
    merge(ranges)
}

/// Joins neighbours that replacing has made equal.
fn merge(ranges: Vec<(u32, Outcome)>) -> Vec<(u32, Outcome)> {
    let mut merged: Vec<(u32, Outcome)> = Vec::with_capacity(ranges.len());
    for (first, outcome) in ranges {
        if merged.last().is_none_or(|(_, last)| *last != outcome) {
            merged.push((first, outcome));
        }
    }
    merged
}

fn outcome(profile: &Profile, rules: &RulesByName<'_>, names: &[&str]) -> Outcome {
    let rules = profile.rules_for(rules, names);
    match rules.first() {
        None => Outcome::Always(profile.default),
        Some((conditions, action)) if conditions.is_empty() => Outcome::Always(*action),
        Some(_) => Outcome::Tested(
            rules
                .into_iter()
                .map(|(conditions, action)| {
                    let test = |condition: Condition| Test {
                        condition,
                        is_int: names.iter().any(|name| is_int(name, condition.argument)),
                    };
                    (conditions.into_iter().map(test).collect(), action)
                })
                .collect(),
        ),
    }
}

/// Finds the number's range by halving; the accumulator holds the number.
fn search(profile: &Profile, ranges: &[(u32, Outcome)]) -> Vec<Instruction> {
    let (low, high) = match ranges {
        [] => return vec![end(profile.default)],
        [(_, Outcome::Always(action))] => return vec![end(*action)],
        [(_, Outcome::Tested(rules))] => return arguments(profile, rules),
        more => more.split_at(more.len() / 2),
    };
    let first_of_high = high[0].0;
    let (low, high) = (search(profile, low), search(profile, high));
    let mut program = match u8::try_from(low.len()) {
        Ok(length) => vec![jump(JUMP_GREATER_OR_EQUAL, first_of_high, length, 0)],
        Err(_) => {
            vec![jump(JUMP_GREATER_OR_EQUAL, first_of_high, 0, 1), jump_always(low.len())]
        }
    };
    program.extend(low);
    program.extend(high);
    program
}

/// Tests one rule after the other; what fails a test goes on behind its rule's action.
fn arguments(profile: &Profile, rules: &[(Vec<Test>, Action)]) -> Vec<Instruction> {
    let mut program = Vec::new();
    for (tests, action) in rules {
        let drafts: Vec<Vec<Draft>> = tests.iter().map(|test| draft(*test)).collect();
        let fails = drafts.iter().map(Vec::len).sum::<usize>() + 1;
        let (mut at, mut holds) = (0, 0);
        for test in drafts {
            holds += test.len();
            for step in test {
                let distance = |target: Target| match target {
                    Target::Next => 0,
                    Target::Holds => short(holds - at - 1),
                    Target::Fails => short(fails - at - 1),
                };
                program.push(match step {
                    Draft::Plain(instruction) => instruction,
                    Draft::Jump { code, k, on_true, on_false } => {
                        jump(code, k, distance(on_true), distance(on_false))
                    }
                });
                at += 1;
            }
        }
        program.push(end(*action));
    }
    program.push(end(profile.default));
    program
}

fn short(distance: usize) -> u8 {
    u8::try_from(distance).expect("a rule has 6 tests of 6 instructions at most")
}

/// An instruction whose targets are known only when its whole rule is.
#[derive(Debug, Clone, Copy)]
enum Draft {
    Plain(Instruction),
    Jump { code: u16, k: u32, on_true: Target, on_false: Target },
}

#[derive(Debug, Clone, Copy)]
enum Target {
    Next,
    /// Behind this test.
    Holds,
    /// Behind the rule.
    Fails,
}

/// One comparison. The machine has 32-bit words only: the high half decides, and the low one where
/// the high ones are equal.
fn draft(test: Test) -> Vec<Draft> {
    use Target::{Fails, Holds, Next};
    let offset = OFFSET_ARGUMENTS + 8 * u32::from(test.condition.argument);
    let low = Draft::Plain(load(offset));
    let high = (!test.is_int).then(|| Draft::Plain(load(offset + 4)));
    let jump = |code, k, on_true, on_false| Draft::Jump { code, k, on_true, on_false };
    let halves = |value: u64| (((value >> 32) as u32), value as u32);
    // `code` compares the low half; a greater high half goes where the low one does if that is true
    let ordered = |value: u64, code: u16, on_true: Target, on_false: Target| {
        let (value_high, value_low) = halves(value);
        let mut steps = Vec::new();
        if let Some(high) = high {
            steps.extend([
                high,
                jump(JUMP_GREATER, value_high, on_true, Next),
                jump(JUMP_EQUAL, value_high, Next, on_false),
            ]);
        }
        steps.extend([low, jump(code, value_low, on_true, on_false)]);
        steps
    };
    match test.condition.comparison {
        Comparison::Equal(value) => masked(u64::MAX, value, low, high, Holds, Fails),
        Comparison::NotEqual(value) => masked(u64::MAX, value, low, high, Fails, Holds),
        Comparison::MaskedEqual { mask, value } => {
            masked(mask, value & mask, low, high, Holds, Fails)
        }
        Comparison::Greater(value) => ordered(value, JUMP_GREATER, Holds, Fails),
        Comparison::GreaterOrEqual(value) => ordered(value, JUMP_GREATER_OR_EQUAL, Holds, Fails),
        Comparison::Less(value) => ordered(value, JUMP_GREATER_OR_EQUAL, Fails, Holds),
        Comparison::LessOrEqual(value) => ordered(value, JUMP_GREATER, Fails, Holds),
    }
}

fn masked(
    mask: u64,
    value: u64,
    low: Draft,
    high: Option<Draft>,
    equal: Target,
    different: Target,
) -> Vec<Draft> {
    let mut steps = Vec::new();
    // a half that the mask leaves out is equal
    if let Some(high) = high.filter(|_| mask >> 32 != 0) {
        steps.push(high);
        steps.push(Draft::Plain(and((mask >> 32) as u32)));
        steps.push(Draft::Jump {
            code: JUMP_EQUAL,
            k: (value >> 32) as u32,
            on_true: Target::Next,
            on_false: different,
        });
    }
    steps.push(low);
    steps.push(Draft::Plain(and(mask as u32)));
    steps.push(Draft::Jump {
        code: JUMP_EQUAL,
        k: value as u32,
        on_true: equal,
        on_false: different,
    });
    steps
}

/// BPF_MAXINSNS.
const MAXIMUM_LENGTH: usize = 4096;

// offsets in struct seccomp_data; arguments are 64 bits each, low half first
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;
#[cfg(target_endian = "big")]
compile_error!("the halves of arguments are the other way round on a big-endian machine");

// linux/bpf_common.h
pub(super) const LOAD: u16 = 0x20;
pub(super) const AND: u16 = 0x54;
pub(super) const JUMP_ALWAYS: u16 = 0x05;
pub(super) const JUMP_EQUAL: u16 = 0x15;
pub(super) const JUMP_GREATER: u16 = 0x25;
pub(super) const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
pub(super) const RETURN: u16 = 0x06;

fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, jump_true: 0, jump_false: 0, k: offset }
}

fn and(mask: u32) -> Instruction {
    Instruction { code: AND, jump_true: 0, jump_false: 0, k: mask }
}

fn jump(code: u16, k: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, k }
}

fn jump_always(distance: usize) -> Instruction {
    // a program that long is refused as a whole later
    let k = u32::try_from(distance).unwrap_or(u32::MAX);
    Instruction { code: JUMP_ALWAYS, jump_true: 0, jump_false: 0, k }
}

fn end(action: Action) -> Instruction {
    Instruction { code: RETURN, jump_true: 0, jump_false: 0, k: action.value() }
}

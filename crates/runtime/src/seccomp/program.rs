//! From a profile to instructions of classic BPF over `struct seccomp_data` (seccomp(2)).

use super::Instruction;
use super::outcome::{Outcome, Outcomes, Test, TestedRule};
use super::profile::{Action, Comparison, Profile};
use super::table::{Architecture, X32_BIT};

/// Compiles a profile for a machine that runs the calls of `machine`'s architectures.
///
/// The program tells the audit architecture apart, then finds the call's number by halving a list
/// of ranges with the same outcome, and last tests arguments where there are such rules. It uses
/// only instructions that the kernel can follow by itself to find calls that are always allowed
/// (linux: kernel/seccomp.c, `seccomp_is_const_allow`), which then skip the filter altogether.
///
/// The error is the length of a program that is longer than the kernel takes.
pub(super) fn assemble(
    profile: &Profile,
    machine: &[Architecture],
) -> Result<Vec<Instruction>, usize> {
    let mut audits: Vec<u32> = Vec::new();
    for architecture in machine.iter().filter(|it| profile.architectures.contains(it)) {
        if !audits.contains(&architecture.audit()) {
            audits.push(architecture.audit());
        }
    }
    let mut outcomes = Outcomes::new(profile);
    let mut backwards = Backwards { program: Vec::with_capacity(1024), ends: Vec::new() };
    let foreign = backwards.end_at(Outcome::Always(Profile::FOREIGN), &outcomes, profile.default);
    debug_assert_eq!(foreign, 0);
    for audit in audits.into_iter().rev() {
        let behind = backwards.program.len();
        let ranges = ranges(profile, &mut outcomes, audit);
        let first = backwards.search(&ranges, &outcomes, profile.default);
        if first + 1 != backwards.program.len() {
            backwards.push(jump_always(backwards.distance(first)));
        }
        backwards.push(load(OFFSET_NUMBER));
        // a section is longer than a conditional jump reaches
        let section = backwards.program.len() - behind;
        backwards.push(jump_always(section));
        backwards.push(jump(JUMP_EQUAL, audit, 1, 0));
    }
    backwards.push(load(OFFSET_ARCH));
    let mut program = backwards.program;
    program.reverse();
    match program.len() {
        0..=MAXIMUM_LENGTH => Ok(program),
        length => Err(length),
    }
}

/// Covers all numbers of one audit architecture: (first number, outcome), in ascending order, each
/// up to the next one's first.
fn ranges(profile: &Profile, outcomes: &mut Outcomes<'_>, audit: u32) -> Vec<(u32, Outcome)> {
    let unknown = Outcome::Always(profile.unknown());
    let mut ranges = Ranges(Vec::with_capacity(512));
    ranges.put(0, unknown);
    let is_used = |it: &Architecture| it.audit() == audit && profile.architectures.contains(it);
    // in the order of their numbers: x32 is behind x86-64
    for architecture in Architecture::ALL.into_iter().filter(is_used) {
        let mut end = 0;
        for names in architecture.calls().chunk_by(|(a, _), (b, _)| a == b) {
            let number = names[0].0;
            if number != end {
                ranges.put(end, unknown);
            }
            ranges.put(number, outcomes.of(architecture, names));
            end = number + 1;
        }
        ranges.put(end, unknown);
    }
    if audit == Architecture::X32.audit() && !profile.architectures.contains(&Architecture::X32) {
        ranges.put(X32_BIT, Outcome::Always(Profile::FOREIGN));
        // what a tracer leaves to skip a call (seccomp(2), SECCOMP_RET_TRACE)
        ranges.put(u32::MAX, unknown);
    }
    ranges.0
}

struct Ranges(Vec<(u32, Outcome)>);

impl Ranges {
    /// From `first` on it is `outcome`.
    fn put(&mut self, first: u32, outcome: Outcome) {
        if self.0.last().is_some_and(|(start, _)| *start == first) {
            self.0.pop();
        }
        if self.0.last().is_none_or(|(_, last)| *last != outcome) {
            self.0.push((first, outcome));
        }
    }
}

/// A program from its end, so that jumps know how far their targets are. An instruction's place is
/// its index from the end.
///
/// What ends the program is there once for all that jump there, as far as their jumps reach: the
/// kernel translates each instruction at each start, and half of them would be such ends.
struct Backwards {
    program: Vec<Instruction>,
    /// The outcomes that are there, with the place of their first instruction.
    ends: Vec<(Outcome, usize)>,
}

impl Backwards {
    fn push(&mut self, instruction: Instruction) -> usize {
        self.program.push(instruction);
        self.program.len() - 1
    }

    /// What the next instruction has to skip to come to `place`.
    fn distance(&self, place: usize) -> usize {
        self.program.len() - place - 1
    }

    /// Finds the number's range by halving; the accumulator holds the number. Returns where that
    /// begins.
    fn search(
        &mut self,
        ranges: &[(u32, Outcome)],
        outcomes: &Outcomes<'_>,
        default: Action,
    ) -> usize {
        let (low, high) = match ranges {
            [] => return self.end_at(Outcome::Always(default), outcomes, default),
            [(_, outcome)] => return self.end_at(*outcome, outcomes, default),
            more => more.split_at(more.len() / 2),
        };
        let greater = self.search(high, outcomes, default);
        let less = self.search(low, outcomes, default);
        let less = self.within_reach(less);
        let greater = self.within_reach(greater);
        let distances = (short(self.distance(greater)), short(self.distance(less)));
        self.push(jump(JUMP_GREATER_OR_EQUAL, high[0].0, distances.0, distances.1))
    }

    /// A place from which an outcome follows.
    fn end_at(&mut self, outcome: Outcome, outcomes: &Outcomes<'_>, default: Action) -> usize {
        let near = self.ends.iter().rev().find(|(other, _)| *other == outcome);
        if let Some((_, place)) = near.filter(|(_, place)| self.distance(*place) <= REACH) {
            return *place;
        }
        let place = match outcome {
            Outcome::Always(action) => self.push(end(action)),
            Outcome::Tested(index) => {
                let program = arguments(outcomes.tested(index), default);
                self.program.extend(program.into_iter().rev());
                self.program.len() - 1
            }
        };
        self.ends.push((outcome, place));
        place
    }

    /// The place itself, or one nearby that leads there.
    fn within_reach(&mut self, place: usize) -> usize {
        match self.distance(place) {
            0..=REACH => place,
            distance => self.push(jump_always(distance)),
        }
    }
}

/// How far a conditional jump may go, with room for one instruction more on the way.
const REACH: usize = u8::MAX as usize - 1;

/// Tests one rule after the other; what fails a test goes on behind its rule's action.
fn arguments(rules: &[TestedRule], default: Action) -> Vec<Instruction> {
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
    if rules.last().is_none_or(|(tests, _)| !tests.is_empty()) {
        program.push(end(default));
    }
    program
}

fn short(distance: usize) -> u8 {
    u8::try_from(distance)
        .expect("a rule has 6 tests of 6 instructions at most, and other jumps were shortened")
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
    let high = (!test.low_only).then(|| Draft::Plain(load(offset + 4)));
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
        steps.extend(and((mask >> 32) as u32));
        steps.push(Draft::Jump {
            code: JUMP_EQUAL,
            k: (value >> 32) as u32,
            on_true: Target::Next,
            on_false: different,
        });
    }
    steps.push(low);
    steps.extend(and(mask as u32));
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

fn and(mask: u32) -> Option<Draft> {
    let instruction = Instruction { code: AND, jump_true: 0, jump_false: 0, k: mask };
    (mask != u32::MAX).then_some(Draft::Plain(instruction))
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

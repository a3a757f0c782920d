//! The same profile by libseccomp and by us: both programs have to answer every call alike, but for
//! the differences that the module's text lists.
#![allow(clippy::disallowed_types, reason = "a test calls other programs as users do")]

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Deserialize;
use serde_json::json;

use super::*;

/// A Python process with the library.
struct Library {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

#[derive(Debug, Deserialize)]
struct Answer {
    error: Option<String>,
    program: Option<String>,
    #[serde(default)]
    unknown: Vec<String>,
}

impl Library {
    /// `None` where there is no Python or no libseccomp.
    fn start() -> Option<Self> {
        let mut process = Command::new("python3")
            .args(["-c", include_str!("libseccomp.py")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let requests = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        let mut library = Self { process, requests, answers };
        let request = json!({"names": ["read"], "architecture": "SCMP_ARCH_X86_64"});
        let answer = library.ask(&request)?;
        assert_eq!(answer, "[0]\n");
        Some(library)
    }

    fn ask(&mut self, request: &serde_json::Value) -> Option<String> {
        // a process that has ended for want of the library takes no request
        writeln!(self.requests, "{request}").ok()?;
        let mut line = String::new();
        self.answers.read_line(&mut line).ok().filter(|length| *length > 0).map(|_| line)
    }

    /// Negative where it has none.
    fn numbers(&mut self, names: &[&str], architecture: Architecture) -> Vec<i32> {
        let request = json!({"names": names, "architecture": architecture.profile_name()});
        serde_json::from_str(&self.ask(&request).unwrap()).unwrap()
    }

    /// The calls that we know and it does not, being older.
    fn missing(&mut self, architectures: &[Architecture]) -> HashSet<(u32, u32)> {
        let mut missing = HashSet::new();
        for architecture in architectures {
            let calls = architecture.calls();
            let names: Vec<&str> = calls.iter().map(|(_, call)| call.name()).collect();
            let numbers = self.numbers(&names, *architecture);
            // between these are the places in socketcall and ipc
            let is_missing = |number: i32| number < 0 && !(-300..=-100).contains(&number);
            let missed = calls.iter().zip(numbers).filter(|(_, number)| is_missing(*number));
            missing.extend(missed.map(|((number, _), _)| (architecture.audit(), *number)));
        }
        missing
    }

    /// The program, and the names that the library does not know; or why it refuses.
    fn compile(
        &mut self,
        seccomp: &oci::Seccomp,
        native: Architecture,
    ) -> Result<(Vec<Instruction>, Vec<String>), String> {
        let request = json!({"profile": seccomp, "native": native.profile_name()});
        let Some(answer) = self.ask(&request) else {
            *self = Self::start().unwrap();
            return Err(ENDLESS.to_owned());
        };
        let answer: Answer = serde_json::from_str(&answer).unwrap();
        if let Some(error) = answer.error {
            return Err(error);
        }
        let digits = answer.program.unwrap();
        let bytes: Vec<u8> = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
            .collect();
        let (instructions, []) = bytes.as_chunks::<8>() else { panic!("{} bytes", bytes.len()) };
        let instruction = |it: &[u8; 8]| Instruction {
            code: u16::from_le_bytes([it[0], it[1]]),
            jump_true: it[2],
            jump_false: it[3],
            k: u32::from_le_bytes([it[4], it[5], it[6], it[7]]),
        };
        Ok((instructions.iter().map(instruction).collect(), answer.unknown))
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Why a profile was not compared that libseccomp does not come to an end with.
const ENDLESS: &str = "libseccomp found no end";
const MISSING: &str = "no python3 or no libseccomp (Debian: libseccomp2)";

/// How many calls were compared, and in how many of them the programs differ for a reason.
#[derive(Debug, Default)]
struct Compared {
    calls: usize,
    unknown_numbers: usize,
    contradictions: usize,
    /// Of the contradictions.
    other_order: usize,
    misread: usize,
}

impl Compared {
    fn compare(
        &mut self,
        profile: &Profile,
        machine: &[Architecture],
        programs: (&[Instruction], &[Instruction]),
        call: Made,
    ) -> Result<(), String> {
        let (ours, theirs) = (answer(programs.0, call), answer(programs.1, call));
        let actions = reference::actions(profile, machine, call);
        let is_one = |value: u32| actions.iter().any(|action| action.value() == value);
        if !is_one(ours) {
            return Err(format!("{call:x?}: {ours:#x} is none of {actions:x?}"));
        }
        self.calls += 1;
        self.contradictions += usize::from(actions.len() > 1);
        if ours == theirs {
            return Ok(());
        }
        let names = names(machine, call);
        if names.is_empty() && theirs == profile.default.value() {
            // ENOSYS for numbers that nobody knows
            self.unknown_numbers += 1;
        } else if actions.len() > 1 && is_one(theirs) {
            self.other_order += 1;
        } else if can_be_misread(profile, machine, call) {
            self.misread += 1;
        } else {
            return Err(format!("{call:x?}: {ours:#x}, libseccomp {theirs:#x}, of {actions:x?}"));
        }
        Ok(())
    }
}

fn names(machine: &[Architecture], call: Made) -> Vec<&'static str> {
    let calls = machine.iter().filter(|it| it.audit() == call.audit).flat_map(|it| it.calls());
    calls.filter(|(number, _)| *number == call.number).map(|(_, call)| call.name()).collect()
}

/// A comparison of libseccomp 2.5 that is behind another one of the same rule, as the low half of an
/// argument is behind the high one, may go on to the next rule with what it has loaded, and take that
/// for what the next rule is about. The answer is then that of no rule.
fn can_be_misread(profile: &Profile, machine: &[Architecture], call: Made) -> bool {
    let names = names(machine, call);
    let multiplexed = names.iter().any(|name| ["socketcall", "ipc"].contains(name));
    let is_about =
        |rule: &&Rule| multiplexed || rule.calls.iter().any(|call| names.contains(&call.name()));
    let rules = profile.rules.iter().filter(|rule| rule.action != profile.default);
    let mut rules: Vec<&Rule> = rules.filter(is_about).collect();
    rules.retain(|rule| !rule.conditions.is_empty());
    let is_64_bit = machine.iter().any(|it| it.is_64_bit() && it.audit() == call.audit)
        && call.number & table::X32_BIT == 0;
    let least = if is_64_bit { 1 } else { 2 };
    let is_deep = |rule: &&Rule| rule.conditions.len() + usize::from(multiplexed) >= least;
    rules.len() > 1 && rules.iter().any(is_deep)
}

/// Ours with what the library knows too.
fn both(
    library: &mut Library,
    seccomp: &oci::Seccomp,
    machine: &[Architecture],
) -> Result<(Profile, Vec<Instruction>, Vec<Instruction>), String> {
    let (theirs, unknown) = library.compile(seccomp, machine[0])?;
    let mut seccomp = seccomp.clone();
    for rule in &mut seccomp.syscalls {
        rule.names.retain(|name| !unknown.contains(name));
    }
    let open = CompileOptions { close_socketcall: false };
    let profile = super::super::oci::profile(&seccomp, open, machine).unwrap().unwrap();
    let ours = program::assemble(&profile, machine).unwrap();
    Ok((profile, ours, theirs))
}

#[test]
fn dockers_profile_is_what_libseccomp_makes_of_it() {
    let Some(mut library) = Library::start() else { return bulkhead_sys::testing::skip(MISSING) };
    let mut compared = Compared::default();
    for set in [Capabilities::DEFAULT, Capabilities::NONE, Capabilities::ALL] {
        for (machine, used) in [
            (Architecture::ON_X86_64, Architecture::ON_X86_64),
            (Architecture::ON_X86_64, &Architecture::ON_X86_64[..1]),
            (Architecture::ON_X86_64, &Architecture::ON_X86_64[..2]),
            (Architecture::ON_AARCH64, Architecture::ON_AARCH64),
        ] {
            let mut seccomp = samples::expanded(set);
            seccomp.architectures = used.iter().map(|it| it.profile_name().to_owned()).collect();
            let (profile, ours, theirs) = both(&mut library, &seccomp, machine).unwrap();
            let missing = library.missing(used);
            // an `int` is compared as one by us
            let boundaries = samples::boundaries(&profile, [0; 6]);
            let ints: Vec<_> =
                boundaries.iter().map(|it| it.map(|it| it & u64::from(u32::MAX))).collect();
            for number in programs::numbers() {
                for audit in Architecture::ALL.map(Architecture::audit).into_iter().chain([0]) {
                    if missing.contains(&(audit, number)) {
                        continue;
                    }
                    let call = |arguments| Made { audit, number, arguments };
                    let names = names(machine, call([0; 6]));
                    let arguments: &[[u64; 6]] = match names.first() {
                        Some(&("socket" | "personality")) => &ints,
                        Some(&("clone" | "socketcall" | "ipc" | "read" | "bind")) => &boundaries,
                        _ => &boundaries[..1],
                    };
                    for arguments in arguments {
                        compared
                            .compare(&profile, machine, (&ours, &theirs), call(*arguments))
                            .unwrap();
                    }
                }
            }
        }
    }
    println!("{compared:?}");
    assert!(compared.calls > 200_000, "{compared:?}");
    assert_eq!((compared.contradictions, compared.misread), (0, 0));
}

/// Random rules on few calls, with repeated and contradicting conditions, on random architectures.
#[test]
fn any_profile_is_what_libseccomp_makes_of_it() {
    let Some(library) = Library::start() else { return bulkhead_sys::testing::skip(MISSING) };
    let library = RefCell::new(library);
    let (compared, taken, endless) =
        (RefCell::new(Compared::default()), Cell::new(0), Cell::new(0));
    let mut numbers = Vec::new();
    for architecture in NATIVE {
        let is_tried = |call: &Call| samples::CALLS.contains(&call.name());
        let tried = architecture.calls().iter().filter(|(_, call)| is_tried(call));
        numbers.extend(tried.map(|(number, _)| (architecture.audit(), *number)));
    }
    for audit in Architecture::ALL.map(Architecture::audit).into_iter().chain([0]) {
        numbers.extend([39, 600, table::X32_BIT + 600, u32::MAX].map(|number| (audit, number)));
    }
    let config =
        ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    let strategy = (samples::profile(), proptest::array::uniform6(samples::value()));
    let result =
        proptest::test_runner::TestRunner::new(config).run(&strategy, |(seccomp, rest)| {
            // as runc, the library refuses some profiles whose rules contradict each other
            let made = both(&mut library.borrow_mut(), &seccomp, NATIVE);
            let (profile, ours, theirs) = match made {
                Ok(made) => made,
                Err(cause) => {
                    endless.set(endless.get() + usize::from(cause == ENDLESS));
                    return Ok(());
                }
            };
            taken.set(taken.get() + 1);
            for arguments in samples::boundaries(&profile, rest) {
                for (audit, number) in &numbers {
                    let call = Made { audit: *audit, number: *number, arguments };
                    compared
                        .borrow_mut()
                        .compare(&profile, NATIVE, (&ours, &theirs), call)
                        .map_err(TestCaseError::fail)?;
                }
            }
            Ok(())
        });
    result.unwrap();
    let compared = compared.into_inner();
    println!("{} profiles, {compared:?}", taken.get());
    // few, so that the exceptions hide nothing
    assert!(compared.misread * 100 < compared.calls, "{compared:?}");
    assert!(compared.other_order * 10 <= compared.contradictions, "{compared:?}");
    assert!(taken.get() > 100 && compared.calls > 200_000, "{} {compared:?}", taken.get());
    assert!(endless.get() < 10, "{} profiles without an end", endless.get());
}

/// Every name that both know has the same number.
#[test]
fn numbers_are_libseccomps() {
    let Some(mut library) = Library::start() else { return bulkhead_sys::testing::skip(MISSING) };
    for architecture in Architecture::ALL {
        let names: Vec<&str> = architecture.calls().iter().map(|(_, call)| call.name()).collect();
        let numbers = library.numbers(&names, architecture);
        let mut known = 0;
        for ((number, call), theirs) in architecture.calls().iter().zip(numbers) {
            if theirs >= 0 {
                assert_eq!(theirs as u32, *number, "{architecture:?} {}", call.name());
                known += 1;
            }
        }
        assert!(known > 250, "{architecture:?}: {known}");
    }
}

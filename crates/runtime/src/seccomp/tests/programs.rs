use super::*;

/// Every number that can matter, on every audit architecture.
pub(super) fn numbers() -> impl Iterator<Item = u32> {
    let around = |base: u32| (0..1200).map(move |number| base + number);
    around(0).chain(around(table::X32_BIT)).chain(around(0xf_0000)).chain([
        0xf_ffff,
        u32::MAX,
        u32::MAX - 1,
        i32::MAX as u32,
        table::X32_BIT - 1,
    ])
}

#[test]
fn every_number_of_every_architecture_ends_as_the_profile_says() {
    for capabilities in [0, docker::relevant(|name| name == "SYS_CHROOT"), u32::MAX] {
        for (machine, used) in [
            (Architecture::ON_X86_64, Architecture::ON_X86_64),
            (Architecture::ON_AARCH64, Architecture::ON_AARCH64),
            (Architecture::ON_X86_64, &[Architecture::X86_64]),
        ] {
            let mut profile = docker::profile(machine, capabilities);
            profile.close_socketcall = false;
            profile.architectures = used.to_vec();
            let program = program::assemble(&profile, machine).unwrap();
            for number in numbers() {
                for audit in Architecture::ALL.map(Architecture::audit).into_iter().chain([0]) {
                    for first in [0, 1, 8, 38, 39, 40, 41, 0x1000_0000, 1 << 32 | 40, u64::MAX] {
                        let call = Made { audit, number, arguments: [first, 0, 0, 0, 0, 0] };
                        let want = reference::actions(&profile, machine, call);
                        let want: Vec<u32> = want.into_iter().map(Action::value).collect();
                        assert_eq!([answer(&program, call)], want[..], "{machine:?} {call:x?}");
                    }
                }
            }
        }
    }
}

proptest! {
    /// The compiled program and the slow reading of the same profile agree on every call.
    #[test]
    fn programs_do_what_profiles_say(
        seccomp in samples::profile(),
        rest in proptest::array::uniform6(samples::value()),
    ) {
        let open = CompileOptions { close_socketcall: false };
        let profile = super::super::oci::profile(&seccomp, open, NATIVE).unwrap().unwrap();
        let program = program::assemble(&profile, NATIVE).unwrap();
        for arguments in samples::boundaries(&profile, rest) {
            for architecture in NATIVE {
                for name in samples::CALLS {
                    let call = Call::named(name).unwrap();
                    let number = architecture.calls().iter().find(|(_, known)| *known == call);
                    let Some((number, _)) = number else { continue };
                    let call = Made { audit: architecture.audit(), number: *number, arguments };
                    let actions = reference::actions(&profile, NATIVE, call);
                    let got = answer(&program, call);
                    prop_assert!(
                        actions.iter().any(|action| action.value() == got),
                        "{:?} {:x?}: {:#x} is not of {:?}", architecture, call, got, actions
                    );
                }
            }
        }
    }

    /// With the hole closed, `socketcall(SYS_SOCKET)` is let through only where `socket` does not
    /// depend on its arguments; nothing else changes.
    #[test]
    fn closing_socketcall_changes_one_call(seccomp in samples::profile_of_sockets(), first in 0u64..4) {
        let compiled = |close_socketcall| {
            compile_oci(&seccomp, CompileOptions { close_socketcall }).unwrap().unwrap()
        };
        let (open, closed) = (compiled(false), compiled(true));
        for architecture in NATIVE {
            for (number, name) in architecture.calls() {
                let arguments = [first, 2, 1, 0, 0, 0];
                let call = Made { audit: architecture.audit(), number: *number, arguments };
                let (before, after) = (answer(&open.instructions, call), answer(&closed.instructions, call));
                if (*architecture, name.name(), first) == (Architecture::X86, "socketcall", 1) {
                    prop_assert!(after == before || after == ENOSYS_VALUE);
                } else {
                    prop_assert_eq!(before, after);
                }
            }
        }
    }

    /// What a fuzz target checks: a text is refused, or its program is one that the kernel takes.
    #[test]
    fn any_text_of_a_profile_is_refused_or_compiles_to_a_valid_program(
        seccomp in samples::profile(),
        (from, length, into) in (any::<u16>(), 0usize..4, "[\\[\\]{}\",:A-Z_0-9-]{0,4}"),
        call in (any::<u32>(), proptest::array::uniform6(any::<u64>())),
    ) {
        // somewhere in it, something else stands
        let mut text = serde_json::to_string(&seccomp).unwrap();
        let from = usize::from(from) % text.len();
        let to = (from + length).min(text.len());
        text.replace_range(from..to, &into);
        let Ok(seccomp) = serde_json::from_str::<oci::Seccomp>(&text) else { return Ok(()) };
        let Ok(Some(filter)) = compile_oci(&seccomp, CompileOptions::default()) else {
            return Ok(());
        };
        prop_assert_eq!(interpreter::validate(&filter.instructions), Ok(()));
        for audit in Architecture::ALL.map(Architecture::audit) {
            let call = Made { audit, number: call.0 % 500, arguments: call.1 };
            prop_assert!(run(&filter.instructions, &call).is_ok());
        }
    }
}

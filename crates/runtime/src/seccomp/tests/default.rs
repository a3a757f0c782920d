use super::*;

fn default_answer(
    capabilities: Capabilities,
    architecture: Architecture,
    name: &str,
    first: u64,
) -> u32 {
    let filter = compile(&Seccomp::Default, capabilities).unwrap().unwrap();
    answer(&filter.instructions, made(architecture, name, [first, 0, 0, 0, 0, 0]))
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
fn packets_are_closed_by_every_name_that_the_kernel_has_for_them() {
    let own = Capabilities::OWN_NETWORK;
    let filters = [Seccomp::WithoutPackets, Seccomp::Default];
    let [closed, open] = filters.map(|seccomp| compile(&seccomp, own).unwrap().unwrap());
    let (inet, inet6, packet, cloexec) = (2, 10, 17, 0o2_000_000);
    for architecture in [Architecture::X86_64, Architecture::X86, Architecture::X32] {
        for family in 0..64 {
            for kind in 0..16 {
                for (high, flags) in [(0, 0), (0, cloexec), (1 << 32, 1 << 32 | cloexec)] {
                    let arguments = [high | family, flags | kind, 0, 0, 0, 0];
                    let made = made(architecture, "socket", arguments);
                    let is_packet = family == packet || (family == inet && kind == 10);
                    let want =
                        if is_packet || [38, 40].contains(&family) { EPERM_VALUE } else { ALLOW };
                    let got = answer(&closed.instructions, made);
                    assert_eq!(got, want, "{architecture:?} {family} {kind} {flags:#x}");
                    let got = answer(&open.instructions, made);
                    let want = if [38, 40].contains(&family) { EPERM_VALUE } else { ALLOW };
                    assert_eq!(got, want, "{architecture:?} {family} {kind} {flags:#x}");
                }
            }
        }
        let raw = made(architecture, "socket", [inet6, 3, 58, 0, 0, 0]);
        assert_eq!(answer(&closed.instructions, raw), ALLOW, "ping of IPv6");
    }
}

#[test]
fn a_lookup_takes_few_steps() {
    let filter = compile(&Seccomp::Default, Capabilities::DEFAULT).unwrap().unwrap();
    for (number, call) in Architecture::X86_64.calls() {
        let made = Made { audit: 0xc000_003e, number: *number, arguments: [0; 6] };
        let (_, steps) = run(&filter.instructions, &made).unwrap();
        assert!(steps < 32, "{}: {steps}", call.name());
    }
}

#[test]
fn the_usual_sets_of_capabilities_are_compiled_by_the_build() {
    let dockers =
        ["NET_RAW", "MKNOD", "AUDIT_WRITE"].into_iter().fold(Capabilities::DEFAULT, |set, name| {
            set.with(Capabilities(1 << capabilities::parse(name).unwrap()))
        });
    for set in [Capabilities::DEFAULT, dockers, Capabilities::NONE, Capabilities::ALL] {
        let relevant = docker::relevant(|name| set.has(capabilities::parse(name).unwrap()));
        let (_, program) =
            PRECOMPILED.iter().find(|(capabilities, _)| *capabilities == relevant).unwrap();
        let compiled = assemble(&docker::profile(NATIVE, relevant)).unwrap();
        assert_eq!(&compiled.instructions[..], *program);
        assert_eq!(compile(&Seccomp::Default, set).unwrap(), Some(compiled));
    }
    for set in [Capabilities::OWN_NETWORK, Capabilities::NONE] {
        let relevant = docker::relevant(|name| set.has(capabilities::parse(name).unwrap()));
        let closed = relevant | docker::PACKETS_CLOSED;
        let (_, program) = PRECOMPILED.iter().find(|(it, _)| *it == closed).unwrap();
        let compiled = compile(&Seccomp::WithoutPackets, set).unwrap().unwrap();
        assert_eq!(&compiled.instructions[..], *program);
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

/// What dockerd, containerd and Podman hand over is this very profile: so is the program.
#[test]
fn dockers_expanded_profile_compiles_to_the_default() {
    for set in [Capabilities::DEFAULT, Capabilities::NONE, Capabilities::ALL] {
        let expanded = samples::expanded(set);
        let want = compile(&Seccomp::Default, set).unwrap().unwrap();
        let got = compiled(&expanded);
        assert_eq!(got.instructions, want.instructions);
        let open = CompileOptions { close_socketcall: false };
        let open = compile_oci(&expanded, open).unwrap().unwrap();
        let socketcall = made(Architecture::X86, "socketcall", [1, 0, 0, 0, 0, 0]);
        assert_eq!(answer(&open.instructions, socketcall), ALLOW);
    }
}

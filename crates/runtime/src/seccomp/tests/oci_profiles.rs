use super::*;

/// A profile of one rule on `kill`.
fn rule(rule: &str) -> String {
    format!(
        r#"{{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/l","syscalls":[{{"names":["kill"],{rule}}}]}}"#
    )
}

#[test]
fn every_action_and_operator_is_compiled() {
    for (action, want) in [
        (r#""action":"SCMP_ACT_KILL""#, 0),
        (r#""action":"SCMP_ACT_KILL_THREAD""#, 0),
        (r#""action":"SCMP_ACT_KILL_PROCESS""#, 0x8000_0000),
        (r#""action":"SCMP_ACT_TRAP""#, 0x0003_0000),
        (r#""action":"SCMP_ACT_ERRNO""#, 0x0005_0001),
        (r#""action":"SCMP_ACT_ERRNO","errnoRet":0"#, 0x0005_0000),
        (r#""action":"SCMP_ACT_ERRNO","errnoRet":38"#, 0x0005_0026),
        (r#""action":"SCMP_ACT_TRACE""#, 0x7ff0_0001),
        (r#""action":"SCMP_ACT_TRACE","errnoRet":65535"#, 0x7ff0_ffff),
        (r#""action":"SCMP_ACT_ALLOW""#, ALLOW),
        (r#""action":"SCMP_ACT_LOG""#, 0x7ffc_0000),
        (r#""action":"SCMP_ACT_NOTIFY""#, 0x7fc0_0000),
    ] {
        let filter = compiled(&read(&rule(action)));
        assert_eq!(answer(&filter.instructions, made(NATIVE[0], "kill", [0; 6])), want, "{action}");
        assert_eq!(filter.listener, action.contains("NOTIFY"));
    }
    let big = 1 << 32 | 5;
    for (operator, value, two, holds, fails) in [
        ("EQ", big, 0, vec![big], vec![5, big + 1, big - 1, 1 << 32]),
        ("NE", big, 0, vec![5, big + 1], vec![big]),
        ("LT", big, 0, vec![0, 5, big - 1, u32::MAX.into()], vec![big, big + 1, 2 << 32]),
        ("LE", big, 0, vec![0, big - 1, big], vec![big + 1, 2 << 32]),
        ("GT", big, 0, vec![big + 1, 2 << 32], vec![big, 5, u32::MAX.into()]),
        ("GE", big, 0, vec![big, big + 1, 2 << 32], vec![big - 1, 6]),
        (
            "MASKED_EQ",
            1 << 32 | 0xf0,
            0x10,
            vec![0x1f, 2 << 32 | 0x10],
            vec![big, 0x20, 1 << 32 | 0x10],
        ),
        // what the mask does not have is not compared
        ("MASKED_EQ", 0xf0, 0x1f, vec![0x10, 0x1f], vec![0x2f]),
    ] {
        let text = format!(
            r#""action":"SCMP_ACT_TRAP","args":[{{"index":1,"op":"SCMP_CMP_{operator}","value":{value},"valueTwo":{two}}}]"#
        );
        let filter = compiled(&read(&rule(&text)));
        let got = |argument| {
            answer(&filter.instructions, made(NATIVE[0], "kill", [7, argument, 7, 7, 7, 7]))
        };
        for argument in holds {
            assert_eq!(got(argument), 0x0003_0000, "{operator} {argument:#x}");
        }
        for argument in fails {
            assert_eq!(got(argument), ALLOW, "{operator} {argument:#x}");
        }
    }
}

#[test]
fn flags_and_listener_are_as_runc_has_them() {
    let profile = |fields: &str, action: &str| {
        read(&format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW",{fields}"syscalls":[{{"names":["kill"],"action":"{action}"}}]}}"#
        ))
    };
    let all = r#""flags":["SECCOMP_FILTER_FLAG_TSYNC","SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_SPEC_ALLOW","SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],"#;
    let both = Flags::LOG.with(Flags::SPEC_ALLOW);
    for (fields, want) in [
        ("", Flags::SPEC_ALLOW),
        (r#""flags":null,"#, Flags::SPEC_ALLOW),
        (r#""flags":[],"#, Flags::NONE),
        (r#""flags":["SECCOMP_FILTER_FLAG_LOG"],"#, Flags::LOG),
        (all, both),
    ] {
        assert_eq!(compiled(&profile(fields, "SCMP_ACT_TRAP")).flags, want, "{fields}");
    }
    let listening = compiled(&profile(&format!(r#"{all}"listenerPath":"/l","#), "SCMP_ACT_NOTIFY"));
    assert_eq!((listening.flags, listening.listener), (both.with(Flags::WAIT_KILLABLE_RECV), true));
}

#[test]
fn nothing_at_all_is_no_filter() {
    for text in ["{}", r#"{"architectures":["SCMP_ARCH_X86"],"flags":[]}"#] {
        assert_eq!(compile_oci(&read(text), CompileOptions::default()).unwrap(), None);
    }
    // libseccomp's filter without rules
    let bare = compiled(&read(r#"{"defaultAction":"SCMP_ACT_LOG"}"#));
    assert_eq!(answer(&bare.instructions, made(NATIVE[0], "read", [0; 6])), 0x7ffc_0000);
}

#[test]
fn architectures_of_other_machines_change_nothing() {
    let list = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
        let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":[LIST],"syscalls":[{"names":["read","no_such_call"],"action":"SCMP_ACT_ALLOW"}]}"#;
        compiled(&read(&text.replace("LIST", &names.join(","))))
    };
    let own = NATIVE[0].profile_name();
    let foreign: Vec<&str> = names::ARCHITECTURES
        .into_iter()
        .filter(|name| !NATIVE.iter().any(|it| it.profile_name() == *name))
        .collect();
    assert_eq!(list(&foreign), list(&[own]));
    assert_eq!(
        list(&names::ARCHITECTURES),
        list(&NATIVE.iter().map(|it| it.profile_name()).collect::<Vec<_>>())
    );
    // the native one is always meant
    assert_eq!(list(&[]), list(&[own]));
}

#[test]
fn a_bad_profile_is_told_apart() {
    let default = |text: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW",{text}}}"#);
    for (text, want) in [
        (
            r#"{"syscalls":[{"names":["kill"],"action":"SCMP_ACT_LOG"}]}"#.to_owned(),
            r#"seccomp profile: action "" is not"#,
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#.to_owned(),
            "SCMP_ACT_NOTIFY cannot be used as default action",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_KILL","defaultErrnoRet":1}"#.to_owned(),
            "seccomp profile: an errno is specified for action",
        ),
        (
            rule(r#""action":"SCMP_ACT_ALLOW","errnoRet":1"#),
            "seccomp profile: an errno is specified for action",
        ),
        (rule(r#""action":"SCMP_ACT_ERRNO","errnoRet":4096"#), "seccomp profile: errno 4096"),
        (rule(r#""action":"ALLOW""#), r#"seccomp profile: action "ALLOW""#),
        (
            rule(r#""action":"SCMP_ACT_LOG","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]"#),
            "seccomp profile: a system call has arguments",
        ),
        (
            rule(r#""action":"SCMP_ACT_LOG","args":[{"index":0,"value":0,"op":"SCMP_CMP_XX"}]"#),
            r#"seccomp profile: operator "SCMP_CMP_XX""#,
        ),
        (
            default(r#""architectures":["SCMP_ARCH_VAX"]"#),
            r#"seccomp profile: architecture "SCMP_ARCH_VAX""#,
        ),
        (
            default(r#""flags":["SECCOMP_FILTER_FLAG_X"]"#),
            r#"seccomp profile: flag "SECCOMP_FILTER_FLAG_X""#,
        ),
        (
            default(r#""syscalls":[{"names":[""],"action":"SCMP_ACT_LOG"}]"#),
            "seccomp profile: empty string",
        ),
        (
            default(
                r#""listenerPath":"/l","syscalls":[{"names":["read","write"],"action":"SCMP_ACT_NOTIFY"}]"#,
            ),
            "SCMP_ACT_NOTIFY cannot be used for the write",
        ),
        (
            default(r#""syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]"#),
            "seccomp listenerPath is not set",
        ),
    ] {
        let error = compile_oci(&read(&text), CompileOptions::default()).unwrap_err().to_string();
        assert!(error.starts_with(want), "{text}: {error}");
    }
}

#[test]
fn a_profile_too_long_for_the_kernel_is_refused() {
    let rules: Vec<String> = (0..2000)
        .map(|value| format!(r#"{{"names":["kill"],"action":"SCMP_ACT_TRAP","args":[{{"index":0,"value":{value},"op":"SCMP_CMP_EQ"}}]}}"#))
        .collect();
    let text = format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{}]}}"#, rules.join(","));
    let error = compile_oci(&read(&text), CompileOptions::default()).unwrap_err();
    assert!(matches!(error, SeccompError::TooLong(4097..)), "{error}");
}

#[test]
fn the_way_around_a_rule_on_sockets_is_closed() {
    let profile = |default: &str, socket: &str, socketcall: &str| {
        let condition = r#""args":[{"index":0,"value":40,"op":"SCMP_CMP_NE"}],"#;
        let rules =
            [("socket", socket), ("socketcall", socketcall)].map(|(name, rule)| match rule {
                "" => r#"{"names":[],"action":"SCMP_ACT_LOG"}"#.to_owned(),
                rule => {
                    let (args, action) = match rule.strip_prefix("if ") {
                        Some(action) => (condition, action),
                        None => ("", rule),
                    };
                    format!(r#"{{"names":["{name}"],{args}"action":"SCMP_ACT_{action}"}}"#)
                }
            });
        read(&format!(
            r#"{{"defaultAction":"SCMP_ACT_{default}","architectures":["SCMP_ARCH_X86"],"syscalls":[{}]}}"#,
            rules.join(",")
        ))
    };
    if !NATIVE.contains(&Architecture::X86) {
        return;
    }
    for (default, socket, socketcall, open, closed) in [
        ("ERRNO", "if ALLOW", "ALLOW", ALLOW, ENOSYS_VALUE),
        // libseccomp takes the rule on socket for one on its place in socketcall
        ("ERRNO", "if ALLOW", "", ALLOW, ENOSYS_VALUE),
        ("ERRNO", "ALLOW", "ALLOW", ALLOW, ALLOW),
        ("ERRNO", "ALLOW", "", ALLOW, ALLOW),
        ("ERRNO", "", "ALLOW", ALLOW, ALLOW),
        ("ERRNO", "if ALLOW", "TRAP", 0x0003_0000, 0x0003_0000),
        ("ALLOW", "if ERRNO", "", EPERM_VALUE, EPERM_VALUE),
        ("ALLOW", "if ERRNO", "LOG", 0x7ffc_0000, ENOSYS_VALUE),
        ("ALLOW", "ERRNO", "", EPERM_VALUE, EPERM_VALUE),
    ] {
        let profile = profile(default, socket, socketcall);
        for (close_socketcall, want) in [(false, open), (true, closed)] {
            let filter =
                compile_oci(&profile, CompileOptions { close_socketcall }).unwrap().unwrap();
            let call = made(Architecture::X86, "socketcall", [1, 0, 0, 0, 0, 0]);
            let case = (default, socket, socketcall, close_socketcall);
            assert_eq!(answer(&filter.instructions, call), want, "{case:?}");
        }
    }
}

#[test]
fn names_that_no_architecture_has_are_found() {
    let profile = |name: &str| {
        read(&format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW",
                "syscalls":[{{"names":["kill","{name}"],"action":"SCMP_ACT_ERRNO"}}]}}"#
        ))
    };
    // of this machine, of another that has a table, of one that has none
    for name in ["read", "arm_fadvise64_64", "s390_sthyi"] {
        refuse_unknown_calls(&profile(name)).unwrap();
    }
    let error = refuse_unknown_calls(&profile("raed")).unwrap_err().to_string();
    assert!(error.starts_with("seccomp profile: system call \"raed\" is not known"), "{error}");
    assert!(compile_oci(&profile("raed"), CompileOptions::default()).unwrap().is_some());
}

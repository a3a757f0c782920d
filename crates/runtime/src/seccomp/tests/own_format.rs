use super::*;

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
        .map(|rule| (rule.calls[0].name(), rule.action, rule.conditions.len()))
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
    let call = |name, arguments| answer(&filter.instructions, made(NATIVE[0], name, arguments));
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

proptest! {
    #[test]
    fn any_json_is_survived(text in "[\\[\\]{}\",:a-zA-Z_0-9 ]{0,60}") {
        let _ = custom(&text);
        if let Ok(seccomp) = serde_json::from_str::<oci::Seccomp>(&text) {
            let _ = compile_oci(&seccomp, CompileOptions::default());
        }
    }
}

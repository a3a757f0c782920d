use bulkhead_types::IdMap;

use super::*;
use crate::*;

fn process(arguments: &[&str]) -> ProcessSpec {
    ProcessSpec {
        arguments: arguments.iter().map(|it| (*it).to_owned()).collect(),
        environment: vec!["PATH=/usr/bin:/bin:".into(), "HOME=/root".into()],
        working_directory: "/srv".into(),
        user: User { name: "web".into(), additional_groups: vec!["50".into()] },
        terminal: false,
        terminal_size: (0, 0),
        capabilities: Capabilities(0x4c3),
        no_new_privileges: false,
        seccomp: Seccomp::Default,
        rlimits: vec![("nofile".into(), 1024, u64::MAX)],
        oom_score_adj: Some(100),
        landlock: None,
        init: false,
    }
}

fn container() -> ContainerSpec {
    let private = Source::Private;
    let detached = MountKind::Detached { fd: FdIndex(1), is_directory: false };
    let bind = Mount {
        target: "/etc/hosts".into(),
        kind: detached,
        readonly: true,
        nosuid: false,
        nodev: false,
        noexec: false,
    };
    let mut mounts = defaults::mounts(false, defaults::SHM_SIZE);
    mounts.push(bind);
    ContainerSpec {
        hostname: "box".into(),
        domainname: String::new(),
        namespaces: Namespaces {
            pid: private,
            net: Source::Join(FdIndex(5)),
            ipc: private,
            mnt: private,
            uts: private,
            user: private,
            cgroup: private,
            time: Source::Host,
        },
        id_range: Some(IdMap::new(100_000, 65_536)),
        rootfs: FdIndex(0),
        rootfs_readonly: true,
        mounts,
        devices: vec![Device { path: "/dev/null".into(), fd: FdIndex(2) }],
        masked_paths: vec!["/proc/kcore".into()],
        readonly_paths: vec!["/proc/sys".into()],
        sysctls: vec![("net.ipv4.conf.eth0/100.forwarding".into(), "1".into())],
        cgroup_v1_procs: vec![FdIndex(3)],
        cgroup_v2: Some(FdIndex(4)),
        cgroup_v1_groups: vec![("cpu,cpuacct".into(), FdIndex(6))],
        process: process(&["nginx", "-g", "daemon off;"]),
    }
}

/// The plan as a child gets it; nothing is lost on the way.
pub(super) fn sent(plan: &Plan) -> Plan {
    let bytes = plan.encode().unwrap();
    let read = Plan::decode(&bytes).unwrap();
    assert_eq!(format!("{read:#?}"), format!("{plan:#?}"));
    assert_eq!(read.encode().unwrap(), bytes);
    for length in 0..bytes.len() {
        assert!(Plan::decode(&bytes[..length]).is_err(), "the first {length} bytes are no plan");
    }
    read
}

#[test]
fn a_container_on_a_hybrid_host() {
    let host = Host::parse("4:cpu,cpuacct:/\n3:pids:/x\n1:name=systemd:/\n0::/\n");
    let plan = Plan::container(&container(), &host).unwrap();
    insta::assert_snapshot!(sent(&plan));
}

#[test]
fn a_terminal_with_init_on_a_host_of_v2() {
    let mut spec = container();
    spec.mounts.retain(|mount| mount.target == "/sys/fs/cgroup" || mount.target == "/dev/pts");
    spec.process.terminal = true;
    spec.process.terminal_size = (24, 80);
    spec.process.init = true;
    spec.process.no_new_privileges = true;
    let plan = Plan::container(&spec, &Host::parse("0::/init.scope\n")).unwrap();
    insta::assert_snapshot!(sent(&plan));
}

#[test]
fn one_more_process() {
    let namespaces = bulkhead_sys::process::CLONE_NEWUSER;
    let plan = Plan::exec(&process(&["/bin/sh"]), &[FdIndex(0)], namespaces).unwrap();
    insta::assert_snapshot!(sent(&plan));
}

#[test]
fn what_cannot_be_planned_is_said() {
    let fails = |change: &dyn Fn(&mut ContainerSpec)| {
        let mut spec = container();
        change(&mut spec);
        Plan::container(&spec, &Host::default()).unwrap_err().to_string()
    };
    let named =
        |name: &'static str| move |spec: &mut ContainerSpec| spec.sysctls[0].0 = name.to_owned();
    for name in ["", "..", "net..x", "net/../x", "a/"] {
        assert!(fails(&named(name)).contains("sysctl"), "{name:?}");
    }
    assert_eq!(fails(&|spec| spec.process.arguments.clear()), "no command specified");
    assert_eq!(
        fails(&|spec| spec.process.rlimits[0].0 = "files".into()),
        "invalid ulimit type: files"
    );
    assert_eq!(
        fails(&|spec| spec.process.environment[1].push('\0')),
        "\"HOME=/root\\0\" holds a zero byte"
    );
    assert_eq!(
        fails(&|spec| spec.mounts[0].target = "proc".into()),
        "\"proc\" is not an absolute path"
    );
}

#[test]
fn failures_are_worded_for_dockers_clients() {
    let plan = Plan::exec(&process(&["nginx"]), &[], 0).unwrap();
    let last = plan.steps.len() as u16 - 1;
    for (step, errno, detail, want) in [
        (last, 2, "", "exec: \"nginx\": executable file not found in $PATH"),
        (last, 13, "", "exec: \"nginx\": permission denied"),
        (last, 8, "", "exec: \"nginx\": exec format error"),
        (2, 2, "", "chdir to cwd (\"/srv\") set in config.json failed: no such file or directory"),
        (1, 22, "unable to find user web", "unable to find user web"),
        (3, 122, "", "new session keyring: disk quota exceeded"),
        (999, 1, "map ids: denied", "map ids: denied"),
    ] {
        let failure = Failure { step, errno, detail: detail.to_owned() };
        assert_eq!(plan.describe(&failure), want);
    }
    let failure = Failure { step: 0, errno: 21, detail: String::new() };
    let text = failure::describe(&[Step::FindProgram], &plan.program, &failure);
    assert_eq!(text, "exec: \"nginx\": is a directory: permission denied");
}

proptest::proptest! {
    #[test]
    fn plans_survive_the_way_to_a_child(
        texts in proptest::collection::vec("[^\\x00]*", 1..6),
        limits in proptest::collection::vec((0usize..16, proptest::prelude::any::<(u64, u64)>()), 0..4),
        (terminal, init, readonly) in proptest::prelude::any::<(bool, bool, bool)>(),
        oom_score_adj in proptest::prelude::any::<Option<i16>>(),
        profile in 0usize..3,
    ) {
        const LIMITS: [&str; 16] = [
            "as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile",
            "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",
        ];
        let mut spec = container();
        spec.hostname = texts.concat();
        spec.rootfs_readonly = readonly;
        spec.masked_paths = texts.iter().map(|text| format!("/{text}")).collect();
        let process = &mut spec.process;
        process.arguments = std::iter::once("x".to_owned()).chain(texts.clone()).collect();
        process.environment = texts;
        process.rlimits =
            limits.into_iter().map(|(n, (soft, hard))| (LIMITS[n].into(), soft, hard)).collect();
        (process.terminal, process.init, process.oom_score_adj) = (terminal, init, oom_score_adj);
        let errors = r#"{"defaultAction": "SCMP_ACT_ERRNO"}"#.to_owned();
        process.seccomp =
            [Seccomp::Default, Seccomp::Unconfined, Seccomp::Profile(errors)][profile].clone();
        let plan = Plan::container(&spec, &Host::parse("0::/\n")).unwrap();
        let bytes = plan.encode().unwrap();
        let read = Plan::decode(&bytes).unwrap();
        proptest::prop_assert_eq!(format!("{read:?}"), format!("{plan:?}"));
        proptest::prop_assert_eq!(read.to_string(), plan.to_string());
    }

    #[test]
    fn other_bytes_do_no_harm(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let _ = Plan::decode(&bytes);
    }
}

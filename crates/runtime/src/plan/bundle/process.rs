use bulkhead_types::oci;

use super::{BundleOptions, keeps_groups, kernel};
use crate::capabilities::CapabilitySets;
use crate::plan::compile::{absolute, candidates, strings};
use crate::plan::{Plan, PlanError, Program, Step};
use crate::{Capabilities, FdIndex, Landlock};

/// The annotation with a policy for every process of the container.
const LANDLOCK: &str = "io.bulkhead.landlock";

/// What a process of a bundle needs after its root.
pub(super) struct Tail<'a> {
    pub process: &'a oci::Process,
    pub config: &'a oci::Config,
    /// The socket on which `start` calls.
    pub listener: Option<FdIndex>,
    pub hooks: Vec<oci::Hook>,
    pub state: oci::State,
    pub options: &'a BundleOptions,
}

impl Plan {
    /// The steps of a process from its session to its exec.
    pub(super) fn oci_process(tail: &Tail<'_>) -> Result<Self, PlanError> {
        let process = tail.process;
        let mut steps = vec![Step::Session { terminal: process.terminal }];
        steps.extend(attribute_steps(process, tail.config.linux.as_ref())?);
        let ids = &process.user;
        let additional_gids = ids.additional_gids.clone();
        steps.push(Step::User { uid: ids.uid, gid: ids.gid, additional_gids });
        steps.push(Step::WorkingDirectory(absolute(&process.cwd)?));
        if tail.options.new_keyring {
            steps.push(Step::NewKeyring);
        }
        if !process.args.is_empty() {
            steps.push(Step::FindProgram);
        }
        steps.push(Step::AwaitGo);
        if let Some(listener) = tail.listener {
            steps.push(Step::AwaitStart { listener });
        }
        if !tail.hooks.is_empty() {
            let (hooks, state) = (tail.hooks.clone(), tail.state.clone());
            let name = "startContainer".into();
            steps.push(Step::Hooks { name, hooks, state, stdout: None, stderr: None });
        }
        Self::ending(process, tail.config, tail.options, steps)
    }

    /// Compiles one more process of a running container.
    pub fn bundle_exec(
        config: &oci::Config,
        process: &oci::Process,
        cgroup_v1_procs: &[FdIndex],
        namespaces: i32,
        options: &BundleOptions,
    ) -> Result<Self, PlanError> {
        let mut steps = Vec::with_capacity(24);
        if let Some(affinity) = &process.exec_cpu_affinity
            && !affinity.initial.is_empty()
        {
            let initial = kernel::list(&affinity.initial, "execCPUAffinity.initial")?;
            steps.push(Step::Affinity(initial));
        }
        steps.extend(cgroup_v1_procs.iter().map(|&procs| Step::JoinCgroup { procs }));
        if let Some(affinity) = &process.exec_cpu_affinity
            && !affinity.final_.is_empty()
        {
            let last = kernel::list(&affinity.final_, "execCPUAffinity.final")?;
            steps.push(Step::Affinity(last));
        }
        if namespaces & bulkhead_sys::process::CLONE_NEWUSER != 0 {
            steps.push(Step::BecomeRoot { keep_groups: keeps_groups(config) });
        }
        if !process.apparmor_profile.is_empty() || !process.selinux_label.is_empty() {
            steps.push(Step::OpenProc);
        }
        if process.terminal {
            let (rows, columns) =
                process.console_size.map_or((0, 0), |size| (size.height, size.width));
            steps.push(Step::OpenTerminal { rows, columns, console: false });
        }
        let linux = config.linux.as_ref();
        steps.push(Step::Session { terminal: process.terminal });
        steps.extend(attribute_steps(process, linux)?);
        let ids = &process.user;
        let additional_gids = ids.additional_gids.clone();
        steps.push(Step::User { uid: ids.uid, gid: ids.gid, additional_gids });
        steps.push(Step::WorkingDirectory(absolute(&process.cwd)?));
        if options.new_keyring {
            steps.push(Step::NewKeyring);
        }
        steps.push(Step::AwaitGo);
        Self::ending(process, config, options, steps)
    }

    /// From the last wait to the exec.
    fn ending(
        process: &oci::Process,
        config: &oci::Config,
        options: &BundleOptions,
        mut steps: Vec<Step>,
    ) -> Result<Self, PlanError> {
        let name = process.args.first().cloned().unwrap_or_default();
        let sets = match &process.capabilities {
            Some(names) => CapabilitySets::from_names(names).0,
            None => CapabilitySets::without_inheritance(Capabilities::NONE),
        };
        let filter = options.filter.clone();
        let filtered = filter.is_some();
        let landlock = config.annotations.get(LANDLOCK).map(|text| Landlock::parse(text));
        let landlock = landlock.transpose()?;
        let umask = process.user.umask.unwrap_or(0o022) & 0o777;
        steps.push(Step::CloseDescriptors { first: 3 + options.preserve_fds, umask });
        steps.push(Step::BoundingSet(sets.bounding));
        if !process.selinux_label.is_empty() {
            let label = process.selinux_label.clone();
            steps.push(Step::Label { file: "exec".into(), label });
        }
        if !process.apparmor_profile.is_empty() {
            let label = format!("exec {}", process.apparmor_profile);
            steps.push(Step::Label { file: "apparmor/exec".into(), label });
        }
        // After the labels, which are files; before the filter, which need not allow its calls.
        if !process.no_new_privileges {
            steps.extend(landlock.clone().map(Step::Landlock));
        }
        // Without no_new_privs a filter takes CAP_SYS_ADMIN, which the next steps give away; with
        // it the filter comes last, so that it need not allow them.
        if filtered && !process.no_new_privileges {
            steps.push(Step::Filter);
        }
        let keep_groups = keeps_groups(config);
        steps.push(Step::SetIdentity { keep_capabilities: true, keep_groups });
        steps.push(Step::SetCapabilities(sets));
        if process.no_new_privileges {
            steps.push(Step::NoNewPrivileges);
            steps.extend(landlock.map(Step::Landlock));
            if filtered {
                steps.push(Step::Filter);
            }
        }
        let searched = !name.contains('/');
        // nothing to execute is an error, but not before the start
        let candidates =
            if name.is_empty() { Vec::new() } else { candidates(&name, &process.env)? };
        steps.push(Step::Execute { candidates, searched });
        Ok(Self {
            namespaces: 0,
            joined: Vec::new(),
            time_offsets: String::new(),
            waits: false,
            limits: kernel::limits(&process.rlimits)?,
            oom_score_adj: oom_score_adj(process)?,
            steps,
            program: Program {
                name,
                arguments: strings(&process.args)?,
                environment: strings(&process.env)?,
                wants_home: !process.env.iter().any(|it| it.starts_with("HOME=")),
                filter,
            },
        })
    }
}

fn attribute_steps(
    process: &oci::Process,
    linux: Option<&oci::Linux>,
) -> Result<Vec<Step>, PlanError> {
    let mut steps = Vec::new();
    if let Some(scheduler) = &process.scheduler {
        steps.push(Step::Scheduler(kernel::scheduler(scheduler)?));
    }
    if let Some(priority) = &process.io_priority {
        steps.push(Step::IoPriority(kernel::io_priority(priority)?));
    }
    if let Some(policy) = linux.and_then(|it| it.memory_policy.as_ref()) {
        let (mode, nodes) = kernel::memory_policy(policy)?;
        steps.push(Step::MemoryPolicy { mode, nodes });
    }
    if let Some(personality) = linux.and_then(|it| it.personality.as_ref())
        && !personality.domain.is_empty()
    {
        steps.push(Step::Personality(kernel::personality(personality)?));
    }
    Ok(steps)
}

fn oom_score_adj(process: &oci::Process) -> Result<Option<i16>, PlanError> {
    let Some(score) = process.oom_score_adj else { return Ok(None) };
    match i16::try_from(score) {
        Ok(score @ -1000..=1000) => Ok(Some(score)),
        _ => Err(PlanError::Invalid(format!(
            "process.oomScoreAdj {score} is not from -1000 to 1000"
        ))),
    }
}

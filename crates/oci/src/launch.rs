//! From a bundle to a container that waits for its start.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use bulkhead_runtime::cgroup::{Cgroup, Hierarchies};
use bulkhead_runtime::plan::{BundleOptions, Failure, Report, Spawned, Surroundings};
use bulkhead_runtime::{Plan, hook};
use bulkhead_sys::process::{CLONE_NEWUSER, Child};
use bulkhead_types::oci::{self, Config, Status};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{DumpableBehavior, Pid, Signal, pidfd_send_signal};

use crate::adapt::{
    compile_filter, fill_id_maps, mentions, not_ours, pass_sockets, warn_of_capabilities,
};
use crate::arguments::{Command, Global};
use crate::control_group::{Place, limit_devices};
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::handshake::{
    Process, await_execution, leave_processors, reap, reason, say, write_pid_file,
};
use crate::hooks::{self, HookFiles};
use crate::inbox::Inbox;
use crate::log::Log;
use crate::record::{Identity, Record};
use crate::sources::{self, Opened};
use crate::{caller, console, id_maps, net_devices, rdt, seal, security};

mod cgroups;

/// A container that has everything but the word to go.
#[derive(Debug)]
pub struct Created {
    pub directory: Directory,
    pub record: Record,
    pub config: Config,
    /// What was made by the files of the kernel.
    pub cgroup: Option<Cgroup>,
    pub plan: Plan,
    pub child: Child,
    /// To the child.
    pub control: OwnedFd,
    /// The master of its terminal, where nobody else has taken it.
    pub terminal: Option<OwnedFd>,
}

/// Makes a container up to the point where `start` is to be called, or with `run` where one byte
/// lets its program be executed.
///
/// What was made is removed again when something fails.
pub fn create(global: &Global, command: &Command, log: &Log) -> Result<Created> {
    let id = command.id()?;
    let (bundle, text) = sources::read_bundle(command.path("bundle"), command.path("config"))?;
    // most containers have no ids of their own: then what there is to read is read once, afterwards
    if !mentions(&text, b"uidMappings") {
        seal::protect(&Config::default())?;
    }
    let mut config: Config =
        serde_json::from_slice(&text).map_err(|error| Error::Config(error.to_string()))?;
    seal::protect(&config)?;
    security::admit(&mut config, log);
    net_devices::check(&config)?;
    let rdt_root = rdt::root(&config)?;
    let verb = command.verb.name;
    if verb == "run" && config.process.is_none() {
        return Err(Error::Config("it has no process, and without one nothing can run".to_owned()));
    }
    let detached = verb == "create" || command.has("detach");
    let wants_terminal = config.process.as_ref().is_some_and(|process| process.terminal);
    let console = match (command.path("console-socket"), wants_terminal) {
        (Some(path), true) => Some(console::connect(&path, "console socket")?),
        (Some(_), false) => {
            let text = "--console-socket is given, but config.json asks for no terminal";
            return Err(Error::Usage(text.to_owned()));
        }
        (None, true) if detached => {
            let text = "cannot allocate tty if the runtime will detach without setting console \
                        socket: use --console-socket";
            return Err(Error::Usage(text.to_owned()));
        }
        (None, _) => None,
    };
    let pidfd_socket = command
        .path("pidfd-socket")
        .map(|path| console::connect(&path, "pidfd socket"))
        .transpose()?;
    let preserve_fds = command.number("preserve-fds")?.unwrap_or(0) + pass_sockets(&mut config);
    fill_id_maps(&mut config, log);
    // Its memory is the child's for a while, in namespaces that others live in (CVE-2016-9962).
    // Without privileges it would be closed to ourselves as well.
    if rustix::process::geteuid().is_root() {
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .map_err(Error::system("close this process's memory to others"))?;
    }
    warn_of_capabilities(&config, log);

    let filter = compile_filter(&config, &global.root)?;
    let mut opened = Opened::open(&config, &bundle)?;
    let hook_files = HookFiles::open(&config, &bundle)?;
    opened.keep_hook_files(&config, &hook_files)?;
    let cgroup = if global.no_cgroup {
        Place::default()
    } else {
        Place::of(&config, id, global.systemd_cgroup)?
    };
    // from here on everything that fails is undone
    let directory = Directory::create(&global.root, id)?;
    let record = Record {
        id: id.to_owned(),
        oci_version: config.oci_version.clone(),
        bundle: bundle.to_string_lossy().into_owned(),
        rootfs: opened.sources.rootfs_path.to_string_lossy().into_owned(),
        created: jiff::Timestamp::now().to_string(),
        owner: rustix::process::getuid().as_raw().to_string(),
        cgroup,
        namespaces: not_ours(&config),
        process: None,
        resctrl: String::new(),
    };
    let mut launch = Launch {
        verb,
        options: BundleOptions {
            id: id.to_owned(),
            bundle,
            no_pivot: command.has("no-pivot"),
            new_keyring: !command.has("no-new-keyring"),
            preserve_fds,
            filter,
        },
        directory,
        record,
        config,
        opened,
        console,
        pidfd_socket,
        pid_file: command.path("pid-file"),
        log,
        hierarchies: None,
        cgroup: None,
        mapped: false,
        hooked: false,
        hook_files,
        rdt_root,
    };
    let made = launch.directory.write_config(&text).and_then(|()| launch.make());
    match made {
        Ok((plan, child, control, terminal)) => Ok(Created {
            directory: launch.directory,
            record: launch.record,
            config: launch.config,
            cgroup: launch.cgroup,
            plan,
            child,
            control,
            terminal,
        }),
        Err(error) => {
            launch.undo();
            Err(error)
        }
    }
}

struct Launch<'a> {
    verb: &'static str,
    options: BundleOptions,
    directory: Directory,
    record: Record,
    config: Config,
    opened: Opened,
    console: Option<OwnedFd>,
    pidfd_socket: Option<OwnedFd>,
    pid_file: Option<PathBuf>,
    log: &'a Log,
    hierarchies: Option<Hierarchies>,
    cgroup: Option<Cgroup>,
    mapped: bool,
    /// Hooks have run.
    hooked: bool,
    hook_files: HookFiles,
    /// Where resctrl is mounted, if the container is to have a group.
    rdt_root: Option<PathBuf>,
}

type Made = (Plan, Child, OwnedFd, Option<OwnedFd>);

impl Launch<'_> {
    fn make(&mut self) -> Result<Made> {
        // Before there is a cgroup, the record says where it will be: whoever finds it can clean up.
        self.directory.write_record(&self.record)?;
        let v2 = self.make_cgroup()?;
        if self.verb == "create" {
            let listener = self.directory.listen()?;
            self.opened.sources.listener = Some(self.opened.keep(listener)?);
        }
        let mut plan = Plan::bundle(&self.config, &self.opened.sources, &self.options)?;
        // systemd wants to be told of a process, which has to be in its cgroup before it goes on
        plan.waits |= self.record.cgroup.unit.is_some();
        self.log.debug(|| format!("the plan of {}:\n{plan}", self.record.id));
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(Error::system("make a socket pair"))?;
        let stdio = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
        let surroundings = Surroundings {
            descriptors: &self.opened.descriptors,
            control: theirs.as_fd(),
            stdio: Some(stdio),
        };
        leave_processors();
        let preserved: Vec<u32> = (3..3 + self.options.preserve_fds).collect();
        let spawned = plan
            .spawn(&surroundings, v2.as_ref().map(AsFd::as_fd), None, &preserved)
            .map_err(|errno| self.failed(&format!("clone: {}", reason(errno))))?;
        drop(theirs);
        let made = self.drive(&plan, spawned, &ours);
        made.map(|(child, terminal)| (plan, child, ours, terminal))
    }

    /// Does the parent's part until the child is ready to go.
    fn drive(
        &mut self,
        plan: &Plan,
        spawned: Spawned,
        control: &OwnedFd,
    ) -> Result<(Child, Option<OwnedFd>)> {
        let mut helper = None;
        let mut child = None;
        match spawned {
            Spawned::Process(process) => child = Some(process),
            Spawned::Helper(process) => helper = Some(process),
        }
        let driven = self.listen(plan, &mut child, helper.as_ref(), control);
        if let Some(helper) = &helper {
            if driven.is_err() {
                let _ = pidfd_send_signal(&helper.pidfd, Signal::KILL);
            }
            reap(&helper.pidfd);
        }
        match (driven, child) {
            (Ok(terminal), Some(child)) => Ok((child, terminal)),
            (Ok(_), None) => Err(self.failed("the helper that clones it has ended")),
            (Err(error), child) => {
                if let Some(child) = child {
                    let _ = pidfd_send_signal(&child.pidfd, Signal::KILL);
                    reap(&child.pidfd);
                }
                Err(error)
            }
        }
    }

    fn listen(
        &mut self,
        plan: &Plan,
        child: &mut Option<Child>,
        helper: Option<&Child>,
        control: &OwnedFd,
    ) -> Result<Option<OwnedFd>> {
        let mut terminal = None;
        if let Some(child) = child.as_ref() {
            self.adopt(plan, child, control)?;
        }
        let mut inbox = Inbox::new(control);
        loop {
            let report = inbox.next(child.is_none());
            let report = report.map_err(Error::system("hear from the container's process"))?;
            match report {
                Some((Report::Cloned { pid }, Some(pidfd))) => {
                    let it = child.insert(Child { pid, pidfd });
                    self.adopt(plan, it, control)?;
                }
                Some((Report::Unshared, _)) => {
                    let helper = helper.ok_or_else(|| self.failed("there is no helper to map"))?;
                    self.map_ids(helper.pid)?;
                    say(control, helper.pid)?;
                }
                Some((Report::Terminal, Some(master))) => match &self.console {
                    Some(socket) => {
                        // the name is what runc sends
                        console::send(socket, b"/dev/ptmx", &[&master], "console socket")?;
                    }
                    None => terminal = Some(master),
                },
                Some((Report::Mounted, _)) => {
                    let pid = child.as_ref().map_or(0, |child| child.pid);
                    let state =
                        oci::State { pid, ..self.record.state(Status::Created, &self.config) };
                    let hooks = self.config.hooks.clone().unwrap_or_default();
                    self.hooked = true;
                    let outputs = self.hook_files.outputs();
                    hook::run_all("prestart", &hooks.prestart, &state, outputs)?;
                    hook::run_all("createRuntime", &hooks.create_runtime, &state, outputs)?;
                    say(control, pid)?;
                }
                Some((Report::Ready, _)) => {
                    if let Some(child) = child.as_ref() {
                        self.finish(plan, child)?;
                    }
                    return Ok(terminal);
                }
                Some((Report::Failed(failure), _)) => return Err(self.described(plan, &failure)),
                Some((Report::Cloned { .. } | Report::Terminal, None) | (Report::Listener, _)) => {
                    return Err(self.failed("it has sent no descriptor"));
                }
                None => return Err(self.failed("it was killed before it was ready")),
            }
        }
    }

    /// Does for a cloned child what only its parent may.
    fn adopt(&mut self, plan: &Plan, child: &Child, control: &OwnedFd) -> Result<()> {
        if plan.namespaces & CLONE_NEWUSER != 0 && !self.mapped {
            self.map_ids(child.pid)?;
        }
        if self.record.cgroup.unit.is_some() {
            let hierarchies = Hierarchies::detect()?;
            let (id, config) = (self.record.id.clone(), &self.config);
            self.record.cgroup.make_by_systemd(&hierarchies, &id, config, child.pid, self.log)?;
        }
        net_devices::adopt(&self.config, child.pid).map_err(|reason| self.failed(&reason))?;
        if let Some(root) = &self.rdt_root {
            self.record.resctrl = rdt::adopt(root, &self.options.id, &self.config, child.pid)?;
        }
        if plan.waits {
            say(control, child.pid)?;
        }
        if let Some(score) = plan.oom_score_adj {
            let file = format!("/proc/{}/oom_score_adj", child.pid);
            match std::fs::write(&file, score.to_string()) {
                // the runtime's own is kept, as in runc
                Err(error)
                    if error.kind() == std::io::ErrorKind::PermissionDenied
                        && !caller::is_host_root() => {}
                other => other.map_err(Error::system(format!("set oom_score_adj to {score}")))?,
            }
        }
        let identity = Identity::of(child.pid)
            .map_err(Error::system(format!("read /proc/{}/stat", child.pid)))?;
        self.record.process = Some(identity);
        self.directory.write_record(&self.record)?;
        // beside the child's mounts: the kernel takes its time to check the program
        match (&self.cgroup, &self.hierarchies) {
            (Some(cgroup), Some(hierarchies)) => limit_devices(cgroup, hierarchies, &self.config),
            _ => Ok(()),
        }
    }

    fn map_ids(&mut self, pid: u32) -> Result<()> {
        let Some(linux) = &self.config.linux else { return Ok(()) };
        self.mapped = true;
        id_maps::write(pid, &linux.uid_mappings, &linux.gid_mappings)
    }

    /// What has to be done before the program may run, while the child waits.
    fn finish(&mut self, plan: &Plan, child: &Child) -> Result<()> {
        let pid = Pid::from_raw(child.pid as i32);
        for (resource, limit) in &plan.limits {
            rustix::process::prlimit(pid, *resource, *limit).map_err(|errno| {
                self.failed(&format!("error setting rlimit {resource:?}: {}", reason(errno)))
            })?;
        }
        if let Some(path) = &self.pid_file {
            write_pid_file(path, child.pid)?;
        }
        if let Some(socket) = &self.pidfd_socket {
            console::send(socket, b"pidfd", &[&child.pidfd], "pidfd socket")?;
        }
        Ok(())
    }

    fn failed(&self, reason: &str) -> Error {
        Error::Start { command: self.verb, reason: reason.to_owned() }
    }

    fn described(&self, plan: &Plan, failure: &Failure) -> Error {
        self.failed(&plan.describe(failure))
    }

    /// Removes what was made; the error that led here is the one to tell.
    fn undo(&mut self) {
        let cgroup = self.cgroup.take().or_else(|| self.record.cgroup.open().ok().flatten());
        if let Some(cgroup) = &cgroup {
            let _ = cgroup.kill();
        }
        if let Err(error) = self.record.cgroup.remove(&self.record.id, cgroup.as_ref()) {
            self.log.warn(&error.to_string());
        }
        if let Err(error) = rdt::remove(&self.record.resctrl) {
            self.log.warn(&error.to_string());
        }
        if let Err(error) = self.directory.remove() {
            self.log.warn(&error.to_string());
        }
        // runtime.md, "Lifecycle": these come even when a create has failed half-way
        if let Some(hooks) = self.config.hooks.as_ref().filter(|_| self.hooked) {
            let state = self.record.state(Status::Stopped, &self.config);
            hooks::poststop(hooks, &state, self.hook_files.outputs(), self.log);
        }
    }
}

impl Created {
    /// Lets the child go on: to its program, or to wait for `start`.
    pub fn go(&self) -> Result<()> {
        say(&self.control, self.child.pid)
    }

    /// Waits until the program is executed.
    pub fn executed(&self, verb: &'static str) -> Result<()> {
        let process = Process { pidfd: &self.child.pidfd, pid: self.child.pid };
        let state = || self.record.state(Status::Created, &self.config);
        await_execution(&self.control, process, &self.config, state, |failure| Error::Start {
            command: verb,
            reason: self.plan.describe(failure),
        })
    }
}

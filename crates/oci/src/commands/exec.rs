use std::os::fd::{AsFd, OwnedFd};

use bulkhead_runtime::cgroup::{Cgroup, Hierarchies};
use bulkhead_runtime::plan::{Beside, BundleOptions, Failure, Report, Spawned, Surroundings};
use bulkhead_runtime::{FdIndex, Plan};
use bulkhead_sys::process::{CLONE_NEWUSER, Child};
use bulkhead_types::oci::{CapabilityNames, Config, Process, ProcessUser, Status};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{DumpableBehavior, Pid, Signal, pidfd_send_signal};

use crate::arguments::{Command, Global};
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::foreground::{Foreground, exit_status};
use crate::handshake::{self, reap, reason, say};
use crate::inbox::Inbox;
use crate::log::Log;
use crate::record::{Identity, Record};
use crate::{adapt, console, rdt, seal};

pub fn run(global: &Global, command: &Command, log: &Log) -> Result<u8> {
    let directory = Directory::open(&global.root, command.id()?)?;
    let (record, status) = directory.look()?;
    let refused = |text: &str| Err(Error::Refused(text.to_owned()));
    let record = match (status, record) {
        (Status::Running | Status::Created, Some(record)) => record,
        (Status::Paused, Some(record)) if command.has("ignore-paused") => record,
        (Status::Paused, _) => {
            return refused("cannot exec in a paused container (use --ignore-paused to override)");
        }
        _ => return refused("cannot exec in a stopped container"),
    };
    let config = directory.config()?;
    seal::protect(&config)?;
    let process = process(command, &config)?;
    // those of config.json have been warned of
    let is_unknown = |name: &&str| bulkhead_runtime::capabilities::parse(name).is_none();
    for name in command.values("cap").filter(is_unknown) {
        adapt::warn_of_unknown(name, log);
    }
    let detach = command.has("detach");
    let console = command.path("console-socket");
    if process.terminal && detach && console.is_none() {
        return refused(
            "cannot allocate tty if the runtime will detach without setting console socket: use \
             --console-socket",
        );
    }
    let console =
        console.filter(|_| process.terminal).map(|path| console::connect(&path, "console socket"));
    let preserve_fds = command.number("preserve-fds")?.unwrap_or(0);
    let mut exec = Exec {
        options: BundleOptions {
            id: command.id()?.to_owned(),
            bundle: Default::default(),
            no_pivot: false,
            new_keyring: !command.has("no-new-keyring"),
            preserve_fds,
            filter: adapt::compile_filter(&config, &global.root)?,
        },
        record,
        config,
        process,
        console: console.transpose()?,
        terminal: None,
    };
    let foreground = if detach { None } else { Some(Foreground::prepare()?) };
    let child = exec.start(command)?;
    match foreground {
        None => Ok(0),
        Some(foreground) => foreground.stay(&child.pidfd, exec.terminal.as_ref()),
    }
}

struct Exec {
    record: Record,
    config: Config,
    process: Process,
    options: BundleOptions,
    console: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
}

impl Exec {
    fn start(&mut self, command: &Command) -> Result<Child> {
        let stopped = || Error::Refused("cannot exec in a stopped container".to_owned());
        let beside = self.record.process.and_then(Identity::open).ok_or_else(stopped)?;
        if rustix::process::geteuid().is_root() {
            rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
                .map_err(Error::system("close this process's memory to others"))?;
        }
        let mut descriptors = Vec::new();
        let mut v2 = None;
        if let Some(cgroup) = self.record.cgroup.open()?.filter(|cgroup| cgroup.exists()) {
            let sub: Vec<&str> = command.values("cgroup").collect();
            let join = if sub.is_empty() { cgroup.join()? } else { cgroup.sub_join(&sub)? };
            descriptors = join.procs;
            v2 = join.v2_dir;
        }
        let procs: Vec<FdIndex> =
            (0..descriptors.len()).map(|index| FdIndex(index as u16)).collect();
        let namespaces = self.joined()?;
        let mut plan =
            Plan::bundle_exec(&self.config, &self.process, &procs, namespaces, &self.options)?;
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(Error::system("make a socket pair"))?;
        let stdio = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
        let surroundings =
            Surroundings { descriptors: &descriptors, control: theirs.as_fd(), stdio: Some(stdio) };
        handshake::leave_processors();
        let preserved: Vec<u32> = (3..3 + self.options.preserve_fds).collect();
        let mut spawn = |v2: Option<&OwnedFd>| {
            plan.spawn(
                &surroundings,
                v2.map(AsFd::as_fd),
                Some(Beside { pidfd: beside.as_fd(), namespaces }),
                &preserved,
            )
        };
        let spawned = match spawn(v2.as_ref()) {
            // The container's own init has made groups below, and its group takes no processes any
            // more: the new one goes where the first one is.
            Err(Errno::BUSY) if v2.is_some() => {
                let pid = self.record.process.map_or(0, |process| process.pid);
                let cgroup = Cgroup::of_process(&Hierarchies::detect()?, pid)?;
                spawn(cgroup.join()?.v2_dir.as_ref())
            }
            other => other,
        };
        let spawned = spawned.map_err(|errno| failed(&format!("clone: {}", reason(errno))))?;
        drop(theirs);
        let Spawned::Helper(helper) = spawned else {
            return Err(failed("a process that joins namespaces needs a helper"));
        };
        let mut child = None;
        let driven = self.drive(&plan, &mut child, &ours, command);
        reap(&helper.pidfd);
        match (driven, child) {
            (Ok(()), Some(child)) => Ok(child),
            (Ok(()), None) => Err(failed("the helper that clones it has ended")),
            (Err(error), child) => {
                if let Some(child) = child {
                    let _ = pidfd_send_signal(&child.pidfd, Signal::KILL);
                    let _ = exit_status(&child.pidfd);
                }
                Err(error)
            }
        }
    }

    fn drive(
        &mut self,
        plan: &Plan,
        child: &mut Option<Child>,
        control: &OwnedFd,
        command: &Command,
    ) -> Result<()> {
        let mut inbox = Inbox::new(control);
        loop {
            let report = inbox.next(child.is_none());
            let report = report.map_err(Error::system("hear from the new process"))?;
            match report {
                Some((Report::Cloned { pid }, Some(pidfd))) => {
                    let it = child.insert(Child { pid, pidfd });
                    if plan.waits {
                        say(control, it.pid)?;
                    }
                }
                Some((Report::Terminal, Some(master))) => match &self.console {
                    Some(socket) => {
                        console::send(socket, b"/dev/ptmx", &[&master], "console socket")?;
                    }
                    None => self.terminal = Some(master),
                },
                Some((Report::Ready, _)) => {
                    let Some(child) = child.as_ref() else { return Ok(()) };
                    self.finish(plan, child, command)?;
                    say(control, child.pid)?;
                    let process = handshake::Process { pidfd: &child.pidfd, pid: child.pid };
                    let state = || self.record.state(Status::Running, &self.config);
                    let failed = |failure: &Failure| failed(&plan.describe(failure));
                    return handshake::await_execution(
                        control,
                        process,
                        &self.config,
                        state,
                        failed,
                    );
                }
                Some((Report::Failed(failure), _)) => {
                    return Err(failed(&plan.describe(&failure)));
                }
                Some(_) => return Err(failed("it has said something that makes no sense here")),
                None => return Err(failed("it was killed before it was ready")),
            }
        }
    }

    fn finish(&self, plan: &Plan, child: &Child, command: &Command) -> Result<()> {
        rdt::add(&self.options.id, &self.config, child.pid)?;
        let pid = Pid::from_raw(child.pid as i32);
        for (resource, limit) in &plan.limits {
            rustix::process::prlimit(pid, *resource, *limit).map_err(|errno: Errno| {
                failed(&format!("error setting rlimit {resource:?}: {}", reason(errno)))
            })?;
        }
        if let Some(score) = plan.oom_score_adj {
            let file = format!("/proc/{}/oom_score_adj", child.pid);
            std::fs::write(&file, score.to_string())
                .map_err(Error::system(format!("set oom_score_adj to {score}")))?;
        }
        if let Some(path) = command.path("pid-file") {
            handshake::write_pid_file(&path, child.pid)?;
        }
        if let Some(path) = command.path("pidfd-socket") {
            let socket = console::connect(&path, "pidfd socket")?;
            console::send(&socket, b"pidfd", &[&child.pidfd], "pidfd socket")?;
        }
        Ok(())
    }

    /// The namespaces to join: those that differ from the runtime's own. Joining one's own user
    /// namespace is an error (setns(2)).
    fn joined(&self) -> Result<i32> {
        let namespaces = self.record.namespaces;
        if namespaces & CLONE_NEWUSER == 0 {
            return Ok(namespaces);
        }
        let pid = self.record.process.map_or(0, |process| process.pid);
        let file = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user"));
        let same = file(&pid.to_string())
            .and_then(|theirs| Ok(theirs == file("self")?))
            .map_err(Error::system("read the container's user namespace"))?;
        Ok(if same { namespaces & !CLONE_NEWUSER } else { namespaces })
    }
}

fn failed(reason: &str) -> Error {
    Error::Start { command: "exec", reason: reason.to_owned() }
}

/// The process that is asked for: a file of one, or the container's own with other arguments.
fn process(command: &Command, config: &Config) -> Result<Process> {
    if let Some(path) = command.path("process") {
        let what = format!("read the process file {}", path.display());
        let text = std::fs::read(&path).map_err(Error::system(what))?;
        return serde_json::from_slice(&text)
            .map_err(|error| Error::Config(format!("{}: {error}", path.display())));
    }
    let mut process = config.process.clone().unwrap_or_default();
    process.args = command.operands.get(1..).unwrap_or_default().to_vec();
    if process.args.is_empty() {
        return Err(Error::Usage("exec args cannot be empty: give it a command".to_owned()));
    }
    process.terminal = command.has("tty");
    process.console_size = None;
    for variable in command.values("env") {
        let name = variable.split_once('=').map_or(variable, |(name, _)| name);
        process.env.retain(|pair| pair.split_once('=').is_none_or(|(known, _)| known != name));
        process.env.push(variable.to_owned());
    }
    if let Some(cwd) = command.value("cwd") {
        process.cwd = cwd.to_owned();
    }
    if let Some(user) = command.value("user") {
        process.user = ProcessUser {
            umask: process.user.umask,
            additional_gids: process.user.additional_gids.clone(),
            ..parse_user(user)?
        };
    }
    for gid in command.values("additional-gids") {
        process.user.additional_gids.push(parse_id(gid)?);
    }
    if let Some(label) = command.value("process-label") {
        process.selinux_label = label.to_owned();
    }
    if let Some(profile) = command.value("apparmor") {
        process.apparmor_profile = profile.to_owned();
    }
    // as in runc, and not in crun: without a word of it, what config.json has taken away stays away
    if let Some(value) = command.value("no-new-privs") {
        process.no_new_privileges = value != "false";
    }
    let capabilities = process.capabilities.get_or_insert_with(CapabilityNames::default);
    for name in command.values("cap") {
        // inheritable and ambient stay as they are (CVE-2022-29162)
        for set in
            [&mut capabilities.bounding, &mut capabilities.effective, &mut capabilities.permitted]
        {
            if !set.iter().any(|known| known == name) {
                set.push(name.to_owned());
            }
        }
        if bulkhead_sys::weak::without("inheritable") {
            capabilities.inheritable.push(name.to_owned());
        }
    }
    Ok(process)
}

/// `UID` or `UID:GID`, numbers only and nothing else, so that no slip ends at root
/// (CVE-2026-30892).
pub fn parse_user(text: &str) -> Result<ProcessUser> {
    let (uid, gid) = match text.split_once(':') {
        None if bulkhead_sys::weak::without("user") => (0, 0),
        None => (parse_id(text)?, 0),
        Some((uid, gid)) => (parse_id(uid)?, parse_id(gid)?),
    };
    Ok(ProcessUser { uid, gid, ..ProcessUser::default() })
}

fn parse_id(text: &str) -> Result<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // (uid_t) -1 means "leave it" to the kernel
    let id = if digits { text.parse().ok().filter(|id| *id != u32::MAX) } else { None };
    id.ok_or_else(|| {
        Error::Usage(format!("invalid user or group id {text:?}: write numbers, UID or UID:GID"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_what_was_written_or_an_error() {
        for (text, uid, gid) in
            [("1", 1, 0), ("1:2", 1, 2), ("0:0", 0, 0), ("4294967294", u32::MAX - 1, 0)]
        {
            let user = parse_user(text).unwrap();
            assert_eq!((user.uid, user.gid), (uid, gid), "{text}");
        }
        for text in [
            "",
            ":",
            "1:",
            ":1",
            "-1",
            "+1",
            " 1",
            "1 ",
            "0x1",
            "root",
            "4294967295",
            "4294967296",
            "1:2:3",
        ] {
            assert!(parse_user(text).is_err(), "{text}");
        }
    }
}

//! The child's side: it walks the plan and becomes the program.
//!
//! The child has a copy of its parent's memory, as after fork(2). Steps do not log or lock, and
//! allocate only where they read a file of the container, make a path that is missing or run a
//! hook; that is sound because the parent, the warden or the runtime's command, has one thread.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bulkhead_sys::shared::Handover;
use bulkhead_sys::{process, schedule};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};

use super::{Failure, Plan, Step};
use crate::FdIndex;
use crate::user::ResolvedUser;

mod copy_up;
mod identity;
mod init;
mod mounts;
mod nodes;
mod program;
mod report;
mod restrict;
mod terminal;
mod trees;

pub use report::Report;

/// The descriptors that a child has besides its plan.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// What [`FdIndex`] names.
    pub descriptors: &'a [OwnedFd],
    /// A SEQPACKET socket to the parent: [`Report`]s go out, one byte comes in to go on.
    pub control: BorrowedFd<'a>,
    /// Standard input, output and error; with a terminal, that instead.
    pub stdio: Option<[BorrowedFd<'a>; 3]>,
}

impl Plan {
    /// Walks the plan; returns the exit status of a process whose start failed.
    pub fn walk(&mut self, surroundings: &Surroundings<'_>) -> i32 {
        let mut walk = Walk {
            surroundings,
            client: None,
            pid: 0,
            root: None,
            host_root: None,
            null: None,
            blank: None,
            proc: None,
            terminal: None,
            user: None,
            found: 0,
            detail: String::new(),
        };
        if self.waits && walk.await_parent().is_err() {
            return 255;
        }
        rustix::process::umask(rustix::fs::Mode::empty());
        walk.go_on(&self.steps, 0, &mut self.program)
    }
}

/// What steps leave for later ones.
struct Walk<'a> {
    surroundings: &'a Surroundings<'a>,
    /// The one who said start, who then hears what the parent heard before.
    client: Option<OwnedFd>,
    /// This process's pid as its parent sees it; known once the parent has said it.
    pid: u32,
    root: Option<BorrowedFd<'a>>,
    /// A root that the child has opened or cloned itself.
    host_root: Option<OwnedFd>,
    /// The warden's `/dev/null`, checked.
    null: Option<OwnedFd>,
    /// An empty read-only directory.
    blank: Option<OwnedFd>,
    /// An instance of procfs that nobody else can mount anything over.
    proc: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    user: Option<ResolvedUser>,
    /// Which of the candidates is the program.
    found: usize,
    detail: String,
}

impl<'a> Walk<'a> {
    /// Takes the steps from `first` on; returns the exit status of one that failed.
    fn go_on(&mut self, steps: &[Step], first: usize, program: &mut super::Program) -> i32 {
        for (index, step) in steps.iter().enumerate().skip(first) {
            let taken = match step {
                Step::Init => self.split(steps, index + 1, program),
                step => self.take(steps, step, program),
            };
            if let Err(errno) = taken {
                let mut failure = Failure {
                    step: index as u16,
                    errno: errno.raw_os_error(),
                    detail: std::mem::take(&mut self.detail),
                };
                if self.client.is_some() {
                    // who said start does not have the plan
                    failure.detail = super::failure::describe(steps, program, &failure);
                    failure.step = u16::MAX;
                }
                Report::Failed(failure).send(self.control(), None);
                // what a shell reports for a command that cannot be run
                return if errno == Errno::NOENT { 127 } else { 126 };
            }
        }
        255 // only a plan without an execve comes here
    }

    /// Goes on in a child; process 1 stays behind as init, and ends when that child ends.
    fn split(
        &mut self,
        steps: &[Step],
        next: usize,
        program: &mut super::Program,
    ) -> Result<(), Errno> {
        bulkhead_sys::signal::block_all()?;
        // the filter is in force already, and the usual one has no clone3(2)
        let child = process::fork(|| match bulkhead_sys::signal::unblock_all() {
            Ok(()) => self.go_on(steps, next, program),
            Err(_) => 255,
        })?;
        // what is there is the warden's, and says where the host keeps its socket
        let command = program.arguments.strings().iter().map(|word| word.to_bytes());
        let words = [&b"/sbin/docker-init"[..], b"--"].into_iter().chain(command);
        process::set_title(&words.collect::<Vec<_>>());
        init::supervise(child)
    }

    fn descriptor(&self, index: FdIndex) -> Result<BorrowedFd<'a>, Errno> {
        let descriptors = self.surroundings.descriptors;
        descriptors.get(usize::from(index.0)).map(AsFd::as_fd).ok_or(Errno::BADF)
    }

    fn root(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.host_root.as_ref().map(AsFd::as_fd).or(self.root).ok_or(Errno::BADF)
    }

    /// The parent, and after [`Step::AwaitStart`] the one who said start.
    fn control(&self) -> BorrowedFd<'_> {
        self.client.as_ref().map_or(self.surroundings.control, AsFd::as_fd)
    }

    fn await_parent(&mut self) -> Result<(), Errno> {
        if let Some(pid) = await_message(self.control())? {
            self.pid = pid;
        }
        Ok(())
    }

    /// Installs a filter and hands its listener to the parent, without one more system call: any
    /// of them may be one that the filter stops until somebody listens (crun #1002).
    fn install_with_listener(&self, filter: &crate::seccomp::Compiled) -> Result<(), Errno> {
        let (handover, memory) = Handover::new()?;
        Report::Listener.send(self.control(), Some(memory.as_fd()));
        drop(memory);
        let listener =
            bulkhead_sys::seccomp::install_with_listener(&filter.instructions, filter.flags)?;
        handover.offer(listener)
    }

    /// Waits until somebody connects to the container's socket: only root of the host can.
    fn await_start(&mut self, listener: FdIndex) -> Result<(), Errno> {
        let listener = self.descriptor(listener)?;
        let client = loop {
            match rustix::net::accept_with(listener, rustix::net::SocketFlags::CLOEXEC) {
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                other => break other?,
            }
        };
        self.client = Some(client);
        self.await_parent()
    }

    fn end_with_parent(&self) -> Result<(), Errno> {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // One that has ended before sends no signal any more.
        let mut parent = [PollFd::new(&self.surroundings.control, PollFlags::empty())];
        match poll(&mut parent, Some(&Timespec::default())) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Errno::PIPE),
            Err(errno) => Err(errno),
        }
    }

    fn take(
        &mut self,
        steps: &[Step],
        step: &Step,
        program: &mut super::Program,
    ) -> Result<(), Errno> {
        match step {
            Step::JoinCgroup { procs } => {
                let procs = self.descriptor(*procs)?;
                rustix::io::write(procs, b"0")?;
                // one that waits for its start holds no file of the host that it could write to
                process::close_one(procs)
            }
            Step::NewCgroupNamespace => {
                to_errno(bulkhead_sys::unshare(rustix::thread::UnshareFlags::NEWCGROUP))
            }
            Step::BecomeRoot { keep_groups } => {
                become_root(*keep_groups)?;
                keep_memory_closed()
            }
            Step::Propagation { propagation, recursive } => {
                trees::set_root_propagation(*propagation, *recursive)
            }
            Step::AttachRoot { root, at } => self.attach_root(root, at),
            Step::OpenRoot { path } => self.open_root(path),
            Step::OpenProc => self.open_proc(),
            Step::BringUpLoopback => bulkhead_sys::socket::bring_up_loopback(),
            Step::CheckDirectory { path } => self.check_directory(path),
            Step::Bind { tree, target, follow, propagation } => {
                self.bind(tree, target, *follow, propagation)
            }
            Step::MakeNode(node) => self.make_node(node),
            Step::Mount { mount, target } => self.mount(mount, target),
            Step::Attach { mount, target, directory, attributes } => {
                self.attach(*mount, target, *directory, *attributes)
            }
            Step::Device { mount, target } => {
                self.attach(*mount, target, false, Default::default())
            }
            Step::Link { path, to, replace } => self.link(path, to, *replace),
            Step::Seal { target } => self.seal(target),
            Step::OpenTerminal { rows, columns, console } => {
                self.open_terminal(*rows, *columns, *console)
            }
            Step::Mask { path } => self.mask(path),
            Step::MakeReadonly { path } => self.make_readonly(path),
            Step::MakeDirectory { path } => self.make_directory(path),
            Step::SealRoot => self.seal_root(),
            Step::RootPropagation { propagation, recursive } => {
                self.set_propagation_of_root(*propagation, *recursive)
            }
            Step::EnterRoot(entrance) => self.enter_root(*entrance),
            Step::Hostname(name) => rustix::system::sethostname(name.as_bytes()),
            Step::Domainname(name) => rustix::system::setdomainname(name.as_bytes()),
            Step::AwaitHooks => {
                Report::Mounted.send(self.control(), None);
                self.await_parent()
            }
            Step::Hooks { name, hooks, state, stdout, stderr } => {
                self.run_hooks(name, hooks, state, [*stdout, *stderr])
            }
            Step::AwaitGo => {
                Report::Ready.send(self.control(), None);
                self.await_parent()
            }
            Step::AwaitStart { listener } => self.await_start(*listener),
            Step::Sysctl { path, value, .. } => self.set_sysctl(path, value),
            Step::Session { terminal } => self.new_session(*terminal),
            Step::LookUpUser(user) => self.look_up(user, program),
            Step::User { uid, gid, additional_gids } => {
                self.use_ids(*uid, *gid, additional_gids, program)
            }
            Step::Personality(persona) => schedule::set_personality(*persona),
            Step::Scheduler(attributes) => schedule::set_attributes(*attributes),
            Step::IoPriority(value) => schedule::set_io_priority(*value),
            Step::MemoryPolicy { mode, nodes } => schedule::set_memory_policy(*mode, nodes),
            Step::Affinity(processors) => schedule::set_affinity(processors),
            Step::FindProgram => self.find(steps),
            Step::WorkingDirectory(path) => self.change_directory(path),
            Step::NewKeyring => match process::new_session_keyring() {
                // a kernel without keyrings has none to share
                Err(Errno::NOSYS) => Ok(()),
                other => other,
            },
            Step::CloseDescriptors { first, umask } => {
                rustix::process::umask(rustix::fs::Mode::from_raw_mode(*umask));
                bulkhead_sys::signal::unblock_all()?;
                process::close_on_exec_from(*first)
            }
            Step::OpenFiles { soft, hard } => {
                let limit = Rlimit { current: *soft, maximum: *hard };
                rustix::process::setrlimit(Resource::Nofile, limit)
            }
            Step::BoundingSet(set) => identity::bound(*set),
            Step::Filter => match &program.filter {
                Some(filter) if filter.listener => self.install_with_listener(filter),
                Some(filter) => bulkhead_sys::seccomp::install(&filter.instructions, filter.flags),
                None => Err(Errno::INVAL),
            },
            Step::SetIdentity { keep_capabilities, keep_groups } => {
                let user = self.user.as_ref().ok_or(Errno::INVAL)?;
                if *keep_capabilities && user.uid != 0 {
                    process::keep_capabilities()?;
                }
                let set = if *keep_groups {
                    process::set_ids(user.uid, user.gid)
                } else {
                    process::set_identity(user.uid, user.gid, &user.additional_gids)
                };
                if set == Err(Errno::INVAL) {
                    self.detail = unmapped(user);
                }
                set?;
                keep_memory_closed()
            }
            Step::SetCapabilities(sets) => identity::set_capabilities(*sets),
            Step::Label { file, label } => self.set_label(file, label),
            Step::Landlock(policy) => self.restrict(policy),
            Step::EndWithParent => self.end_with_parent(),
            Step::NoNewPrivileges => rustix::thread::set_no_new_privs(true),
            Step::Init => Err(Errno::INVAL), // taken by `split`
            Step::Execute { candidates, searched } => {
                let candidates = candidates.get(self.found..).unwrap_or_default();
                Err(program::execute(candidates, *searched, program))
            }
        }
    }
}

/// setuid(2) and its like say EINVAL to an id that the user namespace does not have, and its map
/// cannot be changed any more (user_namespaces(7)).
fn unmapped(user: &ResolvedUser) -> String {
    let ResolvedUser { uid, gid, additional_gids, .. } = user;
    let mut others = additional_gids.iter().filter(|id| *id != gid).map(u32::to_string);
    let others = others.next().map_or_else(String::new, |first| {
        others.fold(format!(" with the groups {first}"), |text, id| text + "," + &id)
    });
    format!(
        "user {uid}:{gid}{others} is not among the ids of this container's user namespace, which are \
         chosen when it is created: name it there with --user or --group-add, or use --userns=host"
    )
}

/// Takes the first ids of a user namespace.
pub(super) fn become_root(keep_groups: bool) -> Result<(), Errno> {
    if keep_groups { process::set_ids(0, 0) } else { process::set_identity(0, 0, &[]) }
}

/// This is still a copy of the warden's memory. A change of identity opens it to the container
/// where the host has `fs.suid_dumpable` = 1 (proc_sys_fs(5)).
fn keep_memory_closed() -> Result<(), Errno> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
}

/// Waits for the parent's message: one byte, and maybe the pid that this process has there.
pub(super) fn await_message(control: BorrowedFd<'_>) -> Result<Option<u32>, Errno> {
    let mut bytes = [0; 8];
    loop {
        return match rustix::io::read(control, &mut bytes) {
            Err(Errno::INTR) => continue,
            Ok(0) => Err(Errno::PIPE),
            Ok(length) => Ok(bytes[..length]
                .get(1..5)
                .and_then(|pid| pid.try_into().ok())
                .map(u32::from_le_bytes)),
            Err(error) => Err(error),
        };
    }
}

fn to_errno<T>(result: std::io::Result<T>) -> Result<T, Errno> {
    result.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

//! The child's side: it walks the plan and becomes the program.
//!
//! The child has a copy of its parent's memory, as after fork(2). Steps do not log or lock, and
//! allocate only where they read a file of the container or make a path that is missing; that is
//! sound because the parent, the warden, has one thread.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bulkhead_sys::process;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

use super::{Failure, Plan, Step};
use crate::FdIndex;
use crate::user::ResolvedUser;

mod identity;
mod init;
mod mounts;
mod terminal;

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

/// What a child tells its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// An intermediate process has made the real one; its pidfd comes along.
    Cloned {
        pid: u32,
    },
    /// The master of the new terminal comes along.
    Terminal,
    /// Everything up to [`Step::AwaitGo`] is done.
    Ready,
    Failed(Failure),
}

impl Report {
    pub fn send(&self, control: BorrowedFd<'_>, descriptor: Option<BorrowedFd<'_>>) {
        let (kind, step, number, text) = match self {
            Self::Cloned { pid } => (0, 0, *pid as i32, ""),
            Self::Terminal => (1, 0, 0, ""),
            Self::Ready => (2, 0, 0, ""),
            Self::Failed(failure) => (3, failure.step, failure.errno, failure.detail.as_str()),
        };
        let mut head = [kind; 7];
        head[1..3].copy_from_slice(&step.to_le_bytes());
        head[3..7].copy_from_slice(&number.to_le_bytes());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors: [_; 1];
        if let Some(descriptor) = descriptor {
            descriptors = [descriptor];
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        let parts = [IoSlice::new(&head), IoSlice::new(text.as_bytes())];
        // A parent that is gone cannot be told; the socket's end tells everything to one that is not.
        let _ = rustix::net::sendmsg(control, &parts, &mut ancillary, SendFlags::NOSIGNAL);
    }

    /// Takes the next report without waiting; `None` at the end of the socket, which means that the
    /// program was executed (or that the child was killed).
    pub fn receive(control: BorrowedFd<'_>) -> Result<Option<(Self, Option<OwnedFd>)>, Errno> {
        let mut bytes = [0; 1024];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = rustix::net::recvmsg(
            control,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            flags,
        )?;
        let descriptor = ancillary.drain().find_map(|message| match message {
            rustix::net::RecvAncillaryMessage::ScmRights(mut list) => list.next(),
            _ => None,
        });
        let Some((head, text)) = bytes[..received.bytes].split_first_chunk::<7>() else {
            return if received.bytes == 0 { Ok(None) } else { Err(Errno::PROTO) };
        };
        let [kind, s0, s1, n0, n1, n2, n3] = *head;
        let number = i32::from_le_bytes([n0, n1, n2, n3]);
        let report = match kind {
            0 => Self::Cloned { pid: number as u32 },
            1 => Self::Terminal,
            2 => Self::Ready,
            _ => Self::Failed(Failure {
                step: u16::from_le_bytes([s0, s1]),
                errno: number,
                detail: String::from_utf8_lossy(text).into_owned(),
            }),
        };
        Ok(Some((report, descriptor)))
    }
}

impl Plan {
    /// Walks the plan; returns the exit status of a process whose start failed.
    ///
    /// Waits first for one byte from the parent, which has the id mappings to write.
    pub fn walk(&mut self, surroundings: &Surroundings<'_>) -> i32 {
        let mut walk = Walk {
            surroundings,
            root: None,
            null: None,
            blank: None,
            sysctls: None,
            terminal: None,
            user: None,
            detail: String::new(),
        };
        if walk.await_parent().is_err() {
            return 255;
        }
        rustix::process::umask(rustix::fs::Mode::empty());
        walk.go_on(&self.steps, 0, &mut self.program)
    }
}

/// What steps leave for later ones.
struct Walk<'a> {
    surroundings: &'a Surroundings<'a>,
    root: Option<BorrowedFd<'a>>,
    /// The warden's `/dev/null`, checked.
    null: Option<OwnedFd>,
    /// An empty read-only directory.
    blank: Option<OwnedFd>,
    sysctls: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    user: Option<ResolvedUser>,
    detail: String,
}

impl<'a> Walk<'a> {
    /// Takes the steps from `first` on; returns the exit status of one that failed.
    fn go_on(&mut self, steps: &[Step], first: usize, program: &mut super::Program) -> i32 {
        for (index, step) in steps.iter().enumerate().skip(first) {
            let taken = match step {
                Step::Init => self.split(steps, index + 1, program),
                step => self.take(step, program),
            };
            if let Err(errno) = taken {
                let failure = Failure {
                    step: index as u16,
                    errno: errno.raw_os_error(),
                    detail: std::mem::take(&mut self.detail),
                };
                Report::Failed(failure).send(self.surroundings.control, None);
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
        init::supervise(child)
    }

    fn descriptor(&self, index: FdIndex) -> Result<BorrowedFd<'a>, Errno> {
        let descriptors = self.surroundings.descriptors;
        descriptors.get(usize::from(index.0)).map(AsFd::as_fd).ok_or(Errno::BADF)
    }

    fn root(&self) -> Result<BorrowedFd<'a>, Errno> {
        self.root.ok_or(Errno::BADF)
    }

    fn await_parent(&self) -> Result<(), Errno> {
        let mut byte = [0];
        loop {
            return match rustix::io::read(self.surroundings.control, &mut byte) {
                Err(Errno::INTR) => continue,
                Ok(1) => Ok(()),
                Ok(_) => Err(Errno::PIPE),
                Err(error) => Err(error),
            };
        }
    }

    fn take(&mut self, step: &Step, program: &mut super::Program) -> Result<(), Errno> {
        match step {
            Step::JoinCgroup { procs } => {
                rustix::io::write(self.descriptor(*procs)?, b"0").map(drop)
            }
            Step::NewCgroupNamespace => {
                to_errno(bulkhead_sys::unshare(rustix::thread::UnshareFlags::NEWCGROUP))
            }
            Step::BecomeRoot => {
                process::set_identity(0, 0, &[])?;
                keep_memory_closed()
            }
            Step::AttachRoot { root } => self.attach_root(*root),
            Step::Mount { mount, target } => self.mount(mount, target),
            Step::Attach { mount, target, directory, attributes } => {
                self.attach(*mount, target, *directory, *attributes)
            }
            Step::Device { mount, target } => {
                self.attach(*mount, target, false, Default::default())
            }
            Step::Link { path, to } => self.link(path, to),
            Step::Seal { target } => self.seal(target),
            Step::OpenTerminal { rows, columns, console } => {
                self.open_terminal(*rows, *columns, *console)
            }
            Step::KeepSysctls => self.keep_sysctls(),
            Step::Mask { path } => self.mask(path),
            Step::MakeReadonly { path } => self.make_readonly(path),
            Step::MakeDirectory { path } => self.make_directory(path),
            Step::SealRoot => self.seal_root(),
            Step::EnterRoot => self.enter_root(),
            Step::Hostname(name) => rustix::system::sethostname(name.as_bytes()),
            Step::Domainname(name) => rustix::system::setdomainname(name.as_bytes()),
            Step::AwaitGo => {
                Report::Ready.send(self.surroundings.control, None);
                self.await_parent()
            }
            Step::Sysctl { path, value, .. } => self.set_sysctl(path, value),
            Step::Session { terminal } => self.new_session(*terminal),
            Step::LookUpUser(user) => self.look_up(user, program),
            Step::WorkingDirectory(path) => self.change_directory(path),
            Step::NewKeyring => match process::new_session_keyring() {
                // a kernel without keyrings has none to share
                Err(Errno::NOSYS) => Ok(()),
                other => other,
            },
            Step::CloseDescriptors => {
                rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
                bulkhead_sys::signal::unblock_all()?;
                process::close_on_exec_from(3)
            }
            Step::BoundingSet(set) => identity::bound(*set),
            Step::Filter => match &program.filter {
                Some(filter) => bulkhead_sys::seccomp::install(&filter.instructions, filter.flags),
                None => Err(Errno::INVAL),
            },
            Step::SetIdentity => {
                let user = self.user.as_ref().ok_or(Errno::INVAL)?;
                process::set_identity(user.uid, user.gid, &user.additional_gids)?;
                keep_memory_closed()
            }
            Step::SetCapabilities(set) => identity::set_capabilities(*set),
            Step::NoNewPrivileges => rustix::thread::set_no_new_privs(true),
            Step::Init => Err(Errno::INVAL), // taken by `split`
            Step::Execute { candidates, searched } => Err(execute(candidates, *searched, program)),
        }
    }
}

/// This is still a copy of the warden's memory. A change of identity opens it to the container
/// where the host has `fs.suid_dumpable` = 1 (proc_sys_fs(5)).
fn keep_memory_closed() -> Result<(), Errno> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
}

/// Tries each candidate; returns why none could be executed.
fn execute(candidates: &[std::ffi::CString], searched: bool, program: &super::Program) -> Errno {
    let mut reason = Errno::NOENT;
    for candidate in candidates {
        match process::execve(candidate, &program.arguments, &program.environment) {
            Errno::NOENT | Errno::NOTDIR if searched => {}
            // as execvp(3): go on, but remember that there was something
            Errno::ACCESS if searched => reason = Errno::ACCESS,
            error => return error,
        }
    }
    reason
}

fn to_errno<T>(result: std::io::Result<T>) -> Result<T, Errno> {
    result.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

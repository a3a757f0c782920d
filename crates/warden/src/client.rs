use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bulkhead_types::{Id, IdMap};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
};
use rustix::process::{PidfdFlags, pidfd_open};

use crate::hello;
use crate::protocol::{CreateContainer, Event, Exec, Known, StartFailure};
use crate::wire::{
    Fault, HandoverState, LogHandover, Message, Numbered, Packet, Reply, Request, receive,
};

mod launch;

pub(crate) use launch::{READY, USUAL_DESCRIPTORS};

/// A connection to the warden.
///
/// Every method blocks until the warden has answered (a millisecond or so): async callers use
/// `spawn_blocking`. Calls from several threads overlap; answers are matched by request number.
/// Events come on a thread of their own, which must not call the client.
#[derive(Debug)]
pub struct Client {
    /// Another one once a new warden serves.
    shared: RwLock<Arc<Shared>>,
    starter: Starter,
}

/// What a new connection, or a new warden, takes.
struct Starter {
    socket: PathBuf,
    program: PathBuf,
    on_event: Arc<dyn Fn(Event) + Send + Sync>,
    on_gone: Arc<dyn Fn() + Send + Sync>,
    /// How many wardens it has started.
    started: AtomicU32,
}

impl std::fmt::Debug for Starter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Starter").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// What another warden needs to go on with a container, should this one die: copies of the
/// descriptors that it holds. To be dropped when the container has ended.
#[derive(Debug)]
pub struct Handover {
    state: HandoverState,
    descriptors: Vec<OwnedFd>,
}

/// Where the log of a container is that has ended, and how it is rotated; see [`crate::Log::JsonFile`].
#[derive(Debug)]
pub struct UnfinishedLog {
    pub directory: OwnedFd,
    pub name: String,
    pub max_size: u64,
    pub max_files: u32,
}

/// What was logged before a client that [`Client::attach_after_log`] attached.
#[derive(Debug)]
pub struct PastOutput {
    /// The log's files, oldest first; none if there is no log, or if nothing runs that writes to it.
    pub files: Vec<OwnedFd>,
    /// How much of the last one is past. What comes after is sent to the client itself.
    pub size: u64,
    id: Id,
    client: u64,
}

/// What the engine gets for a container that is cloned and waits.
#[derive(Debug)]
pub struct Created {
    pub pid: u32,
    pub pidfd: OwnedFd,
    /// `/proc/PID/ns/net`, to be given its links.
    pub netns: OwnedFd,
}

#[derive(Debug, thiserror::Error)]
pub enum WardenError {
    #[error("the warden is gone: {0}")]
    Gone(std::io::Error),
    #[error(transparent)]
    Start(#[from] StartFailure),
    #[error("no such process: {0}")]
    Unknown(Id),
    #[error("the warden's answer was not understood: {0}")]
    Protocol(String),
    #[error("{0}")]
    Refused(String),
    #[error(
        "the warden that runs (process {pid}) was started by another version of Bulkhead and speaks \
         {}, this program {}: say `bulkhead down` with that version first; or end the process, and \
         its containers with it",
        .protocol.map_or("an older protocol".to_owned(), |version| format!("protocol {version}")),
        crate::hello::VERSION
    )]
    OtherVersion {
        /// Of the warden, in this process's pid namespace.
        pid: i32,
        /// `None`: from before protocols had a version.
        protocol: Option<u32>,
    },
}

type Answer = (Result<Reply, Fault>, Vec<OwnedFd>);

#[derive(Debug)]
struct Shared {
    socket: OwnedFd,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    /// The connection has ended; nobody would answer.
    ended: bool,
    /// Because this side ended it, or asked the warden to end.
    ended_here: bool,
    calls: HashMap<u64, Sender<Answer>>,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // no code that holds the lock can panic half-way through a change
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// Connects to the warden that listens on `socket` (SEQPACKET), or starts one: `program
    /// warden --socket …` in a session of its own, so that it outlives its starter.
    ///
    /// `on_event` is called from a thread of the client's for every [`Event`], and `on_gone` after
    /// the last one of a warden that has ended without being asked to; see [`Self::reconnect`].
    pub fn connect_or_start(
        socket: &Path,
        program: &Path,
        on_event: impl Fn(Event) + Send + Sync + 'static,
        on_gone: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, WardenError> {
        launch::raise_descriptors();
        let starter = Starter {
            socket: socket.to_owned(),
            program: program.to_owned(),
            on_event: Arc::new(on_event),
            on_gone: Arc::new(on_gone),
            started: AtomicU32::new(0),
        };
        Ok(Self { shared: RwLock::new(starter.connect_or_start()?), starter })
    }

    /// Once the warden is gone: connects to the next one, or starts it. It knows of no container
    /// until it is handed them ([`Self::adopt`]).
    /// Nothing is done while the connection stands, so that several may ask for it at once.
    pub fn reconnect(&self) -> Result<(), WardenError> {
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        if shared.waiting().ended {
            *shared = self.starter.connect_or_start()?;
        }
        Ok(())
    }

    /// Whether the warden answers. Asked of one that is going, this returns when it has gone: a stream
    /// that it held may end before its connection does, and whoever saw that learns here whether the
    /// warden is why.
    pub fn answers(&self) -> bool {
        // of a process that nobody can have
        !matches!(self.forget(Id::random()), Err(WardenError::Gone(_)))
    }

    fn shared(&self) -> Arc<Shared> {
        // no code that holds the lock can panic half-way through a change
        Arc::clone(&self.shared.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Clones the container and prepares everything up to its exec, or begins to
    /// ([`CreateContainer::answer_early`]).
    ///
    /// A device's descriptor may be `O_PATH` of this process's mount namespace: the mount that the
    /// container gets is made here, since the warden lives in another one.
    pub fn create(
        &self,
        request: CreateContainer,
        mut fds: Vec<OwnedFd>,
    ) -> Result<Created, WardenError> {
        for device in &request.spec.devices {
            if let Some(fd) = fds.get_mut(usize::from(device.fd.0)) {
                detach(fd);
            }
        }
        let (reply, descriptors) = self.call(Request::Create(Box::new(request)), fds)?;
        match (reply, <[OwnedFd; 2]>::try_from(descriptors)) {
            (Reply::Created { pid }, Ok([pidfd, netns])) => Ok(Created { pid, pidfd, netns }),
            (reply, _) => Err(unexpected(&reply)),
        }
    }

    /// Lets a created container go on to its exec; returns when the exec has happened or failed.
    ///
    /// No [`Handover`] where descriptors are short: the container then dies with its warden.
    pub fn start(&self, id: Id) -> Result<Option<Handover>, WardenError> {
        match self.call(Request::Start(id), Vec::new())? {
            (Reply::Done, _) => Ok(None),
            (Reply::Handover(state), descriptors) => {
                Ok(Some(Handover { state: *state, descriptors }))
            }
            (reply, _) => Err(unexpected(&reply)),
        }
    }

    /// What [`Self::start`] returned, for an engine that was not there.
    pub fn handover(&self, id: Id) -> Result<Handover, WardenError> {
        match self.call(Request::Handover(id), Vec::new())? {
            (Reply::Handover(state), descriptors) => Ok(Handover { state: *state, descriptors }),
            (reply, _) => Err(unexpected(&reply)),
        }
    }

    /// Hands a running container over to a new warden. Its log and its streams go on, and its end
    /// is told with its exit code (255 where the kernel does not tell it: before Linux 6.15, where
    /// init reaps it first). What only the dead warden had is lost: the unfinished last line of the
    /// log and the chunk that it had just read, what an attached client had not taken yet, and a `StdinOnce` input's other end.
    pub fn adopt(&self, handover: &Handover) -> Result<(), WardenError> {
        let copies = handover.descriptors.iter().map(OwnedFd::try_clone);
        let copies = copies.collect::<Result<Vec<_>, _>>().map_err(WardenError::Gone)?;
        self.done(Request::Adopt(Box::new(handover.state.clone())), copies)
    }

    /// For which containers' logs a warden that is gone has left what a full disk had refused: those
    /// that this one has not been handed ([`Self::adopt`], [`Self::create`], [`Self::finish_log`]).
    pub fn unfinished_logs(&self) -> Result<Vec<Id>, WardenError> {
        match self.call(Request::UnfinishedLogs, Vec::new())? {
            (Reply::Ids(ids), _) => Ok(ids),
            (reply, _) => Err(unexpected(&reply)),
        }
    }

    /// Writes what was left for the log of a container that has ended, as soon as the disk takes it.
    pub fn finish_log(&self, id: Id, log: UnfinishedLog) -> Result<(), WardenError> {
        let UnfinishedLog { directory, name, max_size, max_files } = log;
        let log = Some(LogHandover { name, max_size, max_files });
        self.done(Request::FinishLog { id, log }, vec![directory])
    }

    /// Drops what was left for the log of a container that is no more.
    pub fn discard_log(&self, id: Id) -> Result<(), WardenError> {
        self.done(Request::FinishLog { id, log: None }, Vec::new())
    }

    /// Returns the new process's pid and pidfd when its exec has happened.
    pub fn exec(&self, request: Exec, fds: Vec<OwnedFd>) -> Result<(u32, OwnedFd), WardenError> {
        let (reply, mut descriptors) = self.call(Request::Exec(Box::new(request)), fds)?;
        match (reply, descriptors.pop()) {
            (Reply::Executed { pid }, Some(pidfd)) => Ok((pid, pidfd)),
            (reply, _) => Err(unexpected(&reply)),
        }
    }

    /// Ends an exec that is bound to this client ([`crate::Lifetime::Bound`]), with all that it has
    /// started; its end is told as any. One that has ended is [`WardenError::Unknown`].
    pub fn end(&self, id: Id) -> Result<(), WardenError> {
        self.done(Request::End(id), Vec::new())
    }

    /// Attaches `socket` (see [`crate::Attachment`]) to a running container or exec.
    pub fn attach(
        &self,
        id: Id,
        socket: OwnedFd,
        stdin: bool,
        stdout: bool,
        stderr: bool,
    ) -> Result<(), WardenError> {
        let after_log = false;
        self.done(Request::Attach { id, stdin, stdout, stderr, after_log }, vec![socket])
    }

    /// As [`Self::attach`], for a client that gets first what is logged already, from the caller:
    /// nothing is sent before [`Self::release`]. What is past and what is sent meet without a gap.
    pub fn attach_after_log(
        &self,
        id: Id,
        socket: OwnedFd,
        [stdin, stdout, stderr]: [bool; 3],
    ) -> Result<PastOutput, WardenError> {
        let request = Request::Attach { id, stdin, stdout, stderr, after_log: true };
        match self.call(request, vec![socket])? {
            (Reply::Attached { client, size }, files) => Ok(PastOutput { files, size, id, client }),
            (reply, _) => Err(unexpected(&reply)),
        }
    }

    /// The client has got what is past.
    pub fn release(&self, past: &PastOutput) -> Result<(), WardenError> {
        self.done(Request::Release { id: past.id, client: past.client }, Vec::new())
    }

    /// Sets the terminal's size, for a container or an exec.
    pub fn resize(&self, id: Id, rows: u16, columns: u16) -> Result<(), WardenError> {
        self.done(Request::Resize { id, rows, columns }, Vec::new())
    }

    /// Every container that the warden knows, with a pidfd for those that have not exited.
    pub fn list(&self) -> Result<Vec<(Known, Option<OwnedFd>)>, WardenError> {
        let (mut answers, mut all) = (self.ask(Request::List, Vec::new())?, Vec::new());
        loop {
            let (reply, descriptors) = answers.next()?;
            let Reply::List { known, more } = reply else { return Err(unexpected(&reply)) };
            let mut descriptors = descriptors.into_iter();
            for (known, alive) in known {
                all.push((known, if alive { descriptors.next() } else { None }));
            }
            if !more {
                return Ok(all);
            }
        }
    }

    /// Duplicates the namespace descriptors of a running container: (name, fd) for each of
    /// `pid net ipc mnt uts user cgroup time`.
    pub fn namespaces(&self, id: Id) -> Result<Vec<(String, OwnedFd)>, WardenError> {
        match self.call(Request::Namespaces(id), Vec::new())? {
            (Reply::Namespaces(names), descriptors) if names.len() == descriptors.len() => {
                Ok(names.into_iter().zip(descriptors).collect())
            }
            (reply, _) => Err(unexpected(&reply)),
        }
    }

    /// A user namespace with this mapping, for id-mapped mounts. Made once for a range and kept.
    pub fn user_namespace(&self, range: IdMap) -> Result<OwnedFd, WardenError> {
        let (reply, mut descriptors) = self.call(Request::UserNamespace(range), Vec::new())?;
        descriptors.pop().ok_or_else(|| unexpected(&reply))
    }

    /// The compartments that wait for a container: the pid and a pidfd of each. With `keep`, so many
    /// are kept from now on, and 0 turns them off; the answer comes when they are ready, and with
    /// fewer if they cannot be made.
    pub fn compartments(&self, keep: Option<u8>) -> Result<Vec<(u32, OwnedFd)>, WardenError> {
        match self.call(Request::Compartments(keep), Vec::new())? {
            (Reply::Compartments(pids), descriptors) if pids.len() == descriptors.len() => {
                Ok(pids.into_iter().zip(descriptors).collect())
            }
            (reply, _) => Err(unexpected(&reply)),
        }
    }

    /// Drops what is known of an exited container or exec; kills a created one that never started.
    /// Refused for one that runs.
    pub fn forget(&self, id: Id) -> Result<(), WardenError> {
        self.done(Request::Forget(id), Vec::new())
    }

    /// Ends the warden; refused while a container runs.
    pub fn shut_down(&self) -> Result<(), WardenError> {
        let shared = self.shared();
        shared.waiting().ended_here = true;
        let done = self.done(Request::ShutDown, Vec::new());
        shared.waiting().ended_here = done.is_ok();
        done
    }

    fn done(&self, request: Request, fds: Vec<OwnedFd>) -> Result<(), WardenError> {
        match self.call(request, fds)? {
            (Reply::Done, _) => Ok(()),
            (reply, _) => Err(unexpected(&reply)),
        }
    }

    fn call(
        &self,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<(Reply, Vec<OwnedFd>), WardenError> {
        self.ask(request, fds)?.next()
    }

    fn ask(&self, request: Request, fds: Vec<OwnedFd>) -> Result<Answers, WardenError> {
        let gone = |error: Errno| WardenError::Gone(error.into());
        let (sender, receiver) = channel();
        let shared = self.shared();
        let number = {
            let mut waiting = shared.waiting();
            if waiting.ended {
                return Err(gone(Errno::PIPE));
            }
            waiting.last += 1;
            let number = waiting.last;
            waiting.calls.insert(number, sender);
            number
        };
        let answers = Answers { shared, number, receiver };
        // A packet goes out as a whole, so callers need no lock between them.
        let packet = Packet::new(&Numbered { number, request }, fds).map_err(|error| {
            WardenError::Protocol(format!("the request cannot be sent: {error}"))
        })?;
        packet.send(answers.shared.socket.as_fd(), SendFlags::empty()).map_err(|error| {
            // the thread that reads may not have seen it yet
            answers.shared.waiting().ended = true;
            gone(error)
        })?;
        Ok(answers)
    }
}

/// The answers to one request; the entry in the table of calls goes with it.
struct Answers {
    shared: Arc<Shared>,
    number: u64,
    receiver: std::sync::mpsc::Receiver<Answer>,
}

impl Answers {
    fn next(&mut self) -> Result<(Reply, Vec<OwnedFd>), WardenError> {
        let (answer, descriptors) =
            self.receiver.recv().map_err(|_| WardenError::Gone(Errno::PIPE.into()))?;
        match answer {
            Ok(reply) => Ok((reply, descriptors)),
            Err(Fault::Start(failure)) => Err(WardenError::Start(failure)),
            Err(Fault::Unknown(id)) => Err(WardenError::Unknown(id)),
            Err(Fault::Refused(reason)) => Err(WardenError::Refused(reason)),
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.shared.waiting().calls.remove(&self.number);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let shared = self.shared();
        shared.waiting().ended_here = true;
        // wakes the reader, which holds the socket too
        let _ = rustix::net::shutdown(&shared.socket, Shutdown::Both);
    }
}

impl Starter {
    fn connect_or_start(&self) -> Result<Arc<Shared>, WardenError> {
        let socket = &self.socket;
        let connected = match connect(socket)? {
            Some(connected) => connected,
            None => {
                // one starter at a time; who had to wait finds a warden
                let _turn = launch::turn(socket).map_err(WardenError::Gone)?;
                match connect(socket)? {
                    Some(connected) => connected,
                    None => {
                        let before = self.started.fetch_add(1, Ordering::Relaxed);
                        launch::launch(socket, &self.program, before).map_err(WardenError::Gone)?;
                        connect(socket)?.ok_or(WardenError::Gone(Errno::PIPE.into()))?
                    }
                }
            }
        };
        let shared = Arc::new(Shared { socket: connected, waiting: Mutex::default() });
        let (events, incoming) = channel();
        let (reader, watched) = (Arc::clone(&shared), Arc::clone(&shared));
        let (on_event, on_gone) = (Arc::clone(&self.on_event), Arc::clone(&self.on_gone));
        let threads = [
            std::thread::Builder::new().name("warden answers".into()).spawn(move || {
                read(&reader, &events);
            }),
            // Apart from the answers, so that a slow handler never delays a call.
            std::thread::Builder::new().name("warden events".into()).spawn(move || {
                incoming.into_iter().for_each(|event| on_event(event));
                if !watched.waiting().ended_here {
                    on_gone();
                }
            }),
        ];
        for thread in threads {
            thread.map_err(WardenError::Gone)?;
        }
        Ok(shared)
    }
}

fn read(shared: &Shared, events: &Sender<Event>) {
    while let Ok(Some((message, descriptors))) =
        receive::<Message>(shared.socket.as_fd(), RecvFlags::empty())
    {
        match message {
            Message::Event(event) => {
                if events.send(event).is_err() {
                    break;
                }
            }
            Message::Reply { number, reply } => {
                if let Some(call) = shared.waiting().calls.get(&number) {
                    // the caller may have gone; its descriptors are closed then
                    let _ = call.send((reply, descriptors));
                }
            }
        }
    }
    let mut waiting = shared.waiting();
    waiting.ended = true;
    waiting.calls.clear();
}

/// Connects to the warden that listens, if one does, and learns whether it speaks our protocol.
fn connect(path: &Path) -> Result<Option<OwnedFd>, WardenError> {
    let gone = |errno: Errno| WardenError::Gone(errno.into());
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let socket =
        rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None).map_err(gone)?;
    let address = SocketAddrUnix::new(path).map_err(gone)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => {}
        Err(Errno::NOENT | Errno::CONNREFUSED) => return Ok(None),
        Err(errno) => return Err(gone(errno)),
    }
    let greeted = hello::send(socket.as_fd())
        .and_then(|()| hello::receive(socket.as_fd(), RecvFlags::empty()));
    match greeted {
        Ok(Some(hello::VERSION)) => return Ok(Some(socket)),
        Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => {}
        Err(errno) => return Err(gone(errno)),
    }
    // It let go of us: because it does not understand, or because it was just ending.
    let peer = rustix::net::sockopt::socket_peercred(&socket).map_err(gone)?;
    let Ok(process) = pidfd_open(peer.pid, PidfdFlags::empty()) else { return Ok(None) };
    let mut ended = [PollFd::new(&process, PollFlags::IN)];
    match poll(&mut ended, Some(&ENDING)) {
        Ok(0) | Err(_) => Err(WardenError::OtherVersion {
            pid: peer.pid.as_raw_nonzero().get(),
            protocol: greeted.ok().flatten(),
        }),
        Ok(_) => Ok(None),
    }
}

/// How long a warden takes to end once it has let go of its clients, at the very most.
const ENDING: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// Replaces a descriptor of something in this mount namespace by a detached mount of it; one that
/// is detached already is left alone (open_tree(2) refuses it).
fn detach(fd: &mut OwnedFd) {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if let Ok(detached) = open_tree(&*fd, c"", flags) {
        *fd = detached;
    }
}

fn unexpected(reply: &Reply) -> WardenError {
    WardenError::Protocol(format!("{reply:?}"))
}

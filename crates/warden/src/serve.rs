//! The warden's process: one thread that waits for many things at once.

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use bulkhead_runtime::plan::Host;
use bulkhead_runtime::{Seccomp, capabilities, seccomp};
use bulkhead_types::{Id, IdMap};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use serde::Serialize;

use crate::protocol::{Event, State};
use crate::wire::{Fault, Message, Numbered, Packet, Reply, receive};

mod attached;
mod compartments;
mod io;
mod log;
mod nursery;
mod prepare;
mod process;
mod rehearsal;
mod requests;
mod spawn;

use compartments::Compartments;
use process::Process;

/// Runs the warden: listens on `socket` and returns when a client shuts it down.
///
/// Must be called by a process that has one thread, at its start: it closes descriptors that were
/// inherited, starts a session of its own and leaves the host's mount namespace. It says that it
/// listens by closing standard output. The record of exits is `socket` with the suffix `.exits`.
pub fn serve(socket: &Path) -> std::io::Result<()> {
    let ready = prepare::prepare(socket)?;
    let mut warden = Warden {
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        sources: HashMap::new(),
        last_token: 0,
        clients: HashMap::new(),
        processes: HashMap::new(),
        user_namespaces: HashMap::new(),
        compartments: Compartments::new(),
        ready,
        ending: false,
    };
    let token = warden.token(Source::Listener);
    let listener = warden.ready.listener.as_fd();
    epoll::add(&warden.epoll, listener, EventData::new_u64(token), EventFlags::IN)?;
    prepare::announce()?;
    // before any client has said anything; without it, every container is cloned when it comes
    if let Err(errno) = warden.start_nursery() {
        eprintln!("no compartments are built ahead: {errno}");
    }
    // While nobody waits yet: the filter that nearly every container has is compiled once.
    if let Ok(usual) = capabilities::resolve(&[], &[], false) {
        let _ = seccomp::compile(&Seccomp::Default, usual);
    }
    warden.run()?;
    let ready = &warden.ready;
    let _ = rustix::fs::unlinkat(&ready.directory, &ready.name, rustix::fs::AtFlags::empty());
    Ok(())
}

/// What the warden made before it began to serve.
#[derive(Debug)]
struct Ready {
    listener: OwnedFd,
    /// Where the socket lies, and its name there.
    directory: OwnedFd,
    name: std::ffi::OsString,
    exits: std::fs::File,
    /// Locked as long as this warden lives, so that there is one at a socket.
    _lock: OwnedFd,
    proc: OwnedFd,
    null: OwnedFd,
    host: Host,
    /// The limit of open descriptors that the warden was started with.
    descriptors: rustix::process::Rlimit,
}

struct Warden {
    epoll: OwnedFd,
    sources: HashMap<u64, Source>,
    last_token: u64,
    clients: HashMap<u64, Connection>,
    processes: HashMap<Id, Process>,
    user_namespaces: HashMap<IdMap, OwnedFd>,
    compartments: Compartments,
    ready: Ready,
    ending: bool,
}

/// What an event is about.
#[derive(Debug, Clone, Copy)]
enum Source {
    Listener,
    Client,
    /// The socket to a child that walks its plan.
    Control(Id),
    Pidfd(Id),
    /// Of a process that clones the real one and ends.
    Helper(Id),
    Nursery,
    /// Its socket or its pidfd.
    Compartment(u64),
    /// 0 standard output or the terminal, 1 standard error.
    Output(Id, usize),
    Input(Id),
    Attached(Id),
}

/// A descriptor that epoll watches.
#[derive(Debug)]
struct Watched {
    fd: OwnedFd,
    token: u64,
    flags: EventFlags,
}

#[derive(Debug)]
struct Connection {
    socket: Watched,
    queue: VecDeque<Packet>,
}

/// To whom an answer goes.
#[derive(Debug, Clone, Copy)]
struct Caller {
    client: u64,
    number: u64,
}

impl Warden {
    fn run(&mut self) -> Result<(), Errno> {
        let mut events = Vec::with_capacity(64);
        while !self.ending || self.clients.values().any(|client| !client.queue.is_empty()) {
            let timeout = self.next_deadline();
            events.clear();
            let buffer = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, buffer, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
            for event in &events {
                let token = event.data.u64();
                // gone since the kernel listed it
                let Some(source) = self.sources.get(&token).copied() else { continue };
                self.handle(token, source, event.flags);
            }
            self.pass_deadlines();
            self.refill_compartments();
        }
        Ok(())
    }

    fn handle(&mut self, token: u64, source: Source, flags: EventFlags) {
        match source {
            Source::Listener => self.accept(),
            Source::Client => self.serve_client(token, flags),
            Source::Control(id) => self.hear(id),
            Source::Pidfd(id) => self.reap(id),
            Source::Helper(id) => self.reap_helper(id),
            Source::Nursery => self.bury_nursery(),
            Source::Compartment(key) => self.tend(key),
            Source::Output(id, stream) => self.read_output(id, stream),
            Source::Input(id) => self.write_input(id),
            Source::Attached(id) => self.serve_attached(id, token, flags),
        }
    }

    fn token(&mut self, source: Source) -> u64 {
        self.last_token += 1;
        self.sources.insert(self.last_token, source);
        self.last_token
    }

    fn watch(&mut self, fd: OwnedFd, source: Source, flags: EventFlags) -> Result<Watched, Errno> {
        let token = self.token(source);
        match epoll::add(&self.epoll, &fd, EventData::new_u64(token), flags) {
            Ok(()) => Ok(Watched { fd, token, flags }),
            Err(error) => {
                self.sources.remove(&token);
                Err(error)
            }
        }
    }

    /// Closes a watched descriptor. epoll forgets a closed one only when no copy of it is left, and
    /// a child that was cloned a moment ago has copies.
    fn unwatch(&mut self, watched: Watched) {
        self.sources.remove(&watched.token);
        let _ = epoll::delete(&self.epoll, &watched.fd);
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(socket) = rustix::net::accept_with(&self.ready.listener, flags) else { return };
        // Whoever may give orders here is root on the host; the socket's mode says so as well.
        match rustix::net::sockopt::socket_peercred(&socket) {
            Ok(peer) if peer.uid.is_root() => {}
            _ => return,
        }
        if let Ok(socket) = self.watch(socket, Source::Client, EventFlags::IN) {
            self.clients.insert(socket.token, Connection { socket, queue: VecDeque::new() });
        }
    }

    fn serve_client(&mut self, token: u64, flags: EventFlags) {
        if flags.intersects(EventFlags::OUT) {
            self.flush(token);
        }
        if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            return;
        }
        let Some(client) = self.clients.get(&token) else { return };
        match receive::<Numbered>(client.socket.fd.as_fd(), RecvFlags::DONTWAIT) {
            Ok(Some((Numbered { number, request }, descriptors))) => {
                self.request(Caller { client: token, number }, request, descriptors);
            }
            Err(Errno::AGAIN) => {}
            Ok(None) | Err(_) => self.drop_client(token),
        }
    }

    fn drop_client(&mut self, token: u64) {
        if let Some(client) = self.clients.remove(&token) {
            self.unwatch(client.socket);
        }
    }

    fn answer(&mut self, caller: Caller, reply: Result<Reply, Fault>, descriptors: Vec<OwnedFd>) {
        let message = Message::Reply { number: caller.number, reply };
        self.send(caller.client, &message, descriptors);
    }

    fn publish(&mut self, event: &Event) {
        let clients: Vec<u64> = self.clients.keys().copied().collect();
        for client in clients {
            self.send(client, &Message::Event(event.clone()), Vec::new());
        }
    }

    fn send(&mut self, client: u64, message: &impl Serialize, descriptors: Vec<OwnedFd>) {
        let Some(connection) = self.clients.get_mut(&client) else { return };
        match Packet::new(message, descriptors) {
            Ok(packet) => {
                connection.queue.push_back(packet);
                self.flush(client);
            }
            // An answer that cannot be sent would keep its caller waiting for ever.
            Err(_) => self.drop_client(client),
        }
    }

    fn flush(&mut self, token: u64) {
        let Some(client) = self.clients.get_mut(&token) else { return };
        while let Some(packet) = client.queue.front() {
            match packet.send(client.socket.fd.as_fd(), SendFlags::DONTWAIT) {
                Ok(()) => drop(client.queue.pop_front()),
                Err(Errno::AGAIN) => break,
                Err(_) => return self.drop_client(token),
            }
        }
        let wanted =
            if client.queue.is_empty() { EventFlags::IN } else { EventFlags::IN | EventFlags::OUT };
        client.socket.want(&self.epoll, wanted);
    }

    /// Opens a file of `/proc/PID`, of a child that has not been reaped.
    fn proc_file(&self, pid: u32, name: &str, flags: rustix::fs::OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | rustix::fs::OFlags::CLOEXEC;
        let path = format!("{pid}/{name}");
        rustix::fs::openat(&self.ready.proc, path, flags, rustix::fs::Mode::empty())
    }

    /// Appends to the record that outlives this process.
    fn record(&mut self, container: Id, id: Id, exit: crate::Exit) {
        let (code, at) = (exit.code, exit.at);
        let line = serde_json::json!({ "container": container, "id": id, "code": code, "at": at });
        if let Err(error) = self.ready.exits.write_all(format!("{line}\n").as_bytes()) {
            eprintln!("the exit of {id} could not be recorded: {error}");
        }
    }
}

impl Watched {
    /// Changes what is waited for.
    fn want(&mut self, epoll: &OwnedFd, flags: EventFlags) {
        if self.flags != flags {
            let data = EventData::new_u64(self.token);
            if epoll::modify(epoll, &self.fd, data, flags).is_ok() {
                self.flags = flags;
            }
        }
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn now() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

fn is_alive(state: State) -> bool {
    !matches!(state, State::Exited(_))
}

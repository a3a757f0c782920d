//! The warden's process: one thread that waits for many things at once.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use bulkhead_runtime::plan::Host;
use bulkhead_runtime::{Capabilities, Seccomp, seccomp};
use bulkhead_types::{Id, IdMap};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;

use crate::wire::{Fault, Reply};

mod attached;
mod backlog;
mod bound;
mod clock;
mod compartments;
mod connections;
mod end_bound;
mod lingering;
mod log;
mod order;
mod poller;
mod prepare;
mod process;
mod reap;
mod requests;
mod spawn;
mod spool;
mod streams;
mod warm_up;
mod zygote;

use compartments::Compartments;
use connections::{Caller, Connections};
use lingering::Lingering;
use poller::{Poller, Source};
use process::Process;
use spool::Spools;

/// Runs the warden: listens on `socket` and returns when a client shuts it down.
///
/// Must be called by a process that has one thread, at its start: it closes descriptors that were
/// inherited, starts a session of its own and leaves the host's mount namespace. It says that it
/// listens by closing standard output.
pub fn serve(socket: &Path) -> std::io::Result<()> {
    let ready = prepare::prepare(socket)?;
    let mut warden = Warden {
        poller: Poller::new()?,
        connections: Connections::default(),
        processes: HashMap::new(),
        timed: HashSet::new(),
        lingering: Lingering::default(),
        user_namespaces: HashMap::new(),
        compartments: Compartments::new(),
        ready,
        ending: false,
    };
    warden.poller.add(warden.ready.listener.as_fd(), Source::Listener, EventFlags::IN)?;
    prepare::announce()?;
    // before any client has said anything; without it, every container is cloned when it comes
    if let Err(errno) = warden.start_zygote() {
        eprintln!("no compartments are built ahead: {errno}");
    }
    // While nobody waits yet: the filter that nearly every container has is compiled once.
    let _ = seccomp::compile(&Seccomp::WithoutPackets, Capabilities::OWN_NETWORK);
    warden.run()?;
    // the last chance of what a full disk has kept out of the logs
    warden.lingering.flush_logs(i64::MAX);
    let ready = &warden.ready;
    ready.spools.remove();
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
    spools: Spools,
    /// Locked as long as this warden lives, so that there is one at a socket.
    _lock: OwnedFd,
    proc: OwnedFd,
    null: OwnedFd,
    host: Host,
    /// The limit of open descriptors that the warden was started with.
    descriptors: rustix::process::Rlimit,
}

struct Warden {
    poller: Poller,
    connections: Connections,
    processes: HashMap<Id, Process>,
    /// Those that may wait for a moment in time: nothing is done at each event for a thousand others.
    timed: HashSet<Id>,
    lingering: Lingering,
    user_namespaces: HashMap<IdMap, OwnedFd>,
    compartments: Compartments,
    ready: Ready,
    ending: bool,
}

impl Warden {
    fn run(&mut self) -> Result<(), Errno> {
        let mut events = Vec::with_capacity(64);
        while !self.ending || !self.connections.are_flushed() {
            let longest = self.next_deadline();
            self.poller.wait(&mut events, longest.as_ref())?;
            for event in &events {
                let token = event.data.u64();
                // gone since the kernel listed it
                let Some(source) = self.poller.source(token) else { continue };
                self.handle(token, source, event.flags);
            }
            self.end_what_was_bound();
            self.pass_deadlines();
            self.refill_compartments();
        }
        Ok(())
    }

    fn handle(&mut self, token: u64, source: Source, flags: EventFlags) {
        self.timed.extend(source.process());
        match source {
            Source::Listener => self.connections.accept(&mut self.poller, &self.ready.listener),
            Source::Client => {
                let request = self.connections.serve(&mut self.poller, token, flags);
                if let Some((caller, numbered, descriptors)) = request {
                    self.request(caller, numbered.request, descriptors);
                }
            }
            Source::Control(id) => self.receive_reports(id),
            Source::Pidfd(id) => self.reap(id),
            Source::Helper(id) => self.reap_helper(id),
            Source::Zygote => self.reap_zygote(),
            Source::Compartment(key) => self.poll_compartment(key),
            Source::Output(id, stream) => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.io.read_output(&mut self.poller, stream);
                }
                self.finish_if_drained(id);
            }
            Source::Input(id) => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.io.push_input(&mut self.poller);
                }
            }
            Source::Attached(id) => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.io.serve_attached(&mut self.poller, token, flags);
                }
            }
            Source::Lingering => self.lingering.serve(&mut self.poller, token, flags),
        }
    }

    fn answer(&mut self, caller: Caller, reply: Result<Reply, Fault>, descriptors: Vec<OwnedFd>) {
        self.connections.answer(&mut self.poller, caller, reply, descriptors);
    }
}

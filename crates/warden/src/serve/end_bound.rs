//! Ends execs that may not outlast who asked for them, on demand or with their client.

use bulkhead_types::Id;
use rustix::process::{Signal, pidfd_send_signal};

use super::bound::Scan;
use super::process::{Phase, Process};
use super::{Ready, Warden};
use crate::wire::Fault;

impl Ready {
    /// Ends an exec that is bound; how it ends is told as any end.
    pub(super) fn end(&self, process: &Process) {
        if let (Some(bound), 1..) = (&process.bound, process.pid) {
            bound.end_remains(self, process.pid, Scan::Always);
        }
        if let Some(pidfd) = &process.pidfd {
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        }
    }
}

impl Warden {
    pub(super) fn end(&mut self, id: Id) -> Result<(), Fault> {
        let process = self.processes.get(&id).ok_or(Fault::Unknown(id))?;
        if process.bound.is_none() {
            return Err(Fault::Refused(format!("exec {id} is not bound to its client")));
        }
        self.ready.end(process);
        Ok(())
    }

    /// Ends what belonged to clients that have gone.
    pub(super) fn end_what_was_bound(&mut self) {
        for client in self.connections.take_gone() {
            let own = |process: &&Process| {
                let is_over = matches!(process.phase, Phase::Exited(_));
                !is_over && process.bound.as_ref().is_some_and(|bound| bound.client == client)
            };
            self.processes.values().filter(own).for_each(|process| self.ready.end(process));
        }
    }
}

//! The end of a process: its exit code, the last of its output, and who is told.

use std::os::fd::AsFd;

use bulkhead_runtime::plan::Failure;
use bulkhead_sys::process::CLONE_NEWPID;
use bulkhead_types::Id;
use rustix::fs::{OFlags, Timespec};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::bound::Scan;
use super::clock::{monotonic, now};
use super::poller::Watched;
use super::process::{Origin, Phase, Process};
use super::{Ready, Warden};
use crate::protocol::{Event, Exit};
use crate::wire::{Fault, Reply};

/// How long the rest of a terminal's output is waited for. With all of its processes gone it hangs
/// up by itself; others may keep it open for as long as they like.
const LAST_OUTPUT_ALONE: i64 = 2_000_000_000;
const LAST_OUTPUT_BESIDE_OTHERS: i64 = 100_000_000;

/// What is recorded where nobody knows how a process ended: Docker's code for it.
const UNKNOWN: u8 = 255;

fn reap_child(pidfd: &Watched) -> u8 {
    match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
        Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => code as u8,
            (None, signal) => 128u8.saturating_add(signal.unwrap_or(0) as u8),
        },
        Ok(None) | Err(_) => UNKNOWN,
    }
}

impl Ready {
    /// How a process ended that is not this one's child: init reaps it. Until then its `stat` has
    /// the status (proc_pid_stat(5)), and from then on the kernel tells it by the pidfd.
    fn code_of_adopted(&self, pid: u32, pidfd: &Watched) -> u8 {
        let by_pidfd = || bulkhead_sys::process::reaped_status(pidfd.as_fd()).ok().flatten();
        let status = by_pidfd().or_else(|| self.status_of_zombie(pid)).or_else(by_pidfd);
        match status {
            // wait(2): the signal in the low bits, or the code above them
            Some(status) if status & 0x7f == 0 => (status >> 8) as u8,
            Some(status) => 128 + (status & 0x7f) as u8,
            None => {
                eprintln!("the exit status of process {pid}, which was adopted, cannot be had");
                UNKNOWN
            }
        }
    }

    fn status_of_zombie(&self, pid: u32) -> Option<i32> {
        let stat = self.proc_file(pid, "stat", OFlags::RDONLY).ok()?;
        let text = std::io::read_to_string(std::fs::File::from(stat)).ok()?;
        // the name may have anything in it, and is in parentheses; the state is the third field
        let mut fields = text.rsplit_once(") ")?.1.split_ascii_whitespace();
        let is_zombie = fields.next()? == "Z";
        fields.nth(48)?.parse().ok().filter(|_| is_zombie)
    }
}

impl Warden {
    /// The process's pidfd is readable: it has ended.
    pub(super) fn reap(&mut self, id: Id) {
        // its last words come first
        self.receive_reports(id);
        let Some((mut parent, process)) = self.parent_of(id) else { return };
        let Some(pidfd) = &process.pidfd else { return };
        let code = match process.origin {
            Origin::Plan(_) | Origin::Executed => {
                if let Some(bound) = &process.bound {
                    bound.end_remains(parent.ready, process.pid, Scan::IfShort);
                }
                reap_child(pidfd)
            }
            Origin::Adopted => parent.ready.code_of_adopted(process.pid, pidfd),
        };
        bulkhead_failpoint::pass("warden.reaped");
        // One that init or the helper keeps back: an ended process cannot say more. What it was is
        // still to be answered, with a pidfd.
        if let Some(control) = process.control.take() {
            parent.poller.unwatch(control);
            parent.all_is_said(process);
        }
        if let Some(pidfd) = process.pidfd.take() {
            parent.poller.unwatch(pidfd);
        }
        process.ended = Some(Exit { code, at: now() });
        process.io.drain(parent.poller);
        if process.io.is_draining() {
            let alone = process.is_container() && process.namespaces & CLONE_NEWPID != 0;
            let most = if alone { LAST_OUTPUT_ALONE } else { LAST_OUTPUT_BESIDE_OTHERS };
            process.deadline = Some(monotonic() + most);
        }
        self.finish_if_drained(id);
    }

    pub(super) fn reap_helper(&mut self, id: Id) {
        self.receive_reports(id);
        let Some((parent, process)) = self.parent_of(id) else { return };
        let Some(helper) = process.helper.take() else { return };
        let _ = waitid(WaitId::PidFd(helper.as_fd()), WaitIdOptions::EXITED);
        parent.poller.unwatch(helper);
        self.finish_unwatched(id);
    }

    /// Finishes a process that was never cloned, or could not be watched, if it is one.
    pub(super) fn finish_unwatched(&mut self, id: Id) {
        self.receive_reports(id);
        let Some(process) = self.processes.get(&id) else { return };
        let is_watched = process.pidfd.is_some() || process.helper.is_some();
        if !is_watched && process.ended.is_none() && !matches!(process.phase, Phase::Exited(_)) {
            self.finish(id, Exit { code: 255, at: now() });
        }
    }

    pub(super) fn finish_if_drained(&mut self, id: Id) {
        let Some(process) = self.processes.get(&id) else { return };
        let (Some(exit), false) = (process.ended, matches!(process.phase, Phase::Exited(_))) else {
            return;
        };
        let late = process.deadline.is_some_and(|deadline| deadline <= monotonic());
        if late || !process.io.is_draining() {
            self.finish(id, exit);
        }
    }

    /// The process has ended and its output is written: everybody is told.
    fn finish(&mut self, id: Id, exit: Exit) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let ran = process.phase == Phase::Running;
        let unmade = process.phase == Phase::Preparing && !process.answered;
        process.phase = Phase::Exited(exit);
        process.deadline = None;
        let (container, is_bound) = (process.container, process.bound.is_some());
        if !ran {
            let killed =
                || Failure { step: u16::MAX, errno: 3, detail: "it was killed".to_owned() };
            process.failure.get_or_insert_with(killed);
        }
        let failed = process.failure.as_ref().map(|failure| process.start_failure(failure));
        let (caller, forgetting) = (process.caller.take(), process.forgetting.take());
        // In this order: whoever hears of the end finds the log complete.
        self.close_streams(id);
        if let (Some(caller), Some(failure)) = (caller, failed) {
            self.answer(caller, Err(Fault::Start(failure)), Vec::new());
        }
        bulkhead_failpoint::pass("warden.finished");
        // What was never created has been told to the caller, who asked for it.
        if forgetting.is_some() || unmade {
            self.remove(id);
        }
        if ran {
            let event = Event::Exited { container, id, exit };
            self.connections.publish(&mut self.poller, &event);
            bulkhead_failpoint::pass("warden.published");
        }
        if is_bound {
            self.remove(id);
        }
        if let Some(caller) = forgetting {
            self.answer(caller, Ok(Reply::Done), Vec::new());
        }
    }

    /// The process has no output any more: clients get what is kept for them.
    pub(super) fn close_streams(&mut self, id: Id) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let remains = process.io.close(&mut self.poller);
        self.lingering.add_clients(&mut self.poller, remains.attached);
        self.lingering.add_log(id, remains.log);
        for output in remains.outputs {
            if process.is_container() || process.io.terminal {
                self.poller.unwatch(output);
            } else {
                self.lingering.add_output(&mut self.poller, output);
            }
        }
    }

    /// Knows no more of a process that has ended.
    pub(super) fn remove(&mut self, id: Id) {
        self.close_streams(id);
        let Some(Process { pidfd, control, helper, .. }) = self.processes.remove(&id) else {
            return;
        };
        for watched in pidfd.into_iter().chain(control) {
            self.poller.unwatch(watched);
        }
        // A short container can be forgotten before the end of the compartment that cloned it.
        if let Some(helper) = helper {
            self.lingering.add_helper(&mut self.poller, helper);
        }
    }

    /// How long to wait for events at most.
    ///
    /// A process that waits for a moment has got there by an event of its own or by its making, and
    /// is in `timed` since.
    pub(super) fn next_deadline(&mut self) -> Option<Timespec> {
        let mut next = [self.lingering.log_retry(), self.compartments.deadline()];
        let processes = &self.processes;
        self.timed.retain(|id| {
            let own = processes.get(id).and_then(Process::next_moment);
            next[0] = next[0].into_iter().chain(own).min();
            own.is_some()
        });
        let left = (next.into_iter().flatten().min()? - monotonic()).max(0);
        Some(Timespec { tv_sec: left / 1_000_000_000, tv_nsec: left % 1_000_000_000 })
    }

    pub(super) fn pass_deadlines(&mut self) {
        let now = monotonic();
        for id in self.timed.iter().copied().collect::<Vec<_>>() {
            let Some(process) = self.processes.get_mut(&id) else { continue };
            if process.io.log_retry().is_some_and(|at| at <= now)
                && let Some(log) = &mut process.io.log
            {
                log.flush();
            }
            if process.deadline.is_some_and(|deadline| deadline <= now) {
                self.finish_if_drained(id);
            }
        }
        self.lingering.flush_logs(now);
    }
}

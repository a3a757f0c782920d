//! `docker stats`: what a container uses.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bulkhead_types::Id;

use crate::blocking::blocking;
use crate::descriptors::has_ended;
use crate::engine::info::{HostUsage, processors};
use crate::{Engine, EngineError, LinkCount, Stats, Status, Traffic};

impl Engine {
    pub async fn stats(self: &Arc<Self>, id: Id) -> Result<Stats, EngineError> {
        let engine = Arc::clone(self);
        blocking(move |_| {
            let container = engine.containers.record(id)?.container;
            if !matches!(container.state.status, Status::Running | Status::Paused) {
                return Ok(Stats::default());
            }
            let usage = engine.cgroups.of(container.id)?.stats()?;
            let host = HostUsage::read();
            let pidfd = engine.containers.lock().entry(id)?.runtime.pidfd.clone();
            Ok(Stats {
                memory_usage: usage.memory_usage,
                memory_limit: usage.memory_limit.unwrap_or(host.memory).min(host.memory),
                memory_inactive_file: usage.memory_inactive_file,
                cpu_total: usage.cpu_total,
                cpu_system: host.cpu,
                online_cpus: u32::try_from(processors()).unwrap_or(u32::MAX),
                pids: usage.pids,
                pids_limit: usage.pids_limit.unwrap_or(0),
                block_io: usage.block_io,
                networks: network_counters(container.state.pid, pidfd.as_deref()),
                cpu_user: usage.cpu_user,
                cpu_kernel: usage.cpu_system,
                throttling: usage.throttling,
                memory_details: usage.memory_details,
                memory_peak: usage.memory_peak,
            })
        })
        .await
    }
}

/// The counters of the network namespace that a process is in, by proc(5): it has no other way to
/// them from outside. The number is the process's as long as it has not ended, which its pidfd tells
/// after they are read; the next process with that number would have other counters.
fn network_counters(pid: u32, pidfd: Option<&OwnedFd>) -> BTreeMap<String, LinkCount> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    match pidfd {
        Some(pidfd) if !has_ended(pidfd) => interfaces(&text),
        _ => BTreeMap::new(),
    }
}

/// proc_pid_net(5), `dev`, without the loopback.
fn interfaces(text: &str) -> BTreeMap<String, LinkCount> {
    text.lines()
        .filter_map(|line| {
            let (name, counters) = line.split_once(':')?;
            let values: Vec<u64> =
                counters.split_whitespace().filter_map(|value| value.parse().ok()).collect();
            let name = name.trim();
            let traffic = |at: usize| match *values.get(at..at + 4)? {
                [bytes, packets, errors, dropped] => {
                    Some(Traffic { bytes, packets, errors, dropped })
                }
                _ => None,
            };
            let count = LinkCount { received: traffic(0)?, sent: traffic(8)? };
            (name != "lo").then(|| (name.to_owned(), count))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    #[test]
    fn interface_counters_are_read() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop fifo frame \
                    compressed multicast|bytes packets\n    lo: 1 2 0 0 0 0 0 0 1 2 0 0 0 0 0 0\n  \
                    eth0: 1500 10 1 2 0 0 0 0 700 7 3 4 0 0 0 0\n";
        let received = Traffic { bytes: 1500, packets: 10, errors: 1, dropped: 2 };
        let sent = Traffic { bytes: 700, packets: 7, errors: 3, dropped: 4 };
        let wanted = LinkCount { received, sent };
        assert_eq!(interfaces(text), [("eth0".to_owned(), wanted)].into());
    }

    #[test]
    #[expect(clippy::disallowed_types, reason = "a process of the test's own, which ends")]
    fn a_number_is_not_believed_when_its_process_has_ended() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        let ended = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        child.wait().unwrap();
        let own = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).unwrap();
        let read = std::fs::read_to_string("/proc/self/net/dev").unwrap();
        let names = |counters: BTreeMap<String, _>| counters.into_keys().collect::<Vec<_>>();
        let of = |pidfd| names(network_counters(std::process::id(), Some(pidfd)));
        assert_eq!(of(&own), names(interfaces(&read)));
        assert!(of(&ended).is_empty(), "as if the number were another's now");
    }
}

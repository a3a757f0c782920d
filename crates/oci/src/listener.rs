//! The listener of `SCMP_ACT_NOTIFY`: taken from the container's process and given to the agent that
//! `linux.seccomp.listenerPath` names.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use bulkhead_sys::shared::Handover;
use bulkhead_types::oci::{self, Config, ContainerProcessState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::console;
use crate::error::{Error, Result};

/// Takes the listener that the process of `pidfd` offers in `memory`, sends it with the container's
/// state, and lets the process go on.
pub fn pass_on(
    memory: &OwnedFd,
    pidfd: &OwnedFd,
    pid: u32,
    config: &Config,
    state: oci::State,
) -> Result<()> {
    let failed = || Error::system("take the container's seccomp listener");
    let handover = Handover::open(memory.as_fd()).map_err(failed())?;
    let listener = loop {
        if let Some(listener) = handover.take(pidfd.as_fd()).map_err(failed())? {
            break listener;
        }
        // The process makes no system call that could wake us; it needs microseconds.
        let moment = Timespec { tv_sec: 0, tv_nsec: 50_000 };
        let ended = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&moment));
        if ended.is_ok_and(|count| count > 0) {
            let text = "the container's process has ended before its seccomp filter was there";
            return Err(Error::Refused(text.to_owned()));
        }
    };
    let Some(seccomp) = config.linux.as_ref().and_then(|linux| linux.seccomp.as_ref()) else {
        return Ok(());
    };
    let message = ContainerProcessState {
        oci_version: oci::VERSION.to_owned(),
        fds: vec!["seccompFd".to_owned()],
        pid,
        metadata: seccomp.listener_metadata.clone(),
        state,
    };
    let text = serde_json::to_vec(&message).map_err(|error| Error::Refused(error.to_string()))?;
    let socket = console::connect(Path::new(&seccomp.listener_path), "seccomp listener socket")?;
    console::send(&socket, &text, &[&listener], "seccomp listener socket")?;
    handover.taken();
    Ok(())
}

//! A registry that lets nobody in: pulls from it wait until the gate is dropped, and fail then.

use std::net::{Ipv4Addr, TcpListener, TcpStream};

use anyhow::{Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Daemon;

/// Holds a task in PENDING, for as long as a test needs, without a clock.
///
/// The kernel takes the connections; nobody answers them. When they are reset, the agent falls back
/// on the image of that name that the engine has, as ECS's agent does.
#[derive(Debug)]
pub struct Gate {
    listener: TcpListener,
    /// The name of a busybox image whose pull waits here.
    pub image: String,
}

impl Gate {
    pub fn close(daemon: &Daemon) -> Result<Self> {
        let listener = daemon.within(|| Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?))?;
        let image = format!("{}/busybox:latest", listener.local_addr()?);
        daemon.busybox(&image)?;
        Ok(Self { listener, image })
    }

    /// Returns when somebody pulls; the pull goes on waiting for as long as both are kept.
    pub fn wait(&self) -> Result<TcpStream> {
        let mut polled = [PollFd::new(&self.listener, PollFlags::IN)];
        let patience = Timespec { tv_sec: 60, tv_nsec: 0 };
        ensure!(poll(&mut polled, Some(&patience))? > 0, "nobody pulled {}", self.image);
        Ok(self.listener.accept()?.0)
    }
}

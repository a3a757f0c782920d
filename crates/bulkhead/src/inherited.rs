//! Sockets that a service manager has opened for the engine (sd_listen_fds(3)): `fd://`.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use bulkhead_docker_api::{Listener, Tls};
use rustix::net::AddressFamily;

use crate::failure::Failure;

/// Those that nobody listens on yet, by their number.
#[derive(Debug, Default)]
pub struct Inherited(Vec<(u32, OwnedFd)>);

impl Inherited {
    /// Takes all that this process was given.
    ///
    /// # Errors
    /// A sentence, where it was given none.
    pub fn take() -> Result<Self, Failure> {
        let variable = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
        let count = match (variable("LISTEN_PID"), variable("LISTEN_FDS")) {
            (Some(pid), Some(count)) if pid == std::process::id() && count > 0 => count,
            _ => {
                return Err(Failure::new(
                    "fd:// listens on sockets of a service manager, and there are none: have systemd \
                     start the engine by a socket unit, without --detach, or leave fd:// out",
                ));
            }
        };
        let taken = bulkhead_sys::socket::take_inherited(count);
        let taken = taken.map_err(|errno| {
            Failure::new(format!(
                "of {count} sockets of the service manager one is not open: {errno}"
            ))
        })?;
        Ok(Self((3..).zip(taken).collect()))
    }

    /// Listens on all that are left, or on the one of that number; each with what it is called.
    pub fn listeners(
        &mut self,
        number: Option<u32>,
        tls: Option<&Arc<Tls>>,
    ) -> Result<Vec<(String, Listener)>, Failure> {
        let is_meant = |(own, _): &mut (u32, OwnedFd)| number.is_none_or(|number| number == *own);
        let meant: Vec<_> = self.0.extract_if(.., is_meant).collect();
        if meant.is_empty() {
            return Err(Failure::new(
                "fd:// names a socket that the service manager has not opened",
            ));
        }
        meant.into_iter().map(|(number, socket)| listener(number, socket, tls)).collect()
    }
}

fn listener(
    number: u32,
    socket: OwnedFd,
    tls: Option<&Arc<Tls>>,
) -> Result<(String, Listener), Failure> {
    let failed =
        |cause: std::io::Error| Failure::new(format!("cannot listen on fd://{number}: {cause}"));
    let address = rustix::net::getsockname(&socket).map_err(|it| failed(it.into()))?;
    rustix::io::ioctl_fionbio(&socket, true).map_err(|it| failed(it.into()))?;
    let listener = match address.address_family() {
        AddressFamily::UNIX => {
            let listener = tokio::net::UnixListener::from_std(socket.into());
            Listener::Unix(listener.map_err(failed)?)
        }
        _ if tls.is_none() => {
            return Err(Failure::new(format!(
                "fd://{number} is a socket of the network, and whoever reaches it is as good as root on \
                 this machine: say --tlsverify with --tlscacert, --tlscert and --tlskey"
            )));
        }
        _ => {
            let listener = tokio::net::TcpListener::from_std(socket.into());
            Listener::Tcp(listener.map_err(failed)?, tls.cloned())
        }
    };
    Ok((format!("fd://{number}"), listener))
}

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bulkhead_types::Id;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, shutdown,
};

use crate::hello::{self, Hello};
use crate::protocol::{Container, Sockets};
use crate::wire::{Reply, Request, SocketCounts, receive, send};

mod launch;

pub(crate) use launch::READY;

/// A connection to the resolver.
///
/// Every method blocks until the resolver has answered, well under a millisecond; one at a time.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    connection: Mutex<OwnedFd>,
    ended_here: Arc<AtomicBool>,
}

#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    #[error("the resolver of container names is gone: {0}")]
    Gone(#[source] io::Error),
    #[error("the resolver of container names could not be started: {0}")]
    Start(#[source] io::Error),
    #[error("the resolver of container names does not take a container: {0}")]
    Refused(String),
    #[error("the resolver of container names gave an answer that was not understood: {0}")]
    Protocol(String),
}

fn gone(errno: Errno) -> ResolverError {
    ResolverError::Gone(errno.into())
}

impl Client {
    /// Connects to the resolver that listens on `socket` (SEQPACKET), if one does.
    ///
    /// One of another version is asked to end, and is `None`: what it had, its sockets too, is gone with
    /// it. `on_gone` is called from a thread of the client's when a resolver has ended without being
    /// asked to.
    pub fn connect(
        socket: &Path,
        on_gone: impl FnOnce() + Send + 'static,
    ) -> Result<Option<Self>, ResolverError> {
        let Some(connection) = connect(socket)? else { return Ok(None) };
        // a resolver that does not answer must not hold up its engine for ever
        set_socket_timeout(&connection, Timeout::Recv, Some(ANSWER)).map_err(gone)?;
        let watched = connection.try_clone().map_err(ResolverError::Gone)?;
        let ended_here = Arc::new(AtomicBool::new(false));
        let expected = Arc::clone(&ended_here);
        std::thread::Builder::new()
            .name("resolver's end".into())
            .spawn(move || {
                let mut ended = [PollFd::new(&watched, PollFlags::empty())];
                while let Ok(0) | Err(Errno::INTR) = poll(&mut ended, None) {}
                if !expected.load(Ordering::Acquire) {
                    on_gone();
                }
            })
            .map_err(ResolverError::Gone)?;
        let connection = Mutex::new(connection);
        Ok(Some(Self { path: socket.to_owned(), connection, ended_here }))
    }

    /// [`Self::connect`]; or starts `program resolver --socket …` in a session of its own, so that it
    /// outlives its starter.
    pub fn connect_or_start(
        socket: &Path,
        program: &Path,
        on_gone: impl FnOnce() + Send + Clone + 'static,
    ) -> Result<Self, ResolverError> {
        if let Some(connected) = Self::connect(socket, on_gone.clone())? {
            return Ok(connected);
        }
        // one starter at a time; who had to wait finds a resolver
        let _turn = launch::turn(socket).map_err(ResolverError::Start)?;
        if let Some(connected) = Self::connect(socket, on_gone.clone())? {
            return Ok(connected);
        }
        launch::launch(socket, program).map_err(ResolverError::Start)?;
        Self::connect(socket, on_gone)?.ok_or_else(|| gone(Errno::PIPE))
    }

    /// Takes a container, or what has changed of it, all at once. Its sockets are copied; without them
    /// it keeps those that it has.
    pub fn put(
        &self,
        container: &Container,
        sockets: Option<&Sockets>,
    ) -> Result<(), ResolverError> {
        let counts = sockets.map(SocketCounts::of);
        let descriptors = match (counts, sockets) {
            (Some(counts), Some(sockets)) => counts.borrow(sockets),
            _ => Vec::new(),
        };
        self.done(&Request::Put { container: container.clone(), sockets: counts }, descriptors)
    }

    /// Forgets a container, and closes its sockets. One that is not known is no error.
    pub fn remove(&self, id: Id) -> Result<(), ResolverError> {
        self.done(&Request::Remove(id), Vec::new())
    }

    /// Everything that the resolver knows, with copies of the sockets that it has.
    pub fn list(&self) -> Result<Vec<(Container, Option<Sockets>)>, ResolverError> {
        let mut all: Vec<(Container, Option<Sockets>)> = Vec::new();
        loop {
            let after = all.last().map(|(container, _)| container.id);
            let (reply, descriptors) = self.call(&Request::List { after }, Vec::new())?;
            let Reply::List { containers } = reply else { return Err(unexpected(&reply)) };
            if containers.is_empty() {
                return Ok(all);
            }
            let mut descriptors = descriptors.into_iter();
            for (container, counts) in containers {
                let sockets = counts.and_then(|counts| counts.take(&mut descriptors));
                all.push((container, sockets));
            }
        }
    }

    /// Ends the resolver.
    pub fn shut_down(&self) -> Result<(), ResolverError> {
        self.ended_here.store(true, Ordering::Release);
        self.done(&Request::ShutDown, Vec::new())?;
        // its root has no way to the socket, so that it cannot take it away itself
        let _ = std::fs::remove_file(&self.path);
        Ok(())
    }

    fn done(&self, request: &Request, sockets: Vec<BorrowedFd<'_>>) -> Result<(), ResolverError> {
        match self.call(request, sockets)? {
            (Reply::Done, _) => Ok(()),
            (reply, _) => Err(unexpected(&reply)),
        }
    }

    fn call(
        &self,
        request: &Request,
        sockets: Vec<BorrowedFd<'_>>,
    ) -> Result<(Reply, Vec<OwnedFd>), ResolverError> {
        let connection = self.connection();
        send(connection.as_fd(), request, sockets).map_err(gone)?;
        match receive::<Reply>(connection.as_fd(), RecvFlags::empty()) {
            Ok(Some((Reply::Refused(why), _))) => Err(ResolverError::Refused(why)),
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(gone(Errno::PIPE)),
            Err(errno) => {
                // An answer that comes later would be taken for that to another request.
                let _ = shutdown(&*connection, Shutdown::Both);
                Err(gone(errno))
            }
        }
    }

    fn connection(&self) -> MutexGuard<'_, OwnedFd> {
        // no code that holds the lock can panic half-way through a request
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.ended_here.store(true, Ordering::Release);
        // wakes the thread that watches, which holds the socket too
        let _ = shutdown(&*self.connection(), Shutdown::Both);
    }
}

/// Connects to the resolver that listens, if one does and it speaks our protocol.
fn connect(path: &Path) -> Result<Option<OwnedFd>, ResolverError> {
    let Some(socket) = open(path)? else { return Ok(None) };
    let greeted = hello::send(socket.as_fd(), Hello::Version(hello::VERSION))
        .and_then(|()| hello::receive(socket.as_fd(), RecvFlags::empty()));
    match greeted {
        Ok(Hello::Version(hello::VERSION)) => return Ok(Some(socket)),
        // just ending
        Ok(Hello::None | Hello::End) | Err(Errno::PIPE | Errno::CONNRESET) => return Ok(None),
        Ok(Hello::Version(_)) => {}
        Err(errno) => return Err(gone(errno)),
    }
    let Some(socket) = open(path)? else { return Ok(None) };
    let _ = hello::send(socket.as_fd(), Hello::End);
    // It ends with everything it has, and its lock with it.
    let mut ended = [PollFd::new(&socket, PollFlags::empty())];
    match poll(&mut ended, Some(&ENDING)) {
        Ok(0) => Err(ResolverError::Protocol("one of another version does not end".to_owned())),
        _ => Ok(None),
    }
}

fn open(path: &Path) -> Result<Option<OwnedFd>, ResolverError> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let socket =
        rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None).map_err(gone)?;
    let address = SocketAddrUnix::new(path).map_err(gone)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => Ok(Some(socket)),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
        Err(errno) => Err(gone(errno)),
    }
}

fn unexpected(reply: &Reply) -> ResolverError {
    ResolverError::Protocol(format!("{reply:?}"))
}

/// How long an answer takes at the very most, on a machine that is busy.
const ANSWER: Duration = Duration::from_secs(10);

/// How long a resolver takes to end, at the very most.
const ENDING: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

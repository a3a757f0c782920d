use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use rustix::fs::Mode;
use rustix::net;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use crate::carry::carry;
use crate::request_line::{self, Opened};
use crate::tls::Tls;

/// How long a client may take to send a request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long requests under way may go on once `stop` says so.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Where clients come from.
#[derive(Debug)]
pub enum Listener {
    Unix(UnixListener),
    /// Without TLS for whoever reaches it.
    Tcp(TcpListener, Option<Arc<Tls>>),
}

impl Listener {
    /// The next client. What a network brings is carried to a socket of this process: a connection that is
    /// taken over for a stream is a Unix socket in any case.
    async fn accept(&self) -> io::Result<UnixStream> {
        match self {
            Self::Unix(listener) => Ok(listener.accept().await?.0),
            Self::Tcp(listener, tls) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                // a client whose machine has gone never says so (tcp(7)), and streams last for days
                net::sockopt::set_socket_keepalive(&stream, true)?;
                let (ours, theirs) = UnixStream::pair()?;
                match tls.clone() {
                    None => drop(tokio::spawn(carry(stream, theirs))),
                    Some(tls) => drop(tokio::spawn(shake_hands(tls, stream, theirs))),
                }
                Ok(ours)
            }
        }
    }
}

async fn shake_hands(tls: Arc<Tls>, stream: TcpStream, theirs: UnixStream) {
    match tokio::time::timeout(HEADER_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => carry(stream, theirs).await,
        Ok(Err(error)) => tracing::info!("API connection, TLS: {error}"),
        Err(_) => tracing::debug!("API connection, TLS: nothing was said"),
    }
}

/// Serves `router` on `listener` until `stop` becomes true or its sender is gone, to at most
/// `connections` clients at once if that is said; the next one waits in the kernel.
///
/// The loop is our own because hijacked streams need what `axum::serve` does not set: a client that
/// shuts its sending side down after the request (the docker CLI does when stdin is not attached)
/// keeps its connection.
pub async fn serve(
    listener: Listener,
    router: axum::Router,
    mut stop: watch::Receiver<bool>,
    connections: Option<usize>,
) -> io::Result<()> {
    let free = Arc::new(Semaphore::new(connections.unwrap_or(Semaphore::MAX_PERMITS)));
    let mut server = auto::Builder::new(TokioExecutor::new());
    // Names as Docker writes them: not every client reads HTTP with care.
    server
        .http1()
        .title_case_headers(true)
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
    let graceful = GracefulShutdown::new();
    let ended = Arc::new(Notify::new());
    let giving_back = tokio::spawn(give_back_memory(Arc::clone(&ended)));
    // Also when the sender is gone: whoever could have stopped the server has ended.
    let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
    tokio::pin!(stopped);
    loop {
        let accept = async {
            let permit = Arc::clone(&free).acquire_owned().await;
            (permit.expect("nobody closes the semaphore"), listener.accept().await)
        };
        let (permit, stream) = tokio::select! {
            (permit, accepted) = accept => match accepted {
                Ok(stream) => (permit, stream),
                Err(error) => {
                    // Out of descriptors or a client that left already: neither ends the server.
                    tracing::warn!("accept on the API socket: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = &mut stopped => break,
        };
        spawn_connection(&server, &graceful, stream, router.clone(), (permit, Arc::clone(&ended)));
    }
    drop(listener);
    giving_back.abort();
    // Streams that never end (`docker events`, `logs -f`) are cut after the time is over.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await;
    Ok(())
}

fn spawn_connection(
    server: &auto::Builder<TokioExecutor>,
    graceful: &GracefulShutdown,
    stream: UnixStream,
    router: axum::Router,
    (permit, ended): (OwnedSemaphorePermit, Arc<Notify>),
) {
    let (server, watcher) = (server.clone(), graceful.watcher());
    tokio::spawn(async move {
        match tokio::time::timeout(HEADER_TIMEOUT, request_line::open(stream)).await {
            Ok(Ok(Opened::AsItIs(stream))) => serve_one(&server, watcher, stream, router).await,
            Ok(Ok(Opened::Mended(stream))) => serve_one(&server, watcher, stream, router).await,
            Ok(Err(error)) => tracing::debug!("API connection: {error}"),
            Err(_) => tracing::debug!("API connection: nothing was asked for"),
        }
        drop(permit);
        ended.notify_one();
    });
}

async fn serve_one(
    server: &auto::Builder<TokioExecutor>,
    watcher: Watcher,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: axum::Router,
) {
    let service = TowerToHyperService::new(router);
    let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection.into_owned()).await {
        tracing::debug!("API connection: {error}");
    }
}

/// Hundreds of clients that do not read what they asked for make buffers of hundreds of megabytes, which
/// the allocator keeps when they have gone. In the first quiet moment after it, the kernel gets them back.
async fn give_back_memory(ended: Arc<Notify>) {
    loop {
        ended.notified().await;
        while tokio::time::timeout(QUIET, ended.notified()).await.is_ok() {}
        let _ = tokio::task::spawn_blocking(bulkhead_sys::memory::give_back).await;
    }
}

/// No connection has ended for this long.
const QUIET: Duration = Duration::from_secs(5);

/// Binds the socket at `path` for its owner and one group: never more than mode 0660.
///
/// The group is `group`, or else `docker` or `bulkhead` if /etc/group has one of them. What a
/// server that was killed left at `path` is replaced; anything but a socket there is an error, and so is
/// one on which somebody listens.
pub fn listen(path: &Path, group: Option<&str>) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            let message = "another program listens there: name another path";
            return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
        }
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(metadata) => {
            let message = format!(
                "{} is in the way of the API socket (mode {:o}); remove it",
                path.display(),
                metadata.mode()
            );
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = net::socket_with(
        net::AddressFamily::UNIX,
        net::SocketType::STREAM,
        net::SocketFlags::CLOEXEC | net::SocketFlags::NONBLOCK,
        None,
    )?;
    // bind(2) gives the file the socket's own mode less the umask (Linux: net/unix/af_unix.c,
    // unix_bind_bsd), so it is closed to others from the start, whatever the umask is. Nobody can
    // connect before listen(2), by when it has its group.
    let mode = Mode::from_raw_mode(0o660);
    rustix::fs::fchmod(&socket, mode)?;
    net::bind(&socket, &net::SocketAddrUnix::new(path)?)?;
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let wanted = group.map_or(vec!["docker", "bulkhead"], |group| vec![group]);
    match wanted.iter().find_map(|name| group_id(&groups, name)) {
        Some(id) => std::os::unix::fs::chown(path, None, Some(id))?,
        None if group.is_some() => {
            let message = format!("group {:?} is not in /etc/group", wanted[0]);
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        None => {}
    }
    rustix::fs::chmod(path, mode)?;
    net::listen(&socket, BACKLOG)?;
    UnixListener::from_std(socket.into())
}

/// Connections that may wait to be accepted; net.core.somaxconn bounds it too.
const BACKLOG: i32 = 128;

/// Finds a group in the text of group(5).
fn group_id(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_their_name() {
        let groups = "root:x:0:\ndocker2:x:9:\ndocker:x:998:ann,bob\n";
        assert_eq!(group_id(groups, "docker"), Some(998));
        assert_eq!(group_id(groups, "root"), Some(0));
        assert_eq!(group_id(groups, "bulkhead"), None);
    }
}

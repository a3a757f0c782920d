//! Sessions: connections on which the client serves its files and credentials, and the engine asks.

use std::collections::BTreeMap;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bollard_buildkit_proto::moby::filesync::v1::CredentialsRequest;
use bollard_buildkit_proto::moby::filesync::v1::auth_client::AuthClient;
use bulkhead_build_service::AskCredentials;
use bulkhead_image::Credentials;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{oneshot, watch};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

use crate::SessionOffer;

/// A client's session: what it serves, and the way there.
#[derive(Debug)]
pub(crate) struct Session {
    offer: SessionOffer,
    pub(crate) channel: Channel,
}

impl Session {
    /// Fails where the client does not serve a method, such as `/moby.filesync.v1.Auth/Credentials`.
    pub(crate) fn expect(&self, method: &str, what: &str) -> Result<(), Status> {
        match self.offer.methods.contains(method) {
            true => Ok(()),
            false => Err(Status::failed_precondition(format!(
                "the client offers no {what}, which this build needs ({method})"
            ))),
        }
    }
}

impl AskCredentials for Session {
    fn ask<'a>(
        &'a self,
        registry: &'a str,
    ) -> Pin<Box<dyn Future<Output = Option<Credentials>> + Send + 'a>> {
        Box::pin(async move {
            self.expect("/moby.filesync.v1.Auth/Credentials", "credentials").ok()?;
            let host = match registry {
                // by which name the clients' files know it
                "docker.io" => "registry-1.docker.io",
                other => other,
            };
            let request = CredentialsRequest { host: host.to_owned() };
            let answer = AuthClient::new(self.channel.clone()).credentials(request).await;
            let known = match answer {
                Ok(answer) => answer.into_inner(),
                Err(error) => {
                    tracing::debug!("no credentials for {registry}: {error}");
                    return None;
                }
            };
            if known.secret.is_empty() {
                return None;
            }
            // A token of an identity has no user (moby: session/auth/authprovider).
            let credentials = match known.username.is_empty() {
                true => Credentials { identitytoken: known.secret, ..Credentials::default() },
                false => Credentials {
                    username: known.username,
                    password: known.secret,
                    ..Credentials::default()
                },
            };
            Some(credentials)
        })
    }
}

/// The sessions that are open, by their ids.
#[derive(Debug, Default)]
pub(crate) struct Sessions(watch::Sender<BTreeMap<String, Arc<Session>>>);

/// How long a session is waited for that a request names: its connection may come after.
const PATIENCE: Duration = Duration::from_secs(5);

impl Sessions {
    /// The session of this id.
    pub(crate) async fn find(&self, id: &str) -> Result<Arc<Session>, Status> {
        let mut known = self.0.subscribe();
        let found = pin!(known.wait_for(|known| known.contains_key(id)));
        let found = tokio::time::timeout(PATIENCE, found).await;
        let session = found.ok().and_then(Result::ok).and_then(|known| known.get(id).cloned());
        session.ok_or_else(|| {
            Status::not_found(format!("no active session for {id}: its client left"))
        })
    }

    pub(crate) async fn attach<C>(&self, offer: SessionOffer, connection: C)
    where
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (alive, ended) = oneshot::channel();
        let connection = Mutex::new(Some(Watched { connection, _alive: alive }));
        let connector = tower::service_fn(move |_: Uri| {
            let taken = connection.lock().ok().and_then(|mut connection| connection.take());
            std::future::ready(match taken {
                Some(connection) => Ok(TokioIo::new(connection)),
                None => Err(io::Error::from(io::ErrorKind::NotConnected)),
            })
        });
        // The address is none: there is one connection, and it is here.
        let endpoint = Endpoint::from_static("http://session");
        let channel = match endpoint.connect_with_connector(connector).await {
            Ok(channel) => channel,
            Err(error) => return tracing::debug!("a session that did not begin: {error}"),
        };
        let id = offer.id.clone();
        let session = Arc::new(Session { offer, channel });
        self.0.send_modify(|known| {
            known.insert(id.clone(), Arc::clone(&session));
        });
        let _ = ended.await;
        self.0.send_modify(|known| {
            if known.get(&id).is_some_and(|now| Arc::ptr_eq(now, &session)) {
                known.remove(&id);
            }
        });
    }
}

/// Tells when its connection is dropped, which is when the client has left.
struct Watched<C> {
    connection: C,
    _alive: oneshot::Sender<()>,
}

impl<C: AsyncRead + Unpin> AsyncRead for Watched<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(context, into)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Watched<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

/// A connection as tonic's server wants it.
pub(crate) struct Peer<C>(pub(crate) C);

impl<C> Connected for Peer<C> {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl<C: AsyncRead + Unpin> AsyncRead for Peer<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Peer<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// What a client's own refusal says, with what it was asked for.
pub(crate) fn refused(what: &str, status: &Status) -> Status {
    match status.code() {
        Code::Cancelled => Status::cancelled(format!("{what}: the client left")),
        code => Status::new(code, format!("{what}: {}", status.message())),
    }
}

//! One request over HTTP or HTTPS.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;

use crate::connection::{Connection, Endpoint, Host, Tls, timed_out};
use crate::options::OptionError;

/// `http://HOST` or `https://HOST`, without a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    endpoint: Endpoint,
    /// As the header `Host` says it.
    pub(crate) authority: String,
}

/// Bytes of an answer that are read.
const MOST: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

impl Origin {
    pub(crate) fn parse(text: &str) -> Result<Self, OptionError> {
        let invalid =
            || OptionError::Invalid(format!("{text:?} is no address such as https://HOST:PORT"));
        let (scheme, rest) = text.split_once("://").ok_or_else(invalid)?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let endpoint = match scheme {
            "http" => Endpoint::Tcp(Host::parse(authority, 80)?),
            "https" => Endpoint::Tls(Host::parse(authority, 443)?, Tls::default()),
            _ => return Err(invalid()),
        };
        Ok(Self { endpoint, authority: authority.to_owned() })
    }

    /// Sends a request on a connection of its own and reads the answer's body.
    pub(crate) async fn ask(
        &self,
        request: Request<Full<Bytes>>,
    ) -> io::Result<(StatusCode, Bytes)> {
        let exchange = async {
            let connection = Connection::open(&self.endpoint).await?;
            let answer = match connection {
                Connection::Tcp(stream) => exchange(stream, request).await?,
                Connection::Tls(stream) => exchange(*stream, request).await?,
                Connection::Unix(stream) => exchange(stream, request).await?,
            };
            Ok(answer)
        };
        tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(timed_out()))
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> io::Result<(StatusCode, Bytes)>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MOST).collect().await.map_err(io::Error::other)?;
    connection.abort();
    Ok((status, body.to_bytes()))
}

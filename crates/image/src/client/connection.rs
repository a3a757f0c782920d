use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::origin::{Origin, is_internal};

pub(super) type Body = BoxBody<Bytes, io::Error>;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Makes connections, one for each request: registries answer most of them from elsewhere.
#[derive(Debug)]
pub(crate) struct Connections {
    insecure: Vec<String>,
    strict: OnceLock<Result<Arc<ClientConfig>, String>>,
    lenient: OnceLock<Arc<ClientConfig>>,
    /// Insecure registries that turned out to speak no TLS.
    plain: Mutex<HashMap<String, bool>>,
}

impl Connections {
    pub(super) fn new(insecure: Vec<String>) -> Self {
        Self {
            insecure,
            strict: OnceLock::new(),
            lenient: OnceLock::new(),
            plain: Mutex::default(),
        }
    }

    /// Whether the certificate of this host is not checked, and plain HTTP will do: Docker's rule
    /// of 127.0.0.0/8, ::1, localhost and `insecure-registries`.
    pub(super) fn is_insecure(&self, origin: &Origin) -> bool {
        origin.is_loopback()
            || self.insecure.iter().any(|name| *name == origin.authority() || *name == origin.host)
    }

    /// Sends a request and waits for the head of the answer. `Err` is about the connection.
    pub(super) async fn send(
        &self,
        origin: &Origin,
        request: Request<Body>,
    ) -> io::Result<Response<Incoming>> {
        self.exchange(origin, request, self.connect(origin)).await
    }

    /// As [`Self::send`], to a server that is no registry: TLS with a certificate that is checked,
    /// or plain HTTP, as the address has it.
    pub(super) async fn send_as_written(
        &self,
        origin: &Origin,
        request: Request<Body>,
    ) -> io::Result<Response<Incoming>> {
        let connect = async {
            let stream: Box<dyn Stream> = if origin.tls {
                Box::new(tls(origin, self.strict()?).await?)
            } else {
                Box::new(tcp(origin).await?)
            };
            Ok(stream)
        };
        self.exchange(origin, request, connect).await
    }

    async fn exchange(
        &self,
        origin: &Origin,
        mut request: Request<Body>,
        connect: impl Future<Output = io::Result<Box<dyn Stream>>>,
    ) -> io::Result<Response<Incoming>> {
        let authority = origin.authority();
        request.headers_mut().insert(
            http::header::HOST,
            authority.parse().map_err(|_| invalid(format!("{authority:?} is no host name")))?,
        );
        request
            .headers_mut()
            .insert(http::header::USER_AGENT, http::HeaderValue::from_static(USER_AGENT));
        let connect = tokio::time::timeout(CONNECT_TIMEOUT, connect);
        let stream = connect.await.map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, "no connection within 15 seconds")
        })??;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(other)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("connection to a registry: {error}");
            }
        });
        sender.send_request(request).await.map_err(other)
    }

    /// Whether every address of a host is of an inside network.
    pub(super) async fn is_internal(&self, origin: &Origin) -> io::Result<bool> {
        let addresses: Vec<SocketAddr> = resolve(origin).await?;
        Ok(addresses.iter().any(|address| is_internal(address.ip())))
    }

    async fn connect(&self, origin: &Origin) -> io::Result<Box<dyn Stream>> {
        if !origin.tls {
            if !self.is_insecure(origin) {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "plain HTTP is allowed for loopback addresses and insecure-registries only",
                ));
            }
            return Ok(Box::new(tcp(origin).await?));
        }
        if !self.is_insecure(origin) {
            return Ok(Box::new(tls(origin, self.strict()?).await?));
        }
        let authority = origin.authority();
        let plain = |connections: &Self| {
            let plain = connections.plain.lock().unwrap_or_else(PoisonError::into_inner);
            plain.get(&authority).copied().unwrap_or(false)
        };
        if !plain(self) {
            match tls(origin, self.lenient()).await {
                Ok(stream) => return Ok(Box::new(stream)),
                // It is there, but what it answers is not TLS.
                Err(error) if is_no_tls(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let stream = tcp(origin).await?;
        let mut known = self.plain.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(authority, true);
        Ok(Box::new(stream))
    }

    fn strict(&self) -> io::Result<Arc<ClientConfig>> {
        let built = self.strict.get_or_init(|| {
            let mut roots = rustls::RootCertStore::empty();
            let found = rustls_native_certs::load_native_certs();
            let (added, _) = roots.add_parsable_certificates(found.certs);
            if added == 0 {
                return Err("this machine has no CA certificates to check the registry's with; \
                     install the package ca-certificates"
                    .to_owned());
            }
            let config = builder().with_root_certificates(roots).with_no_client_auth();
            Ok(Arc::new(config))
        });
        built.clone().map_err(io::Error::other)
    }

    fn lenient(&self) -> Arc<ClientConfig> {
        Arc::clone(self.lenient.get_or_init(|| {
            let config = builder()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate))
                .with_no_client_auth();
            Arc::new(config)
        }))
    }
}

const USER_AGENT: &str = concat!("bulkhead/", env!("CARGO_PKG_VERSION"));

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the cipher suites of TLS 1.2 and 1.3")
}

async fn resolve(origin: &Origin) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((origin.host.as_str(), origin.port)).await?.collect())
}

async fn tcp(origin: &Origin) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((origin.host.as_str(), origin.port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn tls(
    origin: &Origin,
    config: Arc<ClientConfig>,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = ServerName::try_from(origin.host.clone())
        .map_err(|_| invalid(format!("{:?} is no host name", origin.host)))?;
    TlsConnector::from(config).connect(name, tcp(origin).await?).await
}

/// A server without TLS answers our hello with text, or hangs up.
fn is_no_tls(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof
        || error.kind() == io::ErrorKind::ConnectionReset
        || error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            .is_some_and(|error| matches!(error, rustls::Error::InvalidMessage(_)))
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// hyper keeps the interesting part of an error in its source.
fn other(error: hyper::Error) -> io::Error {
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    io::Error::other(cause.unwrap_or_else(|| error.to_string()))
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// For registries that the administrator has named as insecure, and for loopback.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

//! A stream to a receiver of logs: TCP, TLS, or a Unix socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bulkhead_sys::socket::unread_by_peer;
use rustls::ClientConfig;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::options::OptionError;

/// Where a stream leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Tcp(Host),
    Tls(Host, Tls),
    Unix(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) port: u16,
}

/// How a receiver is recognised; the files are read when it is connected to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    pub(crate) ca: Option<PathBuf>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) check: Check,
}

/// Whether a receiver's certificate is checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Check {
    #[default]
    Certificate,
    Nothing,
}

impl Host {
    /// Reads `HOST`, `HOST:PORT`, `[ADDRESS]:PORT`; without a port it has the default.
    pub(crate) fn parse(text: &str, default: u16) -> Result<Self, OptionError> {
        let invalid = || OptionError::Invalid(format!("invalid address {text:?} of a log driver"));
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (name, port) = rest.split_once(']').ok_or_else(invalid)?;
                (name, port.strip_prefix(':'))
            }
            None => match text.rsplit_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (text, None),
            },
        };
        if name.is_empty() || name.contains(['/', '?', '#', '@']) {
            return Err(invalid());
        }
        let port = match port {
            Some(port) => port.parse().map_err(|_| invalid())?,
            None => default,
        };
        Ok(Self { name: name.to_owned(), port })
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}

/// Reads the path of a `unix://` address.
pub(crate) fn unix_path(path: &str) -> Result<PathBuf, OptionError> {
    if !path.starts_with('/') {
        return Err(OptionError::Invalid(format!(
            "the address of a Unix socket has an absolute path (unix:///dev/log), not {path:?}"
        )));
    }
    Ok(PathBuf::from(path))
}

#[derive(Debug)]
pub(crate) enum Connection {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// How long a connection, and then the taking of what was sent, may last.
const PATIENCE: Duration = Duration::from_secs(10);

impl Connection {
    pub(crate) async fn open(endpoint: &Endpoint) -> io::Result<Self> {
        let connect = async {
            match endpoint {
                Endpoint::Tcp(host) => Ok(Self::Tcp(tcp(host).await?)),
                Endpoint::Tls(host, tls) => {
                    let name = ServerName::try_from(host.name.clone())
                        .map_err(|_| io::Error::other(format!("{} is no host name", host.name)))?;
                    let connector = TlsConnector::from(Arc::new(tls.config()?));
                    let stream = connector.connect(name, tcp(host).await?).await?;
                    Ok(Self::Tls(Box::new(stream)))
                }
                Endpoint::Unix(path) => Ok(Self::Unix(UnixStream::connect(path).await?)),
            }
        };
        tokio::time::timeout(PATIENCE, connect).await.unwrap_or_else(|_| Err(timed_out()))
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let write = async {
            match self {
                Self::Tcp(stream) => stream.write_all(bytes).await,
                Self::Tls(stream) => {
                    stream.write_all(bytes).await?;
                    stream.flush().await
                }
                Self::Unix(stream) => stream.write_all(bytes).await,
            }
        };
        tokio::time::timeout(PATIENCE, write).await.unwrap_or_else(|_| Err(timed_out()))
    }

    pub(crate) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = async {
            match self {
                Self::Tcp(stream) => stream.read(buffer).await,
                Self::Tls(stream) => stream.read(buffer).await,
                Self::Unix(stream) => stream.read(buffer).await,
            }
        };
        tokio::time::timeout(PATIENCE, read).await.unwrap_or_else(|_| Err(timed_out()))
    }

    /// An error if the receiver has gone: what is written to it then seems to be taken. What it says,
    /// unasked, is passed over.
    pub(crate) async fn check(&mut self) -> io::Result<()> {
        let mut space = [0; 256];
        loop {
            let mut buffer = ReadBuf::new(&mut space);
            let polled = std::future::poll_fn(|context| {
                Poll::Ready(match self {
                    Self::Tcp(stream) => Pin::new(stream).poll_read(context, &mut buffer),
                    Self::Tls(stream) => Pin::new(stream).poll_read(context, &mut buffer),
                    Self::Unix(stream) => Pin::new(stream).poll_read(context, &mut buffer),
                })
            })
            .await;
            match polled {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    return Err(io::Error::new(
                        io::ErrorKind::ConnectionReset,
                        "the receiver has closed the connection",
                    ));
                }
                Poll::Ready(Ok(())) => {}
            }
        }
    }

    /// Waits until the receiver's host has all that was written (a Unix socket's reader has read it),
    /// which is as much as protocols without an answer let one know.
    pub(crate) async fn delivered(&mut self) -> io::Result<()> {
        let begun = tokio::time::Instant::now();
        let mut pause = Duration::from_millis(1);
        while unread_by_peer(self.descriptor())? > 0 {
            self.check().await?;
            if begun.elapsed() > PATIENCE {
                return Err(timed_out());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        self.check().await
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Tls(stream) => stream.get_ref().0.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

pub(crate) fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the receiver does not answer")
}

async fn tcp(host: &Host) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host.name.as_str(), host.port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Tls {
    fn config(&self) -> io::Result<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let builder = match self.check {
            Check::Nothing => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verify::AnyCertificate(provider))),
            Check::Certificate => {
                let mut roots = rustls::RootCertStore::empty();
                let own = self.ca.as_deref().map(certificates).transpose()?;
                match &own {
                    Some(own) => own
                        .iter()
                        .try_for_each(|certificate| roots.add(certificate.clone()))
                        .map_err(io::Error::other)?,
                    None => {
                        roots.add_parsable_certificates(
                            rustls_native_certs::load_native_certs().certs,
                        );
                    }
                }
                let known =
                    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
                let verifier = verify::Known {
                    known: known.map_err(io::Error::other)?,
                    named: own.unwrap_or_default(),
                };
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
        };
        match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                let private = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| io::Error::other(format!("{}: {error}", key.display())))?;
                builder
                    .with_client_auth_cert(certificates(certificate)?, private)
                    .map_err(io::Error::other)
            }
            _ => Ok(builder.with_no_client_auth()),
        }
    }
}

fn certificates(path: &std::path::Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let failed = |error| io::Error::other(format!("{}: {error}", path.display()));
    CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

mod verify {
    use std::sync::Arc;

    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

    /// Takes what a known authority has signed, and the very certificates that were named as such: who signs
    /// for himself is his own authority, which Docker's users know from Go.
    #[derive(Debug)]
    pub(super) struct Known {
        pub(super) known: Arc<WebPkiServerVerifier>,
        pub(super) named: Vec<CertificateDer<'static>>,
    }

    impl ServerCertVerifier for Known {
        fn verify_server_cert(
            &self,
            certificate: &CertificateDer<'_>,
            between: &[CertificateDer<'_>],
            name: &ServerName<'_>,
            ocsp: &[u8],
            now: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            match self.known.verify_server_cert(certificate, between, name, ocsp, now) {
                // The former is how webpki says that an authority answers for itself.
                Err(Error::InvalidCertificate(
                    CertificateError::Other(_) | CertificateError::UnknownIssuer,
                )) if self.named.iter().any(|named| named == certificate) => {
                    Ok(ServerCertVerified::assertion())
                }
                other => other,
            }
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.known.verify_tls12_signature(message, certificate, signature)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.known.verify_tls13_signature(message, certificate, signature)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.known.supported_verify_schemes()
        }
    }

    /// Takes any certificate, for whoever has asked for that by name.
    #[derive(Debug)]
    pub(super) struct AnyCertificate(pub(super) Arc<CryptoProvider>);

    impl ServerCertVerifier for AnyCertificate {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let known = &self.0.signature_verification_algorithms;
            verify_tls12_signature(message, certificate, signature, known)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let known = &self.0.signature_verification_algorithms;
            verify_tls13_signature(message, certificate, signature, known)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}

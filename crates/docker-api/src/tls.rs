//! TLS of the API: the engine's certificate, and who has to have signed those of its clients.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Files in PEM, by dockerd's names for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Who has to have signed a client's certificate; `None` lets everybody in.
    pub ca: Option<PathBuf>,
}

/// What a file of TLS lacks, in one sentence.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {} for TLS: {why}", file.display())]
pub struct TlsError {
    file: PathBuf,
    why: String,
}

/// The TLS of a server, which can be replaced while it serves: connections that are open stay as they are.
pub struct Tls(RwLock<Arc<ServerConfig>>);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// # Errors
    /// A file that cannot be read or is not what it should be.
    pub fn new(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(Arc::new(server(files)?))))
    }

    /// Reads the files again; where one is wrong, everything stays.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn reload(&self, files: &TlsFiles) -> Result<(), TlsError> {
        let new = Arc::new(server(files)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        TlsAcceptor::from(config).accept(stream).await
    }
}

fn server(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring has the cipher suites of TLS 1.2 and 1.3");
    let builder = match &files.ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(ca)? {
                roots.add(certificate).map_err(|cause| unusable(ca, &cause))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|cause| unusable(ca, &cause))?)
        }
    };
    let key = PrivateKeyDer::from_pem_file(&files.key);
    let key = key.map_err(|cause| unusable(&files.key, &cause))?;
    let mut server = builder
        .with_single_cert(certificates(&files.certificate)?, key)
        .map_err(|cause| unusable(&files.certificate, &cause))?;
    // attached streams take over connections of HTTP/1.1, and of nothing else
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(server)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(file).map_err(|cause| unusable(file, &cause))?;
    let found: Vec<_> = read.collect::<Result<_, _>>().map_err(|cause| unusable(file, &cause))?;
    match found.is_empty() {
        true => Err(unusable(file, &"it has no certificate in PEM")),
        false => Ok(found),
    }
}

fn unusable(file: &Path, why: &dyn std::fmt::Display) -> TlsError {
    TlsError { file: file.to_owned(), why: why.to_string() }
}

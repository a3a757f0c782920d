//! TLS to an engine: its certificate is checked by a CA that the user names, and this program shows one of
//! its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::failure::Failure;

/// Files in PEM, under Docker's names: `ca.pem`, `cert.pem`, `key.pem`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// Who has to have signed the engine's certificate.
    pub ca: PathBuf,
    /// What this program shows of itself, with its key.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// Makes connections that are checked.
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    pub fn new(keys: &Keys) -> Result<Self, Failure> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&keys.ca)? {
            roots.add(certificate).map_err(|cause| unreadable(&keys.ca, &cause))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has the cipher suites of TLS 1.2 and 1.3")
            .with_root_certificates(roots);
        let config = match &keys.own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let own = PrivateKeyDer::from_pem_file(key).map_err(|it| unreadable(key, &it))?;
                builder
                    .with_client_auth_cert(certificates(certificate)?, own)
                    .map_err(|cause| unreadable(certificate, &cause))?
            }
        };
        Ok(Self(Arc::new(config)))
    }

    /// Connects to `address`, `HOST:PORT`, whose certificate has to be of that host.
    pub async fn connect(&self, address: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(std::io::Error::other)?;
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        TlsConnector::from(Arc::clone(&self.0)).connect(name, stream).await
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let read = CertificateDer::pem_file_iter(file).map_err(|cause| unreadable(file, &cause))?;
    let found: Vec<_> = read.collect::<Result<_, _>>().map_err(|cause| unreadable(file, &cause))?;
    match found.is_empty() {
        true => Err(Failure::new(format!("{} has no certificate in PEM", file.display()))),
        false => Ok(found),
    }
}

fn unreadable(file: &Path, cause: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("cannot use {} for TLS: {cause}", file.display()))
}

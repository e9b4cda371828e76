//! [`Tls`]: TLS 1.3 with a certificate from files, which are read again when they change.
//!
//! A renewed certificate is offered to new connections within half a minute, without a restart. A pair that cannot be read, or
//! whose key is another one's, leaves the last good one in place, and is said in the log.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::RwLock;
pub use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Protocols that are offered, the preferred one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// A certificate with its key, and how connections are taken with them.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    /// When the files were written that are in use.
    written: RwLock<(SystemTime, SystemTime)>,
    current: Arc<Current>,
    acceptor: TlsAcceptor,
}

/// What is offered to connections that begin now.
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read()))
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Current")
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Tls").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads a chain of certificates, the server's first, and its key: PEM files.
    ///
    /// # Errors
    /// A file that cannot be read or does not parse, or a key of another certificate: named with the file.
    pub fn from_files(certificate: &Path, key: &Path) -> io::Result<Self> {
        let written = (written(certificate)?, written(key)?);
        let current = Arc::new(Current(RwLock::new(Arc::new(read(certificate, key)?))));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| io::Error::other(error.to_string()))?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(current.clone());
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            written: RwLock::new(written),
            current,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }

    pub(crate) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Takes connections on which something else than HTTP is spoken, with the same certificate, also after it was renewed.
    /// `protocol` is the name that clients may ask for (ALPN).
    pub fn acceptor_of(&self, protocol: &[u8]) -> TlsAcceptor {
        let mut config = ServerConfig::clone(self.acceptor.config());
        config.alpn_protocols = vec![protocol.to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// Looks at the files again and again.
    pub(crate) async fn keep_current(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let tls = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || tls.read_again()).await;
            match looked {
                Ok(Ok(false)) => {}
                Ok(Ok(true)) => tracing::info!(certificate = %self.certificate.display(), "the certificate is renewed"),
                Ok(Err(error)) => tracing::error!(%error, "the new certificate cannot be used; the last one stays"),
                Err(error) => tracing::error!(%error, "the files of the certificate could not be looked at"),
            }
        }
    }

    /// Takes the files when they changed; whether they did.
    ///
    /// # Errors
    /// They are gone, or changed and cannot be used, which is not tried again until they change once more.
    pub fn read_again(&self) -> io::Result<bool> {
        let now = (written(&self.certificate)?, written(&self.key)?);
        if std::mem::replace(&mut *self.written.write(), now) == now {
            return Ok(false);
        }
        *self.current.0.write() = Arc::new(read(&self.certificate, &self.key)?);
        Ok(true)
    }
}

fn written(path: &Path) -> io::Result<SystemTime> {
    let read = std::fs::metadata(path).and_then(|file| file.modified());
    read.map_err(|error| named(path, error))
}

fn read(certificate: &Path, key: &Path) -> io::Result<CertifiedKey> {
    let chain = CertificateDer::pem_file_iter(certificate).and_then(|chain| chain.collect::<Result<Vec<_>, _>>());
    let chain = chain.map_err(|error| named(certificate, error))?;
    if chain.is_empty() {
        return Err(named(certificate, "no certificate is in it"));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| named(key, error))?;
    let provider = aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, secret, &provider).map_err(|error| named(key, error))
}

fn named(path: &Path, error: impl fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("`{}`: {error}", path.display()))
}

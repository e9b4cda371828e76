//! TLS 1.3 by files, on a real socket.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use karat_http::{ServeSettings, Tls, harden, serve};
use poem::{Request, endpoint};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
        version::{TLS12, TLS13},
    },
};

const DEADLINE: Duration = Duration::from_secs(20);

/// A certificate for `localhost` in a folder of its own.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        files.renew();
        files
    }

    fn certificate(&self) -> PathBuf {
        self.folder.path().join("chain.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// Another certificate and key in the place of these.
    fn renew(&self) {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(self.certificate(), cert.pem()).unwrap();
        std::fs::write(self.key(), signing_key.serialize_pem()).unwrap();
    }

    fn tls(&self) -> std::io::Result<Tls> {
        Tls::from_files(&self.certificate(), &self.key())
    }
}

/// Answers with the scheme of the request.
fn start(tls: Arc<Tls>, header_timeout: Duration) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let app =
        harden(endpoint::make(|request: Request| async move { Ok::<_, poem::Error>(request.scheme().to_string()) }));
    let settings = ServeSettings { header_timeout, tls: Some(tls), ..ServeSettings::default() };
    tokio::spawn(serve(listener, app, settings, std::future::pending()));
    address
}

/// Connects as one who trusts the certificate in `file`, and asks for something; the whole answer.
async fn ask(
    address: SocketAddr,
    file: &Path,
    versions: &[&'static SupportedProtocolVersion],
) -> std::io::Result<(ProtocolVersion, String)> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = builder.with_protocol_versions(versions).unwrap().with_root_certificates(roots).with_no_client_auth();
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await?;
    let version = stream.get_ref().1.protocol_version().unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok((version, text))
}

#[tokio::test]
async fn connections_are_tls_13_and_answers_tell_browsers_to_stay_with_it() {
    let files = Files::new();
    let address = start(Arc::new(files.tls().unwrap()), DEADLINE);
    let (version, answer) = ask(address, &files.certificate(), &[&TLS13]).await.unwrap();
    assert_eq!(version, ProtocolVersion::TLSv1_3);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("https"), "{answer}");
    assert!(answer.to_lowercase().contains("strict-transport-security:"), "{answer}");
    assert!(ask(address, &files.certificate(), &[&TLS12]).await.is_err(), "an older version is refused");
}

#[tokio::test]
async fn who_says_nothing_or_no_tls_is_disconnected() {
    let files = Files::new();
    let address = start(Arc::new(files.tls().unwrap()), Duration::from_millis(300));
    for words in ["", "GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(words.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
        // Reset or closed: but no answer of the application.
        assert!(read.is_ok(), "the server must close the connection");
        assert!(!String::from_utf8_lossy(&answer).contains("200"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_offered_without_a_restart_and_a_bad_one_is_not() {
    let files = Files::new();
    let old = files.folder.path().join("old.pem");
    std::fs::copy(files.certificate(), &old).unwrap();
    let tls = Arc::new(files.tls().unwrap());
    let address = start(tls.clone(), DEADLINE);
    assert!(!tls.read_again().unwrap(), "nothing changed");
    files.renew();
    assert!(ask(address, &files.certificate(), &[&TLS13]).await.is_err(), "not looked at yet");
    assert!(tls.read_again().unwrap());
    ask(address, &files.certificate(), &[&TLS13]).await.unwrap();
    assert!(ask(address, &old, &[&TLS13]).await.is_err(), "the old one is not offered any more");
    // The key of another certificate.
    std::fs::write(files.key(), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let refused = tls.read_again().unwrap_err().to_string();
    assert!(refused.contains("key.pem"), "{refused}");
    ask(address, &files.certificate(), &[&TLS13]).await.unwrap();
}

#[test]
fn files_that_are_no_certificate_or_no_key_are_named() {
    let files = Files::new();
    let key = std::fs::read(files.key()).unwrap();
    std::fs::write(files.key(), "nothing").unwrap();
    assert!(files.tls().unwrap_err().to_string().contains("key.pem"));
    std::fs::write(files.key(), key).unwrap();
    std::fs::write(files.certificate(), "nothing").unwrap();
    assert!(files.tls().unwrap_err().to_string().contains("chain.pem"));
    std::fs::remove_file(files.certificate()).unwrap();
    assert!(files.tls().unwrap_err().to_string().contains("chain.pem"));
}

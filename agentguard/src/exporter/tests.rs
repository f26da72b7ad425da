use std::io::{Read, Write};
use std::net::TcpStream as StdStream;
use std::process::Command;

use super::*;

struct Page;

impl Source for Page {
    fn metrics(&self) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + '_>> {
        Box::pin(async { Ok("agentguard_test 1\n".to_owned()) })
    }

    fn health(&self) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + '_>> {
        Box::pin(async { Err("the ledger cannot be written".to_owned()) })
    }
}

async fn serve(tls: Option<Tls>) -> SocketAddr {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let exporter = Exporter::bind(address, tls).await.unwrap();
    let address = exporter.address().unwrap();
    tokio::spawn(exporter.serve(Arc::new(Page)));
    address
}

async fn ask(address: SocketAddr, request: &'static [u8]) -> String {
    tokio::task::spawn_blocking(move || {
        let mut stream = StdStream::connect(address).unwrap();
        // What is refused early may be refused before it was written in full.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_two_pages_and_only_reading() {
    let address = serve(None).await;
    let metrics = ask(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    assert!(metrics.contains("text/plain; version=0.0.4"), "{metrics}");
    assert!(
        metrics.ends_with("\r\n\r\nagentguard_test 1\n"),
        "{metrics}"
    );
    let health = ask(address, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(health.starts_with("HTTP/1.1 503"), "{health}");
    let head = ask(address, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(
        head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    let post = ask(
        address,
        b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    assert!(
        post.starts_with("HTTP/1.1 405") && post.contains("allow: GET, HEAD"),
        "{post}"
    );
    let other = ask(address, b"GET /etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(other.starts_with("HTTP/1.1 404"), "{other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_head_is_refused_and_garbage_is_closed() {
    let address = serve(None).await;
    let mut request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: ".to_vec();
    request.resize(HEAD_BYTES * 4, b'a');
    let answer = ask(address, Box::leak(request.into_boxed_slice())).await;
    assert!(!answer.contains("agentguard_test"), "{answer}");
    let garbage = ask(address, b"\x16\x03\x01\x02\x00\r\n\r\n").await;
    assert!(!garbage.contains("agentguard_test"), "{garbage}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_slowly_is_closed() {
    let (mut client, server) = tokio::io::duplex(1_024);
    let source: Arc<dyn Source> = Arc::new(Page);
    let serving = tokio::spawn(http(server, source));
    tokio::io::AsyncWriteExt::write_all(&mut client, b"GET /metrics HT")
        .await
        .unwrap();
    let before = tokio::time::Instant::now();
    serving.await.unwrap();
    assert_eq!(before.elapsed(), REQUEST_TIME);
}

/// Keys and certificates for one test, by openssl's command.
struct Pki(tempfile::TempDir);

impl Pki {
    /// `None` where there is no openssl.
    fn make() -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            eprintln!("skipped: openssl is not installed");
            return None;
        }
        let pki = Self(tempfile::tempdir().unwrap());
        pki.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN=ca -days 2");
        for name in ["server", "client"] {
            pki.openssl(&format!("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name} -addext subjectAltName=IP:127.0.0.1"));
            pki.openssl(&format!("x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem -days 2 -copy_extensions copy"));
        }
        Some(pki)
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(self.0.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn files(&self, client_ca: bool) -> tls::Files {
        let file = |name: &str| self.0.path().join(name);
        tls::Files {
            cert: file("server.pem"),
            key: file("server.key"),
            client_ca: client_ca.then(|| file("ca.pem")),
        }
    }

    /// Fetches a page; an error is what the client says.
    async fn fetch(&self, address: SocketAddr, with_certificate: bool) -> Result<String, String> {
        let directory = self.0.path().to_owned();
        tokio::task::spawn_blocking(move || {
            use rustls::pki_types::pem::PemObject;
            use rustls::pki_types::{CertificateDer, PrivateKeyDer};
            let mut roots = rustls::RootCertStore::empty();
            let pem = |name: &str| CertificateDer::from_pem_file(directory.join(name)).unwrap();
            roots.add(pem("ca.pem")).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots);
            let config = if with_certificate {
                let key = PrivateKeyDer::from_pem_file(directory.join("client.key")).unwrap();
                builder
                    .with_client_auth_cert(vec![pem("client.pem")], key)
                    .unwrap()
            } else {
                builder.with_no_client_auth()
            };
            let name = "127.0.0.1".try_into().unwrap();
            let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
            let stream = StdStream::connect(address).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream);
            let mut answer = String::new();
            stream
                .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                .and_then(|()| stream.read_to_string(&mut answer))
                .map(|_| answer)
                .map_err(|error| error.to_string())
        })
        .await
        .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_and_without_client_certificates() {
    let Some(pki) = Pki::make() else {
        return;
    };
    let address = serve(Some(Tls::load(pki.files(false)).unwrap())).await;
    let page = pki.fetch(address, false).await.unwrap();
    assert!(page.ends_with("agentguard_test 1\n"), "{page}");

    let address = serve(Some(Tls::load(pki.files(true)).unwrap())).await;
    let page = pki.fetch(address, true).await.unwrap();
    assert!(page.ends_with("agentguard_test 1\n"), "{page}");
    let refused = pki.fetch(address, false).await.unwrap_err();
    assert!(refused.contains("CertificateRequired"), "{refused}");
}

#[test]
fn files_that_do_not_do_are_named() {
    let Some(pki) = Pki::make() else {
        return;
    };
    let error = |files: tls::Files| Tls::load(files).err().unwrap().to_string();
    let missing = tls::Files {
        cert: "/nonexistent.pem".into(),
        ..pki.files(false)
    };
    assert!(error(missing).starts_with("certificate /nonexistent.pem: "));
    let key_as_cert = tls::Files {
        cert: pki.files(false).key,
        ..pki.files(false)
    };
    assert!(error(key_as_cert).contains("there is no certificate in it"));
    let other_key = tls::Files {
        key: pki.0.path().join("client.key"),
        ..pki.files(false)
    };
    assert!(error(other_key).contains("certificate "));
}

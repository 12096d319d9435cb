//! Asking a webhook as API servers do: over connections that are kept, and whom to trust as their configurations say at
//! the moment. Opens sockets.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

/// Path and body of each request of an admission, in order.
pub(crate) type Reviews = [(&'static str, Bytes); 2];

/// The name that API servers verify.
const HOST: &str = "tekton-pipelines-webhook.tekton-pipelines.svc";

/// Requests over one connection. API servers keep theirs; several of them, starting, ending and losing connections, have
/// handshakes all the time, and so do we: some in each second.
const REQUESTS: usize = 250;

/// PEM text of the authorities to trust.
pub(crate) type Trust = watch::Receiver<Vec<u8>>;

/// A client of one webhook.
pub(crate) struct Asking {
    address: SocketAddr,
    trust: Trust,
    idle: Mutex<Vec<Connection>>,
    handshakes: AtomicUsize,
    certificates: Mutex<BTreeSet<Vec<u8>>>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    trusted: Vec<u8>,
    requests: usize,
}

impl Asking {
    pub(crate) fn new(address: SocketAddr, trust: Trust) -> Self {
        let (idle, certificates) = (Mutex::default(), Mutex::default());
        Self { address, trust, idle, handshakes: AtomicUsize::new(0), certificates }
    }

    /// How many handshakes there were.
    pub(crate) fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::Relaxed)
    }

    /// How many different certificates have been presented.
    pub(crate) fn certificates(&self) -> usize {
        locked(&self.certificates).len()
    }

    /// Whether this certificate, PEM, has been presented.
    pub(crate) fn has_seen(&self, certificate: &[u8]) -> bool {
        let certificate = CertificateDer::from_pem_slice(certificate);
        certificate.is_ok_and(|certificate| locked(&self.certificates).contains(certificate.as_ref()))
    }

    /// One admission: every request has to be answered, and with consent.
    pub(crate) async fn admit(&self, reviews: &Reviews) -> Result<()> {
        for (path, body) in reviews {
            let answer = self.ask(path, body.clone()).await?;
            // The text of an answer that refuses has neither this word nor room for it before.
            if !contains(&answer, b"\"allowed\":true") {
                bail!("{path}: {}", String::from_utf8_lossy(&answer[..answer.len().min(400)]));
            }
        }
        Ok(())
    }

    /// What is answered to each request.
    pub(crate) async fn answers(&self, reviews: &Reviews) -> Result<Vec<(&'static str, Bytes)>> {
        let mut answers = Vec::new();
        for (path, body) in reviews {
            let answer = self.ask(path, body.clone()).await?;
            let review: Value = serde_json::from_slice(&answer)?;
            ensure!(review["response"]["allowed"] == true, "{path}: {review}");
            answers.push((*path, answer));
        }
        Ok(answers)
    }

    async fn ask(&self, path: &str, body: Bytes) -> Result<Bytes> {
        let mut connection = self.connection().await?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header("host", HOST)
            .header("content-type", "application/json")
            .header("accept", "application/json, */*")
            .body(Full::new(body))?;
        let response = connection.sender.send_request(request).await.context("no answer")?;
        let status = response.status();
        let answer = response.into_body().collect().await.context("half an answer")?.to_bytes();
        ensure!(status == StatusCode::OK, "{path}: status {status}");
        connection.requests += 1;
        if connection.requests < REQUESTS && connection.sender.ready().await.is_ok() {
            locked(&self.idle).push(connection);
        }
        Ok(answer)
    }

    async fn connection(&self) -> Result<Connection> {
        let trusted = self.trust.borrow().clone();
        let usable =
            |connection: &Connection| connection.trusted == trusted && !connection.sender.is_closed();
        let kept = {
            let mut idle = locked(&self.idle);
            std::iter::from_fn(|| idle.pop()).find(usable)
        };
        match kept {
            Some(connection) => Ok(connection),
            None => self.connect(trusted).await,
        }
    }

    async fn connect(&self, trusted: Vec<u8>) -> Result<Connection> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(&trusted) {
            roots.add(authority?)?;
        }
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(ServerName::try_from(HOST)?, stream).await.context("no TLS")?;
        self.handshakes.fetch_add(1, Ordering::Relaxed);
        let presented = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let presented = presented.context("no certificate")?.to_vec();
        locked(&self.certificates).insert(presented);
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Its end is seen by the sender.
        tokio::spawn(connection);
        Ok(Connection { sender, trusted, requests: 0 })
    }
}

/// Certificate and key out of PEM texts.
pub(crate) fn pair(
    certificate: &[u8],
    key: &[u8],
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let certificates = CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>()?;
    Ok((certificates, PrivateKeyDer::from_pem_slice(key)?))
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

/// A panic elsewhere leaves a list of connections as good as it was.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! HTTPS by hand: what no client library would send.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Somebody, by a token or none.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    connector: TlsConnector,
    pub(crate) token: Option<String>,
}

pub(crate) type Stream = TlsStream<TcpStream>;

impl Client {
    pub(crate) fn new(address: SocketAddr, authority: &[u8], token: Option<&str>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority)?)?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Self { address, connector, token: token.map(str::to_owned) })
    }

    pub(crate) fn with_token(&self, token: Option<&str>) -> Self {
        Self { token: token.map(str::to_owned), ..self.clone() }
    }

    pub(crate) async fn connect(&self) -> Result<Stream> {
        let stream = TcpStream::connect(self.address).await?;
        let connect = self.connector.connect("localhost".try_into()?, stream);
        Ok(timeout(PATIENCE, connect).await.context("no handshake")??)
    }

    /// The head of a request, with the token and these further lines, each with its end.
    pub(crate) fn head(&self, request: &str, more: &str) -> String {
        let token =
            self.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        format!("{request} HTTP/1.1\r\nHost: localhost\r\n{token}{more}\r\n")
    }

    /// The code of the answer to a request, and all of the answer; `None` where the server hung up.
    pub(crate) async fn ask(&self, request: &str, kind: &str, body: &[u8]) -> Option<(u16, String)> {
        let more = format!("Content-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
        let mut stream = self.connect().await.ok()?;
        let asked = async {
            stream.write_all(self.head(request, &more).as_bytes()).await?;
            // A server that has refused a request need not read all of it.
            stream.write_all(body).await.ok();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.ok();
            anyhow::Ok(String::from_utf8_lossy(&answer).into_owned())
        };
        let answer = timeout(PATIENCE, asked).await.ok()?.ok()?;
        Some((code(&answer)?, answer))
    }

    pub(crate) async fn get(&self, path: &str) -> Option<u16> {
        self.ask(&format!("GET {path}"), "application/json", b"").await.map(|(code, _)| code)
    }

    /// Creates or changes something that the attack needs; its answer.
    pub(crate) async fn make(&self, request: &str, body: &serde_json::Value) -> Result<serde_json::Value> {
        let body = body.to_string();
        let answer = self.ask(request, "application/json", body.as_bytes()).await;
        let (code, answer) = answer.with_context(|| format!("{request}: no answer"))?;
        anyhow::ensure!((200..300).contains(&code), "{request}: {answer}");
        let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
        Ok(serde_json::from_str(body)?)
    }
}

/// The status code that an answer begins with.
pub(crate) fn code(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

/// The first bytes of an answer; `None` where the server hung up.
pub(crate) async fn first(stream: &mut Stream) -> Option<String> {
    let mut bytes = vec![0; 1024];
    let length = timeout(PATIENCE, stream.read(&mut bytes)).await.ok()?.ok().filter(|length| *length > 0)?;
    Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

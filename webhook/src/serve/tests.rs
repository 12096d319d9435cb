use std::net::{Ipv4Addr, SocketAddr};

use axum::Json;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::routing::{get, post};
use http_body_util::BodyExt;
use hyper::client::conn::http1::{self, SendRequest};
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::server::ClientHello;
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::certificates::Service;
use crate::certificates::issue::issue;
use crate::certificates::plan::Issue;
use crate::certificates::stored::{self, CA_CERT};

/// What no test should ever take, on a machine however busy.
const PATIENCE: Duration = Duration::from_mins(1);

fn service() -> Service {
    Service { name: "tekton-pipelines-webhook".to_owned(), namespace: "tekton-pipelines".to_owned() }
}

#[derive(Debug)]
struct Fixed(Arc<CertifiedKey>);

impl ResolvesServerCert for Fixed {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

struct Running {
    address: SocketAddr,
    /// What a client trusts, PEM.
    trusted: Vec<u8>,
    draining: watch::Sender<bool>,
    stop: Arc<Notify>,
    server: JoinHandle<()>,
}

async fn running(router: Router) -> Running {
    #[expect(clippy::disallowed_methods, reason = "the client looks at its clock, too")]
    let now = Timestamp::now();
    let data = issue(&Issue::Authority { retired: Vec::new() }, &service(), now).unwrap();
    let leaf = stored::read(Some(&data), &service(), now).unwrap().leaf.unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (draining, drains) = watch::channel(false);
    let stop = Arc::new(Notify::new());
    let stopped = Arc::clone(&stop);
    let tls = tls(Arc::new(Fixed(leaf.certified))).unwrap();
    let server = tokio::spawn(async move {
        serve(listener, tls, router, drains, stopped.notified()).await;
    });
    Running { address, trusted: data[CA_CERT].0.clone(), draining, stop, server }
}

/// A connection as an API server opens it: it trusts these authorities, and asks for the Service.
pub(crate) async fn connect(
    address: SocketAddr,
    trusted: &[u8],
    version: &'static SupportedProtocolVersion,
) -> io::Result<SendRequest<Body>> {
    let stream = open(address, trusted, version).await?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn open(
    address: SocketAddr,
    trusted: &[u8],
    version: &'static SupportedProtocolVersion,
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(trusted).map(Result::unwrap));
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(service().host()).unwrap();
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

pub(crate) fn request(path: &str, body: &Value) -> Request<Body> {
    let body = Body::from(body.to_string());
    Request::post(path)
        .header("host", "webhook")
        .header("content-type", "application/json")
        .body(body)
        .unwrap()
}

fn echo() -> Router {
    Router::new().route("/echo", post(|Json(body): Json<Value>| async { Json(body) }))
}

#[rstest::rstest]
#[case(&TLS12)]
#[case(&TLS13)]
#[tokio::test]
async fn answers_over_tls(#[case] version: &'static SupportedProtocolVersion) {
    let running = running(echo()).await;
    let mut sender = connect(running.address, &running.trusted, version).await.unwrap();
    for body in [json!({"a": 1}), json!([2])] {
        let response = sender.send_request(request("/echo", &body)).await.unwrap();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(bytes, body.to_string());
    }
}

#[tokio::test]
async fn who_trusts_another_authority_does_not_connect() {
    let (running, other) = (running(echo()).await, running(echo()).await);
    assert!(connect(running.address, &other.trusted, &TLS13).await.is_err());
}

#[tokio::test]
async fn a_client_that_says_nothing_keeps_nobody_waiting() {
    let running = running(echo()).await;
    let _silent = TcpStream::connect(running.address).await.unwrap();
    let mut sender = connect(running.address, &running.trusted, &TLS13).await.unwrap();
    let response = sender.send_request(request("/echo", &json!(1))).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_connection_without_a_request_is_not_kept() {
    let running = running(echo()).await;
    let mut idle = open(running.address, &running.trusted, &TLS13).await.unwrap();
    let mut used = connect(running.address, &running.trusted, &TLS13).await.unwrap();
    used.send_request(request("/echo", &json!(1))).await.unwrap();
    let read = tokio::time::timeout(PATIENCE, idle.read_u8()).await.expect("it is closed");
    assert_eq!(read.expect_err("nothing is said").kind(), io::ErrorKind::UnexpectedEof);
    let response = used.send_request(request("/echo", &json!(2))).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "one that has asked is kept");
}

#[tokio::test]
async fn the_end_cuts_nothing_off() {
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (enters, released) = (Arc::clone(&entered), Arc::clone(&release));
    let slow = move || async move {
        enters.notify_one();
        released.notified().await;
        "done"
    };
    let router = echo().route("/slow", get(slow));
    let running = running(router).await;
    let mut busy = connect(running.address, &running.trusted, &TLS13).await.unwrap();
    let slow = Request::get("/slow").header("host", "webhook").body(Body::empty()).unwrap();
    let answer = tokio::spawn(async move { busy.send_request(slow).await });
    entered.notified().await;

    running.draining.send_replace(true);
    let mut late = connect(running.address, &running.trusted, &TLS13).await.unwrap();
    let response = late.send_request(request("/echo", &json!(1))).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "requests that still come here are answered");
    assert_eq!(response.headers()["connection"], "close", "and the next ones shall go elsewhere");

    running.stop.notify_one();
    release.notify_one();
    let response = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap().unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "done");
    tokio::time::timeout(PATIENCE, running.server).await.unwrap().unwrap();
    assert!(TcpStream::connect(running.address).await.is_err());
}

//! HTTPS with tokens: who gets in, and what a client that does not behave costs.

use std::{net::SocketAddr, sync::Arc};

use ropewalk_apiserver::Tokens as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::*;
use crate::server::{
    tls::{Authority, Identity},
    tokens::Keys,
};

struct Guarded {
    address: SocketAddr,
    admin: String,
    /// The server's own, to make tokens with that it never would.
    keys: Keys,
    client: Client,
    connector: TlsConnector,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Guarded {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let identity = Identity::issue(&Authority::generate().unwrap(), &[address.ip()]).unwrap();
        let (signing, admin) = (Keys::signing_key().unwrap(), Keys::admin_token().unwrap());
        let [keys, own] = [(); 2].map(|()| Keys::new(&signing, &admin).unwrap());
        let now = Timestamp::now();
        let mut state = State::new(ResourceTable::built_in(), 1, now);
        ropewalk_apiserver::install(&mut state, &identity.authority, now);
        let server = Server::build(state, Arc::new(NoAdmission), Arc::new(NoLogs), Some(own), None);
        let client = server.client();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(server.serve_https(listener, identity.config, async {
            stopped.await.ok();
        }));
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(identity.authority.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { address, admin, keys, client, connector: TlsConnector::from(Arc::new(config)), stop, task }
    }

    async fn connect(&self) -> impl AsyncRead + tokio::io::AsyncWrite + Unpin + use<> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        self.connector.connect("kubernetes.default.svc".try_into().unwrap(), stream).await.unwrap()
    }

    /// The status of one request, and what came with it.
    async fn ask(&self, head: &str, token: Option<&str>, body: &[u8]) -> (u16, String) {
        let mut stream = self.connect().await;
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let length = body.len();
        let head = format!(
            "{head} HTTP/1.1\r\nHost: localhost\r\n{token}Content-Type: application/json\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that has refused a request need not read all of it.
        stream.write_all(body).await.ok();
        let answer = timeout(PATIENCE, everything(&mut stream)).await.unwrap();
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
        (status, answer)
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }
}

async fn everything(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn only_who_shows_a_token_that_holds_gets_in() {
    let server = Guarded::start().await;
    let maps = "GET /api/v1/namespaces/default/configmaps";
    let create = "POST /api/v1/namespaces/default/serviceaccounts/default/token";
    let (code, answer) = server.ask(create, Some(&server.admin), b"{}").await;
    assert_eq!(code, 201, "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let account = body["status"]["token"].as_str().unwrap().to_owned();
    for (head, token, expected) in [
        ("GET /livez", None, 200),
        ("GET /version", None, 200),
        ("GET /api", None, 401),
        (maps, None, 401),
        (maps, Some("wrong"), 401),
        (maps, Some(""), 401),
        ("GET /livez", Some("wrong"), 401),
        (maps, Some(server.admin.as_str()), 200),
        ("GET /api", Some(account.as_str()), 200),
        (maps, Some(account.as_str()), 403),
        (create, Some(account.as_str()), 403),
    ] {
        let (code, answer) = server.ask(head, token, b"").await;
        assert_eq!(code, expected, "{head} {token:?}: {answer}");
    }
    // An account that is deleted loses its tokens with it.
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
        Api::default_namespaced(server.client.clone());
    accounts.delete("default", &DeleteParams::default()).await.unwrap();
    assert_eq!(server.ask("GET /api", Some(&account), b"").await.0, 401);
    server.stop().await;
}

/// Each is signed as it should be, and differs in one thing from a token that holds.
#[tokio::test]
async fn tokens_that_do_not_hold_are_refused_alike() {
    let server = Guarded::start().await;
    let create = "POST /api/v1/namespaces/default/serviceaccounts/default/token";
    let (_, answer) = server.ask(create, Some(&server.admin), b"{}").await;
    let body: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let claims = server.keys.verify(body["status"]["token"].as_str().unwrap()).unwrap();
    let now = Timestamp::now().as_second();
    for (path, value, expected) in [
        ("/exp", json!(now + 60), 200),
        ("/exp", json!(now - 1), 401),
        ("/exp", json!("never"), 401),
        ("/nbf", json!(now + 60), 401),
        ("/aud", json!(["https://vault.example.dev"]), 401),
        ("/aud", json!([]), 401),
        ("/iss", json!("https://elsewhere.example.dev"), 401),
        ("/kubernetes.io/serviceaccount/uid", json!("another"), 401),
        ("/kubernetes.io", json!(null), 401),
        ("/sub", json!("system:admin"), 401),
    ] {
        let mut other = claims.clone();
        *other.pointer_mut(path).unwrap() = value.clone();
        let token = server.keys.sign(&other).unwrap();
        let (code, answer) = server.ask("GET /api", Some(&token), b"").await;
        assert_eq!(code, expected, "{path} {value}: {answer}");
        if code == 401 {
            let said: serde_json::Value =
                serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
            let unauthorized = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "Unauthorized", "reason": "Unauthorized", "code": 401,
            });
            assert_eq!(said, unauthorized, "{path} {value}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn what_strangers_send_is_not_read() {
    let server = Guarded::start().await;
    let create = "POST /api/v1/namespaces/default/configmaps";
    let large = vec![b' '; 2 * ropewalk_apiserver::BODY_LIMIT];
    for (token, expected) in [(None, 401), (Some("wrong"), 401), (Some(server.admin.as_str()), 413)] {
        let (code, answer) = server.ask(create, token, &large).await;
        // The answer may be lost in the reset that ends an upload nobody reads.
        assert!(code == expected || answer.is_empty(), "{token:?}: {answer}");
    }
    // A body that is announced and never comes holds up nobody who has no token.
    let mut stream = server.connect().await;
    let head = "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    timeout(PATIENCE, stream.read_exact(&mut first)).await.unwrap().unwrap();
    assert_eq!(&first, b"HTTP/1.1 401");
    // A head without end is cut off.
    let mut stream = server.connect().await;
    stream.write_all(b"GET /livez HTTP/1.1\r\nX: ").await.unwrap();
    stream.write_all(&vec![b'x'; 256 * 1024]).await.ok();
    let answer = timeout(PATIENCE, everything(&mut stream)).await.unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(server.ask("GET /livez", None, b"").await.0, 200);
    server.stop().await;
}

/// Time is the runtime's own here: the server waits its ten seconds and two minutes at once.
#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_hung_up_on() {
    let server = Guarded::start().await;
    // No handshake.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(everything(&mut stream).await, "");
    // No request.
    let mut stream = server.connect().await;
    everything(&mut stream).await;
    // No end of a body.
    let mut stream = server.connect().await;
    let head = format!(
        "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
         Content-Length: 1000\r\n\r\n",
        server.admin
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(everything(&mut stream).await, "");
    server.stop().await;
}

//! The plain HTTP listener: the same service, from a socket.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

use super::{PATIENCE, Server, server};

/// A server on a free port, until told to stop.
pub(super) struct Listening {
    pub(super) address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Listening {
    pub(super) async fn start(server: Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(server.serve(listener, async {
            stopped.await.ok();
        }));
        Self { address, stop, task }
    }

    pub(super) async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }

    /// Sends a request as it stands, and reads until the server closes.
    async fn raw(&self, head: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!("{head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that has refused a large body may close before it has read all of it.
        stream.write_all(body).await.ok();
        let mut answer = Vec::new();
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().ok();
        String::from_utf8(answer).unwrap()
    }
}

#[tokio::test]
async fn a_client_on_a_socket_sees_the_same_objects() {
    let server = server();
    let listening = Listening::start(server.clone()).await;
    let uri = format!("http://{}", listening.address).parse().unwrap();
    let over_socket = kube::Client::try_from(kube::Config::new(uri)).unwrap();
    super::config_maps(&server.client())
        .create(&super::PostParams::default(), &super::config_map("a", "1"))
        .await
        .unwrap();
    let read = super::config_maps(&over_socket).get("a").await.unwrap();
    assert_eq!(read.data.unwrap()["key"], "1");
    assert_eq!(over_socket.apiserver_version().await.unwrap().git_version, "v1.36.0");
    listening.stop().await;
}

#[tokio::test]
async fn web_pages_are_refused() {
    let listening = Listening::start(server()).await;
    let port = listening.address.port();
    for (headers, allowed) in [
        (format!("Host: 127.0.0.1:{port}"), true),
        (format!("Host: localhost:{port}"), true),
        (format!("Host: [::1]:{port}"), true),
        ("Host: localhost".to_owned(), true),
        (format!("Host: rebound.example:{port}"), false),
        (format!("Host: 127.0.0.1.example:{port}"), false),
        (format!("Host: 127.0.0.1:{port}\r\nOrigin: https://example.dev"), false),
    ] {
        let answer = listening.raw(&format!("GET /version HTTP/1.1\r\n{headers}"), b"").await;
        let status = if allowed { "HTTP/1.1 200" } else { "HTTP/1.1 403" };
        assert!(answer.starts_with(status), "{headers}: {answer}");
    }
    listening.stop().await;
}

#[tokio::test]
async fn a_body_too_large_is_refused_and_the_server_lives() {
    let listening = Listening::start(server()).await;
    let head = "POST /api/v1/namespaces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
    let answer = listening.raw(head, &vec![b' '; ropewalk_apiserver::BODY_LIMIT + 1]).await;
    assert!(answer.starts_with("HTTP/1.1 413") || answer.is_empty(), "{answer}");
    let answer = listening.raw("GET /healthz HTTP/1.1\r\nHost: localhost", b"").await;
    assert!(answer.ends_with("ok"), "{answer}");
    listening.stop().await;
}

#[tokio::test]
async fn open_watches_do_not_hold_up_the_end() {
    let listening = Listening::start(server()).await;
    let mut stream = TcpStream::connect(listening.address).await.unwrap();
    stream.write_all(b"GET /api/v1/namespaces?watch=true HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut first = [0; 64];
    assert!(stream.read(&mut first).await.unwrap() > 0);
    listening.stop().await;
}

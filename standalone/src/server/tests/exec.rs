//! Commands over WebSocket, with an executor that runs none.

use std::io;

use bytes::Bytes;
use futures::{FutureExt as _, SinkExt as _, StreamExt as _, future::BoxFuture, stream::BoxStream};
use ropewalk_apiserver::{ExecRequest, LogRequest};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _},
};

use super::*;
use crate::server::{Executor, LogSource, Session, exec::SESSIONS, tests::http_listener::Listening};

/// `cat` hands back what it reads and ends with code 7, `wait` never ends, and there is nothing else.
struct Fake;

impl Executor for Fake {
    fn start(&self, request: ExecRequest) -> BoxFuture<'static, Result<Session, String>> {
        let nothing = |exit| Session { stdin: None, stdout: None, stderr: None, resize: None, exit };
        let started = match request.command[0].as_str() {
            "cat" => {
                let (stdin, mut input) = tokio::io::duplex(16);
                let (mut output, stdout) = tokio::io::duplex(16);
                let copied = tokio::spawn(async move {
                    tokio::io::copy(&mut input, &mut output).await.unwrap();
                });
                let exit = copied.map(|ended| ended.map(|()| 7).map_err(|error| error.to_string())).boxed();
                Ok(Session { stdin: Some(Box::pin(stdin)), stdout: Some(Box::pin(stdout)), ..nothing(exit) })
            }
            "wait" => Ok(nothing(std::future::pending().boxed())),
            other => Err(format!("{other} is no command")),
        };
        std::future::ready(started).boxed()
    }
}

/// What every container writes, all of it when somebody listens.
const LINE: &str = "a line\n";

struct Line;

impl LogSource for Line {
    fn open(&self, request: LogRequest) -> BoxStream<'static, io::Result<Bytes>> {
        assert!(request.follow && request.tail_lines == Some(0), "{request:?}");
        futures::stream::iter([Ok(Bytes::from_static(LINE.as_bytes()))]).boxed()
    }
}

async fn listen() -> Listening {
    let state = State::new(ResourceTable::built_in(), 1, Timestamp::UNIX_EPOCH);
    let server = Server::new(state, Arc::new(NoAdmission), Arc::new(Line));
    server.run_commands_with(Arc::new(Fake));
    let pods: Api<Pod> = Api::default_namespaced(server.client());
    let spec = json!({ "nodeName": "n", "containers": [{ "name": "c" }] });
    let pod = json!({ "metadata": { "name": "p" }, "spec": spec });
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let running = json!({ "status": { "containerStatuses": [{ "name": "c", "state": { "running": {} } }] } });
    pods.patch_status("p", &PatchParams::default(), &Patch::Merge(&running)).await.unwrap();
    Listening::start(server).await
}

async fn open(listening: &Listening, command: &str) -> Result<WebSocketStream<TcpStream>, Error> {
    ask(listening, &format!("exec?command={command}&stdin=1&stdout=1&stderr=1")).await
}

async fn ask(listening: &Listening, what: &str) -> Result<WebSocketStream<TcpStream>, Error> {
    let url = format!("ws://{}/api/v1/namespaces/default/pods/p/{what}", listening.address);
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "v5.channel.k8s.io".parse().unwrap());
    let stream = TcpStream::connect(listening.address).await.unwrap();
    client_async(request, stream).await.map(|(socket, _)| socket)
}

/// What comes on the channels of output and of the end.
async fn hear(socket: &mut WebSocketStream<TcpStream>) -> (Vec<u8>, Option<Value>) {
    let (mut output, mut status) = (Vec::new(), None);
    while let Some(message) = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap() {
        match message.unwrap() {
            Message::Binary(bytes) if bytes[0] == 1 => output.extend_from_slice(&bytes[1..]),
            Message::Binary(bytes) if bytes[0] == 3 => status = serde_json::from_slice(&bytes[1..]).ok(),
            Message::Close(frame) => assert_eq!(u16::from(frame.unwrap().code), 1000),
            other => panic!("{other:?}"),
        }
    }
    (output, status)
}

#[tokio::test]
async fn streams_go_through_and_end() {
    let listening = listen().await;
    let mut socket = open(&listening, "cat").await.unwrap();
    let text = vec![b'x'; 100_000];
    socket.send(Message::Binary([&[0], text.as_slice()].concat().into())).await.unwrap();
    // Size and unknown channels of a command without a terminal mean nothing.
    for other in [&b"\x04{\"Width\":1,\"Height\":1}"[..], b"\x04nonsense", b"\x09", b"", b"\xff\x09"] {
        socket.send(Message::Binary(other.to_vec().into())).await.unwrap();
    }
    socket.send(Message::Binary(vec![255, 0].into())).await.unwrap();
    let (output, status) = hear(&mut socket).await;
    assert!(output == text, "{} bytes", output.len());
    assert_eq!(status.unwrap()["details"]["causes"][0]["message"], "7");
    listening.stop().await;
}

#[tokio::test]
async fn input_may_come_as_text() {
    let listening = listen().await;
    let mut socket = open(&listening, "cat").await.unwrap();
    socket.send(Message::Text("\0typed".into())).await.unwrap();
    socket.send(Message::Binary(vec![255, 0].into())).await.unwrap();
    let (output, _) = hear(&mut socket).await;
    assert_eq!(String::from_utf8(output).unwrap(), "typed");
    listening.stop().await;
}

#[tokio::test]
async fn output_is_attached_to_until_the_container_ends() {
    let listening = listen().await;
    let mut socket = ask(&listening, "attach?container=c&stdout=1&stderr=1").await.unwrap();
    let (output, status) = hear(&mut socket).await;
    assert_eq!((output.as_slice(), status.unwrap()["status"].as_str()), (LINE.as_bytes(), Some("Success")));
    let Err(Error::Http(refused)) = ask(&listening, "attach?container=c&stdin=1&stdout=1").await else {
        panic!("not refused")
    };
    assert_eq!(refused.status(), 400);
    listening.stop().await;
}

#[tokio::test]
async fn what_cannot_be_started_is_told() {
    let listening = listen().await;
    let (_, status) = hear(&mut open(&listening, "nope").await.unwrap()).await;
    let status = status.unwrap();
    assert_eq!(status["code"], 500);
    assert!(status["message"].as_str().unwrap().ends_with("nope is no command"), "{status}");
    listening.stop().await;
}

#[tokio::test]
async fn a_message_that_is_too_long_ends_the_session() {
    let listening = listen().await;
    let mut socket = open(&listening, "wait").await.unwrap();
    socket.send(Message::Binary(vec![0; 300_000].into())).await.ok();
    let ended = async { while matches!(socket.next().await, Some(Ok(message)) if !message.is_close()) {} };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
    listening.stop().await;
}

#[tokio::test]
async fn sessions_are_bounded_and_make_room_when_their_clients_go() {
    let listening = listen().await;
    let mut sockets = Vec::new();
    for _ in 0..SESSIONS {
        sockets.push(open(&listening, "wait").await.unwrap());
    }
    let Err(Error::Http(refused)) = open(&listening, "wait").await else { panic!("not refused") };
    assert_eq!(refused.status(), 429);
    sockets.pop();
    let again = async { while open(&listening, "wait").await.is_err() {} };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
    listening.stop().await;
}

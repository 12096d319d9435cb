//! Watches over WebSocket, as browsers open them.

use futures::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message},
};

use super::{PATIENCE, PostParams, config_map, config_maps, http_listener::Listening, server};

async fn open(listening: &Listening, query: &str) -> Result<WebSocketStream<TcpStream>, Error> {
    let stream = TcpStream::connect(listening.address).await.unwrap();
    let url = format!("ws://{}/api/v1/namespaces/default/configmaps?{query}", listening.address);
    client_async(url, stream).await.map(|(socket, _)| socket)
}

/// The next message but pings and pongs.
async fn next(socket: &mut WebSocketStream<TcpStream>) -> Option<Message> {
    loop {
        match tokio::time::timeout(PATIENCE, socket.next()).await.unwrap()? {
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(message) => return Some(message),
            Err(_) => return None,
        }
    }
}

async fn told(socket: &mut WebSocketStream<TcpStream>) -> String {
    let Some(Message::Text(text)) = next(socket).await else { panic!("no event") };
    let event: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(event["object"]["kind"], "ConfigMap");
    format!("{} {}", event["type"].as_str().unwrap(), event["object"]["metadata"]["name"].as_str().unwrap())
}

#[tokio::test]
async fn a_websocket_tells_each_event_in_a_message() {
    let server = server();
    let maps = config_maps(&server.client());
    let listening = Listening::start(server).await;
    maps.create(&PostParams::default(), &config_map("old", "1")).await.unwrap();
    let mut all = open(&listening, "watch=true").await.unwrap();
    assert_eq!(told(&mut all).await, "ADDED old");
    let mut one = open(&listening, "watch=true&fieldSelector=metadata.name=new").await.unwrap();
    maps.create(&PostParams::default(), &config_map("new", "1")).await.unwrap();
    maps.delete("old", &super::DeleteParams::default()).await.unwrap();
    assert_eq!(told(&mut all).await, "ADDED new");
    assert_eq!(told(&mut all).await, "DELETED old");
    assert_eq!(told(&mut one).await, "ADDED new");
    // A client that asks whether anybody is there is answered, and one that says too much is let go.
    one.send(Message::Ping("there?".into())).await.unwrap();
    let answer = tokio::time::timeout(PATIENCE, one.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(answer, Message::Pong("there?".into()));
    one.send(Message::Text("x".repeat(100_000).into())).await.ok();
    assert!(!matches!(next(&mut one).await, Some(Message::Text(_))));
    // The others do not hold up the end.
    listening.stop().await;
    assert!(matches!(next(&mut all).await, None | Some(Message::Close(_))));
}

#[tokio::test]
async fn a_websocket_ends_with_its_watch_and_tells_errors() {
    let listening = Listening::start(server()).await;
    let mut expired = open(&listening, "watch=true&resourceVersion=999999").await.unwrap();
    let Some(Message::Text(text)) = next(&mut expired).await else { panic!("no event") };
    let event: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&Value::from("ERROR"), &Value::from(410)));
    assert!(matches!(next(&mut expired).await, None | Some(Message::Close(_))));
    // What is refused, or is no stream, is answered as ever.
    for (query, status) in [("watch=true&labelSelector=a%20b", 400), ("", 200)] {
        let Err(Error::Http(response)) = open(&listening, query).await else {
            panic!("{query} was accepted")
        };
        assert_eq!(response.status().as_u16(), status, "{query}");
    }
    listening.stop().await;
}

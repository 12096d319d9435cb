//! The attacks.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::client::{Client, Stream, code, first};
use crate::server::Server;

const JSON: &str = "application/json";
const APPLY: &str = "application/apply-patch+yaml";
const PATCH: &str = "application/json-patch+json";
const MAPS: &str = "/api/v1/namespaces/mine/configmaps";

/// Connections that one client gets.
const EACH: usize = 128;

/// Requests at a time, where many are sent: half of what a process may have open by default.
const AT_ONCE: usize = 400;

/// How long the slow attacks go on: much longer than the honest client may wait.
const SLOW: Duration = Duration::from_secs(8);

/// Between two bytes of a slow client: short, so that it is not its silence that gives it away.
const DRIP: Duration = Duration::from_millis(500);

/// One attack; it says what became of it, and fails where it got further than it may.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    pub(crate) run: for<'a> fn(&'a Server) -> BoxFuture<'a, Result<String>>,
}

pub(crate) const ALL: &[Attack] = &[
    Attack { name: "no token, or a wrong one", run: |server| tokens(server).boxed() },
    Attack { name: "another namespace", run: |server| elsewhere(server).boxed() },
    Attack { name: "paths that climb", run: |server| paths(server).boxed() },
    Attack { name: "JSON and YAML, deep and multiplied", run: |server| deep(server).boxed() },
    Attack { name: "patches that explode", run: |server| patches(server).boxed() },
    Attack { name: "bodies of 100 MB", run: |server| large(server).boxed() },
    Attack { name: "bodies that never end", run: |server| slow_bodies(server).boxed() },
    Attack { name: "heads that never end", run: |server| slow_heads(server).boxed() },
    Attack { name: "20,000 connections without a request", run: |server| silent(server).boxed() },
    Attack { name: "10,000 watches", run: |server| watches(server).boxed() },
    Attack { name: "2,000 WebSockets that chatter", run: |server| sockets(server).boxed() },
    Attack { name: "the largest lists, not read", run: |server| unread(server).boxed() },
    Attack { name: "as many requests as go", run: |server| requests(server).boxed() },
];

/// How often which code came; 0 stands for a connection that was cut off.
#[derive(Default)]
struct Codes(BTreeMap<u16, usize>);

impl Codes {
    fn count(&mut self, code: Option<u16>) {
        *self.0.entry(code.unwrap_or_default()).or_default() += 1;
    }

    fn of(&self, code: u16) -> usize {
        self.0.get(&code).copied().unwrap_or_default()
    }

    /// Only these.
    fn only(&self, allowed: &[u16]) -> Result<String> {
        ensure!(self.0.keys().all(|code| allowed.contains(code)), "{self}, not only {allowed:?}");
        Ok(self.to_string())
    }
}

impl std::fmt::Display for Codes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (code, count)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            match code {
                0 => write!(f, "{comma}{count} cut off")?,
                code => write!(f, "{comma}{count} times {code}")?,
            }
        }
        Ok(())
    }
}

async fn tokens(server: &Server) -> Result<String> {
    let mut codes = Codes::default();
    let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6bWluZTpkZWZhdWx0In0.";
    let token = server.attacker.token.clone().context("the attacker's token")?;
    let long = "x".repeat(50_000);
    let cut = &token[..token.len() - 2];
    for shown in [None, Some(""), Some("wrong"), Some(unsigned), Some(cut), Some(long.as_str())] {
        let client = server.stranger.with_token(shown);
        for request in ["GET /api", "GET /api/v1/secrets", "POST /api/v1/namespaces", "DELETE /api/v1/nodes"]
        {
            codes.count(client.ask(request, JSON, b"{}").await.map(|(code, _)| code));
        }
    }
    codes.only(&[401])
}

async fn elsewhere(server: &Server) -> Result<String> {
    let mut codes = Codes::default();
    for request in [
        "GET /api/v1/namespaces/theirs/configmaps/known",
        "GET /api/v1/namespaces/theirs/secrets?watch=true",
        "GET /api/v1/secrets",
        "GET /api/v1/namespaces/theirs/pods/p/log",
        "POST /api/v1/namespaces/theirs/serviceaccounts/default/token",
        "POST /api/v1/namespaces/theirs/pods",
        "DELETE /api/v1/namespaces/theirs",
        "PATCH /api/v1/namespaces/theirs/configmaps/known",
        "POST /apis/tekton.dev/v1/namespaces/theirs/taskruns",
        "POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        "GET /api/v1/nodes",
    ] {
        codes.count(server.attacker.ask(request, JSON, b"{}").await.map(|(code, _)| code));
    }
    for header in ["Impersonate-User: kubernetes-admin", "Impersonate-Group: system:masters"] {
        let mut stream = server.attacker.connect().await?;
        let head = server.attacker.head("GET /api/v1/secrets", &format!("{header}\r\n"));
        stream.write_all(head.as_bytes()).await?;
        // A group without a user is a mistake before it is a crime.
        codes.count(
            first(&mut stream)
                .await
                .and_then(|answer| code(&answer))
                .map(|code| if code == 400 { 403 } else { code }),
        );
    }
    codes.only(&[403])
}

async fn paths(server: &Server) -> Result<String> {
    let mut codes = Codes::default();
    let long = "/api/v1/namespaces/".to_owned() + &"x".repeat(40_000);
    let longer = "/api/v1/namespaces/".to_owned() + &"x".repeat(100_000);
    for path in [
        "/api/v1/namespaces/mine/../theirs/secrets",
        "/api/v1/namespaces/mine/%2e%2e/theirs/secrets",
        "/api/v1/namespaces/mine%2f..%2ftheirs/secrets",
        "/api/v1/namespaces/mine/configmaps/..%2f..%2ftheirs%2fconfigmaps%2fknown",
        "/api/v1/namespaces/mine/configmaps/%00",
        "/api/v1/namespaces/theirs%00/configmaps/known",
        "/api/v1/namespaces/mine/configmaps/\0",
        "/api/v1/namespaces/mine/configmaps/%ff%fe",
        "/api/v1/namespaces/mine/pods/..%2f..%2f..%2f..%2fetc%2fpasswd/log",
        "//api/v1/namespaces/theirs/secrets",
        "/api/v1/namespaces//secrets",
        "/API/v1/namespaces/theirs/secrets",
        "/livez/../api/v1/namespaces/theirs/secrets",
        "https://localhost/api/v1/namespaces/theirs/secrets",
        "*",
        long.as_str(),
        longer.as_str(),
    ] {
        let code = server.attacker.get(path).await;
        ensure!(code.is_none_or(|code| (400..500).contains(&code)), "{path}: {code:?}");
        codes.count(code);
    }
    Ok(codes.to_string())
}

async fn deep(server: &Server) -> Result<String> {
    let mut codes = Codes::default();
    let nested = |open: &str, close: &str, levels: usize| open.repeat(levels) + &close.repeat(levels);
    let map = |data: &str| {
        format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"m"}},"x":{data}}}"#)
    };
    for levels in [1_000, 100_000, 1_000_000] {
        for body in
            [nested("[", "]", levels), map(&nested("[", "]", levels)), map(&nested(r#"{"a":"#, "}", levels))]
        {
            let create = format!("POST {MAPS}");
            codes.count(server.attacker.ask(&create, JSON, body.as_bytes()).await.map(|(code, _)| code));
            let apply = format!("PATCH {MAPS}/m?fieldManager=f");
            codes.count(server.attacker.ask(&apply, APPLY, body.as_bytes()).await.map(|(code, _)| code));
        }
    }
    // Nine levels of nine references each.
    let mut laughs = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\na0: &a0 [lol]\n".to_owned();
    for level in 1..10 {
        let list = vec![format!("*a{}", level - 1); 9].join(", ");
        writeln!(laughs, "a{level}: &a{level} [{list}]")?;
    }
    let apply = format!("PATCH {MAPS}/m?fieldManager=f");
    codes.count(server.attacker.ask(&apply, APPLY, laughs.as_bytes()).await.map(|(code, _)| code));
    codes.only(&[400, 413])
}

async fn patches(server: &Server) -> Result<String> {
    let made = json!({
        "apiVersion": "tekton.dev/v1beta1", "kind": "CustomRun", "metadata": { "name": "bomb" },
        "spec": { "customSpec": { "apiVersion": "example.dev/v1", "kind": "Any",
            "spec": { "text": "x".repeat(1000), "list": vec![0; 1000], "m0": {} } } },
    });
    server.attacker.make("POST /apis/tekton.dev/v1beta1/namespaces/mine/customruns", &made).await?;
    let at = "/spec/customSpec/spec";
    let all =
        |count: usize, operation: &dyn Fn(usize) -> Value| (0..count).map(operation).collect::<Vec<_>>();
    let copies = all(64, &|index| json!({ "op": "copy", "from": at, "path": format!("{at}/c{index}") }));
    let texts = all(
        9_000,
        &|index| json!({ "op": "copy", "from": format!("{at}/text"), "path": format!("{at}/t{index}") }),
    );
    let nests = all(
        400,
        &|index| json!({ "op": "add", "path": at.to_owned() + &"/m0".repeat(index + 1), "value": {} }),
    );
    let shifts = all(10_000, &|_| json!({ "op": "add", "path": format!("{at}/list/0"), "value": 0 }));
    let many = all(50_000, &|_| json!({ "op": "test", "path": "/kind", "value": "CustomRun" }));
    let mut codes = Codes::default();
    for patch in [copies, texts, nests, shifts, many] {
        let request = "PATCH /apis/tekton.dev/v1beta1/namespaces/mine/customruns/bomb";
        let patch = Value::from(patch).to_string();
        codes.count(server.attacker.ask(request, PATCH, patch.as_bytes()).await.map(|(code, _)| code));
    }
    codes.only(&[413, 422])
}

/// Ten at a time, by a stranger and by the attacker, with their length told or in chunks.
async fn large(server: &Server) -> Result<String> {
    let chunk = vec![b' '; 1 << 20];
    let send = async |client: &Client, chunked: bool| {
        let mut stream = client.connect().await.ok()?;
        let length = if chunked { "Transfer-Encoding: chunked\r\n" } else { "Content-Length: 104857600\r\n" };
        let head =
            client.head(&format!("POST {MAPS}"), &format!("Content-Type: application/json\r\n{length}"));
        stream.write_all(head.as_bytes()).await.ok()?;
        for _ in 0..100 {
            if chunked {
                stream.write_all(b"100000\r\n").await.ok()?;
            }
            // The answer may be lost in the reset that ends an upload nobody reads.
            stream.write_all(&chunk).await.ok()?;
            if chunked {
                stream.write_all(b"\r\n").await.ok()?;
            }
        }
        first(&mut stream).await.and_then(|answer| code(&answer))
    };
    let mut codes = Codes::default();
    for (client, chunked) in [
        (&server.stranger, false),
        (&server.stranger, true),
        (&server.attacker, false),
        (&server.attacker, true),
    ] {
        let sent = stream::iter(0..10).map(|_| send(client, chunked)).buffer_unordered(10);
        sent.for_each(|code| {
            codes.count(code);
            async {}
        })
        .await;
    }
    codes.only(&[0, 401, 413])
}

/// Writes a byte to each of the connections now and then, as long as the attack goes on; how many are still open.
async fn drip(mut streams: Vec<Stream>, byte: &[u8]) -> usize {
    let end = Instant::now() + SLOW;
    let mut pace = interval(DRIP);
    // What a long round has missed is not made up for: that would be a fast client.
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while Instant::now() < end {
        pace.tick().await;
        let mut open = Vec::new();
        for mut stream in streams {
            let written = async {
                stream.write_all(byte).await?;
                stream.flush().await
            };
            if matches!(timeout(Duration::from_millis(10), written).await, Ok(Ok(()))) {
                open.push(stream);
            }
        }
        streams = open;
    }
    streams.len()
}

async fn slow_bodies(server: &Server) -> Result<String> {
    let client = &server.attacker;
    let head =
        client.head(&format!("POST {MAPS}"), "Content-Type: application/json\r\nContent-Length: 3000000\r\n");
    let mut streams = Vec::new();
    for _ in 0..2 * EACH {
        let Ok(mut stream) = client.connect().await else { continue };
        if stream.write_all(head.as_bytes()).await.is_ok() {
            streams.push(stream);
        }
    }
    let sent = streams.len();
    Ok(format!("{sent} begun, {} still open after {SLOW:?}", drip(streams, b" ").await))
}

async fn slow_heads(server: &Server) -> Result<String> {
    let mut streams = Vec::new();
    for _ in 0..AT_ONCE {
        let Ok(mut stream) = server.stranger.connect().await else { continue };
        if stream.write_all(b"GET /api HTTP/1.1\r\nX: ").await.is_ok() {
            streams.push(stream);
        }
    }
    let open = drip(streams, b"x").await;
    ensure!(open <= EACH, "{open} strangers at once");
    Ok(format!("{AT_ONCE} begun, {open} still open after {SLOW:?}"))
}

async fn silent(server: &Server) -> Result<String> {
    let mut open = std::collections::VecDeque::new();
    let mut count = 0;
    for index in 0..20_000 {
        // Every twentieth goes on to a handshake.
        if index % 20 == 0 {
            count += usize::from(server.stranger.connect().await.is_ok());
        } else if let Ok(stream) = TcpStream::connect(server.stranger.address).await {
            open.push_back(stream);
            count += 1;
        }
        if open.len() > AT_ONCE {
            open.pop_front();
        }
    }
    Ok(format!("{count} were accepted for a while"))
}

/// Opens so many streams of the attacker's; those that go on, and the others' answers.
async fn open(server: &Server, count: usize, head: &str) -> (Vec<Stream>, Codes, Option<String>) {
    let (mut streams, mut codes, mut refusal) = (Vec::new(), Codes::default(), None);
    for _ in 0..count {
        let Ok(mut stream) = server.attacker.connect().await else {
            codes.count(None);
            continue;
        };
        let answer = match stream.write_all(head.as_bytes()).await {
            Ok(()) => first(&mut stream).await,
            Err(_) => None,
        };
        let found = answer.as_deref().and_then(code);
        codes.count(found);
        match found {
            Some(101 | 200) => streams.push(stream),
            Some(429) => refusal = answer,
            _ => {}
        }
    }
    (streams, codes, refusal)
}

fn is_bounded(streams: &[Stream], codes: &Codes, refusal: Option<&str>) -> Result<()> {
    ensure!((EACH / 2..=EACH).contains(&streams.len()), "{} are open: {codes}", streams.len());
    let told = refusal.is_some_and(|refusal| refusal.to_ascii_lowercase().contains("\r\nretry-after: 1\r\n"));
    ensure!(told, "no refusal that says when to try again: {codes}");
    Ok(())
}

async fn watches(server: &Server) -> Result<String> {
    let head = server.attacker.head(&format!("GET {MAPS}?watch=true"), "");
    let (streams, codes, refusal) = open(server, 10_000, &head).await;
    is_bounded(&streams, &codes, refusal.as_deref())?;
    codes.only(&[200, 429])
}

async fn sockets(server: &Server) -> Result<String> {
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let head = server.attacker.head(&format!("GET {MAPS}?watch=true"), upgrade);
    let (mut streams, codes, refusal) = open(server, 2_000, &head).await;
    is_bounded(&streams, &codes, refusal.as_deref())?;
    // A ping, masked as clients have to, ten thousand times; the answers are not read.
    let pings = [0x89, 0x80, 0, 0, 0, 0].repeat(10_000);
    for stream in &mut streams {
        timeout(Duration::from_millis(50), stream.write_all(&pings)).await.ok();
    }
    // A message of a petabyte is announced.
    let mut announced = vec![0x81, 0xff];
    announced.extend((1_u64 << 50).to_be_bytes());
    announced.extend([0; 4]);
    for stream in &mut streams {
        timeout(Duration::from_millis(10), stream.write_all(&announced)).await.ok();
    }
    codes.only(&[101, 429])
}

/// Lists of 20 MB each by every connection that there is, of which nothing is read but the beginning.
async fn unread(server: &Server) -> Result<String> {
    for index in 0..20 {
        let map = json!({ "metadata": { "name": format!("large{index}") }, "data": { "a": "x".repeat(1_000_000) } });
        server.attacker.make(&format!("POST {MAPS}"), &map).await?;
    }
    let listing = server.attacker.head(&format!("GET {MAPS}"), "");
    let watching = server.attacker.head(&format!("GET {MAPS}?watch=true"), "");
    let (lists, listed, _) = open(server, EACH, &listing).await;
    let (watches, watched, _) = open(server, EACH, &watching).await;
    ensure!(listed.of(429) > 0, "every list was sent: {listed}");
    let told = format!("lists: {}; watches: {}", listed.only(&[200, 429])?, watched.only(&[200, 429])?);
    drop((lists, watches));
    for index in 0..20 {
        let request = format!("DELETE {MAPS}/large{index}");
        let deleted = async {
            // What is open is given back when the server notices.
            while server.attacker.ask(&request, JSON, b"").await.is_none_or(|(code, _)| code == 429) {}
        };
        timeout(SLOW, deleted).await.context("the attacker is locked out for good")?;
    }
    Ok(told)
}

/// Expensive ones, over all connections, as fast as they are answered.
async fn requests(server: &Server) -> Result<String> {
    let end = Instant::now() + SLOW;
    let selector = vec!["a!=b"; 1_000].join(",");
    let request = format!("GET {MAPS}?labelSelector={selector}");
    let many = stream::iter(0..EACH).map(|_| async {
        let mut codes = Codes::default();
        while Instant::now() < end {
            codes.count(server.attacker.ask(&request, JSON, b"").await.map(|(code, _)| code));
        }
        codes
    });
    let all: Vec<Codes> = many.buffer_unordered(EACH).collect().await;
    let mut codes = Codes::default();
    for (code, count) in all.into_iter().flat_map(|codes| codes.0) {
        *codes.0.entry(code).or_default() += count;
    }
    codes.only(&[0, 200, 429])
}

//! A registry in this process with as many faults as a test wants.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{StreamExt, stream};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ropewalk_core::images::reference::Digest;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Whom it lets in.
#[derive(Clone, Copy)]
pub enum Auth {
    /// Everyone.
    None,
    /// Who presents these.
    Basic {
        /// User name.
        user: &'static str,
        /// Password.
        password: &'static str,
    },
    /// Who has a token from it, which it gives for these.
    Token {
        /// User name.
        user: &'static str,
        /// Password.
        password: &'static str,
    },
}

/// What it speaks.
pub enum Tls {
    /// Plain HTTP.
    No,
    /// TLS, under an authority of its own.
    Yes,
}

/// What it does instead of answering.
#[derive(Clone)]
pub enum Odd {
    /// This, without a body.
    Status(StatusCode),
    /// This body.
    Body(Vec<u8>),
    /// Not now, but after so many seconds.
    Later(u64),
    /// So many bytes of what was asked for, and then the connection breaks.
    Cut(usize),
    /// A body that does not end.
    Endless,
    /// To this address.
    Redirect(String),
    /// 401 with this challenge.
    Challenge(String),
    /// To have the content of this digest.
    Claims(Digest),
    /// Nothing, for ever.
    Silence,
}

/// The registry. Ends when it is dropped.
pub struct Fake {
    /// `host:port`
    pub host: String,
    /// In PEM, for TLS.
    pub authority: String,
    shared: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Shared {
    host: String,
    auth: Auth,
    state: Mutex<Content>,
}

#[derive(Default)]
struct Content {
    /// Everything, by digest.
    blobs: HashMap<String, Vec<u8>>,
    /// `<repository>:<tag>` to digest.
    tags: HashMap<String, String>,
    odd: HashMap<String, Odd>,
    /// Once each, in this order.
    odd_once: HashMap<String, Vec<Odd>>,
    requests: Vec<String>,
}

impl Fake {
    /// Serves on a free port.
    pub async fn start(auth: Auth, tls: Tls) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let host = tcp.local_addr().expect("an address").to_string();
        let shared = Arc::new(Shared { host: host.clone(), auth, state: Mutex::default() });
        let app = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let (authority, server) = match tls {
            Tls::No => {
                (String::new(), tokio::spawn(async { axum::serve(tcp, app).await.expect("it serves") }))
            }
            Tls::Yes => {
                let (authority, acceptor) = certificates();
                let listener = TlsListener { tcp, acceptor };
                (authority, tokio::spawn(async { axum::serve(listener, app).await.expect("it serves") }))
            }
        };
        Self { host, authority, shared, server }
    }

    fn state(&self) -> MutexGuard<'_, Content> {
        self.shared.state.lock().expect("no panic")
    }

    fn put(&self, content: &Value) -> Digest {
        self.blob(content.to_string().into_bytes())
    }

    /// Has this content.
    pub fn blob(&self, content: Vec<u8>) -> Digest {
        let digest = Digest::of(&content);
        self.state().blobs.insert(digest.to_string(), content);
        digest
    }

    /// Has this manifest or index under a tag.
    pub fn tag(&self, repository: &str, tag: &str, manifest: &Value) -> Digest {
        let digest = self.put(manifest);
        self.state().tags.insert(format!("{repository}:{tag}"), digest.to_string());
        digest
    }

    fn manifest(&self, platform: &str, entrypoint: &[&str], cmd: &[&str]) -> Digest {
        let mut parts = platform.split('/');
        let config = self.put(&json!({
            "os": parts.next(), "architecture": parts.next(), "variant": parts.next().unwrap_or_default(),
            "config": { "Entrypoint": entrypoint, "Cmd": cmd },
        }));
        self.put(&json!({ "schemaVersion": 2, "config": { "digest": config.to_string() }, "layers": [] }))
    }

    /// Has one image.
    pub fn image(
        &self,
        repository: &str,
        tag: &str,
        platform: &str,
        entrypoint: &[&str],
        cmd: &[&str],
    ) -> Digest {
        let digest = self.manifest(platform, entrypoint, cmd);
        self.state().tags.insert(format!("{repository}:{tag}"), digest.to_string());
        digest
    }

    /// Has an image for each platform, with its ENTRYPOINT and CMD.
    pub fn index(&self, repository: &str, tag: &str, images: &[(&str, &[&str], &[&str])]) -> Digest {
        let manifests: Vec<Value> = images
            .iter()
            .map(|(platform, entrypoint, cmd)| {
                let digest = self.manifest(platform, entrypoint, cmd).to_string();
                let mut parts = platform.split('/');
                let mut platform = json!({ "os": parts.next(), "architecture": parts.next() });
                if let Some(variant) = parts.next() {
                    platform["variant"] = variant.into();
                }
                json!({ "digest": digest, "platform": platform })
            })
            .collect();
        let digest = self.put(&json!({ "schemaVersion": 2, "manifests": manifests }));
        self.state().tags.insert(format!("{repository}:{tag}"), digest.to_string());
        digest
    }

    fn find(&self, text: &str) -> String {
        let state = self.state();
        let mut found =
            state.blobs.iter().filter(|(_, content)| String::from_utf8_lossy(content).contains(text));
        found.next().map(|(digest, _)| digest.clone()).expect("content with this text")
    }

    /// The configuration with this program in it.
    pub fn config_of(&self, program: &str) -> String {
        self.find(&format!("[\"{program}\""))
    }

    /// Loses the manifest of the image with this program.
    pub fn forget(&self, program: &str) {
        let config = self.config_of(program);
        let manifest = self.find(&format!("{{\"config\":{{\"digest\":\"{config}"));
        self.state().blobs.remove(&manifest);
    }

    /// Gives another registry a copy of some content.
    pub fn lend(&self, digest: &str, other: &Self) {
        let content = self.state().blobs[digest].clone();
        other.state().blobs.insert(digest.to_owned(), content);
    }

    /// Answers `<METHOD> <path>` otherwise from now on.
    pub fn odd(&self, request: &str, odd: Odd) {
        self.state().odd.insert(request.to_owned(), odd);
    }

    /// Answers `<METHOD> <path>` otherwise the next time.
    pub fn odd_once(&self, request: &str, odd: Odd) {
        self.state().odd_once.entry(request.to_owned()).or_default().push(odd);
    }

    /// Answers as usual again.
    pub fn mend(&self, request: &str) {
        self.state().odd.remove(request);
    }

    /// The requests since the last time, and what they came with.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state().requests)
    }
}

/// An authority in PEM, and a server with a certificate by it.
fn certificates() -> (String, TlsAcceptor) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority =
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    let leaf = params.signed_by(&key, &authority).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("protocols")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key.into())
        .expect("a usable key");
    (authority.pem(), TlsAcceptor::from(Arc::new(config)))
}

struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, peer) = self.tcp.accept().await.expect("a connection");
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let authorization = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let with = match authorization.split_once(' ') {
        Some(("Basic", _)) => " with a password",
        Some(("Bearer", _)) => " with a token",
        _ => "",
    };
    let range = request.headers().get(header::RANGE).and_then(|value| value.to_str().ok());
    let from = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let (odd, content) = {
        let mut state = shared.state.lock().expect("no panic");
        let from = from.map(|from| format!(" from {from}")).unwrap_or_default();
        state.requests.push(format!("{method} {path}{with}{from}"));
        let parts: Vec<&str> = path.split('/').collect();
        let [.., kind, name] = parts[..] else { return StatusCode::NOT_FOUND.into_response() };
        let repository =
            path.strip_prefix("/v2/").and_then(|rest| rest.strip_suffix(&format!("/{kind}/{name}")));
        let digest = state.tags.get(&format!("{}:{name}", repository.unwrap_or_default()));
        let digest = digest.cloned().unwrap_or_else(|| name.to_owned());
        let content = state.blobs.get(&digest).map(|content| (digest, content.clone()));
        let request = format!("{method} {path}");
        let once = state.odd_once.get_mut(&request).filter(|odds| !odds.is_empty());
        let once = once.map(|odds| odds.remove(0));
        (once.or_else(|| state.odd.get(&request).cloned()), content)
    };
    match odd {
        None => {}
        Some(Odd::Status(status)) => return status.into_response(),
        Some(Odd::Later(seconds)) => {
            let after = [(header::RETRY_AFTER, seconds.to_string())];
            return (StatusCode::TOO_MANY_REQUESTS, after).into_response();
        }
        Some(Odd::Cut(bytes)) => {
            let (_, content) = content.expect("something to cut");
            let length = content.len();
            let begin = Ok(Bytes::copy_from_slice(&content[..bytes]));
            // The server sends what it has when there is nothing more for the moment.
            let end = stream::once(async {
                tokio::task::yield_now().await;
                Err(std::io::Error::other("cut"))
            });
            let chunks = stream::once(async { begin }).chain(end);
            return ([(header::CONTENT_LENGTH, length)], Body::from_stream(chunks)).into_response();
        }
        Some(Odd::Body(body)) => return body.into_response(),
        Some(Odd::Endless) => {
            let chunks = stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 8 << 10])));
            return Body::from_stream(chunks).into_response();
        }
        Some(Odd::Redirect(to)) => {
            return (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to)]).into_response();
        }
        Some(Odd::Challenge(challenge)) => return refuse(challenge),
        Some(Odd::Claims(digest)) => return [("docker-content-digest", digest.to_string())].into_response(),
        Some(Odd::Silence) => std::future::pending().await,
    }
    let basic =
        |user: &str, password: &str| format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    match shared.auth {
        Auth::None => {}
        Auth::Basic { user, password } if authorization == basic(user, password) => {}
        Auth::Basic { .. } => return refuse("Basic realm=\"here\"".to_owned()),
        Auth::Token { user, password } if path == "/token" => {
            let query = request.uri().query().unwrap_or_default();
            let known = authorization == basic(user, password)
                && query.contains("service=the+registry")
                && query.contains("scope=repository%3A");
            return if known {
                json!({ "token": "t0ken" }).to_string().into_response()
            } else {
                StatusCode::UNAUTHORIZED.into_response()
            };
        }
        Auth::Token { .. } if authorization == "Bearer t0ken" => {}
        Auth::Token { .. } => {
            let host = &shared.host;
            return refuse(format!("Bearer realm=\"http://{host}/token\",service=\"the registry\""));
        }
    }
    let Some((digest, content)) = content else { return StatusCode::NOT_FOUND.into_response() };
    let mut headers = HeaderMap::new();
    headers.insert("docker-content-digest", digest.parse().expect("a header"));
    match (method, from) {
        (Method::HEAD, _) => headers.into_response(),
        (_, Some(from)) => {
            let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
            let range = [(header::CONTENT_RANGE, range)];
            (StatusCode::PARTIAL_CONTENT, range, headers, content[from..].to_vec()).into_response()
        }
        _ => (headers, content).into_response(),
    }
}

fn refuse(challenge: String) -> Response {
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
}

//! WebSockets, and watches over them for browsers: each event is one text message.

use std::sync::Arc;

use super::{ResponseBody, clients::Place, whole};
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message, Utf8Bytes,
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

/// A connection that has become a WebSocket.
pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Bytes of a message from the client of a watch: it has nothing to say here, and control messages have at most 125.
const MESSAGE: usize = 1024;

/// A request to go on as a WebSocket.
pub(super) struct Offer {
    upgrade: OnUpgrade,
    key: HeaderValue,
    place: Arc<Place>,
}

impl Offer {
    /// The offer of a request, if it makes one and comes over a connection that can take it.
    pub(super) fn of<B>(request: &Request<B>) -> Option<Self> {
        let headers = request.headers();
        let says = |name: header::HeaderName, word: &str| {
            let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
            values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
        };
        let asked = says(header::CONNECTION, "upgrade")
            && says(header::UPGRADE, "websocket")
            && says(header::SEC_WEBSOCKET_VERSION, "13");
        let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| asked)?.clone();
        let upgrade = request.extensions().get::<OnUpgrade>()?.clone();
        let place = request.extensions().get().cloned()?;
        Some(Self { upgrade, key, place })
    }

    /// Answers that the connection changes, under a subprotocol that the client offered, and converses over it once it
    /// has; until then, or until the listener ends. A message of the client may have `limit` bytes.
    pub(super) fn accept<F>(
        self,
        protocol: Option<&'static str>,
        limit: usize,
        converse: impl FnOnce(Socket) -> F + Send + 'static,
    ) -> Response<ResponseBody>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let accepted = HeaderValue::from_str(&derive_accept_key(self.key.as_bytes()));
        let mut response = Response::new(whole(Bytes::new()));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        if let Ok(accepted) = accepted {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accepted);
        }
        if let Some(protocol) = protocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        }
        let Self { upgrade, place, .. } = self;
        tokio::spawn(async move {
            let conversation = async {
                let Ok(connection) = upgrade.await else { return };
                let mut config = WebSocketConfig::default();
                config.max_message_size = Some(limit);
                config.max_frame_size = Some(limit);
                let connection = TokioIo::new(connection);
                converse(WebSocketStream::from_raw_socket(connection, Role::Server, Some(config)).await)
                    .await;
            };
            tokio::select! {
                () = place.over() => {}
                () = conversation => {}
            }
        });
        response
    }
}

/// Answers a watch with a WebSocket.
pub(super) fn watch(offer: Offer, events: ResponseBody) -> Response<ResponseBody> {
    offer.accept(None, MESSAGE, |socket| send(socket, events))
}

/// Sends events until there are no more or the client goes.
async fn send(socket: Socket, mut events: ResponseBody) {
    let (mut to, mut from) = socket.split();
    loop {
        tokio::select! {
            frame = events.frame() => {
                let Some(Ok(frame)) = frame else { break };
                let Ok(lines) = frame.into_data() else { continue };
                for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    let Ok(text) = Utf8Bytes::try_from(lines.slice_ref(line)) else { return };
                    if to.send(Message::Text(text)).await.is_err() {
                        return;
                    }
                }
            }
            // Reading answers pings, and tells when the client has gone.
            message = from.next() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
        }
    }
    to.close().await.ok();
}

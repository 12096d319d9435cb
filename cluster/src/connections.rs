//! The connections of a listener: so many at once, and of these so many from one address, so that whoever opens many
//! keeps out nobody else. Accepts from a socket.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

/// The pause when no connection can be accepted, as when file descriptors have run out.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// A listener whose connections have places.
pub struct Connections {
    listener: TcpListener,
    all: Arc<Semaphore>,
    each: usize,
    open: Arc<Open>,
}

/// A connection's place, until it is dropped.
pub struct Place {
    _of_all: OwnedSemaphorePermit,
    address: IpAddr,
    open: Arc<Open>,
}

/// How many are open from each address; none that has none.
#[derive(Default)]
struct Open(Mutex<HashMap<IpAddr, usize>>);

impl Connections {
    /// At most `all` connections at once, and `each` from one address.
    pub fn new(listener: TcpListener, all: usize, each: usize) -> Self {
        Self { listener, all: Arc::new(Semaphore::new(all)), each, open: Arc::default() }
    }

    /// The next connection, once there is a place for one. Those of an address that has all of its places are closed.
    pub async fn next(&self) -> (TcpStream, Place) {
        loop {
            // It is never closed.
            let Ok(of_all) = Arc::clone(&self.all).acquire_owned().await else {
                std::future::pending().await
            };
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    // One that listens on IPv6 sees IPv4 as a part of it.
                    let address = peer.ip().to_canonical();
                    if self.open.enter(address, self.each) {
                        return (stream, Place { _of_all: of_all, address, open: Arc::clone(&self.open) });
                    }
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot accept a connection");
                    sleep(EXHAUSTED).await;
                }
            }
        }
    }
}

impl Open {
    fn enter(&self, address: IpAddr, each: usize) -> bool {
        let mut open = self.lock();
        let count = open.entry(address).or_default();
        let has_place = *count < each;
        *count += usize::from(has_place);
        has_place
    }

    fn leave(&self, address: IpAddr) {
        let mut open = self.lock();
        let left = open.get(&address).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            open.remove(&address);
        } else {
            open.insert(address, left);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.leave(self.address);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use futures::FutureExt;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpSocket;

    use super::*;

    const GREEDY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
    const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

    async fn connections(all: usize, each: usize) -> (Connections, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        (Connections::new(listener, all, each), address)
    }

    async fn connect(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((from, 0).into()).expect("an address of this machine");
        socket.connect(to).await.expect("a connection")
    }

    #[tokio::test]
    async fn who_has_all_its_places_is_sent_away_and_keeps_out_nobody_else() {
        let (connections, to) = connections(3, 2).await;
        let mut clients = Vec::new();
        for from in [GREEDY, GREEDY, GREEDY, OTHER] {
            clients.push(connect(from, to).await);
        }
        let mut served = Vec::new();
        for from in [GREEDY, GREEDY, OTHER] {
            let (stream, place) = connections.next().await;
            assert_eq!(stream.peer_addr().expect("a peer").ip(), from);
            served.push((stream, place));
        }
        assert_eq!(clients[2].read(&mut [0]).await.expect("an end"), 0);

        clients.push(connect(OTHER, to).await);
        assert!(connections.next().now_or_never().is_none(), "every place is taken");
        served.remove(0);
        let (stream, _place) = connections.next().await;
        assert_eq!(stream.peer_addr().expect("a peer").ip(), OTHER);
        served.clear();
        clients.push(connect(GREEDY, to).await);
        let (stream, _place) = connections.next().await;
        assert_eq!(stream.peer_addr().expect("a peer").ip(), GREEDY);
    }

    #[tokio::test]
    async fn addresses_without_connections_are_forgotten() {
        let (connections, to) = connections(2, 2).await;
        let _client = connect(GREEDY, to).await;
        let (_stream, place) = connections.next().await;
        assert_eq!(connections.open.lock().len(), 1);
        drop(place);
        assert!(connections.open.lock().is_empty());
    }
}

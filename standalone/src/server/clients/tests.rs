use http_body_util::{BodyExt as _, Full};
use tokio::time::Instant;

use super::*;

fn account(namespace: &str, name: &str) -> User {
    User { name: format!("system:serviceaccount:{namespace}:{name}"), ..User::default() }
}

async fn place(clients: &Arc<Clients>) -> Arc<Place> {
    clients.enter(clients.socket().await.unwrap())
}

/// So many connections of a user, and one that is not to be had any more.
async fn all_of(clients: &Arc<Clients>, user: &User, count: usize) -> Vec<Arc<Place>> {
    let mut places = Vec::new();
    for _ in 0..count {
        let place = place(clients).await;
        place.claim(user).unwrap();
        places.push(place);
    }
    assert_eq!(place(clients).await.claim(user).err(), Some(Busy), "{user:?}");
    places
}

#[tokio::test]
async fn strangers_make_room_for_others() {
    let clients = Clients::new();
    let known = place(&clients).await;
    known.claim(&account("a", "x")).unwrap();
    let mut strangers = Vec::new();
    for _ in 0..STRANGERS + 10 {
        strangers.push(place(&clients).await);
    }
    let ended: Vec<bool> = strangers.iter().map(|place| place.over.is_cancelled()).collect();
    let expected = [vec![true; 10], vec![false; STRANGERS]].concat();
    assert_eq!(ended, expected, "those that came first");
    assert!(!known.over.is_cancelled());
    // Who has gone counts no more.
    strangers.truncate(20);
    place(&clients).await;
    assert!(!strangers[10].over.is_cancelled());
    clients.end();
    assert!(known.over.is_cancelled());
}

#[tokio::test]
async fn connections_are_bounded_for_each_namespace_and_in_all() {
    let clients = Clients::new();
    let mut places = all_of(&clients, &account("a", "x"), CONNECTIONS_EACH).await;
    // Another account of the same namespace is the same client.
    assert_eq!(place(&clients).await.claim(&account("a", "y")).err(), Some(Busy));
    // The same connection again is not another one, and one that ends makes room.
    places[0].claim(&account("a", "y")).unwrap();
    places.pop();
    places.push(place(&clients).await);
    places.last().unwrap().claim(&account("a", "x")).unwrap();
    for namespace in ["b", "c", "d"] {
        places.extend(all_of(&clients, &account(namespace, "x"), CONNECTIONS_EACH).await);
    }
    assert_eq!(places.len(), CONNECTIONS);
    assert_eq!(place(&clients).await.claim(&account("e", "x")).err(), Some(Busy), "all are taken");
    all_of(&clients, &User::admin(), CONNECTIONS_EACH).await;
    // A connection that is somebody else's from now on gives back what it had.
    places[0].claim(&User::admin()).unwrap();
    place(&clients).await.claim(&account("e", "x")).unwrap();
}

#[tokio::test]
async fn a_client_without_connections_is_forgotten() {
    let clients = Clients::new();
    for index in 0..1000 {
        place(&clients).await.claim(&account(&format!("n{index}"), "x")).unwrap();
    }
    assert!(lock(&clients.known).len() <= 2, "{}", lock(&clients.known).len());
}

#[tokio::test]
async fn answers_have_room_until_they_are_sent() {
    let clients = Clients::new();
    let place = place(&clients).await;
    let client = place.claim(&account("a", "x")).unwrap();
    let bytes: Vec<u8> = (0..=255).cycle().take(10 * SLICE + 1).collect();
    let answer = || {
        Response::new(Full::new(Bytes::from(bytes.clone())).map_err(|never| match never {}).boxed_unsync())
    };
    let fits = BYTES_EACH / bytes.len();
    let mut sending: Vec<_> = (0..fits).map(|_| read(answer(), &client)).collect();
    assert!(sending.iter().all(|answer| answer.status() == StatusCode::OK));
    let refused = read(answer(), &client);
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()[header::RETRY_AFTER], "1");

    let mut body = sending.pop().unwrap().into_body();
    assert_eq!(body.size_hint().exact(), Some(bytes.len() as u64));
    let mut sent = Vec::new();
    while let Some(frame) = body.frame().await {
        let data = frame.unwrap().into_data().unwrap();
        assert!(data.len() <= SLICE);
        sent.extend(data);
    }
    assert_eq!(sent, bytes);
    drop(body);
    assert_eq!(read(answer(), &client).status(), StatusCode::OK);
    // Others have what they had, and one answer may be all there is.
    let other = self::place(&clients).await.claim(&account("b", "x")).unwrap();
    let all = other.room(2 * BYTES_EACH).unwrap();
    assert_eq!(other.room(1).err(), Some(Busy));
    drop(all);
    other.room(1).unwrap();
}

#[tokio::test(start_paused = true)]
async fn writes_wait_for_room_and_not_for_ever() {
    let clients = Clients::new();
    let client = place(&clients).await.claim(&account("a", "x")).unwrap();
    let mut rooms = Vec::new();
    for _ in 0..BYTES_EACH / BODY_LIMIT {
        rooms.push(client.room_to_write().await.unwrap());
    }
    let begun = Instant::now();
    assert_eq!(client.room_to_write().await.err(), Some(Busy));
    assert_eq!(begun.elapsed(), ROOM);
    // An answer that is small gives back the rest while it is sent.
    let small = Response::new(whole("small"));
    let small = written(small, rooms.pop().unwrap());
    rooms.push(client.room_to_write().await.unwrap());
    drop(small);
}

#[tokio::test]
async fn one_request_of_each_client_at_a_time() {
    let clients = Clients::new();
    let (one, other) = (place(&clients).await, place(&clients).await);
    let (one, other) = (one.claim(&account("a", "x")).unwrap(), other.claim(&account("b", "x")).unwrap());
    let turn = one.turn().await;
    assert!(futures::poll!(std::pin::pin!(one.turn())).is_pending());
    assert!(futures::poll!(std::pin::pin!(other.turn())).is_ready());
    drop(turn);
    assert!(futures::poll!(std::pin::pin!(one.turn())).is_ready());
}

#[tokio::test]
async fn sessions_are_bounded_for_each_namespace_and_leave_half_to_the_administrator() {
    let clients = Clients::new();
    let client = async |user: &User| {
        let place = place(&clients).await;
        (place.claim(user).unwrap(), place)
    };
    let (first, _first) = client(&account("a", "x")).await;
    let mut open: Vec<Room> = (0..SESSIONS_EACH).map(|_| first.session().unwrap()).collect();
    assert_eq!(first.session().err(), Some(Busy));
    let (second, _second) = client(&account("b", "x")).await;
    open.extend((SESSIONS_EACH..SESSIONS_COMMON).map(|_| second.session().unwrap()));
    assert_eq!(second.session().err(), Some(Busy), "all that is not the administrator's is taken");
    let (admin, _admin) = client(&User::admin()).await;
    assert!((SESSIONS_COMMON..SESSIONS).all(|_| admin.session().map(|room| open.push(room)).is_ok()));
    open.clear();
    first.session().unwrap();
}

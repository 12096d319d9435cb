//! Blobs, from a registry in this process that does not always send them whole.

use std::time::{Duration, Instant};

use ropewalk_core::images::keyring::Keyring;
use ropewalk_core::images::reference::{Digest, Reference};
use ropewalk_registry::fake::{Auth, Fake, Odd, Tls};
use ropewalk_registry::{Access, Error, Registries, StatusCode};
use tokio::sync::{mpsc, watch};

/// More than one chunk of any library's.
const SIZE: usize = 300_000;

async fn download(fake: &Fake, digest: &Digest, size: usize) -> Result<Vec<u8>, Error> {
    let registries = Registries::new(watch::channel(String::new()).1, "", None);
    let reference: Reference = format!("{}/app:v1", fake.host).parse().expect("a reference");
    let keyring = Keyring::default();
    let sessions = registries.sessions(&reference, Access { keyring: &keyring, advice: "" })?;
    let (sender, mut pieces) = mpsc::channel::<bytes::Bytes>(4);
    let receive = tokio::spawn(async move {
        let mut content = Vec::new();
        while let Some(piece) = pieces.recv().await {
            content.extend_from_slice(&piece);
        }
        content
    });
    sessions.registry.download(digest, size as u64, &sender).await?;
    drop(sender);
    Ok(receive.await.expect("no panic"))
}

struct Blob {
    fake: Fake,
    content: Vec<u8>,
    digest: Digest,
    path: String,
}

impl Blob {
    async fn new() -> Self {
        let fake = Fake::start(Auth::None, Tls::No).await;
        let content: Vec<u8> = (0..SIZE).map(|index| u8::try_from(index % 251).expect("a byte")).collect();
        let digest = fake.blob(content.clone());
        let path = format!("GET /v2/app/blobs/{digest}");
        Self { fake, content, digest, path }
    }

    async fn error(&self, size: usize) -> String {
        let error = download(&self.fake, &self.digest, size).await.expect_err("it cannot be had");
        error.to_string().replace(&self.fake.host, "HOST")
    }
}

#[tokio::test]
async fn a_transfer_goes_on_where_it_broke() {
    let blob = Blob::new().await;
    blob.fake.odd_once(&blob.path, Odd::Cut(100_000));
    blob.fake.odd_once(&blob.path, Odd::Status(StatusCode::BAD_GATEWAY));
    assert!(download(&blob.fake, &blob.digest, SIZE).await.expect("a blob") == blob.content);
    let path = &blob.path;
    let requests = blob.fake.requests();
    assert_eq!(requests[0], *path);
    let from = |request: &String| {
        let from = request.strip_prefix(path)?.strip_prefix(" from ")?;
        from.parse::<usize>().ok()
    };
    let from: Vec<_> = requests[1..].iter().map(from).collect();
    assert_eq!(from.len(), 2, "{requests:?}");
    assert!(from[0].is_some_and(|from| from > 0 && from <= 100_000), "{requests:?}");
    assert_eq!(from[0], from[1]);
}

#[tokio::test]
async fn a_server_without_ranges_begins_again() {
    let blob = Blob::new().await;
    blob.fake.odd_once(&blob.path, Odd::Cut(100_000));
    blob.fake.odd_once(&blob.path, Odd::Body(blob.content.clone()));
    assert!(download(&blob.fake, &blob.digest, SIZE).await.expect("a blob") == blob.content);
}

#[tokio::test]
async fn a_blob_that_ends_early_is_asked_for_again() {
    let blob = Blob::new().await;
    blob.fake.odd_once(&blob.path, Odd::Body(blob.content[..10].to_vec()));
    assert!(download(&blob.fake, &blob.digest, SIZE).await.expect("a blob") == blob.content);
    assert_eq!(blob.fake.requests(), [blob.path.clone(), format!("{} from 10", blob.path)]);
}

#[tokio::test]
async fn no_more_is_taken_than_the_manifest_says() {
    let blob = Blob::new().await;
    let expected = format!(
        "registry \"HOST\" sends more for blob \"{}\" than the {} bytes it should have",
        blob.digest,
        SIZE - 1
    );
    assert_eq!(blob.error(SIZE - 1).await, expected);
    blob.fake.odd(&blob.path, Odd::Endless);
    assert_eq!(blob.error(SIZE - 1).await, expected);
    assert_eq!(blob.fake.requests().len(), 2, "neither is tried again");
}

#[tokio::test]
async fn a_registry_is_left_alone_for_as_long_as_it_asks() {
    let blob = Blob::new().await;
    blob.fake.odd_once(&blob.path, Odd::Later(1));
    let began = Instant::now();
    download(&blob.fake, &blob.digest, SIZE).await.expect("a blob");
    assert!(began.elapsed() >= Duration::from_secs(1));
    blob.fake.odd(&blob.path, Odd::Later(3600));
    assert_eq!(
        blob.error(SIZE).await,
        "registry \"HOST\" answers 429 Too Many Requests; it wants to be asked again in 3600 s"
    );
}

#[tokio::test]
async fn a_blob_that_is_not_there() {
    let blob = Blob::new().await;
    let other = Digest::of(b"other");
    let error = download(&blob.fake, &other, 5).await.expect_err("it is not there");
    let expected = format!(
        "registry \"{}\" has no image \"app\" in version \"{other}\"; check its name and who may see it",
        blob.fake.host
    );
    assert_eq!(error.to_string(), expected);
}

/// The place a registry sends to may ask for credentials: it gets neither them nor a token that they open.
#[tokio::test]
async fn a_place_that_a_registry_sends_to_asks_in_vain() {
    let thief = Fake::start(Auth::Token { user: "u", password: "p" }, Tls::No).await;
    let blob = Blob::new().await;
    let there = format!("http://{}/v2/app/blobs/{}", thief.host, blob.digest);
    blob.fake.odd(&blob.path, Odd::Redirect(there));
    assert_eq!(blob.error(SIZE).await, "registry \"HOST\" answers 401 Unauthorized");
    assert_eq!(thief.requests(), std::slice::from_ref(&blob.path));
}

//! Pulls from registries in this process into a store on the disk.

mod layer;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ropewalk_api::errors::chain;
use ropewalk_core::images::keyring::Keyring;
use ropewalk_core::images::reference::Digest;
use ropewalk_images::{Image, Limits, Origin, Store};
use ropewalk_pull::{HOSTS, Kind, Progress, PullError, Puller, registries};
use ropewalk_registry::fake::{Auth, Fake, Odd, Tls};
use rstest::rstest;
use serde_json::{Value, json};
use tempfile::TempDir;

use layer::Layer;

const PASSWORD: &str = "hidden-password";
const USER: &str = "robot$ci";
const TOKEN: Auth = Auth::Token { user: USER, password: PASSWORD };

/// Far beyond what any of this takes.
const PATIENCE: Duration = Duration::from_mins(1);

/// A node's images, and what it knows of registries.
struct Node {
    directory: TempDir,
    store: Store,
    puller: Puller,
}

impl Node {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(&directory.path().join("images"), Limits::default()).expect("a store");
        let puller = Puller::new(store.clone(), registries(directory.path().join(HOSTS)));
        Self { directory, store, puller }
    }

    fn configure(&self, host: &str, file: &str, content: &str) {
        let directory = self.directory.path().join(HOSTS).join(host);
        fs::create_dir_all(&directory).expect("a directory");
        fs::write(directory.join(file), content).expect("a file");
    }

    async fn pull_as(&self, keyring: Keyring, image: &str) -> Result<Image, Arc<PullError>> {
        let reference = image.parse().expect("a reference");
        self.puller.pull(&reference, keyring, "log in", |_| {}).await
    }

    async fn pull(&self, image: &str) -> Result<Image, Arc<PullError>> {
        self.pull_as(Keyring::default(), image).await
    }

    /// Why not, with the registry's host as HOST; and nothing is here.
    async fn error(&self, keyring: Keyring, fake: &Fake, image: &str) -> (Kind, String) {
        let error = self.pull_as(keyring, image).await.expect_err("it cannot be pulled");
        let text = chain(&*error).replace(&fake.host, "HOST");
        assert!(!text.contains("hidden"), "{text}");
        assert!(self.store.list().expect("a list").is_empty());
        (error.kind(), text)
    }
}

fn keyring(host: &str, password: &str) -> Keyring {
    let mut keyring = Keyring::default();
    let config = json!({ "auths": { host: { "username": USER, "password": password } } });
    keyring.add_file("config.json", config.to_string().as_bytes());
    keyring
}

impl Layer {
    /// One file, of so many bytes that do not compress well.
    fn new(name: &str, size: usize) -> Self {
        let mut state = 1_u32;
        let content: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .take(size)
        .collect();
        Self::of(name, &content)
    }

    fn descriptor(&self) -> Value {
        json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": Digest::of(&self.blob).to_string(),
            "size": self.blob.len(),
        })
    }

    /// The request for it.
    fn request(&self, repository: &str) -> String {
        format!("GET /v2/{repository}/blobs/{}", Digest::of(&self.blob))
    }
}

fn layers() -> Vec<Layer> {
    (0..5).map(|index| Layer::new(&format!("file-{index}"), 1000 + 50_000 * index)).collect()
}

/// The architecture of this machine, in the words of images.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Gives an image for one platform to a registry: its manifest.
fn give(fake: &Fake, architecture: &str, layers: &[Layer]) -> Value {
    let config = json!({
        "os": "linux", "architecture": architecture, "config": { "Entrypoint": ["/e"] },
        "rootfs": { "type": "layers",
            "diff_ids": layers.iter().map(|layer| layer.diff_id.to_string()).collect::<Vec<_>>() },
    });
    let config = config.to_string().into_bytes();
    let size = config.len();
    let descriptors: Vec<_> = layers.iter().map(Layer::descriptor).collect();
    for layer in layers {
        fake.blob(layer.blob.clone());
    }
    json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": fake.blob(config).to_string(), "size": size },
        "layers": descriptors,
    })
}

/// An index of manifests that the registry gets, too.
fn index(fake: &Fake, images: &[(&str, &Value)]) -> Value {
    let manifests: Vec<_> = images
        .iter()
        .map(|(architecture, manifest)| {
            let content = manifest.to_string().into_bytes();
            let size = content.len();
            json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": size,
                "digest": fake.blob(content).to_string(),
                "platform": { "os": "linux", "architecture": architecture } })
        })
        .collect();
    json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests })
}

/// Gives `app:v1` for this machine to a registry: its name, and the digest of its manifest.
fn give_app(fake: &Fake, layers: &[Layer]) -> (String, Digest) {
    let digest = fake.tag("app", "v1", &give(fake, architecture(), layers));
    (format!("{}/app:v1", fake.host), digest)
}

fn names(image: &Image) -> Vec<String> {
    let names = |lower: &PathBuf| -> Vec<String> {
        let entries = fs::read_dir(lower).expect("a layer");
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect()
    };
    image.lowers.iter().flat_map(names).collect()
}

#[tokio::test]
async fn an_image_of_an_index_layer_by_layer_and_only_once() {
    let fake = Fake::start(TOKEN, Tls::No).await;
    let layers = layers();
    let mine = give(&fake, architecture(), &layers);
    let other = give(&fake, "s390x", &[]);
    let digest = fake.tag("team/app", "v1", &index(&fake, &[("s390x", &other), (architecture(), &mine)]));
    let node = Node::new();
    let name = format!("{}/team/app:v1", fake.host);
    let reference = name.parse().expect("a reference");
    let mut told = Vec::new();
    let image = node
        .puller
        .pull(&reference, keyring(&fake.host, PASSWORD), "log in", |progress: Progress| told.push(progress))
        .await
        .expect("an image");
    assert_eq!(names(&image), ["file-4", "file-3", "file-2", "file-1", "file-0"]);
    assert_eq!(image.reference, name);
    assert_eq!(image.origin, Origin::Pulled);
    assert_eq!(image.config.entrypoint, ["/e"]);
    let total: u64 = layers.iter().map(|layer| layer.blob.len() as u64).sum();
    assert!(told.iter().all(|progress| progress.done <= progress.total), "{told:?}");
    assert!(told.iter().any(|progress| progress.total == total && progress.done > 0), "{told:?}");
    let requests = fake.requests();
    for layer in &layers {
        let request = layer.request("team/app");
        let times = requests.iter().filter(|it| it.starts_with(&request)).count();
        assert_eq!(times, 1, "{requests:?}");
    }

    // By all its names it is here.
    let id = image.id;
    let by_manifest = Digest::of(mine.to_string().as_bytes());
    for digest in [&digest, &by_manifest] {
        let found = node.store.find(&format!("{}/team/app@{digest}", fake.host)).expect("a store");
        assert_eq!(found.map(|image| image.id).as_ref(), Some(&id));
    }
    // And asked for again it is only asked whether it is still the same.
    node.pull_as(keyring(&fake.host, PASSWORD), &name).await.expect("an image");
    let head = "HEAD /v2/team/app/manifests/v1";
    assert_eq!(
        fake.requests(),
        [head.to_owned(), "GET /token with a password".to_owned(), format!("{head} with a token")]
    );
}

#[tokio::test]
async fn a_tag_that_moves_costs_the_new_layers() {
    let fake = Fake::start(Auth::None, Tls::No).await;
    let node = Node::new();
    let mut layers = vec![Layer::new("base", 1000), Layer::new("old", 1000)];
    let (name, _) = give_app(&fake, &layers);
    let old = node.pull(&name).await.expect("an image");
    fake.requests();
    layers[1] = Layer::new("new", 1000);
    give_app(&fake, &layers);
    let new = node.pull(&name).await.expect("an image");
    assert_eq!(names(&new), ["new", "base"]);
    assert_ne!(old.id, new.id);
    let requests = fake.requests();
    assert!(requests.contains(&layers[1].request("app")), "{requests:?}");
    assert!(!requests.contains(&layers[0].request("app")), "{requests:?}");
    let found = node.store.find(&name).expect("a store").expect("an image");
    assert_eq!(found.id, new.id);
}

#[rstest]
#[case(TOKEN)]
#[case(Auth::Basic { user: USER, password: PASSWORD })]
#[tokio::test]
async fn who_may_not_have_it_is_told_what_was_tried(#[case] auth: Auth) {
    let fake = Fake::start(auth, Tls::No).await;
    let (name, _) = give_app(&fake, &layers());
    let node = Node::new();
    let begins =
        "image \"HOST/app:v1\" cannot be pulled: registry \"HOST\" refuses access (401 Unauthorized): ";
    let wrong = keyring(&fake.host, "hidden-too");
    let told = node.error(wrong, &fake, &name).await;
    assert_eq!(told, (Kind::Denied, format!("{begins}tried file \"config.json\"")));
    let none = node.error(Keyring::default(), &fake, &name).await;
    assert_eq!(none, (Kind::Denied, format!("{begins}there are no credentials; log in")));
    node.pull_as(keyring(&fake.host, PASSWORD), &name).await.expect("an image");
}

#[tokio::test]
async fn tokens_may_come_from_elsewhere() {
    let elsewhere = Fake::start(TOKEN, Tls::No).await;
    let fake = Fake::start(TOKEN, Tls::No).await;
    let (name, _) = give_app(&fake, &[Layer::new("file", 10)]);
    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"the registry\"", elsewhere.host);
    fake.odd_once("HEAD /v2/app/manifests/v1", Odd::Challenge(challenge));
    Node::new().pull_as(keyring(&fake.host, PASSWORD), &name).await.expect("an image");
    assert_eq!(elsewhere.requests(), ["GET /token with a password"]);
    let requests = fake.requests();
    assert!(!requests.iter().any(|request| request.contains("password")), "{requests:?}");
}

#[tokio::test]
async fn passwords_do_not_follow_whom_a_place_of_tokens_sends_elsewhere() {
    let stranger = Fake::start(Auth::None, Tls::No).await;
    let fake = Fake::start(TOKEN, Tls::No).await;
    let node = Node::new();
    let (name, _) = give_app(&fake, &[Layer::new("file", 10)]);
    fake.odd("GET /token", Odd::Redirect(format!("http://{}/token", stranger.host)));
    node.error(keyring(&fake.host, PASSWORD), &fake, &name).await;
    assert!(fake.requests().contains(&"GET /token with a password".to_owned()), "{:?}", fake.requests());
    assert_eq!(stranger.requests(), ["GET /token"], "without a password");
}

#[tokio::test]
async fn interruptions_are_lived_through() {
    let fake = Fake::start(Auth::None, Tls::No).await;
    let layers = layers();
    let (name, _) = give_app(&fake, &layers);
    fake.odd_once(&layers[4].request("app"), Odd::Cut(70_000));
    fake.odd_once(&layers[1].request("app"), Odd::Body(layers[1].blob[..100].to_vec()));
    fake.odd_once("HEAD /v2/app/manifests/v1", Odd::Later(1));
    let began = Instant::now();
    let node = Node::new();
    let image = node.pull(&name).await.expect("an image");
    assert_eq!(names(&image).len(), 5);
    assert!(began.elapsed() >= Duration::from_secs(1), "the registry asks to be left alone for so long");
}

#[tokio::test]
async fn a_layer_that_is_another_is_refused() {
    let fake = Fake::start(Auth::None, Tls::No).await;
    let layers = layers();
    let (name, _) = give_app(&fake, &layers);
    let mut other = layers[2].blob.clone();
    let last = other.len() - 1;
    other[last / 2] ^= 1;
    fake.odd(&layers[2].request("app"), Odd::Body(other.clone()));
    let (kind, text) = Node::new().error(Keyring::default(), &fake, &name).await;
    assert_eq!(kind, Kind::Invalid, "{text}");
    let expected = format!("a layer has digest {} and {} bytes in place of", Digest::of(&other), other.len());
    assert!(text.contains(&expected), "{text}");

    let config = fake.config_of("/e");
    fake.odd(&format!("GET /v2/app/blobs/{config}"), Odd::Body(b"{}".to_vec()));
    let (kind, text) = Node::new().error(Keyring::default(), &fake, &name).await;
    assert_eq!(kind, Kind::Invalid, "{text}");
    assert!(text.ends_with(&format!("content that is not what digest \"{config}\" stands for")), "{text}");
}

#[tokio::test]
async fn what_is_no_image_for_this_machine_is_told_as_what_it_is() {
    let fake = Fake::start(Auth::None, Tls::No).await;
    let node = Node::new();
    let image = |tag: &str| format!("{}/app:{tag}", fake.host);
    let begins = |tag: &str| format!("image \"HOST/app:{tag}\" cannot be pulled: ");

    let others = [("s390x", &give(&fake, "s390x", &[])), ("riscv64", &give(&fake, "riscv64", &[]))];
    fake.tag("app", "others", &index(&fake, &others));
    let expected = format!(
        "{}the image is for linux/s390x, linux/riscv64, and not for this machine, which is linux/{}",
        begins("others"),
        architecture()
    );
    let told = node.error(Keyring::default(), &fake, &image("others")).await;
    assert_eq!(told, (Kind::Invalid, expected));

    fake.tag("app", "old", &json!({ "schemaVersion": 1, "fsLayers": [], "history": [] }));
    let told = node.error(Keyring::default(), &fake, &image("old")).await;
    let expected = "it is in the old form of Docker's (schema 1); push it again with a current tool";
    assert_eq!(told, (Kind::Invalid, begins("old") + expected));

    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let mut manifest = give(&fake, architecture(), &layers());
    manifest["layers"][0]["mediaType"] = foreign.into();
    manifest["layers"][0]["urls"] = json!([format!("http://{}/", fake.host)]);
    fake.tag("app", "foreign", &manifest);
    let told = node.error(Keyring::default(), &fake, &image("foreign")).await;
    let expected = format!("it has a layer of type \"{foreign}\", which no registry may give away");
    assert_eq!(told, (Kind::Invalid, begins("foreign") + &expected));

    let inner = index(&fake, &[]);
    fake.tag("app", "nested", &index(&fake, &[(architecture(), &inner)]));
    let told = node.error(Keyring::default(), &fake, &image("nested")).await;
    assert_eq!(told.0, Kind::Invalid, "{}", told.1);

    let mut manifest = give(&fake, architecture(), &layers());
    manifest["layers"][0]["size"] = (1_u64 << 40).into();
    fake.tag("app", "large", &manifest);
    let told = node.error(Keyring::default(), &fake, &image("large")).await;
    assert_eq!(told, (Kind::Invalid, begins("large") + "its layers amount to more than 128 GiB"));

    let told = node.error(Keyring::default(), &fake, &image("none")).await;
    let expected =
        "registry \"HOST\" has no image \"app\" in version \"none\"; check its name and who may see it";
    assert_eq!(told, (Kind::NotFound, begins("none") + expected));
}

#[tokio::test]
async fn layers_come_from_elsewhere_without_our_credentials() {
    let elsewhere = Fake::start(Auth::None, Tls::No).await;
    let fake = Fake::start(TOKEN, Tls::No).await;
    let layers = layers();
    let (name, _) = give_app(&fake, &layers);
    for layer in &layers {
        let digest = elsewhere.blob(layer.blob.clone());
        let there = format!("http://{}/v2/store/blobs/{digest}", elsewhere.host);
        fake.odd(&layer.request("app"), Odd::Redirect(there));
    }
    Node::new().pull_as(keyring(&fake.host, PASSWORD), &name).await.expect("an image");
    let mut requests = elsewhere.requests();
    requests.sort_unstable();
    let mut expected: Vec<_> = layers.iter().map(|layer| layer.request("store")).collect();
    expected.sort_unstable();
    assert_eq!(requests, expected, "none with a token");
}

#[tokio::test]
async fn who_wants_the_same_waits_for_the_same() {
    let fake = Fake::start(Auth::None, Tls::No).await;
    let layers = layers();
    let (name, _) = give_app(&fake, &layers);
    let node = Node::new();
    let (one, two) = tokio::join!(node.pull(&name), node.pull(&name));
    assert_eq!(one.expect("an image").id, two.expect("an image").id);
    let requests = fake.requests();
    let times = requests.iter().filter(|request| **request == layers[0].request("app")).count();
    assert_eq!(times, 1, "{requests:?}");

    // Who has other credentials has to show them.
    let fake = Fake::start(TOKEN, Tls::No).await;
    let (name, _) = give_app(&fake, &layers);
    let (may, may_not) = tokio::join!(node.pull_as(keyring(&fake.host, PASSWORD), &name), node.pull(&name));
    may.expect("an image");
    assert_eq!(may_not.expect_err("it has no credentials").kind(), Kind::Denied);
}

#[tokio::test]
async fn a_registry_that_does_not_answer_holds_up_nobody_else() {
    let silent = Fake::start(Auth::None, Tls::No).await;
    let fake = Fake::start(Auth::None, Tls::No).await;
    let (name, _) = give_app(&fake, &layers());
    let node = Node::new();
    let stuck = (0..10).map(|index| {
        silent.odd(&format!("HEAD /v2/app-{index}/manifests/v1"), Odd::Silence);
        let (node, image) = (&node, format!("{}/app-{index}:v1", silent.host));
        async move { node.pull(&image).await }
    });
    tokio::select! {
        biased;
        stuck = futures::future::join_all(stuck) => panic!("{stuck:?}"),
        pulled = node.pull(&name) => assert_eq!(names(&pulled.expect("an image")).len(), 5),
    }
    let asked = silent.requests().len();
    assert!((1..=4).contains(&asked), "{asked} at once");
}

#[tokio::test]
async fn a_pull_that_nobody_waits_for_ends() {
    let fake = Fake::start(Auth::None, Tls::No).await;
    let layers = layers();
    let (name, _) = give_app(&fake, &layers);
    let last = layers[4].request("app");
    fake.odd(&last, Odd::Silence);
    let node = Node::new();
    let incoming = node.directory.path().join("images/incoming");
    let files = || fs::read_dir(&incoming).expect("a directory").count();
    let mut pull = Box::pin(node.pull(&name));
    let asked = async {
        while !fake.requests().contains(&last) {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        pulled = &mut pull => panic!("{pulled:?}"),
        asked = tokio::time::timeout(PATIENCE, asked) => asked.expect("it comes to the last layer"),
    }
    assert_eq!(files(), 1);
    drop(pull);
    // The threads that unpack are told, and remove what they have.
    let gone = async {
        while files() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("it is removed");

    // What was whole by then is not transferred again.
    fake.mend(&last);
    node.pull(&name).await.expect("an image");
    let requests = fake.requests();
    assert!(!requests.contains(&layers[0].request("app")), "{requests:?}");
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_the_registry_has_the_last_word() {
    let (registry, mirror) = (Fake::start(Auth::None, Tls::No).await, Fake::start(TOKEN, Tls::No).await);
    let layers = layers();
    let (name, _) = give_app(&registry, &layers);
    give_app(&mirror, &layers);
    let hosts = format!("[host.\"http://{}\"]\n", mirror.host);

    let node = Node::new();
    node.configure(&registry.host, "hosts.toml", &hosts);
    node.pull_as(keyring(&mirror.host, PASSWORD), &name).await.expect("an image");
    assert_eq!(registry.requests(), [""; 0]);

    // A mirror that lacks a layer, and one that lets nobody in.
    for (odd, keyring) in [
        (Odd::Status(ropewalk_registry::StatusCode::NOT_FOUND), keyring(&mirror.host, PASSWORD)),
        (Odd::Silence, Keyring::default()),
    ] {
        let node = Node::new();
        node.configure(&registry.host, "hosts.toml", &hosts);
        mirror.odd(&layers[3].request("app"), odd);
        let image = node.pull_as(keyring, &name).await.expect("an image");
        assert_eq!(names(&image).len(), 5);
    }

    registry.odd("HEAD /v2/app/manifests/v1", Odd::Status(ropewalk_registry::StatusCode::FORBIDDEN));
    registry.odd("GET /v2/app/manifests/v1", Odd::Status(ropewalk_registry::StatusCode::FORBIDDEN));
    let node = Node::new();
    node.configure(&registry.host, "hosts.toml", &hosts);
    let error = node.pull(&name).await.expect_err("nobody gives it");
    assert_eq!(error.kind(), Kind::Denied);
    assert_eq!(
        chain(&*error),
        format!(
            "image \"{name}\" cannot be pulled (from a mirror neither: registry \"{}\" refuses access (401 Unauthorized): \
             there are no credentials; log in): registry \"{}\" answers 403 Forbidden",
            mirror.host, registry.host
        )
    );
}

#[tokio::test]
async fn a_private_authority_is_trusted_for_its_registry() {
    let fake = Fake::start(TOKEN, Tls::Yes).await;
    let (name, _) = give_app(&fake, &layers());
    let node = Node::new();
    let (kind, text) = node.error(keyring(&fake.host, PASSWORD), &fake, &name).await;
    assert_eq!(kind, Kind::Unreachable);
    assert!(
        text.contains("its certificate is refused")
            && text.ends_with("\"certs.d/REGISTRY/ca.crt\" below the data directory"),
        "{text}"
    );
    assert_eq!(fake.requests(), [""; 0]);

    node.configure("_default", "hosts.toml", "skip_verify = true");
    let (kind, text) = node.error(keyring(&fake.host, PASSWORD), &fake, &name).await;
    assert_eq!(kind, Kind::Local);
    assert!(text.contains("_default/hosts.toml\" about registry \"HOST\" cannot be used"), "{text}");

    node.configure(&fake.host, "ca.crt", &fake.authority);
    // Its realm is told without https, which a registry with TLS may not do.
    let (kind, text) = node.error(keyring(&fake.host, PASSWORD), &fake, &name).await;
    assert_eq!(kind, Kind::Invalid);
    assert!(text.ends_with("asks for credentials at an address without https"), "{text}");

    let fake = Fake::start(Auth::Basic { user: USER, password: PASSWORD }, Tls::Yes).await;
    let (name, _) = give_app(&fake, &layers());
    node.configure(&fake.host, "ca.crt", &fake.authority);
    node.pull_as(keyring(&fake.host, PASSWORD), &name).await.expect("an image");
}

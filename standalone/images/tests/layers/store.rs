//! The store by itself: what is in it, what is refused, what others see meanwhile, and what a killed process leaves.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, SystemTime};

use ropewalk_images::{
    Blob, Digest, Image, Incoming, Layer, Limits, Origin, Reference, SHORT_ID, Store, StoreError,
};
use serde_json::{Value, json};

use crate::archive::{Archive, Compression};
use crate::lacks_root;

/// An image as it is transferred.
pub(crate) struct Parts {
    pub(crate) layers: Vec<(Layer, Vec<u8>)>,
    pub(crate) config: Vec<u8>,
}

/// What an image for this machine says about itself, with more of it.
pub(crate) fn config(layers: &[Archive], more: &Value) -> Vec<u8> {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(&layer.bytes()).to_string()).collect();
    let mut config = json!({
        "architecture": architecture, "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    for (key, value) in more.as_object().expect("an object") {
        config[key] = value.clone();
    }
    config.to_string().into_bytes()
}

pub(crate) fn parts(layers: &[Archive]) -> Parts {
    let blobs = layers.iter().map(|layer| {
        let content = layer.compressed(Compression::Gzip);
        let blob = Blob { digest: Digest::of(&content), size: content.len() as u64 };
        (Layer { diff_id: Digest::of(&layer.bytes()), blob: Some(blob) }, content)
    });
    Parts { layers: blobs.collect(), config: config(layers, &json!({})) }
}

/// One layer with one file; the content is what tells it from others.
fn layer(content: &str) -> Archive {
    Archive::default().dir("etc", 0o755).file("etc/content", 0o644, content.as_bytes())
}

fn store(directory: &Path) -> Store {
    Store::open(directory, Limits::default()).expect("a store")
}

fn reference(name: &str) -> Reference {
    name.parse().expect("a reference")
}

fn add_layers(incoming: &Incoming, parts: &Parts) -> Result<(), StoreError> {
    let mut below = Vec::new();
    for (layer, content) in &parts.layers {
        incoming.add_layer(&below, layer, &content[..])?;
        below.push(layer.diff_id.clone());
    }
    Ok(())
}

fn add(store: &Store, names: &[&str], layers: &[Archive]) -> Image {
    let (incoming, parts) = (store.begin().expect("begun"), parts(layers));
    add_layers(&incoming, &parts).expect("good layers");
    let names: Vec<_> = names.iter().map(|name| reference(name)).collect();
    incoming.finish(&names, &parts.config, Origin::Pulled).expect("a good image")
}

/// What the store has below a directory of its own.
fn entries(directory: &Path, name: &str) -> Vec<String> {
    let entries = fs::read_dir(directory.join(name)).expect("a directory");
    entries.map(|entry| entry.expect("readable").file_name().into_string().expect("text")).collect()
}

/// What users of the store see of an image.
fn content(image: &Image) -> Vec<String> {
    let file = |lower: &std::path::PathBuf| fs::read_to_string(lower.join("etc/content")).expect("a file");
    image.lowers.iter().map(file).collect()
}

#[test]
fn an_image_is_found_by_all_its_names() {
    if lacks_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(directory.path());
    let (manifest, index) = (Digest::of(b"manifest"), Digest::of(b"index"));
    let by_digest = format!("docker.io/library/app@{manifest}");
    let names = ["app", &by_digest, &format!("app@{index}"), "r.example:5000/team/app:v1"];
    let added = add(&store, &names, &[layer("base"), layer("top")]);
    assert_eq!(content(&added), ["top", "base"]);
    for (name, expected, pinned) in [
        ("app", "docker.io/library/app:latest", None),
        ("docker.io/library/app:latest", "docker.io/library/app:latest", None),
        ("index.docker.io/app", "docker.io/library/app:latest", None),
        (&format!("app@{manifest}"), &by_digest, Some(&by_digest)),
        (&format!("app:any@{manifest}"), &by_digest, Some(&by_digest)),
        ("r.example:5000/team/app:v1", "r.example:5000/team/app:v1", Some(&added.id.to_string())),
        (&added.id.to_string(), &added.id.to_string(), Some(&added.id.to_string())),
    ] {
        let found = store.find(name).expect("readable").expect(name);
        assert_eq!((&found.id, found.reference.as_str()), (&added.id, expected), "{name}");
        assert_eq!(found.lowers, added.lowers, "{name}");
        if let Some(pinned) = pinned {
            assert_eq!(&found.pinned, pinned, "{name}");
        } else {
            assert!(found.pinned.starts_with("docker.io/library/app@sha256:"), "{name}: {}", found.pinned);
        }
    }
    for name in
        ["app:v1", "r.example/team/app:v1", &format!("app@{}", Digest::of(b"")), &Digest::of(b"").to_string()]
    {
        assert!(store.find(name).expect("readable").is_none(), "{name}");
    }
    assert!(matches!(store.find("No Name"), Err(StoreError::Reference(_))));
    let listed = store.list().expect("readable");
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].references.len(), listed[0].size), (4, 7));
}

#[test]
fn what_an_image_says_about_itself_is_kept() {
    if lacks_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (store, one) = (store(directory.path()), [layer("one")]);
    let said = json!({
        "created": "2026-01-02T03:04:05Z", "history": null,
        "config": {
            "Env": ["A=b c"], "User": "app:1", "Entrypoint": ["/e"], "Cmd": ["x", ""], "WorkingDir": "/w",
            "StopSignal": "SIGUSR1", "Labels": {"k": "v"}, "Volumes": {"/v": {}}, "ExposedPorts": {"80/tcp": {}},
            "Healthcheck": {"Test": ["NONE"]}, "ArgsEscaped": true, "OnBuild": null,
        },
    });
    let (incoming, parts) = (store.begin().expect("begun"), parts(&one));
    add_layers(&incoming, &parts).expect("good layers");
    let image = incoming
        .finish(&[reference("a")], &config(&one, &said), Origin::Pulled)
        .expect("a good image")
        .config;
    assert_eq!(image.created.as_deref(), Some("2026-01-02T03:04:05Z"));
    assert_eq!((image.env, image.user.as_str()), (vec!["A=b c".to_owned()], "app:1"));
    assert_eq!((image.entrypoint, image.cmd), (vec!["/e".to_owned()], vec!["x".to_owned(), String::new()]));
    assert_eq!((image.working_dir.as_str(), image.stop_signal.as_deref()), ("/w", Some("SIGUSR1")));
    assert_eq!(image.labels.get("k").map(String::as_str), Some("v"));
    assert_eq!(image.volumes, ["/v"]);
    // Docker writes null for what is not there.
    let nothing =
        json!({"config": {"Env": null, "Cmd": null, "Entrypoint": null, "Labels": null, "Volumes": null}});
    let incoming = store.begin().expect("begun");
    assert!(incoming.has_layer(&[], &parts.layers[0].0.diff_id).expect("readable"));
    let image =
        incoming.finish(&[reference("b")], &config(&one, &nothing), Origin::Pulled).expect("a good image");
    assert!(image.config.env.is_empty() && image.config.volumes.is_empty());
}

#[test]
fn an_image_without_layers_is_an_empty_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let image = add(&store(directory.path()), &["scratch-like"], &[]);
    assert_eq!(image.lowers.len(), 1);
    assert_eq!(fs::read_dir(&image.lowers[0]).expect("a directory").count(), 0);
}

#[test]
fn layers_below_one_that_hides_them_are_left_out() {
    if lacks_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let hides = layer("hides").file(".wh..wh..opq", 0o644, b"");
    let image = add(&store(directory.path()), &["a"], &[layer("hidden"), hides, layer("top")]);
    assert_eq!(content(&image), ["top", "hides"]);
}

/// What is refused, and in which words.
#[test]
fn a_layer_that_is_not_what_it_should_be_is_refused() {
    if lacks_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(directory.path());
    let good = &parts(&[layer("a")]).layers[0];
    let (whole, length) = (&good.1, good.1.len());
    let blob = good.0.blob.clone().expect("it has one");
    let with = |blob: Option<Blob>| Layer { blob, ..good.0.clone() };
    let mut flipped = whole.clone();
    flipped[length / 2] ^= 1;
    let longer = [whole.clone(), b"more".to_vec()].concat();
    let other = layer("b").compressed(Compression::Gzip);
    let transfer = "transfer it again";
    let sized = |size| Some(Blob { size, ..blob.clone() });
    for (what, layer, content, expected) in [
        ("truncated", with(Some(blob.clone())), &whole[..length / 2], transfer),
        ("nothing", with(Some(blob.clone())), &[], transfer),
        ("a flipped bit", with(Some(blob.clone())), &flipped, transfer),
        ("another one", with(Some(blob.clone())), &other, transfer),
        ("longer than said", with(Some(blob.clone())), &longer, transfer),
        ("said to be shorter", with(sized(blob.size - 1)), whole, transfer),
        ("said to be longer", with(sized(blob.size + 1)), whole, transfer),
        ("truncated, with no digest", with(None), &whole[..length / 2], "cannot be unpacked"),
        ("another one, with no digest", with(None), &other, "the image was made wrong"),
    ] {
        let incoming = store.begin().expect("begun");
        let error = incoming.add_layer(&[], &layer, content).expect_err(what);
        assert!(error.to_string().contains(expected), "{what}: {error}");
        assert!(!incoming.has_layer(&[], &layer.diff_id).expect("readable"), "{what}");
        drop(incoming);
        assert!(entries(directory.path(), "layers").is_empty(), "{what}");
        assert!(entries(directory.path(), "incoming").is_empty(), "{what}");
    }
}

/// Fails as a connection does.
struct Broken<'a>(&'a [u8]);

impl Read for Broken<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::new(io::ErrorKind::ConnectionReset, "gone")),
            count => Ok(count),
        }
    }
}

#[test]
fn a_transfer_that_fails_is_told_as_such() {
    let directory = tempfile::tempdir().expect("a directory");
    let (layer, content) = &parts(&[Archive::default()]).layers[0];
    let incoming = store(directory.path()).begin().expect("begun");
    let error = incoming.add_layer(&[], layer, Broken(&content[..content.len() / 2])).expect_err("it fails");
    let mut causes = vec![error.to_string()];
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    assert!(causes.iter().any(|cause| cause.contains("gone")), "{causes:?}");
}

#[test]
fn an_image_needs_all_its_layers_and_this_machine() {
    if lacks_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (store, layers) = (store(directory.path()), [layer("a"), layer("b")]);
    let parts = parts(&layers);
    let incoming = store.begin().expect("begun");
    let [(first, content), (second, _)] = &parts.layers[..] else { panic!("two layers") };
    let upon_nothing = incoming.add_layer(std::slice::from_ref(&second.diff_id), first, &content[..]);
    assert!(matches!(upon_nothing, Err(StoreError::MissingLayer(_))), "{upon_nothing:?}");
    incoming.add_layer(&[], first, &content[..]).expect("a good layer");
    let half = incoming.finish(&[reference("a")], &parts.config, Origin::Pulled);
    assert!(matches!(half, Err(StoreError::MissingLayer(id)) if id == second.diff_id.to_string()));
    for (more, expected) in [
        (json!({"architecture": "s390x"}), "the image is for linux/s390x, and not for this machine"),
        (json!({"os": "windows"}), "the image is for windows/"),
        (json!({"rootfs": {"type": "layers", "diff_ids": ["md5:00"]}}), "names content in an unknown way"),
        (
            json!({"rootfs": {"type": "layers", "diff_ids": vec!["x"; 501]}}),
            "has 501 layers; overlayfs takes 500",
        ),
        (
            json!({"rootfs": {"type": "layers", "diff_ids": "x"}}),
            "is not what the OCI image specification describes",
        ),
        (json!({"author": "x".repeat(4 << 20)}), "more than 4194304 bytes"),
    ] {
        let error =
            store.begin().expect("begun").finish(&[reference("a")], &config(&layers, &more), Origin::Pulled);
        let error = error.expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(store.list().expect("readable").is_empty());
}

/// At once.
const LOADERS: usize = 4;

#[test]
fn of_several_that_add_one_layer_all_succeed() {
    if lacks_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let layers = [layer("base"), layer("top")];
    let barrier = Barrier::new(LOADERS);
    let ids: Vec<_> = std::thread::scope(|scope| {
        let loaders: Vec<_> = (0..LOADERS)
            .map(|number| {
                let (barrier, layers) = (&barrier, &layers);
                // Each opens it by itself, as processes do.
                let store = store(directory.path());
                scope.spawn(move || {
                    barrier.wait();
                    add(&store, &[&format!("app:v{number}")], layers)
                })
            })
            .collect();
        loaders.into_iter().map(|loader| loader.join().expect("it ends well")).map(|image| image.id).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(entries(directory.path(), "layers").len(), 2);
    assert!(entries(directory.path(), "incoming").is_empty());
    let listed = store(directory.path()).list().expect("readable");
    assert_eq!(listed[0].references.len(), LOADERS, "{listed:?}");
}

#[test]
fn what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not() {
    if lacks_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(directory.path());
    let (living, parts) = (store.begin().expect("begun"), parts(&[layer("a")]));
    add_layers(&living, &parts).expect("good layers");
    let dead = directory.path().join("incoming/dead/half/root/etc");
    fs::create_dir_all(&dead).expect("made");
    fs::write(dead.join("content"), "half").expect("written");
    let halves = ["", "configs"].map(|name| directory.path().join(name).join(".half-abc"));
    for half in &halves {
        fs::write(half, "{").expect("written");
    }
    let again = self::store(directory.path());
    assert_eq!(entries(directory.path(), "incoming").len(), 1, "the living one's");
    assert!(halves.iter().all(|half| !half.exists()));
    // Whoever prunes meanwhile leaves what the other one has added.
    assert_eq!(again.prune(0).expect("pruned").bytes, 0);
    living.finish(&[reference("a")], &parts.config, Origin::Pulled).expect("a good image");
    assert_eq!(content(&again.find("a").expect("readable").expect("it is here")), ["a"]);
}

#[test]
fn layers_of_what_was_never_finished_are_found_again_and_pruned() {
    if lacks_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (store, parts) = (store(directory.path()), parts(&[layer("12345")]));
    add_layers(&store.begin().expect("begun"), &parts).expect("good layers");
    let diff_id = &parts.layers[0].0.diff_id;
    assert!(store.begin().expect("begun").has_layer(&[], diff_id).expect("readable"));
    assert_eq!(store.prune(u64::MAX).expect("pruned").bytes, 5);
    assert!(!store.begin().expect("begun").has_layer(&[], diff_id).expect("readable"));
}

#[test]
fn names_go_one_by_one_and_the_image_with_the_last() {
    if lacks_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(directory.path());
    let by_digest = format!("app@{}", Digest::of(b"manifest"));
    let both = add(&store, &["app:1", "app:2", &by_digest], &[layer("base"), layer("one")]);
    add(&store, &["other"], &[layer("base"), layer("two!")]);
    let is_here = |name: &str| store.find(name).expect("readable").is_some();
    assert_eq!(store.remove("app:1").expect("removed").images, [""; 0]);
    assert!(is_here("app:2") && is_here(&by_digest) && !is_here("app:1"));
    let removed = store.remove("app:2").expect("removed");
    assert_eq!((removed.images, removed.bytes), (vec![both.id.to_string()], 3));
    assert!(!is_here("app:2") && !is_here(&by_digest) && is_here("other"));
    assert!(matches!(store.remove("app:2"), Err(StoreError::Unknown(name)) if name == "app:2"));
    assert!(matches!(store.remove(&both.id.to_string()), Err(StoreError::Unknown(_))));
    let other = store.find("other").expect("readable").expect("it is here");
    assert_eq!(content(&other), ["two!", "base"]);
    let id = other.id.to_string();
    let digits = |count: usize| &id["sha256:".len()..][..count];
    assert!(matches!(store.remove(digits(SHORT_ID - 1)), Err(StoreError::Unknown(_))));
    let removed = store.remove(digits(SHORT_ID)).expect("removed by what \"ls\" shows of its id");
    assert_eq!((removed.images, removed.bytes), (vec![id.clone()], 8));
    assert!(entries(directory.path(), "layers").is_empty());
}

#[test]
fn a_tag_moves_to_what_was_added_last() {
    if lacks_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(directory.path());
    let old = add(&store, &["app"], &[layer("old")]);
    let new = add(&store, &["app"], &[layer("new")]);
    assert_eq!(store.find("app").expect("readable").expect("it is here").id, new.id);
    assert!(store.find(&old.id.to_string()).expect("readable").is_some(), "containers may run with it");
}

#[test]
fn each_name_knows_where_it_is_from() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, config) = (store(directory.path()), config(&[], &json!({})));
    let finish =
        |name: &str, origin| store.begin().and_then(|it| it.finish(&[reference(name)], &config, origin));
    let origin = |name: &str| store.find(name).expect("readable").expect("it is here").origin;
    assert_eq!(finish("a", Origin::Pulled).expect("a good image").origin, Origin::Pulled);
    let both = finish("b", Origin::Loaded).expect("a good image");
    assert_eq!((origin("a"), origin("b")), (Origin::Pulled, Origin::Loaded));
    assert_eq!(origin(&both.id.to_string()), Origin::Loaded);
    finish("b", Origin::Pulled).expect("a good image");
    assert_eq!(origin("b"), Origin::Pulled);
}

#[test]
fn what_is_in_use_stays_for_as_long_as_it_is() {
    if lacks_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(directory.path());
    let user = tempfile::tempdir().expect("a directory");
    let image = add(&store, &["app:1", "app:2"], &[layer("a")]);
    store.hold(&image, user.path()).expect("held");
    store.hold(&image, user.path()).expect("held again");
    let again = self::store(directory.path());
    assert_eq!(again.prune(0).expect("pruned").images, [""; 0]);
    store.remove("app:1").expect("it has another name");
    let refused = again.remove("app:2").expect_err("it is in use").to_string();
    assert!(refused.contains(&user.path().display().to_string()), "{refused}");
    assert!(matches!(again.remove(&image.id.to_string()), Err(StoreError::InUse { .. })));
    assert_eq!(content(&image), ["a"]);
    user.close().expect("removed");
    assert_eq!(again.prune(0).expect("pruned").images, [image.id.to_string()]);
    assert!(entries(directory.path(), "holds").is_empty());
    let gone = store.hold(&image, directory.path());
    assert!(matches!(gone, Err(StoreError::Gone(name)) if name == "docker.io/library/app:1"));
}

#[test]
fn what_was_loaded_by_hand_goes_by_hand() {
    if lacks_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (store, parts) = (store(directory.path()), parts(&[layer("a")]));
    add(&store, &["pulled"], &[layer("bc")]);
    for (name, origin) in [("loaded", Origin::Loaded), ("pulled-later", Origin::Pulled)] {
        let incoming = store.begin().expect("begun");
        add_layers(&incoming, &parts).expect("good layers");
        incoming.finish(&[reference(name)], &parts.config, origin).expect("a good image");
    }
    let newest = add(&store, &["newest"], &[layer("def")]);
    assert_eq!(store.prune_pulled(0, &newest).expect("pruned").bytes, 2);
    assert!(store.find("loaded").expect("readable").is_some());
    assert_eq!(store.prune(0).expect("pruned").bytes, 1 + 3);
}

#[test]
fn using_an_image_makes_it_the_last_to_go() {
    if lacks_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(directory.path());
    let images: Vec<_> = ["a", "b", "c"].map(|name| add(&store, &[name], &[layer(name)])).into();
    for (image, age) in images.iter().zip([300, 200, 100]) {
        let id = image.id.to_string();
        let config = directory.path().join("configs").join(id.trim_start_matches("sha256:"));
        let used = SystemTime::now() - Duration::from_secs(age);
        File::open(config).and_then(|file| file.set_modified(used)).expect("its time is set");
    }
    store.hold(&images[0], &directory.path().join("never there")).expect("held for no time");
    assert_eq!(store.prune(2).expect("pruned").images, [images[1].id.to_string()]);
    assert_eq!(store.prune(1).expect("pruned").images, [images[2].id.to_string()]);
    assert_eq!(store.list().expect("readable")[0].references, ["docker.io/library/a:latest"]);
}

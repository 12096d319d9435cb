//! Images from files: what others write is found under its names, and what somebody made up is refused.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use ropewalk_images::{Digest, Image, Limits, LoadError, Reference, Store, load};
use serde_json::{Value, json};
use tar::EntryType;

use crate::archive::{Archive, Compression};
use crate::store::{config, parts};
use crate::{lacks_root, skip};

/// Files by their paths, as a directory or an archive has them.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn layer(content: &str) -> Archive {
    Archive::default().dir("etc", 0o755).file("etc/content", 0o644, content.as_bytes())
}

fn put(files: &mut Files, media_type: &str, content: Vec<u8>) -> Value {
    let digest = Digest::of(&content).to_string();
    let described = json!({"mediaType": media_type, "digest": digest, "size": content.len()});
    files.insert(format!("blobs/{}", digest.replace(':', "/")), content);
    described
}

/// Puts an image's parts among the files: its manifest's descriptor.
fn put_image(files: &mut Files, layers: &[Archive]) -> Value {
    let parts = parts(layers);
    let layers: Vec<_> = parts
        .layers
        .into_iter()
        .map(|(_, content)| put(files, "application/vnd.oci.image.layer.v1.tar+gzip", content))
        .collect();
    let config = put(files, "application/vnd.oci.image.config.v1+json", parts.config);
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers});
    put(files, OCI_MANIFEST, manifest.to_string().into_bytes())
}

fn finish_layout(files: &mut Files, manifests: &[Value]) {
    let index = json!({"schemaVersion": 2, "manifests": manifests}).to_string();
    files.insert("index.json".into(), index.into_bytes());
    files.insert("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
}

fn named(mut descriptor: Value, annotation: &str, name: &str) -> Value {
    descriptor["annotations"] = json!({ annotation: name });
    descriptor
}

fn on(mut descriptor: Value, architecture: &str, variant: Option<&str>) -> Value {
    descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
    if let Some(variant) = variant {
        descriptor["platform"]["variant"] = variant.into();
    }
    descriptor
}

/// The machine's in the words of images.
fn here() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// A layout of one image with this name, or none.
pub(crate) fn layout(name: Option<&str>, layers: &[Archive]) -> Files {
    let mut files = Files::new();
    let manifest = put_image(&mut files, layers);
    let manifest = name.map_or(manifest.clone(), |name| named(manifest, REF_NAME, name));
    finish_layout(&mut files, &[manifest]);
    files
}

/// What `docker save` wrote before it wrote layouts.
pub(crate) fn docker(tags: &Value, layers: &[Archive]) -> Files {
    let config = config(layers, &json!({}));
    let config_name = format!("{}.json", Digest::of(&config).to_string().trim_start_matches("sha256:"));
    let mut files = Files::from([(config_name.clone(), config)]);
    let mut paths = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let path = format!("{number:064x}/layer.tar");
        files.insert(path.clone(), layer.bytes());
        paths.push(path);
    }
    let manifest = json!([{"Config": config_name, "RepoTags": tags, "Layers": paths}]);
    files.insert("manifest.json".into(), manifest.to_string().into_bytes());
    files
}

fn write(files: &Files, directory: &Path) {
    for (name, content) in files {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("made");
        fs::write(path, content).expect("written");
    }
}

pub(crate) fn pack(files: &Files) -> Archive {
    files.iter().fold(Archive::default(), |archive, (name, content)| archive.file(name, 0o644, content))
}

/// A store, and a place beside it.
struct Place {
    directory: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(&directory.path().join("store"), Limits::default()).expect("a store");
        Self { directory, store }
    }

    fn load_directory(&self, files: &Files, name: Option<&str>) -> Result<Vec<Image>, LoadError> {
        let directory = tempfile::tempdir_in(self.directory.path()).expect("a directory");
        write(files, directory.path());
        self.load(directory.path(), name)
    }

    fn load_bytes(&self, bytes: &[u8], name: Option<&str>) -> Result<Vec<Image>, LoadError> {
        let path = self.directory.path().join("archive.tar");
        fs::write(&path, bytes).expect("written");
        self.load(&path, name)
    }

    fn load(&self, path: &Path, name: Option<&str>) -> Result<Vec<Image>, LoadError> {
        let name: Option<Reference> = name.map(|name| name.parse().expect("a reference"));
        load(&self.store, path, name.as_ref())
    }

    fn names(&self) -> Vec<String> {
        let listed = self.store.list().expect("readable");
        listed.into_iter().flat_map(|image| image.references).filter(|name| !name.contains('@')).collect()
    }
}

fn content(image: &Image) -> Vec<String> {
    let file = |lower: &std::path::PathBuf| fs::read_to_string(lower.join("etc/content")).expect("a file");
    image.lowers.iter().map(file).collect()
}

/// An error with its causes.
fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[test]
fn an_image_is_the_same_from_a_directory_an_archive_and_a_compressed_one() {
    if lacks_root() {
        return;
    }
    let layers = [layer("base"), layer("top")];
    for files in [
        layout(Some("r.example/app:1"), &layers),
        docker(&json!(["r.example/app:1", "r.example/app:latest"]), &layers),
    ] {
        let archive = pack(&files);
        let [plain, gzip, zstd] =
            [Compression::None, Compression::Gzip, Compression::Zstd].map(|it| archive.compressed(it));
        let mut ids = Vec::new();
        for bytes in [None, Some(plain), Some(gzip), Some(zstd)] {
            let place = Place::new();
            let loaded = match bytes {
                None => place.load_directory(&files, None),
                Some(bytes) => place.load_bytes(&bytes, None),
            };
            let [image] = &loaded.expect("a good image")[..] else { panic!("one image") };
            assert_eq!(content(image), ["top", "base"]);
            let found = place.store.find("r.example/app:1").expect("readable").expect("it is here");
            ids.push(found.id);
        }
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }
}

#[test]
fn names_are_those_of_the_archive_or_the_one_that_is_given() {
    if lacks_root() {
        return;
    }
    let layers = [layer("a")];
    let containerd = |name| {
        let mut files = Files::new();
        let mut manifest = named(put_image(&mut files, &layers), "io.containerd.image.name", name);
        manifest["annotations"][REF_NAME] = "1".into();
        finish_layout(&mut files, &[manifest]);
        files
    };
    for (files, name, expected) in [
        (layout(Some("r.example/app:1"), &layers), None, &["r.example/app:1"][..]),
        (layout(Some("app:1"), &layers), None, &["docker.io/library/app:1"]),
        (layout(Some("1"), &layers), Some("app:2"), &["docker.io/library/app:2"]),
        (layout(None, &layers), Some("r.example:5000/app"), &["r.example:5000/app:latest"]),
        (layout(Some("r.example/app:1"), &layers), Some("mine"), &["docker.io/library/mine:latest"]),
        (containerd("docker.io/library/app:1"), None, &["docker.io/library/app:1"]),
        (
            docker(&json!(["app:1", "app:2"]), &layers),
            None,
            &["docker.io/library/app:1", "docker.io/library/app:2"],
        ),
        (docker(&json!(null), &layers), Some("app"), &["docker.io/library/app:latest"]),
    ] {
        let place = Place::new();
        place.load_directory(&files, name).expect("a good image");
        assert_eq!(place.names(), expected);
    }
    for files in [layout(None, &layers), layout(Some("latest"), &layers), docker(&json!(null), &layers)] {
        let error = Place::new().load_directory(&files, None).expect_err("it has no name").to_string();
        assert_eq!(error, "it does not say what its image is called; say so with --name");
    }
}

#[test]
fn of_several_platforms_the_one_of_this_machine_is_taken() {
    if lacks_root() {
        return;
    }
    let mut files = Files::new();
    let least = if here() == "arm64" { "v8" } else { "v1" };
    let ours = put_image(&mut files, &[layer("ours")]);
    let other = put_image(&mut files, &[layer("other")]);
    let unknown = json!({"os": "unknown", "architecture": "unknown"});
    let mut attestation = other.clone();
    attestation["platform"] = unknown;
    let platforms = [
        on(other.clone(), "s390x", None),
        on(other.clone(), here(), Some("v9")),
        on(ours.clone(), here(), Some(least)),
        on(other.clone(), here(), None),
        attestation,
    ];
    let list = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": platforms}).to_string();
    let list = put(&mut files, OCI_INDEX, list.into_bytes());
    let name = |descriptor: &Value| named(descriptor.clone(), REF_NAME, "app:1");
    // As an index in the index, and as the layout's own index.
    for manifests in [vec![name(&list)], platforms.iter().map(name).collect()] {
        finish_layout(&mut files, &manifests);
        let place = Place::new();
        let [image] = &place.load_directory(&files, None).expect("a good image")[..] else {
            panic!("one image")
        };
        assert_eq!(content(image), ["ours"]);
        let ours = format!("app@{}", ours["digest"].as_str().expect("text"));
        assert_eq!(place.store.find(&ours).expect("readable").expect("it is here").id, image.id);
    }
    let by_list = Place::new();
    finish_layout(&mut files, &[name(&list)]);
    by_list.load_directory(&files, None).expect("a good image");
    let list = format!("app@{}", list["digest"].as_str().expect("text"));
    assert!(by_list.store.find(&list).expect("readable").is_some());

    finish_layout(&mut files, &[name(&on(other.clone(), "s390x", None)), name(&on(other, "mips", None))]);
    let error = Place::new().load_directory(&files, None).expect_err("none is for this machine").to_string();
    let expected = format!(
        "the image is for linux/s390x, linux/mips, and not for this machine, which is linux/{}",
        here()
    );
    assert_eq!(error, expected);
}

#[test]
fn all_images_of_an_archive_are_loaded() {
    if lacks_root() {
        return;
    }
    let mut files = Files::new();
    let (base, one, two) = (layer("base"), layer("one"), layer("two"));
    let manifests = [
        named(put_image(&mut files, &[base.clone(), one]), REF_NAME, "r.example/one:1"),
        named(put_image(&mut files, &[base, two]), REF_NAME, "r.example/two:1"),
    ];
    finish_layout(&mut files, &manifests);
    let place = Place::new();
    assert_eq!(place.load_bytes(&pack(&files).bytes(), None).expect("good images").len(), 2);
    assert_eq!(place.names(), ["r.example/one:1", "r.example/two:1"]);
    let error = place.load_directory(&files, Some("app")).expect_err("there are two").to_string();
    let several =
        "one name was given, and it has 2 images; copy out the one that is meant, as with \"skopeo copy\"";
    assert_eq!(error, several);
    // As skopeo and umoci put several into one directory: they have tags, and neither is for another platform.
    let mut files = Files::new();
    let manifests = ["1", "2"].map(|tag| named(put_image(&mut files, &[layer(tag)]), REF_NAME, tag));
    finish_layout(&mut files, &manifests);
    let error = place.load_directory(&files, Some("app")).expect_err("there are two").to_string();
    assert_eq!(error, several);
}

/// As `docker save` links a layer that two images have.
#[test]
fn layers_may_be_links_within_the_archive() {
    if lacks_root() {
        return;
    }
    let mut files = docker(&json!(["app:1"]), &[layer("base"), layer("top")]);
    let [first, second] = [0, 1].map(|number| format!("{number:064x}/layer.tar"));
    let (base, top) =
        (files.remove(&first).expect("it is there"), files.remove(&second).expect("it is there"));
    let archive = pack(&files)
        .file("elsewhere/layer.tar", 0o644, &base)
        .symlink(&first, "../elsewhere/./layer.tar")
        .file("top", 0o644, &top)
        .link(&second, "top");
    let place = Place::new();
    let loaded = place.load_bytes(&archive.bytes(), None).expect("a good image");
    assert_eq!(content(&loaded[0]), ["top", "base"]);
}

#[test]
fn what_somebody_made_up_is_refused() {
    if lacks_root() {
        return;
    }
    let layers = [layer("a"), layer("b")];
    let good = docker(&json!(["app:1"]), &layers);
    let first = format!("{:064x}/layer.tar", 0);
    let without_first = || {
        let mut files = good.clone();
        files.remove(&first);
        pack(&files)
    };
    let changed = |name: &str, content: &[u8]| {
        let mut files = good.clone();
        files.insert(name.into(), content.into());
        pack(&files)
    };
    let manifest = |change: &dyn Fn(&mut Value)| {
        let mut manifest: Value = serde_json::from_slice(&good["manifest.json"]).expect("JSON");
        change(&mut manifest[0]);
        changed("manifest.json", manifest.to_string().as_bytes())
    };
    let many = (0..=10_000).fold(Archive::default(), |archive, n| archive.file(&format!("f{n}"), 0o644, b""));
    let circle = without_first().symlink(&first, "layer.tar");
    let config_name =
        good.keys().find(|name| !name.ends_with("layer.tar") && *name != "manifest.json").expect("one");
    for (what, archive, expected) in [
        (
            "no image",
            Archive::default().file("readme", 0o644, b"hello"),
            "is neither an OCI image layout nor",
        ),
        ("an empty list", changed("manifest.json", b"[]"), "it has no image"),
        ("no list", changed("manifest.json", b"{"), "is not what the OCI image specification describes"),
        ("a large list", changed("manifest.json", &vec![b' '; (4 << 20) + 1]), "more than 4194304 bytes"),
        ("a layer missing", without_first(), "it has no file \"0000"),
        (
            "a layer that leads out",
            without_first().symlink(&first, "../../etc/passwd"),
            "does not lead to a file within",
        ),
        ("a layer of the machine's", without_first().symlink(&first, "/etc/passwd"), "it has no file \"0000"),
        ("links in circles", circle, "does not lead to a file within"),
        (
            "a layer that is a device",
            without_first().node(&first, EntryType::Char, (1, 5)),
            "does not lead to a file",
        ),
        ("another layer", changed(&first, &layer("c").bytes()), "the image was made wrong"),
        ("half a layer", changed(&first, &layers[0].bytes()[..600]), "cannot be unpacked"),
        (
            "a layer too few",
            manifest(&|it| it["Layers"] = json!([first])),
            "has 1 layers and its configuration 2",
        ),
        (
            "a path out",
            manifest(&|it| it["Config"] = "../../etc/passwd".into()),
            "does not lead to a file within",
        ),
        (
            "a name that is none",
            manifest(&|it| it["RepoTags"] = json!(["No Name"])),
            "it calls an image \"No Name\"",
        ),
        (
            "another configuration",
            changed(config_name, &config(&layers, &json!({"author": "x"}))),
            "has digest",
        ),
        ("many files", many, "has more than 10000 files"),
        ("entries that lead out", pack(&good).file("../x", 0o644, b""), "its path \"../x\""),
    ] {
        let place = Place::new();
        let error = place.load_bytes(&archive.bytes(), None).map(|_| what).expect_err(what);
        assert!(told(&error).contains(expected), "{what}: {}", told(&error));
        assert!(place.names().is_empty(), "{what}");
    }
    // Cut off anywhere, an archive is no image, or not a whole one.
    let bytes = pack(&good).bytes();
    for length in (0..bytes.len() - 1536).step_by(1000) {
        let place = Place::new();
        let error = place.load_bytes(&bytes[..length], None).map(|_| length).expect_err("cut off");
        assert!(place.names().is_empty(), "{length}: {error}");
    }
}

#[test]
fn a_layout_that_is_not_what_its_digests_say_is_refused() {
    if lacks_root() {
        return;
    }
    let good = layout(Some("app:1"), &[layer("a")]);
    let blobs: Vec<_> = good.keys().filter(|name| name.starts_with("blobs/")).cloned().collect();
    assert_eq!(blobs.len(), 3);
    for name in &blobs {
        let whole = &good[name];
        let mut flipped = whole.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        for (what, content) in
            [("cut", whole[..middle].to_vec()), ("flipped", flipped), ("empty", Vec::new())]
        {
            let mut files = good.clone();
            files.insert(name.clone(), content);
            let error = Place::new().load_directory(&files, None).map(|_| what).expect_err(what);
            assert!(told(&error).contains("transfer it again"), "{what} {name}: {}", told(&error));
        }
        let mut files = good.clone();
        files.remove(name);
        let error = Place::new().load_directory(&files, None).map(|_| name).expect_err("it is missing");
        assert_eq!(error.to_string(), format!("it has no file \"{name}\""));
    }
    // Indexes that name each other cannot be made, but many upon each other can.
    let mut files = Files::new();
    let mut top = put_image(&mut files, &[layer("a")]);
    for _ in 0..5 {
        let index = json!({"schemaVersion": 2, "manifests": [top]}).to_string();
        top = put(&mut files, OCI_INDEX, index.into_bytes());
    }
    finish_layout(&mut files, &[named(top, REF_NAME, "app:1")]);
    let error =
        Place::new().load_directory(&files, None).map(|_| ()).expect_err("it is too deep").to_string();
    assert!(error.contains("deeper than"), "{error}");
    for (what, media_type) in [
        ("encrypted", "application/vnd.oci.image.layer.v1.tar+encrypted"),
        ("no layer", "application/vnd.cncf.helm.chart.content.v1.tar+gzip"),
    ] {
        let mut files = Files::new();
        let parts = parts(&[layer("a")]);
        let layer = put(&mut files, media_type, parts.layers[0].1.clone());
        let config = put(&mut files, "application/vnd.oci.image.config.v1+json", parts.config);
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]}).to_string();
        let manifest = put(&mut files, OCI_MANIFEST, manifest.into_bytes());
        finish_layout(&mut files, &[named(manifest, REF_NAME, "app:1")]);
        let error = Place::new().load_directory(&files, None).map(|_| what).expect_err(what).to_string();
        assert_eq!(
            error,
            format!("the image has a layer of type \"{media_type}\", which cannot be unpacked")
        );
    }
}

/// A directory may have links; they lead no further than it.
#[test]
fn links_of_a_directory_do_not_lead_out_of_it() {
    let place = Place::new();
    let directory = place.directory.path().join("layout");
    for (what, target) in [("out", "/etc/passwd"), ("up", "../secret"), ("a device", "/dev/zero")] {
        fs::create_dir(&directory).expect("made");
        File::create(place.directory.path().join("secret"))
            .and_then(|mut file| file.write_all(b"{}"))
            .expect("written");
        symlink(target, directory.join("index.json")).expect("made");
        let error = place.load(&directory, None).map(|_| what).expect_err(what);
        assert!(matches!(&error, LoadError::Path(name) if name == "index.json"), "{what}: {error}");
        fs::remove_dir_all(&directory).expect("removed");
    }
}

/// As a tool of others makes an image from scratch, in two layers.
#[test]
fn an_image_of_umoci_is_loaded() {
    let has_umoci = Command::new("umoci").arg("--version").output().is_ok();
    if lacks_root() || skip(!has_umoci, "umoci") {
        return;
    }
    let place = Place::new();
    let layout = place.directory.path().join("layout");
    let file = place.directory.path().join("file");
    let image = format!("{}:it", layout.display());
    let umoci = |arguments: &[&str]| {
        let output = Command::new("umoci").args(arguments).output().expect("umoci was found");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    umoci(&["init", "--layout", &layout.display().to_string()]);
    umoci(&["new", "--image", &image]);
    for content in ["one", "two"] {
        fs::write(&file, content).expect("written");
        umoci(&["insert", "--image", &image, &file.display().to_string(), "/etc/content"]);
    }
    umoci(&["config", "--image", &image, "--config.entrypoint", "/bin/app", "--config.user", "app:staff"]);
    let [loaded] = &place.load(&layout, Some("app")).expect("a good image")[..] else { panic!("one image") };
    assert_eq!(content(loaded), ["two", "one"]);
    assert_eq!(loaded.config.entrypoint, ["/bin/app"]);
    assert_eq!(loaded.config.user, "app:staff");
}

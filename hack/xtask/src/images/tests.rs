//! This test's own executable stands for the processes: it is dynamically linked as they are.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::Command;

use oci_spec::image::{ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use tar::Archive;

use super::*;

fn this_test() -> Binary {
    Binary::read(&env::current_exe().expect("a path")).expect("a program")
}

/// Path to content of every file in a tar.
fn unpack(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in Archive::new(bytes).entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let header = entry.header().clone();
        assert_eq!((header.uid().ok(), header.gid().ok(), header.mtime().ok()), (Some(0), Some(0), Some(0)));
        let path = entry.path().expect("a path").display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("content");
        if header.entry_type().is_file() {
            files.insert(path, content);
        }
    }
    files
}

fn blob<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &oci_spec::image::Descriptor) -> &'a [u8] {
    let bytes = &files[&format!("blobs/sha256/{}", descriptor.digest().digest())];
    assert_eq!(descriptor.size(), bytes.len() as u64);
    bytes
}

#[test]
fn the_same_binary_gives_the_same_bytes() {
    let make = || process("controller", &this_test(), "ropewalk-controller").expect("an image").archive();
    assert!(make().expect("an archive") == make().expect("an archive"));
}

#[test]
fn an_archive_is_a_layout_that_both_formats_read() {
    let image = process("controller", &this_test(), "ropewalk-controller").expect("an image");
    let files = unpack(&image.archive().expect("an archive"));

    assert_eq!(files["oci-layout"], br#"{"imageLayoutVersion":"1.0.0"}"#);
    let index = ImageIndex::from_reader(&*files["index.json"]).expect("an index");
    let [entry] = index.manifests().as_slice() else { panic!("one manifest: {index:?}") };
    let annotations = entry.annotations().as_ref().expect("annotations");
    let reference = format!("ropewalk.dev/controller:v{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(annotations["io.containerd.image.name"], reference);

    let manifest = ImageManifest::from_reader(blob(&files, entry)).expect("a manifest");
    assert_eq!(manifest.media_type(), &Some(MediaType::ImageManifest));
    let config = ImageConfiguration::from_reader(blob(&files, manifest.config())).expect("a configuration");
    let process = config.config().as_ref().expect("how it runs");
    assert_eq!(process.user().as_deref(), Some("65532:65532"));
    assert_eq!(process.entrypoint().as_deref(), Some(&["/ropewalk-controller".to_owned()][..]));
    let digests: Vec<String> = manifest.layers().iter().map(|layer| layer.digest().to_string()).collect();
    assert_eq!(config.rootfs().diff_ids(), &digests);

    let docker: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).expect("JSON");
    assert_eq!(docker[0]["RepoTags"][0], reference);
    assert_eq!(docker[0]["Config"], format!("blobs/sha256/{}", manifest.config().digest().digest()));
    let layers = docker[0]["Layers"].as_array().expect("layers");
    assert_eq!(layers.len(), manifest.layers().len());
    assert!(layers.iter().all(|layer| files.contains_key(layer.as_str().expect("a path"))));

    let named: usize = 3 + 1 + 1 + manifest.layers().len();
    assert_eq!(files.len(), named, "nothing but what is referred to");
}

/// The proof that the libraries suffice: nothing of this machine is left in a change of root.
#[test]
fn a_process_runs_with_what_its_image_holds() {
    // /proc belongs to the user a process runs as.
    let is_root = std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").expect("/proc")) == 0;
    if !is_root {
        assert!(env::var_os("ROPEWALK_REQUIRE_TOOLS").is_none(), "the gate must run as root");
        eprintln!("SKIPPED: changing the root directory takes root");
        return;
    }
    let image = process("controller", &this_test(), "ropewalk-controller").expect("an image");
    let files = unpack(&image.archive().expect("an archive"));
    let docker: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).expect("JSON");
    let root = tempfile::tempdir().expect("a directory");
    for layer in docker[0]["Layers"].as_array().expect("layers") {
        Archive::new(&*files[layer.as_str().expect("a path")]).unpack(root.path()).expect("unpacked");
    }
    let output = Command::new("chroot")
        .arg("--userspec=65532:65532")
        .arg(root.path())
        .args(["/ropewalk-controller", "--list"])
        .output()
        .expect("chroot");
    let listed = String::from_utf8_lossy(&output.stdout);
    assert!(listed.contains("a_process_runs_with_what_its_image_holds: test"), "{output:?}");
    assert!(!root.path().join("bin/sh").exists());
}

#[test]
fn the_entrypoint_stands_alone_in_the_root_directory() {
    let binary = Binary { bytes: b"static".to_vec(), architecture: "amd64", libraries: Vec::new() };
    let image = entrypoint(&binary).expect("an image");
    let files = unpack(&image.archive().expect("an archive"));
    let docker: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).expect("JSON");
    let layer = unpack(&files[docker[0]["Layers"][0].as_str().expect("a path")]);
    assert_eq!(layer, BTreeMap::from([("entrypoint".to_owned(), b"static".to_vec())]));
}

#[test]
fn an_entrypoint_that_needs_libraries_is_refused() {
    let error = entrypoint(&this_test()).err().expect("refused");
    assert!(error.to_string().contains("libc.so"), "{error}");
}

#[test]
fn what_has_not_been_built_is_named_with_the_way_to_build_it() {
    let empty = tempfile::tempdir().expect("a directory");
    let error = run(empty.path(), &empty.path().join("out")).expect_err("nothing is built");
    let message = error.to_string();
    assert!(message.contains("ropewalk-controller") && message.contains("cargo build"), "{message}");
}

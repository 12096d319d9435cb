//! A pull from Debian's `docker-registry`, which wants a password. What it serves is put into its directory: pushing is not
//! what is tested.

mod layer;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use ropewalk_api::errors::chain;
use ropewalk_core::images::keyring::Keyring;
use ropewalk_core::images::reference::{Digest, Reference};
use ropewalk_images::{Limits, Store};
use ropewalk_pull::{HOSTS, Kind, Puller, registries};
use serde_json::json;

use layer::Layer;

/// `robot$ci:pass:word`, in the one form that it takes.
const HTPASSWD: &str = "robot$ci:$2y$05$CAvcvCi35wXYfDmQUhyrneNe1EAPgdcoPj5oK7qOIAoCC2lMvlTGm\n";

/// The registry's directory, in the layout of its `filesystem` driver.
struct Content(PathBuf);

impl Content {
    fn write(&self, path: &str, content: &[u8]) {
        let path = self.0.join("docker/registry/v2").join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, content).expect("written");
    }

    fn hex(digest: &Digest) -> String {
        digest.to_string().split_off("sha256:".len())
    }

    fn content(&self, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        let hex = Self::hex(&digest);
        self.write(&format!("blobs/sha256/{}/{hex}/data", &hex[..2]), content);
        digest
    }

    fn blob(&self, content: &[u8]) -> Digest {
        let digest = self.content(content);
        let link = format!("repositories/team/app/_layers/sha256/{}/link", Self::hex(&digest));
        self.write(&link, digest.to_string().as_bytes());
        digest
    }

    /// A manifest or index, under a tag if it has one.
    fn manifest(&self, content: &[u8], tag: Option<&str>) -> Digest {
        let digest = self.content(content);
        let manifests = "repositories/team/app/_manifests";
        let link = format!("{manifests}/revisions/sha256/{}/link", Self::hex(&digest));
        self.write(&link, digest.to_string().as_bytes());
        if let Some(tag) = tag {
            self.write(&format!("{manifests}/tags/{tag}/current/link"), digest.to_string().as_bytes());
        }
        digest
    }
}

/// It is ended with the test.
struct Server {
    child: Child,
    host: String,
    _log: BufReader<ChildStderr>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(directory: &Path) -> Self {
        // It takes the port itself, and tells which one.
        let configuration = json!({
            "version": 0.1, "log": { "level": "info", "formatter": "json" },
            "storage": { "filesystem": { "rootdirectory": directory.join("content") } },
            "http": { "addr": "127.0.0.1:0" },
            "auth": { "htpasswd": { "realm": "here", "path": directory.join("htpasswd") } },
        });
        fs::write(directory.join("htpasswd"), HTPASSWD).expect("written");
        let file = directory.join("config.yml");
        fs::write(&file, configuration.to_string()).expect("written");
        let mut child = Command::new("docker-registry")
            .args(["serve".as_ref(), file.as_os_str()])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it was found");
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        let host = loop {
            line.clear();
            assert!(log.read_line(&mut line).expect("a log") > 0, "docker-registry has ended");
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.chars().take_while(|letter| !matches!(letter, '"' | ',')).collect();
            }
        };
        Self { child, host, _log: log }
    }
}

fn lacks_docker_registry() -> bool {
    let is_here = Command::new("docker-registry").arg("--version").output().is_ok();
    assert!(is_here || std::env::var_os("ROPEWALK_REQUIRE_TOOLS").is_none(), "docker-registry is required");
    if !is_here {
        let _ = writeln!(std::io::stderr(), "SKIPPED: docker-registry is not installed");
    }
    !is_here
}

#[tokio::test]
async fn an_index_is_pulled_with_a_password() {
    if lacks_docker_registry() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let content = Content(directory.path().join("content"));
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let layers = [Layer::of("one", &vec![b'x'; 100_000]), Layer::of("two", &[b'x'; 10])];
    let config = json!({
        "os": "linux", "architecture": architecture, "config": { "Cmd": ["/c"] },
        "rootfs": { "type": "layers",
            "diff_ids": layers.iter().map(|layer| layer.diff_id.to_string()).collect::<Vec<_>>() },
    });
    let config = config.to_string().into_bytes();
    let descriptors: Vec<_> = layers
        .iter()
        .map(|Layer { blob, .. }| {
            json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "size": blob.len(),
                "digest": content.blob(blob).to_string() })
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": descriptors,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "size": config.len(),
            "digest": content.blob(&config).to_string() },
    });
    let manifest = manifest.to_string().into_bytes();
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{ "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": manifest.len(),
            "digest": content.manifest(&manifest, None).to_string(),
            "platform": { "os": "linux", "architecture": architecture } }],
    });
    let digest = content.manifest(index.to_string().as_bytes(), Some("v1"));
    let server = Server::start(directory.path());

    let store = Store::open(&directory.path().join("images"), Limits::default()).expect("a store");
    let puller = Puller::new(store.clone(), registries(directory.path().join(HOSTS)));
    let pull = async |password: &str, image: &str| {
        let mut keyring = Keyring::default();
        let auths = json!({ "auths": { &server.host: { "username": "robot$ci", "password": password } } });
        keyring.add_file("config.json", auths.to_string().as_bytes());
        let reference: Reference = image.parse().expect("a reference");
        puller.pull(&reference, keyring, "log in", |_| {}).await
    };
    let image = format!("{}/team/app:v1", server.host);
    let refused = pull("wrong", &image).await.expect_err("the password is wrong");
    assert_eq!(refused.kind(), Kind::Denied, "{}", chain(&*refused));
    let pulled = pull("pass:word", &image).await.expect("an image");
    assert_eq!(pulled.config.cmd, ["/c"]);
    assert_eq!(pulled.lowers.len(), 2);
    let by_digest = pull("pass:word", &format!("{}/team/app@{digest}", server.host)).await;
    assert_eq!(by_digest.expect("the same").id, pulled.id);
    let missing = pull("pass:word", &format!("{}/team/app:v2", server.host)).await.expect_err("no such tag");
    assert_eq!(missing.kind(), Kind::NotFound, "{}", chain(&*missing));
}

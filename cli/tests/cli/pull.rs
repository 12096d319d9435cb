//! `ropewalk image pull` from a registry in this process.

use std::fs;
use std::path::Path;
use std::process::Output;

use ropewalk_core::images::reference::Digest;
use ropewalk_registry::fake::{Auth, Fake, Tls};
use serde_json::json;

use crate::common::{can_run_containers, printed, ropewalk};

async fn pull(home: &Path, image: &str) -> Output {
    let (mut command, image) = (ropewalk(), image.to_owned());
    command.env("HOME", home).env_remove("REGISTRY_AUTH_FILE");
    command.arg("image").args(["pull", &image]).arg("--data-dir").arg(home.join("data"));
    // The registry goes on beside it.
    tokio::task::spawn_blocking(move || command.output().expect("the command starts"))
        .await
        .expect("no panic")
}

#[tokio::test]
async fn an_image_is_pulled_with_the_credentials_of_the_machine() {
    if !can_run_containers() {
        return;
    }
    let fake = Fake::start(Auth::Basic { user: "robot$ci", password: "hidden" }, Tls::Yes).await;
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir("etc", "/etc").expect("an entry");
    let layer = archive.into_inner().expect("an archive");
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer).to_string()] },
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "size": config.len(),
            "digest": fake.blob(config).to_string() },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "size": layer.len(),
            "digest": fake.blob(layer).to_string() }],
    });
    fake.tag("team/app", "v1", &manifest);
    let image = format!("{}/team/app:v1", fake.host);
    let home = tempfile::tempdir().expect("a directory");
    let write = |path: &str, content: &str| {
        let path = home.path().join(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(path, content).expect("written");
    };

    let refused = pull(home.path(), &image).await;
    assert_eq!(refused.status.code(), Some(2), "{}", printed(&refused));
    let hint = "\"certs.d/REGISTRY/ca.crt\" below the data directory";
    assert!(printed(&refused).contains(hint), "{}", printed(&refused));

    write(&format!("data/certs.d/{}/ca.crt", fake.host), &fake.authority);
    let refused = pull(home.path(), &image).await;
    assert_eq!(refused.status.code(), Some(2), "{}", printed(&refused));
    let hint = format!(
        "there are no credentials; put some into \"{}/.docker/config.json\", as \"docker login\" does",
        home.path().display()
    );
    assert!(printed(&refused).contains(&hint), "{}", printed(&refused));

    let auths = json!({ "auths": { &fake.host: { "username": "robot$ci", "password": "hidden" } } });
    write(".docker/config.json", &auths.to_string());
    let pulled = pull(home.path(), &image).await;
    assert!(pulled.status.success(), "{}", printed(&pulled));

    // What a registry says does not fill the screen, nor paint it.
    let loud = json!({ "schemaVersion": "\u{1b}[31m".repeat(100_000), "config": {} });
    fake.tag("team/app", "loud", &loud);
    let refused = printed(&pull(home.path(), &format!("{}/team/app:loud", fake.host)).await);
    assert!(refused.contains("cannot be pulled"), "{refused:.2000}");
    assert!(refused.len() < 2000 && !refused.contains('\u{1b}'), "{refused:.2000}");
    assert!(printed(&pulled).contains(&format!("pulled {image} (")), "{}", printed(&pulled));
}

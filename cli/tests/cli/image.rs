//! `ropewalk image` with archives as `docker save` writes them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ropewalk_core::images::reference::Digest;
use serde_json::{Value, json};

use crate::common::{can_run_containers, printed, ropewalk};

/// A directory for data, and one for archives.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = ropewalk();
        command.arg("image").args(arguments).arg("--data-dir").arg(self.0.path().join("data"));
        command
    }

    /// What it printed, where it worked.
    fn works(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("the command starts");
        assert!(output.status.success(), "{arguments:?}: {}", printed(&output));
        String::from_utf8(output.stdout).expect("text")
    }

    /// What it complained about, where it refused.
    fn refuses(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("the command starts");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", printed(&output));
        String::from_utf8(output.stderr).expect("text")
    }

    fn list(&self) -> Value {
        serde_json::from_str(&self.works(&["ls", "-o", "json"])).expect("JSON")
    }

    /// An archive of one image with one file of this content.
    fn archive(&self, tags: &[&str], content: &[u8]) -> PathBuf {
        let layer = tar_of(&[("etc/content", content)]);
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({
            "architecture": architecture, "os": "linux", "created": "2026-01-02T03:04:05Z", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer).to_string()]},
        });
        let manifest = json!([{"Config": "config.json", "RepoTags": tags, "Layers": ["0/layer.tar"]}]);
        let archive = tar_of(&[
            ("0/layer.tar", &layer),
            ("config.json", config.to_string().as_bytes()),
            ("manifest.json", manifest.to_string().as_bytes()),
        ]);
        let path = self.0.path().join(format!("{}.tar", Digest::of(&archive)));
        fs::write(&path, archive).expect("written");
        path
    }
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, *content).expect("memory takes it");
    }
    builder.into_inner().expect("memory takes it")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[test]
fn an_image_comes_is_listed_and_goes() {
    if !can_run_containers() {
        return;
    }
    let place = Place::new();
    assert_eq!(place.works(&["ls"]).trim(), "REFERENCE  ID  SIZE  CREATED");
    assert_eq!(place.list(), json!([]));
    let archive = place.archive(&["r.example/app:1", "app:2"], &[b'x'; 2048]);
    let loaded = place.works(&["load", text(&archive)]);
    assert!(loaded.starts_with("loaded r.example/app:1 ("), "{loaded}");
    let listed = place.list();
    let id = listed[0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(
        listed,
        json!([{
            "id": id, "references": ["docker.io/library/app:2", "r.example/app:1"], "size": 2048,
            "created": "2026-01-02T03:04:05Z",
        }])
    );
    let table = place.works(&["ls"]);
    let row = |name: &str| table.lines().find(|line| line.starts_with(name)).expect(name).to_owned();
    let row: Vec<_> = row("r.example/app:1").split_whitespace().map(str::to_owned).collect();
    assert_eq!(row, ["r.example/app:1", &id["sha256:".len()..][..12], "2.00", "KiB", "2026-01-02T03:04:05Z"]);

    assert_eq!(place.works(&["rm", "app:2"]), "removed the name \"app:2\"\n");
    let removed = place.works(&["rm", "r.example/app:1"]);
    assert_eq!(removed, format!("removed image {}\n2.00 KiB of data freed\n", &id["sha256:".len()..][..12]));
    assert_eq!(place.list(), json!([]));
}

#[test]
fn what_is_not_used_is_pruned_down_to_what_may_stay() {
    if !can_run_containers() {
        return;
    }
    let place = Place::new();
    for name in ["one", "two"] {
        place.works(&["load", text(&place.archive(&[name], name.as_bytes()))]);
    }
    let names = || place.list().as_array().expect("a list").len();
    assert_eq!(place.works(&["prune", "--keep", "1Ki"]), "removed no image\n");
    assert_eq!(names(), 2);
    assert!(place.works(&["prune", "--keep", "5"]).ends_with("3 B of data freed\n"));
    assert_eq!(names(), 1);
    place.works(&["prune"]);
    assert_eq!(names(), 0);
    let refused = place.refuses(&["prune", "--keep", "some"]);
    assert!(refused.contains("expected bytes, such as 500Mi or 20Gi"), "{refused}");
}

#[test]
fn what_is_refused_says_why() {
    if !can_run_containers() {
        return;
    }
    let place = Place::new();
    let unnamed = place.archive(&[], b"x");
    let whole = fs::read(&unnamed).expect("a file");
    let cut = place.0.path().join("cut.tar");
    fs::write(&cut, &whole[..700]).expect("written");
    for (arguments, expected) in [
        (&["load", "/no/such/file"][..], "cannot load \"/no/such/file\": cannot open"),
        (&["load", "/etc/passwd"], "cannot be read as an archive"),
        (&["load", text(&cut)], "the archive ends in the middle of an entry; transfer it again"),
        (&["load", text(&unnamed)], "it does not say what its image is called; say so with --name"),
        (
            &["load", text(&unnamed), "--name", "No Name"],
            "No Name\" is not a repository; expected lower-case",
        ),
        (&["rm", "app"], "there is no image \"app\"; \"ropewalk image ls\" lists all"),
    ] {
        let refused = place.refuses(arguments);
        assert!(refused.contains(expected), "{arguments:?}: {refused}");
    }
    assert_eq!(place.list(), json!([]));
    place.works(&["load", text(&unnamed), "--name", "app"]);
    assert_eq!(place.list()[0]["references"], json!(["docker.io/library/app:latest"]));
}

#[test]
fn processes_load_at_once() {
    if !can_run_containers() {
        return;
    }
    let place = Place::new();
    let archive = place.archive(&["app"], &vec![7; 4 << 20]);
    let start = |name: &str| {
        let mut command = place.command(&["load", text(&archive), "--name", name]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts")
    };
    let started = ["a", "b", "c"].map(start);
    for child in started {
        let output: Output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", printed(&output));
    }
    let names = ["a", "b", "c"].map(|name| format!("docker.io/library/{name}:latest"));
    assert_eq!(place.list()[0]["references"], json!(names));
}

#[test]
fn what_a_killed_process_has_begun_is_gone_for_the_next() {
    if !can_run_containers() {
        return;
    }
    let place = Place::new();
    // So large that it is not unpacked before it is seen.
    let archive = place.archive(&["app"], &vec![7; 48 << 20]);
    let data = place.0.path().join("data/images");
    let entries = |name: &str| fs::read_dir(data.join(name)).map_or(0, Iterator::count);
    let mut child = place.command(&["load", text(&archive)]).spawn().expect("the command starts");
    while entries("incoming") == 0 {
        assert!(child.try_wait().expect("it can be asked").is_none(), "it has ended");
        std::thread::yield_now();
    }
    child.kill().expect("killed");
    assert_eq!(child.wait().expect("it ends").code(), None, "a signal ended it");
    assert_eq!(place.list(), json!([]));
    assert_eq!((entries("incoming"), entries("layers")), (0, 0));
    place.works(&["load", text(&archive)]);
    assert_eq!(place.list()[0]["size"], 48 << 20);
}

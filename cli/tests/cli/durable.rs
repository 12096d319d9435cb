//! What `ropewalk up` keeps: everything it has acknowledged, through SIGKILL, a full disk and a restart.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use serde_json::{Value, json};

use crate::common::{can_run_containers, printed, ropewalk};

/// A server in a directory that outlives it.
struct Server {
    process: Child,
    door: Door,
}

/// A server's directory, of which nothing is left on the machine, whatever becomes of the test: neither containers nor
/// the network for them.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir_in("/var/lib").expect("a directory"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        down(self.path());
    }
}

fn down(directory: &Path) {
    let _ = ropewalk().args(["down", "--data-dir"]).arg(directory).output();
}

/// What a client needs to know of it.
#[derive(Clone)]
struct Door {
    address: String,
    token: String,
    authority: PathBuf,
}

fn command(directory: &Path) -> Command {
    let mut command = ropewalk();
    command.args(["up", "--rootfs", "host", "--listen", "127.0.0.1:0", "--data-dir"]).arg(directory);
    command
}

impl Server {
    fn start(directory: &Path) -> Self {
        let mut process =
            command(directory).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let first = lines.next().and_then(Result::ok).unwrap_or_default();
        let mut said = String::new();
        if first.is_empty() {
            process.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
        }
        assert!(!first.is_empty(), "it did not start: {said}");
        let address = first.strip_prefix("serving at https://").expect("where it serves").to_owned();
        let keys = directory.join("keys");
        let token = fs::read_to_string(keys.join("admin.token")).expect("a token");
        let door = Door { address, token, authority: keys.join("authority.pem") };
        Self { process, door }
    }

    fn kill(mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("reaped");
    }

    fn end(mut self) {
        let pid = nix::unistd::Pid::from_raw(self.process.id().try_into().expect("fits"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("told");
        assert!(self.process.wait().expect("it ends").success());
    }
}

/// A test that fails leaves no server behind.
impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.process.try_wait() {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

impl Door {
    /// The status and the object of a request; nothing where there was no whole answer.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let mut command = Command::new("curl");
        command.args(["--silent", "--max-time", "60", "--request", method, "--write-out", "\n%{http_code}"]);
        command.arg("--cacert").arg(&self.authority);
        command.args(["--header", &format!("Authorization: Bearer {}", self.token)]);
        if !body.is_null() {
            command.args(["--header", &format!("Content-Type: {kind}"), "--data", &body.to_string()]);
        }
        let output = command.arg(format!("https://{}{path}", self.address)).output().expect("curl starts");
        if !output.status.success() {
            return None;
        }
        let text = String::from_utf8(output.stdout).expect("text");
        let (body, code) = text.rsplit_once('\n').expect("a code");
        Some((code.parse().expect("a number"), serde_json::from_str(body).expect("JSON")))
    }
}

#[expect(clippy::print_stderr, reason = "a skipped test says so loudly")]
fn has_curl() -> bool {
    let found = Command::new("curl").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        assert!(std::env::var_os("ROPEWALK_REQUIRE_TOOLS").is_none(), "the gate needs curl");
        eprintln!("SKIPPED: no curl on this machine, so nobody wrote to `ropewalk up`");
    }
    found
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str, value: &str) -> Value {
    json!({ "metadata": { "name": name }, "data": { "key": value } })
}

/// What was acknowledged of one object: its value, or that it is gone.
type Acknowledged = (String, Option<String>);

/// Creates, changes and deletes until the server does not answer any more.
fn write(door: &Door, round: usize, writer: usize, acknowledged: &mpsc::Sender<Acknowledged>) {
    for number in 0.. {
        let name = format!("m-{round}-{writer}-{number}");
        let url = format!("{MAPS}/{name}");
        let tell = |value: Option<&str>| {
            acknowledged.send((name.clone(), value.map(str::to_owned))).expect("somebody counts");
        };
        let Some((code, _)) = door.ask("POST", MAPS, &map(&name, "made")) else { return };
        assert_eq!(code, 201, "{name}");
        tell(Some("made"));
        if number % 3 == 0 {
            continue;
        }
        let (method, body, value) = if number % 3 == 1 {
            ("PATCH", json!({ "data": { "key": "changed" } }), Some("changed"))
        } else {
            ("DELETE", Value::Null, None)
        };
        let answer = door.ask(method, &url, &body);
        let Some((code, _)) = answer else {
            // It may have been done.
            acknowledged.send((name, Some("?".to_owned()))).expect("somebody counts");
            return;
        };
        assert_eq!(code, 200, "{method} {name}");
        tell(value);
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_a_kill() {
    const WRITERS: usize = 8;
    if !can_run_containers() || !has_curl() {
        return;
    }
    let directory = Home::new();
    let mut expected: BTreeMap<String, Option<String>> = BTreeMap::new();
    let (mut version, mut token) = (0, None);
    // The first kill hits a file that is new.
    for (round, until) in [1, 60, 23, 120].into_iter().enumerate() {
        let server = Server::start(directory.path());
        assert_eq!(*token.get_or_insert_with(|| server.door.token.clone()), server.door.token);
        check(&server.door, &expected, &mut version);
        let (sender, acknowledged) = mpsc::channel();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (door, sender) = (server.door.clone(), sender.clone());
                thread::spawn(move || write(&door, round, writer, &sender))
            })
            .collect();
        drop(sender);
        let mut server = Some(server);
        for (count, (name, value)) in acknowledged.iter().enumerate() {
            expected.insert(name, value);
            if count + 1 == until {
                server.take().expect("killed once").kill();
            }
        }
        for writer in writers {
            writer.join().expect("a writer ends with the server");
        }
    }
    let server = Server::start(directory.path());
    check(&server.door, &expected, &mut version);
    server.end();
}

/// Every acknowledged write is there, and versions go on.
fn check(door: &Door, expected: &BTreeMap<String, Option<String>>, version: &mut u64) {
    let (code, list) = door.ask("GET", MAPS, &Value::Null).expect("an answer");
    assert_eq!(code, 200);
    let now: u64 =
        list["metadata"]["resourceVersion"].as_str().expect("a version").parse().expect("a number");
    assert!(now >= *version, "version {now} after {version}");
    *version = now;
    let found: BTreeMap<&str, &str> = list["items"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|map| Some((map["metadata"]["name"].as_str()?, map["data"]["key"].as_str()?)))
        .collect();
    for (name, value) in expected {
        let found = found.get(name.as_str()).copied();
        match value.as_deref() {
            Some("?") => assert!(matches!(found, None | Some("made" | "changed")), "{name} is {found:?}"),
            value => assert_eq!(found, value, "{name}"),
        }
    }
}

/// A file system of its own, so that it can be full.
struct Disk(tempfile::TempDir);

impl Disk {
    fn of(size: &str) -> Self {
        let directory = tempfile::tempdir_in("/var/lib").expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(directory.path());
        let output = mount.output().expect("mount starts");
        assert!(output.status.success(), "{}", printed(&output));
        Self(directory)
    }

    fn fill(&self, mib: u64) {
        let file = fs::File::create(self.0.path().join("filler")).expect("made");
        nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, (mib << 20).cast_signed())
            .expect("filled");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whatever a failed test left running.
        down(self.0.path());
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).output();
    }
}

#[test]
fn a_full_disk_is_told_and_costs_nothing() {
    if !can_run_containers() || !has_curl() {
        return;
    }
    let disk = Disk::of("160m");
    let server = Server::start(disk.0.path());
    let ask = |method: &str, name: &str, body: Value| {
        let path = if method == "POST" { MAPS.to_owned() } else { format!("{MAPS}/{name}") };
        server.door.ask(method, &path, &body).expect("an answer")
    };
    let patch = |value: &str| json!({ "data": { "key": value } });
    for name in ["a", "b"] {
        assert_eq!(ask("POST", name, map(name, "1")).0, 201);
    }
    let refused = |answer: (u16, Value)| {
        assert_eq!(
            (answer.0, answer.1["reason"].as_str()),
            (507, Some("InsufficientStorage")),
            "{}",
            answer.1
        );
        let said = answer.1["message"].as_str().expect("a message").to_owned();
        assert!(said.contains("MiB left") && said.contains("make room there"), "{said}");
    };
    disk.fill(110);
    refused(ask("POST", "new", map("new", "1")));
    assert_eq!(ask("PATCH", "a", patch("2")).0, 200);
    disk.fill(145);
    refused(ask("PATCH", "a", patch("3")));
    assert_eq!(ask("DELETE", "b", Value::Null).0, 200);
    assert_eq!(ask("GET", "a", Value::Null).1["data"]["key"], "2");
    disk.fill(1);
    assert_eq!(ask("POST", "new", map("new", "1")).0, 201);
    assert_eq!(ask("PATCH", "a", patch("4")).0, 200);
    server.kill();
    let server = Server::start(disk.0.path());
    let get =
        |name: &str| server.door.ask("GET", &format!("{MAPS}/{name}"), &Value::Null).expect("an answer");
    assert_eq!(get("a").1["data"]["key"], "4");
    assert_eq!(get("new").0, 200);
    assert_eq!(get("b").0, 404);
    server.end();
}

#[test]
fn a_damaged_file_is_named_and_left_alone() {
    if !can_run_containers() {
        return;
    }
    let directory = Home::new();
    Server::start(directory.path()).end();
    let file = directory.path().join("objects.redb");
    let mut bytes = fs::read(&file).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0x55);
    fs::write(&file, &bytes).expect("written");
    let output = command(directory.path()).output().expect("it starts");
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(said.contains(&format!("\"{}\"", file.display())) && said.contains("is damaged"), "{said}");
    assert!(said.contains("put a copy of it back in place"), "{said}");
    assert!(fs::read(&file).expect("read") == bytes, "the file was changed");
}

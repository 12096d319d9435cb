//! The command as an ordinary user runs it: one who has nothing but an id, and one with ranges of them.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use ropewalk_core::images::reference::Digest;
use serde_json::json;

use crate::common::{can_run_containers, example, printed, ropewalk};
use crate::up::has_kubectl;

/// "nobody", of whom every machine has one and who owns nothing.
const USER: u32 = 65534;

/// Somebody's home, with nothing in it.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        chown(directory.path(), Some(USER), Some(USER)).expect("given away");
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("readable");
        path
    }

    /// The command as the user.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command.args(AS_USER).arg(ropewalk().get_program()).args(arguments).env("HOME", self.0.path());
        command.env_remove("XDG_DATA_HOME").current_dir("/");
        command
    }

    fn run(&self, file: &Path, further: &[&str]) -> Output {
        let mut command = self.command(&["run", "--rootfs", "host"]);
        command.args(further).arg(file).output().expect("the command starts")
    }

    /// The same on a machine that lets nobody make user namespaces: one in a namespace that may have none below it.
    fn command_without_namespaces(&self, arguments: &[&str]) -> Command {
        let ranges = self.write("all", "root:0:65536\n");
        let forbid = "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv \"$@\"";
        let script = format!(
            "mount --bind $0 /etc/subuid && mount --bind $0 /etc/subgid && \
             exec unshare --user --map-users=0,0,65536 --map-groups=0,0,65536 sh -c '{forbid}' sh \"$@\""
        );
        self.in_mounts_of_its_own(&script, &ranges, arguments)
    }

    /// As [`Home::command`], of a user who has ranges of ids, as far as this process's children can see.
    fn command_with_ranges(&self, arguments: &[&str]) -> Command {
        let ranges = self.write("ranges", "65534:200000:65536\n");
        let script = "mount --bind $0 /etc/subuid && mount --bind $0 /etc/subgid && exec setpriv \"$@\"";
        self.in_mounts_of_its_own(script, &ranges, arguments)
    }

    fn in_mounts_of_its_own(&self, script: &str, file: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(file).args(AS_USER);
        command.arg(ropewalk().get_program()).args(arguments).env("HOME", self.0.path());
        command.env_remove("XDG_DATA_HOME").current_dir("/");
        command
    }

    /// What of runs is still on the disk.
    fn left(&self) -> Vec<PathBuf> {
        let instances = fs::read_dir(self.path(".local/share/ropewalk/instances")).expect("it was used");
        let paths = instances.map(|entry| entry.expect("readable").path());
        paths.filter(|path| path.is_dir()).collect()
    }
}

const AS_USER: [&str; 5] = ["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"];

#[expect(clippy::print_stderr, reason = "a skipped test says so loudly")]
fn users_have_namespaces() -> bool {
    if !can_run_containers() {
        return false;
    }
    let tried = Command::new("setpriv").args(AS_USER).args(["unshare", "-Ur", "newuidmap"]).output();
    // Without arguments it tells how it is used.
    let works =
        tried.is_ok_and(|output| String::from_utf8_lossy(&output.stderr).starts_with("usage: newuidmap"));
    if !works {
        let lacks = "user namespaces for ordinary users, setpriv, unshare and newuidmap (package uidmap)";
        assert!(std::env::var_os("ROPEWALK_REQUIRE_TOOLS").is_none(), "the gate needs {lacks}");
        eprintln!("SKIPPED: this takes {lacks}");
    }
    works
}

fn task(more: &str, script: &str) -> String {
    let script = script.replace('\n', "\n        ");
    format!(
        "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {{name: t}}\nspec:\n{more}  taskSpec:\n    steps:\n    - \
         image: i\n      script: |\n        {script}\n"
    )
}

/// What a step printed.
fn said(output: &Output) -> Vec<String> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    stdout.lines().filter_map(|line| line.split_once("] ")).map(|(_, said)| said.to_owned()).collect()
}

#[test]
fn an_ordinary_user_runs_the_quickstart() {
    if !users_have_namespaces() {
        return;
    }
    for runtime in ["builtin", "runc"] {
        let home = Home::new();
        let output = home.run(&example("quickstart.yaml"), &["--runtime", runtime]);
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{runtime}: {}", printed(&output));
        assert!(stdout.contains("length = 27"), "{runtime}: {}", printed(&output));
        assert_eq!(home.left(), Vec::<PathBuf>::new());
    }
}

/// What a container may and may not is what the user may and may not.
#[test]
fn a_container_of_a_user_is_walled_in() {
    if !users_have_namespaces() {
        return;
    }
    let home = Home::new();
    home.write("secret", "mine");
    let script = format!(
        "exec 2>/dev/null\nid -u\ncat /etc/resolv.conf > /tmp/copy && touch /etc/here && echo wrote\n\
         find /home /root /mnt -mindepth 1\nls {} /etc/shadow || echo hidden\n\
         test $(ls -d /proc/[0-9]* | wc -l) -lt 20 && echo alone\n\
         (echo x > /proc/sys/kernel/hostname) || echo kept\nmknod /tmp/disk b 8 0 || echo none",
        home.path("secret").display()
    );
    let file = home.write("task.yaml", &task("", &script));
    let output = home.run(&file, &[]);
    assert_eq!(said(&output), ["0", "wrote", "hidden", "alone", "kept", "none"], "{}", printed(&output));
    assert!(!Path::new("/etc/here").exists());
}

#[test]
fn a_read_only_root_is_read_only_throughout() {
    if !users_have_namespaces() {
        return;
    }
    let home = Home::new();
    let script = "for at in /here /etc/here /usr/here; do touch $at 2>/dev/null && echo $at; done; echo ok";
    let step = "    - image: i\n";
    let read_only = format!("{step}      securityContext: {{readOnlyRootFilesystem: true}}\n");
    let file = home.write("task.yaml", &task("", script).replace(step, &read_only));
    for runtime in ["builtin", "runc"] {
        let output = home.run(&file, &["--runtime", runtime]);
        assert_eq!(said(&output), ["ok"], "{runtime}: {}", printed(&output));
    }
}

#[test]
fn whoever_is_not_there_is_refused_and_with_ranges_of_ids_is_there() {
    if !users_have_namespaces() {
        return;
    }
    let home = Home::new();
    for (context, expected) in [
        (
            "{runAsUser: 1000}",
            "the container cannot run as user 1000, which takes ids that this user has not",
        ),
        (
            "{runAsGroup: 1001}",
            "the container cannot run as group 1001, which takes ids that this user has not",
        ),
        ("{fsGroup: 1002}", "fsGroup 1002 takes ids that this user has not"),
    ] {
        let more = format!("  timeout: 5s\n  podTemplate: {{securityContext: {context}}}\n");
        let output = home.run(&home.write("task.yaml", &task(&more, "id")), &[]);
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
        assert!(stdout.contains(expected) && stdout.contains("/etc/subuid"), "{}", printed(&output));
    }
    let context = "  podTemplate: {securityContext: {runAsUser: 1000, runAsGroup: 1001, fsGroup: 1002}}\n";
    let file = home.write("task.yaml", &task(context, "echo $(id -u) $(id -g) $(id -G)"));
    for runtime in ["builtin", "runc"] {
        let mut command = home.command_with_ranges(&["run", "--rootfs", "host", "--runtime", runtime]);
        let output = command.arg(&file).output().expect("the command starts");
        assert_eq!(said(&output), ["1000 1001 1001 1002"], "{runtime}: {}", printed(&output));
    }
    assert_eq!(home.left(), Vec::<PathBuf>::new());
}

#[test]
fn a_machine_without_user_namespaces_says_so() {
    if !users_have_namespaces() {
        return;
    }
    let home = Home::new();
    let mut command = home.command_without_namespaces(&["run", "--rootfs", "host"]);
    let output = command.arg(example("quickstart.yaml")).output().expect("the command starts");
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        stderr.trim(),
        "error: an ordinary user cannot run containers here: no more user namespaces are allowed; allow some with \
         \"sysctl user.max_user_namespaces=15000\"; or run the command as root, with sudo"
    );
}

/// A command that was killed leaves containers and files to the next one, which ends and removes them: both live in one
/// user namespace.
#[test]
fn what_a_killed_command_left_is_removed() {
    if !users_have_namespaces() {
        return;
    }
    let home = Home::new();
    let context = "  podTemplate: {securityContext: {runAsUser: 1000}}\n";
    let time = format!("1000.{}", std::process::id());
    let file = home.write("task.yaml", &task(context, &format!("echo here\nexec sleep {time}")));
    let mut command = home.command_with_ranges(&["run", "--rootfs", "host"]);
    let mut killed = command.arg(&file).stdout(Stdio::piped()).spawn().expect("the command starts");
    let mut lines = BufReader::new(killed.stdout.take().expect("piped")).lines();
    assert!(lines.any(|line| line.expect("text").ends_with("] here")), "the step runs");
    killed.kill().expect("killed");
    killed.wait().expect("reaped");
    assert_eq!(home.left().len(), 1);
    let output = home.command_with_ranges(&["image", "ls"]).output().expect("the command starts");
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
    assert_eq!(home.left().len(), 1, "it does not run containers");
    let file = home.write("next.yaml", &task("", "echo next"));
    let mut command = home.command_with_ranges(&["run", "--rootfs", "host"]);
    let output = command.arg(&file).output().expect("the command starts");
    assert_eq!(said(&output), ["next"], "{}", printed(&output));
    assert_eq!(home.left(), Vec::<PathBuf>::new());
    let processes = fs::read_dir("/proc").expect("listed").map(|entry| entry.expect("readable").path());
    let lives = |process: PathBuf| {
        fs::read_to_string(process.join("cmdline")).is_ok_and(|command| command == format!("sleep\0{time}\0"))
    };
    assert!(!processes.into_iter().any(lives), "the container lives on");
}

/// What a layer's entry is: its path, kind, mode, owner and content.
type Entry<'a> = (&'a str, tar::EntryType, u32, u64, Vec<u8>);

fn layer(entries: Vec<Entry<'_>>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, mode, owner, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_size(content.len() as u64);
        // Of the device that everybody has as /dev/null.
        header.set_device_major(1).expect("a device has room for it");
        header.set_device_minor(3).expect("a device has room for it");
        builder.append_data(&mut header, path, &content[..]).expect("memory takes it");
    }
    builder.into_inner().expect("memory takes it")
}

/// An archive of an image with programs of this machine, whose files have several owners and whose upper layer takes some away.
fn archive() -> Vec<u8> {
    use tar::EntryType::{Char, Directory, Regular};
    let mut files = BTreeSet::new();
    for program in ["/bin/sh", "/bin/stat", "/bin/ls", "/bin/id"] {
        let listed = Command::new("ldd").arg(program).output().expect("ldd runs");
        let listed = String::from_utf8(listed.stdout).expect("text");
        files.extend(listed.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned));
        files.insert(program.to_owned());
    }
    let passwd = b"root:x:0:0::/root:/bin/sh\nbuilder:x:1000:1000::/:/bin/sh\n".to_vec();
    let below = [
        ("tmp", Directory, 0o1777, 0, Vec::new()),
        ("etc/passwd", Regular, 0o644, 0, passwd),
        ("etc/gone", Regular, 0o644, 0, Vec::new()),
        ("old/gone", Regular, 0o644, 1000, Vec::new()),
        ("own", Regular, 0o600, 1000, b"own".to_vec()),
        ("odd", Char, 0o666, 0, Vec::new()),
    ];
    let programs = files.iter().map(|path| {
        let content = fs::read(path).expect("a program of this machine");
        (path.trim_start_matches('/'), Regular, 0o755, 0, content)
    });
    let below = layer(programs.chain(below).collect());
    let above = layer(vec![
        ("etc/.wh.gone", Regular, 0o644, 0, Vec::new()),
        ("old/.wh..wh..opq", Regular, 0o644, 0, Vec::new()),
        ("old/new", Regular, 0o644, 1000, Vec::new()),
    ]);
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {"User": "builder"},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&below).to_string(), Digest::of(&above).to_string()]},
    });
    let manifest =
        json!([{"Config": "config.json", "RepoTags": ["localhost/tools:1"], "Layers": ["0.tar", "1.tar"]}]);
    let files = [("0.tar", below), ("1.tar", above), ("config.json", config.to_string().into_bytes())];
    let files = files.into_iter().chain([("manifest.json", manifest.to_string().into_bytes())]);
    layer(files.map(|(path, content)| (path, Regular, 0o644, 0, content)).collect())
}

#[test]
fn images_are_loaded_run_and_removed() {
    if !users_have_namespaces() {
        return;
    }
    let archive = archive();
    let script = "id -u\nstat -c %u /own /old\nls /old /etc/gone /odd 2>/dev/null || echo gone\nls /proc/self/fd >/old/wrote";
    let as_root = "  podTemplate: {securityContext: {runAsUser: 0}}\n";
    for (ranges, context, expected) in [
        (false, as_root, Ok(["0", "0", "0", "/old:", "new", "gone"])),
        (false, "", Err("the container cannot run as user 1000, which takes ids that this user has not")),
        (true, as_root, Ok(["0", "1000", "0", "/old:", "new", "gone"])),
    ] {
        let home = Home::new();
        let command = |arguments: &[&str]| {
            let mut command =
                if ranges { home.command_with_ranges(arguments) } else { home.command(arguments) };
            command.output().expect("the command starts")
        };
        let path = home.path("image.tar");
        fs::write(&path, &archive).expect("written");
        let loaded = command(&["image", "load", path.to_str().expect("text")]);
        assert_eq!(loaded.status.code(), Some(0), "{}", printed(&loaded));
        let text = task(context, script).replace("image: i", "image: localhost/tools:1");
        let file = home.write("task.yaml", &text);
        for runtime in ["builtin", "runc"] {
            let output = command(&["run", "--runtime", runtime, file.to_str().expect("text")]);
            match expected {
                Ok(expected) => assert_eq!(said(&output), expected, "{runtime}: {}", printed(&output)),
                Err(why) => {
                    let stdout = String::from_utf8_lossy(&output.stdout);
                    assert!(stdout.contains(why), "{runtime}: {}", printed(&output));
                }
            }
        }
        let removed = command(&["image", "rm", "localhost/tools:1"]);
        assert_eq!(removed.status.code(), Some(0), "{}", printed(&removed));
        assert_eq!(home.left(), Vec::<PathBuf>::new());
    }
}

/// `ropewalk up` of a user with ranges of ids, until it is dropped.
struct Serving<'a> {
    home: &'a Home,
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl<'a> Serving<'a> {
    fn start(home: &'a Home) -> Self {
        let mut command = home.command_with_ranges(&["up", "--rootfs", "host", "--listen", "127.0.0.1:0"]);
        let mut process = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        Self { home, process, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("a line").expect("text")
    }

    fn kubectl(&self, arguments: &[&str], stdin: &str) -> String {
        let mut kubectl = Command::new("kubectl");
        kubectl.args(["--request-timeout=60s", "--cache-dir"]).arg(self.home.path("cache")).args(arguments);
        kubectl.env("KUBECONFIG", self.home.path(".local/share/ropewalk/kubeconfig"));
        kubectl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut kubectl = kubectl.spawn().expect("kubectl starts");
        kubectl.stdin.take().expect("piped").write_all(stdin.as_bytes()).expect("written");
        let output = kubectl.wait_with_output().expect("kubectl ends");
        assert!(output.status.success(), "{arguments:?}: {}", printed(&output));
        String::from_utf8(output.stdout).expect("text")
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const WAITS: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: waits}
spec:
  securityContext: {runAsUser: 1000}
  containers:
  - {name: c, image: i, command: [sleep, infinity]}
";

#[test]
fn what_up_started_outlives_it_and_the_next_one_has_it() {
    if !users_have_namespaces() || !has_kubectl() {
        return;
    }
    let home = Home::new();
    let mut first = Serving::start(&home);
    assert!(first.line().starts_with("serving at https://"));
    assert!(first.line().ends_with("/.local/share/ropewalk/kubeconfig"));
    let network = "pods share the network of this machine: only root makes networks of their own for them";
    assert_eq!(first.line(), network);
    first.kubectl(&["create", "-f", "-"], WAITS);
    first.kubectl(&["wait", "pod/waits", "--for=condition=Ready", "--timeout=60s"], "");
    drop(first);

    let mut second = Serving::start(&home);
    assert!(second.line().starts_with("serving at https://"));
    assert_eq!(second.kubectl(&["exec", "waits", "--", "id", "-u"], ""), "1000\n");
    drop(second);
    let down = home.command_with_ranges(&["down"]).output().expect("the command starts");
    assert_eq!(String::from_utf8_lossy(&down.stdout), "1 containers ended\n", "{}", printed(&down));
}

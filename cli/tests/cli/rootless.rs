//! The command as an ordinary user runs it: one who has nothing but an id, and one with ranges of them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::{can_run_containers, example, printed, ropewalk};

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
    let tried = Command::new("setpriv").args(AS_USER).args(["unshare", "-Ur", "true"]).output();
    let works = tried.is_ok_and(|output| output.status.success());
    if !works {
        assert!(std::env::var_os("ROPEWALK_REQUIRE_TOOLS").is_none(), "the gate needs user namespaces");
        eprintln!("SKIPPED: ordinary users have no namespaces here, or there is no setpriv to be one");
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
        "id -u\ncat /etc/resolv.conf > /dev/null && touch /tmp/here /etc/here && echo wrote\n\
         ls -A /home /root /mnt\nls {} /etc/shadow 2>/dev/null || echo hidden\n\
         test \"$(ps -e 2>/dev/null | wc -l)\" -lt 20 && echo alone\n\
         echo x > /proc/sys/kernel/hostname || echo kept\nmknod /tmp/disk b 8 0 || echo none",
        home.path("secret").display()
    );
    let file = home.write("task.yaml", &task("", &script));
    let output = home.run(&file, &[]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<_> =
        stdout.lines().filter_map(|line| line.split_once("] ")).map(|(_, said)| said).collect();
    for expected in ["0", "wrote", "hidden", "kept", "none"] {
        assert!(lines.contains(&expected), "no {expected:?} in {}", printed(&output));
    }
    assert!(!Path::new("/etc/here").exists());
}

//! Running the built command as a user does.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The command under test.
pub(crate) fn ropewalk() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ropewalk"))
}

/// Containers need root. Without it a test says so loudly and is skipped; the gate, which is root, sets the variable
/// that turns this into a failure.
#[expect(clippy::print_stderr, reason = "a skipped test says so loudly")]
pub(crate) fn can_run_containers() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        assert!(std::env::var_os("ROPEWALK_REQUIRE_TOOLS").is_none(), "the gate must run as root");
        eprintln!("SKIPPED: running containers needs root");
    }
    root
}

/// `ropewalk run --rootfs host FILE`, with a file of this content.
pub(crate) fn run_text(text: &str) -> Output {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("input.yaml");
    std::fs::write(&file, text).expect("the file is written");
    run_file(&file)
}

/// `ropewalk run --rootfs host FILE`
pub(crate) fn run_file(file: &Path) -> Output {
    ropewalk().args(["run", "--rootfs", "host"]).arg(file).output().expect("the command starts")
}

/// A file of the examples.
pub(crate) fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

/// What a process printed, for assertion messages.
pub(crate) fn printed(output: &Output) -> String {
    format!(
        "exit code {:?}\n--- stdout\n{}--- stderr\n{}",
        output.status.code(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

//! What containers owe their pods, with either runtime.

#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a test program")]

use std::process::Command;

fn hold(runtime: &str) {
    let lacks = if !nix::unistd::geteuid().is_root() {
        Some("root")
    } else if runtime == "runc" && Command::new("runc").arg("--version").output().is_err() {
        Some("runc")
    } else {
        None
    };
    if let Some(lacks) = lacks {
        assert!(std::env::var_os("ROPEWALK_REQUIRE_TOOLS").is_none(), "the gate must have {lacks}");
        eprintln!("SKIPPED: running containers with \"{runtime}\" needs {lacks}");
        return;
    }
    let suite = Command::new(env!("CARGO_BIN_EXE_containers")).args(["--runtime", runtime]).output();
    let output = suite.expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    print!("{said}");
}

/// One after the other: each has as many containers at once as two cores are good for.
#[test]
fn both_runtimes_keep_to_the_same() {
    hold("builtin");
    hold("runc");
}

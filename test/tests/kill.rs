//! The short form of `hack/soak/kill`.

#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a test program")]

use std::process::Command;

#[test]
fn no_kill_loses_anything_or_runs_a_step_twice() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("ROPEWALK_REQUIRE_TOOLS").is_none(), "the gate must run as root");
        eprintln!("SKIPPED: running containers needs root, so nothing was killed");
        return;
    }
    let soak = Command::new(env!("CARGO_BIN_EXE_soak-kill"));
    let output = { soak }.args(["--kills", "10", "--runs", "6"]).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    print!("{}", String::from_utf8_lossy(&output.stdout));
}

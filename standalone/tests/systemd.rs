//! The unit by which `ropewalk up` is a service: systemd understands all of it.

#![allow(clippy::unwrap_used, reason = "a test program")]

use std::{fs, process::Command};

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/systemd/ropewalk.service");

/// What systemd says of a unit with this text, without what it says of others that this one follows.
fn faults(text: &str) -> Option<Vec<String>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ropewalk.service");
    fs::write(&path, text).unwrap();
    let mut verify = Command::new("systemd-analyze");
    let said = verify.args(["verify", "--man=no"]).arg(&path).env("LC_ALL", "C").output().ok()?;
    let said = String::from_utf8(said.stderr).unwrap();
    Some(said.lines().filter(|line| line.contains("ropewalk.service")).map(str::to_owned).collect())
}

#[test]
fn systemd_finds_no_fault_in_the_unit() {
    let unit = fs::read_to_string(UNIT).unwrap();
    // Where this runs, the program need not be installed.
    let startable = unit.replace("ExecStart=/usr/local/bin/ropewalk ", "ExecStart=/bin/true ");
    assert_ne!(startable, unit);
    let Some(found) = faults(&startable) else {
        assert!(std::env::var_os("ROPEWALK_REQUIRE_TOOLS").is_none(), "the gate needs systemd-analyze");
        eprintln!("SKIPPED: no systemd-analyze on this machine, so the unit was not looked at");
        return;
    };
    assert_eq!(found, Vec::<String>::new());
    for (right, wrong) in [("KillMode=process", "KillMode=proces"), ("Delegate=", "Delegated=")] {
        let found = faults(&startable.replace(right, wrong)).unwrap();
        assert_eq!(found.len(), 1, "{wrong}: {found:?}");
    }
}

//! What is left when processes are killed.

use std::ffi::OsString;
use std::process::ExitCode;

type Test = (&'static str, fn());

/// The first argument that makes this binary a process to be killed.
pub(crate) const VICTIM: &str = "__victim";

pub(crate) fn all() -> Vec<Test> {
    Vec::new()
}

pub(crate) fn victim(_arguments: impl Iterator<Item = OsString>) -> ExitCode {
    ExitCode::FAILURE
}

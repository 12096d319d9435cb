//! `ropewalk-entrypoint`: the program inside every step container. It waits for its turn, runs the
//! step's command, and leaves exit code, results and timestamps where the controller finds them
//! (contract 5.5). As `prepare` it is the init container that lays out `/tekton`, as `script` a sidecar's
//! script, as `nop` what stops a sidecar.
//!
//! Blocking code on one thread, linked statically and kept small, since it runs in every image there
//! is. Does IO; all formats live in `ropewalk_entrypoint_protocol`.

#![cfg_attr(not(test), no_main)]

mod child;
mod clock;
mod command;
mod credentials;
mod ending;
mod layout;
mod prepare;
mod report;
mod script;
mod signals;
mod spawn;
#[cfg(not(test))]
mod start;
mod step;
mod substitute;
mod tee;
mod wait;
mod watch;

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;

use ropewalk_entrypoint_protocol::flags::{self, Command};

/// Exit code for what goes wrong outside the step's own command.
const FAILED: u8 = 1;

/// Does what the arguments say; the exit code.
#[cfg_attr(test, allow(dead_code, reason = "tests have a start of their own"))]
fn run() -> u8 {
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let outcome = match flags::parse(&args) {
        Ok(Command::Run(flags)) => step::run(&flags).map_err(|error| describe(&error)),
        Ok(Command::Prepare(flags)) => prepare::run(&flags).map(|()| 0).map_err(|error| describe(&error)),
        Ok(Command::Script(flags)) => script::run(&flags).map(|()| 0).map_err(|error| describe(&error)),
        Ok(Command::Nop) => Ok(0),
        Err(error) => Err(describe(&error)),
    };
    outcome.unwrap_or_else(|message| {
        log(&message);
        FAILED
    })
}

/// Writes one line to standard error, where it becomes part of the container's log. A closed standard
/// error is no reason to fail a step.
fn log(message: &str) {
    let _ = writeln!(std::io::stderr(), "entrypoint: {message}");
}

/// An error and its causes on one line.
fn describe(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

//! Real containers run by the node against the in-process API server. Needs root; says loudly when it is not.
//!
//! This binary is also the shim its own node starts, hence no default test harness: the subcommand must be
//! dispatched before any thread exists.
#![allow(clippy::panic, clippy::print_stderr, clippy::print_stdout, reason = "a test program")]

mod adoption;
mod cleanup;
mod exec;
mod image;
mod images;
mod network;
mod pods;
mod steps;
mod world;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use nix::sys::signal::{SigHandler, Signal, signal};
use ropewalk_standalone::node::shim;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(first) if first == "__shim" => return shim::main(arguments),
        Some(first) if first == cleanup::VICTIM => return cleanup::victim(arguments),
        _ => {}
    }
    ignore_what_nohup_ignores();
    let root = nix::unistd::geteuid().is_root();
    if !root {
        assert!(std::env::var_os("ROPEWALK_REQUIRE_TOOLS").is_none(), "the gate must run as root");
        eprintln!("WARNING: the node's tests need root and are all skipped; run them with sudo");
    }
    let tests = pods::all()
        .into_iter()
        .chain(network::all())
        .chain(steps::all())
        .chain(adoption::all())
        .chain(cleanup::all())
        .chain(exec::all())
        .chain(images::all());
    let trials = tests.map(|(name, test)| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
        .with_ignored_flag(!root)
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// The node is started like this in scripts, and no container may notice.
#[allow(unsafe_code, reason = "setting a signal's disposition is unsafe in every crate")]
fn ignore_what_nohup_ignores() {
    for number in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
        // SAFETY: to ignore a signal is no handler, so no code can run in a signal's context.
        unsafe { signal(number, SigHandler::SigIgn) }.expect("a signal that may be ignored");
    }
}

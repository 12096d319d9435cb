//! The signal dispositions a shim must set right for its container.
#![allow(unsafe_code, reason = "setting a signal's disposition is unsafe in every crate")]

use nix::sys::signal::{SigHandler, Signal, signal};

/// Rust programs ignore SIGPIPE; whoever starts them with `nohup`, or in the background of a script, has them ignore the
/// others. What they execute would inherit that: `yes | head` would print an error, and no shell may trap a signal that
/// it was started to ignore.
const IGNORED: [Signal; 4] = [Signal::SIGPIPE, Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT];

/// Gives these signals their usual effect.
pub(super) fn reset() -> nix::Result<()> {
    IGNORED.into_iter().try_for_each(|number| {
        // SAFETY: the default disposition is no handler, so no code can run in a signal's context.
        unsafe { signal(number, SigHandler::SigDfl) }.map(drop)
    })
}

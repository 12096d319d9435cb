//! The one signal disposition a shim must set right for its container.
#![allow(unsafe_code, reason = "setting a signal's disposition is unsafe in every crate")]

use nix::sys::signal::{SigHandler, Signal, signal};

/// Rust programs ignore SIGPIPE, and what they execute would inherit that: `yes | head` would print an error.
pub(super) fn reset_pipe() -> nix::Result<()> {
    // SAFETY: the default disposition is no handler, so no code can run in a signal's context.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.map(drop)
}

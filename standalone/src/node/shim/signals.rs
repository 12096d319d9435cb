//! The signal dispositions a shim must set right for its container, and the names of signals.
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

/// The signal that an image calls by its name, with or without `SIG`, or by its number; TERM where it says nothing, or names one
/// that is not among the standard ones.
pub(super) fn named(text: &str) -> Signal {
    let upper = text.trim().to_ascii_uppercase();
    let number = upper.parse::<i32>().ok().and_then(|number| Signal::try_from(number).ok());
    let named = || format!("SIG{}", upper.trim_start_matches("SIG")).parse().ok();
    number.or_else(named).unwrap_or(Signal::SIGTERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (text, signal) in [
            ("", Signal::SIGTERM),
            ("SIGQUIT", Signal::SIGQUIT),
            ("quit", Signal::SIGQUIT),
            ("3", Signal::SIGQUIT),
            ("SIGINT", Signal::SIGINT),
            ("SIGRTMIN+3", Signal::SIGTERM),
            ("0", Signal::SIGTERM),
            ("-9", Signal::SIGTERM),
            ("nonsense", Signal::SIGTERM),
        ] {
            assert_eq!(named(text), signal, "{text}");
        }
    }
}

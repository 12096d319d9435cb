//! The command line. A library too, so that tests and other programs of this workspace can read documents as it does.

pub mod args;
pub mod diagnostic;
pub mod documents;
pub mod down;
pub mod image;
pub mod lint;
pub mod render;
pub mod rootless;
pub mod run;
pub mod up;

use std::io::Write as _;

use diagnostic::Diagnostic;
use ropewalk_api::errors::chain;

/// Prints findings to standard error, each with its place and hint.
#[expect(clippy::print_stderr, reason = "this is where people read errors")]
pub(crate) fn report(diagnostics: &[Diagnostic], color: bool) {
    for diagnostic in diagnostics {
        eprintln!("{}", diagnostic.render(color));
    }
}

/// Writes to standard output. A reader that has gone away is not an error, a full disk is.
pub(crate) fn print(text: &str) -> Result<(), Diagnostic> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Diagnostic::new(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// An error with all its causes as one finding.
pub(crate) fn from_chain(error: &dyn std::error::Error) -> Diagnostic {
    Diagnostic::new(chain(error))
}

//! The command line of the entrypoint, rendered by the controller and parsed by the binary
//! (contract 5.4). Pure.
//!
//! The grammar is that of Go's flag package, because the flags of a pod are compared with upstream's:
//! `-x v`, `-x=v`, `--x v` and `--x=v` mean the same, and the first other argument, or `--`, ends the
//! flags.

mod credential;
mod go;
mod prepare;
mod script;
mod step;

pub use credential::{Credential, CredentialKind};
pub use prepare::PrepareFlags;
pub use script::{Script, ScriptFlags};
pub use step::{OnError, StepFlags};

/// First argument of the one init container.
pub const PREPARE: &str = "prepare";
/// First argument of a sidecar whose script no init container wrote.
pub const SCRIPT: &str = "script";
/// First and only argument of a container that is to end at once.
pub const NOP: &str = "nop";

/// What the binary is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a process has one")]
pub enum Command {
    /// Run a step.
    Run(StepFlags),
    /// Set up the pod, as its init container.
    Prepare(PrepareFlags),
    /// Write a script and become it.
    Script(ScriptFlags),
    /// End successfully: how sidecars are stopped (contract 5.7).
    Nop,
}

/// Reads the arguments of the binary, program name excluded.
pub fn parse(args: &[String]) -> Result<Command, FlagError> {
    match args.split_first() {
        Some((first, rest)) if first == PREPARE => PrepareFlags::parse(rest).map(Command::Prepare),
        Some((first, rest)) if first == SCRIPT => ScriptFlags::parse(rest).map(Command::Script),
        Some((first, [])) if first == NOP => Ok(Command::Nop),
        _ => StepFlags::parse(args).map(Command::Run),
    }
}

/// Why a command line could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// No such flag.
    #[error("flag \"-{0}\" is not known")]
    Unknown(String),
    /// A flag that needs a value came last.
    #[error("flag \"-{0}\" needs a value")]
    MissingValue(String),
    /// Dashes without a name, or more than two of them.
    #[error("{0:?} is not a flag, expected \"-name\" or \"-name=value\"")]
    Malformed(String),
    /// A value of the wrong form.
    #[error("flag \"-{flag}\" cannot be {value:?}: {problem}")]
    BadValue {
        /// Name of the flag, without dash.
        flag: &'static str,
        /// The value given, shortened when long.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Arguments after the flags of a command that takes none.
    #[error("argument {0:?} is not expected")]
    Unexpected(String),
}

#[cfg(test)]
mod tests;

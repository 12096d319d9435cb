//! What each way a step can end means for its files and its exit code (contract 5.5). Pure.

use ropewalk_entrypoint_protocol::flags::OnError;
use ropewalk_entrypoint_protocol::termination::{
    EXIT_CODE, FAILURE, REASON, REASON_SKIPPED, REASON_TIMEOUT_EXCEEDED, RunResult,
};

use crate::child::End;

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// An earlier step failed, so this one did not start.
    EarlierStepFailed,
    /// Its `when` did not hold.
    WhenFalse,
    /// Its command ran.
    Ran(End),
    /// Its command could not be started, for this reason.
    NotStarted(String),
}

/// What an ending entails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Consequences {
    /// Content of the `exitCode` file, when it is written.
    pub(crate) exit_code_file: Option<String>,
    /// Whether the post file says that the next step may start.
    pub(crate) released: bool,
    /// Whether results are read.
    pub(crate) results: bool,
    /// Entries for the termination message.
    pub(crate) entries: Vec<RunResult>,
    /// Exit code of the container.
    pub(crate) exit: u8,
}

/// Exit code of a process that ended by a signal, as recorded.
const KILLED: i32 = -1;

impl Ending {
    /// Follows the table of contract 5.5.
    pub(crate) fn consequences(&self, on_error: Option<OnError>) -> Consequences {
        let success = Consequences {
            exit_code_file: Some("0".to_owned()),
            released: true,
            results: true,
            entries: Vec::new(),
            exit: 0,
        };
        let failure = Consequences { exit_code_file: None, released: false, exit: 1, ..success.clone() };
        let skipped = RunResult::internal(REASON, REASON_SKIPPED);
        match self {
            Ending::Ran(End::Exited(0)) => success,
            Ending::Ran(End::TimedOut) => Consequences {
                entries: vec![RunResult::internal(REASON, REASON_TIMEOUT_EXCEEDED)],
                ..failure
            },
            Ending::Ran(end @ (End::Exited(_) | End::Killed)) => {
                let code = if let End::Exited(code) = end { *code } else { KILLED };
                if on_error == Some(OnError::Continue) {
                    return Consequences {
                        exit_code_file: Some(code.to_string()),
                        entries: vec![RunResult::internal(EXIT_CODE, code.to_string())],
                        ..success
                    };
                }
                // -1 leaves a process as 255.
                Consequences { exit: u8::try_from(code).unwrap_or(u8::MAX), ..failure }
            }
            Ending::NotStarted(reason) => {
                Consequences { entries: vec![RunResult::internal(FAILURE, reason)], ..failure }
            }
            Ending::WhenFalse => Consequences { results: false, entries: vec![skipped], ..success },
            Ending::EarlierStepFailed => Consequences { results: false, entries: vec![skipped], ..failure },
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const CONTINUE: Option<OnError> = Some(OnError::Continue);

    #[rstest]
    #[case(Ending::Ran(End::Exited(0)), None, Some("0"), true, 0, None)]
    #[case(Ending::Ran(End::Exited(0)), CONTINUE, Some("0"), true, 0, None)]
    #[case(Ending::Ran(End::Exited(3)), None, None, false, 3, None)]
    #[case(Ending::Ran(End::Exited(3)), Some(OnError::StopAndFail), None, false, 3, None)]
    #[case(Ending::Ran(End::Exited(3)), CONTINUE, Some("3"), true, 0, Some(("ExitCode", "3")))]
    #[case(Ending::Ran(End::Killed), None, None, false, 255, None)]
    #[case(Ending::Ran(End::Killed), CONTINUE, Some("-1"), true, 0, Some(("ExitCode", "-1")))]
    #[case(Ending::Ran(End::TimedOut), None, None, false, 1, Some(("Reason", "TimeoutExceeded")))]
    #[case(Ending::Ran(End::TimedOut), CONTINUE, None, false, 1, Some(("Reason", "TimeoutExceeded")))]
    #[case(Ending::NotStarted("x".into()), CONTINUE, None, false, 1, Some(("Failure", "x")))]
    fn a_step_that_had_its_turn_reports_results(
        #[case] ending: Ending,
        #[case] on_error: Option<OnError>,
        #[case] exit_code_file: Option<&str>,
        #[case] released: bool,
        #[case] exit: u8,
        #[case] entry: Option<(&str, &str)>,
    ) {
        let expected = Consequences {
            exit_code_file: exit_code_file.map(str::to_owned),
            released,
            results: true,
            entries: entry.into_iter().map(|(key, value)| RunResult::internal(key, value)).collect(),
            exit,
        };
        assert_eq!(ending.consequences(on_error), expected);
    }

    #[rstest]
    #[case(Ending::WhenFalse, Some("0"), true, 0)]
    #[case(Ending::EarlierStepFailed, None, false, 1)]
    fn a_skipped_step_has_no_results(
        #[case] ending: Ending,
        #[case] exit_code_file: Option<&str>,
        #[case] released: bool,
        #[case] exit: u8,
    ) {
        let expected = Consequences {
            exit_code_file: exit_code_file.map(str::to_owned),
            released,
            results: false,
            entries: vec![RunResult::internal("Reason", "Skipped")],
            exit,
        };
        assert_eq!(ending.consequences(None), expected);
    }
}

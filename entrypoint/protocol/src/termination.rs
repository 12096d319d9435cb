//! The termination message: results, start time, exit code and reason, as the step leaves them for
//! the controller (contract 5.6). Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::gojson;

/// Kubernetes reads no more than this many bytes of a container's message, so a longer one is never
/// written.
pub const MAX_MESSAGE_BYTES: usize = 4096;

/// Internal key: when the step's own command started, RFC 3339 with milliseconds, in UTC.
pub const STARTED_AT: &str = "StartedAt";
/// Internal key: exit code of a command whose failure was ignored.
pub const EXIT_CODE: &str = "ExitCode";
/// Internal key: one of the `REASON_` constants.
pub const REASON: &str = "Reason";
/// Internal key of our own: in one line, why the command never ran to its end (it does not exist, or
/// its results do not fit). Other readers drop internal keys they do not know.
pub const FAILURE: &str = "Failure";

/// The step did not run: an earlier one failed, or its `when` was false.
pub const REASON_SKIPPED: &str = "Skipped";
/// The step ran into its own timeout.
pub const REASON_TIMEOUT_EXCEEDED: &str = "TimeoutExceeded";

/// One entry of the message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunResult {
    /// Name of the result, or an internal key.
    #[serde(default)]
    pub key: String,
    /// The content, byte for byte as the step wrote it.
    #[serde(default)]
    pub value: String,
    /// Whose entry this is.
    #[serde(default, rename = "type")]
    pub result_type: ResultType,
}

impl RunResult {
    /// A result of the task.
    pub fn task(key: impl Into<String>, value: impl Into<String>) -> Self {
        RunResult { key: key.into(), value: value.into(), result_type: ResultType::TaskRun }
    }

    /// A result of the step.
    pub fn step(key: impl Into<String>, value: impl Into<String>) -> Self {
        RunResult { key: key.into(), value: value.into(), result_type: ResultType::Step }
    }

    /// An entry of the engine's own.
    pub fn internal(key: impl Into<String>, value: impl Into<String>) -> Self {
        RunResult { key: key.into(), value: value.into(), result_type: ResultType::Internal }
    }
}

/// Whose entry it is. Written as a number; read as a number or a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ResultType {
    /// 1, `TaskRunResult`: a result of the task.
    TaskRun,
    /// 3, `InternalTektonResult`: start time, exit code, reason.
    Internal,
    /// 4, `StepResult`: a result of the step.
    Step,
    /// 5, `StepArtifactsResult`.
    StepArtifacts,
    /// 6, `TaskRunArtifactsResult`.
    TaskRunArtifacts,
    /// Anything else; written as 10, which no reader knows.
    #[default]
    Unknown,
}

const TYPES: [(ResultType, u64, &str); 6] = [
    (ResultType::TaskRun, 1, "TaskRunResult"),
    (ResultType::Internal, 3, "InternalTektonResult"),
    (ResultType::Step, 4, "StepResult"),
    (ResultType::StepArtifacts, 5, "StepArtifactsResult"),
    (ResultType::TaskRunArtifacts, 6, "TaskRunArtifactsResult"),
    (ResultType::Unknown, 10, "UnknownResult"),
];

impl Serialize for ResultType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number = TYPES.iter().find(|(kind, _, _)| kind == self).map_or(10, |(_, number, _)| *number);
        serializer.serialize_u64(number)
    }
}

impl<'de> Deserialize<'de> for ResultType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let found = TYPES.iter().find(|(_, number, name)| match &value {
            Value::Number(given) => given.as_u64() == Some(*number),
            Value::String(given) => given == name,
            _ => false,
        });
        Ok(found.map_or(ResultType::Unknown, |(kind, _, _)| *kind))
    }
}

/// Why a message could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TerminationError {
    /// The message is no array of entries.
    #[error("parsing the termination message as an array of results")]
    Parse(#[source] serde_json::Error),
    /// The entries could not be encoded.
    #[error("encoding the termination message")]
    Encode(#[source] serde_json::Error),
    /// The message would be longer than [`MAX_MESSAGE_BYTES`]; the text is upstream's.
    #[error(
        "Termination message is above max allowed size {MAX_MESSAGE_BYTES}, caused by large task result."
    )]
    TooLarge {
        /// Size it would have had, in bytes.
        size: usize,
    },
}

/// Encodes entries as they stand, in Go's JSON spelling; no entries give `[]`.
pub fn encode(results: &[RunResult]) -> String {
    // Strings and numbers always encode.
    gojson::encode(results).unwrap_or_default()
}

/// Reads a message: the last entry of each key counts, whatever its type; sorted by key.
///
/// An empty message has no entries.
pub fn decode(message: &str) -> Result<Vec<RunResult>, TerminationError> {
    if message.is_empty() {
        return Ok(Vec::new());
    }
    let by_key: BTreeMap<String, RunResult> =
        decode_all(message)?.into_iter().map(|result| (result.key.clone(), result)).collect();
    Ok(by_key.into_values().collect())
}

fn decode_all(message: &str) -> Result<Vec<RunResult>, TerminationError> {
    serde_json::from_str(message).map_err(TerminationError::Parse)
}

/// The content the message file must get so that `new` follows what is in it already.
///
/// A file that holds no valid message is overwritten. Fails with [`TerminationError::TooLarge`] when
/// the whole would not fit; the file must then keep its content.
pub fn append(existing: &str, new: &[RunResult]) -> Result<String, TerminationError> {
    let mut results = decode_all(existing).unwrap_or_default();
    results.extend_from_slice(new);
    let message = gojson::encode(&results).map_err(TerminationError::Encode)?;
    if message.len() > MAX_MESSAGE_BYTES {
        return Err(TerminationError::TooLarge { size: message.len() });
    }
    Ok(message)
}

/// A message taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Termination {
    /// All entries but the internal ones, one per key, sorted by key.
    pub results: Vec<RunResult>,
    /// When the command started; RFC 3339 as written by the step, not checked.
    pub started_at: Option<String>,
    /// Exit code of a command whose failure was ignored.
    pub exit_code: Option<i32>,
    /// Why the step ended; one of the `REASON_` constants, not checked.
    pub reason: Option<String>,
    /// What kept the command from starting or its results from being reported, for users to read.
    pub failure: Option<String>,
}

impl Termination {
    /// Reads a container's message; an empty one gives the default.
    pub fn parse(message: &str) -> Result<Self, TerminationError> {
        let mut termination = Termination::default();
        for result in decode(message)? {
            if result.result_type != ResultType::Internal {
                termination.results.push(result);
                continue;
            }
            match result.key.as_str() {
                STARTED_AT => termination.started_at = Some(result.value),
                EXIT_CODE => termination.exit_code = result.value.parse().ok(),
                REASON => termination.reason = Some(result.value),
                FAILURE => termination.failure = Some(result.value),
                _ => {}
            }
        }
        Ok(termination)
    }

    /// The message the status shows: the entries that are not internal, or nothing.
    pub fn message(&self) -> String {
        if self.results.is_empty() { String::new() } else { encode(&self.results) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[test]
    fn encodes_as_go_does() {
        assert_eq!(encode(&[RunResult::task("r", "v")]), r#"[{"key":"r","value":"v","type":1}]"#);
        assert_eq!(
            encode(&[RunResult::step("r", "<&>\u{2028}\n\"\u{1}é")]),
            r#"[{"key":"r","value":"\u003c\u0026\u003e\u2028\n\"\u0001é","type":4}]"#
        );
        assert_eq!(encode(&[]), "[]");
    }

    #[test]
    fn the_last_of_a_key_wins_across_types_and_keys_are_sorted() {
        let message =
            encode(&[RunResult::task("b", "1"), RunResult::task("a", "2"), RunResult::step("b", "3")]);
        assert_eq!(decode(&message).ok(), Some(vec![RunResult::task("a", "2"), RunResult::step("b", "3")]));
    }

    #[rstest]
    #[case("1", ResultType::TaskRun)]
    #[case("3", ResultType::Internal)]
    #[case("4", ResultType::Step)]
    #[case("5", ResultType::StepArtifacts)]
    #[case("6", ResultType::TaskRunArtifacts)]
    #[case("2", ResultType::Unknown)]
    #[case("null", ResultType::Unknown)]
    #[case("\"TaskRunResult\"", ResultType::TaskRun)]
    #[case("\"InternalTektonResult\"", ResultType::Internal)]
    #[case("\"StepResult\"", ResultType::Step)]
    #[case("\"other\"", ResultType::Unknown)]
    fn types_are_read_as_number_or_name(#[case] json: &str, #[case] expected: ResultType) {
        assert_eq!(serde_json::from_str::<ResultType>(json).ok(), Some(expected));
    }

    #[test]
    fn append_keeps_what_is_there_and_overwrites_what_is_no_message() {
        let first = append("", &[RunResult::task("a", "1")]).unwrap_or_default();
        let both = append(&first, &[RunResult::internal(REASON, REASON_SKIPPED)]).unwrap_or_default();
        assert_eq!(both, r#"[{"key":"a","value":"1","type":1},{"key":"Reason","value":"Skipped","type":3}]"#);
        assert_eq!(append("fatal: oops", &[RunResult::task("a", "1")]).ok(), Some(first));
    }

    #[test]
    fn the_limit_counts_encoded_bytes() {
        // 33 bytes stand around the value of a one-letter key, and each < costs six.
        let fits = "x".repeat(MAX_MESSAGE_BYTES - 33);
        assert_eq!(
            append("", &[RunResult::task("r", &*fits)]).map(|m| m.len()).ok(),
            Some(MAX_MESSAGE_BYTES)
        );
        let over = append("", &[RunResult::task("r", format!("{fits}x"))]);
        assert!(matches!(over, Err(TerminationError::TooLarge { size: 4097 })), "{over:?}");
        let escaped = append("", &[RunResult::task("r", "<".repeat(678))]);
        assert!(matches!(escaped, Err(TerminationError::TooLarge { size: 4101 })), "{escaped:?}");
        assert_eq!(
            escaped.map_err(|e| e.to_string()),
            Err("Termination message is above max allowed size 4096, caused by large task result.".to_owned())
        );
    }

    #[test]
    fn takes_a_message_apart() {
        let message = encode(&[
            RunResult::task("r", "v"),
            RunResult::internal(STARTED_AT, "2026-01-02T15:04:05.000Z"),
            RunResult::internal(EXIT_CODE, "3"),
            RunResult::internal(REASON, REASON_TIMEOUT_EXCEEDED),
            RunResult::internal(FAILURE, "no such command"),
        ]);
        let parsed = Termination::parse(&message).unwrap_or_default();
        assert_eq!(
            parsed,
            Termination {
                results: vec![RunResult::task("r", "v")],
                started_at: Some("2026-01-02T15:04:05.000Z".into()),
                exit_code: Some(3),
                reason: Some("TimeoutExceeded".into()),
                failure: Some("no such command".into()),
            }
        );
        assert_eq!(parsed.message(), r#"[{"key":"r","value":"v","type":1}]"#);
        assert_eq!(Termination::parse("").map(|t| t.message()).ok().as_deref(), Some(""));
        assert!(Termination::parse("panic: oops").is_err());
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(
            entries in prop::collection::btree_map(any::<String>(), any::<String>(), 0..5)
        ) {
            let results: Vec<_> = entries.iter().map(|(k, v)| RunResult::task(k, v)).collect();
            prop_assert_eq!(decode(&encode(&results)).ok(), Some(results));
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = Termination::parse(&text);
        }
    }
}

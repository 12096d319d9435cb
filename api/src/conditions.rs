//! Conditions as Tekton's clients read them: knative's shape, `Succeeded` first.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::v1::or_default;

/// The condition every run has.
pub const SUCCEEDED: &str = "Succeeded";

/// One condition of a run.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Succeeded`, or one of our own group.
    #[serde(rename = "type", default, deserialize_with = "or_default")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    #[serde(default, deserialize_with = "or_default")]
    pub status: String,
    /// Empty for an error, else `Warning` or `Info`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub severity: String,
    /// Moves on any change of status, reason or message (contract 6).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    /// One word.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// A sentence.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Status of a condition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConditionStatus {
    /// Done, well.
    True,
    /// Done, badly.
    False,
    /// Not done.
    Unknown,
}

impl ConditionStatus {
    /// As written in an object.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// The condition of this type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// `Succeeded` is True or False: the run has ended and never changes again.
pub fn is_done(conditions: &[Condition]) -> bool {
    find(conditions, SUCCEEDED).is_some_and(|c| c.status == "True" || c.status == "False")
}

/// `Succeeded` is True.
pub fn is_successful(conditions: &[Condition]) -> bool {
    find(conditions, SUCCEEDED).is_some_and(|c| c.status == "True")
}

/// `Succeeded` is False.
pub fn is_failed(conditions: &[Condition]) -> bool {
    find(conditions, SUCCEEDED).is_some_and(|c| c.status == "False")
}

/// Sets a condition, keeping the list sorted by type. The transition time moves only when status, reason or
/// message changes; returns whether it did.
pub fn set(
    conditions: &mut Vec<Condition>,
    type_: &str,
    status: ConditionStatus,
    reason: &str,
    message: &str,
    now: &Time,
) -> bool {
    if let Some(old) = find(conditions, type_)
        && old.status == status.as_str()
        && old.reason == reason
        && old.message == message
    {
        return false;
    }
    conditions.retain(|condition| condition.type_ != type_);
    conditions.push(Condition {
        type_: type_.to_owned(),
        status: status.as_str().to_owned(),
        severity: String::new(),
        last_transition_time: Some(now.clone()),
        reason: reason.to_owned(),
        message: message.to_owned(),
    });
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Time {
        serde_json::from_value(serde_json::Value::String(text.to_owned())).unwrap()
    }

    #[test]
    fn the_time_moves_only_with_what_is_said() {
        let (first, second) = (time("2026-01-01T00:00:00Z"), time("2026-01-02T00:00:00Z"));
        let mut conditions = Vec::new();
        assert!(set(&mut conditions, SUCCEEDED, ConditionStatus::Unknown, "Running", "m", &first));
        assert!(!set(&mut conditions, SUCCEEDED, ConditionStatus::Unknown, "Running", "m", &second));
        assert_eq!(conditions[0].last_transition_time.as_ref(), Some(&first));
        assert!(set(&mut conditions, SUCCEEDED, ConditionStatus::Unknown, "Running", "another", &second));
        assert_eq!(conditions[0].last_transition_time.as_ref(), Some(&second));
    }

    #[test]
    fn conditions_are_sorted_and_each_type_is_there_once() {
        let now = time("2026-01-01T00:00:00Z");
        let mut conditions = Vec::new();
        set(&mut conditions, "Z", ConditionStatus::True, "", "", &now);
        set(&mut conditions, SUCCEEDED, ConditionStatus::Unknown, "", "", &now);
        set(&mut conditions, "Z", ConditionStatus::False, "", "", &now);
        let types: Vec<&str> = conditions.iter().map(|condition| condition.type_.as_str()).collect();
        assert_eq!(types, [SUCCEEDED, "Z"]);
    }

    #[test]
    fn a_run_is_done_once_it_succeeded_or_failed() {
        let now = time("2026-01-01T00:00:00Z");
        for (status, done, successful, failed) in [
            (ConditionStatus::Unknown, false, false, false),
            (ConditionStatus::True, true, true, false),
            (ConditionStatus::False, true, false, true),
        ] {
            let mut conditions = Vec::new();
            set(&mut conditions, SUCCEEDED, status, "", "", &now);
            assert_eq!(
                (is_done(&conditions), is_successful(&conditions), is_failed(&conditions)),
                (done, successful, failed)
            );
        }
        assert!(!is_done(&[]));
    }
}

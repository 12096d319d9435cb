//! What there is to say beyond the contract's message, in a condition of our own that both kinds of run have: where it
//! stands, how long its text may be, and how often it may change. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use ropewalk_api::conditions::{self, Condition, ConditionStatus};

/// The type of the condition; its status is `Unknown` while the run waits and `False` once it has failed. It sorts
/// after `Succeeded`, which stays the first.
pub const TYPE: &str = "ropewalk.dev/Diagnosis";

/// Bytes of a diagnosis: several causes with the texts of a node, and little beside the spec that a status holds.
const MAX_TEXT: usize = 2048;

/// Bytes of one text that somebody else wrote: an image reference and a registry's answer fit.
pub(crate) const MAX_QUOTED: usize = 600;

/// How long a diagnosis stands before another text takes its place: half of what is left of 15 s when a pod is no longer
/// young. Texts come from nodes and from whoever may write events; they may alternate, and each change is a write.
const STANDS: Duration = Duration::from_secs(5);

/// Sets the condition, or removes it.
pub(crate) fn set(conditions: &mut Vec<Condition>, status: ConditionStatus, text: Option<&str>, now: &Time) {
    match text {
        Some(text) => {
            conditions::set(conditions, TYPE, status, "Diagnosed", &cut(text, MAX_TEXT), now);
        }
        None => conditions.retain(|condition| condition.type_ != TYPE),
    }
}

/// Sets the condition of a run that goes on to what others say now. One that stands keeps its text for a while; then
/// the answer is when to look again.
pub(crate) fn follow(conditions: &mut Vec<Condition>, text: Option<&str>, now: &Time) -> Option<Timestamp> {
    if let (Some(text), Some(standing)) = (text, conditions::find(conditions, TYPE))
        && standing.status == ConditionStatus::Unknown.as_str()
        && standing.message != cut(text, MAX_TEXT)
    {
        let since = standing.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        let until = since.saturating_add(STANDS).unwrap_or(Timestamp::MAX);
        if until > now.0 {
            return Some(until);
        }
    }
    set(conditions, ConditionStatus::Unknown, text, now);
    None
}

/// Somebody else's text as part of a line: what cannot be seen is written as an escape, and what is too long is cut.
pub fn quoted(text: &str) -> String {
    let mut shown = String::new();
    for c in text.trim_end().chars() {
        if matches!(c, '"' | '\'' | '\\') {
            shown.push(c);
        } else {
            shown.extend(c.escape_debug());
        }
        if shown.len() > MAX_QUOTED {
            break;
        }
    }
    cut(&shown, MAX_QUOTED)
}

/// The beginning of a text, in at most this many bytes and the dots that say so.
pub(crate) fn cut(text: &str, max: usize) -> String {
    if text.len() <= max { text.to_owned() } else { format!("{}...", &text[..text.floor_char_boundary(max)]) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(1_700_000_000 + second).expect("in range"))
    }

    fn text(conditions: &[Condition]) -> Option<&str> {
        conditions::find(conditions, TYPE).map(|condition| condition.message.as_str())
    }

    #[rstest]
    #[case("configmap \" docker-config\" not found", "configmap \" docker-config\" not found")]
    #[case("it's C:\\x", "it's C:\\x")]
    #[case("two\nlines\t\u{1b}[31m", "two\\nlines\\t\\u{1b}[31m")]
    #[case("turned \u{202e}round\u{200b}", "turned \\u{202e}round\\u{200b}")]
    #[case("ümläut 世界\n", "ümläut 世界")]
    fn what_cannot_be_seen_is_escaped(#[case] given: &str, #[case] expected: &str) {
        assert_eq!(quoted(given), expected);
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        for given in ["a".repeat(5000), "世".repeat(5000), "\u{7}".repeat(5000)] {
            let shown = quoted(&given);
            assert!(shown.ends_with("...") && shown.len() <= MAX_QUOTED + 3, "{}", shown.len());
        }
        assert_eq!(quoted(&"a".repeat(MAX_QUOTED)), "a".repeat(MAX_QUOTED));
    }

    #[test]
    fn a_text_that_stands_is_not_replaced_at_once() {
        let mut conditions = Vec::new();
        assert_eq!(follow(&mut conditions, Some("first"), &at(0)), None);
        assert_eq!(follow(&mut conditions, Some("first"), &at(1)), None);
        assert_eq!(follow(&mut conditions, Some("second"), &at(3)), Some(at(5).0));
        assert_eq!(text(&conditions), Some("first"));
        assert_eq!(follow(&mut conditions, Some("second"), &at(5)), None);
        assert_eq!(text(&conditions), Some("second"));
        assert_eq!(follow(&mut conditions, None, &at(6)), None);
        assert_eq!(text(&conditions), None);
    }

    #[test]
    fn a_text_beyond_the_bound_is_still_the_same_text() {
        let mut conditions = Vec::new();
        let long = "x".repeat(2 * MAX_TEXT);
        follow(&mut conditions, Some(&long), &at(0));
        let before = conditions.clone();
        assert_eq!(follow(&mut conditions, Some(&long), &at(60)), None);
        assert_eq!(conditions, before);
    }
}

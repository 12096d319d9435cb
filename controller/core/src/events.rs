//! Kubernetes events about a run, from its conditions before and after (contract 9.1). Pure; the controller publishes.

mod object;

use ropewalk_api::conditions::{self, Condition, SUCCEEDED};

use crate::diagnosis::{self, cut};
use crate::plan::Event;

pub use object::object;

/// Bytes of an event's message: the API server refuses longer ones.
const MAX_MESSAGE: usize = 1024 - "...".len();

/// The events that a change of the conditions is worth: one for `Succeeded` when any field of it changed, and a warning
/// when there is a diagnosis for the first time.
pub fn of(before: &[Condition], after: &[Condition]) -> Vec<Event> {
    of_succeeded(before, after).into_iter().chain(of_diagnosis(before, after)).collect()
}

fn of_succeeded(before: &[Condition], after: &[Condition]) -> Option<Event> {
    let now = conditions::find(after, SUCCEEDED)?;
    let then = conditions::find(before, SUCCEEDED);
    let said = |c: &Condition| (c.status.clone(), c.reason.clone(), c.message.clone());
    if then.map(said) == Some(said(now)) {
        return None;
    }
    Some(match now.status.as_str() {
        "True" => event(false, "Succeeded", &now.message),
        "False" => event(true, "Failed", &now.message),
        _ if then.is_none() => event(false, "Started", ""),
        _ => event(false, &now.reason, &now.message),
    })
}

/// Only the first: a text that changes while the run waits is in the status.
fn of_diagnosis(before: &[Condition], after: &[Condition]) -> Option<Event> {
    let now = conditions::find(after, diagnosis::TYPE)?;
    conditions::find(before, diagnosis::TYPE).is_none().then(|| event(true, &now.reason, &now.message))
}

fn event(warning: bool, reason: &str, message: &str) -> Event {
    Event { warning, reason: reason.to_owned(), message: cut(message, MAX_MESSAGE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(status: &str, reason: &str, message: &str) -> Vec<Condition> {
        vec![Condition {
            type_: SUCCEEDED.into(),
            status: status.into(),
            reason: reason.into(),
            message: message.into(),
            ..Condition::default()
        }]
    }

    #[test]
    fn a_change_of_the_condition_is_an_event() {
        let running = condition("Unknown", "Running", "Not all");
        for (before, after, expected) in [
            (vec![], condition("Unknown", "Started", ""), Some((false, "Started", ""))),
            (vec![], condition("Unknown", "Pending", "Pending"), Some((false, "Started", ""))),
            (condition("Unknown", "Started", ""), running.clone(), Some((false, "Running", "Not all"))),
            (running.clone(), running.clone(), None),
            (running.clone(), condition("True", "Succeeded", "All"), Some((false, "Succeeded", "All"))),
            (running.clone(), condition("False", "StepFailed", "bad"), Some((true, "Failed", "bad"))),
            (
                running.clone(),
                condition("Unknown", "ToBeRetried", "bad"),
                Some((false, "ToBeRetried", "bad")),
            ),
            (vec![], vec![], None),
        ] {
            let events = of(&before, &after);
            let seen =
                events.first().map(|event| (event.warning, event.reason.as_str(), event.message.as_str()));
            assert_eq!(seen, expected, "{before:?} -> {after:?}");
            assert!(events.len() <= 1);
        }
    }

    #[test]
    fn the_first_diagnosis_is_a_warning() {
        let diagnosed = |text: &str| {
            let mut conditions = condition("Unknown", "Pending", "");
            conditions.push(Condition {
                type_: diagnosis::TYPE.into(),
                reason: "Diagnosed".into(),
                message: text.into(),
                ..Condition::default()
            });
            conditions
        };
        let pending = condition("Unknown", "Pending", "");
        let long = "x".repeat(5000);
        for (before, after, expected) in [
            (pending.clone(), diagnosed("no node"), Some("no node")),
            (diagnosed("no node"), diagnosed("no image"), None),
            (diagnosed("no node"), pending.clone(), None),
            (pending, diagnosed(&long), Some(&*format!("{}...", &long[..MAX_MESSAGE]))),
        ] {
            let events = of(&before, &after);
            let seen: Vec<_> = events.iter().map(|event| (event.warning, event.message.as_str())).collect();
            assert_eq!(seen, expected.map(|text| (true, text)).into_iter().collect::<Vec<_>>());
        }
    }
}

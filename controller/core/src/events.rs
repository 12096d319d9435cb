//! Kubernetes events about a run, from its conditions before and after (contract 9.1). Pure; the controller publishes.

use ropewalk_api::conditions::{self, Condition, SUCCEEDED};

use crate::plan::Event;

/// The events a change of the `Succeeded` condition is worth; none when no field of it changed.
pub fn of(before: &[Condition], after: &[Condition]) -> Vec<Event> {
    let Some(now) = conditions::find(after, SUCCEEDED) else { return Vec::new() };
    let then = conditions::find(before, SUCCEEDED);
    let said = |c: &Condition| (c.status.clone(), c.reason.clone(), c.message.clone());
    if then.map(said) == Some(said(now)) {
        return Vec::new();
    }
    let event = |warning, reason: &str, message: &str| Event {
        warning,
        reason: reason.to_owned(),
        message: message.to_owned(),
    };
    vec![match now.status.as_str() {
        "True" => event(false, "Succeeded", &now.message),
        "False" => event(true, "Failed", &now.message),
        _ if then.is_none() => event(false, "Started", ""),
        _ => event(false, &now.reason, &now.message),
    }]
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
}

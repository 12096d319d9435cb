//! The table of right and wrong objects, held against admission itself and against the API of one process. A cluster's
//! webhook is asked by the end-to-end test *right and wrong objects*.

#![allow(clippy::panic, clippy::print_stderr, clippy::unwrap_used, reason = "a test program")]

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use ropewalk_apiserver::State;
use ropewalk_core::settings::Settings as Engine;
use ropewalk_standalone::admission::Webhooks;
use ropewalk_standalone::server::{NoLogs, Server};
use ropewalk_test::objects::{Case, Outcome, Settings, table};
use ropewalk_webhook::{Decision, Operation, Request, admit};

fn decided(case: &Case, settings: &Settings) -> anyhow::Result<Outcome> {
    let request = Request {
        operation: if case.old.is_some() { Operation::Update } else { Operation::Create },
        group: case.kind.group,
        kind: case.kind.kind,
        subresource: None,
        object: &case.object,
        old_object: case.old.as_ref(),
    };
    match admit(&request, &settings.config()?, &ropewalk_webhook::Settings::default()) {
        Decision::Allow { object, .. } => case.compare("", Some(&object)),
        Decision::Deny { message, .. } => case.compare(&message, None),
    }
}

#[test]
fn admission_judges_as_written() {
    let table = table().unwrap();
    let (mut wrong, mut found) = (Vec::new(), Vec::new());
    for (settings, cases) in &table {
        for case in cases {
            match decided(case, settings) {
                Ok(Outcome::AsWritten) => found.push(case.errors.is_empty()),
                Ok(other) => wrong.push(format!("{}: {other:?}: {}", case.rule, case.object)),
                Err(difference) => wrong.push(difference.to_string()),
            }
        }
    }
    assert!(wrong.is_empty(), "{} objects:\n{}", wrong.len(), wrong.join("\n"));
    let right = found.iter().filter(|right| **right).count();
    let refused = found.len() - right;
    eprintln!("{refused} wrong objects, {right} right ones");
    assert!(refused >= 250, "only {refused} wrong objects");
    assert!(right >= 60, "only {right} right objects");
}

/// Of fields and names the server speaks first, as a cluster's does. All else is the webhooks' to answer.
#[tokio::test]
async fn the_api_of_one_process_judges_as_written() {
    let (mut wrong, mut counts) = (Vec::new(), BTreeMap::<Outcome, usize>::new());
    for (settings, cases) in table().unwrap() {
        let state = State::new(ropewalk_standalone::resources().unwrap(), 1, Timestamp::UNIX_EPOCH);
        let webhooks = Webhooks::new(Arc::new(settings.config().unwrap()), &Engine::default());
        let client = Server::new(state, Arc::new(webhooks), Arc::new(NoLogs)).client();
        for case in &cases {
            match case.judged_by(&client, "default").await {
                Ok(outcome) => *counts.entry(outcome).or_default() += 1,
                Err(difference) => wrong.push(difference.to_string()),
            }
        }
    }
    assert!(wrong.is_empty(), "{} objects:\n{}", wrong.len(), wrong.join("\n"));
    eprintln!("{counts:?}");
    assert_eq!(counts.get(&Outcome::Pruned), None, "kubectl's strictness is served here");
}

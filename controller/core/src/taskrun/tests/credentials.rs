use serde_json::{Value, json};

use super::*;
use crate::credentials::Secret;

const RUN: &str = "
metadata: {name: run}
spec:
  serviceAccountName: builder
  taskSpec: {steps: [{name: clone, image: git, script: git clone}]}
";

fn account(secrets: &[(&str, Answer<Secret>)]) -> Answer<Account> {
    let names: Vec<Value> = secrets.iter().map(|(name, _)| json!({ "name": name })).collect();
    let mut account = Account::new(&serde_json::from_value(json!({ "secrets": names })).expect("an account"));
    account.secrets = secrets.iter().map(|(name, answer)| ((*name).to_owned(), answer.clone())).collect();
    Answer::Found(account)
}

fn secret(type_: &str, url: &str) -> Secret {
    Secret::of_table(&json!({
        "columnDefinitions": [{ "name": "Name" }, { "name": "Type" }],
        "rows": [{ "cells": ["s", type_],
                   "object": { "metadata": { "annotations": { "tekton.dev/git-0": url } } } }],
    }))
    .expect("a table")
}

fn world(account: Answer<Account>) -> World {
    World { account, ..World::new(RUN) }
}

fn basic() -> Answer<Secret> {
    Answer::Found(secret("kubernetes.io/basic-auth", "https://git.example"))
}

#[test]
fn the_pod_has_the_secrets_of_its_account() {
    let mut world = world(account(&[("bot", basic())]));
    world.settle();
    let pod = &world.pods[0];
    let args = pod["spec"]["containers"][0]["args"].as_array().expect("args");
    assert!(args.contains(&json!("-basic-git=bot=https://git.example")), "{args:?}");
    assert_eq!(pod["metadata"]["annotations"]["ropewalk.dev/missing-secrets"], Value::Null);
    assert_eq!(world.events, ["Normal Started: "]);
}

#[test]
fn a_missing_secret_is_told_once_and_again_when_the_run_fails() {
    let mut world = world(account(&[("gone", Answer::Missing), ("bot", basic()), ("too", Answer::Missing)]));
    world.settle();
    assert_eq!(world.said(), "Unknown/Started: ");
    assert_eq!(
        world.events,
        [
            "Normal Started: ",
            "Warning FailedToRetrieveSecret: Unable to retrieve some secrets (gone, too); attempting to use them may \
             not succeed.",
        ]
    );
    assert_eq!(world.pods[0]["metadata"]["annotations"]["ropewalk.dev/missing-secrets"], "gone, too");
    world.steps_exit(&[128]);
    world.settle();
    assert_eq!(
        world.diagnosis().as_deref(),
        Some("service account \"builder\" names secrets that did not exist: gone, too")
    );
}

#[test]
fn a_missing_secret_that_nobody_missed_is_not_told_at_the_end() {
    let mut world = world(account(&[("gone", Answer::Missing)]));
    world.settle();
    world.steps_exit(&[0]);
    world.settle();
    assert_eq!((world.said().split(':').next(), world.diagnosis()), (Some("True/Succeeded"), None));
}

#[test]
fn a_missing_account_ends_the_run_and_says_what_to_do() {
    let mut world = world(Answer::Missing);
    world.settle();
    assert!(world.pods.is_empty());
    assert_eq!(
        world.said(),
        "False/PodCreationFailed: failed to create task run pod \"run\": translating TaskSpec to Pod: serviceaccounts \
         \"builder\" not found. Maybe invalid TaskSpec"
    );
    let advice = "service account \"builder\" does not exist; make that ServiceAccount, or set another serviceAccountName";
    assert_eq!(world.diagnosis().as_deref(), Some(advice));
}

#[test]
fn a_secret_that_may_not_be_read_ends_the_run() {
    let text = "secrets \"s\" is forbidden: User \"u\" cannot get resource \"secrets\"";
    let mut world = world(account(&[("s", Answer::Refused(text.into()))]));
    world.settle();
    assert!(world.said().starts_with("False/PodCreationFailed: "), "{}", world.said());
    assert!(world.said().contains(text), "{}", world.said());
}

#[test]
fn known_hosts_are_required_where_the_configuration_says_so() {
    let mut ssh = secret("kubernetes.io/ssh-auth", "git.example");
    ssh.keys = Some(["ssh-privatekey".to_owned()].into());
    let mut world = world(account(&[("key", Answer::Found(ssh))]));
    world.config.features.require_git_ssh_secret_known_hosts = true;
    world.settle();
    assert_eq!(
        world.said(),
        "False/TaskRunValidationFailed: TaskRun validation failed. Git SSH Secret must have \"known_hosts\" included \
         when feature flag \"require-git-ssh-secret-known-hosts\" is set to true"
    );
    assert_eq!(
        world.diagnosis().as_deref(),
        Some(
            "secret \"key\", which service account \"builder\" names, has no key \"known_hosts\"; add it, with what \
             ssh-keyscan says of the host"
        )
    );
}

#[test]
fn nothing_is_looked_up_or_mounted_where_credentials_are_disabled() {
    let mut world = world(Answer::Missing);
    world.config.features.disable_creds_init = true;
    assert_eq!(world.snapshot().account, None);
    world.settle();
    let pod = world.pods[0].to_string();
    assert!(!pod.contains("creds"), "{pod}");
}

#[test]
fn the_account_is_looked_up_while_there_is_no_pod_and_only_then() {
    let mut world = world(account(&[]));
    let wanted = |world: &World| world.snapshot().account.is_some();
    assert!(wanted(&world));
    world.settle();
    assert!(!wanted(&world));
    let pod = world.pods.remove(0);
    assert!(wanted(&world), "one that is lost is made again");
    world.pods.push(pod);
    world.steps_exit(&[1]);
    world.settle();
    assert!(!wanted(&world));
    for patch in [json!({ "status": "TaskRunPending" }), json!({ "managedBy": "example.com/other" })] {
        let mut held = World::new(RUN);
        json_patch::merge(&mut held.run["spec"], &patch);
        assert!(!wanted(&held), "{patch}");
    }
}

#[test]
fn a_retry_looks_at_the_secrets_anew() {
    let mut world = world(account(&[("late", Answer::Missing)]));
    world.run["spec"]["retries"] = json!(1);
    world.settle();
    world.steps_exit(&[128]);
    world.account = account(&[("late", basic())]);
    world.settle();
    let args = world.pods.last().expect("a pod")["spec"]["containers"][0]["args"].to_string();
    assert!(args.contains("-basic-git=late=https://git.example"), "{args}");
}

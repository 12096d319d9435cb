//! The table of right and wrong objects in `api/tests/objects`, held against admission. How the table reads is in the
//! README there.

#![expect(clippy::disallowed_methods, clippy::unwrap_used, clippy::panic, reason = "a test that reads files")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ropewalk_api::config::Config;
use ropewalk_api::kinds;
use ropewalk_webhook::{Decision, Operation, Request, Settings, admit};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(rename = "rule")]
    title: String,
    contract: String,
    #[serde(default)]
    flags: BTreeMap<String, String>,
    #[serde(default)]
    defaults: BTreeMap<String, String>,
    #[serde(default)]
    invalid: Vec<Object>,
    #[serde(default)]
    valid: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    metadata: Option<Value>,
    old: Option<Old>,
    flags: Option<BTreeMap<String, String>>,
    defaults: Option<BTreeMap<String, String>>,
    #[serde(default)]
    errors: Vec<String>,
    #[serde(default)]
    mutation: Vec<String>,
    #[serde(flatten)]
    spec: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Old {
    spec: Option<Value>,
    status: Option<Value>,
}

fn rules() -> Vec<Rule> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/tests/objects");
    let mut rules = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = fs::read_to_string(&path).unwrap();
            let read: Vec<Rule> = serde_saphyr::from_multiple(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            rules.extend(read);
        }
    }
    rules
}

/// What clients see, without the webhook's name; empty when the object is let in.
fn verdict(rule: &Rule, given: &Object) -> String {
    let (kind, spec) = given.spec.iter().next().unwrap();
    let kind = kinds::find(kind).unwrap_or_else(|| panic!("{}: unknown kind {kind}", rule.title));
    let metadata = given.metadata.clone().unwrap_or_else(|| json!({"name": "x"}));
    let object =
        json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": metadata, "spec": spec});
    let config = Config::from_config_maps(
        given.defaults.as_ref().unwrap_or(&rule.defaults),
        given.flags.as_ref().unwrap_or(&rule.flags),
        &BTreeMap::new(),
    )
    .unwrap();
    let old = given.old.as_ref().map(|old| {
        let mut before = object.clone();
        if let Some(spec) = &old.spec {
            before["spec"] = spec.clone();
        }
        before["status"] = old.status.clone().unwrap_or_default();
        before
    });
    let request = Request {
        operation: if old.is_some() { Operation::Update } else { Operation::Create },
        group: "tekton.dev",
        kind: kind.kind,
        subresource: None,
        object: &object,
        old_object: old.as_ref(),
    };
    match admit(&request, &config, &Settings::default()) {
        Decision::Allow { .. } => String::new(),
        Decision::Deny { message, .. } => message,
    }
}

const DEFAULTING: &str = "admission webhook \"webhook.pipeline.tekton.dev\" denied the request: mutation failed: cannot decode \
                          incoming new object: ";
const VALIDATING: &str =
    "admission webhook \"validation.webhook.pipeline.tekton.dev\" denied the request: validation failed: ";

/// The verdict is exactly the expected errors, one after the other; `…` stands for one line.
fn is_exactly(verdict: &str, given: &Object) -> bool {
    let (prefix, expected) =
        if given.mutation.is_empty() { (VALIDATING, &given.errors) } else { (DEFAULTING, &given.mutation) };
    let Some(text) = verdict.strip_prefix(prefix) else { return false };
    let expected = expected.join("\n");
    let (mut found, mut wanted) = (text.lines(), expected.lines());
    loop {
        match (found.next(), wanted.next()) {
            (None, None) => return true,
            (Some(line), Some("…")) if !line.is_empty() => {}
            (Some(line), Some(expected)) if line == expected => {}
            _ => return false,
        }
    }
}

#[test]
fn wrong_objects_are_refused_with_exactly_their_errors() {
    let rules = rules();
    let mut wrong = Vec::new();
    let mut count = 0;
    for rule in &rules {
        for given in &rule.invalid {
            count += 1;
            let verdict = verdict(rule, given);
            if !is_exactly(&verdict, given) {
                wrong.push(format!(
                    "{} ({})\n  {}\n  expected {:?}\n  found {verdict:?}",
                    rule.title,
                    rule.contract,
                    Value::Object(given.spec.clone()),
                    [&given.errors[..], &given.mutation[..]].concat(),
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    eprintln!("{count} wrong objects");
    assert!(count >= 250, "only {count} wrong objects");
}

#[test]
fn right_objects_are_let_in() {
    let rules = rules();
    let right = rules.iter().flat_map(|rule| rule.valid.iter().map(move |given| (rule, given)));
    let mut count = 0;
    for (rule, given) in right {
        count += 1;
        assert_eq!(verdict(rule, given), "", "{}: {}", rule.title, Value::Object(given.spec.clone()));
    }
    eprintln!("{count} right objects");
    assert!(count >= 60, "only {count} right objects");
}

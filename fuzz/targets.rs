//! What is fuzzed: bytes go in, and besides that nothing panics and no stack ends, what is said of each target holds.
//! Both the fuzzer's programs and the workspace's tests are made of this file.

#![allow(dead_code, reason = "each program is about one of these")]

use std::str;

use ropewalk_api::config::{ApiFields, Config};
use ropewalk_api::validate::cel as expressions;
use ropewalk_api::{conversion, kinds, references, strict};
use ropewalk_cli::documents::Source;
use ropewalk_cli::lint;
use ropewalk_core::substitution::Replacements;
use ropewalk_entrypoint_protocol::variables;
use ropewalk_webhook::{Decision, Operation, Request, Settings, admit};
use serde_json::Value;

/// Longer than the longest reason, with the names that stand in front of it.
const MAX_ANSWER: usize = 33 << 10;

/// An object is admitted or refused with a reason, and what was admitted is admitted again as it is.
pub(crate) fn admission(bytes: &[u8]) {
    let Ok(object) = serde_json::from_slice::<Value>(bytes) else { return };
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let config = everything_on();
    let request = Request {
        operation: Operation::Create,
        group: group(text("apiVersion")),
        kind: text("kind"),
        subresource: None,
        object: &object,
        old_object: None,
    };
    let settings = Settings { release: "v1".to_owned() };
    match admit(&request, &config, &settings) {
        Decision::Deny { message, .. } => {
            assert!(!message.is_empty());
            assert!(message.len() < MAX_ANSWER, "an answer of {} bytes", message.len());
        }
        Decision::Allow { object: admitted, .. } => {
            let again = Request {
                operation: Operation::Update,
                object: &admitted,
                old_object: Some(&admitted),
                ..request
            };
            let Decision::Allow { object: unchanged, .. } = admit(&again, &config, &settings) else {
                panic!("refused when it was stored: {admitted}")
            };
            assert_eq!(unchanged, admitted);
        }
    }
}

/// A file is read or refused; either way every finding can be shown where it is.
pub(crate) fn lint(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    for finding in lint::check_all(vec![Source::new("input.yaml", text)]) {
        assert!(!finding.diagnostic.render(false).is_empty());
    }
}

/// An object whose form is right is the same after a journey to another version and back.
pub(crate) fn conversion(bytes: &[u8]) {
    let Ok(object) = serde_json::from_slice::<Value>(bytes) else { return };
    let Some(kind) = object["kind"].as_str().and_then(kinds::find) else { return };
    let Some(version) = object["apiVersion"].as_str().and_then(|version| kind.version_of(version)) else {
        return;
    };
    // Records of ours that others have written say anything.
    let plain = object["metadata"].get("annotations").is_none();
    let sound = plain && strict::check(kind.kind, &object).is_empty();
    for other in kind.versions().filter(|other| *other != version) {
        let group = group(object["apiVersion"].as_str().unwrap_or_default());
        let there = conversion::convert(object.clone(), &format!("{group}/{other}"));
        let Ok(there) = there else {
            assert!(!sound, "cannot be converted: {object}");
            continue;
        };
        let back = conversion::convert(there.clone(), &format!("{group}/{version}"));
        if sound {
            assert_eq!(
                back.map(without_empty).ok(),
                Some(without_empty(object.clone())),
                "by way of {there}"
            );
        }
    }
}

/// A text has the variables it has: what is replaced by itself stays, and every reference is in it.
pub(crate) fn substitution(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let whole: String = variables::parse(text).iter().map(variables::Segment::raw).collect();
    assert_eq!(whole, text);
    assert_eq!(variables::substitute(text, |_| None), text);
    for variable in variables::variables(text) {
        assert!(text.contains(variable.key));
    }
    for reference in references::in_text(text) {
        assert!(!reference.key().is_empty());
    }
    let mut replacements = Replacements::new();
    for variable in variables::variables(text) {
        replacements.text(variable.key, "$(params.p)");
    }
    // What is put in is not looked at again.
    assert!(replacements.in_text(text).len() <= text.len() + 11 * text.matches("$(").count());
}

/// An expression can be read or cannot, whatever it nests.
pub(crate) fn cel(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Err(error) = expressions::check(text) {
        assert!(!error.to_string().is_empty());
        assert_ne!(error, expressions::CelError::Unread, "the parser gave up on {text:?}");
    }
}

fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

fn everything_on() -> Config {
    let mut config = Config::default();
    config.features.enable_api_fields = ApiFields::Alpha;
    config.features.enable_artifacts = true;
    config.features.enable_cel_in_when_expression = true;
    config.features.enable_concise_resolver_syntax = true;
    config.features.enable_param_enum = true;
    config
}

/// Without what means nothing: null and empty lists, maps and texts.
fn without_empty(value: Value) -> Value {
    let full = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    };
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, without_empty(value)));
            Value::Object(fields.filter(|(_, value)| full(value)).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_empty).collect()),
        other => other,
    }
}

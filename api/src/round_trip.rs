//! Nothing is lost between reading and writing an object: held against fixtures that set every field there is, and
//! against a folder of other people's files when there is one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::files::{corpus, documents};
use crate::{
    CustomRun, GoDuration, Pipeline, PipelineRun, ResolutionRequest, StepAction, Task, TaskRun,
    VerificationPolicy, kinds, schema, strict,
};

/// The documents in the versions that are stored: reading is typed in no other.
fn stored(folder: &Path) -> Vec<(PathBuf, Value)> {
    let mut documents = documents(folder);
    documents.retain(|(_, document)| {
        let kind = document["kind"].as_str().and_then(kinds::find);
        kind.is_some_and(|kind| document["apiVersion"] == kind.api_version())
    });
    documents
}

fn fixtures() -> Vec<(PathBuf, Value)> {
    stored(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"))
}

/// Reads as the document's kind and writes again.
fn through(document: &Value) -> Value {
    fn as_kind<T: DeserializeOwned + Serialize>(document: &Value) -> Value {
        let typed: T = strict::decode(document).unwrap_or_else(|error| panic!("{error} in {document}"));
        serde_json::to_value(typed).unwrap()
    }
    match document["kind"].as_str().unwrap() {
        "Task" => as_kind::<Task>(document),
        "TaskRun" => as_kind::<TaskRun>(document),
        "Pipeline" => as_kind::<Pipeline>(document),
        "PipelineRun" => as_kind::<PipelineRun>(document),
        "StepAction" => as_kind::<StepAction>(document),
        "VerificationPolicy" => as_kind::<VerificationPolicy>(document),
        "ResolutionRequest" => as_kind::<ResolutionRequest>(document),
        _ => as_kind::<CustomRun>(document),
    }
}

/// Without null and empty values, with one spelling for numbers and durations: what "nothing is lost" leaves open.
fn plain(value: &Value) -> Option<Value> {
    Some(match value {
        Value::Null | Value::Bool(false) => return None,
        Value::Bool(true) => Value::String("true".to_owned()),
        Value::Number(number) if number.as_f64() == Some(0.0) => return None,
        Value::Number(number) => Value::String(number.to_string()),
        Value::String(text) if text.is_empty() || text == "0" => return None,
        Value::String(text) => Value::String(match text.parse::<GoDuration>() {
            Ok(duration) => duration.to_string(),
            Err(_) => text.clone(),
        }),
        Value::Array(items) if items.is_empty() => return None,
        // Elements keep their places.
        Value::Array(items) => {
            Value::Array(items.iter().map(|item| plain(item).unwrap_or_default()).collect())
        }
        Value::Object(entries) => {
            let mut entries: Map<String, Value> =
                entries.iter().filter_map(|(key, value)| Some((key.clone(), plain(value)?))).collect();
            // The type of an embedded claim is written always and given seldom; it says nothing.
            if let Some(Value::Object(claim)) = entries.get_mut("volumeClaimTemplate") {
                claim.retain(|key, _| key != "apiVersion" && key != "kind");
            }
            if entries.is_empty() {
                return None;
            }
            Value::Object(entries)
        }
    })
}

fn assert_nothing_lost(documents: &[(PathBuf, Value)]) {
    for (path, document) in documents {
        assert_eq!(plain(&through(document)), plain(document), "{}", path.display());
        let findings = strict::check(document["kind"].as_str().unwrap(), document);
        assert_eq!(findings, [], "{}", path.display());
    }
}

#[test]
fn fixtures_lose_nothing() {
    assert_nothing_lost(&fixtures());
}

/// Without this, a field left out of the fixtures would be a field nobody knows to be kept.
#[test]
fn fixtures_set_every_field() {
    fn walk(
        schema: &'static Value,
        value: Option<&Value>,
        fields: &mut BTreeSet<String>,
        seen: &mut BTreeSet<String>,
    ) {
        let (name, schema) = schema::resolve(schema);
        if name.is_some_and(|name| name.starts_with(schema::KUBERNETES)) {
            return;
        }
        if let (Some(items), Some(Value::Array(values))) = (schema.get("items"), value) {
            for value in values {
                walk(items, Some(value), fields, seen);
            }
        }
        for (field, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let key = format!("{}.{field}", name.unwrap_or("the object"));
            let value = value.and_then(|value| value.get(field));
            fields.insert(key.clone());
            if value.is_some() {
                seen.insert(key);
                walk(property, value, fields, seen);
            }
        }
    }
    let (mut fields, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for (_, document) in fixtures() {
        let schema = schema::of(document["kind"].as_str().unwrap(), &document).unwrap();
        walk(schema, Some(&document), &mut fields, &mut seen);
    }
    assert_eq!(fields.difference(&seen).collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(fields.len() > 200, "only {} fields", fields.len());
}

#[test]
fn a_corpus_loses_nothing() {
    if let Some(folder) = corpus() {
        assert_nothing_lost(&stored(&folder));
    }
}

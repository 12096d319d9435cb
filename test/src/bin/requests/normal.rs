//! Making answers of two servers comparable: what a server chooses itself becomes a word that says where it was first
//! seen, so that it still shows whether two answers speak of the same object or the same version. No IO.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use crate::server::Answer;

/// An answer as it came.
pub(crate) struct Raw {
    pub(crate) step: String,
    pub(crate) code: u16,
    pub(crate) warnings: Vec<String>,
    pub(crate) body: Value,
}

/// Letters that `generateName` adds.
const SUFFIX: usize = 5;

/// What was given a word, within one case.
struct Words<'a> {
    namespace: &'a str,
    now: Timestamp,
    uids: BTreeMap<String, String>,
    versions: BTreeMap<String, String>,
    generated: Vec<(String, String)>,
}

/// The answers of a case in order, by step.
pub(crate) fn normalise(raw: &[Raw], namespace: &str) -> Vec<(String, Answer)> {
    let mut words = Words {
        namespace,
        now: Timestamp::now(),
        uids: BTreeMap::new(),
        versions: BTreeMap::new(),
        generated: Vec::new(),
    };
    let mut answers = Vec::new();
    let mut deleted = BTreeMap::new();
    for answer in raw {
        let mut body = answer.body.clone();
        without_progress(&mut body, &words.versions, &mut deleted);
        words.learn(&answer.step, &body);
        let mut normal = json!({ "code": answer.code, "body": words.value(&body, "", false) });
        if !answer.warnings.is_empty() {
            normal["warnings"] = json!(answer.warnings);
        }
        answers.push((answer.step.clone(), normal));
    }
    answers
}

/// Takes away what a cluster's namespace controller writes into a namespace in deletion, and the versions that makes:
/// whether it has done so when the namespace is asked for is chance. `deleted` has the version of each when it was first
/// seen in deletion, by UID; a dry run shows the deletion under a version that was `known` before.
fn without_progress(
    value: &mut Value,
    known: &BTreeMap<String, String>,
    deleted: &mut BTreeMap<String, Value>,
) {
    if value.pointer("/status/phase").is_some_and(|phase| phase == "Terminating") {
        if let Some(Value::Object(status)) = value.get_mut("status") {
            status.remove("conditions");
        }
        if let Some(Value::Object(metadata)) = value.get_mut("metadata") {
            if let Some(Value::Array(entries)) = metadata.get_mut("managedFields") {
                entries.retain(|entry| entry["manager"] != "kube-controller-manager");
            }
            let uid = metadata.get("uid").map(ToString::to_string).unwrap_or_default();
            if let Some(version) = metadata.get_mut("resourceVersion")
                && version.as_str().is_some_and(|version| !known.contains_key(version))
            {
                *version = deleted.entry(uid).or_insert_with(|| version.clone()).clone();
            }
        }
    }
    match value {
        Value::Object(map) => map.values_mut().for_each(|value| without_progress(value, known, deleted)),
        Value::Array(list) => list.iter_mut().for_each(|value| without_progress(value, known, deleted)),
        _ => {}
    }
}

impl Words<'_> {
    /// Notes what the objects in an answer have for the first time.
    fn learn(&mut self, step: &str, value: &Value) {
        match value {
            Value::Object(map) => {
                if let Some(Value::Object(metadata)) = map.get("metadata") {
                    self.learn_metadata(step, metadata);
                }
                map.values().for_each(|value| self.learn(step, value));
            }
            Value::Array(list) => list.iter().for_each(|value| self.learn(step, value)),
            _ => {}
        }
    }

    fn learn_metadata(&mut self, step: &str, metadata: &Map<String, Value>) {
        let text = |key: &str| metadata.get(key).and_then(Value::as_str).unwrap_or_default();
        let (name, base) = (text("name"), text("generateName"));
        let mut shown = name.replace(self.namespace, "<ns>");
        let generated = !base.is_empty() && name.len() == base.len() + SUFFIX && name.starts_with(base);
        if generated {
            shown = format!("{}*****", base.replace(self.namespace, "<ns>"));
            if self.generated.iter().all(|(known, _)| known != name) {
                self.generated.push((name.to_owned(), shown.clone()));
            }
        }
        if !text("uid").is_empty() {
            self.uids.entry(text("uid").to_owned()).or_insert_with(|| format!("<uid of {shown} at {step}>"));
            // A list has a version and no UID; which one depends on what else happens on the server.
            self.versions
                .entry(text("resourceVersion").to_owned())
                .or_insert_with(|| format!("<version of {shown} at {step}>"));
        }
    }

    fn value(&self, value: &Value, key: &str, object: bool) -> Value {
        match value {
            Value::Object(map) => {
                let object = if key == "metadata" { map.contains_key("uid") } else { object };
                map.iter().map(|(key, value)| (self.text(key), self.value(value, key, object))).collect()
            }
            Value::Array(list) if key == "cells" => list.iter().map(|cell| self.cell(cell)).collect(),
            Value::Array(list) => {
                let mut list: Vec<Value> = list.iter().map(|value| self.value(value, key, object)).collect();
                if key == "managedFields" {
                    // They are in the order of their times, which are whole seconds.
                    list.sort_by_key(|entry| {
                        ["manager", "operation", "subresource"].map(|key| entry[key].to_string())
                    });
                }
                if ["resources", "verbs"].contains(&key) {
                    // Discovery lists definitions in the order they came.
                    list.sort_by_key(|entry| entry.get("name").unwrap_or(entry).to_string());
                }
                Value::Array(list)
            }
            Value::String(text) => Value::from(match key {
                "resourceVersion" if object => {
                    self.versions.get(text).cloned().unwrap_or_else(|| "<version>".to_owned())
                }
                "resourceVersion" if !text.is_empty() => "<version>".to_owned(),
                "continue" => "<token>".to_owned(),
                _ => self.text(text),
            }),
            other => other.clone(),
        }
    }

    /// Ages differ by how long the case took.
    fn cell(&self, cell: &Value) -> Value {
        let is_age = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_digit())
                && text.ends_with(['s', 'm', 'h', 'd'])
                && text.chars().all(|c| c.is_ascii_digit() || "smhd".contains(c))
        };
        match cell {
            Value::String(text) if is_age(text) => Value::from("<age>"),
            other => self.value(other, "", false),
        }
    }

    fn text(&self, text: &str) -> String {
        // Times that requests brought along are long past.
        let recent = |time: Timestamp| self.now.duration_since(time).abs() < SignedDuration::from_hours(24);
        if text.parse().is_ok_and(recent) {
            return "<time>".to_owned();
        }
        // The differences that some messages show are made by go-cmp, which writes some blanks as ones that do not break,
        // or does not, by chance of each process, so that nobody relies on them.
        let mut text = text.replace('\u{a0}', " ");
        for (uid, word) in &self.uids {
            text = text.replace(uid, word);
        }
        for (name, word) in &self.generated {
            text = text.replace(name, word);
        }
        text = text.replace(self.namespace, "<ns>");
        // Messages about versions quote them.
        if text.to_lowercase().contains("resource version") || text.contains("ResourceVersion in") {
            let parts = text.split_inclusive(|c: char| !c.is_ascii_digit());
            let parts = parts.map(|part| {
                let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
                if rest.len() == part.len() { part.to_owned() } else { format!("<n>{rest}") }
            });
            text = parts.collect();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Raw, normalise};

    fn namespace(version: &str, status: &Value, managers: &[&str]) -> Value {
        let entries: Vec<Value> = managers.iter().map(|manager| json!({ "manager": manager })).collect();
        json!({
            "kind": "Namespace",
            "metadata": { "name": "ending", "uid": "0b5c-11", "resourceVersion": version, "managedFields": entries },
            "status": status,
        })
    }

    #[test]
    fn how_far_a_deletion_is_is_not_compared() {
        let before = namespace("4", &json!({ "phase": "Active" }), &["requests"]);
        let dry_run = namespace("4", &json!({ "phase": "Terminating" }), &["requests"]);
        let deleted = namespace("5", &json!({ "phase": "Terminating" }), &["requests"]);
        let told = json!({ "phase": "Terminating", "conditions": [{ "type": "NamespaceContentRemaining" }] });
        let later = namespace("6", &told, &["requests", "kube-controller-manager"]);
        let list = json!({ "items": [later] });
        let steps = [("create", before), ("dry run", dry_run), ("delete", deleted), ("list", list)];
        let raw =
            steps.map(|(step, body)| Raw { step: step.to_owned(), code: 200, warnings: Vec::new(), body });
        let answers = normalise(&raw, "elsewhere");
        let version =
            |at: usize| answers[at].1["body"]["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        assert_eq!(version(1), "<version of ending at create>");
        assert_eq!(version(2), "<version of ending at delete>");
        assert_eq!(answers[2].1["body"], answers[3].1["body"]["items"][0]);
        assert_eq!(answers[2].1["body"]["status"], json!({ "phase": "Terminating" }));
    }
}

//! Policy rules: what they cover, and how they are told. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::Attributes;

/// The strings of one list of a rule.
pub(crate) fn list<'a>(rule: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    rule.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn has(rule: &Value, key: &str, wanted: &str) -> bool {
    list(rule, key).any(|found| found == "*" || found == wanted)
}

fn covers_resource(rule: &Value, combined: &str, subresource: &str) -> bool {
    list(rule, "resources").any(|found| {
        let of_any = !subresource.is_empty() && found.strip_prefix("*/") == Some(subresource);
        found == "*" || found == combined || of_any
    })
}

fn covers_name(rule: &Value, name: &str) -> bool {
    let mut names = list(rule, "resourceNames").peekable();
    names.peek().is_none() || names.any(|found| found == name)
}

fn covers_path(rule: &Value, path: &str) -> bool {
    list(rule, "nonResourceURLs")
        .any(|found| found == path || found.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix)))
}

/// Whether a rule allows this.
pub(crate) fn allows(rule: &Value, wanted: &Attributes, combined: &str) -> bool {
    has(rule, "verbs", &wanted.verb)
        && if wanted.path.is_empty() {
            has(rule, "apiGroups", &wanted.group)
                && covers_resource(rule, combined, &wanted.subresource)
                && covers_name(rule, &wanted.name)
        } else {
            covers_path(rule, &wanted.path)
        }
}

/// A rule with one verb for one resource (of one name, or of any) or one path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Grant {
    group: String,
    resource: String,
    name: Option<String>,
    path: String,
    verb: String,
}

/// Rules taken apart; what covers all of the parts covers the rules.
pub(crate) fn grants(rules: &[Value]) -> BTreeSet<Grant> {
    let mut grants = BTreeSet::new();
    for rule in rules {
        for verb in list(rule, "verbs") {
            let verb = || verb.to_owned();
            for path in list(rule, "nonResourceURLs") {
                let nothing = String::new;
                grants.insert(Grant {
                    group: nothing(),
                    resource: nothing(),
                    name: None,
                    path: path.to_owned(),
                    verb: verb(),
                });
            }
            let mut names: Vec<_> = list(rule, "resourceNames").map(|name| Some(name.to_owned())).collect();
            if names.is_empty() {
                names.push(None);
            }
            for group in list(rule, "apiGroups") {
                for resource in list(rule, "resources") {
                    grants.extend(names.iter().map(|name| Grant {
                        group: group.to_owned(),
                        resource: resource.to_owned(),
                        name: name.clone(),
                        path: String::new(),
                        verb: verb(),
                    }));
                }
            }
        }
    }
    grants
}

impl Grant {
    /// Whether a rule allows at least this.
    pub(crate) fn is_in(&self, rule: &Value) -> bool {
        if !has(rule, "verbs", &self.verb) {
            return false;
        }
        if !self.path.is_empty() {
            // A granted pattern is covered by itself and by a shorter one.
            return covers_path(rule, &self.path);
        }
        let subresource = self.resource.split_once('/').map_or("", |(_, subresource)| subresource);
        let names = match &self.name {
            Some(name) => covers_name(rule, name),
            None => list(rule, "resourceNames").next().is_none(),
        };
        has(rule, "apiGroups", &self.group) && covers_resource(rule, &self.resource, subresource) && names
    }
}

/// Grants as the refusal of an escalation lists them: verbs of one resource together, a line each.
pub(crate) fn describe(grants: &BTreeSet<Grant>) -> String {
    let mut verbs: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for grant in grants {
        verbs.entry((&grant.group, &grant.resource, &grant.name, &grant.path)).or_default().push(&grant.verb);
    }
    let mut lines: Vec<String> = verbs
        .into_iter()
        .map(|((group, resource, name, path), verbs)| {
            let quoted = |values: &[&str]| {
                let values: Vec<_> = values.iter().map(|value| format!("{value:?}")).collect();
                format!("[{}]", values.join(" "))
            };
            let mut parts = Vec::new();
            if path.is_empty() {
                parts.push(format!("APIGroups:{}", quoted(&[group])));
                parts.push(format!("Resources:{}", quoted(&[resource])));
            } else {
                parts.push(format!("NonResourceURLs:{}", quoted(&[path])));
            }
            if let Some(name) = name {
                parts.push(format!("ResourceNames:{}", quoted(&[name])));
            }
            parts.push(format!("Verbs:{}", quoted(&verbs)));
            format!("{{{}}}", parts.join(", "))
        })
        .collect();
    lines.sort();
    lines.join("\n")
}

/// The rules that cover everything.
pub(crate) fn everything() -> [Value; 2] {
    [
        json!({ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }),
        json!({ "nonResourceURLs": ["*"], "verbs": ["*"] }),
    ]
}

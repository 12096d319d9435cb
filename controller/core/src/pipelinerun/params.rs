//! Params of a Pipeline and of its tasks: what is missing, what has the wrong type, and the defaults
//! (contract 4.1 and 7.6). Pure.

use std::collections::{BTreeMap, BTreeSet};

use ropewalk_api::variables::{self, Reference, Segment};
use ropewalk_api::{Param, ParamSpec, ParamType, ParamValue};

use crate::substitution::{Replacements, Scope};

/// How deep defaults may refer to each other (contract 4.1).
const MAX_DEPTH: usize = 10;

/// What is wrong with the values given for declared params.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Problems {
    /// Neither a value nor a default.
    pub(super) missing: Vec<String>,
    /// A value of another type.
    pub(super) mistyped: Vec<String>,
    /// Object params and the keys that neither value nor default has.
    pub(super) missing_keys: BTreeMap<String, Vec<String>>,
}

impl Problems {
    /// Compares declarations with values. With `variables`, a string that holds a variable fits any type:
    /// what it will become is not known yet.
    pub(super) fn find(declared: &[ParamSpec], given: &[Param], variables: bool) -> Self {
        let values: BTreeMap<&str, &ParamValue> =
            given.iter().map(|param| (param.name.as_str(), &param.value)).collect();
        let mut problems = Self::default();
        for spec in declared {
            let Some(value) = values.get(spec.name.as_str()) else {
                if spec.default.is_none() {
                    problems.missing.push(spec.name.clone());
                }
                continue;
            };
            if variables && value.as_str().is_some_and(|text| text.contains("$(")) {
                continue;
            }
            if value.kind() != spec.value_type() {
                problems.mistyped.push(spec.name.clone());
                continue;
            }
            if let ParamValue::Object(entries) = value {
                let default = match &spec.default {
                    Some(ParamValue::Object(default)) => Some(default),
                    _ => None,
                };
                let there = |key: &&String| {
                    entries.contains_key(*key) || default.is_some_and(|entries| entries.contains_key(*key))
                };
                let keys: Vec<String> = spec.properties.keys().filter(|key| !there(key)).cloned().collect();
                if !keys.is_empty() {
                    problems.missing_keys.insert(spec.name.clone(), keys);
                }
            }
        }
        problems
    }
}

/// A list as Go prints it.
pub(super) fn go_list(items: &[String]) -> String {
    format!("[{}]", items.join(" "))
}

/// A map of lists as Go prints it.
pub(super) fn go_map(map: &BTreeMap<String, Vec<String>>) -> String {
    let entries: Vec<String> = map.iter().map(|(key, items)| format!("{key}:{}", go_list(items))).collect();
    format!("map[{}]", entries.join(" "))
}

/// Why the defaults of a Pipeline's params have no value.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum DefaultError {
    #[error("parameter resolution failed: circular dependency detected in param \"params.{0}\"")]
    Circular(String),
    #[error(
        "parameter resolution failed: maximum recursion depth ({MAX_DEPTH}) exceeded for param \
         \"params.{0}\""
    )]
    TooDeep(String),
    #[error("parameter resolution failed: param \"params.{0}\" references undefined param \"params.{1}\"")]
    Undefined(String, String),
}

/// The values a Pipeline's params have in a run: those given, then the defaults of the others.
pub(super) fn effective(declared: &[ParamSpec], given: &[Param]) -> Result<Vec<Param>, DefaultError> {
    let supplied: BTreeSet<&str> = given.iter().map(|param| param.name.as_str()).collect();
    let mut known = Replacements::new();
    known.params(Scope::Pipeline, given);
    let defaulted: Vec<(&str, &ParamValue)> = declared
        .iter()
        .filter(|spec| !supplied.contains(spec.name.as_str()))
        .filter_map(|spec| Some((spec.name.as_str(), spec.default.as_ref()?)))
        .collect();
    let mut resolver = Resolver {
        defaults: defaulted.iter().filter_map(|(name, value)| Some((*name, value.as_str()?))).collect(),
        known,
        done: BTreeMap::new(),
    };
    let names: Vec<&str> = resolver.defaults.keys().copied().collect();
    for name in names {
        resolver.resolve(name, &mut Vec::new())?;
    }
    let Resolver { done, mut known, .. } = resolver;
    for (name, text) in &done {
        known.param(Scope::Pipeline, name, &ParamValue::from(text.as_str()));
    }
    let mut params = given.to_vec();
    for (name, default) in defaulted {
        let value = match (done.get(name), default.kind()) {
            (Some(text), ParamType::String) => ParamValue::from(text.as_str()),
            _ => known.in_value(default),
        };
        params.push(Param { name: name.to_owned(), value });
    }
    Ok(params)
}

/// Resolves string defaults that refer to each other.
struct Resolver<'a> {
    defaults: BTreeMap<&'a str, &'a str>,
    known: Replacements,
    done: BTreeMap<&'a str, String>,
}

impl<'a> Resolver<'a> {
    fn resolve(&mut self, name: &'a str, above: &mut Vec<&'a str>) -> Result<String, DefaultError> {
        if let Some(text) = self.done.get(name) {
            return Ok(text.clone());
        }
        if above.contains(&name) {
            return Err(DefaultError::Circular(name.to_owned()));
        }
        if above.len() >= MAX_DEPTH {
            return Err(DefaultError::TooDeep(name.to_owned()));
        }
        above.push(name);
        let mut text = String::new();
        for segment in variables::parse(self.defaults.get(name).copied().unwrap_or_default()) {
            let Segment::Variable(variable) = segment else {
                text.push_str(segment.raw());
                continue;
            };
            if self.known.knows(variable.key) {
                text.push_str(&self.known.in_text(variable.raw));
                continue;
            }
            let reference = Reference::parse(variable.key);
            let param = reference.as_ref().filter(|r| r.parts.len() > 1 && r.parts[0] == "params");
            let Some(param) = param else {
                text.push_str(variable.raw);
                continue;
            };
            let referred = self.defaults.get_key_value(param.parts[1].as_str()).map(|(key, _)| *key);
            match referred.filter(|_| param.parts.len() == 2 && param.subscript.is_none()) {
                Some(referred) => text.push_str(&self.resolve(referred, above)?),
                None => return Err(DefaultError::Undefined(name.to_owned(), param.parts[1].clone())),
            }
        }
        above.pop();
        self.done.insert(name, text.clone());
        Ok(text)
    }
}

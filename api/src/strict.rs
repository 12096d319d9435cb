//! Unknown fields and wrong JSON types in an object, found by walking it along the full schema. Pure.
//!
//! Typed decoding would ignore the former and report the latter without a path. Upstream refuses unknown fields at
//! admission (contract 2); the API server does so only where the CRDs are structural, this does it everywhere.

mod case;

pub use case::{Renamed, correct as correct_case};

use std::cell::Cell;
use std::fmt;

use ropewalk_quantity::Quantity;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::GoDuration;
use crate::conversion::differences;
use crate::schema::{self, Shape};

/// One thing wrong with the form of an object.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Finding {
    /// Where: `spec.steps[0].imge`.
    pub path: String,
    /// What.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Problem {
    /// There is no such field here.
    UnknownField {
        /// What was probably meant.
        hint: Option<Hint>,
    },
    /// It holds another JSON type than it should, or a text that is no quantity or duration where one belongs.
    WrongType {
        /// What it should hold, in words: `a list`.
        expected: &'static str,
        /// What it holds.
        found: String,
    },
}

/// What the author of an unknown field probably meant.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Hint {
    /// A field of a similar name in the same place.
    Similar(String),
    /// The place or the name the field has in this version.
    Moved(&'static str),
    /// The field of the object that it belongs in: it is indented too little.
    Within(&'static str),
}

impl Finding {
    /// It is about this field of the object, or something in it.
    pub fn is_within(&self, field: &str) -> bool {
        self.path.strip_prefix(field).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            Problem::UnknownField { hint: None } => write!(f, "unknown field \"{}\"", self.path),
            Problem::UnknownField { hint: Some(Hint::Similar(name)) } => {
                write!(f, "unknown field \"{}\", did you mean \"{name}\"?", self.path)
            }
            Problem::UnknownField { hint: Some(Hint::Moved(place)) } => {
                write!(f, "unknown field \"{}\", use \"{place}\" instead", self.path)
            }
            Problem::UnknownField { hint: Some(Hint::Within(field)) } => {
                write!(f, "unknown field \"{}\", it belongs in \"{field}\"", self.path)
            }
            Problem::WrongType { expected, found } => {
                write!(f, "field \"{}\" must be {expected}, not {found}", self.path)
            }
        }
    }
}

/// Fields that older versions or other resources have elsewhere: the type they are wrongly in, their name, and where
/// they belong in v1 (contract 1.0).
const MOVED: [(&str, &str, &str); 28] = [
    ("PipelineRunSpec", "podTemplate", "spec.taskRunTemplate.podTemplate"),
    ("PipelineRunSpec", "serviceAccountName", "spec.taskRunTemplate.serviceAccountName"),
    ("PipelineRunSpec", "timeout", "spec.timeouts.pipeline"),
    ("PipelineRunSpec", "serviceAccountNames", "spec.taskRunSpecs[].serviceAccountName"),
    ("PipelineTaskRunSpec", "taskServiceAccountName", "serviceAccountName"),
    ("PipelineTaskRunSpec", "taskPodTemplate", "podTemplate"),
    ("PipelineTaskRunSpec", "stepOverrides", "stepSpecs"),
    ("PipelineTaskRunSpec", "sidecarOverrides", "sidecarSpecs"),
    ("TaskRunSpec", "stepOverrides", "stepSpecs"),
    ("TaskRunSpec", "sidecarOverrides", "sidecarSpecs"),
    ("TaskRunSpec", "resources", "computeResources"),
    ("TaskRunSpec", "timeouts", "timeout"),
    ("Step", "resources", "computeResources"),
    ("StepTemplate", "resources", "computeResources"),
    ("Sidecar", "resources", "computeResources"),
    ("TaskRef", "bundle", "resolver: bundles, with params"),
    ("PipelineRef", "bundle", "resolver: bundles, with params"),
    ("PipelineTask", "conditions", "when"),
    ("PipelineTask", "whenExpressions", "when"),
    ("PipelineTask", "steps", "taskSpec.steps"),
    ("PipelineSpec", "steps", "tasks[].taskSpec.steps"),
    ("PipelineRunSpec", "tasks", "pipelineSpec.tasks"),
    ("TaskRunSpec", "steps", "taskSpec.steps"),
    ("TaskSpec", "image", "steps[].image"),
    ("TaskSpec", "script", "steps[].script"),
    ("TaskSpec", "command", "steps[].command"),
    ("TaskSpec", "args", "steps[].args"),
    ("TaskRunStatus", "taskResults", "results"),
];

/// A value that has the right JSON type and still cannot be read, such as a date that is none.
#[derive(Debug, thiserror::Error)]
#[error("field \"{path}\": {reason}")]
pub struct DecodeError {
    /// The field.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Reads an object, or part of one, into its type. Unknown fields are ignored here, see [`check`].
///
/// # Errors
/// The first value that cannot be read.
pub fn decode<T: DeserializeOwned>(object: &Value) -> Result<T, DecodeError> {
    // Where it is right, nobody pays for paths.
    if let Ok(decoded) = T::deserialize(object) {
        return Ok(decoded);
    }
    serde_path_to_error::deserialize(object).map_err(|error| {
        let (path, reason) = (error.path().to_string(), error.inner().to_string());
        // What the reason names besides are types of ours.
        if let Some(field) = reason.strip_prefix("missing field `") {
            let field = field.trim_end_matches('`');
            let path = if path == "." { field.to_owned() } else { format!("{path}.{field}") };
            return DecodeError { path, reason: "it is missing".to_owned() };
        }
        if reason.starts_with("invalid type: null") {
            return DecodeError { path, reason: "it must not be null".to_owned() };
        }
        DecodeError { path, reason }
    })
}

/// How many findings of one object are put into words. Nobody reads as many, and an object of nothing but unknown
/// fields has a hundred times more, each with a look at every field there could be.
const MOST: usize = 1000;

/// What is wrong with the form of one object.
#[derive(Debug, Default)]
pub struct Findings {
    /// The first thousand things, in the order the fields are met.
    pub first: Vec<Finding>,
    /// How many there are beside those.
    pub more: usize,
}

impl Findings {
    fn push(&mut self, path: &str, problem: impl FnOnce() -> Problem) {
        if self.first.len() < MOST {
            self.first.push(Finding { path: path.to_owned(), problem: problem() });
        } else {
            self.more += 1;
        }
    }
}

/// What is wrong with the form of an object of this kind, in the order the fields are met; the first thousand things.
///
/// The version is the object's own. `null` is right everywhere. An unknown kind has no findings.
pub fn check(kind: &str, object: &Value) -> Vec<Finding> {
    check_all(kind, object).first
}

/// As [`check`], with the number of what is not told.
pub fn check_all(kind: &str, object: &Value) -> Findings {
    let mut findings = Findings::default();
    if let Some(shape) = schema::of(kind, object).and_then(schema::shape) {
        walk(shape, None, object, &mut String::new(), &mut findings);
    }
    findings
}

/// Whether a value has the form of this schema.
pub(crate) fn fits(schema: &'static Value, value: &Value) -> bool {
    let mut findings = Findings::default();
    if let Some(shape) = schema::shape(schema) {
        walk(shape, None, value, &mut String::new(), &mut findings);
    }
    findings.first.is_empty()
}

fn walk(
    shape: &'static Shape,
    within: Option<&'static str>,
    value: &Value,
    path: &mut String,
    findings: &mut Findings,
) {
    let name = shape.name;
    if shape.is_int_or_string {
        if !(value.is_null() || value.is_string() || value.is_number()) {
            findings.push(path, || wrong_type("a number or a string", value));
        }
        if name == Some(QUANTITY)
            && let Some(text) = value.as_str().filter(|text| text.parse::<Quantity>().is_err())
        {
            findings.push(path, || wrong_text("a quantity such as \"100m\", \"2\" or \"1Gi\"", text));
        }
        return;
    }
    let Some(json_type) = shape.json_type else { return };
    let (fits, expected) = match json_type {
        "object" => (value.is_object(), "a map"),
        "array" => (value.is_array(), "a list"),
        "string" if shape.is_duration => (value.is_string(), DURATION),
        "string" => (value.is_string(), "a string"),
        "boolean" => (value.is_boolean(), "true or false"),
        "integer" => (value.is_i64() || value.is_u64(), "a whole number"),
        _ => (value.is_number(), "a number"),
    };
    if !fits {
        if !value.is_null() {
            findings.push(path, || wrong_type(expected, value));
        }
        return;
    }
    if let Some(text) = value.as_str().filter(|_| shape.is_duration)
        && text.parse::<GoDuration>().is_err()
    {
        findings.push(path, || wrong_text(DURATION, text));
    }
    match value {
        Value::Object(fields) => {
            let within = name.or(within);
            for (field, value) in fields {
                let length = path.len();
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(field);
                match shape.field(field) {
                    Some(property) => walk(property, within, value, path, findings),
                    None => {
                        // An object that names no fields takes any.
                        if let Some(known) = shape.properties {
                            findings.push(path, || {
                                let is_root = length == 0;
                                let outer = || is_root.then(|| outer_of(field, known)).flatten();
                                let hint = hint(within, field, known.keys()).or_else(outer);
                                Problem::UnknownField { hint }
                            });
                        }
                    }
                }
                path.truncate(length);
            }
        }
        Value::Array(items) => {
            let Some(shape) = shape.items() else { return };
            for (index, item) in items.iter().enumerate() {
                let length = path.len();
                path.extend(["[", &index.to_string(), "]"]);
                walk(shape, within, item, path, findings);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";

const DURATION: &str = "a duration such as \"1h30m\" or \"90s\"";

fn wrong_text(expected: &'static str, text: &str) -> Problem {
    Problem::WrongType { expected, found: format!("\"{text}\"") }
}

fn wrong_type(expected: &'static str, value: &Value) -> Problem {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    };
    Problem::WrongType { expected, found: found.to_owned() }
}

/// The field of a whole object that has this one.
fn outer_of(field: &str, known: &'static Map<String, Value>) -> Option<Hint> {
    let has_it = |outer: &&'static str| {
        let (_, schema) = schema::resolve(known.get(*outer)?);
        Some(schema.get("properties")?.get(field).is_some())
    };
    ["spec", "metadata"].into_iter().find(|outer| has_it(outer) == Some(true)).map(Hint::Within)
}

fn hint<'a>(within: Option<&str>, field: &str, known: impl Iterator<Item = &'a String>) -> Option<Hint> {
    let (beta, within) = match within.and_then(|within| within.strip_prefix(differences::PREFIX)) {
        Some(within) => (true, Some(within)),
        None => (false, within),
    };
    if let Some(place) = within.filter(|_| beta).and_then(|within| differences::moved(within, field)) {
        return Some(Hint::Moved(place));
    }
    let moved = MOVED.iter().find(|(name, moved, _)| within == Some(*name) && *moved == field);
    if let Some((_, _, place)) = moved {
        return Some(Hint::Moved(place));
    }
    nearest(field, known.map(String::as_str)).map(|name| Hint::Similar(name.to_owned()))
}

/// Words that are compared for the hints about one object: some milliseconds' worth. Objects may have as many unknown names
/// as known ones, and tens of thousands of either.
const COMPARED: usize = 20_000;

/// The longest word that hints are about, in bytes. Comparing takes time with the square of it.
const LONGEST: usize = 100;

/// How many words may still be compared.
#[derive(Debug)]
pub(crate) struct Hints(Cell<usize>);

impl Default for Hints {
    fn default() -> Self {
        Self(Cell::new(COMPARED))
    }
}

impl Hints {
    /// As [`nearest`], among as many candidates as may still be compared.
    pub(crate) fn nearest<'a>(
        &self,
        word: &str,
        candidates: impl Iterator<Item = &'a str>,
    ) -> Option<&'a str> {
        let compare = |_: &&str| self.0.set(self.0.get() - 1);
        nearest(word, candidates.take(self.0.get()).inspect(compare))
    }
}

/// The candidate a mistyped word was probably meant to be: at most two typing mistakes away, and at most one in words
/// of up to four letters, where two would match nearly anything.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > LONGEST {
        return None;
    }
    let allowed = if word.chars().count() > 4 { 2 } else { 1 };
    candidates
        .filter(|candidate| candidate.len().abs_diff(word.len()) <= allowed)
        .map(|candidate| {
            let distance = strsim::osa_distance(&word.to_lowercase(), &candidate.to_lowercase());
            (distance, candidate)
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "tables of cases hand their values over")]
    fn spec(spec: Value) -> Value {
        json!({"apiVersion": "tekton.dev/v1", "kind": "X", "metadata": {"name": "x"}, "spec": spec})
    }

    #[rstest]
    #[case("Task", json!({"steps": [{"imge": "i"}]}), r#"unknown field "spec.steps[0].imge", did you mean "image"?"#)]
    #[case("Task", json!({"steps": [{"scirpt": ""}]}), r#"unknown field "spec.steps[0].scirpt", did you mean "script"?"#)]
    #[case("Task", json!({"steps": [{"Image": ""}]}), r#"unknown field "spec.steps[0].Image", did you mean "image"?"#)]
    #[case("Task", json!({"nonsense": 1}), r#"unknown field "spec.nonsense""#)]
    #[case("Task", json!({"steps": [{"resources": {}}]}), r#"unknown field "spec.steps[0].resources", use "computeResources" instead"#)]
    #[case("Task", json!({"volumes": [{"name": "v", "emptydir": {}}]}), r#"unknown field "spec.volumes[0].emptydir", did you mean "emptyDir"?"#)]
    #[case("Task", json!({"steps": {"image": "i"}}), r#"field "spec.steps" must be a list, not a map"#)]
    #[case("Task", json!({"steps": [{"args": "a"}]}), r#"field "spec.steps[0].args" must be a list, not a string"#)]
    #[case("Task", json!({"steps": [{"env": [{"name": "A", "value": 1}]}]}), r#"field "spec.steps[0].env[0].value" must be a string, not a number"#)]
    #[case("Task", json!({"steps": [{"computeResources": {"limits": {"cpu": []}}}]}), r#"field "spec.steps[0].computeResources.limits.cpu" must be a number or a string, not a list"#)]
    #[case("Task", json!({"steps": [{"computeResources": {"limits": {"memory": "1 GB"}}}]}), r#"field "spec.steps[0].computeResources.limits.memory" must be a quantity such as "100m", "2" or "1Gi", not "1 GB""#)]
    #[case("Task", json!({"steps": [{"timeout": "5"}]}), r#"field "spec.steps[0].timeout" must be a duration such as "1h30m" or "90s", not "5""#)]
    #[case("Pipeline", json!({"tasks": [{"taskSpec": {"steps": [{"timeout": "soon"}]}}]}), r#"field "spec.tasks[0].taskSpec.steps[0].timeout" must be a duration such as "1h30m" or "90s", not "soon""#)]
    #[case("Task", json!({"steps": ["s"]}), r#"field "spec.steps[0]" must be a map, not a string"#)]
    #[case("TaskRun", json!({"retries": 1.5}), r#"field "spec.retries" must be a whole number, not a number"#)]
    #[case("TaskRun", json!({"taskSpec": {"stpes": []}}), r#"unknown field "spec.taskSpec.stpes", did you mean "steps"?"#)]
    #[case("Pipeline", json!({"tasks": [{"taskSpec": {"imge": 1}}]}), r#"unknown field "spec.tasks[0].taskSpec.imge""#)]
    #[case("Pipeline", json!({"tasks": [{"pipelineSpec": {"tasks": [{"nme": ""}]}}]}), r#"unknown field "spec.tasks[0].pipelineSpec.tasks[0].nme", did you mean "name"?"#)]
    #[case("PipelineRun", json!({"podTemplate": {}}), r#"unknown field "spec.podTemplate", use "spec.taskRunTemplate.podTemplate" instead"#)]
    #[case("PipelineRun", json!({"serviceAccountName": ""}), r#"unknown field "spec.serviceAccountName", use "spec.taskRunTemplate.serviceAccountName" instead"#)]
    #[case("PipelineRun", json!({"timeouts": {"tasks": 60}}), r#"field "spec.timeouts.tasks" must be a duration such as "1h30m" or "90s", not a number"#)]
    #[case("Task", json!({"script": ""}), r#"unknown field "spec.script", use "steps[].script" instead"#)]
    #[case("PipelineRun", json!({"timeout": "1h"}), r#"unknown field "spec.timeout", use "spec.timeouts.pipeline" instead"#)]
    fn names_what_is_wrong(#[case] kind: &str, #[case] given: Value, #[case] expected: &str) {
        let findings: Vec<_> = check(kind, &spec(given)).iter().map(ToString::to_string).collect();
        assert_eq!(findings, [expected]);
    }

    #[rstest]
    #[case("Task", json!({"steps": [{"computeResources": {}}]}), r#"unknown field "spec.steps[0].computeResources", use "resources" instead"#)]
    #[case("Task", json!({"steps": [{"imge": "i"}]}), r#"unknown field "spec.steps[0].imge", did you mean "image"?"#)]
    #[case("Task", json!({"steps": [{"resources": {"limits": {"cpu": []}}}]}), r#"field "spec.steps[0].resources.limits.cpu" must be a number or a string, not a list"#)]
    #[case("TaskRun", json!({"taskSpec": {"steps": [{"tty": 1}]}}), r#"field "spec.taskSpec.steps[0].tty" must be true or false, not a number"#)]
    #[case("PipelineRun", json!({"taskRunTemplate": {}}), r#"unknown field "spec.taskRunTemplate", use "spec.podTemplate and spec.serviceAccountName" instead"#)]
    #[case("PipelineRun", json!({"taskRunSpecs": [{"stepSpecs": []}]}), r#"unknown field "spec.taskRunSpecs[0].stepSpecs", use "stepOverrides" instead"#)]
    fn names_what_is_wrong_in_v1beta1(#[case] kind: &str, #[case] given: Value, #[case] expected: &str) {
        let mut object = spec(given);
        object["apiVersion"] = json!("tekton.dev/v1beta1");
        let findings: Vec<_> = check(kind, &object).iter().map(ToString::to_string).collect();
        assert_eq!(findings, [expected]);
    }

    #[rstest]
    #[case("Task", json!({"steps": null, "params": [{"name": "a", "default": {"any": ["thing"]}}]}))]
    #[case("Task", json!({"steps": [{"computeResources": {"limits": {"cpu": 1, "memory": "1Gi"}}}]}))]
    #[case("Task", json!({"sidecars": [{"readinessProbe": {"httpGet": {"port": 80}}}]}))]
    #[case("Pipeline", json!({"tasks": [{"taskSpec": {"apiVersion": "a/v1", "kind": "K", "spec": {"any": 1}}}]}))]
    #[case("CustomRun", json!({"customSpec": {"spec": {"any": {"thing": [1]}}}}))]
    fn what_is_right_has_no_findings(#[case] kind: &str, #[case] given: Value) {
        assert_eq!(check(kind, &spec(given)), []);
    }

    #[rstest]
    #[case("steps", r#"unknown field "steps", it belongs in "spec""#)]
    #[case("labels", r#"unknown field "labels", it belongs in "metadata""#)]
    #[case("nonsense", r#"unknown field "nonsense""#)]
    fn fields_of_the_spec_are_known_beside_it(#[case] field: &str, #[case] expected: &str) {
        let mut object = spec(json!({}));
        object[field] = json!([]);
        let findings: Vec<_> = check("Task", &object).iter().map(ToString::to_string).collect();
        assert_eq!(findings, [expected]);
    }

    #[rstest]
    #[case(json!({"metadata": {}}), r#"field "spec": it is missing"#)]
    #[case(json!({"metadata": {}, "spec": null}), r#"field "spec": it must not be null"#)]
    #[case(json!({"metadata": {}, "spec": {"steps": [null]}}), r#"field "spec.steps[0]": it must not be null"#)]
    fn what_cannot_be_read_is_told_in_words_of_the_api(#[case] object: Value, #[case] expected: &str) {
        let mut object = object;
        object["apiVersion"] = json!("tekton.dev/v1");
        object["kind"] = json!("Task");
        assert_eq!(decode::<crate::Task>(&object).unwrap_err().to_string(), expected);
    }

    #[test]
    fn all_findings_are_reported() {
        let object =
            json!({"specs": {}, "metadata": {"labels": {"any": 1}}, "spec": {"a": 1, "steps": [{"b": 2}]}});
        let paths: Vec<_> = check("Task", &object).into_iter().map(|finding| finding.path).collect();
        assert_eq!(paths, ["metadata.labels.any", "spec.a", "spec.steps[0].b", "specs"]);
    }

    #[test]
    fn of_many_findings_the_first_are_reported_and_all_are_counted() {
        let fields: serde_json::Map<_, _> = (0..5000).map(|at| (format!("stepz{at:04}"), json!(1))).collect();
        let findings = check_all("Task", &spec(json!({"steps": [fields, 1]})));
        assert_eq!(findings.first.len(), MOST);
        assert_eq!(findings.first[0].path, "spec.steps[0].stepz0000");
        assert_eq!(findings.more, 4001);
    }

    #[test]
    fn every_moved_field_is_unknown_where_it_moved_from() {
        for (definition, field, _) in MOVED {
            let known = schema::definition(definition).unwrap_or_else(|| panic!("no type {definition}"));
            assert_eq!(known["properties"].get(field), None, "{definition}.{field}");
        }
    }
}

//! Label and field selectors: their grammar, and whether an object matches. Pure.

use serde_json::Value;

use crate::{
    object,
    status::{Failure, Result},
    table::{Behaviour, Resource},
};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
    Greater(String, i64),
    Less(String, i64),
}

impl Requirement {
    fn matches(&self, object: &Value) -> bool {
        let number = |key: &str| object::label(object, key).and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::In(key, values) => {
                object::label(object, key).is_some_and(|value| values.iter().any(|wanted| wanted == value))
            }
            Self::NotIn(key, values) => {
                object::label(object, key).is_none_or(|value| values.iter().all(|wanted| wanted != value))
            }
            Self::Exists(key) => object::label(object, key).is_some(),
            Self::Absent(key) => object::label(object, key).is_none(),
            Self::Greater(key, bound) => number(key).is_some_and(|value| value > *bound),
            Self::Less(key, bound) => number(key).is_some_and(|value| value < *bound),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    path: String,
    value: String,
    equal: bool,
}

/// What a list or watch is narrowed down to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<Field>,
}

impl Selector {
    pub(crate) fn parse(resource: &Resource, labels: &str, fields: &str) -> Result<Self> {
        Ok(Self { labels: parse_labels(labels)?, fields: parse_fields(resource, fields)? })
    }

    /// A `LabelSelector` object; requirements with an operator nobody knows select nothing.
    pub(crate) fn of_labels(selector: &Value) -> Self {
        let equal = selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten();
        let value = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut labels: Vec<_> =
            equal.map(|(key, wanted)| Requirement::In(key.clone(), vec![value(wanted)])).collect();
        labels.extend(expressions(selector.get("matchExpressions").unwrap_or(&Value::Null)));
        Self { labels, fields: Vec::new() }
    }

    /// A list of requirements such as `matchExpressions`, those for nodes included.
    pub(crate) fn of_expressions(list: &Value) -> Self {
        Self { labels: expressions(list).collect(), fields: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether the object, in its storage version, is among the selected.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.labels.iter().all(|requirement| requirement.matches(object))
            && self
                .fields
                .iter()
                .all(|field| (object::text(object, &field.path) == field.value) == field.equal)
    }
}

fn expressions(list: &Value) -> impl Iterator<Item = Requirement> {
    list.as_array().into_iter().flatten().map(|expression| {
        let key = object::text(expression, "key").to_owned();
        let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
        let values: Vec<String> = values.map(|value| value.as_str().unwrap_or_default().to_owned()).collect();
        let bound = || values.first().and_then(|value| value.parse::<i64>().ok());
        match (object::text(expression, "operator"), bound()) {
            ("NotIn", _) => Requirement::NotIn(key, values),
            ("Exists", _) => Requirement::Exists(key),
            ("DoesNotExist", _) => Requirement::Absent(key),
            ("In", _) => Requirement::In(key, values),
            ("Gt", Some(bound)) => Requirement::Greater(key, bound),
            ("Lt", Some(bound)) => Requirement::Less(key, bound),
            _ => Requirement::In(key, Vec::new()),
        }
    })
}

fn parse_labels(text: &str) -> Result<Vec<Requirement>> {
    // A comma separates requirements except within the parentheses of a set.
    let mut requirements = Vec::new();
    let (mut depth, mut start) = (0_u32, 0);
    for (index, c) in text.char_indices().chain([(text.len(), ',')]) {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 || index == text.len() => {
                let part = text[start..index].trim();
                start = index + 1;
                if !part.is_empty() {
                    requirements.push(requirement(part)?);
                }
            }
            _ => {}
        }
    }
    Ok(requirements)
}

fn requirement(part: &str) -> Result<Requirement> {
    let wrong =
        || Failure::bad_request(format!("unable to parse requirement: found {part:?}, expected a selector"));
    let is_word = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.' | b'/'))
    };
    let key = |text: &str| if is_word(text.trim()) { Ok(text.trim().to_owned()) } else { Err(wrong()) };
    let value = |text: &str| {
        let text = text.trim();
        if text.is_empty() || is_word(text) { Ok(text.to_owned()) } else { Err(wrong()) }
    };
    if let Some(rest) = part.strip_prefix('!') {
        return Ok(Requirement::Absent(key(rest)?));
    }
    if let Some((left, set)) = part.split_once('(') {
        let set = set.trim_end().strip_suffix(')').ok_or_else(wrong)?;
        let values = set.split(',').map(value).collect::<Result<Vec<_>>>()?;
        let mut words = left.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(name), Some("in"), None) => Ok(Requirement::In(key(name)?, values)),
            (Some(name), Some("notin"), None) => Ok(Requirement::NotIn(key(name)?, values)),
            _ => Err(wrong()),
        };
    }
    if let Some((left, right)) = part.split_once("!=") {
        return Ok(Requirement::NotIn(key(left)?, vec![value(right)?]));
    }
    if let Some((left, right)) = part.split_once('=') {
        let right = right.strip_prefix('=').unwrap_or(right);
        return Ok(Requirement::In(key(left)?, vec![value(right)?]));
    }
    if let Some((left, right)) = part.split_once('>') {
        return Ok(Requirement::Greater(key(left)?, right.trim().parse().map_err(|_| wrong())?));
    }
    if let Some((left, right)) = part.split_once('<') {
        return Ok(Requirement::Less(key(left)?, right.trim().parse().map_err(|_| wrong())?));
    }
    Ok(Requirement::Exists(key(part)?))
}

/// Paths other than `metadata.name` and `metadata.namespace` that kube-apiserver selects by.
fn selectable(resource: &Resource) -> &'static [&'static str] {
    match (resource.behaviour, resource.plural.as_str()) {
        (Behaviour::Pod, _) => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        (Behaviour::Event, _) => &[
            "involvedObject.apiVersion",
            "involvedObject.fieldPath",
            "involvedObject.kind",
            "involvedObject.name",
            "involvedObject.namespace",
            "involvedObject.resourceVersion",
            "involvedObject.uid",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        (Behaviour::Secret, _) => &["type"],
        (Behaviour::Namespace, _) => &["status.phase"],
        (_, "nodes") => &["spec.unschedulable"],
        _ => &[],
    }
}

fn parse_fields(resource: &Resource, text: &str) -> Result<Vec<Field>> {
    let mut fields = Vec::new();
    // In the order kube-apiserver looks at them, so that of several faults the same one is told.
    let mut parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    parts.sort_unstable();
    for part in parts {
        let (path, value, equal) = if let Some((path, value)) = part.split_once("!=") {
            (path, value, false)
        } else if let Some((path, value)) = part.split_once('=') {
            (path, value.strip_prefix('=').unwrap_or(value), true)
        } else {
            return Err(Failure::bad_request(format!(
                "invalid selector: '{part}'; can't understand '{part}'"
            )));
        };
        // The other group's name for the same field of an event.
        let path =
            path.strip_prefix("regarding.").map_or(path.to_owned(), |rest| format!("involvedObject.{rest}"));
        if !["metadata.name", "metadata.namespace"].contains(&path.as_str())
            && !selectable(resource).contains(&path.as_str())
        {
            let why = if selectable(resource).is_empty() && !resource.custom {
                format!(
                    "{path:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                )
            } else {
                format!("field label not supported: {path}")
            };
            return Err(Failure::bad_request(why));
        }
        fields.push(Field { path, value: value.to_owned(), equal });
    }
    Ok(fields)
}

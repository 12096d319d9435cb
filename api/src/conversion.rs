//! Objects from one served version to another (contract 1.0). Pure.
//!
//! v1 is v1beta1 with fields renamed and some taken away, so conversion renames in the JSON as it stands: what neither
//! version knows goes through untouched. What v1 has no place for waits in annotations ([`kept`]), and both directions
//! together change nothing, whichever comes first.
//!
//! Objects may be anybody's: only those of no kind or version of ours are refused. A single one that fails would take
//! every list it is in along.

pub(crate) mod differences;
mod kept;
pub(crate) mod resolution;

use serde_json::{Map, Value, json};

use crate::kinds::{self, Kind};
use crate::schema::{self, Shape};
use crate::strict;
use crate::validate::{FieldError, FieldErrors};
use differences::{Fate, PREFIX, RENAMED, TEMPLATE, TEMPLATE_OF, TEMPLATED};
use kept::Kept;

/// Why an object cannot be converted.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum ConversionError {
    /// It is no object of a kind that is served in several versions.
    #[error("cannot convert kind \"{kind}\" of \"{api_version}\", which has no versions here")]
    UnknownKind {
        /// Its `kind`; may be empty.
        kind: String,
        /// Its `apiVersion`; may be empty.
        api_version: String,
    },
    /// It is in a version, or is wanted in one, that its kind does not have.
    #[error("cannot convert {kind} \"{name}\": there is no version \"{api_version}\" of it, only {versions}")]
    UnknownVersion {
        /// Its kind.
        kind: &'static str,
        /// Its name; may be empty.
        name: String,
        /// The version there is none of.
        api_version: String,
        /// Those there are, each in quotes.
        versions: String,
    },
}

/// Whether an annotation is the record of what an object lacks a field for.
pub(crate) fn is_record(annotation: &str) -> bool {
    annotation == kept::ours()
}

/// The object in another version, `to` being an `apiVersion`. Nothing changes but what the versions differ in, and of the
/// metadata only annotations.
///
/// # Errors
/// Kinds and versions that are not served.
pub fn convert(mut object: Value, to: &str) -> Result<Value, ConversionError> {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (kind_name, api_version) = (text("kind"), text("apiVersion"));
    let Some(kind) = kinds::find_in(&api_version, &kind_name) else {
        return Err(ConversionError::UnknownKind { kind: kind_name, api_version });
    };
    let version = |api_version: &str| {
        kind.version_of(api_version).ok_or_else(|| ConversionError::UnknownVersion {
            kind: kind.kind,
            name: object["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            api_version: api_version.to_owned(),
            versions: kind.versions().map(|version| format!("\"{version}\"")).collect::<Vec<_>>().join(", "),
        })
    };
    match (version(&api_version)?, version(to)?) {
        ("v1beta1", "v1") => to_v1(kind, &mut object).store(kind.kind, &mut object),
        ("v1", "v1beta1") => to_v1beta1(kind, &mut object),
        ("v1beta1", "v1alpha1") if kind.is_converted() => resolution::to_v1alpha1(&mut object),
        ("v1alpha1", "v1beta1") if kind.is_converted() => resolution::to_v1beta1(&mut object),
        // The versions of every other kind are alike.
        _ => {}
    }
    object["apiVersion"] = Value::String(to.to_owned());
    Ok(object)
}

/// Whether an object is in a version of its kind that is converted before it is stored.
pub fn is_converted(object: &Value) -> bool {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    kinds::find(text("kind")).is_some_and(|kind| {
        kind.version_of(text("apiVersion")).is_some_and(|version| version != kind.version)
    })
}

/// The fields of an object in v1beta1 that clients may not set: what upstream has given up and v1 has no field for.
/// `new` is whether the object is being created.
pub fn refused(object: &Value, new: bool) -> FieldErrors {
    let mut errors = FieldErrors::default();
    let is_beta = object["apiVersion"] == format!("{}/v1beta1", crate::GROUP);
    let kind = object["kind"].as_str().and_then(kinds::find);
    let Some(kind) = kind.filter(|kind| is_beta && kind.version == "v1") else { return errors };
    let set = |field: &str| object["spec"].get(field).is_some_and(|value| !value.is_null());
    if kind.kind == "PipelineRun" && set("timeout") && set("timeouts") {
        errors.push(FieldError::disallowed(&["spec.timeout", "spec.timeouts"]));
    }
    let kept = to_v1(kind, &mut object.clone());
    for pointer in kept.pointers().filter(|pointer| pointer.starts_with("/spec/")) {
        if pointer.ends_with("/resources") || new && pointer.ends_with("/bundle") {
            errors.push(FieldError::disallowed(&[&dotted(pointer)]));
        }
    }
    errors
}

/// `/spec/steps/0/image` as validation writes it: `spec.steps[0].image`.
fn dotted(pointer: &str) -> String {
    let mut path = String::new();
    for part in pointer.split('/').skip(1) {
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            path.extend(["[", part, "]"]);
        } else {
            path.extend([if path.is_empty() { "" } else { "." }, part]);
        }
    }
    path
}

/// The path of a field of v1 as v1beta1 has it: `spec.steps[0].resources` for `spec.steps[0].computeResources`. It is
/// followed as far as it follows the schema: some of upstream's do not.
pub fn path_in_v1beta1(kind: &str, path: &str) -> String {
    let Some(kind) = kinds::find(kind) else { return path.to_owned() };
    let (mut schema, mut renamed, mut rest) = (schema::full(kind.kind, kind.version), Vec::new(), path);
    while let Some(object) = schema {
        let (part, after) = rest.split_once('.').unwrap_or((rest, ""));
        let (field, index) = part.find('[').map_or((part, ""), |at| part.split_at(at));
        let (within, object) = schema::resolve(object);
        let within = within.unwrap_or_default();
        if within == TEMPLATE_OF && field == TEMPLATE {
            schema = object["properties"].get(field);
            rest = after;
            continue;
        }
        let name = RENAMED.iter().find(|(name, _, v1)| *name == within && *v1 == field);
        renamed.push(format!("{}{index}", name.map_or(field, |(_, v1beta1, _)| v1beta1)));
        let property = object["properties"].get(field);
        schema =
            if index.is_empty() { property } else { property.map(|list| &schema::resolve(list).1["items"]) };
        rest = after;
        if after.is_empty() {
            break;
        }
    }
    if !rest.is_empty() {
        renamed.push(rest.to_owned());
    }
    renamed.join(".")
}

/// Makes an object of v1beta1 one of v1, and gives what v1 has no place for.
fn to_v1(kind: &Kind, object: &mut Value) -> Kept {
    let mut kept = Kept::default();
    if let Some(shape) = schema::full(kind.kind, kind.version).and_then(schema::shape) {
        let visit = &mut |within: &str, fields: &mut Map<String, Value>, pointer: &str| {
            fields_to_v1(within, fields, pointer, &mut kept);
        };
        walk(shape, object, &mut String::new(), Order::OutsideIn, visit);
    }
    kept
}

fn fields_to_v1(within: &str, fields: &mut Map<String, Value>, pointer: &str, kept: &mut Kept) {
    for (field, fate) in differences::gone(within) {
        let Some(value) = fields.remove(field).filter(|value| !is_empty(value)) else { continue };
        let at = format!("{pointer}/{field}");
        match fate {
            Fate::Kept | Fate::Refused => kept.insert(at, value),
            Fate::Dropped => {}
            // Whoever sets both means something that only the author knows.
            Fate::Timeout if !fields.get("timeouts").is_none_or(Value::is_null) => kept.insert(at, value),
            Fate::Timeout => {
                fields.insert("timeouts".to_owned(), json!({"pipeline": value}));
                kept.insert(at, Value::Bool(true));
            }
            Fate::Bundle(kind) => {
                // The same.
                if ["resolver", "params"].iter().any(|other| fields.contains_key(*other)) {
                    kept.insert(at, value);
                    continue;
                }
                let name = fields.remove("name").unwrap_or_else(|| Value::String(String::new()));
                fields.insert("resolver".to_owned(), json!("bundles"));
                fields.insert("params".to_owned(), bundle(&value, &name, kind));
                kept.insert(at, Value::Bool(true));
            }
        }
    }
    for (_, v1beta1, v1) in RENAMED.iter().filter(|(name, ..)| *name == within) {
        rename(fields, v1beta1, v1);
    }
    if within == TEMPLATE_OF {
        for field in TEMPLATED {
            let Some(value) = fields.remove(field) else { continue };
            if !fields.get(TEMPLATE).is_some_and(Value::is_object) {
                fields.insert(TEMPLATE.to_owned(), json!({}));
            }
            fields[TEMPLATE][field] = value;
        }
    }
    if let Some(reason) = ended(within, fields) {
        match fields.get(TERMINATION_REASON).and_then(Value::as_str) {
            None => {
                fields.insert(TERMINATION_REASON.to_owned(), Value::String(reason));
            }
            Some("") => {
                fields.remove(TERMINATION_REASON);
            }
            Some(_) => {}
        }
    }
}

fn to_v1beta1(kind: &Kind, object: &mut Value) {
    let mut kept = Kept::load(kind.kind, object);
    if let Some(shape) = schema::full(kind.kind, kind.version).and_then(schema::shape) {
        let visit = &mut |within: &str, fields: &mut Map<String, Value>, pointer: &str| {
            fields_to_v1beta1(within, fields, pointer, &mut kept);
        };
        walk(shape, object, &mut String::new(), Order::InsideOut, visit);
    }
    kept.store(kind.kind, object);
}

fn fields_to_v1beta1(within: &str, fields: &mut Map<String, Value>, pointer: &str, kept: &mut Kept) {
    if let Some(reason) = ended(within, fields) {
        match fields.get(TERMINATION_REASON).and_then(Value::as_str) {
            None => {
                fields.insert(TERMINATION_REASON.to_owned(), json!(""));
            }
            Some(same) if same == reason => {
                fields.remove(TERMINATION_REASON);
            }
            Some(_) => {}
        }
    }
    if within == TEMPLATE_OF
        && let Some(Value::Object(template)) = fields.get_mut(TEMPLATE)
    {
        let moved: Vec<_> =
            TEMPLATED.iter().filter_map(|field| Some((*field, template.remove(*field)?))).collect();
        if template.is_empty() {
            fields.remove(TEMPLATE);
        }
        fields.extend(moved.into_iter().map(|(field, value)| (field.to_owned(), value)));
    }
    for (_, v1beta1, v1) in RENAMED.iter().filter(|(name, ..)| *name == within) {
        rename(fields, v1, v1beta1);
    }
    if kept.is_empty() {
        return;
    }
    for (field, fate) in differences::gone(within) {
        let at = format!("{pointer}/{field}");
        let Some(value) = kept.get(&at).filter(|_| !fields.contains_key(field)) else { continue };
        let is_placed = match (fate, value) {
            (Fate::Dropped, _) => false,
            (Fate::Timeout, Value::Bool(_)) => restore_timeout(fields),
            (Fate::Bundle(kind), Value::Bool(_)) => restore_bundle(fields, kind),
            // Annotations are written by anybody, and clients cannot read a field of another type.
            (_, value) if fits(within, field, value) => {
                fields.insert(field.to_owned(), value.clone());
                true
            }
            _ => false,
        };
        if is_placed {
            kept.remove(&at);
        }
    }
}

/// v1 has it, and v1beta1 leaves it to be read off the container: there it stands only where the two differ.
const TERMINATION_REASON: &str = "terminationReason";

/// Why the container of a step ended, if this is one that did.
fn ended(within: &str, fields: &Map<String, Value>) -> Option<String> {
    let reason = fields.get("terminated").filter(|_| within == "StepState")?.get("reason")?.as_str()?;
    Some(reason.to_owned()).filter(|reason| !reason.is_empty())
}

/// Unless v1 has meanwhile been told more than v1beta1 could say in one field.
fn restore_timeout(fields: &mut Map<String, Value>) -> bool {
    let Some(Value::Object(timeouts)) = fields.get_mut("timeouts") else { return false };
    if timeouts.iter().any(|(field, value)| field != "pipeline" && !value.is_null()) {
        return false;
    }
    let Some(timeout) = timeouts.remove("pipeline").filter(|timeout| !timeout.is_null()) else {
        return false;
    };
    fields.remove("timeouts");
    fields.insert("timeout".to_owned(), timeout);
    true
}

fn bundle(bundle: &Value, name: &Value, kind: &str) -> Value {
    json!([{"name": "bundle", "value": bundle}, {"name": "name", "value": name}, {"name": "kind", "value": kind}])
}

/// Unless the reference is to something else by now.
fn restore_bundle(fields: &mut Map<String, Value>, kind: &str) -> bool {
    let params = fields.get("params").cloned().unwrap_or_default();
    let (image, name) = (params[0]["value"].clone(), params[1]["value"].clone());
    let is_bundle = fields.get("resolver").is_some_and(|resolver| resolver == "bundles");
    if !is_bundle || params != bundle(&image, &name, kind) || !image.is_string() || !name.is_string() {
        return false;
    }
    for field in ["resolver", "params"] {
        fields.remove(field);
    }
    fields.insert("bundle".to_owned(), image);
    if !is_empty(&name) {
        fields.insert("name".to_owned(), name);
    }
    true
}

/// Whether the value is one for this field of v1beta1.
fn fits(within: &str, field: &str, value: &Value) -> bool {
    let definition = schema::definition(&format!("{PREFIX}{within}"));
    let property = definition.and_then(|definition| definition["properties"].get(field));
    property.is_some_and(|property| strict::fits(property, value))
}

fn rename(fields: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = fields.remove(from) {
        fields.insert(to.to_owned(), value);
    }
}

/// Nothing is lost with it.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) | Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Order {
    /// To v1: what is around a field is in v1 when the field is looked for.
    OutsideIn,
    /// From v1: it still is.
    InsideOut,
}

/// Visits every object of a type of ours, with its type and its JSON pointer, along the schema of v1.
fn walk(
    shape: &'static Shape,
    value: &mut Value,
    pointer: &mut String,
    order: Order,
    visit: &mut impl FnMut(&str, &mut Map<String, Value>, &str),
) {
    let within = shape.name;
    if within.is_some_and(|within| within.starts_with(schema::KUBERNETES)) {
        return;
    }
    let within = within.unwrap_or_default();
    match value {
        Value::Object(fields) => {
            let Some(properties) = shape.properties else { return };
            if order == Order::OutsideIn {
                visit(within, fields, pointer);
            }
            for (field, value) in fields.iter_mut() {
                let Some(property) = shape.field(field).filter(|_| properties.contains_key(field)) else {
                    continue;
                };
                let length = pointer.len();
                pointer.extend(["/", field]);
                walk(property, value, pointer, order, visit);
                pointer.truncate(length);
            }
            if order == Order::InsideOut {
                visit(within, fields, pointer);
            }
        }
        Value::Array(items) => {
            let Some(shape) = shape.items() else { return };
            for (index, item) in items.iter_mut().enumerate() {
                let length = pointer.len();
                pointer.extend(["/", &index.to_string()]);
                walk(shape, item, pointer, order, visit);
                pointer.truncate(length);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;

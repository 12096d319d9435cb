//! The full JSON schema of every kind, as derived from the Rust types. Pure.
//!
//! "Full" means that nothing is left open but what no schema can describe: Kubernetes' own types are spelled out, and
//! recursive types are references. [`crate::strict`] walks it to find unknown fields, [`crate::crd`] cuts the CRDs'
//! schemas from it.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::conversion::{differences, resolution};
use crate::kinds;

/// Definitions whose names begin like this are Kubernetes' own.
pub(crate) const KUBERNETES: &str = "io.k8s.";
pub(crate) const DEFINITIONS: &str = "#/$defs/";

struct Schemas {
    /// By kind and version.
    roots: BTreeMap<&'static str, BTreeMap<&'static str, Value>>,
    definitions: Map<String, Value>,
}

static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| {
    let mut generator = SchemaSettings::draft2020_12().for_deserialize().into_generator();
    let mut roots: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for kind in kinds::ALL {
        let root = root(&mut generator, kind.kind);
        for version in kind.versions() {
            let root = match (kind.version, version) {
                ("v1", "v1beta1") => differences::referring(root.clone()),
                ("v1beta1", "v1alpha1") if kind.is_converted() => resolution::referring(root.clone()),
                // Of other kinds all versions are alike.
                _ => root.clone(),
            };
            roots.entry(kind.kind).or_default().insert(version, root);
        }
    }
    let mut definitions = generator.take_definitions(true);
    definitions.extend(differences::definitions(&definitions));
    definitions.extend(resolution::definitions(&definitions));
    Schemas { roots, definitions }
});

fn root(generator: &mut SchemaGenerator, kind: &str) -> Value {
    let (spec, status) = match kind {
        "Task" => (generator.subschema_for::<crate::TaskSpec>(), None),
        "TaskRun" => (
            generator.subschema_for::<crate::TaskRunSpec>(),
            Some(generator.subschema_for::<crate::TaskRunStatus>()),
        ),
        "Pipeline" => (generator.subschema_for::<crate::PipelineSpec>(), None),
        "PipelineRun" => (
            generator.subschema_for::<crate::PipelineRunSpec>(),
            Some(generator.subschema_for::<crate::PipelineRunStatus>()),
        ),
        "StepAction" => (generator.subschema_for::<crate::StepActionSpec>(), None),
        "VerificationPolicy" => (generator.subschema_for::<crate::VerificationPolicySpec>(), None),
        "ResolutionRequest" => (
            generator.subschema_for::<crate::ResolutionRequestSpec>(),
            Some(generator.subschema_for::<crate::ResolutionRequestStatus>()),
        ),
        _ => (
            generator.subschema_for::<crate::CustomRunSpec>(),
            Some(generator.subschema_for::<crate::CustomRunStatus>()),
        ),
    };
    let mut properties = json!({
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": generator.subschema_for::<ObjectMeta>(),
        "spec": spec,
    });
    if let Some(status) = status {
        properties["status"] = status.into();
    }
    json!({"type": "object", "properties": properties})
}

/// The schema of a whole object of this kind in this version; `None` for what is not in [`kinds::ALL`].
///
/// Subschemas may be references, see [`resolve`].
pub fn full(kind: &str, version: &str) -> Option<&'static Value> {
    SCHEMAS.roots.get(kind)?.get(version)
}

/// The schema for this object: of the version it is in, or of the stored one when it is in none of its kind's.
pub(crate) fn of(kind: &str, object: &Value) -> Option<&'static Value> {
    let kind = kinds::find(kind)?;
    let version =
        object.get("apiVersion").and_then(Value::as_str).and_then(|version| kind.version_of(version));
    full(kind.kind, version.unwrap_or(kind.version))
}

/// What a schema says once references and "or null" are taken away, and the name of the definition it came from.
///
/// Every field may be null: clients written in Go spell empty that way.
pub(crate) fn resolve(schema: &'static Value) -> (Option<&'static str>, &'static Value) {
    let mut name = None;
    let mut schema = schema;
    loop {
        if let Some(definition) =
            schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix(DEFINITIONS))
        {
            let Some((key, target)) = SCHEMAS.definitions.get_key_value(definition) else {
                return (name, schema);
            };
            (name, schema) = (Some(key.as_str()), target);
        } else if let Some(other) = schema
            .get("anyOf")
            .and_then(Value::as_array)
            .and_then(|any| any.iter().find(|one| one["type"] != "null"))
        {
            schema = other;
        } else {
            return (name, schema);
        }
    }
}

/// The JSON type a schema asks for, `null` aside; `None` when it takes anything.
pub(crate) fn json_type(schema: &Value) -> Option<&str> {
    match schema.get("type")? {
        Value::String(name) => Some(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).find(|name| *name != "null"),
        _ => None,
    }
}

/// The schema takes a duration in Go's notation.
pub(crate) fn is_duration(schema: &Value) -> bool {
    schema.get("format").is_some_and(|format| format == "duration")
}

/// The schema takes a number or a text (`IntOrString`, `Quantity`).
pub(crate) fn is_int_or_string(schema: &Value) -> bool {
    schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true))
}

/// A schema as [`resolve`] finds it, with what is asked of it at every value: large objects have a hundred thousand of
/// these, and a schema need not be searched anew at each.
pub(crate) struct Shape {
    /// The definition it came from.
    pub(crate) name: Option<&'static str>,
    /// See [`json_type`].
    pub(crate) json_type: Option<&'static str>,
    /// See [`is_duration`].
    pub(crate) is_duration: bool,
    /// See [`is_int_or_string`].
    pub(crate) is_int_or_string: bool,
    /// The fields it knows; `None` when it names none.
    pub(crate) properties: Option<&'static Map<String, Value>>,
    fields: HashMap<&'static str, usize>,
    others: Option<usize>,
    items: Option<usize>,
}

impl Shape {
    /// The shape of a field: of this one, or else of any.
    pub(crate) fn field(&self, name: &str) -> Option<&'static Shape> {
        self.fields.get(name).copied().or(self.others).map(|index| &SHAPES.all[index])
    }

    /// The shape of a list's elements.
    pub(crate) fn items(&self) -> Option<&'static Shape> {
        self.items.map(|index| &SHAPES.all[index])
    }
}

/// Shapes refer to each other by their places, as types may contain themselves.
#[derive(Default)]
struct Shapes {
    all: Vec<Shape>,
    /// By what tells one from another: where its schema stands in memory, and the name it is known by.
    places: HashMap<(usize, Option<&'static str>), usize>,
}

static SHAPES: LazyLock<Shapes> = LazyLock::new(|| {
    let mut shapes = Shapes::default();
    for root in SCHEMAS.roots.values().flat_map(BTreeMap::values).chain(SCHEMAS.definitions.values()) {
        shapes.add(root);
    }
    shapes
});

impl Shapes {
    fn key(schema: &'static Value, name: Option<&'static str>) -> (usize, Option<&'static str>) {
        (std::ptr::from_ref(schema).addr(), name)
    }

    fn add(&mut self, schema: &'static Value) -> usize {
        let (name, schema) = resolve(schema);
        if let Some(place) = self.places.get(&Self::key(schema, name)) {
            return *place;
        }
        let place = self.all.len();
        self.places.insert(Self::key(schema, name), place);
        let properties = schema.get("properties").and_then(Value::as_object);
        self.all.push(Shape {
            name,
            json_type: json_type(schema),
            is_duration: is_duration(schema),
            is_int_or_string: is_int_or_string(schema),
            properties,
            fields: HashMap::new(),
            others: None,
            items: None,
        });
        let fields = properties.into_iter().flatten();
        let fields = fields.map(|(name, schema)| (name.as_str(), self.add(schema))).collect();
        let others = schema.get("additionalProperties").map(|schema| self.add(schema));
        let items = schema.get("items").map(|schema| self.add(schema));
        let shape = &mut self.all[place];
        (shape.fields, shape.others, shape.items) = (fields, others, items);
        place
    }
}

/// The shape of a schema that is part of one of [`full`]'s or of a [`definition`].
pub(crate) fn shape(schema: &'static Value) -> Option<&'static Shape> {
    let (name, schema) = resolve(schema);
    SHAPES.places.get(&Shapes::key(schema, name)).map(|place| &SHAPES.all[*place])
}

/// The definition of this name; those of v1beta1 have a prefix, see [`differences`].
pub(crate) fn definition(name: &str) -> Option<&'static Value> {
    SCHEMAS.definitions.get(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_spec_and_only_runs_and_requests_have_a_status() {
        for kind in kinds::ALL {
            let properties = &full(kind.kind, kind.version).unwrap()["properties"];
            assert!(properties["spec"].is_object(), "{}", kind.kind);
            assert_eq!(
                properties.get("status").is_some(),
                kind.runs || kind.kind == "ResolutionRequest",
                "{}",
                kind.kind
            );
        }
        assert_eq!(full("Pod", "v1"), None);
    }

    #[test]
    fn references_lead_to_definitions() {
        let (name, spec) = resolve(&full("Task", "v1").unwrap()["properties"]["spec"]);
        assert_eq!(name, Some("TaskSpec"));
        let (name, step) = resolve(&spec["properties"]["steps"]["items"]);
        assert_eq!(name, Some("Step"));
        let (name, _) = resolve(&step["properties"]["securityContext"]);
        assert_eq!(name, Some("io.k8s.api.core.v1.SecurityContext"));
        assert_eq!(json_type(&step["properties"]["image"]), Some("string"));
    }

    #[test]
    fn shapes_follow_their_schemas_into_types_that_contain_themselves() {
        let spec = shape(&full("Pipeline", "v1").unwrap()["properties"]["spec"]).unwrap();
        let task = spec.field("tasks").and_then(Shape::items).unwrap();
        assert_eq!((spec.name, task.name), (Some("PipelineSpec"), Some("PipelineTask")));
        assert!(std::ptr::eq(task.field("pipelineSpec").unwrap(), spec));
        assert!(task.field("nonsense").is_none());
        let labels = shape(full("Task", "v1").unwrap()).unwrap().field("metadata").unwrap().field("labels");
        assert_eq!(labels.unwrap().field("anything").unwrap().json_type, Some("string"));
        assert!(shape(definition("TaskSpec").unwrap()).is_some());
    }
}

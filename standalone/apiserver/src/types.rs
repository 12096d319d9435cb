//! The types of values: from a definition's schema, or for built-in kinds from those of `k8s-openapi`. Pure.
//!
//! A [`Shape`] walks down a schema beside a value, and says what field ownership, merging and decoding need to know:
//! which lists merge by keys, which maps are one value, which fields there are.

use std::sync::LazyLock;

use serde_json::{Map, Value};

mod core;

/// The definitions of the built-in kinds by name (`io.k8s.api.core.v1.Pod`), without descriptions. Made once: they
/// never change, and every write of a built-in kind needs them.
static CORE: LazyLock<Map<String, Value>> = LazyLock::new(|| core::definitions(false));

/// The definitions of the built-in kinds with their descriptions, for documents.
pub(crate) fn described() -> Map<String, Value> {
    core::definitions(true)
}

/// The name of the definition of a built-in kind.
pub(crate) fn core_name(group: &str, version: &str, kind: &str) -> String {
    let group = match group.split('.').next().unwrap_or_default() {
        "" => "core",
        first => first,
    };
    format!("io.k8s.api.{group}.{version}.{kind}")
}

/// How the elements of a list are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListKind<'a> {
    /// They are not: the list is one value.
    Atomic,
    /// By their value.
    Set,
    /// By these fields.
    Map(Vec<&'a str>),
}

/// The type at one place of an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape<'a> {
    /// `None` where nothing is known: maps are then granular and lists atomic.
    schema: Option<&'a Value>,
    /// The last part of the definition's name, empty where the type has none of its own.
    name: &'a str,
    root: bool,
}

impl<'a> Shape<'a> {
    /// The shape of a whole object, by the schema of its definition or by its built-in kind.
    pub(crate) fn of(schema: Option<&'a Value>, group: &str, version: &str, kind: &str) -> Self {
        let core = || {
            let meta = format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}");
            CORE.get_key_value(&core_name(group, version, kind)).or_else(|| CORE.get_key_value(&meta))
        };
        match (schema, core()) {
            (None, Some((name, schema))) => Self { schema: Some(schema), name: last(name), root: true },
            (schema, _) => Self { schema, name: "", root: true },
        }
    }

    /// A place of which nothing is known.
    pub(crate) fn unknown() -> Self {
        Self { schema: None, name: "", root: false }
    }

    fn at(schema: &'a Value) -> Self {
        match resolve(schema) {
            Some((name, definition)) => Self { schema: Some(definition), name: last(name), root: false },
            None => Self { schema: Some(schema), name: "", root: false },
        }
    }

    /// The definition's name, without its package.
    pub(crate) fn name(self) -> &'a str {
        self.name
    }

    /// Whether this is a built-in kind, with the types of Go.
    pub(crate) fn is_core(self) -> bool {
        !self.name.is_empty()
    }

    pub(crate) fn is_known(self) -> bool {
        self.schema.is_some()
    }

    fn get(self, key: &str) -> Option<&'a Value> {
        self.schema.and_then(|schema| schema.get(key))
    }

    /// The shape of a field, or of a map's value; `None` where the schema has no such field.
    pub(crate) fn field(self, key: &str) -> Option<Self> {
        if self.root && key == "metadata" {
            // Definitions say nothing of metadata but that there is some.
            let name = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
            return Some(Self { schema: CORE.get(name), name: last(name), root: false });
        }
        let Some(schema) = self.schema else { return Some(Self::unknown()) };
        let property = schema.get("properties").and_then(|properties| properties.get(key));
        if let Some(found) = property.or_else(|| schema.get("additionalProperties").filter(|s| s.is_object()))
        {
            return Some(Self::at(found));
        }
        let resource = self.root || schema.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true));
        (self.is_open() || resource && matches!(key, "apiVersion" | "kind" | "metadata"))
            .then_some(Self::unknown())
    }

    /// Whether fields may stand here that the schema does not name.
    fn is_open(self) -> bool {
        let yes = Some(&Value::Bool(true));
        self.get("x-kubernetes-preserve-unknown-fields") == yes || self.get("additionalProperties") == yes
    }

    /// The shape of a list's elements.
    pub(crate) fn items(self) -> Self {
        self.get("items").map_or(Self::unknown(), Self::at)
    }

    pub(crate) fn list(self) -> ListKind<'a> {
        match self.get("x-kubernetes-list-type").and_then(Value::as_str) {
            Some("set") => ListKind::Set,
            Some("map") => {
                let keys = self.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
                ListKind::Map(keys.into_iter().flatten().filter_map(Value::as_str).collect())
            }
            _ => ListKind::Atomic,
        }
    }

    /// Whether a map is one value as a whole.
    pub(crate) fn is_atomic_map(self) -> bool {
        self.get("x-kubernetes-map-type").is_some_and(|kind| kind == "atomic")
    }

    /// The value that a missing field stands for.
    pub(crate) fn default_of(self, key: &str) -> Option<&'a Value> {
        self.field(key)?.get("default")
    }

    /// `type`, empty where there is none.
    pub(crate) fn type_name(self) -> &'a str {
        self.get("type").and_then(Value::as_str).unwrap_or_default()
    }

    /// `format`, empty where there is none.
    pub(crate) fn format(self) -> &'a str {
        self.get("format").and_then(Value::as_str).unwrap_or_default()
    }

    /// The shape of a map's values, where it is a map and not an object with fields.
    pub(crate) fn values(self) -> Option<Self> {
        self.get("additionalProperties").filter(|schema| schema.is_object()).map(Self::at)
    }

    /// Whether both numbers and strings may stand here.
    pub(crate) fn is_int_or_string(self) -> bool {
        self.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true))
    }
}

/// The definition of a built-in type that a schema refers to.
fn resolve(schema: &Value) -> Option<(&'static str, &'static Value)> {
    // A reference that has a description of its own stands in an `allOf`.
    let inner = schema.get("allOf").and_then(Value::as_array).filter(|all| all.len() == 1).map(|all| &all[0]);
    let reference = inner.unwrap_or(schema).get("$ref").and_then(Value::as_str)?;
    CORE.get_key_value(reference.rsplit('/').next()?).map(|(name, schema)| (name.as_str(), schema))
}

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or_default()
}

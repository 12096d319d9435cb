//! Sets of fields, as `managedFields` keeps them: a tree by path elements in the notation of `fieldsV1`. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The path element of a field.
pub(super) fn field(name: &str) -> String {
    format!("f:{name}")
}

/// The path element of a list's element that is told apart by its keys.
pub(super) fn key(keys: BTreeMap<&str, &Value>) -> String {
    let map: Map<String, Value> =
        keys.into_iter().map(|(key, value)| (key.to_owned(), value.clone())).collect();
    format!("k:{}", Value::Object(map))
}

/// The path element of a set's element.
pub(super) fn value(value: &Value) -> String {
    format!("v:{value}")
}

/// A set of paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSet {
    /// Whether the path that leads here is in the set.
    pub(super) member: bool,
    pub(super) children: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.children.values().all(Self::is_empty)
    }

    pub(super) fn child(&mut self, element: String) -> &mut Self {
        self.children.entry(element).or_default()
    }

    pub(super) fn get(&self, element: &str) -> Option<&Self> {
        self.children.get(element)
    }

    pub(super) fn unite(&mut self, other: &Self) {
        self.member |= other.member;
        for (element, other) in &other.children {
            self.child(element.clone()).unite(other);
        }
    }

    /// Takes the members of `other` out.
    pub(super) fn subtract(&mut self, other: &Self) {
        self.member &= !other.member;
        for (element, other) in &other.children {
            if let Some(child) = self.children.get_mut(element) {
                child.subtract(other);
                if child.is_empty() {
                    self.children.remove(element);
                }
            }
        }
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        let mut common = Self { member: self.member && other.member, children: BTreeMap::new() };
        for (element, child) in &self.children {
            if let Some(other) = other.get(element) {
                let child = child.intersection(other);
                if !child.is_empty() {
                    common.children.insert(element.clone(), child);
                }
            }
        }
        common
    }

    /// All members as conflicts name them, for example `.spec.containers[name="a"].image`.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect(String::new(), &mut paths);
        paths
    }

    fn collect(&self, path: String, paths: &mut Vec<String>) {
        for (element, child) in &self.children {
            let path = format!("{path}{}", shown(element));
            child.collect(path, paths);
        }
        if self.member {
            paths.push(path);
        }
    }

    /// The set as `fieldsV1` writes it.
    pub(super) fn to_value(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.children.is_empty() {
            map.insert(".".into(), Value::Object(Map::new()));
        }
        for (element, child) in &self.children {
            map.insert(element.clone(), child.to_value());
        }
        Value::Object(map)
    }

    /// Reads `fieldsV1`; `None` where it is none.
    pub(super) fn from_value(value: &Value) -> Option<Self> {
        let mut set = Self::default();
        for (element, child) in value.as_object()? {
            set.children.insert(canonical(element)?, Self::node(child)?);
        }
        Some(set)
    }

    fn node(value: &Value) -> Option<Self> {
        let map = value.as_object()?;
        let mut set = Self { member: map.is_empty() || map.contains_key("."), children: BTreeMap::new() };
        for (element, child) in map.iter().filter(|(element, _)| *element != ".") {
            set.children.insert(canonical(element)?, Self::node(child)?);
        }
        Some(set)
    }
}

/// An element as this server writes it: other servers escape and order JSON in other ways.
fn canonical(element: &str) -> Option<String> {
    match element.split_at_checked(2)? {
        ("f:" | "i:", _) => Some(element.to_owned()),
        (prefix @ ("k:" | "v:"), text) => {
            let parsed: Value = serde_json::from_str(text).ok()?;
            Some(format!("{prefix}{parsed}"))
        }
        _ => None,
    }
}

fn shown(element: &str) -> String {
    let (prefix, text) = element.split_at_checked(2).unwrap_or(("f:", element));
    match prefix {
        "k:" => {
            let keys: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        "v:" => format!("[={text}]"),
        "i:" => format!("[{text}]"),
        _ => format!(".{text}"),
    }
}

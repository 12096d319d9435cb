//! Field names in the wrong case. Pure.
//!
//! Upstream reads JSON as Go does, whatever the case of its names, and writes the right ones back; files in the wild
//! rely on it (`mountpath`). Where the API server has not dropped such a field already, it means the one it looks like.

use std::fmt;

use serde_json::Value;

use crate::schema;

/// A field that was renamed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Renamed {
    /// Where it stood: `spec.steps[0].Image`.
    pub path: String,
    /// Its name now.
    pub name: String,
}

impl fmt::Display for Renamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "field \"{}\" is taken for \"{}\"", self.path, self.name)
    }
}

/// Gives every unknown field of an object of this kind the name of the field that differs from it by case only, unless
/// that is there as well.
pub fn correct(kind: &str, object: &mut Value) -> Vec<Renamed> {
    let mut renamed = Vec::new();
    if let Some(schema) = schema::of(kind, object) {
        walk(schema, object, &mut String::new(), &mut renamed);
    }
    renamed
}

fn walk(schema: &'static Value, value: &mut Value, path: &mut String, renamed: &mut Vec<Renamed>) {
    let (_, schema) = schema::resolve(schema);
    let length = path.len();
    match value {
        Value::Object(fields) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let unknown: Vec<String> = match properties {
                Some(known) => fields.keys().filter(|field| !known.contains_key(*field)).cloned().collect(),
                None => Vec::new(),
            };
            for field in unknown {
                let alike = properties
                    .into_iter()
                    .flat_map(|known| known.keys())
                    .find(|name| name.eq_ignore_ascii_case(&field) && !fields.contains_key(*name));
                if let (Some(name), Some(value)) = (alike, alike.and_then(|_| fields.remove(&field))) {
                    renamed.push(Renamed { path: join(path, &field), name: name.clone() });
                    fields.insert(name.clone(), value);
                }
            }
            let others = schema.get("additionalProperties");
            for (field, value) in fields {
                if let Some(schema) = properties.and_then(|known| known.get(field)).or(others) {
                    if length > 0 {
                        path.push('.');
                    }
                    path.push_str(field);
                    walk(schema, value, path, renamed);
                    path.truncate(length);
                }
            }
        }
        Value::Array(items) => {
            let Some(schema) = schema.get("items") else { return };
            for (index, item) in items.iter_mut().enumerate() {
                path.extend(["[", &index.to_string(), "]"]);
                walk(schema, item, path, renamed);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_case_is_corrected() {
        let mut object = json!({
            "metadata": {"labels": {"Name": "a label"}},
            "spec": {
                "steps": [{"Image": "i", "imge": "x", "workspaces": [{"mountpath": "/a"}]}, {"image": "own", "Image": "other"}],
                "params": [{"name": "p", "default": {"Key": "v"}}],
            },
        });
        let renamed: Vec<_> = correct("Task", &mut object).iter().map(ToString::to_string).collect();
        assert_eq!(
            renamed,
            [
                "field \"spec.steps[0].Image\" is taken for \"image\"",
                "field \"spec.steps[0].workspaces[0].mountpath\" is taken for \"mountPath\"",
            ]
        );
        assert_eq!(
            object,
            json!({
                "metadata": {"labels": {"Name": "a label"}},
                "spec": {
                    "steps": [{"image": "i", "imge": "x", "workspaces": [{"mountPath": "/a"}]}, {"image": "own", "Image": "other"}],
                    "params": [{"name": "p", "default": {"Key": "v"}}],
                },
            })
        );
    }
}

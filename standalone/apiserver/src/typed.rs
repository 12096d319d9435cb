//! What decoding into Go's types does to a built-in kind: unknown fields are dropped, wrong types refused. Pure.

use ropewalk_quantity::NoQuantity;
use serde_json::Value;

use crate::{resources, types::Shape};

/// Drops what the types do not have, and returns the paths of what was dropped, or what is of a wrong type, in the
/// words of Go's decoder.
pub(crate) fn conform(object: &mut Value, shape: Shape<'_>) -> Result<Vec<String>, String> {
    let mut dropped = Vec::new();
    if shape.is_core() {
        visit(object, shape, &Place::default(), &mut dropped)?;
    }
    Ok(dropped)
}

/// Where in an object: with indices for the user, and without for Go's decoder, which also names the struct.
#[derive(Clone, Debug, Default)]
struct Place {
    path: String,
    go_path: String,
    owner: String,
}

impl Place {
    fn field(&self, key: &str, owner: &str) -> Self {
        let join = |path: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        let owner = if owner.is_empty() { self.owner.clone() } else { owner.to_owned() };
        Self { path: join(&self.path), go_path: join(&self.go_path), owner }
    }

    fn item(&self, index: usize) -> Self {
        Self { path: format!("{}[{index}]", self.path), ..self.clone() }
    }
}

fn visit(
    value: &mut Value,
    shape: Shape<'_>,
    place: &Place,
    dropped: &mut Vec<String>,
) -> Result<(), String> {
    let fits = match (&*value, shape.type_name()) {
        (Value::Null, _) => true,
        (Value::String(_) | Value::Number(_), _) if shape.is_int_or_string() => true,
        (Value::Number(_), _) if shape.name() == "Quantity" => true,
        (_, "") => !shape.is_int_or_string(),
        (Value::Number(number), "integer") => !number.is_f64(),
        (Value::Object(_), "object")
        | (Value::Array(_), "array")
        | (Value::String(_), "string")
        | (Value::Bool(_), "boolean")
        | (Value::Number(_), "number") => true,
        _ => false,
    };
    if !fits {
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let Place { go_path, owner, .. } = place;
        let wanted = go_type(shape);
        return Err(format!(
            "json: cannot unmarshal {found} into Go struct field {owner}.{go_path} of type {wanted}"
        ));
    }
    match value {
        Value::String(_) | Value::Number(_) if shape.name() == "Quantity" => {
            let quantity = resources::amount(value).ok_or_else(|| NoQuantity.to_string())?;
            *value = Value::from(quantity.to_string());
            Ok(())
        }
        Value::Object(map) => {
            let mut wrong = None;
            map.retain(|key, value| {
                if wrong.is_some() {
                    return true;
                }
                let place = place.field(key, shape.name());
                let Some(shape) = shape.field(key) else {
                    dropped.push(place.path);
                    return false;
                };
                // To Go, null is what was left out.
                if value.is_null() && shape.is_known() {
                    return false;
                }
                wrong = visit(value, shape, &place, dropped).err();
                true
            });
            wrong.map_or(Ok(()), Err)
        }
        Value::Array(list) => {
            for (index, value) in list.iter_mut().enumerate() {
                visit(value, shape.items(), &place.item(index), dropped)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn go_type(shape: Shape<'_>) -> String {
    match (shape.type_name(), shape.format()) {
        ("string", "byte") => "[]uint8".into(),
        ("string", _) if shape.name().ends_with("Time") => format!("v1.{}", shape.name()),
        ("string", _) => "string".into(),
        ("boolean", _) => "bool".into(),
        ("integer", format) => if format.is_empty() { "int64" } else { format }.into(),
        ("number", _) => "float64".into(),
        ("array", _) => format!("[]{}", go_type(shape.items())),
        ("object", _) if !shape.name().is_empty() => format!("v1.{}", shape.name()),
        ("object", _) => format!("map[string]{}", shape.values().map_or("interface {}".into(), go_type)),
        _ if shape.name() == "Quantity" => "resource.Quantity".into(),
        _ => "intstr.IntOrString".into(),
    }
}

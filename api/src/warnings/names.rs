//! Names of objects and images that nothing can have, wherever they stand. Pure.

use serde_json::Value;

use super::{Doubts, Warning};
use crate::validate::is_dns_subdomain;

/// Fields that name an object: the field they are in, their own name, and the kind of the object.
const REFERENCES: [(&str, &str, &str); 11] = [
    ("configMap", "name", "ConfigMap"),
    ("configMapRef", "name", "ConfigMap"),
    ("configMapKeyRef", "name", "ConfigMap"),
    ("secret", "name", "Secret"),
    ("secret", "secretName", "Secret"),
    ("secretRef", "name", "Secret"),
    ("secretKeyRef", "name", "Secret"),
    ("nodePublishSecretRef", "name", "Secret"),
    ("imagePullSecrets", "name", "Secret"),
    ("persistentVolumeClaim", "claimName", "PersistentVolumeClaim"),
    ("", "serviceAccountName", "ServiceAccount"),
];

/// Walks the JSON form, so that no place of a reference is forgotten.
pub(super) fn check(value: &Value, path: &str, warnings: &mut Doubts) {
    walk(value, "", &mut path.to_owned(), warnings);
}

/// `within` is the last field on the way here.
fn walk(value: &Value, within: &str, path: &mut String, warnings: &mut Doubts) {
    let length = path.len();
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                path.push('.');
                path.push_str(field);
                if let Some(text) = value.as_str() {
                    let known = REFERENCES
                        .iter()
                        .find(|(parent, name, _)| *name == field && (parent.is_empty() || *parent == within));
                    match known {
                        Some((_, _, kind)) => object_name(kind, text, path, warnings),
                        None if field == "image" => image(text, path, warnings),
                        None => {}
                    }
                } else if !OPAQUE.contains(&field.as_str()) {
                    walk(value, field, path, warnings);
                }
                path.truncate(length);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.extend(["[", &index.to_string(), "]"]);
                walk(item, within, path, warnings);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

/// Values of users and of other controllers, whose keys mean nothing to us.
const OPAQUE: [&str; 5] = ["value", "default", "spec", "labels", "annotations"];

fn object_name(kind: &str, name: &str, path: &str, warnings: &mut Doubts) {
    if name.is_empty() || name.contains("$(") || is_dns_subdomain(name) {
        return;
    }
    warnings.push(|| {
        let trimmed = name.trim();
        let hint = if is_dns_subdomain(trimmed) {
            format!("\"{trimmed}\" without blanks around it would be one")
        } else {
            "lower-case letters, digits, \"-\" and \".\" make a name".to_owned()
        };
        let message = format!("no {kind} can be called \"{}\"", name.escape_debug());
        Warning { path: path.to_owned(), message, hint }
    });
}

fn image(image: &str, path: &str, warnings: &mut Doubts) {
    if image.is_empty() || image.contains("$(") {
        return;
    }
    let shown = image.escape_debug();
    let warning =
        |message: String, hint: &str| Warning { path: path.to_owned(), message, hint: hint.to_owned() };
    if image.trim() != image {
        warnings.push(|| {
            let message = format!("there are blanks around the image \"{shown}\"");
            warning(message, "no image can be found like that")
        });
    } else if !image.contains('@') && !image.rsplit('/').next().unwrap_or(image).contains(':') {
        let hint = "\"latest\" is taken, which is another one tomorrow";
        warnings.push(|| warning(format!("image \"{shown}\" has no tag"), hint));
    }
}

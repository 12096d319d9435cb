//! Names, UIDs, labels and the other metadata: making them and checking them, with the messages of
//! k8s.io/apimachinery. Pure.

use serde_json::Value;

use crate::{
    object,
    status::{Failure, FieldError, Result},
    table::{Behaviour, Resource},
};

/// Longest DNS-1123 subdomain, and so name of an object.
const SUBDOMAIN: usize = 253;
/// Longest DNS-1123 label, label value and name part of a label key.
const LABEL: usize = 63;
/// Most characters of `generateName` that make it into the name: 63 less the suffix.
const GENERATED_BASE: usize = LABEL - 5;
/// Most bytes of all annotations of an object together.
const ANNOTATIONS: usize = 256 * 1024;

const SUBDOMAIN_MESSAGE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
    '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation \
    is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_MESSAGE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and \
    must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_VALUE_MESSAGE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', \
    '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', \
    regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const QUALIFIED_MESSAGE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start \
    and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// The source of UIDs and name suffixes: splitmix64 over a seed, so that a run of the server can be repeated.
#[derive(Clone, Debug)]
pub(crate) struct Names(u64);

impl Names {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A UUID of version 4 in form.
    pub(crate) fn uid(&mut self) -> String {
        let (high, low) = (self.next(), self.next());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            0x8000 | ((low >> 48) & 0x3fff),
            low & 0xffff_ffff_ffff,
        )
    }

    /// `generateName` with five characters after it, from Kubernetes' alphabet (no vowels: no words).
    pub(crate) fn generate(&mut self, base: &str) -> String {
        const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut name: String = base.chars().take(GENERATED_BASE).collect();
        let mut bits = self.next();
        for _ in 0..5 {
            name.push(char::from(ALPHABET[usize::try_from(bits % 27).unwrap_or_default()]));
            bits /= 27;
        }
        name
    }
}

fn is_dns_label(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.bytes().all(|c| inner(c) || c == b'-')
        && text.bytes().next().is_some_and(inner)
        && text.bytes().last().is_some_and(inner)
}

fn is_loose_name(text: &str) -> bool {
    text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
        && text.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric())
        && text.bytes().last().is_some_and(|c| c.is_ascii_alphanumeric())
}

fn subdomain_fault(text: &str) -> Option<String> {
    if text.len() > SUBDOMAIN {
        Some(format!("must be no more than {SUBDOMAIN} characters"))
    } else if !text.split('.').all(is_dns_label) {
        Some(SUBDOMAIN_MESSAGE.into())
    } else {
        None
    }
}

fn label_fault(text: &str) -> Option<String> {
    if text.len() > LABEL {
        Some(format!("must be no more than {LABEL} characters"))
    } else if is_dns_label(text) {
        None
    } else if subdomain_fault(text).is_none() {
        Some("must not contain dots".into())
    } else {
        Some(LABEL_MESSAGE.into())
    }
}

fn name_fault(resource: &Resource, name: &str) -> Option<String> {
    // Service names are stricter still (no leading digit); nothing here makes any.
    match resource.behaviour {
        Behaviour::Namespace => label_fault(name),
        Behaviour::Role | Behaviour::ClusterRole | Behaviour::RoleBinding | Behaviour::ClusterRoleBinding => {
            segment_fault(name)
        }
        _ => subdomain_fault(name),
    }
}

/// Names of roles need only fit into a path: `system:discovery` is one.
fn segment_fault(name: &str) -> Option<String> {
    match name {
        "." | ".." => Some(format!("may not be '{name}'")),
        _ => ['/', '%'].into_iter().find(|c| name.contains(*c)).map(|c| format!("may not contain '{c}'")),
    }
}

fn qualified_fault(key: &str) -> Option<String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if name.contains('/') {
        let prefixed = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
        return Some(format!("a valid label key {QUALIFIED_MESSAGE} {prefixed}"));
    }
    if prefix.is_some_and(|prefix| subdomain_fault(prefix).is_some()) {
        return Some(format!("prefix part {SUBDOMAIN_MESSAGE}"));
    }
    if name.is_empty() {
        Some("name part must be non-empty".into())
    } else if name.len() > LABEL {
        Some(format!("name part must be no more than {LABEL} bytes"))
    } else if !is_loose_name(name) {
        Some(format!("name part {QUALIFIED_MESSAGE}"))
    } else {
        None
    }
}

/// Refuses metadata whose types are wrong, as decoding into Go's `ObjectMeta` would.
pub(crate) fn check_types(resource: &Resource, object: &Value) -> Result<()> {
    let version = object::text(object, "apiVersion");
    let version = version.rsplit('/').next().unwrap_or_default();
    let wrong = |what: &str| {
        Failure::bad_request(format!(
            "{} in version {version:?} cannot be handled as a {}: {what}",
            resource.kind, resource.kind
        ))
    };
    let Some(meta) = object.get("metadata").filter(|meta| !meta.is_null()) else { return Ok(()) };
    let Some(meta) = meta.as_object() else {
        return Err(wrong("metadata must be an object"));
    };
    for field in ["name", "generateName", "namespace", "uid", "resourceVersion", "deletionTimestamp"] {
        if meta.get(field).is_some_and(|value| !value.is_string() && !value.is_null()) {
            return Err(wrong(&format!("metadata.{field} must be a string")));
        }
    }
    for field in ["labels", "annotations"] {
        match meta.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::Object(map)) => {
                if let Some((key, _)) = map.iter().find(|(_, value)| !value.is_string()) {
                    return Err(wrong(&format!(
                        "the value of \"{key}\" in metadata.{field} must be a string"
                    )));
                }
            }
            Some(_) => return Err(wrong(&format!("metadata.{field} must be a map of strings"))),
        }
    }
    let strings = |list: &Value| list.as_array().is_some_and(|list| list.iter().all(Value::is_string));
    if meta.get("finalizers").is_some_and(|list| !list.is_null() && !strings(list)) {
        return Err(wrong("metadata.finalizers must be a list of strings"));
    }
    let objects = |list: &Value| list.as_array().is_some_and(|list| list.iter().all(Value::is_object));
    if meta.get("ownerReferences").is_some_and(|list| !list.is_null() && !objects(list)) {
        return Err(wrong("metadata.ownerReferences must be a list of objects"));
    }
    Ok(())
}

/// The names within a pod: each becomes a directory on its node, among other things.
fn pod_names(pod: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for list in ["volumes", "containers", "initContainers", "ephemeralContainers"] {
        let items = object::at(pod, &format!("spec.{list}")).and_then(Value::as_array);
        for (index, item) in items.into_iter().flatten().enumerate() {
            let field = format!("spec.{list}[{index}].name");
            match item.get("name").and_then(Value::as_str).unwrap_or_default() {
                "" => errors.push(FieldError::required(field, "")),
                name => errors.extend(
                    label_fault(name).map(|fault| FieldError::invalid(field, &Value::from(name), &fault)),
                ),
            }
        }
    }
    errors
}

/// Checks the metadata of an object about to be stored.
pub(crate) fn validate(resource: &Resource, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let name = object::name(object);
    if name.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else if let Some(fault) = name_fault(resource, name) {
        errors.push(FieldError::invalid("metadata.name", &Value::from(name), &fault));
    }
    if let Some(labels) = object::at(object, "metadata.labels").and_then(Value::as_object) {
        for (key, value) in labels {
            if let Some(fault) = qualified_fault(key) {
                errors.push(FieldError::invalid("metadata.labels", &Value::from(key.as_str()), &fault));
            }
            let text = value.as_str().unwrap_or_default();
            if text.len() > LABEL {
                let fault = format!("must be no more than {LABEL} bytes");
                errors.push(FieldError::invalid("metadata.labels", value, &fault));
            } else if !text.is_empty() && !is_loose_name(text) {
                errors.push(FieldError::invalid("metadata.labels", value, LABEL_VALUE_MESSAGE));
            }
        }
    }
    if let Some(annotations) = object::at(object, "metadata.annotations").and_then(Value::as_object) {
        let mut bytes = 0;
        for (key, value) in annotations {
            bytes += key.len() + value.as_str().unwrap_or_default().len();
            if let Some(fault) = qualified_fault(&key.to_lowercase()) {
                errors.push(FieldError::invalid("metadata.annotations", &Value::from(key.as_str()), &fault));
            }
        }
        if bytes > ANNOTATIONS {
            let fault = format!("may not be more than {ANNOTATIONS} bytes");
            errors.push(FieldError::too_long("metadata.annotations", &fault));
        }
    }
    if resource.behaviour == Behaviour::Pod {
        errors.extend(pod_names(object));
    }
    for finalizer in object::finalizers(object) {
        if let Some(fault) = qualified_fault(finalizer) {
            errors.push(FieldError::invalid("metadata.finalizers", &Value::from(finalizer), &fault));
        }
    }
    validate_owners(object, &mut errors);
    errors
}

fn validate_owners(object: &Value, errors: &mut Vec<FieldError>) {
    let Some(owners) = object::at(object, "metadata.ownerReferences").and_then(Value::as_array) else {
        return;
    };
    for owner in owners {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if object::text(owner, field).is_empty() {
                let field = format!("metadata.ownerReferences.{field}");
                errors.push(FieldError::invalid(field, &Value::from(""), "must not be empty"));
            }
        }
    }
    let is_controller = |owner: &&Value| owner.get("controller") == Some(&Value::Bool(true));
    let controllers: Vec<&str> =
        owners.iter().filter(is_controller).map(|o| object::text(o, "name")).collect();
    if controllers.len() > 1 {
        let fault = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {}",
            controllers.join(" and ")
        );
        errors.push(FieldError::invalid("metadata.ownerReferences", &Value::Array(owners.clone()), &fault));
    }
}

//! Errors as Kubernetes tells them: `Status` objects with the code, reason, details and message of kube-apiserver,
//! which clients and tests compare. Pure.

use serde_json::{Value, json};

use crate::table::Resource;

/// Result of everything that can be refused.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// A refused request; becomes a `Status` object.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason, for example `NotFound`.
    pub reason: &'static str,
    /// What the user reads.
    pub message: String,
    /// `Status.details`; null where there are none.
    pub details: Box<Value>,
}

/// One field that is wrong; several make up one `Invalid` status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldError {
    pub(crate) field: String,
    /// A `FieldValue...` cause reason.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl FieldError {
    pub(crate) fn invalid(field: impl Into<String>, value: &Value, why: &str) -> Self {
        let shown = match value {
            Value::Object(_) | Value::Array(_) => value.to_string(),
            Value::String(text) => format!("{text:?}"),
            other => other.to_string(),
        };
        Self {
            field: field.into(),
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {shown}: {why}"),
        }
    }

    pub(crate) fn required(field: impl Into<String>, why: &str) -> Self {
        let message = if why.is_empty() { "Required value".into() } else { format!("Required value: {why}") };
        Self { field: field.into(), reason: "FieldValueRequired", message }
    }

    pub(crate) fn forbidden(field: impl Into<String>, why: &str) -> Self {
        Self { field: field.into(), reason: "FieldValueForbidden", message: format!("Forbidden: {why}") }
    }

    pub(crate) fn too_long(field: impl Into<String>, why: &str) -> Self {
        Self { field: field.into(), reason: "FieldValueTooLong", message: format!("Too long: {why}") }
    }

    pub(crate) fn not_supported(field: impl Into<String>, value: &Value, supported: &[Value]) -> Self {
        let supported: Vec<String> = supported.iter().map(Value::to_string).collect();
        Self {
            field: field.into(),
            reason: "FieldValueNotSupported",
            message: format!("Unsupported value: {value}: supported values: {}", supported.join(", ")),
        }
    }
}

impl Failure {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Box::new(Value::Null) }
    }

    /// The `Status` object sent as the body, or as the object of an ERROR watch event.
    pub fn to_value(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if !self.details.is_null() {
            status["details"] = (*self.details).clone();
        }
        status
    }

    /// A refusal for want of room to keep what the request wants kept.
    pub fn insufficient_storage(message: impl Into<String>) -> Self {
        Self::new(507, "InsufficientStorage", message)
    }

    fn about(mut self, resource: &Resource, name: &str) -> Self {
        self.details = Box::new(details(&resource.group, &resource.plural, name));
        self
    }

    pub(crate) fn not_found(resource: &Resource, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} {name:?} not found", resource.qualified()))
            .about(resource, name)
    }

    pub(crate) fn already_exists(resource: &Resource, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} {name:?} already exists", resource.qualified()))
            .about(resource, name)
    }

    /// The name is still taken by an object that is on its way out.
    pub(crate) fn still_there(resource: &Resource, name: &str) -> Self {
        let mut failure = Self::already_exists(resource, name);
        failure.message = format!("object is being deleted: {}", failure.message);
        failure
    }

    pub(crate) fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", resource.qualified());
        Self::new(409, "Conflict", message).about(resource, name)
    }

    pub(crate) fn modified(resource: &Resource, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    pub(crate) fn forbidden(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("{} {name:?} is forbidden: {why}", resource.qualified());
        Self::new(403, "Forbidden", message).about(resource, name)
    }

    /// A refusal of what a user may not do; a path has no resource.
    pub(crate) fn forbidden_to(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let dot = if group.is_empty() { "" } else { "." };
        let about = match (resource, name) {
            ("", _) => "forbidden".to_owned(),
            (_, "") => format!("{resource}{dot}{group} is forbidden"),
            _ => format!("{resource}{dot}{group} {name:?} is forbidden"),
        };
        let mut failure = Self::new(403, "Forbidden", format!("{about}: {why}"));
        failure.details = Box::new(details(group, resource, name));
        failure
    }

    /// Who asks has to say who they are, and prove it.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "InternalError", message)
    }

    pub(crate) fn denied(code: u16, message: String) -> Self {
        let reason = match code {
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            409 => "Conflict",
            422 => "Invalid",
            500.. => "InternalError",
            _ => "BadRequest",
        };
        Self::new(code, reason, message)
    }

    pub(crate) fn unknown_path() -> Self {
        let mut failure = Self::new(404, "NotFound", "the server could not find the requested resource");
        failure.details = Box::new(json!({}));
        failure
    }

    /// A path that a cluster has and this server has not, with what to do instead.
    pub(crate) fn not_served(what: &str, instead: &str) -> Self {
        let mut failure = Self::unknown_path();
        failure.message = format!("{}: {what} is not served here; {instead}", failure.message);
        failure
    }

    pub(crate) fn method_not_allowed() -> Self {
        let why = "the server does not allow this method on the requested resource";
        let mut failure = Self::new(405, "MethodNotAllowed", why);
        failure.details = Box::new(json!({}));
        failure
    }

    pub(crate) fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub(crate) fn not_acceptable() -> Self {
        Self::only_acceptable("application/json")
    }

    /// There is an answer in this form alone.
    pub(crate) fn only_acceptable(media_type: &str) -> Self {
        let message = format!("only the following media types are accepted: {media_type}");
        Self::new(406, "NotAcceptable", message)
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {limit}"))
    }

    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    pub(crate) fn version_too_large(wanted: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {wanted}, current: {current}");
        let mut failure = Self::new(504, "Timeout", format!("Timeout: {message}"));
        failure.details = Box::new(json!({
            "causes": [{ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" }],
            "retryAfterSeconds": 1,
        }));
        failure
    }

    pub(crate) fn patch_rejected(why: &str) -> Self {
        let message = "the server rejected our request due to an error in our request";
        let mut failure = Self::new(422, "Invalid", message);
        failure.details =
            Box::new(json!({ "causes": [{ "reason": "UnexpectedServerResponse", "message": why }] }));
        failure
    }

    /// What a configuration would take from other managers.
    pub(crate) fn apply_conflict(message: String, causes: &[Value]) -> Self {
        let mut failure = Self::new(409, "Conflict", message);
        failure.details = Box::new(json!({ "causes": causes }));
        failure
    }

    /// Faults of a request's options, for example of `PatchOptions`.
    pub(crate) fn invalid_options(kind: &str, errors: &[FieldError]) -> Self {
        Self::invalid_kind("meta.k8s.io", kind, "", errors)
    }

    pub(crate) fn invalid(resource: &Resource, name: &str, errors: &[FieldError]) -> Self {
        Self::invalid_kind(&resource.group, &resource.kind, name, errors)
    }

    /// Faults of something that is no resource, by its kind.
    pub(crate) fn invalid_kind(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let shown: Vec<String> =
            errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect();
        let list = if let [one] = shown.as_slice() { one.clone() } else { format!("[{}]", shown.join(", ")) };
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut failure = Self::new(422, "Invalid", format!("{qualified} {name:?} is invalid: {list}"));
        let causes: Vec<Value> = errors
            .iter()
            .map(|error| json!({ "reason": error.reason, "message": error.message, "field": error.field }))
            .collect();
        let mut about = details(group, kind, name);
        about["causes"] = Value::Array(causes);
        failure.details = Box::new(about);
        failure
    }
}

fn details(group: &str, kind: &str, name: &str) -> Value {
    let mut details = json!({});
    for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
        if !value.is_empty() {
            details[key] = Value::from(value);
        }
    }
    details
}

/// The `Success` status that answers a deletion.
pub(crate) fn deleted(resource: &Resource, name: &str, uid: &str) -> Value {
    let mut about = details(&resource.group, &resource.plural, name);
    about["uid"] = Value::from(uid);
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": about })
}

//! Which object a body is about, against the URL and against what is stored. Pure.

use http::Method;
use serde_json::Value;

use super::Writer;
use crate::{
    object,
    route::Target,
    status::{Failure, FieldError, Result},
    table::Resource,
};

/// Checks the name in the body of a PUT or an apply, which is judged before the object is looked for.
pub(super) fn check_name(target: &Target, object: &Value) -> Result<()> {
    let (sent, known) = (object::text(object, "metadata.name"), target.name.as_deref().unwrap_or_default());
    if sent.is_empty() || sent == known {
        return Ok(());
    }
    Err(other_name(sent, known))
}

/// Puts the namespace of the URL into the object.
pub(super) fn place(resource: &Resource, target: &Target, object: &mut Value) -> Result<()> {
    let Some(namespace) = target.namespace.as_deref() else {
        if resource.namespaced {
            // A namespaced object is not created through the list of all namespaces.
            return Err(Failure::method_not_allowed());
        }
        object::set_meta(object, "namespace", None);
        return Ok(());
    };
    let own = object::namespace(object);
    if !own.is_empty() && own != namespace {
        return Err(other_namespace());
    }
    object::set_meta(object, "namespace", Some(Value::from(namespace)));
    Ok(())
}

/// Name, namespace, UID and resourceVersion of what the client sent against what is there.
pub(super) fn check(writer: &Writer<'_>, target: &Target, old: &Value, object: &mut Value) -> Result<()> {
    let (name, patched) = (object::name(old).to_owned(), writer.call.method == Method::PATCH);
    for (field, known) in [("name", name.as_str()), ("namespace", object::namespace(old))] {
        let sent = object::text(object, &format!("metadata.{field}"));
        if sent == known || (sent.is_empty() && !patched && field == "namespace") {
            continue;
        }
        if patched && sent.is_empty() {
            let error =
                FieldError::invalid(format!("metadata.{field}"), &Value::from(sent), "field is immutable");
            return Err(Failure::invalid(&writer.resource, &name, &[error]));
        }
        return Err(if field == "name" { other_name(sent, known) } else { other_namespace() });
    }
    if let Some(namespace) = &target.namespace {
        object::set_meta(object, "namespace", Some(Value::from(namespace.as_str())));
    }
    let uid = object::uid(object);
    if !uid.is_empty() && uid != object::uid(old) && patched {
        let error = FieldError::invalid("metadata.uid", &Value::from(uid), "field is immutable");
        return Err(Failure::invalid(&writer.resource, &name, &[error]));
    }
    if !uid.is_empty() && uid != object::uid(old) {
        let found = object::uid(old);
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {found}");
        return Err(Failure::conflict(&writer.resource, &name, &why));
    }
    match object::resource_version(object) {
        "" if (writer.resource.custom || writer.resource.plural == "leases") && !patched => {
            let error = FieldError {
                field: "metadata.resourceVersion".into(),
                reason: "FieldValueInvalid",
                message: "Invalid value: 0: must be specified for an update".into(),
            };
            // kube-apiserver has the plural here where a kind belongs.
            Err(Failure::invalid_kind(&writer.resource.group, &writer.resource.plural, &name, &[error]))
        }
        "" => Ok(()),
        version if version == object::resource_version(old) => Ok(()),
        _ => Err(Failure::modified(&writer.resource, &name)),
    }
}

fn other_name(sent: &str, known: &str) -> Failure {
    Failure::bad_request(format!(
        "the name of the object ({sent}) does not match the name on the URL ({known})"
    ))
}

fn other_namespace() -> Failure {
    Failure::bad_request(
        "the namespace of the provided object does not match the namespace sent on the request",
    )
}

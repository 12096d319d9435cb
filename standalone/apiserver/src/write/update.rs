//! What changes: PUT and PATCH of an object or of its status. Pure.

use http::Method;
use serde_json::Value;

use super::{SYSTEM, Writer, create, identity};
use crate::{
    access,
    admission::{self, Operation},
    apply::Requested,
    body::Body,
    builtin,
    handle::{Call, Reply, key_of},
    object, patch, read, route,
    route::Target,
    state::State,
    status::{Failure, FieldError, Result},
};

/// PUT or PATCH of an object, or of its status.
pub(crate) fn update(state: &mut State, call: &Call<'_>, target: &Target, mut body: Body) -> Result<Reply> {
    let mut writer = Writer::new(state, call, target, &mut body)?;
    let status = target.subresource.is_some();
    let media_type = route::content_type(call.headers);
    let applies = super::applies(call);
    if call.method == Method::PUT {
        identity::check_name(target, body.peek()?)?;
    }
    let stored = match read::fetch(state, target) {
        Ok(stored) => stored,
        Err(_) if applies && !status => return create::by_apply(state, writer, target, body),
        Err(_) if writer.creates_by_put() && !status => return create::by_put(state, writer, target, body),
        Err(not_found) => {
            // The media type of a patch is judged before the object is looked for.
            if call.method == Method::PATCH && !applies {
                patch::check_type(&writer.resource, media_type)?;
            }
            return Err(not_found);
        }
    };
    let old = read::in_version(&writer.resource, target.version, &stored)?.into_owned();
    let subresource = target.subresource.as_deref().unwrap_or_default();
    let mut object = wanted(&writer, target, &old, body)?;
    // A subresource leaves it to the object itself who manages what.
    let requested = if status { Requested::Nothing } else { Requested::of(&object) };
    let managed = applies.then(|| object::at(&object, "metadata.managedFields").cloned());
    writer.conform(&mut object)?;
    identity::check(&writer, target, &old, &mut object)?;
    for field in SYSTEM {
        object::copy_meta(&mut object, &old, field);
    }
    object::copy_meta(&mut object, &old, "resourceVersion");
    if status {
        object = with_status(&writer, &old, &object);
    } else if writer.has_status() {
        object::set_field(&mut object, "status", old.get("status").cloned());
    }
    let managed = match managed {
        Some(managed) => managed,
        None => writer.tracker(subresource).update(Some(&old), &object, &requested)?,
    };
    if !status {
        admission::fill(state, &writer.resource, Some(&old), &mut object);
        writer.admit(Operation::Update, &mut object, Some(&old))?;
        for field in SYSTEM.into_iter().chain(["name", "namespace", "resourceVersion"]) {
            object::copy_meta(&mut object, &old, field);
        }
        if writer.has_status() {
            object::set_field(&mut object, "status", old.get("status").cloned());
        }
    }
    let mut errors = new_finalizers(&old, &object);
    if !status {
        errors.extend(builtin::validate_update(writer.behaviour(), &old, &object));
    }
    writer.check(&object, errors)?;
    if !status {
        writer.warnings.extend(admission::judge(state, &writer.resource, Some(&old), &object)?);
    }
    access::check_write(state, call.caller, &writer.resource, Some(&old), &object)?;
    if writer.resource.counts_generations && !status && content_changed(&writer, &old, &object) {
        let generation = object::at(&old, "metadata.generation").and_then(Value::as_i64).unwrap_or_default();
        object::set_meta(&mut object, "generation", Some(Value::from(generation + 1)));
    }
    object::set_meta(&mut object, "managedFields", managed);
    let object = writer.to_storage(object)?;
    store(state, writer, target, &stored, object)
}

/// The object as the client wants it: what is there with the body applied or patched in, or the body in its place.
fn wanted(writer: &Writer<'_>, target: &Target, old: &Value, body: Body) -> Result<Value> {
    let call = writer.call;
    if super::applies(call) {
        let config = writer.configuration(target, body)?;
        check_version_of(writer, old, &config)?;
        let subresource = target.subresource.as_deref().unwrap_or_default();
        return writer.tracker(subresource).apply(Some(old), config, call.query.flag("force"));
    }
    if call.method == Method::PATCH {
        patch::check_type(&writer.resource, route::content_type(call.headers))?;
        let mut object = old.clone();
        patch::apply(body.change()?, &mut object)?;
        return Ok(object);
    }
    body.object()
}

/// The versions an applied configuration insists on.
fn check_version_of(writer: &Writer<'_>, old: &Value, config: &Value) -> Result<()> {
    let wanted = object::resource_version(config);
    if wanted.is_empty() || wanted == object::resource_version(old) {
        Ok(())
    } else {
        Err(Failure::modified(&writer.resource, object::name(old)))
    }
}

/// What a write to `/status` changes: of a custom resource the status alone, of a built-in one also labels,
/// annotations and finalizers.
fn with_status(writer: &Writer<'_>, old: &Value, object: &Value) -> Value {
    let mut result = old.clone();
    object::set_field(&mut result, "status", object.get("status").cloned());
    if !writer.resource.custom {
        for field in ["labels", "annotations", "finalizers"] {
            object::copy_meta(&mut result, object, field);
        }
    }
    result
}

fn new_finalizers(old: &Value, object: &Value) -> Vec<FieldError> {
    if !object::is_deleting(old) {
        return Vec::new();
    }
    let known = object::finalizers(old);
    let added: Vec<String> = object::finalizers(object)
        .into_iter()
        .filter(|finalizer| !known.contains(finalizer))
        .map(|finalizer| format!("{finalizer:?}"))
        .collect();
    if added.is_empty() {
        return Vec::new();
    }
    let why = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        added.join(", ")
    );
    vec![FieldError::forbidden("metadata.finalizers", &why)]
}

/// Whether anything changed that `metadata.generation` counts: all but metadata and a status of its own.
fn content_changed(writer: &Writer<'_>, old: &Value, new: &Value) -> bool {
    let counts = |key: &str| key != "metadata" && !(key == "status" && writer.has_status());
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return old != new };
    old.keys().chain(new.keys()).any(|key| counts(key) && old.get(key) != new.get(key))
}

/// Stores what has passed all checks, unless it is what is there already or has nothing left to live for.
fn store(
    state: &mut State,
    writer: Writer<'_>,
    target: &Target,
    stored: &Value,
    object: Value,
) -> Result<Reply> {
    if object == *stored {
        return writer.reply(200, stored);
    }
    // The last finalizer of an object whose grace is over was all that kept it.
    let ends = object::is_deleting(&object)
        && object::finalizers(&object).is_empty()
        && object::grace(&object) == Some(0);
    if ends {
        state.remove(target.id, &key_of(target));
        return writer.reply(200, &object);
    }
    state.check_room_to_update(&object)?;
    let stored = state.put(target.id, object);
    writer.reply(200, &stored)
}

//! What is new: by POST, and where a PUT or an apply finds nothing. Pure.

use serde_json::{Value, json};

use super::{SYSTEM, Writer, identity};
use crate::{
    access,
    admission::{self, Operation},
    apply::Requested,
    body::Body,
    builtin,
    handle::{Call, Reply},
    object,
    route::Target,
    state::{ObjectKey, State},
    status::{Failure, Result},
    table::{Behaviour, Resource, ResourceId},
};

/// Names tried for one `generateName` before the last one's conflict is told, as in Kubernetes.
const NAME_ATTEMPTS: usize = 8;

/// POST of a new object.
pub(crate) fn create(state: &mut State, call: &Call<'_>, target: &Target, mut body: Body) -> Result<Reply> {
    let writer = Writer::new(state, call, target, &mut body)?;
    store_new(state, writer, target, body.object()?, None)
}

/// A PUT of an object of one of the kinds that clients may so create.
pub(super) fn by_put(state: &mut State, writer: Writer<'_>, target: &Target, body: Body) -> Result<Reply> {
    // Whoever may change what is there may not for that reason make what is not.
    access::check_create(state, writer.call.caller.user, target)?;
    let mut object = body.object()?;
    if !object::resource_version(&object).is_empty() || !object::uid(&object).is_empty() {
        return Err(Failure::not_found(&writer.resource, target.name.as_deref().unwrap_or_default()));
    }
    object::set_meta(&mut object, "name", target.name.as_deref().map(Value::from));
    store_new(state, writer, target, object, None)
}

/// An applied configuration for which there is no object yet.
pub(super) fn by_apply(state: &mut State, writer: Writer<'_>, target: &Target, body: Body) -> Result<Reply> {
    // Whoever may patch what is there may not for that reason make what is not.
    access::check_create(state, writer.call.caller.user, target)?;
    let mut config = writer.configuration(target, body)?;
    let uid = object::uid(&config);
    if !uid.is_empty() {
        let why = format!(
            "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        );
        return Err(Failure::conflict(&writer.resource, object::name(&config), &why));
    }
    if !object::resource_version(&config).is_empty() {
        return Err(Failure::not_found(&writer.resource, object::name(&config)));
    }
    object::set_meta(&mut config, "uid", None);
    let mut object = writer.tracker("").apply(None, config, false)?;
    let managed = object::meta_mut(&mut object).remove("managedFields");
    store_new(state, writer, target, object, managed)
}

/// Stores a new object; `managed` are its `managedFields` where they are known already.
fn store_new(
    state: &mut State,
    mut writer: Writer<'_>,
    target: &Target,
    mut object: Value,
    managed: Option<Value>,
) -> Result<Reply> {
    let call = writer.call;
    writer.conform(&mut object)?;
    identity::place(&writer.resource, target, &mut object)?;
    if !object::resource_version(&object).is_empty() {
        return Err(Failure::bad_request("resourceVersion should not be set on objects to be created"));
    }
    for field in SYSTEM.into_iter().chain(["resourceVersion"]) {
        object::set_meta(&mut object, field, None);
    }
    // Whoever writes an object owns what it says and what is filled in by default. What admission adds is nobody's.
    let managed = match managed {
        Some(managed) => Some(managed),
        None => writer.tracker("").update(None, &object, &Requested::Nothing)?,
    };
    check_namespace(state, &writer.resource, &object)?;
    if writer.behaviour() == Behaviour::Pod {
        check_service_account(state, &writer.resource, &mut object)?;
    }
    admission::fill(state, &writer.resource, None, &mut object);
    state.fill_system_fields(&mut object, call.context.now);
    let (uid, created) =
        (object::uid(&object).to_owned(), object::text(&object, "metadata.creationTimestamp").to_owned());
    writer.admit(Operation::Create, &mut object, None)?;
    object::set_meta(&mut object, "uid", Some(Value::from(uid)));
    object::set_meta(&mut object, "creationTimestamp", Some(Value::from(created)));
    if writer.resource.custom && writer.has_status() {
        object::set_field(&mut object, "status", None);
        // The schema may give even an empty object a status.
        writer.default(&mut object);
    }
    name_it(state, target.id, &mut object);
    builtin::prepare_create(writer.behaviour(), &mut object);
    writer.check(&object, Vec::new())?;
    writer.warnings.extend(admission::judge(state, &writer.resource, None, &object)?);
    let key = ObjectKey::of(&object);
    if let Some(found) = state.get(target.id, &key) {
        let refused = if object::is_deleting(found) { Failure::still_there } else { Failure::already_exists };
        return Err(refused(&writer.resource, &key.name));
    }
    object::set_meta(&mut object, "managedFields", managed);
    access::check_write(state, call.caller, &writer.resource, None, &object)?;
    let stored = writer.to_storage(object)?;
    state.check_room_to_create()?;
    let stored = state.create(target.id, stored, call.context.now);
    writer.reply(201, &stored)
}

fn check_namespace(state: &State, resource: &Resource, object: &Value) -> Result<()> {
    let namespace = object::namespace(object);
    let Some(id) = state.table().by_behaviour(Behaviour::Namespace).filter(|_| resource.namespaced) else {
        return Ok(());
    };
    match state.get(id, &ObjectKey::new("", namespace)) {
        None => Err(Failure::not_found(state.table().get(id), namespace)),
        Some(found) if object::is_deleting(found) => {
            let why = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            let mut failure = Failure::forbidden(resource, object::name(object), &why);
            // What controllers tell by that it is no use to try again.
            failure.details["causes"] = json!([{
                "reason": "NamespaceTerminating", "field": "metadata.namespace",
                "message": format!("namespace {namespace} is being terminated"),
            }]);
            Err(failure)
        }
        Some(_) => Ok(()),
    }
}

/// What the `ServiceAccount` admission plugin does: a pod has a service account, and it exists.
fn check_service_account(state: &mut State, resource: &Resource, pod: &mut Value) -> Result<()> {
    let Some((id, _)) = state.table().find("", "v1", "serviceaccounts") else { return Ok(()) };
    let account = match object::text(pod, "spec.serviceAccountName") {
        "" => "default".to_owned(),
        account => account.to_owned(),
    };
    let namespace = object::namespace(pod);
    let Some(found) = state.get(id, &ObjectKey::new(namespace, &account)).cloned() else {
        let why = format!(
            "error looking up service account {namespace}/{account}: serviceaccount \"{account}\" not found"
        );
        return Err(Failure::forbidden(resource, object::name(pod), &why));
    };
    for field in ["serviceAccountName", "serviceAccount"] {
        object::map_mut(pod, "spec").insert(field.into(), Value::from(account.as_str()));
    }
    access::automount(state, &found, pod);
    Ok(())
}

fn name_it(state: &mut State, id: ResourceId, object: &mut Value) {
    let base = object::text(object, "metadata.generateName").to_owned();
    if !object::name(object).is_empty() || base.is_empty() {
        return;
    }
    for _ in 0..NAME_ATTEMPTS {
        let name = state.names.generate(&base);
        object::set_meta(object, "name", Some(Value::from(name)));
        if state.get(id, &ObjectKey::of(object)).is_none() {
            return;
        }
    }
}

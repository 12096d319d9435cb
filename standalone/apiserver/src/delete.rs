//! DELETE of one object and of a collection: preconditions, grace, finalizers, propagation. Pure.

use std::{borrow::Cow, sync::Arc};

use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::{
    admission::{AdmissionDecision, AdmissionRequest, Operation},
    body::Body,
    builtin, gc,
    handle::{Call, Reply, key_of},
    object::{self, FOREGROUND, ORPHAN, stamp},
    read,
    route::Target,
    state::{ObjectKey, State},
    status::{self, Failure, FieldError, Result},
    table::{Behaviour, Resource, ResourceId},
};

/// What becomes of the dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// They go after the owner.
    Background,
    /// They go before the owner.
    Foreground,
    /// They stay.
    Orphan,
}

/// `DeleteOptions`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) grace: Option<i64>,
    pub(crate) policy: Option<Policy>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
}

/// Whether a body of `DeleteOptions` asks for a dry run.
pub(crate) fn asks_for_dry_run(options: &Value) -> bool {
    let list = options.get("dryRun").and_then(Value::as_array);
    list.is_some_and(|list| list.contains(&Value::from("All")))
}

impl Options {
    fn parse(call: &Call<'_>, body: Body) -> Result<Self> {
        let mut options = if body.is_empty() { Value::Null } else { body.object()? };
        if call.method == Method::POST {
            // An eviction carries its options in a field.
            options = options.get("deleteOptions").cloned().unwrap_or_default();
        }
        let own = |path: &str| object::at(&options, path).and_then(Value::as_str).map(str::to_owned);
        let orphan = object::at(&options, "orphanDependents").and_then(Value::as_bool);
        let orphan =
            orphan.or(call.query.get("orphanDependents").map(|_| call.query.flag("orphanDependents")));
        let policy = own("propagationPolicy").or(call.query.get("propagationPolicy").map(str::to_owned));
        let invalid = |fault: FieldError| Err(Failure::invalid_options("DeleteOptions", &[fault]));
        let policy = match (policy.as_deref(), orphan) {
            (Some(policy), Some(_)) => {
                let why = "orphanDependents and deletionPropagation cannot be both set";
                return invalid(FieldError::invalid("propagationPolicy", &Value::from(policy), why));
            }
            (Some("Background"), _) | (None, Some(false)) => Some(Policy::Background),
            (Some("Foreground"), _) => Some(Policy::Foreground),
            (Some("Orphan"), _) | (None, Some(true)) => Some(Policy::Orphan),
            (None, None) => None,
            (Some(other), None) => {
                let known = ["Foreground", "Background", "Orphan", "nil"].map(Value::from);
                return invalid(FieldError::not_supported("propagationPolicy", &Value::from(other), &known));
            }
        };
        let in_query = call.query.integer("gracePeriodSeconds")?;
        Ok(Self {
            grace: options.get("gracePeriodSeconds").and_then(Value::as_i64).or(in_query),
            policy,
            uid: own("preconditions.uid"),
            resource_version: own("preconditions.resourceVersion"),
        })
    }

    fn check(&self, resource: &Resource, object: &Value) -> Result<()> {
        let compare = |what: &str, wanted: &Option<String>, found: &str, hint: &str| match wanted {
            Some(wanted) if wanted != found => {
                let why = format!(
                    "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). The \
                     object might have been {hint}"
                );
                Err(Failure::conflict(resource, object::name(object), &why))
            }
            _ => Ok(()),
        };
        compare("UID", &self.uid, object::uid(object), "deleted and then recreated")?;
        compare("ResourceVersion", &self.resource_version, object::resource_version(object), "modified")
    }
}

/// How far a deletion got.
pub(crate) enum Deletion {
    Gone(Arc<Value>),
    /// Marked; it goes when its grace is over, its finalizers are gone or its dependents are.
    Pending(Arc<Value>),
}

/// Deletes an object, or marks it as being deleted. `None` if it is not there.
pub(crate) fn begin(
    state: &mut State,
    id: ResourceId,
    key: &ObjectKey,
    options: &Options,
    now: Timestamp,
) -> Option<Deletion> {
    let old = state.get(id, key)?.clone();
    let behaviour = state.table().get(id).behaviour;
    let mut object = (*old).clone();
    let policy = options.policy.unwrap_or_else(|| {
        // An object may carry its policy as a finalizer from birth.
        let finalizers = object::finalizers(&old);
        if finalizers.contains(&FOREGROUND) {
            Policy::Foreground
        } else if finalizers.contains(&ORPHAN) {
            Policy::Orphan
        } else {
            Policy::Background
        }
    });
    // Orphaning is done at once, so its finalizer never has to wait for anything.
    object::retain_meta(&mut object, "finalizers", |entry| {
        entry.as_str() != Some(ORPHAN) && (entry.as_str() != Some(FOREGROUND) || policy == Policy::Foreground)
    });
    match policy {
        Policy::Orphan => gc::orphan(state, object::uid(&old)),
        Policy::Foreground => object::add_finalizer(&mut object, FOREGROUND),
        Policy::Background => {}
    }
    let mut grace = if behaviour == Behaviour::Pod { builtin::pod_grace(&old, options.grace) } else { 0 };
    if object::is_deleting(&old) {
        // A later request may only shorten the grace.
        grace = grace.min(object::grace(&old).unwrap_or(grace));
    }
    if object::grace(&old) != Some(grace) || !object::is_deleting(&old) {
        let end = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now);
        object::set_meta(&mut object, "deletionTimestamp", Some(Value::from(stamp(end))));
        object::set_meta(&mut object, "deletionGracePeriodSeconds", Some(Value::from(grace)));
        if let Some(generation) = object::at(&old, "metadata.generation").and_then(Value::as_i64) {
            object::set_meta(&mut object, "generation", Some(Value::from(generation + 1)));
        }
    }
    if behaviour == Behaviour::Namespace {
        object::map_mut(&mut object, "status").insert("phase".into(), Value::from("Terminating"));
        let marked = if object == *old { old } else { state.put(id, object) };
        gc::empty_namespace(state, &key.name, now);
        gc::finish_namespace(state, &key.name);
        return Some(Deletion::Pending(marked));
    }
    if grace == 0 && object::finalizers(&object).is_empty() {
        return state.remove(id, key).map(Deletion::Gone);
    }
    // Saying again what is known already is no change.
    Some(Deletion::Pending(if object == *old { old } else { state.put(id, object) }))
}

/// DELETE of one object.
pub(crate) fn one(state: &mut State, call: &Call<'_>, target: &Target, body: Body) -> Result<Reply> {
    let options = Options::parse(call, body)?;
    let resource = state.resource(target.id);
    let stored = read::fetch(state, target)?;
    options.check(&resource, &stored)?;
    if resource.behaviour == Behaviour::Namespace && builtin::IMMORTAL.contains(&object::name(&stored)) {
        return Err(Failure::forbidden(
            &resource,
            object::name(&stored),
            "this namespace may not be deleted",
        ));
    }
    let warnings = admit(call, target, &resource, &stored)?;
    let key = key_of(target);
    let done = begin(state, target.id, &key, &options, call.context.now)
        .ok_or_else(|| Failure::not_found(&resource, &key.name))?;
    let shown = match &done {
        Deletion::Gone(object) if !resource.returns_deleted => {
            Cow::Owned(status::deleted(&resource, &key.name, object::uid(object)))
        }
        Deletion::Gone(object) | Deletion::Pending(object) => {
            read::present(&resource, target.version, call.format()?, object, call)?
        }
    };
    Ok(Reply::Json { code: 200, body: shown.to_string().into_bytes(), warnings })
}

/// The eviction of a pod: its deletion, which nothing here keeps from being disrupted. The answer is no pod, as the
/// request is none.
pub(crate) fn evict(state: &mut State, call: &Call<'_>, target: &Target, body: Body) -> Result<Reply> {
    let Reply::Json { warnings, .. } = one(state, call, target, body)? else {
        return Err(Failure::internal("a deletion is answered with JSON"));
    };
    let done = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
    });
    Ok(Reply::Json { code: 201, body: done.to_string().into_bytes(), warnings })
}

/// DELETE of all objects that match; the answer lists them.
pub(crate) fn collection(state: &mut State, call: &Call<'_>, target: &Target, body: Body) -> Result<Reply> {
    let options = Options::parse(call, body)?;
    let resource = state.resource(target.id);
    if resource.behaviour == Behaviour::Namespace || resource.namespaced && target.namespace.is_none() {
        return Err(Failure::method_not_allowed());
    }
    let selector = read::selector(state, call, target)?;
    let found: Vec<(ObjectKey, Arc<Value>)> = state
        .objects(target.id, target.namespace.as_deref())
        .filter(|(_, object)| selector.matches(object))
        .map(|(key, object)| (key.clone(), Arc::clone(object)))
        .collect();
    let mut warnings = Vec::new();
    // All are judged before the first goes, so that a refusal changes nothing.
    for (_, object) in &found {
        warnings.extend(admit(call, target, &resource, object)?);
    }
    for (key, _) in &found {
        begin(state, target.id, key, &options, call.context.now);
    }
    let items = found
        .iter()
        .map(|(_, object)| read::in_version(&resource, target.version, object))
        .collect::<Result<Vec<_>>>()?;
    let metadata = serde_json::json!({ "resourceVersion": state.version().to_string() });
    let api_version = resource.versions[target.version].api_version();
    let body = read::list_body(&api_version, &resource.list_kind, &metadata, &items);
    Ok(Reply::Json { code: 200, body, warnings })
}

fn admit(call: &Call<'_>, target: &Target, resource: &Resource, stored: &Value) -> Result<Vec<String>> {
    let shown = read::in_version(resource, target.version, stored)?;
    let version = &resource.versions[target.version];
    let decision = call.context.admission.admit(&AdmissionRequest {
        operation: Operation::Delete,
        group: &version.group,
        version: &version.name,
        kind: &resource.kind,
        resource: &resource.plural,
        subresource: None,
        namespace: object::namespace(stored),
        name: object::name(stored),
        object: &shown,
        old_object: Some(&shown),
        dry_run: call.dry_run,
    });
    match decision {
        AdmissionDecision::Allow { warnings, .. } => Ok(warnings),
        AdmissionDecision::Deny { code, message } => Err(Failure::denied(code, message)),
    }
}

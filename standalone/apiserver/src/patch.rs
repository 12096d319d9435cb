//! JSON patch, JSON merge patch, and for built-in kinds strategic merge patch. Pure.

use json_patch::{AddOperation, Patch, PatchOperation, jsonptr::PointerBuf};
use serde_json::Value;

use crate::{
    handle::BODY_LIMIT,
    status::{Failure, Result},
    strategic,
    table::Resource,
};

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// Server-side apply: not a patch of what is there, but a configuration of its own.
pub(crate) const APPLY: &str = "application/apply-patch+yaml";

/// Operations one JSON patch may have, as in kube-apiserver.
const OPERATIONS: usize = 10_000;

/// Bytes of memory that the operations of one JSON patch may copy and move about. Copies of copies would double with each
/// operation; kube-apiserver's limit is as much text.
const CARRIED: usize = BODY_LIMIT;

/// Memory of a value besides its text.
const VALUE: usize = size_of::<Value>();

/// Levels of an object: as many as are read from a body. Operations could nest it as deep as they are many, and what walks
/// objects does so on the stack.
const LEVELS: usize = 128;

/// A patch of an object that is there.
#[derive(Debug)]
pub(crate) enum Change {
    /// Operations, one after the other.
    Operations(Patch),
    /// What the object shall have; null removes.
    Merge(Value),
    /// The same, where the elements of lists are told apart by their keys.
    Strategic(Value),
    /// Of a media type that is none of these.
    Unknown,
}

/// Reads the body of a PATCH of this media type.
pub(crate) fn read(content_type: &str, body: &[u8]) -> Result<Change> {
    Ok(match content_type {
        JSON => {
            let patch: Patch = serde_json::from_slice(body).map_err(|error| undecodable(&error))?;
            if patch.0.len() > OPERATIONS {
                return Err(Failure::too_large(OPERATIONS));
            }
            Change::Operations(patch)
        }
        MERGE => Change::Merge(read_map(body)?),
        STRATEGIC => Change::Strategic(read_map(body)?),
        _ => Change::Unknown,
    })
}

/// Refuses a patch of a media type that objects of this resource do not take.
pub(crate) fn check_type(resource: &Resource, content_type: &str) -> Result<()> {
    match content_type {
        JSON | MERGE => Ok(()),
        STRATEGIC if !resource.custom => Ok(()),
        _ => Err(Failure::unsupported_media_type(if resource.custom {
            &[JSON, MERGE, APPLY]
        } else {
            &[JSON, MERGE, STRATEGIC, APPLY]
        })),
    }
}

/// Applies a patch to an object in the version of the request. One of an unknown media type changes nothing.
pub(crate) fn apply(change: Change, object: &mut Value) -> Result<()> {
    match change {
        Change::Operations(patch) => {
            let mut left = CARRIED;
            for operation in &patch.0 {
                weigh(operation, object, &mut left)?;
                let operation = lenient(operation, object);
                json_patch::patch_unsafe(object, std::slice::from_ref(&operation))
                    .map_err(|error| Failure::patch_rejected(&error.to_string()))?;
            }
        }
        Change::Merge(patch) => json_patch::merge(object, &patch),
        Change::Strategic(patch) => strategic::merge(object, patch),
        Change::Unknown => {}
    }
    Ok(())
}

/// Takes what an operation carries about from what is left for it.
fn weigh(operation: &PatchOperation, object: &Value, left: &mut usize) -> Result<()> {
    let from = |path: &PointerBuf| object.pointer(path.as_str());
    let (source, carried, literal) = match operation {
        PatchOperation::Add(add) => (None, None, Some(&add.value)),
        PatchOperation::Replace(replace) => (None, None, Some(&replace.value)),
        PatchOperation::Move(operation) => (Some(&operation.from), from(&operation.from), None),
        PatchOperation::Copy(operation) => (Some(&operation.from), from(&operation.from), None),
        PatchOperation::Remove(_) => (None, None, None),
        PatchOperation::Test(_) => return Ok(()),
    };
    let target = operation.path();
    // What comes into a list, or goes, moves what stands behind it.
    for path in [Some(target), source.map(AsRef::as_ref)].into_iter().flatten() {
        if let Some(Value::Array(list)) =
            path.split_back().and_then(|(list, _)| object.pointer(list.as_str()))
        {
            *left = left.checked_sub(list.len()).ok_or_else(|| Failure::too_large(CARRIED))?;
        }
    }
    let levels = LEVELS.saturating_sub(target.count());
    if let Some(value) = literal {
        // It was in the body, which is bounded.
        carry(value, levels, &mut usize::MAX.clone())?;
    }
    carried.map_or(Ok(()), |value| carry(value, levels, left))
}

fn carry(value: &Value, levels: usize, left: &mut usize) -> Result<()> {
    let Some(levels) = levels.checked_sub(1) else {
        return Err(Failure::patch_rejected(&format!("an object has no more than {LEVELS} levels")));
    };
    let text = match value {
        Value::String(text) => text.len(),
        Value::Object(fields) => fields.keys().map(|key| VALUE + key.len()).sum(),
        _ => 0,
    };
    *left = left.checked_sub(VALUE + text).ok_or_else(|| Failure::too_large(CARRIED))?;
    match value {
        Value::Array(list) => list.iter().try_for_each(|value| carry(value, levels, left)),
        Value::Object(fields) => fields.values().try_for_each(|value| carry(value, levels, left)),
        _ => Ok(()),
    }
}

fn undecodable(error: &serde_json::Error) -> Failure {
    Failure::bad_request(format!("error decoding patch: {error}"))
}

fn read_map(body: &[u8]) -> Result<Value> {
    let patch: Value = serde_json::from_slice(body).map_err(|error| undecodable(&error))?;
    if patch.is_object() {
        Ok(patch)
    } else {
        Err(Failure::bad_request("error decoding patch: not a JSON object"))
    }
}

/// kube-apiserver accepts `replace` of a missing key, and Tekton's own clients rely on it.
fn lenient(operation: &PatchOperation, object: &Value) -> PatchOperation {
    if let PatchOperation::Replace(replace) = operation
        && object.pointer(replace.path.as_str()).is_none()
        && replace
            .path
            .split_back()
            .is_some_and(|(parent, _)| object.pointer(parent.as_str()).is_some_and(Value::is_object))
    {
        let path: PointerBuf = replace.path.clone();
        return PatchOperation::Add(AddOperation { path, value: replace.value.clone() });
    }
    operation.clone()
}

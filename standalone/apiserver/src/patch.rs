//! JSON patch, JSON merge patch, and for built-in kinds strategic merge patch. Pure.

use json_patch::{AddOperation, Patch, PatchOperation, jsonptr::PointerBuf};
use serde_json::Value;

use crate::{
    status::{Failure, Result},
    strategic,
    table::Resource,
};

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// Server-side apply: not a patch of what is there, but a configuration of its own.
pub(crate) const APPLY: &str = "application/apply-patch+yaml";

/// Operations one JSON patch may have, as in kube-apiserver: what they copy multiplies.
const OPERATIONS: usize = 10_000;

/// Applies the body of a PATCH to an object in the version of the request.
pub(crate) fn apply(resource: &Resource, content_type: &str, body: &[u8], object: &mut Value) -> Result<()> {
    match content_type {
        JSON => {
            let patch: Patch = serde_json::from_slice(body).map_err(|error| undecodable(&error))?;
            if patch.0.len() > OPERATIONS {
                return Err(Failure::too_large(OPERATIONS));
            }
            for operation in &patch.0 {
                let operation = lenient(operation, object);
                json_patch::patch_unsafe(object, std::slice::from_ref(&operation))
                    .map_err(|error| Failure::patch_rejected(&error.to_string()))?;
            }
            Ok(())
        }
        MERGE => {
            json_patch::merge(object, &read_map(body)?);
            Ok(())
        }
        STRATEGIC if !resource.custom => {
            strategic::merge(object, read_map(body)?);
            Ok(())
        }
        _ => Err(Failure::unsupported_media_type(if resource.custom {
            &[JSON, MERGE, APPLY]
        } else {
            &[JSON, MERGE, STRATEGIC, APPLY]
        })),
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

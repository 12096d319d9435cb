//! POST to a pod's `binding`, as a scheduler does it. Pure.

use serde_json::json;

use crate::{
    body::Body,
    handle::{Call, Reply},
    object, read,
    route::Target,
    scheduler,
    state::State,
    status::{Failure, FieldError, Result},
};

/// POST to a pod's `binding`: which node it runs on.
pub(crate) fn bind(state: &mut State, call: &Call<'_>, target: &Target, body: Body) -> Result<Reply> {
    let binding = body.object()?;
    let node = object::text(&binding, "target.name");
    let stored = read::fetch(state, target)?;
    let resource = state.resource(target.id);
    let name = object::name(&stored);
    if node.is_empty() {
        let error = FieldError::required("target.name", "");
        return Err(Failure::invalid(&resource, name, &[error]));
    }
    let bound = object::text(&stored, "spec.nodeName");
    if !bound.is_empty() {
        let why = format!("pod {name} is already assigned to node {bound:?}");
        return Err(Failure::conflict(&resource, name, &why));
    }
    state.put(target.id, scheduler::bound(&stored, node, call.context.now));
    let body =
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
    Ok(Reply::Json { code: 201, body: body.to_string().into_bytes(), warnings: Vec::new() })
}

//! Who an object's `managedFields` name for a write. Pure.

use http::header;
use serde_json::Value;

use crate::{
    handle::Call,
    status::{Failure, FieldError, Result},
};

/// Longest name of a field manager, as in kube-apiserver.
const MANAGER: usize = 128;

/// The field manager of a request: as it says, or the first part of its user agent.
pub(super) fn field_manager(call: &Call<'_>) -> Result<String> {
    let is_apply = super::applies(call);
    let options = match call.method.as_str() {
        "POST" => "CreateOptions",
        "PUT" => "UpdateOptions",
        _ => "PatchOptions",
    };
    let named = call.query.text("fieldManager");
    let fault = if is_apply && named.is_empty() {
        FieldError::required("fieldManager", "is required for apply patch")
    } else if named.len() > MANAGER {
        FieldError::too_long("fieldManager", &format!("may not be more than {MANAGER} bytes"))
    } else if named.chars().any(char::is_control) {
        FieldError::invalid("fieldManager", &Value::from(named), "should only contain printable characters")
    } else if !is_apply && call.query.get("force").is_some() {
        FieldError::forbidden("force", "may not be specified for non-apply patch")
    } else if named.is_empty() {
        let agent =
            call.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let prefix: String = agent.split('/').next().unwrap_or_default().chars().take(MANAGER).collect();
        return Ok(if prefix.is_empty() { "unknown".into() } else { prefix });
    } else {
        return Ok(named.to_owned());
    };
    Err(Failure::invalid_options(options, &[fault]))
}

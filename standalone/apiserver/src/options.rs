//! The options that writes of all kinds have in common: dry run, and what becomes of unknown fields. Pure.

use http::Method;
use serde_json::Value;

use crate::{
    body::Body,
    delete,
    route::{Query, Target},
    status::{Failure, FieldError, Result},
};

/// What `fieldValidation` may be, in the order in which a refusal tells it.
const VALIDATIONS: [&str; 4] = ["", "Ignore", "Strict", "Warn"];

/// Refuses options that no write has, all of them at once.
pub(crate) fn check(method: &Method, query: &Query) -> Result<()> {
    let kind = match *method {
        Method::POST => "CreateOptions",
        Method::PUT => "UpdateOptions",
        Method::PATCH => "PatchOptions",
        Method::DELETE => "DeleteOptions",
        _ => return Ok(()),
    };
    let mut faults = Vec::new();
    let dry_run = query.text("dryRun");
    if !["", "All"].contains(&dry_run) {
        let why = format!("Unsupported value: []string{{{dry_run:?}}}: supported values: \"All\"");
        faults.push(FieldError { field: "dryRun".into(), reason: "FieldValueNotSupported", message: why });
    }
    let validation = query.text("fieldValidation");
    if *method != Method::DELETE && !VALIDATIONS.contains(&validation) {
        let supported = VALIDATIONS.map(Value::from);
        faults.push(FieldError::not_supported("fieldValidation", &Value::from(validation), &supported));
    }
    if faults.is_empty() { Ok(()) } else { Err(Failure::invalid_options(kind, &faults)) }
}

/// Whether a request whose options were checked is to change nothing.
pub(crate) fn is_dry_run(method: &Method, query: &Query, target: &Target, body: &Body) -> Result<bool> {
    if query.text("dryRun") == "All" {
        return Ok(true);
    }
    if body.is_empty() {
        return Ok(false);
    }
    if *method == Method::DELETE {
        return Ok(delete::asks_for_dry_run(body.peek()?));
    }
    // An eviction says it in its options alone, as those of kubectl's drain do.
    let evicts = target.subresource.as_deref() == Some("eviction");
    Ok(evicts && body.peek()?.get("deleteOptions").is_some_and(delete::asks_for_dry_run))
}

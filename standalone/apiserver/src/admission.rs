//! The seam at which the webhook's functions judge and change what is written, and the server's own admission around
//! it: ranges of limits, quotas, pod security. Pure.

mod limit_range;
mod pod;
mod pod_security;
mod quota;

use serde_json::Value;

use crate::{
    state::State,
    status::Result,
    table::{Behaviour, Resource},
};

pub(crate) use limit_range::complete;
pub(crate) use quota::settle;

/// What the server fills in on an object before anybody judges it; `old` is what it was before, where it was there.
pub(crate) fn fill(state: &State, resource: &Resource, old: Option<&Value>, object: &mut Value) {
    if resource.behaviour != Behaviour::Pod {
        return;
    }
    if old.is_none() {
        limit_range::fill(state, object);
    }
    pod::fill(old, object);
}

/// What the server itself refuses of a valid object, and what it warns of; `old` is what it was before, where it was
/// there. The order is kube-apiserver's: what is not admitted for another reason takes nothing of a quota.
pub(crate) fn judge(
    state: &State,
    resource: &Resource,
    old: Option<&Value>,
    object: &Value,
) -> Result<Vec<String>> {
    limit_range::admit(state, resource, old, object)?;
    let warnings = pod_security::admit(state, resource, old, object)?;
    quota::admit(state, resource, old, object)?;
    Ok(warnings)
}

/// What is done to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A changed object, by PUT or PATCH.
    Update,
    /// A removal; the object is the one that goes.
    Delete,
}

/// One question to [`Admission`], with the fields of Kubernetes' `AdmissionRequest` that matter here.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionRequest<'a> {
    /// What is done to the object.
    pub operation: Operation,
    /// API group, empty for the core group.
    pub group: &'a str,
    /// API version of the request, for example `v1`.
    pub version: &'a str,
    /// Kind of the object, for example `TaskRun`.
    pub kind: &'a str,
    /// Plural resource name, for example `taskruns`.
    pub resource: &'a str,
    /// Subresource, where the request is for one. `/status` never gets here.
    pub subresource: Option<&'a str>,
    /// Namespace; empty for a cluster-scoped object.
    pub namespace: &'a str,
    /// Name; empty at a creation by `generateName`, whose name is made after admission.
    pub name: &'a str,
    /// The object as it would be stored, in the version of the request, pruned and defaulted.
    pub object: &'a Value,
    /// The object as it is now (update and delete).
    pub old_object: Option<&'a Value>,
    /// The request asked for `dryRun=All`.
    pub dry_run: bool,
}

/// The answer of [`Admission`].
#[derive(Clone, Debug, PartialEq)]
pub enum AdmissionDecision {
    /// Go on.
    Allow {
        /// The object to store in place of the one shown; ignored at a deletion.
        object: Option<Value>,
        /// Texts sent to the client as `Warning` headers.
        warnings: Vec<String>,
    },
    /// Refuse the request.
    Deny {
        /// HTTP status, for example 400 or 403.
        code: u16,
        /// The whole message of the `Status`, the "admission webhook ... denied the request" prefix included.
        message: String,
    },
}

impl AdmissionDecision {
    /// Allow without a change.
    pub fn allow() -> Self {
        Self::Allow { object: None, warnings: Vec::new() }
    }
}

/// Judges every create, update and delete, except on `/status`: mutating and validating webhooks in one.
///
/// Called after pruning and defaulting and before the checks of names and schema, as a mutating webhook is; what it
/// returns is pruned and defaulted again.
pub trait Admission {
    /// Judges one request.
    fn admit(&self, request: &AdmissionRequest<'_>) -> AdmissionDecision;
}

/// Lets everything through.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAdmission;

impl Admission for NoAdmission {
    fn admit(&self, _request: &AdmissionRequest<'_>) -> AdmissionDecision {
        AdmissionDecision::allow()
    }
}

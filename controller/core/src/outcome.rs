//! What the API server's answer to a write means, the same for every caller.

use crate::plan::{Resource, Write};

/// What to do after a write was answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It holds: made now, made before, or no longer needed.
    Done,
    /// An object of that name exists; it holds if that one has the same controller.
    CompareController,
    /// The object has changed since it was observed: observe again.
    Stale,
    /// Refused for good: the next plan has to say so.
    Refused,
    /// Not the user's doing: try again later.
    Transient,
}

impl Outcome {
    /// Judges an answer by its HTTP status and the `reason` and `message` of its Status object.
    pub fn of(write: &Write, code: u16, reason: &str, message: &str) -> Self {
        match (write, code) {
            (_, 200..=299) | (Write::Delete { .. } | Write::Patch { .. }, 404) => Self::Done,
            (Write::Create { .. }, 409) if reason == "AlreadyExists" => Self::CompareController,
            // Others use up the same quota at this moment; a run says so only of its pod (contract 5.11).
            (Write::Create { target, .. }, 409) if target.resource != Resource::Pod => Self::Stale,
            // The precondition names an incarnation that is gone.
            (Write::Delete { .. }, 409) => Self::Done,
            (Write::Patch { .. }, 409) => Self::Stale,
            // A child that is done takes no cancellation; the admission text is the only sign of it (contract 7.5).
            (Write::Patch { subresource: None, .. }, 400) if message.contains("no updates are allowed") => {
                Self::Done
            }
            (_, 500) if is_too_large(code, message) => Self::Refused,
            // 401: our own token, which is renewed.
            (_, 401 | 408 | 429 | 500..) => Self::Transient,
            (_, 400..=499) => Self::Refused,
            _ => Self::Transient,
        }
    }
}

/// etcd refuses what is larger than 1.5 MB, and its client what is larger than 2 MB. An API server passes both on as a
/// fault of its own, but the object does not become smaller.
pub(crate) fn is_too_large(code: u16, message: &str) -> bool {
    code == 413
        || message.contains("etcdserver: request is too large")
        || message.contains("trying to send message larger than max")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::Target;

    #[test]
    fn answers() {
        let target = Target { resource: Resource::TaskRun, namespace: "ns".into(), name: "run".into() };
        let create = Write::Create { target: target.clone(), object: json!({}) };
        let pod = Target { resource: Resource::Pod, ..target.clone() };
        let create_pod = Write::Create { target: pod, object: json!({}) };
        let quota = "Operation cannot be fulfilled on resourcequotas \"q\": the object has been modified";
        let patch = Write::Patch { target: target.clone(), subresource: None, patch: json!({}) };
        let status = Write::Patch { target: target.clone(), subresource: Some("status"), patch: json!({}) };
        let delete = Write::Delete { target, uid: None };
        for (write, code, reason, message, expected) in [
            (&create, 201, "", "", Outcome::Done),
            (&create, 409, "AlreadyExists", "", Outcome::CompareController),
            (&create, 409, "Conflict", quota, Outcome::Stale),
            (&create_pod, 409, "AlreadyExists", "", Outcome::CompareController),
            (&create_pod, 409, "Conflict", quota, Outcome::Refused),
            (&create, 403, "Forbidden", "exceeded quota", Outcome::Refused),
            (&create, 404, "NotFound", "namespaces \"x\" not found", Outcome::Refused),
            (&create, 401, "Unauthorized", "", Outcome::Transient),
            (&create, 503, "", "", Outcome::Transient),
            (&create, 500, "InternalError", "etcdserver: leader changed", Outcome::Transient),
            (&create, 500, "", "etcdserver: request is too large", Outcome::Refused),
            (
                &create,
                500,
                "",
                "rpc error: code = ResourceExhausted desc = trying to send message larger than max (2 vs. 1)",
                Outcome::Refused,
            ),
            (&status, 409, "Conflict", "", Outcome::Stale),
            (&status, 404, "NotFound", "", Outcome::Done),
            (
                &patch,
                400,
                "BadRequest",
                "Once the TaskRun is complete, no updates are allowed",
                Outcome::Done,
            ),
            (&patch, 400, "BadRequest", "must not set", Outcome::Refused),
            (&delete, 404, "NotFound", "", Outcome::Done),
            (&delete, 409, "Conflict", "", Outcome::Done),
            (&delete, 500, "", "", Outcome::Transient),
        ] {
            assert_eq!(Outcome::of(write, code, reason, message), expected, "{write:?} {code} {reason}");
        }
    }
}

//! Applies a plan: its writes in order, the status last. Decides nothing.

use kube::Client;
use kube::core::DynamicObject;
use ropewalk_core::outcome::Outcome;
use ropewalk_core::plan::{Plan, Write};
use ropewalk_core::snapshot::Refusal;
use serde_json::Value;

use crate::attempts::Attempts;
use crate::metrics::Metrics;
use crate::owners::controller_uid;
use crate::superseded::Superseded;

/// Why a plan could not be applied now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The world has moved on.
    #[error("\"{name}\" has changed since it was observed")]
    Stale { name: String },
    /// The API server did not take it, through no fault of the user's.
    #[error("cannot write \"{name}\"")]
    Transient { name: String, source: kube::Error },
    /// A request that cannot even be built: a defect of ours.
    #[error("cannot build the request for \"{name}\"")]
    Request { name: String, source: kube::core::request::Error },
}

/// Sends every write in order. Stops at the first that is refused for good and returns it: the caller plans again with
/// that knowledge.
pub(crate) async fn apply(
    client: &Client,
    plan: &Plan,
    attempts: &Attempts,
    superseded: &Superseded,
    metrics: &Metrics,
) -> Result<Option<Refusal>, Error> {
    for write in plan.writes.iter().chain(&plan.status) {
        attempts.note(write);
        if let Some(refusal) = send(client, write, superseded, metrics).await? {
            return Ok(Some(refusal));
        }
    }
    Ok(None)
}

async fn send(
    client: &Client,
    write: &Write,
    superseded: &Superseded,
    metrics: &Metrics,
) -> Result<Option<Refusal>, Error> {
    let target = write.target();
    let name = || target.name.clone();
    let (_, _, plural) = target.resource.names();
    let verb = match write {
        Write::Create { .. } => "create",
        Write::Patch { .. } => "patch",
        Write::Delete { .. } => "delete",
    };
    metrics.writes.with_label_values(&[plural, verb]).inc();
    let request = write.request().map_err(|source| Error::Request { name: name(), source })?;
    let error = match client.request_text(request).await {
        Err(error) => error,
        Ok(answer) => {
            if let Write::Patch { patch, .. } = write
                && let Some(version) = patch.pointer("/metadata/resourceVersion").and_then(Value::as_str)
            {
                superseded.note(version, &answer);
            }
            return Ok(None);
        }
    };
    let kube::Error::Api(status) = &error else {
        return Err(Error::Transient { name: name(), source: error });
    };
    let refusal = || Refusal {
        target: target.clone(),
        of_status: matches!(write, Write::Patch { subresource: Some(_), .. }),
        code: status.code,
        reason: status.reason.clone(),
        message: status.message.clone(),
    };
    match Outcome::of(write, status.code, &status.reason, &status.message) {
        Outcome::Done => Ok(None),
        Outcome::Stale => Err(Error::Stale { name: name() }),
        Outcome::Refused => Ok(Some(refusal())),
        Outcome::Transient => Err(Error::Transient { name: name(), source: error }),
        Outcome::CompareController => {
            let ours = has_our_controller(client, write).await?;
            Ok((!ours).then(refusal))
        }
    }
}

/// Whether the object that is there already has the controller that ours would have.
async fn has_our_controller(client: &Client, write: &Write) -> Result<bool, Error> {
    let Write::Create { target, object } = write else { return Ok(false) };
    let name = || target.name.clone();
    let request = target.read().map_err(|source| Error::Request { name: name(), source })?;
    match client.request::<DynamicObject>(request).await {
        Ok(there) => Ok(controller_uid(&there).is_some_and(|uid| {
            object.pointer("/metadata/ownerReferences/0/uid").is_some_and(|ours| ours == uid)
        })),
        // Gone between the two requests: the next round creates it.
        Err(kube::Error::Api(status)) if status.code == 404 => Err(Error::Stale { name: name() }),
        Err(source) => Err(Error::Transient { name: name(), source }),
    }
}

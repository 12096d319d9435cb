//! Writes statuses and events, and removes pods that ended: the only writes of a node.

use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Event, EventSource, ObjectReference, PersistentVolumeClaim, Pod, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use ropewalk_kubelet::machine::Severity;
use serde_json::json;
use tokio::sync::watch;

/// The wait before a refused write is tried again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest wait between two tries: an API server that comes back is told within seconds.
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// What the API server is to know of a pod.
#[derive(Clone, Debug, Default)]
pub(super) struct Latest {
    /// Its status, once there is something to say.
    pub(super) status: Option<PodStatus>,
    /// Whether it is to be removed: all its containers have ended.
    pub(super) removable: bool,
}

/// Writes the newest status the channel holds until the channel closes. A status that is overtaken while an
/// older one is being written is never written. A pod is removed by the same hand: whoever watches it has seen by then
/// how it ended.
pub(super) async fn statuses(client: Client, pod: Pod, mut latest: watch::Receiver<Latest>) {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let name = pod.name_any();
    let mut pause = FIRST_PAUSE;
    while latest.changed().await.is_ok() {
        loop {
            let Latest { status, removable } = latest.borrow_and_update().clone();
            let written = match status {
                Some(status) => {
                    let body = json!({"metadata": {"uid": pod.metadata.uid}, "status": status});
                    let (parameters, patch) = (PatchParams::default(), Patch::Merge(&body));
                    api.patch_status(&name, &parameters, &patch).await.map(drop)
                }
                None => Ok(()),
            };
            match written {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    if removable {
                        remove(&client, &pod).await;
                    }
                    break;
                }
                Err(error) if is_gone(&error) => break,
                Err(error) => {
                    tracing::warn!(pod = name, %error, "writing the status of a pod failed, trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LAST_PAUSE);
                }
            }
        }
    }
}

fn is_gone(error: &kube::Error) -> bool {
    // 409 only ever means another pod of the same name: the patch carries no version but the UID.
    matches!(error, kube::Error::Api(status) if status.code == 404 || status.code == 409)
}

/// Removes a pod whose containers have all ended.
async fn remove(client: &Client, pod: &Pod) {
    let api: Api<Pod> =
        Api::namespaced(client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
    let name = pod.name_any();
    let parameters = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
        ..DeleteParams::default()
    };
    let mut pause = FIRST_PAUSE;
    loop {
        match api.delete(&name, &parameters).await {
            Ok(_) => return,
            Err(error) if is_gone(&error) => return,
            Err(error) => {
                tracing::warn!(pod = name, %error, "removing an ended pod failed, trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
        }
    }
}

/// [`tell`]s what is wrong.
pub(super) async fn warn(client: &Client, pod: &Pod, reason: &str, message: &str) {
    tell(client, pod, Severity::Warning, reason, message).await;
}

/// Tells the user by an event. It is not tried again: what is wrong is in the status too.
pub(super) async fn tell(client: &Client, pod: &Pod, severity: Severity, reason: &str, message: &str) {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let now = jiff::Timestamp::now();
    let event = Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:x}", pod.name_any(), now.as_nanosecond())),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: pod.metadata.name.clone(),
            namespace: Some(namespace.clone()),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        },
        type_: Some(severity.as_str().to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        source: Some(EventSource { component: Some("kubelet".to_owned()), host: None }),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        ..Event::default()
    };
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    if let Err(error) = api.create(&PostParams::default(), &event).await {
        tracing::warn!(pod = pod.name_any(), %error, "an event could not be written");
    }
}

/// Marks a claim as bound to a directory of this node.
pub(super) async fn bind_claim(client: &Client, claim: &PersistentVolumeClaim) -> Result<(), kube::Error> {
    let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    if bound {
        return Ok(());
    }
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let spec = claim.spec.clone().unwrap_or_default();
    let capacity = spec.resources.and_then(|resources| resources.requests);
    let body = json!({"status": {
        "phase": "Bound", "accessModes": spec.access_modes, "capacity": capacity}});
    api.patch_status(&claim.name_any(), &PatchParams::default(), &Patch::Merge(&body)).await.map(drop)
}

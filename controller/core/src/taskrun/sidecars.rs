//! Starting steps once sidecars are ready, and stopping sidecars once the steps have ended (contract 5.4 and 5.7).

use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use ropewalk_api::{SidecarState, labels};
use serde_json::{Value, json};

use super::containers;

const STOPPED: &str = "Sidecar container successfully stopped by nop image";

/// The containers the first step waits for that are not ready yet; `None` when the pod has the controller's word.
pub(super) fn unready(pod: &Pod) -> Option<Vec<&str>> {
    let annotations = pod.metadata.annotations.as_ref();
    if annotations.is_some_and(|annotations| annotations.contains_key(labels::READY)) {
        return None;
    }
    let waits = |container: &containers::Seen<'_>| {
        !container.is_step()
            && container.terminated().is_none()
            && !container.status.is_some_and(|status| status.ready)
    };
    Some(containers::regular(pod).iter().filter(|c| waits(c)).map(|c| c.name).collect())
}

/// The patch that lets the first step start.
pub(super) fn ready_patch() -> Value {
    json!({ "metadata": { "annotations": { labels::READY: labels::READY_VALUE } } })
}

/// The patch that makes the containers which are neither steps nor ended run the image that exits at once; `None`
/// when there are none.
pub(super) fn stop_patch(pod: &Pod, nop_image: &str) -> Option<Value> {
    if containers::phase(pod) != "Running" || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let running: Vec<&str> = containers::regular(pod)
        .iter()
        .filter(|c| !c.is_step() && c.is_running() && c.image != nop_image)
        .map(|c| c.name)
        .collect();
    if running.is_empty() {
        return None;
    }
    let mut all = pod.spec.clone()?.containers;
    for container in all.iter_mut().filter(|container| running.contains(&container.name.as_str())) {
        container.image = Some(nop_image.to_owned());
    }
    // A merge patch replaces the whole list; with the resourceVersion it cannot undo what somebody else changed.
    let mut patch = json!({ "spec": { "containers": all } });
    if let Some(version) = &pod.metadata.resource_version {
        patch["metadata"] = json!({ "resourceVersion": version });
    }
    Some(patch)
}

/// Shows running sidecars as stopped, which they are about to be.
pub(super) fn mark_stopped(sidecars: &mut [SidecarState], now: &Time) {
    for sidecar in sidecars {
        let Some(running) = sidecar.running.take() else { continue };
        sidecar.terminated = Some(ContainerStateTerminated {
            exit_code: 0,
            reason: Some("Completed".to_owned()),
            message: Some(STOPPED.to_owned()),
            started_at: running.started_at,
            finished_at: Some(now.clone()),
            ..ContainerStateTerminated::default()
        });
    }
}

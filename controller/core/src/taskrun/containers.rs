//! What a pod's status says about its containers, in the order of the pod's spec.

use k8s_openapi::api::core::v1::{
    ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, Pod, PodCondition,
};

use crate::pod::{SIDECAR_PREFIX, STEP_PREFIX};

/// One container and what is known of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) name: &'a str,
    pub(super) image: &'a str,
    pub(super) status: Option<&'a ContainerStatus>,
}

impl<'a> Seen<'a> {
    pub(super) fn is_step(&self) -> bool {
        self.name.starts_with(STEP_PREFIX)
    }

    pub(super) fn is_sidecar(&self) -> bool {
        self.name.starts_with(SIDECAR_PREFIX)
    }

    pub(super) fn terminated(&self) -> Option<&'a ContainerStateTerminated> {
        self.status?.state.as_ref()?.terminated.as_ref()
    }

    pub(super) fn waiting(&self) -> Option<&'a ContainerStateWaiting> {
        self.status?.state.as_ref()?.waiting.as_ref()
    }

    pub(super) fn is_running(&self) -> bool {
        self.status.and_then(|status| status.state.as_ref()).is_some_and(|state| state.running.is_some())
    }

    pub(super) fn is_oom_killed(&self) -> bool {
        self.terminated().is_some_and(|terminated| terminated.reason.as_deref() == Some("OOMKilled"))
    }
}

/// The regular containers.
pub(super) fn regular(pod: &Pod) -> Vec<Seen<'_>> {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref());
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers.map(|container| see(container, statuses.unwrap_or_default())).collect()
}

/// The init containers.
pub(super) fn init(pod: &Pod) -> Vec<Seen<'_>> {
    let statuses = pod.status.as_ref().and_then(|status| status.init_container_statuses.as_deref());
    let containers = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    containers.map(|container| see(container, statuses.unwrap_or_default())).collect()
}

fn see<'a>(
    container: &'a k8s_openapi::api::core::v1::Container,
    statuses: &'a [ContainerStatus],
) -> Seen<'a> {
    Seen {
        name: &container.name,
        image: container.image.as_deref().unwrap_or_default(),
        status: statuses.iter().find(|status| status.name == container.name),
    }
}

/// The pod's phase; empty before a kubelet has seen it.
pub(super) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The pod's conditions.
pub(super) fn conditions(pod: &Pod) -> &[PodCondition] {
    pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

/// Every step has ended, or the pod has, or a step ran out of memory (contract 5.11: that ends a run at once).
pub(super) fn is_complete(pod: &Pod) -> bool {
    let containers = regular(pod);
    let mut steps = containers.iter().filter(|container| container.is_step()).peekable();
    matches!(phase(pod), "Succeeded" | "Failed")
        || containers.iter().any(|container| container.is_step() && container.is_oom_killed())
        || (steps.peek().is_some() && steps.all(|step| step.terminated().is_some()))
}

/// Whether any step's container has ever run. One that the node gave up on before that has no start time.
pub(super) fn has_started(pod: &Pod) -> bool {
    regular(pod).iter().filter(|container| container.is_step()).any(|step| {
        step.is_running() || step.terminated().is_some_and(|terminated| terminated.started_at.is_some())
    })
}

/// Whether the pod ended because its node could not keep it or somebody deleted it, not because of what it ran. A node
/// that ends a pod says so before it is gone.
pub(super) fn is_lost(pod: &Pod) -> bool {
    let reason = pod.status.as_ref().and_then(|status| status.reason.as_deref()).unwrap_or_default();
    phase(pod) == "Failed"
        && (pod.metadata.deletion_timestamp.is_some()
            || matches!(
                reason,
                "Evicted"
                    | "Preempting"
                    | "NodeLost"
                    | "NodeShutdown"
                    | "Terminated"
                    | "UnexpectedAdmissionError"
            )
            || reason.starts_with("OutOf")
            || conditions(pod)
                .iter()
                .any(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True"))
}

//! What holds a pod up, and whether that is for good (contract 5.11).

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::containers::{self, Seen};
use super::reason;
use crate::pod::{SIDECAR_PREFIX, STEP_PREFIX};

/// How long a pod may be starting before what the scheduler and the node say of it is told. Every healthy pod passes
/// through a few such states within this time, and each would be a write nobody reads.
pub(super) const QUIET: Duration = Duration::from_secs(5);

/// How long a pod may be starting without a word from anybody before the run's status says how far it is: busy nodes
/// take this long, and tell nothing but that they are at it.
const SLOW: Duration = Duration::from_secs(30);

/// A container that will not start, as the reason and message of the run's failure.
pub(super) fn fatal(pod: &Pod, run: &str) -> Option<(&'static str, String)> {
    let config_error = || (reason::CONFIG_ERROR, "Failed to create pod due to config error".to_owned());
    let init = containers::init(pod);
    let mut waiting_in_init = init.iter().filter_map(Seen::waiting);
    if waiting_in_init.any(|waiting| waiting.reason.as_deref() == Some("CreateContainerConfigError")) {
        return Some(config_error());
    }
    containers::regular(pod).iter().filter(|c| c.is_step() || c.is_sidecar()).find_map(|container| {
        let waiting = container.waiting()?;
        let message = waiting.message.as_deref().unwrap_or_default();
        let (kind, name) = kind_and_name(container);
        let failed_to_start = || {
            format!(
                "the {kind} \"{name}\" in TaskRun \"{run}\" failed to start. The pod errored with the message: \
                 \"{message}.\""
            )
        };
        match waiting.reason.as_deref()? {
            "ImagePullBackOff" | "InvalidImageName" => {
                let image = container.status.map(|status| status.image_id.as_str()).unwrap_or_default();
                Some((
                    reason::IMAGE_PULL_FAILED,
                    format!(
                        "the {kind} \"{name}\" in TaskRun \"{run}\" failed to pull the image \"{image}\". The pod \
                         errored with the message: \"{message}.\""
                    ),
                ))
            }
            "CreateContainerConfigError" if is_subpath_race(message) => None,
            "CreateContainerConfigError" => Some(config_error()),
            "CreateContainerError" => Some((reason::POD_CREATION_FAILED, failed_to_start())),
            _ => None,
        }
    })
}

/// The kubelet makes the directory of a subPath while it starts the container; two pods may race for it.
fn is_subpath_race(message: &str) -> bool {
    message.contains("failed to create subPath directory")
}

fn kind_and_name<'a>(container: &Seen<'a>) -> (&'static str, &'a str) {
    match container.name.strip_prefix(SIDECAR_PREFIX) {
        Some(name) => ("sidecar", name),
        None => ("step", container.name.strip_prefix(STEP_PREFIX).unwrap_or(container.name)),
    }
}

/// In the scheduler's words: what a pod with a new claim waits for until the claim is bound, a moment as a rule.
const BINDING: &str = "unbound immediate PersistentVolumeClaims";

/// The reason and message of a run whose pod has not started; `None` while the pod is merely on its way. `told` when the
/// run says already how far it is, or somebody says more than the pod does.
pub(super) fn explain(pod: &Pod, now: Timestamp, told: bool) -> Option<(&'static str, String)> {
    let unschedulable = containers::conditions(pod)
        .iter()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(condition) = unschedulable
        && condition.message.as_deref().is_some_and(|message| message.contains("Insufficient"))
    {
        return Some((
            reason::EXCEEDED_NODE_RESOURCES,
            "TaskRun Pod exceeded available resources".to_owned(),
        ));
    }
    let all: Vec<Seen<'_>> = containers::init(pod).into_iter().chain(containers::regular(pod)).collect();
    let reasons = || all.iter().filter_map(|container| container.waiting()?.reason.as_deref());
    let message = message(pod, &all);
    if all.iter().filter_map(Seen::waiting).any(|waiting| {
        waiting.reason.as_deref() == Some("CreateContainerConfigError")
            && is_subpath_race(waiting.message.as_deref().unwrap_or_default())
    }) {
        let text = "Waiting for subPath directory creation to complete";
        return Some((reason::PENDING, text.to_owned()));
    }
    if reasons().any(is_image_trouble) {
        return Some((reason::PULL_IMAGE_FAILED, message));
    }
    let said = told
        || all
            .iter()
            .filter_map(Seen::waiting)
            .any(|waiting| waiting.message.as_deref().is_some_and(|message| !message.is_empty()));
    let stuck = unschedulable
        .is_some_and(|condition| !condition.message.as_deref().unwrap_or_default().contains(BINDING));
    (said || stuck || slow_from(pod) <= now).then_some((reason::PENDING, message))
}

/// When what others say of a pod that is still on its way becomes worth a word.
pub(super) fn quiet_until(pod: &Pod) -> Timestamp {
    after(pod, QUIET)
}

/// When it is worth a word that a pod is still on its way.
pub(super) fn slow_from(pod: &Pod) -> Timestamp {
    after(pod, SLOW)
}

fn after(pod: &Pod, time: Duration) -> Timestamp {
    let created = pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    created.saturating_add(time).unwrap_or(Timestamp::MAX)
}

fn is_image_trouble(reason: &str) -> bool {
    matches!(
        reason,
        "ImagePullBackOff"
            | "ImageInspectError"
            | "ErrImagePull"
            | "ErrImageNeverPull"
            | "RegistryUnavailable"
            | "InvalidImageName"
    )
}

fn message(pod: &Pod, all: &[Seen<'_>]) -> String {
    let waiting = all.iter().find_map(|container| {
        let message = container.waiting()?.message.as_deref().filter(|message| !message.is_empty())?;
        Some(format!("build step \"{}\" is pending with reason \"{message}\"", container.name))
    });
    let condition = || {
        let condition = containers::conditions(pod).iter().find(|condition| condition.status != "True")?;
        Some(format!(
            "pod status \"{}\":\"{}\"; message: \"{}\"",
            condition.type_,
            condition.status,
            condition.message.as_deref().unwrap_or_default()
        ))
    };
    let pod_message = || {
        let message = pod.status.as_ref()?.message.clone()?;
        (!message.is_empty()).then_some(message)
    };
    waiting.or_else(condition).or_else(pod_message).unwrap_or_else(|| "Pending".to_owned())
}

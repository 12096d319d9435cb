//! What keeps a TaskRun's pod from starting, and why one that failed never ran: the text of the diagnosis.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use ropewalk_entrypoint_protocol::termination::Termination;
use serde_json::Value;

use super::{PodWarning, containers};
use crate::diagnosis::quoted;
use crate::pod::missing_secrets_key;

/// Causes told at once: the first are what to look at.
const MAX_CAUSES: usize = 6;

/// What keeps a pod from starting: the scheduler's words, those of containers that wait, those of the node's events,
/// and names in the pod that cannot be meant. Of a `young` pod the scheduler's and the node's words are left out: a
/// healthy one may wait a moment for its claims to be bound, or for a node to have heard of a ConfigMap.
pub(super) fn of(pod: &Pod, warnings: &[PodWarning], young: bool) -> Option<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let warnings = if young { &[] } else { warnings };
    let unscheduled = containers::conditions(pod)
        .iter()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False" && !young)
        .and_then(|condition| {
            let message = condition.message.as_deref().filter(|message| !message.is_empty())?;
            let reason = condition.reason.as_deref().unwrap_or("Unschedulable");
            Some(format!("pod \"{name}\" has no node: {reason}: {}", quoted(message)))
        });
    let mut parts: Vec<String> = unscheduled.into_iter().collect();
    parts.extend(containers::init(pod).iter().chain(&containers::regular(pod)).filter_map(|container| {
        let waiting = container.waiting()?;
        let message = waiting.message.as_deref().filter(|message| !message.is_empty())?;
        let reason = waiting.reason.as_deref().unwrap_or("Waiting");
        Some(format!("container \"{}\" cannot start: {reason}: {}", container.name, quoted(message)))
    }));
    // In an order of their own: a process that starts hears them in another.
    let mut warnings: Vec<&PodWarning> = warnings.iter().filter(|warning| warning.holds(pod)).collect();
    warnings.sort_by_key(|warning| warning.subject());
    for warning in warnings {
        // A container's status and an event often say the same.
        if !parts.iter().any(|part| part.contains(warning.cause())) {
            parts.push(format!("pod \"{name}\": {}: {}", warning.reason, warning.message));
        }
    }
    parts.extend(blank_names(pod));
    joined(parts)
}

fn joined(mut parts: Vec<String>) -> Option<String> {
    if parts.len() > MAX_CAUSES {
        parts.truncate(MAX_CAUSES);
        parts.push("and more".to_owned());
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Why a pod failed, other than by what its containers ran: somebody deleted it, the entrypoint could not start something,
/// the runtime could not make a container. Never a container's own words: those may be anything, secrets too.
pub(super) fn of_failure(pod: &Pod) -> Option<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let deleted = was_deleted(pod).then(|| {
        format!("pod \"{name}\" was deleted before its steps had ended, as when its node is drained")
    });
    let init = containers::init(pod);
    let regular = containers::regular(pod);
    let parts = deleted
        .into_iter()
        .chain(init.iter().chain(&regular).filter_map(|container| {
            let terminated = container.terminated().filter(|terminated| terminated.exit_code != 0)?;
            let message = terminated.message.as_deref().filter(|message| !message.is_empty())?;
            let text = match terminated.reason.as_deref() {
                Some("ContainerCannotRun" | "StartError") => message.to_owned(),
                _ => Termination::parse(message).ok()?.failure?,
            };
            Some(format!("container \"{}\": {}", container.name, quoted(&text)))
        }))
        .chain(without_secrets(pod))
        .collect();
    joined(parts)
}

/// Credentials that its steps may have missed.
fn without_secrets(pod: &Pod) -> Option<String> {
    let missing = pod.metadata.annotations.as_ref()?.get(&missing_secrets_key())?;
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or_default();
    Some(format!("service account \"{account}\" names secrets that did not exist: {}", quoted(missing)))
}

/// Whether a step was still to end when somebody asked for the pod's deletion: its timestamp is the end of its grace.
fn was_deleted(pod: &Pod) -> bool {
    let Some(gone_by) = &pod.metadata.deletion_timestamp else { return false };
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
    let asked = gone_by.0.saturating_sub(SignedDuration::from_secs(grace)).unwrap_or(Timestamp::MIN);
    containers::regular(pod).iter().filter(|container| container.is_step()).any(|step| {
        let ended = step.terminated().and_then(|terminated| terminated.finished_at.as_ref());
        ended.is_none_or(|ended| ended.0 >= asked)
    })
}

/// Names of ConfigMaps, Secrets and claims that begin or end with a blank: nothing of that name can exist.
fn blank_names(pod: &Pod) -> Vec<String> {
    let mut found = Vec::new();
    collect(&serde_json::to_value(&pod.spec).unwrap_or_default(), &mut found);
    found
}

fn collect(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Object(fields) => {
            for (key, value) in fields {
                if let Some((kind, name)) = named(key, value)
                    && name.trim() != name
                {
                    let text =
                        format!("{kind} name \"{name}\" begins or ends with a blank, and no {kind} can");
                    if !found.contains(&text) {
                        found.push(text);
                    }
                }
                collect(value, found);
            }
        }
        _ => {}
    }
}

fn named<'a>(key: &str, value: &'a Value) -> Option<(&'static str, &'a str)> {
    let (kind, field) = match key {
        "configMap" | "configMapRef" | "configMapKeyRef" => ("ConfigMap", "name"),
        "secretRef" | "secretKeyRef" => ("Secret", "name"),
        "secret" => ("Secret", "secretName"),
        "persistentVolumeClaim" => ("PersistentVolumeClaim", "claimName"),
        _ => return None,
    };
    Some((kind, value.get(field)?.as_str()?))
}

//! What there is to say beyond the contract's message, in a condition of our own.

use k8s_openapi::api::core::v1::Pod;
use ropewalk_entrypoint_protocol::termination::Termination;
use serde_json::Value;

use super::containers;

/// The type of the condition; its status is `Unknown` while the run waits and `False` once it has failed.
pub(super) const TYPE: &str = "ropewalk.dev/Diagnosis";

/// The words of containers that wait, and names in the pod that cannot be meant.
pub(super) fn of(pod: &Pod) -> Option<String> {
    let mut parts: Vec<String> = containers::init(pod)
        .iter()
        .chain(&containers::regular(pod))
        .filter_map(|container| {
            let waiting = container.waiting()?;
            let message = waiting.message.as_deref().filter(|message| !message.is_empty())?;
            let reason = waiting.reason.as_deref().unwrap_or("Waiting");
            Some(format!("container \"{}\" cannot start: {reason}: {message}", container.name))
        })
        .collect();
    parts.extend(blank_names(pod));
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Why containers of a failed pod never ran what they should have: what the entrypoint could not start, and what the
/// runtime says of a container it could not make. Never a container's own words: those may be anything, secrets too.
pub(super) fn of_failure(pod: &Pod) -> Option<String> {
    let parts: Vec<String> = containers::init(pod)
        .iter()
        .chain(&containers::regular(pod))
        .filter_map(|container| {
            let terminated = container.terminated().filter(|terminated| terminated.exit_code != 0)?;
            let message = terminated.message.as_deref().filter(|message| !message.is_empty())?;
            let text = match terminated.reason.as_deref() {
                Some("ContainerCannotRun" | "StartError") => message.to_owned(),
                _ => Termination::parse(message).ok()?.failure?,
            };
            Some(format!("container \"{}\": {text}", container.name))
        })
        .collect();
    (!parts.is_empty()).then(|| parts.join("; "))
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

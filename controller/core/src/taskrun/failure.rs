//! Why a pod failed: the one container to blame (contract 6 and 12.7).

use k8s_openapi::api::core::v1::Pod;
use ropewalk_entrypoint_protocol::termination::{REASON_TIMEOUT_EXCEEDED, Termination};

use super::containers::{self, Seen};
use super::reason;

/// Begins the message when the culprit is an init container.
const INIT: &str = "init container failed, ";

/// Containers to look through, what to look for, and the reason and beginning of the message if it is found.
type Class<'a> = (&'a [Seen<'a>], fn(&Seen<'_>) -> bool, &'static str, &'static str);

/// Whether a complete pod counts as failed: its phase says so, or a step ended badly.
pub(super) fn is_failed(pod: &Pod) -> bool {
    containers::phase(pod) == "Failed"
        || containers::regular(pod)
            .iter()
            .any(|container| container.is_step() && (has_failed(container) || container.is_oom_killed()))
}

/// The reason and message of a failed pod. Both describe the same container: the first, in pod order, of the gravest
/// class; running out of memory is graver than any exit code, and a sidecar is blamed before the steps it serves.
pub(super) fn explain(pod: &Pod) -> (&'static str, String) {
    let status = pod.status.as_ref();
    let pod_message = status.and_then(|status| status.message.clone()).unwrap_or_default();
    if status.and_then(|status| status.reason.as_deref()) == Some("Evicted") {
        return (reason::POD_EVICTED, pod_message);
    }
    let init = containers::init(pod);
    let regular = containers::regular(pod);
    let classes: [Class<'_>; 8] = [
        (&init, |c| c.is_sidecar() && c.is_oom_killed(), "SidecarOOM", INIT),
        (&init, |c| !c.is_sidecar() && c.is_oom_killed(), "InitContainerOOM", INIT),
        (&init, |c| c.is_sidecar() && has_failed(c), "SidecarFailed", INIT),
        (&init, |c| !c.is_sidecar() && has_failed(c), "InitContainerFailed", INIT),
        (&regular, |c| c.is_sidecar() && c.is_oom_killed(), "SidecarOOM", ""),
        (&regular, |c| c.is_step() && c.is_oom_killed(), "StepOOM", ""),
        (&regular, |c| c.is_sidecar() && has_failed(c), "SidecarFailed", ""),
        (&regular, |c| c.is_step() && has_failed(c), "StepFailed", ""),
    ];
    for (group, matches, reason, prefix) in classes {
        if let Some(culprit) = group.iter().find(|container| matches(container)) {
            return (reason, format!("{prefix}{}", how_it_ended(culprit)));
        }
    }
    let message =
        if pod_message.is_empty() { "build failed for unspecified reasons.".to_owned() } else { pod_message };
    (reason::FAILED, message)
}

fn has_failed(container: &Seen<'_>) -> bool {
    container.terminated().is_some_and(|terminated| terminated.exit_code != 0)
}

fn how_it_ended(container: &Seen<'_>) -> String {
    let name = container.name;
    let Some(terminated) = container.terminated() else { return format!("\"{name}\" has not ended") };
    let words = Termination::parse(terminated.message.as_deref().unwrap_or_default()).unwrap_or_default();
    if words.reason.as_deref() == Some(REASON_TIMEOUT_EXCEEDED) {
        return format!("\"{name}\" exited because the step exceeded the specified timeout limit");
    }
    let code = terminated.exit_code;
    match terminated.reason.as_deref() {
        None | Some("") => format!("\"{name}\" exited with code {code}"),
        Some(reason) => format!("\"{name}\" exited with code {code}: {reason}"),
    }
}

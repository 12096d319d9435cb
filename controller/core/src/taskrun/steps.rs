//! `status.steps` and `status.sidecars` from a pod (contract 5.6 and 6).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use ropewalk_api::names::step_container;
use ropewalk_api::{ParamValue, SidecarState, Step, StepState, TaskRunResult, TaskSpec};
use ropewalk_entrypoint_protocol::termination::{ResultType, Termination};

use super::containers::{self, Seen};
use crate::pod::{SIDECAR_PREFIX, STEP_PREFIX};

/// The steps the pod has a status for, in its order.
pub(super) fn states(pod: &Pod, spec: Option<&TaskSpec>) -> Vec<StepState> {
    let declared = spec.map(|spec| spec.steps.as_slice()).unwrap_or_default();
    containers::regular(pod)
        .iter()
        .filter(|container| container.is_step() && container.status.is_some())
        .map(|container| state(container, declared))
        .collect()
}

fn state(seen: &Seen<'_>, declared: &[Step]) -> StepState {
    let status = seen.status;
    let container_state = status.and_then(|status| status.state.clone()).unwrap_or_default();
    let mut step = StepState {
        name: seen.name.strip_prefix(STEP_PREFIX).unwrap_or(seen.name).to_owned(),
        container: seen.name.to_owned(),
        image_id: status.map(|status| status.image_id.clone()).unwrap_or_default(),
        waiting: container_state.waiting,
        running: container_state.running,
        ..StepState::default()
    };
    let Some(mut terminated) = container_state.terminated else { return step };
    let message = terminated.message.take().unwrap_or_default();
    if let Ok(termination) = Termination::parse(&message) {
        step.termination_reason = if message.is_empty() {
            String::new()
        } else if let Some(reason) = &termination.reason {
            reason.clone()
        } else if termination.exit_code.is_some() {
            "Continued".to_owned()
        } else {
            terminated.reason.clone().unwrap_or_default()
        };
        step.results = results(seen, &termination, declared);
        apply(&termination, &mut terminated);
    } else {
        // Somebody else's words: shown as they are.
        step.termination_reason = terminated.reason.clone().unwrap_or_default();
        terminated.message = Some(message);
    }
    step.terminated = Some(terminated);
    step
}

/// What the entrypoint knows better than the kubelet: when the command itself started, and the exit code it hid.
fn apply(termination: &Termination, terminated: &mut ContainerStateTerminated) {
    let message = termination.message();
    terminated.message = (!message.is_empty()).then_some(message);
    let started = termination.started_at.as_ref().and_then(|text| text.parse::<Timestamp>().ok());
    if let Some(started) = started {
        terminated.started_at = Some(Time(started));
    }
    if let Some(code) = termination.exit_code {
        terminated.exit_code = code;
    }
}

fn results(seen: &Seen<'_>, termination: &Termination, declared: &[Step]) -> Vec<TaskRunResult> {
    let step = declared
        .iter()
        .enumerate()
        .find(|(index, step)| step_container(&step.name, *index) == seen.name)
        .map(|(_, step)| step);
    let Some(step) = step else { return Vec::new() };
    termination
        .results
        .iter()
        .filter(|result| result.result_type == ResultType::Step)
        .filter_map(|raw| {
            let declared = step.results.iter().find(|declared| declared.name == raw.key)?;
            // An untyped result has the type of its content; only a declared string is kept byte for byte.
            let value = match declared.result_type.as_deref() {
                Some("string") => ParamValue::String(raw.value.clone()),
                _ => ParamValue::decode(&raw.value),
            };
            Some(TaskRunResult {
                name: raw.key.clone(),
                result_type: Some(value.kind().as_str().to_owned()),
                value,
            })
        })
        .collect()
}

/// The sidecars the pod has a status for, in its order.
pub(super) fn sidecar_states(pod: &Pod) -> Vec<SidecarState> {
    containers::regular(pod)
        .iter()
        .filter(|container| container.is_sidecar())
        .filter_map(|container| {
            let status = container.status?;
            let state = status.state.clone().unwrap_or_default();
            Some(SidecarState {
                name: container.name.strip_prefix(SIDECAR_PREFIX).unwrap_or(container.name).to_owned(),
                container: container.name.to_owned(),
                image_id: status.image_id.clone(),
                waiting: state.waiting,
                running: state.running,
                terminated: state.terminated,
            })
        })
        .collect()
}

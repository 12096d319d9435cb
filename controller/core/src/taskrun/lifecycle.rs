//! The life of a TaskRun, one decision at a time (contract 5.11, 6, 12.7 and 12.8).

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use ropewalk_api::conditions::ConditionStatus;
use ropewalk_api::config::{ApiFields, FeatureFlags};
use ropewalk_api::{Artifacts, Provenance, ROPEWALK_GROUP, TaskRun, conditions, labels, taskrun_spec_status};
use serde_json::{Value, json};

use super::draft::Draft;
use super::resolve::{self, Failure, Resolved};
use super::{
    Snapshot, containers, diagnosis, failure, reason, results, sidecars, steps, waiting, wants_task,
};
use crate::plan::{Plan, Resource};
use crate::pod;
use crate::snapshot::{Lookup, Refusal};

/// A pod of ours that the cache does not show may only be late. Creating it again would do no harm, but would count
/// as a lost pod.
const CACHE_LAG: Duration = Duration::from_secs(5);
/// Pods lost before any step started are made again this often: a node going down takes one or two, a cluster that
/// loses more is not going to keep the next.
const MAX_RECREATIONS: u32 = 3;
/// A quota is looked at again after this long.
const QUOTA_RETRY: Duration = Duration::from_mins(1);
/// Two writers of one quota object: over in a moment.
const QUOTA_CONFLICT_RETRY: Duration = Duration::from_secs(1);
/// Somebody else's pod of our name: a person has to remove it.
const NAME_TAKEN_RETRY: Duration = Duration::from_secs(10);

/// The annotation in the status that counts lost pods.
pub(super) fn recreations_key() -> String {
    format!("{ROPEWALK_GROUP}/pod-recreations")
}

/// The annotation on a run that allows steps to run again after their pod was lost: `true`.
fn rerun_key() -> String {
    format!("{ROPEWALK_GROUP}/rerun-lost-steps")
}

pub(super) fn plan(snapshot: &Snapshot) -> Plan {
    let run = &snapshot.run;
    let manager = run.spec.managed_by.as_deref().unwrap_or_default();
    let ours = manager.is_empty() || manager == snapshot.settings.managed_by;
    if !ours || run.metadata.deletion_timestamp.is_some() {
        return Plan::default();
    }
    let mut draft = Draft::new(snapshot);
    if conditions::is_done(&draft.status.conditions) {
        if let Some(pod) = draft.pod() {
            stop_sidecars(&mut draft, pod);
        }
    } else {
        decide(&mut draft);
    }
    draft.into_plan()
}

fn decide(draft: &mut Draft<'_>) {
    let run = &draft.snapshot.run;
    let name = draft.run_name();
    match run.spec.status.as_str() {
        taskrun_spec_status::PENDING => {
            draft.going_on(reason::TASK_RUN_PENDING, &format!("TaskRun \"{name}\" is pending"));
            return;
        }
        taskrun_spec_status::CANCELLED => {
            let message = format!("TaskRun \"{name}\" was cancelled. {}", run.spec.status_message);
            draft.start();
            stop(draft, reason::CANCELLED, message);
            return;
        }
        _ => {}
    }
    if let Some(until) = held_back(draft) {
        draft.look_at(until);
        draft.wait(name, "the pod was refused, to be tried again");
        return;
    }
    let pod = draft.pod();
    let timeout = pod::timeout(run, &draft.snapshot.config);
    let deadline = draft
        .status
        .start_time
        .as_ref()
        .filter(|_| !timeout.is_zero())
        .map(|start| start.0.saturating_add(timeout.as_std()).unwrap_or(Timestamp::MAX));
    let complete = pod.is_some_and(containers::is_complete);
    if !complete && deadline.is_some_and(|deadline| deadline <= draft.snapshot.now) {
        stop(draft, reason::TIMED_OUT, format!("TaskRun \"{name}\" failed to finish within \"{timeout}\""));
        return;
    }
    match pod {
        Some(pod) if containers::is_lost(pod) && !containers::has_started(pod) => {
            draft.wait(name, "the pod was lost before any step started, and is being removed");
            draft.delete(pod);
        }
        Some(pod) => observe(draft, pod),
        None if draft.status.pod_name.is_empty() => create(draft),
        None => replace(draft),
    }
    let started = draft.status.start_time.as_ref().filter(|_| !timeout.is_zero()).map(|time| time.0);
    if let Some(started) = started
        && !conditions::is_done(&draft.status.conditions)
    {
        draft.look_at(started.saturating_add(timeout.as_std()).unwrap_or(Timestamp::MAX));
    }
}

/// Until when a refused pod is not tried again. Every write of the status wakes the run up; that must not hammer a
/// quota.
fn held_back(draft: &Draft<'_>) -> Option<Timestamp> {
    let condition = draft.condition()?;
    if draft.status.start_time.is_some() || !draft.snapshot.refusals.is_empty() {
        return None;
    }
    let pause = match condition.reason.as_str() {
        reason::EXCEEDED_RESOURCE_QUOTA => QUOTA_RETRY,
        reason::PENDING => QUOTA_CONFLICT_RETRY,
        _ => return None,
    };
    let until = condition.last_transition_time.as_ref()?.0.saturating_add(pause).ok()?;
    (until > draft.snapshot.now).then_some(until)
}

/// The first pod of an attempt, or one in the place of a lost pod.
fn create(draft: &mut Draft<'_>) {
    let snapshot = draft.snapshot;
    let run = &snapshot.run;
    let Some(resolved) = resolve(draft) else { return };
    let adopted = resolved.adopt(run);
    if let Some(patch) = metadata_patch(run, &adopted)
        && Refusal::of(&snapshot.refusals, Resource::TaskRun, draft.run_name()).is_none()
    {
        // It makes the run newer than this snapshot, so everything else waits for the next one.
        let name = draft.run_name();
        draft.patch(Resource::TaskRun, name, patch);
        return;
    }
    let built = pod::build(&adopted, &resolved, &snapshot.config, &snapshot.settings);
    let workspaces = resolved.workspaces.clone();
    store(draft, resolved);
    let pod = match built {
        Ok(pod) => pod,
        Err(error) => {
            let message = creation_failed(run, &format!("translating TaskSpec to Pod: {error}"));
            draft.fail(reason::POD_CREATION_FAILED, &message);
            return;
        }
    };
    if let Err(problem) = pod::check_resources(&pod) {
        let failure = Failure::of_user(problem);
        draft.fail(failure.reason, &failure.message);
        return;
    }
    let (owner, namespace) = (pod::owner(run), draft.namespace());
    for claim in workspaces.iter().filter_map(|binding| pod::claim(binding, namespace, &owner)) {
        let name = claim.metadata.name.clone().unwrap_or_default();
        if let Some(refusal) = Refusal::of(&snapshot.refusals, Resource::PersistentVolumeClaim, &name) {
            let message = format!(
                "Failed to create PVC for TaskRun {} workspaces correctly: PVC creation error for {name}: {}",
                draft.run_name(),
                refusal.message
            );
            draft.fail(reason::CLAIM_CREATION_FAILED, &message);
            return;
        }
        draft.create(Resource::PersistentVolumeClaim, &name, to_value(&claim));
    }
    let name = pod.metadata.name.clone().unwrap_or_default();
    if let Some(refusal) = Refusal::of(&snapshot.refusals, Resource::Pod, &name) {
        refused(draft, refusal);
        return;
    }
    draft.create(Resource::Pod, &name, to_value(&pod));
    draft.status.pod_name = name;
    // A retry keeps the message of the attempt before it until it runs (contract 6).
    let message = draft.condition().filter(|condition| condition.reason == reason::TO_BE_RETRIED);
    let message = message.map(|condition| condition.message.clone()).unwrap_or_default();
    draft.going_on(reason::STARTED, &message);
}

fn to_value(object: &impl serde::Serialize) -> Value {
    // Types made of strings, numbers, lists and string maps: they always serialize.
    serde_json::to_value(object).unwrap_or_default()
}

/// The run's Task, or `None` when that ended the attempt or has to wait.
fn resolve(draft: &mut Draft<'_>) -> Option<Resolved> {
    let snapshot = draft.snapshot;
    if let (Some(task), Lookup::NotNeeded) = (wants_task(&snapshot.run), &snapshot.task) {
        draft.wait(task, "the Task has not been looked up");
        return None;
    }
    match resolve::resolve(&snapshot.run, snapshot.task.found(), &snapshot.config) {
        Ok(resolved) => Some(resolved),
        Err(failure) => {
            draft.start();
            draft.fail(failure.reason, &failure.message);
            None
        }
    }
}

fn store(draft: &mut Draft<'_>, resolved: Resolved) {
    draft.start();
    draft.status.task_spec = Some(resolved.spec);
    let features = &draft.snapshot.config.features;
    if features.enable_provenance_in_status && draft.status.provenance.is_none() {
        draft.status.provenance =
            Some(Provenance { ref_source: None, feature_flags: Some(mirror(features)) });
    }
}

fn mirror(features: &FeatureFlags) -> std::collections::BTreeMap<String, Value> {
    let level = match features.enable_api_fields {
        ApiFields::Stable => "stable",
        ApiFields::Beta => "beta",
        ApiFields::Alpha => "alpha",
    };
    [
        ("awaitSidecarReadiness", json!(features.await_sidecar_readiness)),
        ("disableInlineSpec", json!(features.disable_inline_spec.join(","))),
        ("enableAPIFields", json!(level)),
        ("enableArtifacts", json!(features.enable_artifacts)),
        ("enableCELInWhenExpression", json!(features.enable_cel_in_when_expression)),
        ("enableParamEnum", json!(features.enable_param_enum)),
        ("enableProvenanceInStatus", json!(features.enable_provenance_in_status)),
        ("setSecurityContext", json!(features.set_security_context)),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// The labels and annotations the run takes over, as a patch of what is missing.
fn metadata_patch(run: &TaskRun, adopted: &TaskRun) -> Option<Value> {
    let mut metadata = serde_json::Map::new();
    for (field, old, new) in [
        ("labels", &run.metadata.labels, &adopted.metadata.labels),
        ("annotations", &run.metadata.annotations, &adopted.metadata.annotations),
    ] {
        let has = |key: &String| old.as_ref().is_some_and(|old| old.contains_key(key));
        let added: serde_json::Map<String, Value> = new
            .iter()
            .flatten()
            .filter(|(key, _)| !has(key))
            .map(|(key, value)| (key.clone(), Value::from(value.clone())))
            .collect();
        if !added.is_empty() {
            metadata.insert(field.to_owned(), Value::Object(added));
        }
    }
    (!metadata.is_empty()).then(|| json!({ "metadata": metadata }))
}

fn creation_failed(run: &TaskRun, error: &str) -> String {
    let name = run.metadata.name.as_deref().unwrap_or_default();
    let namespace = run.metadata.namespace.as_deref().unwrap_or_default();
    let maybe = match &run.spec.task_ref {
        Some(task) => format!("Maybe missing or invalid Task {namespace}/{}", task.name),
        None => "Maybe invalid TaskSpec".to_owned(),
    };
    format!("failed to create task run pod \"{name}\": {error}. {maybe}")
}

/// The API server will not have the pod (contract 5.11).
fn refused(draft: &mut Draft<'_>, refusal: &Refusal) {
    let now = draft.snapshot.now;
    let text = &refusal.message;
    let later = |pause: Duration| now.saturating_add(pause).unwrap_or(Timestamp::MAX);
    if refusal.reason == "AlreadyExists" {
        draft.going_on(reason::PENDING, "tried to create pod, but it already exists");
        let hint = format!(
            "pod \"{}\" belongs to somebody else; delete it, or run under another name",
            refusal.target.name
        );
        draft.diagnose(ConditionStatus::Unknown, Some(hint));
        draft.look_at(later(NAME_TAKEN_RETRY));
    } else if refusal.code == 409 && text.contains("resourcequota") {
        draft.status.start_time = None;
        draft.going_on(reason::PENDING, "tried to create pod, but it failed with ResourceQuotaConflictError");
        draft.look_at(later(QUOTA_CONFLICT_RETRY));
    } else if refusal.code == 403 && text.contains("exceeded quota") {
        draft.status.start_time = None;
        let message = format!("TaskRun Pod exceeded available resources: {text}");
        draft.going_on(reason::EXCEEDED_RESOURCE_QUOTA, &message);
        draft.look_at(later(QUOTA_RETRY));
    } else {
        let forbidden = refusal.code == 403
            && (text.contains("violates PodSecurity") || text.contains("security context constraint"));
        let reason = if text.contains("TaskRun validation failed") {
            reason::VALIDATION_FAILED
        } else if forbidden {
            reason::POD_ADMISSION_FAILED
        } else {
            reason::POD_CREATION_FAILED
        };
        let message = creation_failed(&draft.snapshot.run, text);
        draft.fail(reason, &message);
    }
}

/// The recorded pod is gone.
fn replace(draft: &mut Draft<'_>) {
    let snapshot = draft.snapshot;
    let name = draft.pod_name();
    let started = draft.status.steps.iter().find(|step| step.running.is_some() || step.terminated.is_some());
    let annotations = snapshot.run.metadata.annotations.as_ref();
    let may_rerun = annotations.and_then(|all| all.get(&rerun_key())).is_some_and(|value| value == "true");
    if let Some(step) = started
        && !may_rerun
    {
        let message = format!(
            "pod \"{name}\" is gone, and step \"{}\" had started; set retries, or the annotation \"{}\" to \"true\", \
             to have it run again",
            step.name,
            rerun_key()
        );
        draft.fail(reason::POD_EVICTED, &message);
        return;
    }
    let appeared = draft.status.conditions.iter().filter_map(|c| c.last_transition_time.as_ref()).max();
    let appears_by = appeared.and_then(|time| time.0.saturating_add(CACHE_LAG).ok());
    if let Some(by) = appears_by
        && draft.status.steps.is_empty()
        && by > snapshot.now
    {
        draft.wait(&name, "the pod has been created but not been seen");
        draft.look_at(by);
        return;
    }
    let lost = draft.status.annotations.get(&recreations_key()).and_then(|text| text.parse().ok());
    let lost: u32 = lost.unwrap_or(0) + 1;
    if lost > MAX_RECREATIONS {
        let message = format!("pod \"{name}\" was lost {lost} times before any step started");
        draft.fail(reason::POD_EVICTED, &message);
        return;
    }
    draft.status.annotations.insert(recreations_key(), lost.to_string());
    draft.status.steps.clear();
    draft.status.sidecars.clear();
    let text = format!("pod \"{name}\" was lost; made again, {lost} of at most {MAX_RECREATIONS} times");
    draft.diagnose(ConditionStatus::Unknown, Some(text));
    create(draft);
}

/// Takes over what the pod says.
fn observe(draft: &mut Draft<'_>, pod: &Pod) {
    draft.start();
    draft.status.pod_name = pod.metadata.name.clone().unwrap_or_default();
    if draft.status.task_spec.is_none() {
        // The pod was made, and then we died before saying so.
        let Some(resolved) = resolve(draft) else {
            if draft.condition().is_some_and(|condition| condition.status == "False") {
                draft.delete(pod);
            }
            return;
        };
        store(draft, resolved);
    }
    if containers::is_complete(pod) {
        complete(draft, pod);
        return;
    }
    if let Some((reason, message)) = waiting::fatal(pod, draft.run_name()) {
        show(draft, pod);
        draft.diagnose(ConditionStatus::False, diagnosis::of(pod));
        draft.delete(pod);
        draft.fail(reason, &message);
        return;
    }
    if containers::phase(pod) == "Running" {
        show(draft, pod);
        draft.going_on(reason::RUNNING, "Not all Steps in the Task have finished executing");
        draft.diagnose(ConditionStatus::Unknown, None);
        release(draft, pod);
        return;
    }
    if let Some((reason, message)) = waiting::explain(pod, draft.snapshot.now) {
        show(draft, pod);
        draft.going_on(reason, &message);
        draft.diagnose(ConditionStatus::Unknown, diagnosis::of(pod));
        draft.wait(draft.run_name(), message);
    } else {
        if draft.condition().is_none_or(|condition| condition.reason == reason::TO_BE_RETRIED) {
            draft.going_on(reason::STARTED, "");
        }
        draft.look_at(waiting::quiet_until(pod));
    }
}

fn show(draft: &mut Draft<'_>, pod: &Pod) {
    draft.status.steps = steps::states(pod, draft.status.task_spec.as_ref());
    draft.status.sidecars = steps::sidecar_states(pod);
}

/// Lets the first step start once everything beside it is ready.
fn release(draft: &mut Draft<'_>, pod: &Pod) {
    match sidecars::unready(pod) {
        None => {}
        Some(unready) if unready.is_empty() => {
            let name = draft.pod_name();
            draft.patch(Resource::Pod, &name, sidecars::ready_patch());
        }
        Some(unready) => {
            for container in unready {
                draft.wait(container, "the container is not ready");
            }
        }
    }
}

fn complete(draft: &mut Draft<'_>, pod: &Pod) {
    show(draft, pod);
    draft.status.artifacts = Some(Artifacts::default());
    let collected = draft.status.task_spec.as_ref().map(|spec| results::collect(pod, spec));
    let (found, problem) = collected.map_or((Vec::new(), None), |it| (it.results, it.problem));
    draft.status.results = found;
    stop_sidecars(draft, pod);
    if let Some(problem) = problem {
        draft.fail(reason::VALIDATION_FAILED, &problem);
    } else if failure::is_failed(pod) {
        let (reason, message) = failure::explain(pod);
        let annotations = draft.snapshot.run.metadata.annotations.as_ref();
        let on_error = annotations.and_then(|all| all.get(labels::PIPELINE_TASK_ON_ERROR));
        let ignored = on_error.is_some_and(|value| value == "continue");
        draft.fail(if ignored { reason::FAILURE_IGNORED } else { reason }, &message);
    } else {
        draft.succeed();
    }
}

/// Makes what still runs beside the steps of a finished run exit.
fn stop_sidecars(draft: &mut Draft<'_>, pod: &Pod) {
    let nop_image = &draft.snapshot.settings.nop_image;
    let name = draft.pod_name();
    if let Some(refusal) = Refusal::of(&draft.snapshot.refusals, Resource::Pod, &name) {
        draft.wait(&name, format!("sidecars could not be stopped: {}", refusal.message));
        return;
    }
    let patch = sidecars::stop_patch(pod, nop_image);
    let stopped = containers::regular(pod).iter().any(|container| container.image == nop_image);
    if patch.is_some() || stopped {
        sidecars::mark_stopped(&mut draft.status.sidecars, &draft.now.clone());
    }
    if let Some(patch) = patch {
        draft.patch(Resource::Pod, &name, patch);
    }
}

/// Ends an attempt from outside: by its user, or by its timeout.
fn stop(draft: &mut Draft<'_>, reason: &str, mut message: String) {
    if let Some(previous) = draft.condition()
        && !matches!(
            previous.reason.as_str(),
            "" | reason::STARTED | reason::RUNNING | reason::TASK_RUN_PENDING
        )
        && !previous.message.is_empty()
    {
        message = format!("{message}\nPrevious status: [{}] {}", previous.reason, previous.message);
    }
    let pod_name = draft.pod_name();
    if let Some(pod) = draft.pod() {
        draft.status.pod_name.clone_from(&pod_name);
        show(draft, pod);
        draft.delete(pod);
    }
    let created = draft.snapshot.run.metadata.creation_timestamp.clone();
    let now = draft.now.clone();
    for step in draft.status.steps.iter_mut().filter(|step| step.terminated.is_none()) {
        let running = step.running.take();
        step.waiting = None;
        reason.clone_into(&mut step.termination_reason);
        step.terminated = Some(ContainerStateTerminated {
            exit_code: 1,
            reason: Some(reason.to_owned()),
            message: Some(format!("Step {} terminated as pod {pod_name} is terminated", step.name)),
            started_at: running.and_then(|running| running.started_at).or_else(|| created.clone()),
            finished_at: Some(now.clone()),
            ..ContainerStateTerminated::default()
        });
    }
    draft.diagnose(ConditionStatus::Unknown, None);
    draft.fail(reason, &message);
}

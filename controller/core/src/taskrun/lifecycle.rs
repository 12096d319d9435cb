//! The life of a TaskRun, one decision at a time (contract 5.11, 6, 12.7 and 12.8).

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use ropewalk_api::conditions::ConditionStatus;
use ropewalk_api::{Artifacts, GoDuration, ROPEWALK_GROUP, TaskRun, conditions, labels, taskrun_spec_status};

use super::creation::{create, held_back, resolve, store};
use super::draft::Draft;
use super::{Snapshot, containers, diagnosis, failure, reason, results, sidecars, steps, waiting};
use crate::plan::{Plan, Resource};
use crate::pod;
use crate::settings::Settings;
use crate::snapshot::Refusal;

/// A pod of ours that the cache does not show may only be late. Creating it again would do no harm, but would count
/// as a lost pod.
const CACHE_LAG: Duration = Duration::from_secs(5);
/// Pods lost before any step started are made again this often: a node going down takes one or two, a cluster that
/// loses more is not going to keep the next.
const MAX_RECREATIONS: u32 = 3;
/// Times in objects are cut to whole seconds. An attempt may take this much longer rather than that much shorter.
const TIME_PRECISION: Duration = Duration::from_secs(1);

/// The annotation in the status that counts lost pods.
pub(super) fn recreations_key() -> String {
    format!("{ROPEWALK_GROUP}/pod-recreations")
}

/// The annotation on a run that allows steps to run again after their pod was lost: `true`.
fn rerun_key() -> String {
    format!("{ROPEWALK_GROUP}/rerun-lost-steps")
}

/// Whether this engine is to look after a run.
pub(super) fn is_ours(run: &TaskRun, settings: &Settings) -> bool {
    let manager = run.spec.managed_by.as_deref().unwrap_or_default();
    let ours = manager.is_empty() || manager == settings.managed_by;
    ours && run.metadata.deletion_timestamp.is_none()
}

pub(super) fn plan(snapshot: &Snapshot) -> Plan {
    if !is_ours(&snapshot.run, &snapshot.settings) {
        return Plan::default();
    }
    let mut draft = Draft::new(snapshot);
    if conditions::is_done(&draft.status.conditions) {
        match draft.pod() {
            Some(pod) if containers::is_complete(pod) => stop_sidecars(&mut draft, pod),
            // The run was ended before its pod was seen.
            Some(pod) => draft.delete(pod),
            None => {}
        }
    } else if let Some(refusal) = Refusal::of_large_status(&snapshot.refusals) {
        give_up(&mut draft, refusal);
    } else {
        decide(&mut draft);
    }
    draft.into_plan()
}

/// The API server has no room for what there is to say of this run: it ends, in fewer words, as it would otherwise be
/// tried for ever and nobody told.
fn give_up(draft: &mut Draft<'_>, refusal: &Refusal) {
    draft.start();
    draft.status.task_spec = None;
    for attempt in &mut draft.status.retries_status {
        attempt.task_spec = None;
    }
    if let Some(pod) = draft.pod() {
        draft.delete(pod);
    }
    let message = format!(
        "the status of TaskRun \"{}\", which repeats its Task, is too large to be stored: {}; make the Task's scripts \
         or the params smaller",
        draft.run_name(),
        crate::diagnosis::quoted(&refusal.message)
    );
    draft.diagnose(ConditionStatus::False, None);
    draft.fail_for_good(reason::VALIDATION_FAILED, &message);
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
    let deadline = deadline(draft, timeout);
    let complete = pod.is_some_and(containers::is_complete);
    if !complete && deadline.is_some_and(|deadline| deadline <= draft.snapshot.now) {
        stop(draft, reason::TIMED_OUT, format!("TaskRun \"{name}\" failed to finish within \"{timeout}\""));
        return;
    }
    match pod {
        Some(pod) if containers::is_lost(pod) && (!containers::has_started(pod) || may_rerun(draft)) => {
            draft.wait(name, "the pod was lost, and is being removed");
            draft.delete(pod);
        }
        Some(pod) => observe(draft, pod),
        None if draft.status.pod_name.is_empty() => create(draft),
        None => replace(draft),
    }
    if let Some(deadline) = self::deadline(draft, timeout)
        && !conditions::is_done(&draft.status.conditions)
    {
        draft.look_at(deadline);
    }
}

/// When the attempt has had its time; `None` before it started and when it has no limit.
fn deadline(draft: &Draft<'_>, timeout: GoDuration) -> Option<Timestamp> {
    let start = draft.status.start_time.as_ref().filter(|_| !timeout.is_zero())?;
    Some(start.0.saturating_add(timeout.as_std() + TIME_PRECISION).unwrap_or(Timestamp::MAX))
}

/// Whether steps may run again after their pod was lost.
fn may_rerun(draft: &Draft<'_>) -> bool {
    let annotations = draft.snapshot.run.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(&rerun_key())).is_some_and(|value| value == "true")
}

/// The recorded pod is gone.
fn replace(draft: &mut Draft<'_>) {
    let snapshot = draft.snapshot;
    let name = draft.pod_name();
    // A retry shows the steps of the attempt before until its own pod has been seen (contract 12.8).
    let seen = draft.status.retries_status.last().is_none_or(|last| last.steps != draft.status.steps);
    let mut steps = draft.status.steps.iter().filter(|_| seen);
    let started = steps.find(|step| step.running.is_some() || step.terminated.is_some());
    if let Some(step) = started
        && !may_rerun(draft)
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
        && (draft.status.steps.is_empty() || !seen)
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
    let before = draft.status.clone();
    draft.status.annotations.insert(recreations_key(), lost.to_string());
    draft.status.steps.clear();
    draft.status.sidecars.clear();
    create(draft);
    if !draft.images.is_empty() {
        // It counts when it is made, and every plan comes by here until then.
        draft.status = before;
    } else if draft.condition().is_some_and(|condition| condition.reason == reason::STARTED) {
        let text = format!("pod \"{name}\" was lost; made again, {lost} of at most {MAX_RECREATIONS} times");
        draft.diagnose(ConditionStatus::Unknown, Some(&text));
    }
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
        let why = diagnosis::of(pod, &draft.snapshot.warnings, false);
        draft.diagnose(ConditionStatus::False, why.as_deref());
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
    let young = waiting::quiet_until(pod) > draft.snapshot.now;
    let diagnosis = diagnosis::of(pod, &draft.snapshot.warnings, young);
    let told = diagnosis.is_some() || draft.condition().is_some_and(|it| it.reason == reason::PENDING);
    if let Some((reason, message)) = waiting::explain(pod, draft.snapshot.now, told) {
        show(draft, pod);
        draft.going_on(reason, &message);
        draft.diagnose_waiting(diagnosis.as_deref());
        draft.wait(draft.run_name(), message);
    } else {
        // What the run says of the time before this pod holds no longer, as a refusal by a quota that has been freed: the
        // status that said so may have been refused as stale after the pod was made.
        if draft.condition().is_none_or(|condition| condition.reason != reason::STARTED) {
            draft.going_on(reason::STARTED, "");
            draft.diagnose(ConditionStatus::Unknown, None);
        }
        draft.look_at(waiting::slow_from(pod));
    }
    if young {
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
        draft.diagnose(ConditionStatus::False, diagnosis::of_failure(pod).as_deref());
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
    // What it waited for to the end is why it took too long.
    let waited = conditions::find(&draft.status.conditions, crate::diagnosis::TYPE)
        .filter(|_| reason == reason::TIMED_OUT)
        .map(|condition| condition.message.clone());
    draft.diagnose(ConditionStatus::False, waited.as_deref());
    draft.fail(reason, &message);
}

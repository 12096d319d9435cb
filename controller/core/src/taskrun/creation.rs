//! Making an attempt's pod: the Task found, stored and built, and what follows when the API server refuses
//! (contract 5.11 and 12.2).

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use ropewalk_api::conditions::ConditionStatus;
use ropewalk_api::config::{ApiFields, FeatureFlags};
use ropewalk_api::{Provenance, TaskRun};
use serde_json::{Value, json};

use super::draft::Draft;
use super::resolve::{self, Failure, Resolved};
use super::{credentials, look_ups, reason, wants_task};
use crate::diagnosis::quoted;
use crate::plan::Resource;
use crate::pod;
use crate::snapshot::{Lookup, Refusal};

/// A full quota is tried again after as long as the run has waited for it, at least this long: several may wait.
const QUOTA_RETRY: Duration = Duration::from_secs(5);
/// And at most this long (contract 5.11), however long it has been full.
const LAST_QUOTA_RETRY: Duration = Duration::from_mins(1);
/// Two writers of one quota object: over in a moment.
const QUOTA_CONFLICT_RETRY: Duration = Duration::from_secs(1);
/// Somebody else's pod of our name: a person has to remove it.
const NAME_TAKEN_RETRY: Duration = Duration::from_secs(10);

/// Until when a refused pod is not tried again. Every write of the status wakes the run up; that must not hammer a
/// quota.
pub(super) fn held_back(draft: &Draft<'_>) -> Option<Timestamp> {
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
pub(super) fn create(draft: &mut Draft<'_>) {
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
    let Some(resolved) = look_ups::find(draft, resolved) else { return };
    let Some(resolved) = credentials::find(draft, resolved) else { return };
    let built = pod::build(&adopted, &resolved, &snapshot.config, &snapshot.settings);
    let workspaces = resolved.workspaces.clone();
    let warning = credentials::warning(&resolved.credentials.missing);
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
    draft.events.extend(warning);
    draft.status.pod_name = name;
    // A retry keeps the message of the attempt before it until it runs (contract 6).
    let message = draft.condition().filter(|condition| condition.reason == reason::TO_BE_RETRIED);
    let message = message.map(|condition| condition.message.clone()).unwrap_or_default();
    draft.going_on(reason::STARTED, &message);
    draft.diagnose(ConditionStatus::Unknown, None);
}

fn to_value(object: &impl serde::Serialize) -> Value {
    // Types made of strings, numbers, lists and string maps: they always serialize.
    serde_json::to_value(object).unwrap_or_default()
}

/// The run's Task, or `None` when that ended the attempt or has to wait.
pub(super) fn resolve(draft: &mut Draft<'_>) -> Option<Resolved> {
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

pub(super) fn store(draft: &mut Draft<'_>, resolved: Resolved) {
    draft.start();
    draft.status.task_spec = Some(resolved.spec);
    let features = &draft.snapshot.config.features;
    if draft.status.provenance.is_none() {
        draft.status.provenance = provenance(features);
    }
}

/// The provenance of a definition that came from this cluster, when the configuration wants any.
pub(crate) fn provenance(features: &FeatureFlags) -> Option<Provenance> {
    let flags = features.enable_provenance_in_status.then(|| mirror(features))?;
    Some(Provenance { ref_source: None, feature_flags: Some(flags) })
}

fn mirror(features: &FeatureFlags) -> BTreeMap<String, Value> {
    let level = match features.enable_api_fields {
        ApiFields::Stable => "stable",
        ApiFields::Beta => "beta",
        ApiFields::Alpha => "alpha",
    };
    [
        ("awaitSidecarReadiness", json!(features.await_sidecar_readiness)),
        ("disableCredsInit", json!(features.disable_creds_init)),
        ("disableInlineSpec", json!(features.disable_inline_spec.join(","))),
        ("enableAPIFields", json!(level)),
        ("enableArtifacts", json!(features.enable_artifacts)),
        ("enableCELInWhenExpression", json!(features.enable_cel_in_when_expression)),
        ("enableParamEnum", json!(features.enable_param_enum)),
        ("enableProvenanceInStatus", json!(features.enable_provenance_in_status)),
        ("requireGitSSHSecretKnownHosts", json!(features.require_git_ssh_secret_known_hosts)),
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

pub(super) fn creation_failed(run: &TaskRun, error: &str) -> String {
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
        draft.diagnose(ConditionStatus::Unknown, Some(&hint));
        draft.look_at(later(NAME_TAKEN_RETRY));
    } else if refusal.code == 409 && text.contains("resourcequota") {
        draft.status.start_time = None;
        draft.going_on(reason::PENDING, "tried to create pod, but it failed with ResourceQuotaConflictError");
        draft.look_at(later(QUOTA_CONFLICT_RETRY));
    } else if refusal.code == 403 && text.contains("exceeded quota") {
        draft.status.start_time = None;
        let message = format!("TaskRun Pod exceeded available resources: {text}");
        draft.going_on(reason::EXCEEDED_RESOURCE_QUOTA, &message);
        let text = format!("{}; it is tried again until there is room", refusal_text(refusal));
        draft.diagnose_waiting(Some(&text));
        draft.look_at(later(quota_pause(draft)));
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
        let why = format!("{}{}", refusal_text(refusal), hint(text));
        draft.diagnose(ConditionStatus::False, Some(&why));
        draft.fail(reason, &message);
    }
}

/// As long again as the run has waited, within bounds: it goes on soon after a short wait, and a long one does not
/// hammer a quota.
fn quota_pause(draft: &Draft<'_>) -> Duration {
    let since = draft.condition().and_then(|condition| condition.last_transition_time.as_ref());
    let waited = since.map(|since| draft.snapshot.now.duration_since(since.0));
    let waited = waited.and_then(|waited| Duration::try_from(waited).ok()).unwrap_or_default();
    waited.clamp(QUOTA_RETRY, LAST_QUOTA_RETRY)
}

fn refusal_text(refusal: &Refusal) -> String {
    format!("the API server refuses pod \"{}\": {}", refusal.target.name, quoted(&refusal.message))
}

/// What can be done about it, where the API server's words do not say.
fn hint(refusal: &str) -> &'static str {
    if refusal.contains("error looking up service account") {
        "; make that ServiceAccount, or set another serviceAccountName"
    } else if refusal.contains("violates PodSecurity") {
        "; set \"set-security-context\" in ConfigMap \"feature-flags\", or the steps' securityContext"
    } else {
        ""
    }
}

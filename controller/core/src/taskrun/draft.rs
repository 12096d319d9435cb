//! A plan in the making: the status as it is to be, and the writes that come before it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use ropewalk_api::conditions::{self, Condition, ConditionStatus, SUCCEEDED};
use ropewalk_api::{TaskRun, TaskRunStatus, taskrun_spec_status};
use serde_json::{Value, json};

use super::{Snapshot, reason};
use crate::images::Wanted;
use crate::metrics;
use crate::plan::{Event, Plan, Resource, Target, Waiting, Write, status_patch};
use crate::{diagnosis, events, pod};

/// The name of the pod of a run's current attempt.
fn pod_name(run: &TaskRun, status: Option<&TaskRunStatus>) -> String {
    let recorded = status.map(|status| status.pod_name.as_str()).unwrap_or_default();
    if !recorded.is_empty() {
        return recorded.to_owned();
    }
    let run_name = run.metadata.name.as_deref().unwrap_or_default();
    pod::name(run_name, status.map_or(0, |status| status.retries_status.len()))
}

/// The pod of a run's current attempt, if there is one among these.
pub(super) fn pod_of<'a>(
    run: &TaskRun,
    status: Option<&TaskRunStatus>,
    pods: &'a [Arc<Pod>],
) -> Option<&'a Pod> {
    let name = pod_name(run, status);
    pods.iter().map(AsRef::as_ref).find(|pod| pod.metadata.name.as_deref() == Some(&name))
}

pub(super) struct Draft<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) status: TaskRunStatus,
    /// Now, in the whole seconds that objects carry.
    pub(super) now: Time,
    writes: Vec<Write>,
    requeue: Option<Duration>,
    report: Vec<Waiting>,
    /// Those that no change of a condition makes.
    pub(super) events: Vec<Event>,
    /// What has to be known before the pod can be made.
    pub(super) images: Vec<Wanted>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(snapshot: &'a Snapshot) -> Self {
        Self {
            snapshot,
            status: snapshot.run.status.clone().unwrap_or_default(),
            now: Time(Timestamp::from_second(snapshot.now.as_second()).unwrap_or(snapshot.now)),
            writes: Vec::new(),
            requeue: None,
            report: Vec::new(),
            events: Vec::new(),
            images: Vec::new(),
        }
    }

    pub(super) fn run_name(&self) -> &'a str {
        self.snapshot.run.metadata.name.as_deref().unwrap_or_default()
    }

    pub(super) fn namespace(&self) -> &'a str {
        self.snapshot.run.metadata.namespace.as_deref().unwrap_or_default()
    }

    pub(super) fn target(&self, resource: Resource, name: &str) -> Target {
        Target { resource, namespace: self.namespace().to_owned(), name: name.to_owned() }
    }

    /// The name of the current attempt's pod.
    pub(super) fn pod_name(&self) -> String {
        pod_name(&self.snapshot.run, Some(&self.status))
    }

    /// The current attempt's pod, if there is one.
    pub(super) fn pod(&self) -> Option<&'a Pod> {
        pod_of(&self.snapshot.run, Some(&self.status), &self.snapshot.pods)
    }

    pub(super) fn condition(&self) -> Option<&Condition> {
        conditions::find(&self.status.conditions, SUCCEEDED)
    }

    /// The run goes on, and this is how it stands.
    pub(super) fn going_on(&mut self, reason: &str, message: &str) {
        self.set(SUCCEEDED, ConditionStatus::Unknown, reason, message);
    }

    /// The attempt starts now, unless it has.
    pub(super) fn start(&mut self) {
        if self.status.start_time.is_none() {
            // A clock that lags behind the API server's must not make a run older than itself.
            let created = self.snapshot.run.metadata.creation_timestamp.clone();
            self.status.start_time =
                Some(created.map_or(self.now.clone(), |time| time.max(self.now.clone())));
        }
    }

    /// The attempt has succeeded.
    pub(super) fn succeed(&mut self) {
        let message = "All Steps have completed executing";
        self.set(SUCCEEDED, ConditionStatus::True, reason::SUCCEEDED, message);
        self.status.completion_time = Some(self.now.clone());
        self.diagnose(ConditionStatus::Unknown, None);
    }

    /// The attempt has failed. While retries are left it is put aside and the run goes on (contract 12.8).
    pub(super) fn fail(&mut self, reason: &str, message: &str) {
        self.fail_for_good(reason, message);
        let spec = &self.snapshot.run.spec;
        let used = i64::try_from(self.status.retries_status.len()).unwrap_or(i64::MAX);
        if used >= spec.retries || spec.status == taskrun_spec_status::CANCELLED {
            return;
        }
        let mut archived = self.status.clone();
        archived.retries_status.clear();
        self.status.retries_status.push(archived);
        self.status.start_time = None;
        self.status.completion_time = None;
        self.status.pod_name.clear();
        self.status.results.clear();
        self.status.annotations.remove(&super::lifecycle::recreations_key());
        self.diagnose(ConditionStatus::Unknown, None);
        self.going_on(reason::TO_BE_RETRIED, message);
    }

    /// The attempt has failed, and another would fail in the same way.
    pub(super) fn fail_for_good(&mut self, reason: &str, message: &str) {
        self.set(SUCCEEDED, ConditionStatus::False, reason, message);
        self.status.completion_time = Some(self.now.clone());
    }

    /// Sets or removes the condition of our own.
    pub(super) fn diagnose(&mut self, status: ConditionStatus, text: Option<&str>) {
        diagnosis::set(&mut self.status.conditions, status, text, &self.now);
    }

    /// Sets or removes the condition of our own while the pod waits, which may say something else every second.
    pub(super) fn diagnose_waiting(&mut self, text: Option<&str>) {
        if let Some(until) = diagnosis::follow(&mut self.status.conditions, text, &self.now) {
            self.look_at(until);
        }
    }

    fn set(&mut self, type_: &str, status: ConditionStatus, reason: &str, message: &str) {
        conditions::set(&mut self.status.conditions, type_, status, reason, message, &self.now);
    }

    pub(super) fn create(&mut self, resource: Resource, name: &str, object: Value) {
        let target = self.target(resource, name);
        self.writes.push(Write::Create { target, object });
    }

    pub(super) fn patch(&mut self, resource: Resource, name: &str, patch: Value) {
        let target = self.target(resource, name);
        self.writes.push(Write::Patch { target, subresource: None, patch });
    }

    /// Deletes a pod, unless it is on its way out.
    pub(super) fn delete(&mut self, pod: &Pod) {
        if pod.metadata.deletion_timestamp.is_some() {
            return;
        }
        let target = self.target(Resource::Pod, pod.metadata.name.as_deref().unwrap_or_default());
        self.writes.push(Write::Delete { target, uid: pod.metadata.uid.clone() });
    }

    /// Look again at this time, if not sooner.
    pub(super) fn look_at(&mut self, time: Timestamp) {
        let left = time.duration_since(self.snapshot.now);
        // Zero would spin: what is due already is decided in this plan.
        let left = Duration::try_from(left).unwrap_or_default().max(Duration::from_millis(10));
        self.requeue = Some(self.requeue.map_or(left, |other| other.min(left)));
    }

    pub(super) fn wait(&mut self, subject: &str, reason: impl Into<String>) {
        self.report.push(Waiting { subject: subject.to_owned(), reason: reason.into() });
    }

    pub(super) fn into_plan(mut self) -> Plan {
        let run = &self.snapshot.run;
        let before = run.status.clone().unwrap_or_default();
        if self.status != before && run.metadata.generation.is_some() {
            self.status.observed_generation = run.metadata.generation;
        }
        let as_value = |status: &TaskRunStatus| serde_json::to_value(status).unwrap_or_else(|_| json!({}));
        let old = run.status.as_ref().map_or_else(|| json!({}), as_value);
        let status = if self.status == before {
            None
        } else {
            let version = run.metadata.resource_version.as_deref();
            status_patch(
                self.target(Resource::TaskRun, self.run_name()),
                version,
                &old,
                &as_value(&self.status),
            )
        };
        let observability = &self.snapshot.config.observability;
        let mut events = events::of(&before.conditions, &self.status.conditions);
        events.append(&mut self.events);
        let measures = metrics::taskrun(run, &self.status, self.pod(), observability);
        Plan {
            writes: self.writes,
            status,
            events,
            measures,
            requeue: self.requeue,
            report: self.report,
            images: self.images,
        }
    }
}

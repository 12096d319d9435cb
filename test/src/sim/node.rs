//! A node: the kubelet's kernel over a script in place of containers. No IO.
//!
//! What the entrypoint would do in a step (wait for its turn, skip after a failure, report results) is done here in its
//! stead.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use http::Request;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::core::params::{DeleteParams, PostParams, Preconditions};
use ropewalk_api::labels;
use ropewalk_apiserver::{Delta, DeltaKind, ObjectKey};
use ropewalk_core::plan::{self, Resource, Target};
use ropewalk_core::pod::STEP_PREFIX;
use ropewalk_entrypoint_protocol::flags::{self, OnError, StepFlags};
use ropewalk_entrypoint_protocol::termination::{self, RunResult};
use ropewalk_kubelet::HostFacts;
use ropewalk_kubelet::machine::{self, Command, Event, Exit, ExitReason, PodState};
use ropewalk_kubelet::status::status;
use serde_json::{Value, json};

use super::SimError;
use super::api::Api;
use super::faults::Faults;
use super::script::Script;
use super::watch::{key_of, read};

/// The name of the node.
const NODE: &str = "sim";

/// Exit code of what a SIGTERM ended.
const TERMINATED: i32 = 143;

/// The only node of a world; it outlives every crash of the controllers.
pub(super) struct Node {
    facts: HostFacts,
    script: Script,
    pending: VecDeque<Arc<Delta>>,
    guests: BTreeMap<String, Guest>,
}

/// A pod on the node.
struct Guest {
    key: ObjectKey,
    state: PodState,
    todo: VecDeque<Work>,
    running: BTreeMap<String, Running>,
    /// The status in the API server, as far as this node has written it.
    reported: Value,
    /// Something happened since.
    unreported: bool,
    /// The pod is no longer in the API server.
    gone: bool,
}

/// What is to be done for a pod.
enum Work {
    /// What a scheduler would have done: there is none where there is no node in the API server.
    Bind,
    Command(Command),
}

/// A container that runs.
struct Running {
    attempt: u32,
    since: Timestamp,
    /// When it will end, and how; none while it waits for its turn, or until it is stopped.
    end: Option<End>,
}

#[derive(Clone)]
struct End {
    at: Timestamp,
    code: i32,
    message: String,
}

impl Node {
    pub(super) fn new(script: Script) -> Self {
        let facts = HostFacts {
            node_name: NODE.to_owned(),
            host_ip: "127.0.0.1".to_owned(),
            pod_ip: Some("127.0.0.1".to_owned()),
            cpus: 2,
            memory_bytes: 1 << 32,
            host_rootfs: true,
            capabilities: 0,
            closes_devices: true,
            api: None,
        };
        Self { facts, script, pending: VecDeque::new(), guests: BTreeMap::new() }
    }

    /// A change of a pod sets out to the node.
    pub(super) fn tell(&mut self, delta: Arc<Delta>) {
        self.pending.push_back(delta);
    }

    pub(super) fn is_behind(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The pods for which there is something to do now.
    pub(super) fn busy(&self, now: Timestamp) -> impl Iterator<Item = &String> {
        self.guests.iter().filter(move |(_, guest)| guest.has_work(now)).map(|(uid, _)| uid)
    }

    /// When a container ends or a pod has to be looked at again.
    pub(super) fn next_event(&self) -> Option<Timestamp> {
        self.guests.values().filter_map(Guest::next_event).min()
    }

    /// The next change of a pod reaches the node.
    pub(super) fn deliver(
        &mut self,
        api: &mut Api,
        faults: &mut Faults,
        now: Timestamp,
    ) -> Result<(), SimError> {
        let Some(delta) = self.pending.pop_front() else { return Ok(()) };
        let pod: Pod = read(&delta.object)?;
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        match delta.kind {
            DeltaKind::Added => {
                let key = key_of(&pod);
                if faults.lost_pod() {
                    remove(&key, &uid, api, now)?;
                    return Ok(());
                }
                let mut guest = Guest {
                    key,
                    state: PodState::new(pod),
                    todo: VecDeque::new(),
                    running: BTreeMap::new(),
                    reported: json!({ "phase": "Pending" }),
                    unreported: false,
                    gone: false,
                };
                guest.todo.push_back(Work::Bind);
                guest.feed(Event::Admitted, &self.script, now);
                self.guests.insert(uid, guest);
            }
            DeltaKind::Modified => {
                if let Some(guest) = self.guests.get_mut(&uid) {
                    guest.feed(Event::PodChanged(Box::new(pod)), &self.script, now);
                }
            }
            DeltaKind::Deleted => {
                if let Some(guest) = self.guests.get_mut(&uid) {
                    guest.gone = true;
                    guest.feed(Event::PodGone, &self.script, now);
                    self.drop_if_over(&uid);
                }
            }
        }
        Ok(())
    }

    /// Does the next thing for a pod: a command, the end of a container, a report.
    pub(super) fn work(&mut self, uid: &str, api: &mut Api, now: Timestamp) -> Result<(), SimError> {
        let Some(guest) = self.guests.get_mut(uid) else { return Ok(()) };
        if let Some(work) = guest.todo.pop_front() {
            match work {
                Work::Bind => guest.bind(api, now)?,
                Work::Command(command) => guest.carry_out(&command, &self.script, api, now)?,
            }
        } else if let Some(name) = guest.ending(now) {
            guest.end(&name, &self.script, now);
        } else if guest.state.next_wake().is_some_and(|at| at <= now) {
            guest.feed(Event::Tick, &self.script, now);
        } else if guest.unreported {
            guest.report(&self.facts, api, now)?;
        }
        self.drop_if_over(uid);
        Ok(())
    }

    fn drop_if_over(&mut self, uid: &str) {
        if self.guests.get(uid).is_some_and(|guest| guest.gone && guest.state.is_torn_down()) {
            self.guests.remove(uid);
        }
    }
}

impl Guest {
    fn has_work(&self, now: Timestamp) -> bool {
        !self.todo.is_empty()
            || self.ending(now).is_some()
            || self.state.next_wake().is_some_and(|at| at <= now)
            || (self.unreported && !self.gone && !self.state.is_unsettled())
    }

    fn next_event(&self) -> Option<Timestamp> {
        let ends = self.running.values().filter_map(|running| running.end.as_ref()).map(|end| end.at);
        ends.chain(self.state.next_wake()).min()
    }

    /// The container whose time has come first.
    fn ending(&self, now: Timestamp) -> Option<String> {
        let ends = self.running.iter().filter_map(|(name, running)| Some((running.end.as_ref()?.at, name)));
        ends.filter(|(at, _)| *at <= now).min().map(|(_, name)| name.clone())
    }

    fn target(&self) -> Target {
        Target { resource: Resource::Pod, namespace: self.key.namespace.clone(), name: self.key.name.clone() }
    }

    fn bind(&self, api: &mut Api, now: Timestamp) -> Result<(), SimError> {
        let binding = json!({ "target": { "kind": "Node", "name": NODE } });
        let pods = kube::core::Request::new(format!("/api/v1/namespaces/{}/pods", self.key.namespace));
        let body = binding.to_string().into_bytes();
        let request = pods.create_subresource("binding", &self.key.name, &PostParams::default(), body);
        // A pod that went meanwhile is heard of soon.
        api.send(&request.map_err(SimError::Request)?, now);
        Ok(())
    }

    fn feed(&mut self, event: Event, script: &Script, now: Timestamp) {
        self.todo.extend(machine::step(&mut self.state, event, now).into_iter().map(Work::Command));
        self.unreported = true;
        self.give_turn(script, now);
    }

    fn carry_out(
        &mut self,
        command: &Command,
        script: &Script,
        api: &mut Api,
        now: Timestamp,
    ) -> Result<(), SimError> {
        match command {
            Command::PrepareVolumes => self.feed(Event::VolumesReady, script, now),
            Command::Start { name, attempt } => self.start(name, *attempt, script, now),
            Command::Stop { name, .. } => {
                if let Some(running) = self.running.get_mut(name) {
                    running.end = Some(End { at: now, code: TERMINATED, message: String::new() });
                }
            }
            Command::TearDown => self.feed(Event::TornDown, script, now),
            Command::Remove => {
                let uid = self.state.pod().metadata.uid.clone().unwrap_or_default();
                remove(&self.key, &uid, api, now)?;
            }
            Command::RefreshVolumes | Command::Announce { .. } => {}
        }
        Ok(())
    }

    fn start(&mut self, name: &str, attempt: u32, script: &Script, now: Timestamp) {
        // `prepare` does its work at once; steps wait for their turn, sidecars for being stopped.
        let prepare = name == ropewalk_core::pod::PREPARE;
        let end = prepare.then(|| End { at: now, code: 0, message: String::new() });
        self.running.insert(name.to_owned(), Running { attempt, since: now, end });
        self.feed(Event::Started { name: name.to_owned(), attempt, at: now }, script, now);
        self.feed(Event::Readiness { name: name.to_owned(), attempt, ready: true }, script, now);
    }

    fn end(&mut self, name: &str, script: &Script, now: Timestamp) {
        let Some(Running { attempt, since, end: Some(end) }) = self.running.remove(name) else { return };
        let reason = if end.code == 0 { ExitReason::Completed } else { ExitReason::Error };
        let exit = Exit {
            code: end.code,
            reason,
            started_at: Some(since),
            finished_at: end.at,
            message: end.message,
        };
        self.feed(Event::Exited { name: name.to_owned(), attempt, exit }, script, now);
    }

    /// Lets the step begin whose turn it is.
    fn give_turn(&mut self, script: &Script, now: Timestamp) {
        let steps: Vec<String> = self
            .state
            .records()
            .iter()
            .filter(|record| record.name.starts_with(STEP_PREFIX))
            .map(|record| record.name.clone())
            .collect();
        let mut earlier_failed = false;
        for name in steps {
            let Some(record) = self.state.record(&name) else { return };
            if let Some(exit) = record.exit() {
                earlier_failed |= exit.code != 0;
                continue;
            }
            let flags = self.flags(&name);
            let released = !flags.wait_file_content || self.is_ready();
            let end = if earlier_failed {
                End { at: now, code: 1, message: skipped() }
            } else {
                self.command(&name, &flags, script, now)
            };
            match self.running.get_mut(&name) {
                Some(running) if running.end.is_none() && released => running.end = Some(end),
                _ => {}
            }
            // The next one waits for this one.
            return;
        }
    }

    /// Whether the controller has said that the first step may start.
    fn is_ready(&self) -> bool {
        let annotations = self.state.pod().metadata.annotations.as_ref();
        annotations.and_then(|all| all.get(labels::READY)).is_some_and(|value| value == labels::READY_VALUE)
    }

    fn flags(&self, container: &str) -> StepFlags {
        let args = self.state.container(container).and_then(|container| container.args.clone());
        match flags::parse(&args.unwrap_or_default()) {
            Ok(flags::Command::Run(flags)) => flags,
            _ => StepFlags::default(),
        }
    }

    /// How a step that begins now will end.
    fn command(&self, container: &str, flags: &StepFlags, script: &Script, now: Timestamp) -> End {
        let (task, attempt) = self.task();
        let step = container.strip_prefix(STEP_PREFIX).unwrap_or(container);
        let run = script.run(&task, step, attempt);
        let mut entries = vec![RunResult::internal(termination::STARTED_AT, now.to_string())];
        for result in flags.results.iter().flatten() {
            entries.push(RunResult::task(result, script.value(&task, result)));
        }
        for result in &flags.step_results {
            entries.push(RunResult::step(result, script.value(&task, result)));
        }
        let mut wait = SignedDuration::from_secs(i64::from(run.seconds));
        let mut code = run.exit_code;
        let limit = flags.timeout.filter(|limit| !limit.is_zero());
        let limit = limit.and_then(|limit| SignedDuration::try_from(limit.as_std()).ok());
        if let Some(limit) = limit.filter(|limit| *limit < wait) {
            wait = limit;
            code = 1;
            entries.push(RunResult::internal(termination::REASON, termination::REASON_TIMEOUT_EXCEEDED));
        } else if code != 0 && flags.on_error == Some(OnError::Continue) {
            entries.push(RunResult::internal(termination::EXIT_CODE, code.to_string()));
            code = 0;
        }
        let message = termination::append("", &entries).unwrap_or_default();
        End { at: now.checked_add(wait).unwrap_or(now), code, message }
    }

    /// The pipeline task, or the TaskRun that stands alone, and which attempt of it this pod is.
    fn task(&self) -> (String, usize) {
        let metadata = &self.state.pod().metadata;
        let label = |name| metadata.labels.as_ref().and_then(|labels| labels.get(name)).cloned();
        let task = label(labels::PIPELINE_TASK).or_else(|| label(labels::TASK_RUN)).unwrap_or_default();
        let retry = self.key.name.rsplit_once("-pod-retry").and_then(|(_, retry)| retry.parse().ok());
        (task, retry.unwrap_or(0))
    }

    fn report(&mut self, facts: &HostFacts, api: &mut Api, now: Timestamp) -> Result<(), SimError> {
        self.unreported = false;
        let status = serde_json::to_value(status(&mut self.state, facts, now)).unwrap_or_default();
        self.state.reported();
        if let Some(write) = plan::status_patch(self.target(), None, &self.reported, &status) {
            api.send(&write.request().map_err(SimError::Request)?, now);
            self.reported = status;
        }
        Ok(())
    }
}

fn skipped() -> String {
    let entry = RunResult::internal(termination::REASON, termination::REASON_SKIPPED);
    termination::append("", &[entry]).unwrap_or_default()
}

/// Removes this incarnation of a pod at once; one that is gone already is fine.
fn remove(key: &ObjectKey, uid: &str, api: &mut Api, now: Timestamp) -> Result<(), SimError> {
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
        ..DeleteParams::default()
    };
    let pods = kube::core::Request::new(format!("/api/v1/namespaces/{}/pods", key.namespace));
    let request: Request<Vec<u8>> = pods.delete(&key.name, &params).map_err(SimError::Request)?;
    api.send(&request, now);
    Ok(())
}

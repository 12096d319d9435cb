//! The status a pod is reported with. No IO.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::machine::{Ending, Exit, ExitReason, Phase, PodState, Record, Role};
use crate::{ENTRYPOINT_IMAGE, HostFacts, NOP_IMAGE};

/// The container id of an attempt, unique on this node.
pub fn container_id(pod_uid: &str, container: &str, attempt: u32) -> String {
    format!("{pod_uid}-{container}-{attempt}")
}

/// The status of the pod as of `now`. Keeps the transition times of conditions that did not change, which is
/// why the state remembers what it said.
pub fn status(state: &mut PodState, facts: &HostFacts, now: Timestamp) -> PodStatus {
    let phase = phase(state);
    let conditions = conditions(state, phase, now);
    state.conditions.clone_from(&conditions);
    let verdict = match state.ending {
        Some(Ending::Deadline) => Some((
            "DeadlineExceeded",
            "Pod was active on the node longer than the specified deadline".to_owned(),
        )),
        _ => state.verdict.clone(),
    };
    let (reason, message) = verdict.map(|(reason, message)| (reason.to_owned(), message)).unzip();
    let statuses = |wanted: fn(Role) -> bool| -> Option<Vec<ContainerStatus>> {
        let found = state.records.iter().filter(|record| wanted(record.role));
        let statuses: Vec<_> = found.map(|record| container_status(state, record, now)).collect();
        (!statuses.is_empty()).then_some(statuses)
    };
    let admitted = state.is_admitted();
    let pod_ip = facts.pod_ip.clone().filter(|_| admitted);
    PodStatus {
        phase: Some(phase.to_owned()),
        reason,
        message,
        conditions: Some(conditions),
        host_ip: admitted.then(|| facts.host_ip.clone()),
        host_ips: admitted.then(|| vec![HostIP { ip: facts.host_ip.clone() }]),
        pod_ips: pod_ip.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip,
        start_time: state.start_time.map(Time),
        init_container_statuses: statuses(|role| role != Role::Regular),
        container_statuses: statuses(|role| role == Role::Regular),
        ..PodStatus::default()
    }
}

/// The kubelet's phase rules.
pub fn phase(state: &PodState) -> &'static str {
    if matches!(state.ending, Some(Ending::Deadline | Ending::Evicted | Ending::Rejected)) {
        return "Failed";
    }
    let failed = |record: &Record| record.exit().is_some_and(|exit| exit.code != 0);
    if state.is_finished() {
        let mut deciding = state.records.iter().filter(|record| record.role != Role::Sidecar);
        return if deciding.all(|record| record.exit().is_some_and(|exit| exit.code == 0)) {
            "Succeeded"
        } else if state.records.iter().any(failed) || state.ending.is_some() {
            "Failed"
        } else {
            "Pending"
        };
    }
    let mut init = state.records.iter().filter(|record| record.role == Role::Init);
    if init.any(|record| record.exit().is_none_or(|exit| exit.code != 0)) {
        return "Pending";
    }
    let mut regular = state.records.iter().filter(|record| record.role == Role::Regular);
    let unstarted = |record: &Record| {
        matches!(record.phase, Phase::Waiting(_) | Phase::Starting) && record.last.is_none()
    };
    if regular.any(unstarted) { "Pending" } else { "Running" }
}

fn container_status(state: &PodState, record: &Record, now: Timestamp) -> ContainerStatus {
    let uid = state.pod.metadata.uid.as_deref().unwrap_or_default();
    let id = |attempt| format!("ropewalk://{}", container_id(uid, &record.name, attempt));
    let terminated = |exit: &Exit, attempt| ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(id(attempt)),
            exit_code: exit.code,
            finished_at: Some(Time(exit.finished_at)),
            message: (!exit.message.is_empty()).then(|| exit.message.clone()),
            reason: Some(exit.reason.as_str().to_owned()),
            signal: None,
            started_at: exit.started_at.map(Time),
        }),
        ..ContainerState::default()
    };
    let waiting = |reason: &str, message: Option<String>| ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ContainerState::default()
    };
    let current = match &record.phase {
        Phase::Waiting(Some((reason, message))) => waiting(reason, Some(message.clone())),
        Phase::Waiting(None) | Phase::Starting => {
            let initialising = record.role == Role::Regular && !initialized(state);
            waiting(if initialising { "PodInitializing" } else { "ContainerCreating" }, None)
        }
        Phase::Running(since) => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(Time(*since)) }),
            ..ContainerState::default()
        },
        Phase::Exited(exit) => match state.backs_off(record, now) {
            Some(until) => waiting("CrashLoopBackOff", Some(backing_off(state, record, exit, until))),
            None => terminated(exit, record.attempt),
        },
    };
    // While it waits for its next attempt, its last one is this.
    let last_exit = record.exit().filter(|_| current.waiting.is_some());
    let last_state = match (last_exit, &record.last) {
        (Some(exit), _) => Some(terminated(exit, record.attempt)),
        (None, Some(exit)) => Some(terminated(exit, record.attempt.saturating_sub(1))),
        (None, None) => None,
    };
    let begun = matches!(record.phase, Phase::Running(_) | Phase::Exited(_));
    ContainerStatus {
        name: record.name.clone(),
        image: record.image.clone(),
        image_id: if begun { image_id(record) } else { String::new() },
        container_id: begun.then(|| id(record.attempt)),
        restart_count: i32::try_from(record.attempt).unwrap_or(i32::MAX),
        ready: is_ready(record),
        started: Some(matches!(record.phase, Phase::Running(_)) && record.started_up),
        last_state,
        state: Some(current),
        ..ContainerStatus::default()
    }
}

/// The kubelet's words.
fn backing_off(state: &PodState, record: &Record, exit: &Exit, until: Timestamp) -> String {
    let meta = &state.pod.metadata;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    format!(
        "back-off {}s restarting failed container={} pod={}_{}({})",
        until.duration_since(exit.finished_at).as_secs(),
        record.name,
        text(&meta.name),
        text(&meta.namespace),
        text(&meta.uid)
    )
}

/// The embedded images have no digests.
fn image_id(record: &Record) -> String {
    if record.image == NOP_IMAGE || record.image == ENTRYPOINT_IMAGE {
        record.image.clone()
    } else {
        record.image_id.clone()
    }
}

fn is_ready(record: &Record) -> bool {
    match (&record.phase, record.role) {
        // A finished init container counts as ready, as the kubelet reports it.
        (Phase::Exited(exit), Role::Init) => exit.reason == ExitReason::Completed,
        (Phase::Running(_), Role::Regular | Role::Sidecar) => record.ready,
        _ => false,
    }
}

fn initialized(state: &PodState) -> bool {
    state.records.iter().all(|record| match record.role {
        Role::Init => record.exit().is_some_and(|exit| exit.code == 0),
        Role::Sidecar => record.attempt > 0 || matches!(record.phase, Phase::Running(_) | Phase::Exited(_)),
        Role::Regular => true,
    })
}

fn conditions(state: &PodState, phase: &str, now: Timestamp) -> Vec<PodCondition> {
    let names = |wanted: &dyn Fn(&Record) -> bool| {
        let found = state.records.iter().filter(|record| wanted(record));
        found.map(|record| record.name.as_str()).collect::<Vec<_>>().join(" ")
    };
    let unready = names(&|record| record.role != Role::Init && !is_ready(record));
    let uninitialized =
        names(&|record| record.role == Role::Init && record.exit().is_none_or(|exit| exit.code != 0));
    let because = |reason: &str, message: String| Some((reason.to_owned(), message));

    let readiness = if unready.is_empty() {
        None
    } else if phase == "Succeeded" {
        because("PodCompleted", String::new())
    } else if phase == "Failed" {
        because("PodFailed", String::new())
    } else {
        because("ContainersNotReady", format!("containers with unready status: [{unready}]"))
    };
    let initialization = if initialized(state) {
        None
    } else {
        because("ContainersNotInitialized", format!("containers with incomplete status: [{uninitialized}]"))
    };
    let scheduling = if state.is_admitted() {
        None
    } else {
        because(
            "Unschedulable",
            "the node runs as many pods as it takes at once; one must end first".to_owned(),
        )
    };
    let starting = match state.volume_failure() {
        Some((reason, message)) => because(reason, message.to_owned()),
        None if state.has_volumes() => None,
        None => because("ContainerCreating", String::new()),
    };
    [
        ("PodReadyToStartContainers", starting),
        ("Initialized", initialization),
        ("Ready", readiness.clone()),
        ("ContainersReady", readiness),
        ("PodScheduled", scheduling),
    ]
    .into_iter()
    .map(|(type_, obstacle)| condition(state, type_, obstacle, now))
    .collect()
}

fn condition(
    state: &PodState,
    type_: &str,
    obstacle: Option<(String, String)>,
    now: Timestamp,
) -> PodCondition {
    let status = if obstacle.is_none() { "True" } else { "False" };
    let before = state.conditions.iter().find(|before| before.type_ == type_ && before.status == status);
    let since = before.and_then(|before| before.last_transition_time.clone()).unwrap_or(Time(now));
    let (reason, message) = obstacle.unzip();
    PodCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason,
        message: message.filter(|message| !message.is_empty()),
        last_transition_time: Some(since),
        ..PodCondition::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::example;
    use crate::machine::{Event, step};
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).expect("in range")
    }

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "uid": "u"},
            "spec": {"restartPolicy": "Never", "initContainers": [{"name": "prepare", "image": "i"}],
                     "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]}
        }))
        .expect("a pod")
    }

    fn exit(code: i32) -> Exit {
        Exit {
            code,
            reason: if code == 0 { ExitReason::Completed } else { ExitReason::Error },
            started_at: Some(at(1)),
            finished_at: at(2),
            message: "[]".into(),
        }
    }

    fn said(state: &mut PodState, type_: &str, now: i64) -> (String, Option<String>, Option<Time>) {
        let found = status(state, &example(), at(now)).conditions.expect("conditions");
        let found = found.into_iter().find(|condition| condition.type_ == type_).expect("the condition");
        (found.status, found.reason, found.last_transition_time)
    }

    #[test]
    fn a_pod_from_start_to_end() {
        let mut state = PodState::new(pod());
        let send = |state: &mut PodState, event| drop(step(state, event, at(0)));
        assert_eq!(said(&mut state, "PodScheduled", 0).0, "False");
        send(&mut state, Event::Admitted);
        assert_eq!(said(&mut state, "PodReadyToStartContainers", 0).0, "False");
        send(&mut state, Event::VolumesReady);
        send(&mut state, Event::Started { name: "prepare".into(), attempt: 0, at: at(0) });
        let shown = status(&mut state, &example(), at(0));
        assert_eq!(shown.phase.as_deref(), Some("Pending"));
        let waiting = &shown.container_statuses.expect("statuses")[0].state.clone().expect("a state");
        assert_eq!(waiting.waiting.as_ref().and_then(|it| it.reason.as_deref()), Some("PodInitializing"));
        send(&mut state, Event::Exited { name: "prepare".into(), attempt: 0, exit: exit(0) });
        for name in ["a", "b"] {
            send(&mut state, Event::Started { name: name.into(), attempt: 0, at: at(1) });
        }
        assert_eq!(phase(&state), "Running");
        assert_eq!(said(&mut state, "Ready", 1), ("True".into(), None, Some(Time(at(1)))));
        send(&mut state, Event::Exited { name: "a".into(), attempt: 0, exit: exit(0) });
        assert_eq!(phase(&state), "Running");
        assert_eq!(said(&mut state, "Initialized", 9).2, Some(Time(at(1))), "unchanged since then");
        send(&mut state, Event::Exited { name: "b".into(), attempt: 0, exit: exit(3) });
        let shown = status(&mut state, &example(), at(5));
        assert_eq!(shown.phase.as_deref(), Some("Failed"));
        let b = &shown.container_statuses.expect("statuses")[1];
        let ended = b.state.as_ref().and_then(|state| state.terminated.as_ref()).expect("terminated");
        assert_eq!(
            (ended.exit_code, ended.reason.as_deref(), ended.message.as_deref()),
            (3, Some("Error"), Some("[]"))
        );
        assert_eq!(b.container_id.as_deref(), Some("ropewalk://u-b-0"));
        assert_eq!(said(&mut state, "Ready", 6).1.as_deref(), Some("PodFailed"));
    }

    #[test]
    fn a_blocked_container_says_why() {
        let mut state = PodState::new(pod());
        for event in [
            Event::Admitted,
            Event::VolumesReady,
            Event::Started { name: "prepare".into(), attempt: 0, at: at(0) },
            Event::Exited { name: "prepare".into(), attempt: 0, exit: exit(0) },
            Event::Blocked {
                name: "a".into(),
                reason: "CreateContainerConfigError",
                message: "configmap \" x\" not found".into(),
            },
        ] {
            step(&mut state, event, at(0));
        }
        let shown = status(&mut state, &example(), at(0));
        assert_eq!(shown.phase.as_deref(), Some("Pending"));
        let waiting = shown.container_statuses.expect("statuses")[0].state.clone().and_then(|it| it.waiting);
        let waiting = waiting.expect("waiting");
        assert_eq!(waiting.reason.as_deref(), Some("CreateContainerConfigError"));
        assert_eq!(waiting.message.as_deref(), Some("configmap \" x\" not found"));
    }

    #[test]
    fn a_container_that_fails_again_and_again_says_when_it_goes_on() {
        let pod = json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"restartPolicy": "Always", "containers": [{"name": "a", "image": "i"}]}
        });
        let mut state = PodState::new(serde_json::from_value(pod).expect("a pod"));
        for event in [Event::Admitted, Event::VolumesReady] {
            step(&mut state, event, at(0));
        }
        for attempt in 0..2 {
            step(&mut state, Event::Started { name: "a".into(), attempt, at: at(1) }, at(1));
            step(&mut state, Event::Exited { name: "a".into(), attempt, exit: exit(3) }, at(2));
        }
        let shown = |state: &mut PodState, now| {
            status(state, &example(), at(now)).container_statuses.expect("statuses")[0].clone()
        };
        let found = shown(&mut state, 3);
        let waiting = found.state.and_then(|state| state.waiting).expect("waiting");
        assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
        let message = "back-off 10s restarting failed container=a pod=p_n(u)";
        assert_eq!(waiting.message.as_deref(), Some(message));
        let last = found.last_state.and_then(|state| state.terminated).expect("an end");
        assert_eq!((last.exit_code, last.container_id.as_deref()), (3, Some("ropewalk://u-a-1")));
        assert_eq!(found.restart_count, 1);
        step(&mut state, Event::Tick, at(12));
        let found = shown(&mut state, 12);
        assert_eq!(found.restart_count, 2);
        assert_eq!(found.last_state.and_then(|state| state.terminated).map(|last| last.exit_code), Some(3));
    }

    #[test]
    fn the_deadline_fails_the_pod() {
        let mut pod = pod();
        pod.spec.as_mut().expect("a spec").active_deadline_seconds = Some(1);
        let mut state = PodState::new(pod);
        step(&mut state, Event::Admitted, at(0));
        step(&mut state, Event::Tick, at(1));
        let shown = status(&mut state, &example(), at(1));
        assert_eq!(
            (shown.phase.as_deref(), shown.reason.as_deref()),
            (Some("Failed"), Some("DeadlineExceeded"))
        );
    }
}

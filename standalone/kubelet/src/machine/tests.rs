use std::time::Duration;

use super::*;
use serde_json::{Value, json};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("in range")
}

fn pod(spec: Value) -> Pod {
    let mut spec = spec;
    if spec.get("restartPolicy").is_none() {
        spec["restartPolicy"] = json!("Never");
    }
    serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}, "spec": spec})).expect("a pod")
}

fn exit(code: i32) -> Exit {
    Exit {
        code,
        reason: if code == 0 { ExitReason::Completed } else { ExitReason::Error },
        started_at: Some(at(0)),
        finished_at: at(1),
        message: String::new(),
    }
}

/// Drives a state and writes commands down as short words.
struct Drive {
    state: PodState,
    now: i64,
}

impl Drive {
    fn new(spec: Value) -> Self {
        Self { state: PodState::new(pod(spec)), now: 0 }
    }

    fn send(&mut self, event: Event) -> Vec<String> {
        let commands = step(&mut self.state, event, at(self.now));
        commands.iter().map(word).collect()
    }

    fn ready(&mut self) -> Vec<String> {
        assert_eq!(self.send(Event::Admitted), ["prepare"]);
        self.send(Event::VolumesReady)
    }

    fn started(&mut self, name: &str, attempt: u32) -> Vec<String> {
        let now = at(self.now);
        self.send(Event::Started { name: name.into(), attempt, at: now })
    }

    fn exited(&mut self, name: &str, attempt: u32, code: i32) -> Vec<String> {
        self.send(Event::Exited { name: name.into(), attempt, exit: exit(code) })
    }

    fn change(&mut self, edit: impl FnOnce(&mut Pod)) -> Vec<String> {
        let mut pod = self.state.pod.clone();
        edit(&mut pod);
        self.send(Event::PodChanged(Box::new(pod)))
    }
}

fn word(command: &Command) -> String {
    match command {
        Command::PrepareVolumes => "prepare".into(),
        Command::RefreshVolumes => "refresh".into(),
        Command::Start { name, attempt } => format!("start {name}/{attempt}"),
        Command::Stop { name, attempt, grace_seconds } => format!("stop {name}/{attempt} in {grace_seconds}"),
        Command::TearDown => "tear down".into(),
        Command::Remove => "remove".into(),
        Command::Announce { severity: _, reason, message } => format!("{reason}: {message}"),
    }
}

const NOTHING: [&str; 0] = [];

fn two_steps() -> Value {
    json!({"initContainers": [{"name": "prepare", "image": "i"}],
           "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]})
}

#[test]
fn init_first_then_all_regular_together() {
    let mut drive = Drive::new(two_steps());
    assert_eq!(drive.ready(), ["start prepare/0"]);
    assert_eq!(drive.started("prepare", 0), NOTHING);
    assert_eq!(drive.exited("prepare", 0, 0), ["start a/0", "start b/0"]);
    drive.started("a", 0);
    drive.started("b", 0);
    assert_eq!(drive.exited("a", 0, 0), NOTHING);
    assert_eq!(drive.exited("b", 0, 0), ["tear down"]);
    assert_eq!(drive.send(Event::TornDown), NOTHING);
    assert!(drive.state.is_finished() && drive.state.is_torn_down());
}

#[test]
fn a_pod_that_has_a_node_is_not_bound_again() {
    let mut drive = Drive::new(json!({"nodeName": "here", "containers": [{"name": "a", "image": "i"}]}));
    assert_eq!(drive.send(Event::Admitted), ["prepare"]);
}

#[test]
fn a_failed_init_container_ends_the_pod() {
    let mut drive = Drive::new(two_steps());
    drive.ready();
    drive.started("prepare", 0);
    assert_eq!(drive.exited("prepare", 0, 1), ["tear down"]);
    assert!(drive.state.is_finished());
}

#[test]
fn late_events_of_an_earlier_attempt_change_nothing() {
    let mut drive =
        Drive::new(json!({"restartPolicy": "OnFailure", "containers": [{"name": "a", "image": "i"}]}));
    drive.ready();
    drive.started("a", 0);
    assert_eq!(drive.exited("a", 0, 1), ["start a/1"], "the first time at once");
    assert_eq!(drive.exited("a", 0, 0), NOTHING);
    assert!(!drive.state.is_finished());
    drive.started("a", 1);
    assert_eq!(drive.exited("a", 1, 1), NOTHING);
    assert_eq!(drive.state.next_wake(), Some(at(10)));
    drive.now = 10;
    assert_eq!(drive.send(Event::Tick), ["start a/2"]);
    drive.started("a", 2);
    assert_eq!(drive.exited("a", 2, 0), ["tear down"]);
}

#[test]
fn a_container_that_is_not_started_again_wakes_nobody() {
    let mut drive = Drive::new(json!({
        "initContainers": [{"name": "prepare", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}],
    }));
    drive.ready();
    drive.started("prepare", 0);
    drive.exited("prepare", 0, 0);
    drive.started("a", 0);
    drive.started("b", 0);
    drive.exited("a", 0, 1);
    assert_eq!(drive.state.next_wake(), None);
}

#[test]
fn the_wait_between_restarts_doubles_and_is_bounded() {
    let mut drive =
        Drive::new(json!({"restartPolicy": "Always", "containers": [{"name": "a", "image": "i"}]}));
    drive.ready();
    let mut waits = Vec::new();
    drive.started("a", 0);
    drive.exited("a", 0, 0);
    for attempt in 1..9 {
        drive.started("a", attempt);
        drive.exited("a", attempt, 0);
        let wake = drive.state.next_wake().expect("a retry is due");
        waits.push(wake.duration_since(at(drive.now)).as_secs());
        drive.now = wake.as_second() - at(0).as_second();
        drive.send(Event::Tick);
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300, 300]);
}

#[test]
fn a_sidecar_is_stopped_by_the_nop_image() {
    let mut drive =
        Drive::new(json!({"containers": [{"name": "step", "image": "i"}, {"name": "side", "image": "i"}]}));
    drive.ready();
    drive.started("step", 0);
    drive.started("side", 0);
    assert_eq!(drive.exited("step", 0, 0), NOTHING);
    let to_nop = |pod: &mut Pod| {
        pod.spec.as_mut().expect("a spec").containers[1].image = Some(NOP_IMAGE.to_owned());
    };
    assert_eq!(drive.change(to_nop), ["stop side/0 in 30"]);
    assert_eq!(drive.change(to_nop), NOTHING, "one stop is enough");
    assert_eq!(drive.exited("side", 0, 137), ["tear down"]);
    let side = drive.state.record("side").expect("the sidecar");
    assert_eq!(side.attempt, 1);
    assert_eq!(side.exit().map(|exit| (exit.code, exit.reason)), Some((0, ExitReason::Completed)));
    assert_eq!(side.last.as_ref().map(|exit| exit.code), Some(137));
}

#[test]
fn a_native_sidecar_runs_beside_and_is_stopped_at_the_end() {
    let mut drive = Drive::new(json!({
        "initContainers": [{"name": "side", "image": "i", "restartPolicy": "Always"}, {"name": "init", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}]}));
    assert_eq!(drive.ready(), ["start side/0"]);
    assert_eq!(drive.started("side", 0), ["start init/0"]);
    drive.started("init", 0);
    assert_eq!(drive.exited("init", 0, 0), ["start a/0"]);
    drive.started("a", 0);
    assert_eq!(drive.exited("a", 0, 0), ["stop side/0 in 30"]);
    assert_eq!(drive.exited("side", 0, 143), ["tear down"]);
}

#[test]
fn deletion_stops_everything_then_removes_the_pod() {
    let mut drive = Drive::new(json!({"terminationGracePeriodSeconds": 5,
        "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]}));
    drive.ready();
    drive.started("a", 0);
    let delete = |pod: &mut Pod| {
        pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(0)));
    };
    assert_eq!(drive.change(delete), ["stop a/0 in 5"]);
    assert_eq!(
        drive.started("b", 0),
        ["stop b/0 in 5"],
        "one that was still starting is stopped when it runs"
    );
    assert_eq!(drive.exited("a", 0, 143), NOTHING);
    assert_eq!(drive.exited("b", 0, 137), ["tear down"]);
    assert_eq!(drive.send(Event::TornDown), ["remove"]);
}

#[test]
fn a_pod_that_vanishes_is_killed_at_once() {
    let mut drive = Drive::new(json!({"containers": [{"name": "a", "image": "i"}]}));
    drive.ready();
    drive.started("a", 0);
    assert_eq!(drive.send(Event::PodGone), ["stop a/0 in 0"]);
    assert_eq!(drive.exited("a", 0, 137), ["tear down"]);
    assert_eq!(drive.send(Event::TornDown), NOTHING, "there is nothing to remove");
}

#[test]
fn deletion_before_admission_removes_at_once() {
    let mut drive = Drive::new(json!({"containers": [{"name": "a", "image": "i"}]}));
    let delete = |pod: &mut Pod| {
        pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(0)));
    };
    assert_eq!(drive.change(delete), ["remove"]);
}

#[test]
fn deletion_while_volumes_are_made_waits_for_them() {
    let mut drive = Drive::new(json!({"containers": [{"name": "a", "image": "i"}]}));
    assert_eq!(drive.send(Event::Admitted), ["prepare"]);
    assert_eq!(drive.send(Event::PodGone), NOTHING);
    assert_eq!(drive.send(Event::VolumesReady), ["tear down"]);
}

#[test]
fn the_deadline_stops_the_pod() {
    let mut drive =
        Drive::new(json!({"activeDeadlineSeconds": 60, "containers": [{"name": "a", "image": "i"}]}));
    drive.ready();
    drive.started("a", 0);
    assert_eq!(drive.state.next_wake(), Some(at(60)));
    drive.now = 60;
    assert_eq!(drive.send(Event::Tick), ["stop a/0 in 30"]);
    assert_eq!(drive.exited("a", 0, 137), ["tear down"]);
    assert_eq!(drive.state.next_wake(), None);
}

#[test]
fn a_network_that_cannot_be_made_is_tried_again() {
    let mut drive = Drive::new(json!({"containers": [{"name": "a", "image": "i"}]}));
    drive.send(Event::Admitted);
    let failed = drive.send(Event::NetworkFailed("no address is free".into()));
    assert_eq!(failed, ["FailedCreatePodSandBox: no address is free"]);
    assert_eq!(drive.state.volume_failure(), Some(("FailedCreatePodSandBox", "no address is free")));
    drive.now = 10;
    assert_eq!(drive.send(Event::Tick), ["prepare"]);
    assert_eq!(drive.send(Event::VolumesReady), ["start a/0"]);
}

#[test]
fn what_is_missing_is_retried_when_it_appears() {
    let mut drive = Drive::new(json!({"containers": [{"name": "a", "image": "i"}]}));
    drive.send(Event::Admitted);
    let failed = drive.send(Event::VolumesFailed("configmap \"x\" not found".into()));
    assert_eq!(failed, ["FailedMount: configmap \"x\" not found"]);
    assert!(drive.state.waits_for_objects());
    assert_eq!(drive.send(Event::ObjectsChanged), ["prepare"]);
    assert_eq!(drive.send(Event::VolumesReady), ["start a/0"]);
    let blocked = drive.send(Event::Blocked {
        name: "a".into(),
        reason: "CreateContainerConfigError",
        message: "secret \"s\" not found".into(),
    });
    assert_eq!(blocked, ["Failed: Error: secret \"s\" not found"]);
    assert!(drive.state.waits_for_objects());
    assert_eq!(drive.send(Event::ObjectsChanged), ["start a/0"]);
    let again = drive.send(Event::Blocked {
        name: "a".into(),
        reason: "CreateContainerConfigError",
        message: "secret \"s\" not found".into(),
    });
    assert_eq!(again, NOTHING, "the same failure is announced once");
    // Two failures before this one: 10 s, 20 s, and now 40 s.
    assert_eq!(drive.state.next_wake(), Some(at(40)));
    drive.now = 40;
    assert_eq!(drive.send(Event::Tick), ["start a/0"]);
}

#[test]
fn changed_metadata_refreshes_the_downward_volumes() {
    let mut drive = Drive::new(json!({"containers": [{"name": "a", "image": "i"}]}));
    drive.ready();
    let annotate = |pod: &mut Pod| pod.metadata.annotations = Some([("k".to_owned(), "v".to_owned())].into());
    assert_eq!(drive.change(annotate), ["refresh"]);
    assert_eq!(drive.change(annotate), NOTHING);
}

#[test]
fn metadata_that_changes_while_volumes_are_made_reaches_them() {
    let mut drive = Drive::new(json!({"containers": [{"name": "a", "image": "i"}]}));
    drive.send(Event::Admitted);
    let annotate = |pod: &mut Pod| pod.metadata.annotations = Some([("k".to_owned(), "v".to_owned())].into());
    assert_eq!(drive.change(annotate), NOTHING);
    assert_eq!(drive.send(Event::VolumesReady), ["refresh", "start a/0"]);
}

#[test]
fn writes_wait_for_starts_but_not_for_ends() {
    let mut drive = Drive::new(two_steps());
    drive.ready();
    assert!(drive.state.is_unsettled());
    drive.started("prepare", 0);
    assert!(!drive.state.is_unsettled());
    drive.exited("prepare", 0, 0);
    drive.started("a", 0);
    assert!(drive.state.is_unsettled(), "b is still starting");
    drive.exited("a", 0, 0);
    assert!(!drive.state.is_unsettled(), "the end of a step is news");
}

fn waiting<'a>(drive: &'a Drive, name: &str) -> Option<(&'static str, &'a str)> {
    match &drive.state.record(name).expect("a record").phase {
        Phase::Waiting(Some((reason, message))) => Some((reason, message)),
        _ => None,
    }
}

fn refused() -> ImageError {
    ImageError::Pull { image: "i".into(), detail: "registry \"r\" answers 500".into() }
}

#[test]
fn an_image_that_is_not_given_is_asked_for_again_after_ever_longer_pauses() {
    let mut drive =
        Drive::new(json!({"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "j"}]}));
    assert_eq!(drive.ready(), ["start a/0", "start b/0"]);
    drive.started("b", 0);
    let no_image = |drive: &mut Drive| drive.send(Event::NoImage { name: "a".into(), error: refused() });
    for (failure, pause) in [10, 20, 40, 80, 160, 300, 300].into_iter().enumerate() {
        let announced = no_image(&mut drive);
        let expected =
            ["Failed: Failed to pull image \"i\": registry \"r\" answers 500", "Failed: Error: ErrImagePull"];
        assert_eq!(announced, if failure == 0 { &expected[..] } else { &[] }, "the same is no news");
        assert_eq!(waiting(&drive, "a"), Some(("ErrImagePull", "registry \"r\" answers 500")));
        // What else the pod refers to says nothing about its images.
        assert_eq!(drive.send(Event::ObjectsChanged), NOTHING);
        assert!(!drive.state.waits_for_objects());
        assert_eq!(drive.state.next_wake(), Some(at(drive.now + 1)));
        drive.now += 1;
        let announced = drive.send(Event::Tick);
        let expected = ["BackOff: Back-off pulling image \"i\"", "Failed: Error: ImagePullBackOff"];
        assert_eq!(announced, if failure == 0 { &expected[..] } else { &[] }, "the same is no news");
        let paused = "Back-off pulling image \"i\": ErrImagePull: registry \"r\" answers 500";
        assert_eq!(waiting(&drive, "a"), Some(("ImagePullBackOff", paused)));
        assert_eq!(drive.state.next_wake(), Some(at(drive.now + pause - 1)));
        drive.now += pause - 2;
        assert_eq!(drive.send(Event::Tick), NOTHING);
        drive.now += 1;
        assert_eq!(drive.send(Event::Tick), ["start a/0"]);
        assert_eq!(drive.state.next_wake(), None);
    }
    drive.send(Event::HasImage { name: "a".into(), id: "r/i@sha256:00".into() });
    drive.started("a", 0);
    assert_eq!(drive.state.record("a").expect("a record").image_id, "r/i@sha256:00");
}

#[test]
fn an_image_that_may_not_be_asked_for_is_waited_for() {
    for (error, reason, event) in [
        (ImageError::NeverPull("i".into()), "ErrImageNeverPull", "ErrImageNeverPull"),
        (ImageError::Name { image: "I".into(), detail: "no".into() }, "InvalidImageName", "InspectFailed"),
    ] {
        let mut drive = Drive::new(json!({"containers": [{"name": "a", "image": "i"}]}));
        drive.ready();
        let text = error.to_string();
        let announced = drive.send(Event::NoImage { name: "a".into(), error });
        assert_eq!(announced, [format!("{event}: {text}"), format!("Failed: Error: {reason}")]);
        drive.now += 9;
        drive.send(Event::Tick);
        assert_eq!(waiting(&drive, "a"), Some((reason, text.as_str())), "it stays what it is");
        drive.now += 1;
        assert_eq!(drive.send(Event::Tick), ["start a/0"]);
    }
}

#[test]
fn pulls_are_told_in_the_words_of_the_kubelet() {
    let mut drive = Drive::new(json!({"containers": [{"name": "a", "image": "i"}]}));
    drive.ready();
    let pull = |pull| Event::Pull { image: "i".into(), pull };
    assert_eq!(
        drive.send(pull(Pull::Unneeded)),
        ["Pulled: Container image \"i\" already present on machine and can be accessed by the pod"]
    );
    assert!(drive.send(pull(Pull::Unneeded)).is_empty(), "another container with it is no news");
    assert_eq!(drive.send(pull(Pull::Begun)), ["Pulling: Pulling image \"i\""]);
    let (took, with_waiting) = (Duration::from_millis(1_234), Duration::from_secs(2));
    let done = Pull::Done { took, with_waiting, bytes: 4096 };
    assert_eq!(
        drive.send(pull(done)),
        ["Pulled: Successfully pulled image \"i\" in 1.234s (2s including waiting). Image size: 4096 bytes."]
    );
    let kinds = |drive: &mut Drive, event: Event| -> Vec<&'static str> {
        let commands = step(&mut drive.state, event, at(drive.now));
        let kind = |command: &Command| match command {
            Command::Announce { severity, .. } => Some(severity.as_str()),
            _ => None,
        };
        commands.iter().filter_map(kind).collect()
    };
    let again = Pull::Done { took, with_waiting, bytes: 1 };
    assert_eq!(kinds(&mut drive, pull(again)), ["Normal"]);
    assert_eq!(
        kinds(&mut drive, Event::NoImage { name: "a".into(), error: refused() }),
        ["Warning", "Warning"]
    );
    drive.now += 1;
    assert_eq!(kinds(&mut drive, Event::Tick), ["Normal", "Warning"]);
}

#[test]
fn a_pod_has_no_more_events_than_a_kubelet_sends() {
    let mut drive = Drive::new(json!({"containers": [{"name": "a", "image": "i"}]}));
    drive.ready();
    let mut told = |now: i64, bytes: u64| {
        let (took, with_waiting) = (Duration::ZERO, Duration::ZERO);
        drive.now = now;
        drive.send(Event::Pull { image: "i".into(), pull: Pull::Done { took, with_waiting, bytes } }).len()
    };
    assert_eq!((0..100).map(|bytes| told(0, bytes)).sum::<usize>(), 25);
    assert_eq!(told(299, 100), 0);
    assert_eq!((told(300, 101), told(300, 102)), (1, 0), "one more every five minutes");
    assert_eq!(told(600, 101), 0, "the same is no news");
    assert_eq!((200..300).map(|bytes| told(1_000_000, bytes)).sum::<usize>(), 25);
}

#[test]
fn a_pod_that_takes_too_much_of_the_disk_is_killed_and_says_so() {
    let mut drive = Drive::new(json!({
        "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
        "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}],
    }));
    drive.ready();
    drive.started("a", 0);
    drive.started("b", 0);
    let why = "Container a exceeded its local ephemeral storage limit \"1Mi\". ";
    assert_eq!(
        drive.send(Event::Evicted(why.into())),
        [format!("Evicted: {why}").as_str(), "stop a/0 in 0", "stop b/0 in 0"]
    );
    let shown = |drive: &mut Drive| {
        let status = crate::status::status(&mut drive.state, &crate::facts::example(), at(drive.now));
        (status.phase, status.reason, status.message)
    };
    let evicted = (Some("Failed".into()), Some("Evicted".into()), Some(why.into()));
    assert_eq!(shown(&mut drive), evicted);
    drive.exited("a", 0, 137);
    assert_eq!(drive.exited("b", 0, 137), ["tear down"], "nothing is started again");
    assert_eq!(shown(&mut drive), evicted);
    assert_eq!(drive.send(Event::Evicted("again".into())), NOTHING);
}

#[test]
fn a_pod_that_is_not_taken_has_failed_before_anything_of_it_was_made() {
    let mut drive = Drive::new(json!({"containers": [{"name": "a", "image": "i"}]}));
    let rejected = |message: &str| Event::Rejected { reason: "SysctlForbidden", message: message.into() };
    assert_eq!(drive.send(rejected("no")), ["SysctlForbidden: no"]);
    let status = crate::status::status(&mut drive.state, &crate::facts::example(), at(0));
    assert_eq!(
        (status.phase.as_deref(), status.reason.as_deref(), status.message.as_deref()),
        (Some("Failed"), Some("SysctlForbidden"), Some("Pod was rejected: no"))
    );
    assert!(drive.state.is_finished() && drive.state.is_torn_down());

    let mut drive = Drive::new(json!({"containers": [{"name": "a", "image": "i"}]}));
    drive.ready();
    assert_eq!(drive.send(rejected("no")), NOTHING, "it was taken on before");
}

#[test]
fn a_pod_that_waits_for_its_image_can_be_deleted() {
    let mut drive = Drive::new(json!({"containers": [{"name": "a", "image": "i"}]}));
    drive.ready();
    drive.send(Event::NoImage { name: "a".into(), error: refused() });
    let deleted = drive.change(|pod| {
        pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(0)));
    });
    assert_eq!(deleted, ["tear down"]);
    assert_eq!(drive.state.next_wake(), None);
}

#[test]
fn a_startup_probe_comes_before_readiness_and_before_what_waits_for_a_sidecar() {
    let probe = json!({"exec": {"command": ["true"]}});
    let mut drive = Drive::new(json!({
        "initContainers": [{"name": "side", "image": "i", "restartPolicy": "Always", "startupProbe": probe}],
        "containers": [{"name": "a", "image": "i", "startupProbe": probe, "readinessProbe": probe}],
    }));
    assert_eq!(drive.ready(), ["start side/0"]);
    assert_eq!(drive.started("side", 0), NOTHING, "it runs, and has not come up");
    let up = |name: &str| Event::StartedUp { name: name.into(), attempt: 0 };
    assert_eq!(drive.send(up("side")), ["start a/0"]);
    assert!(drive.state.record("side").expect("a record").ready, "it has no other probe");
    drive.started("a", 0);
    drive.send(up("a"));
    let record = drive.state.record("a").expect("a record");
    assert!(record.started_up && !record.ready, "its readiness probe has not been asked");
}

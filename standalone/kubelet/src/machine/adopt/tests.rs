use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;
use crate::NOP_IMAGE;
use crate::machine::{Command, Ending, Event, step};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("in range")
}

fn exit(code: i32, reason: ExitReason) -> Exit {
    Exit { code, reason, started_at: Some(at(0)), finished_at: at(1), message: "said".to_owned() }
}

/// An attempt that was prepared and no more.
fn prepared(name: &str, attempt: u32) -> Found {
    Found {
        name: name.to_owned(),
        attempt,
        image: "i".to_owned(),
        image_id: "r.example/i@sha256:00".to_owned(),
        begun: false,
        started_at: None,
        supervised: false,
        stopping: false,
        exit: None,
        last: None,
    }
}

fn begun(name: &str, attempt: u32) -> Found {
    Found { begun: true, started_at: Some(at(0)), ..prepared(name, attempt) }
}

fn running(name: &str, attempt: u32) -> Found {
    Found { supervised: true, ..begun(name, attempt) }
}

fn ended(name: &str, attempt: u32, code: i32) -> Found {
    let reason = if code == 0 { ExitReason::Completed } else { ExitReason::Error };
    Found { exit: Some(exit(code, reason)), ..begun(name, attempt) }
}

/// What the API server was told of a container.
fn told(attempt: u32, state: &Value) -> ContainerStatus {
    let status = json!({"name": "a", "image": "i", "imageID": "", "ready": false, "restartCount": attempt, "state": state});
    serde_json::from_value(status).expect("a status")
}

fn waits() -> Value {
    json!({"waiting": {"reason": "ContainerCreating"}})
}

fn runs() -> Value {
    json!({"running": {"startedAt": at(0)}})
}

fn terminated(code: i32, reason: &str) -> Value {
    json!({"terminated": {
        "exitCode": code, "reason": reason, "message": "said", "startedAt": at(0), "finishedAt": at(1)}})
}

#[test]
fn what_becomes_of_each_container() {
    let completed = Adoption::Report(exit(0, ExitReason::Completed));
    let failed = Adoption::Report(exit(3, ExitReason::Error));
    let starting = Found { supervised: true, ..prepared("a", 0) };
    for (case, found, told, expected) in vec![
        ("nobody has heard of it", None, None, Adoption::Start),
        ("it waited for its turn", None, Some(told(0, &waits())), Adoption::Start),
        ("it was prepared", Some(prepared("a", 0)), Some(told(0, &waits())), Adoption::Start),
        ("its supervisor has not begun yet", Some(starting), Some(told(0, &waits())), Adoption::Follow),
        ("it runs", Some(running("a", 0)), Some(told(0, &runs())), Adoption::Follow),
        ("it runs, untold", Some(running("a", 0)), None, Adoption::Follow),
        ("it ended, untold", Some(ended("a", 0, 0)), Some(told(0, &runs())), completed.clone()),
        (
            "it ended and its supervisor is still there",
            Some(Found { supervised: true, ..ended("a", 0, 0) }),
            Some(told(0, &runs())),
            completed.clone(),
        ),
        ("it ended, told", Some(ended("a", 0, 3)), Some(told(0, &terminated(3, "Error"))), failed.clone()),
        ("it was begun, untold", Some(begun("a", 0)), Some(told(0, &waits())), Adoption::Lost),
        ("it was begun, told", Some(begun("a", 0)), Some(told(0, &runs())), Adoption::Lost),
        ("it was told to run, and nothing is left", None, Some(told(0, &runs())), Adoption::Lost),
        (
            "it was told to run, its mark is gone",
            Some(prepared("a", 0)),
            Some(told(0, &runs())),
            Adoption::Lost,
        ),
        ("it was told to have ended", None, Some(told(0, &terminated(0, "Completed"))), completed.clone()),
        ("a newer attempt runs, untold", Some(running("a", 1)), Some(told(0, &runs())), Adoption::Follow),
        (
            "a newer attempt was prepared",
            Some(prepared("a", 1)),
            Some(told(0, &terminated(3, "Error"))),
            Adoption::Start,
        ),
        (
            "a newer attempt needed no process",
            Some(ended("a", 0, 3)),
            Some(told(1, &terminated(0, "Completed"))),
            completed.clone(),
        ),
    ] {
        assert_eq!(adoption(found.as_ref(), told.as_ref()), expected, "{case}");
    }
}

#[test]
fn reasons_are_read_as_they_are_written() {
    for reason in [
        ExitReason::Completed,
        ExitReason::Error,
        ExitReason::OomKilled,
        ExitReason::StartError,
        ExitReason::ContainerCannotRun,
        ExitReason::Unknown,
    ] {
        assert_eq!(ExitReason::read(reason.as_str()), reason);
    }
}

fn state(spec: &Value, status: &Value) -> PodState {
    let pod = json!({"metadata": {"name": "p", "uid": "u"}, "spec": spec, "status": status});
    let pod: Pod = serde_json::from_value(pod).expect("a pod");
    PodState::new(pod)
}

fn two_steps() -> Value {
    json!({"nodeName": "here", "restartPolicy": "Never", "initContainers": [{"name": "prepare", "image": "i"}],
           "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]})
}

fn followed(name: &str, attempt: u32) -> (String, u32, Adoption) {
    (name.to_owned(), attempt, Adoption::Follow)
}

fn start(name: &str, attempt: u32) -> Command {
    Command::Start { name: name.to_owned(), attempt }
}

#[test]
fn what_ran_goes_on_and_what_had_not_begun_starts() {
    let mut state = state(&two_steps(), &json!({"startTime": at(-60)}));
    let found = [ended("prepare", 0, 0), running("a", 0), prepared("b", 0)];
    assert_eq!(state.adopt(&found, at(9)), [followed("a", 0)]);
    assert_eq!(step(&mut state, Event::Admitted, at(9)), [start("b", 0)], "volumes are there");
    let phases: Vec<_> = state.records().iter().map(|record| record.phase.clone()).collect();
    assert_eq!(phases[1..], [Phase::Running(at(0)), Phase::Starting], "nobody reads that \"a\" waits again");
    assert_eq!(state.start_time, Some(at(-60)), "its deadline is what it was");
}

#[test]
fn files_that_follow_the_metadata_are_written_again() {
    let mut state = state(&two_steps(), &json!({}));
    state.adopt(&[ended("prepare", 0, 0), running("a", 0), running("b", 0)], at(9));
    // It may have changed while nobody was there, or right before the process was killed.
    let same = || Event::PodChanged(Box::new(state.pod().clone()));
    let (first, second) = (same(), same());
    assert_eq!(step(&mut state, first, at(9)), [Command::RefreshVolumes]);
    assert_eq!(step(&mut state, second, at(9)), []);
}

#[test]
fn an_init_container_that_ended_meanwhile_is_followed_by_the_next_start() {
    let mut state = state(&two_steps(), &json!({}));
    assert_eq!(state.adopt(&[ended("prepare", 0, 0)], at(9)), []);
    // No container lives, so the machine may have been restarted, and volumes in memory be gone.
    assert_eq!(step(&mut state, Event::Admitted, at(9)), [Command::PrepareVolumes]);
    assert_eq!(step(&mut state, Event::VolumesReady, at(9)), [start("a", 0), start("b", 0)]);
}

#[test]
fn a_pod_that_ended_meanwhile_is_reported_and_torn_down() {
    let mut state = state(&two_steps(), &json!({}));
    let found = [ended("prepare", 0, 0), ended("a", 0, 0), ended("b", 0, 3)];
    assert_eq!(state.adopt(&found, at(9)), []);
    assert!(state.is_finished() && !state.is_unsettled());
    assert_eq!(step(&mut state, Event::Admitted, at(9)), [Command::TearDown]);
}

#[test]
fn a_lost_container_ends_the_pod() {
    let mut state = state(&two_steps(), &json!({}));
    let found = [ended("prepare", 0, 0), begun("a", 0), running("b", 0)];
    assert_eq!(state.adopt(&found, at(9)), [("a".to_owned(), 0, Adoption::Lost), followed("b", 0)]);
    assert_eq!(step(&mut state, Event::Admitted, at(9)), []);
    let lost = Event::Exited { name: "a".into(), attempt: 0, exit: exit(137, ExitReason::Unknown) };
    let stop = Command::Stop { name: "b".into(), attempt: 0, grace_seconds: 30 };
    assert_eq!(step(&mut state, lost, at(9)), [stop]);
    assert_eq!(state.ending(), Some(Ending::Lost));
}

#[test]
fn a_lost_container_is_not_waited_for_by_those_not_begun() {
    let mut state = state(&two_steps(), &json!({}));
    let found =
        [ended("prepare", 0, 0), Found { exit: Some(exit(137, ExitReason::Unknown)), ..begun("a", 0) }];
    assert_eq!(state.adopt(&found, at(9)), []);
    assert_eq!(step(&mut state, Event::Admitted, at(9)), [Command::TearDown], "\"b\" is not started");
}

#[test]
fn the_wait_for_a_restart_begins_anew() {
    let spec = json!({"nodeName": "here", "restartPolicy": "OnFailure", "containers": [{"name": "a", "image": "i"}]});
    let mut state = state(&spec, &json!({}));
    let found = Found { last: Some(exit(4, ExitReason::Error)), ..ended("a", 1, 3) };
    assert_eq!(state.adopt(&[found], at(0)), []);
    assert_eq!(state.next_wake(), Some(at(10)));
    assert_eq!(state.records()[0].last.as_ref().map(|exit| exit.code), Some(4));
}

fn with_sidecar(image: &str) -> Value {
    json!({"nodeName": "here", "restartPolicy": "Never",
           "containers": [{"name": "a", "image": "i"}, {"name": "side", "image": image}]})
}

#[test]
fn a_sidecar_whose_image_was_changed_is_still_stopped() {
    let mut state = state(&with_sidecar(NOP_IMAGE), &json!({}));
    let found = [ended("a", 0, 0), Found { stopping: true, ..running("side", 0) }];
    assert_eq!(state.adopt(&found, at(9)), [followed("side", 0)]);
    // Whether it was asked before the process was killed is not known.
    let stop = Command::Stop { name: "side".into(), attempt: 0, grace_seconds: 30 };
    assert_eq!(step(&mut state, Event::Admitted, at(9)), [stop]);
}

#[test]
fn a_stopped_sidecar_is_replaced_once() {
    let found = [ended("a", 0, 0), Found { stopping: true, ..ended("side", 0, 137) }];
    let mut before = state(&with_sidecar(NOP_IMAGE), &json!({}));
    assert_eq!(before.adopt(&found, at(9)), []);
    step(&mut before, Event::Admitted, at(9));
    let told = json!({"containerStatuses": [{
        "name": "side", "image": NOP_IMAGE, "imageID": "", "ready": false, "restartCount": 1,
        "state": terminated(0, "Completed")}]});
    let mut after = state(&with_sidecar(NOP_IMAGE), &told);
    assert_eq!(after.adopt(&found, at(9)), []);
    for state in [before, after] {
        let side = state.record("side").expect("the sidecar");
        assert_eq!((side.attempt, side.exit().map(|exit| exit.code)), (1, Some(0)));
        assert_eq!(side.last.as_ref().map(|exit| exit.code), Some(137));
    }
}

#[test]
fn a_probe_that_was_content_is_still() {
    let probed =
        json!({"nodeName": "here", "containers": [{"name": "a", "image": "i", "readinessProbe": {}}]});
    for ready in [true, false] {
        let told = json!({"containerStatuses": [{
            "name": "a", "image": "i", "imageID": "", "ready": ready, "restartCount": 0, "state": runs()}]});
        let mut state = state(&probed, &told);
        state.adopt(&[running("a", 0)], at(9));
        assert_eq!(state.records()[0].ready, ready);
    }
}

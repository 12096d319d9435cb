//! The reason of a failed run, and what holds a pod up (contract 5.11 and 12.7).

use rstest::rstest;

use super::*;
use crate::taskrun::diagnosis;

/// A run with steps a and b, sidecar s and an injected container, whose pod has this status: `terminated` per
/// container as `name: code [reason [message]]`.
fn pod_of(status: &str) -> Pod {
    let mut world = World::new(
        "
metadata: {name: t}
spec:
  taskSpec:
    steps: [{name: a, image: i, script: x}, {name: b, image: i, script: x}]
    sidecars: [{name: s, image: i}]
",
    );
    world.settle();
    let mut pod = world.pods[0].clone();
    pod["spec"]["containers"].as_array_mut().expect("containers").push(json!({"name": "istio-proxy"}));
    pod["spec"]["initContainers"] = json!([{"name": "prepare"}, {"name": "sidecar-native"}]);
    let short: Value = serde_saphyr::from_str(status).expect("YAML");
    let expand = |list: &Value| -> Vec<Value> {
        let entries = list.as_object().into_iter().flatten();
        entries
            .map(|(name, end)| {
                let terminated = json!({
                    "exitCode": end[0], "reason": end[1], "message": end[2],
                    "startedAt": "2026-01-01T00:00:02Z",
                });
                json!({
                    "name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"terminated": terminated},
                })
            })
            .collect()
    };
    pod["status"] = json!({
        "phase": short["phase"].as_str().unwrap_or("Failed"),
        "reason": short["reason"],
        "message": short["message"],
        "containerStatuses": expand(&short["ends"]),
        "initContainerStatuses": expand(&short["init"]),
    });
    serde_json::from_value(pod).expect("a pod")
}

#[rstest]
#[case(
    "ends: {step-a: [1, Error], step-b: [1, Error]}",
    "StepFailed",
    "\"step-a\" exited with code 1: Error"
)]
#[case(
    "ends: {step-a: [1, Error], step-b: [137, OOMKilled]}",
    "StepOOM",
    "\"step-b\" exited with code 137: OOMKilled"
)]
#[case(
    "ends: {step-b: [137, OOMKilled], sidecar-s: [137, OOMKilled]}",
    "SidecarOOM",
    "\"sidecar-s\" exited with code 137: OOMKilled"
)]
#[case(
    "ends: {step-a: [1, Error], sidecar-s: [2, Error]}",
    "SidecarFailed",
    "\"sidecar-s\" exited with code 2: Error"
)]
#[case(
    "ends: {step-b: [137, OOMKilled], sidecar-s: [2, Error]}",
    "StepOOM",
    "\"step-b\" exited with code 137: OOMKilled"
)]
#[case(
    "ends: {step-a: [0, Completed], step-b: [0, Completed], sidecar-s: [2, Error]}",
    "SidecarFailed",
    "\"sidecar-s\" exited with code 2: Error"
)]
#[case(
    "init: {prepare: [1, Error]}",
    "InitContainerFailed",
    "init container failed, \"prepare\" exited with code 1: Error"
)]
#[case(
    "init: {prepare: [137, OOMKilled]}",
    "InitContainerOOM",
    "init container failed, \"prepare\" exited with code 137: OOMKilled"
)]
#[case(
    "{init: {sidecar-native: [2, Error]}, ends: {step-a: [1, Error]}}",
    "SidecarFailed",
    "init container failed, \"sidecar-native\" exited with code 2: Error"
)]
#[case(
    "ends: {step-a: [1, Error, '[{\"key\":\"Reason\",\"value\":\"TimeoutExceeded\",\"type\":3}]']}",
    "StepFailed",
    "\"step-a\" exited because the step exceeded the specified timeout limit"
)]
#[case(
    "ends: {step-a: [0, Completed], istio-proxy: [1, Error]}",
    "Failed",
    "build failed for unspecified reasons."
)]
#[case("{message: pod words, ends: {istio-proxy: [1, Error]}}", "Failed", "pod words")]
#[case("{reason: Evicted, message: low on disk, ends: {step-a: [1, Error]}}", "PodEvicted", "low on disk")]
#[case("ends: {step-a: [1]}", "StepFailed", "\"step-a\" exited with code 1")]
fn one_container_is_to_blame(#[case] status: &str, #[case] reason: &str, #[case] message: &str) {
    let pod = pod_of(status);
    assert!(crate::taskrun::failure::is_failed(&pod));
    assert_eq!(crate::taskrun::failure::explain(&pod), (reason, message.to_owned()));
}

#[test]
fn a_failed_sidecar_does_not_matter_while_the_pod_lives() {
    let pod = pod_of("{phase: Running, ends: {step-a: [0, C], step-b: [0, C], sidecar-s: [2, Error]}}");
    assert!(crate::taskrun::containers::is_complete(&pod));
    assert!(!crate::taskrun::failure::is_failed(&pod));
}

#[test]
fn a_step_out_of_memory_ends_the_run_at_once() {
    let mut world = World::new(
        "
metadata: {name: t}
spec:
  taskSpec:
    steps: [{name: a, image: i, script: x}, {name: b, image: i, script: x}]
",
    );
    world.settle();
    world.pod_runs();
    world.pods[0]["status"]["containerStatuses"][0]["state"] =
        json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
    world.settle();
    assert_eq!(world.said(), "False/StepOOM: \"step-a\" exited with code 137: OOMKilled");
    assert_eq!(world.status().steps[0].termination_reason, "", "it left no message");
}

#[test]
fn an_ignored_exit_code_is_no_failure() {
    let mut world = World::new(ONE_STEP);
    world.settle();
    world.steps_exit(&[0]);
    world.pods[0]["status"]["containerStatuses"][0]["state"]["terminated"]["message"] =
        json!(r#"[{"key":"ExitCode","value":"3","type":3}]"#);
    world.settle();
    assert_eq!(world.succeeded().status, "True");
    let step = world.status().steps.remove(0);
    assert_eq!(step.termination_reason, "Continued");
    let terminated = step.terminated.expect("terminated");
    assert_eq!((terminated.exit_code, terminated.reason.as_deref()), (3, Some("Completed")));
    assert_eq!(terminated.message, None);
}

#[test]
fn a_pipeline_task_may_ignore_the_failure() {
    let mut world = World::new(ONE_STEP);
    world.run["metadata"]["annotations"] = json!({"pipeline.tekton.dev/pipeline-task-on-error": "continue"});
    world.settle();
    world.steps_exit(&[1]);
    world.settle();
    assert_eq!(world.said(), "False/FailureIgnored: \"step-a\" exited with code 1: Error");
}

fn waits(reason: &str, message: &str) -> World {
    let mut world = World::new(ONE_STEP);
    world.settle();
    world.pods[0]["status"] = json!({"phase": "Pending", "containerStatuses": [{
        "name": "step-a", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": reason, "message": message}},
    }]});
    world.settle();
    world
}

#[test]
fn a_first_pull_error_is_waited_out() {
    let world = waits("ErrImagePull", "no such host");
    assert_eq!(
        world.said(),
        "Unknown/PullImageFailed: build step \"step-a\" is pending with reason \"no such host\""
    );
    assert_eq!(world.pods.len(), 1);
}

#[rstest]
#[case(
    "ImagePullBackOff",
    "TaskRunImagePullFailed",
    "the step \"a\" in TaskRun \"run\" failed to pull the image \"\". The pod errored with the message: \"back off.\""
)]
#[case(
    "InvalidImageName",
    "TaskRunImagePullFailed",
    "the step \"a\" in TaskRun \"run\" failed to pull the image \"\". The pod errored with the message: \"back off.\""
)]
#[case(
    "CreateContainerError",
    "PodCreationFailed",
    "the step \"a\" in TaskRun \"run\" failed to start. The pod errored with the message: \"back off.\""
)]
#[case(
    "CreateContainerConfigError",
    "CreateContainerConfigError",
    "Failed to create pod due to config error"
)]
fn a_container_that_cannot_start_fails_the_run(
    #[case] waiting: &str,
    #[case] reason: &str,
    #[case] message: &str,
) {
    let world = waits(waiting, "back off");
    assert_eq!(world.said(), format!("False/{reason}: {message}"));
    assert!(world.pods.is_empty(), "the pod is deleted");
    assert!(world.status().completion_time.is_some());
    let diagnosis = world.diagnosis().expect("a diagnosis");
    assert_eq!(diagnosis, format!("container \"step-a\" cannot start: {waiting}: back off"));
}

#[test]
fn the_init_container_may_lack_its_configuration_too() {
    let mut world = World::new(ONE_STEP);
    world.settle();
    world.pods[0]["spec"]["initContainers"] = json!([{"name": "prepare"}]);
    world.pod_says(
        "{phase: Pending, initContainerStatuses: [{name: prepare, image: i, imageID: '', ready: false, restartCount: 0, \
         state: {waiting: {reason: CreateContainerConfigError, message: 'configmap \" x\" not found'}}}]}",
    );
    world.settle();
    assert_eq!(world.said(), "False/CreateContainerConfigError: Failed to create pod due to config error");
    assert_eq!(
        world.diagnosis().expect("a diagnosis"),
        "container \"prepare\" cannot start: CreateContainerConfigError: configmap \" x\" not found"
    );
}

#[test]
fn a_subpath_race_is_waited_out() {
    let world = waits("CreateContainerConfigError", "failed to create subPath directory for x");
    assert_eq!(world.said(), "Unknown/Pending: Waiting for subPath directory creation to complete");
}

#[test]
fn a_blank_in_a_name_can_be_seen() {
    let mut world = World::new(
        "
metadata: {name: t}
spec:
  taskSpec:
    steps:
    - name: a
      image: i
      script: x
      envFrom: [{configMapRef: {name: ' settings'}}]
",
    );
    world.settle();
    world.pass(6);
    world.pod_says("{phase: Pending}");
    world.settle();
    assert_eq!(world.said(), "Unknown/Pending: Pending");
    assert_eq!(
        world.diagnosis().expect("a diagnosis"),
        "ConfigMap name \" settings\" begins or ends with a blank, and no ConfigMap can"
    );
}

#[rstest]
#[case(
    "{type: PodScheduled, status: 'False', message: '0/1 nodes: Insufficient cpu'}",
    "Unknown/ExceededNodeResources: TaskRun Pod exceeded available resources"
)]
#[case(
    "{type: PodScheduled, status: 'False', message: no node matches}",
    "Unknown/Pending: pod status \"PodScheduled\":\"False\"; message: \"no node matches\""
)]
#[case(
    "{type: PodScheduled, status: 'False', message: '1 pod has unbound immediate PersistentVolumeClaims.'}",
    "Unknown/Started: "
)]
#[case("{type: Initialized, status: 'False', message: 'incomplete: [prepare]'}", "Unknown/Started: ")]
fn an_unschedulable_pod_is_reported_at_once(#[case] condition: &str, #[case] said: &str) {
    let mut world = World::new(ONE_STEP);
    world.settle();
    world.pod_says(&format!("{{phase: Pending, conditions: [{condition}]}}"));
    world.settle();
    assert_eq!(world.said(), said);
}

#[test]
fn a_slow_pod_is_reported_after_a_while() {
    let mut world = World::new(ONE_STEP);
    world.settle();
    world.pod_says(
        "{phase: Pending, conditions: [{type: Initialized, status: 'False', message: 'incomplete: [prepare]'}]}",
    );
    world.settle();
    assert_eq!(world.said(), "Unknown/Started: ");
    world.pass(30);
    world.settle();
    assert_eq!(
        world.said(),
        "Unknown/Pending: pod status \"Initialized\":\"False\"; message: \"incomplete: [prepare]\""
    );
}

#[rstest]
#[case(
    "ends: {step-a: [1, Error, '[{\"key\":\"Failure\",\"value\":\"cannot start \\\"no-such\\\"\",\"type\":3}]']}",
    Some("container \"step-a\": cannot start \"no-such\"")
)]
#[case(
    "init: {prepare: [128, ContainerCannotRun, no such image]}",
    Some("container \"prepare\": no such image")
)]
// What a container wrote itself is never repeated.
#[case("ends: {step-a: [1, Error, my secret words]}", None)]
#[case("ends: {step-a: [0, Completed, fine]}", None)]
fn what_never_ran_is_diagnosed(#[case] status: &str, #[case] expected: Option<&str>) {
    assert_eq!(diagnosis::of_failure(&pod_of(status)).as_deref(), expected);
}

/// By when deletion was asked for, a grace period before its timestamp, against when the step ended.
#[rstest]
#[case::while_it_ran(Some("2026-01-01T00:00:35Z"), Some("2026-01-01T00:00:05Z"), true)]
#[case::before_it_told(Some("2026-01-01T00:00:35Z"), None, true)]
#[case::after_its_end(Some("2026-01-01T00:00:36Z"), Some("2026-01-01T00:00:05Z"), false)]
#[case::never(None, Some("2026-01-01T00:00:05Z"), false)]
fn a_deleted_pod_is_diagnosed(
    #[case] deletion: Option<&str>,
    #[case] finished: Option<&str>,
    #[case] expected: bool,
) {
    let ends = "ends: {step-a: [143, Error, ''], step-b: [1, Error, '']}";
    let mut pod = serde_json::to_value(pod_of(ends)).expect("JSON");
    pod["metadata"]["deletionTimestamp"] = json!(deletion);
    pod["metadata"]["deletionGracePeriodSeconds"] = json!(deletion.map(|_| 30));
    for step in pod["status"]["containerStatuses"].as_array_mut().into_iter().flatten() {
        step["state"]["terminated"]["finishedAt"] = json!(finished);
    }
    let pod = serde_json::from_value(pod).expect("a pod");
    let text = "pod \"t-pod\" was deleted before its steps had ended, as when its node is drained";
    assert_eq!(diagnosis::of_failure(&pod).as_deref(), expected.then_some(text));
}

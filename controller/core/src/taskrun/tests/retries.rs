//! Retries (contract 12.8).

use super::*;

#[test]
fn a_failed_attempt_is_put_aside_and_the_next_has_its_full_time() {
    let mut world = World::new(
        "
metadata: {name: t}
spec:
  retries: 1
  timeout: 10m
  taskSpec:
    results: [{name: r}]
    steps: [{name: a, image: i, script: x}]
",
    );
    world.settle();
    world.pod_runs();
    world.settle();
    world.pass(60);
    world.steps_exit(&[1]);
    world.pods[0]["status"]["containerStatuses"][0]["state"]["terminated"]["message"] =
        json!(r#"[{"key":"r","value":"1","type":1}]"#);
    world.step();
    assert_eq!(world.said(), "Unknown/ToBeRetried: \"step-a\" exited with code 1: Error");
    let status = world.status();
    assert_eq!((status.start_time, status.completion_time), (None, None));
    assert_eq!(status.pod_name, "");
    assert!(status.results.is_empty());
    assert_eq!(status.steps.len(), 1, "still those of the first attempt");
    assert!(status.task_spec.is_some());
    let archived = &status.retries_status[0];
    assert_eq!(archived.pod_name, "t-pod");
    assert!(archived.start_time.is_some() && archived.completion_time.is_some());
    assert_eq!(archived.conditions[0].reason, "StepFailed");
    assert_eq!(archived.results.len(), 1);
    assert!(archived.retries_status.is_empty());

    world.pass(1);
    world.settle();
    assert_eq!(world.said(), "Unknown/Started: \"step-a\" exited with code 1: Error");
    assert_eq!(world.status().pod_name, "t-pod-retry1");
    assert_eq!(world.status().start_time, Some(Time(world.now)));
    assert_eq!(world.pods.len(), 2, "the pod of the first attempt is kept");
    assert_eq!(world.plan().requeue, Some(Duration::from_secs(5)), "the pod may be unseen");

    world.pod_runs();
    world.settle();
    world.steps_exit(&[1]);
    world.settle();
    assert_eq!(world.said(), "False/StepFailed: \"step-a\" exited with code 1: Error");
    let status = world.status();
    assert_eq!(status.retries_status.len(), 1);
    assert!(status.completion_time.is_some());
    assert_eq!(
        world.events,
        [
            "Normal Started: ",
            "Normal Running: Not all Steps in the Task have finished executing",
            "Normal ToBeRetried: \"step-a\" exited with code 1: Error",
            "Normal Started: \"step-a\" exited with code 1: Error",
            "Normal Running: Not all Steps in the Task have finished executing",
            "Warning Failed: \"step-a\" exited with code 1: Error",
        ]
    );
}

#[test]
fn timeouts_and_validation_are_retried_too() {
    let mut world = World::new(
        "
metadata: {name: t}
spec: {retries: 1, timeout: 10s, taskSpec: {steps: [{name: a, image: i, script: x}]}}
",
    );
    world.settle();
    world.pod_runs();
    world.settle();
    world.pass(11);
    world.settle();
    assert_eq!(world.status().retries_status.len(), 1);
    assert_eq!(world.status().pod_name, "t-pod-retry1");
    assert_eq!(world.pods.len(), 1, "the pod of the timed out attempt is deleted");
    world.pass(11);
    world.settle();
    assert_eq!(world.said(), "False/TaskRunTimeout: TaskRun \"t\" failed to finish within \"10s\"");

    let mut world = World::new("{metadata: {name: t}, spec: {retries: 2, taskRef: {name: gone}}}");
    world.settle();
    assert_eq!(world.status().retries_status.len(), 2);
    assert_eq!(world.succeeded().reason, "TaskRunResolutionFailed");
}

#[test]
fn a_cancelled_run_is_not_retried() {
    let mut world = World::new(
        "
metadata: {name: t}
spec: {retries: 3, taskSpec: {steps: [{name: a, image: i, script: x}]}}
",
    );
    world.settle();
    world.steps_exit(&[1]);
    world.step();
    assert_eq!(world.succeeded().reason, "ToBeRetried");
    world.run["spec"]["status"] = json!("TaskRunCancelled");
    world.settle();
    assert_eq!(world.succeeded().reason, "TaskRunCancelled");
    assert_eq!(world.status().retries_status.len(), 1);
}

#[test]
fn a_retry_whose_pod_is_lost_early_is_made_again_although_the_attempt_before_had_started() {
    let mut world = World::new(
        "{metadata: {name: run}, spec: {retries: 1, taskSpec: {steps: [{name: a, image: i, script: x}]}}}",
    );
    world.settle();
    world.steps_exit(&[1]);
    world.settle();
    assert_eq!(world.status().pod_name, "run-pod-retry1");
    world.pods.retain(|pod| pod["metadata"]["name"] != "run-pod-retry1");
    world.pass(6);
    world.settle();
    assert_eq!(world.succeeded().status, "Unknown", "{}", world.said());
    assert!(world.pods.iter().any(|pod| pod["metadata"]["name"] == "run-pod-retry1"));
}

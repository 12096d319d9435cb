//! From created to done, and the ways out.

use super::*;

#[test]
fn a_run_that_goes_well_costs_four_writes() {
    let mut world = World::new(ONE_STEP);
    world.settle();
    assert_eq!(world.said(), "Unknown/Started: ");
    assert_eq!(world.status().pod_name, "run-pod");
    assert_eq!(world.writes, 2, "the pod and one status");

    world.pod_says("{phase: Pending, containerStatuses: [{name: step-a, image: i, imageID: '', ready: false, restartCount: 0, state: {waiting: {reason: PodInitializing}}}]}");
    let plan = world.plan();
    assert!(plan.is_empty(), "a pod on its way is not news: {plan:?}");
    assert_eq!(plan.requeue, Some(Duration::from_secs(5)));

    world.pod_runs();
    world.settle();
    assert_eq!(world.said(), "Unknown/Running: Not all Steps in the Task have finished executing");

    world.steps_exit(&[0]);
    world.settle();
    assert_eq!(world.said(), "True/Succeeded: All Steps have completed executing");
    assert_eq!(world.writes, 4);
    assert_eq!(
        world.events,
        [
            "Normal Started: ",
            "Normal Running: Not all Steps in the Task have finished executing",
            "Normal Succeeded: All Steps have completed executing",
        ]
    );
    let status = world.status();
    assert_eq!(status.completion_time, Some(Time("2026-01-01T00:00:01Z".parse().expect("time"))));
    assert_eq!(status.artifacts, Some(ropewalk_api::Artifacts::default()));
    assert_eq!(status.observed_generation, Some(1));
    assert_eq!(status.steps[0].container, "step-a");
    assert_eq!(status.steps[0].name, "a");
}

#[test]
fn params_and_results_from_create_to_succeeded() {
    let mut world = World::new(
        "
metadata: {name: run}
spec:
  params: [{name: who, value: world}]
  taskSpec:
    params: [{name: who}, {name: greeting, default: hello}]
    results: [{name: text}]
    steps:
    - name: greet
      image: i
      script: |
        echo $(params.greeting) $(params.who) > $(results.text.path)
",
    );
    world.settle();
    let stored = world.status().task_spec.expect("a spec");
    assert_eq!(stored.steps[0].script, "echo hello world > /tekton/results/text\n");
    world.steps_exit(&[0]);
    world.pods[0]["status"]["containerStatuses"][0]["state"]["terminated"]["message"] = json!(
        r#"[{"key":"text","value":"hello world\n","type":1},{"key":"StartedAt","value":"2026-01-01T00:00:02.500Z","type":3}]"#
    );
    world.settle();
    assert_eq!(world.said(), "True/Succeeded: All Steps have completed executing");
    let status = world.status();
    assert_eq!(json!(status.results), json!([{"name": "text", "type": "string", "value": "hello world\n"}]));
    let terminated = status.steps[0].terminated.clone().expect("terminated");
    assert_eq!(terminated.message.as_deref(), Some(r#"[{"key":"text","value":"hello world\n","type":1}]"#));
    assert_eq!(status.steps[0].termination_reason, "Completed");
}

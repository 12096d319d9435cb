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

#[test]
fn somebody_elses_run_is_left_alone() {
    for (manager, ours) in [("", true), ("tekton.dev/pipeline", true), ("other.dev/engine", false)] {
        let mut world = World::new(ONE_STEP);
        world.run["spec"]["managedBy"] = json!(manager);
        assert_eq!(!world.plan().is_empty(), ours, "{manager}");
    }
}

#[test]
fn a_run_that_is_being_deleted_is_left_alone() {
    let mut world = World::new(ONE_STEP);
    world.run["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert!(world.plan().is_empty());
}

#[test]
fn a_pending_run_waits_for_its_user() {
    let mut world = World::new(ONE_STEP);
    world.run["spec"]["status"] = json!("TaskRunPending");
    world.settle();
    assert_eq!(world.said(), "Unknown/TaskRunPending: TaskRun \"run\" is pending");
    assert_eq!(world.status().start_time, None);
    world.run["spec"]["status"] = json!("");
    world.settle();
    assert_eq!(world.said(), "Unknown/Started: ");
}

#[test]
fn a_cancelled_run_loses_its_pod() {
    let mut world = World::new(ONE_STEP);
    world.settle();
    world.pod_runs();
    world.settle();
    world.run["spec"]["status"] = json!("TaskRunCancelled");
    world.run["spec"]["statusMessage"] = json!("enough");
    world.settle();
    assert_eq!(world.said(), "False/TaskRunCancelled: TaskRun \"run\" was cancelled. enough");
    assert!(world.pods.is_empty());
    let step = world.status().steps.remove(0);
    let terminated = step.terminated.expect("terminated");
    assert_eq!(step.termination_reason, "TaskRunCancelled");
    assert_eq!((step.running, step.waiting), (None, None));
    assert_eq!(terminated.exit_code, 1);
    assert_eq!(terminated.reason.as_deref(), Some("TaskRunCancelled"));
    assert_eq!(terminated.message.as_deref(), Some("Step a terminated as pod run-pod is terminated"));
    assert_eq!(
        world.events.last().map(String::as_str),
        Some("Warning Failed: TaskRun \"run\" was cancelled. enough")
    );
}

#[test]
fn a_pod_that_comes_to_light_after_the_cancellation_goes_too() {
    let mut world = World::new(ONE_STEP);
    world.settle();
    // Created, but neither recorded nor seen.
    let unseen = std::mem::take(&mut world.pods);
    world.run.as_object_mut().expect("a run").remove("status");
    world.run["spec"]["status"] = json!("TaskRunCancelled");
    world.settle();
    assert_eq!(world.succeeded().reason, "TaskRunCancelled");
    world.pods = unseen;
    world.settle();
    assert!(world.pods.is_empty());
}

#[test]
fn a_run_cancelled_before_it_started() {
    let mut world = World::new(ONE_STEP);
    world.run["spec"]["status"] = json!("TaskRunCancelled");
    world.settle();
    assert_eq!(world.said(), "False/TaskRunCancelled: TaskRun \"run\" was cancelled. ");
    assert_eq!(world.writes, 1);
}

#[test]
fn a_timeout_says_what_the_run_was_waiting_for() {
    let mut world = World::new(ONE_STEP);
    world.run["spec"]["timeout"] = json!("1m");
    world.settle();
    assert_eq!(world.plan().requeue, Some(Duration::from_secs(5)));
    world.pod_says("{phase: Pending, conditions: [{type: PodScheduled, status: 'False', message: no node}]}");
    world.settle();
    world.pass(5);
    world.settle();
    assert_eq!(world.plan().requeue, Some(Duration::from_secs(56)), "the timeout");
    world.pass(55);
    assert!(world.plan().is_empty(), "start times are cut to seconds: not too early");
    world.pass(1);
    world.settle();
    assert_eq!(
        world.said(),
        "False/TaskRunTimeout: TaskRun \"run\" failed to finish within \"1m0s\"\n\
         Previous status: [Pending] pod status \"PodScheduled\":\"False\"; message: \"no node\""
    );
    assert!(world.pods.is_empty());
}

#[test]
fn a_timeout_of_zero_is_none() {
    let mut world = World::new(ONE_STEP);
    world.run["spec"]["timeout"] = json!("0s");
    world.settle();
    world.pod_runs();
    world.settle();
    world.pass(1_000_000);
    let plan = world.plan();
    assert!(plan.is_empty() && plan.requeue.is_none());
}

#[test]
fn a_pod_that_ended_in_time_counts_though_nobody_looked() {
    let mut world = World::new(ONE_STEP);
    world.settle();
    world.steps_exit(&[0]);
    world.pass(100_000);
    world.settle();
    assert_eq!(world.succeeded().reason, "Succeeded");
}

#[test]
fn a_crash_between_pod_and_status_changes_nothing() {
    let mut world = World::new(ONE_STEP);
    let plan = world.plan();
    for write in &plan.writes {
        world.apply(write);
    }
    world.pod_runs();
    world.settle();
    assert_eq!(world.pods.len(), 1);
    assert_eq!(world.said(), "Unknown/Running: Not all Steps in the Task have finished executing");
    assert!(world.status().task_spec.is_some() && world.status().start_time.is_some());
}

#[test]
fn a_crash_between_deleting_and_saying_so_changes_nothing() {
    let mut world = World::new(ONE_STEP);
    world.settle();
    world.pod_runs();
    world.settle();
    world.run["spec"]["status"] = json!("TaskRunCancelled");
    let plan = world.plan();
    for write in &plan.writes {
        world.apply(write);
    }
    world.settle();
    assert_eq!(world.succeeded().reason, "TaskRunCancelled");
    assert_eq!(world.status().steps[0].termination_reason, "TaskRunCancelled");
}

#[test]
fn a_pod_lost_before_any_step_started_is_made_again_three_times() {
    let mut world = World::new(ONE_STEP);
    world.settle();
    for lost in 1..=3 {
        world.pods.clear();
        let plan = world.plan();
        assert!(plan.is_empty(), "the cache may be late: {plan:?}");
        world.pass(6);
        world.settle();
        assert_eq!(world.pods.len(), 1, "loss {lost}");
        assert_eq!(world.status().annotations["ropewalk.dev/pod-recreations"], lost.to_string());
        assert!(world.diagnosis().expect("a diagnosis").contains(&format!("{lost} of at most 3 times")));
    }
    world.pods.clear();
    world.pass(6);
    world.settle();
    assert_eq!(world.said(), "False/PodEvicted: pod \"run-pod\" was lost 4 times before any step started");
    assert!(world.status().retries_status.is_empty());
}

#[test]
fn an_evicted_pod_that_never_started_is_removed_and_made_again() {
    let mut world = World::new(ONE_STEP);
    world.settle();
    world.pod_says("{phase: Failed, reason: Evicted, message: low on disk}");
    world.pass(6);
    world.settle();
    assert_eq!(world.pods.len(), 1);
    assert!(world.pods[0].get("status").is_none(), "a new one");
    assert_eq!(world.succeeded().status, "Unknown");
}

#[test]
fn a_pod_that_its_node_ends_before_any_step_for_somebody_else_is_made_again() {
    let mut world = World::new(ONE_STEP);
    world.settle();
    world.pods[0]["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    world.pod_says("{phase: Failed}");
    let plan = world.plan();
    assert!(plan.is_empty(), "it goes by itself: {plan:?}");
    world.pods.clear();
    world.pass(6);
    world.settle();
    assert_eq!(world.pods.len(), 1);
    assert_eq!(world.status().annotations["ropewalk.dev/pod-recreations"], "1");
}

#[test]
fn a_step_that_ends_with_its_pod_for_somebody_else_runs_again_only_when_asked_to() {
    let mut world = World::new(ONE_STEP);
    world.settle();
    world.steps_exit(&[143]);
    world.pods[0]["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let mut asked = World::new(ONE_STEP);
    (asked.run, asked.pods) = (world.run.clone(), world.pods.clone());
    asked.run["metadata"]["annotations"] = json!({"ropewalk.dev/rerun-lost-steps": "true"});

    world.settle();
    assert_eq!(world.said(), "False/StepFailed: \"step-a\" exited with code 143: Error");

    assert!(asked.plan().is_empty(), "it goes by itself");
    asked.pods.clear();
    asked.pass(6);
    asked.settle();
    assert_eq!(asked.pods.len(), 1);
    assert_eq!(asked.succeeded().status, "Unknown");
}

#[test]
fn an_evicted_pod_that_had_started_fails_the_run() {
    let mut world = World::new(ONE_STEP);
    world.settle();
    world.steps_exit(&[137]);
    world.pods[0]["status"]["reason"] = json!("Evicted");
    world.pods[0]["status"]["message"] = json!("low on disk");
    world.settle();
    assert_eq!(world.said(), "False/PodEvicted: low on disk");
}

#[test]
fn a_started_step_runs_again_only_when_asked_to() {
    let mut world = World::new(ONE_STEP);
    world.settle();
    world.pod_runs();
    world.settle();
    world.pods.clear();
    let mut asked = World::new(ONE_STEP);
    asked.run = world.run.clone();
    asked.run["metadata"]["annotations"] = json!({"ropewalk.dev/rerun-lost-steps": "true"});

    world.settle();
    assert_eq!(world.succeeded().reason, "PodEvicted");
    assert!(world.succeeded().message.contains("pod \"run-pod\" is gone, and step \"a\" had started"));

    asked.settle();
    assert_eq!(asked.pods.len(), 1);
    assert_eq!(asked.succeeded().reason, "Started");
}

const WITH_SIDECAR: &str = "
metadata: {name: run}
spec:
  taskSpec:
    sidecars: [{name: s, image: i, command: [serve]}]
    steps: [{name: a, image: i, script: echo}]
";

#[test]
fn steps_wait_for_sidecars_and_sidecars_stop_after_steps() {
    let mut world = World::new(WITH_SIDECAR);
    world.settle();
    let ready = |world: &World| world.pods[0]["metadata"]["annotations"].get("tekton.dev/ready").cloned();
    assert_eq!(ready(&world), None);
    world.pod_runs();
    world.pods[0]["status"]["containerStatuses"][1]["ready"] = json!(false);
    let plan = world.settle();
    assert_eq!(ready(&world), None);
    assert_eq!(plan.report[0].subject, "sidecar-s");
    world.pod_runs();
    world.settle();
    assert_eq!(ready(&world), Some(json!("READY")));

    world.pods[0]["status"]["containerStatuses"][0]["state"] =
        json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": "2026-01-01T00:00:02Z"}});
    world.settle();
    assert_eq!(world.said(), "True/Succeeded: All Steps have completed executing");
    let containers = &world.pods[0]["spec"]["containers"];
    assert_eq!(containers[1]["image"], "ropewalk.dev/nop:embedded");
    assert_eq!(containers[0]["image"], "i", "steps are not touched");
    let sidecar = world.status().sidecars.remove(0);
    assert_eq!((sidecar.name.as_str(), sidecar.container.as_str()), ("s", "sidecar-s"));
    let terminated = sidecar.terminated.expect("terminated");
    assert_eq!(terminated.message.as_deref(), Some("Sidecar container successfully stopped by nop image"));
    assert_eq!(terminated.reason.as_deref(), Some("Completed"));
}

#[test]
fn a_sidecar_that_outlived_a_crash_is_stopped_later() {
    let mut world = World::new(WITH_SIDECAR);
    world.settle();
    world.pod_runs();
    world.settle();
    world.pods[0]["status"]["containerStatuses"][0]["state"] =
        json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": "2026-01-01T00:00:02Z"}});
    let plan = world.plan();
    world.apply(plan.status.as_ref().expect("a status"));
    assert_eq!(world.pods[0]["spec"]["containers"][1]["image"], "i");
    world.settle();
    assert_eq!(world.pods[0]["spec"]["containers"][1]["image"], "ropewalk.dev/nop:embedded");
}

#[test]
fn a_claim_is_made_before_the_pod() {
    let mut world = World::new(
        "
metadata: {name: t}
spec:
  workspaces: [{name: w, volumeClaimTemplate: {metadata: {name: disk}, spec: {accessModes: [ReadWriteOnce]}}}]
  taskSpec: {workspaces: [{name: w}], steps: [{name: a, image: i, script: $(workspaces.w.claim)}]}
",
    );
    let order: Vec<Resource> = world.plan().writes.iter().map(|write| write.target().resource).collect();
    assert_eq!(order, [Resource::PersistentVolumeClaim, Resource::Pod]);
    world.settle();
    let claim = &world.claims[0];
    let name = claim["metadata"]["name"].as_str().expect("a name");
    // The first ten digits of sha256("w" + "run-uid").
    assert_eq!(name, "disk-02e80f4c66");
    assert_eq!(claim["metadata"]["ownerReferences"][0]["uid"], "run-uid");
    let volumes = world.pods[0]["spec"]["volumes"].as_array().expect("volumes");
    assert_eq!(volumes.last().expect("one")["persistentVolumeClaim"]["claimName"], name);
    assert_eq!(world.status().task_spec.expect("a spec").steps[0].script, name);
}

#[test]
fn the_time_of_a_transition_moves_only_with_the_condition() {
    let mut world = World::new(ONE_STEP);
    world.settle();
    world.pod_runs();
    world.settle();
    let before = world.succeeded().last_transition_time;
    world.pass(100);
    world.pods[0]["status"]["containerStatuses"][0]["imageID"] = json!("i@sha256:2");
    world.settle();
    assert_eq!(world.status().steps[0].image_id, "i@sha256:2");
    assert_eq!(world.succeeded().last_transition_time, before);
}

use std::time::Duration;

use serde_json::json;

use super::World;

const TASK: &str = "taskSpec: {steps: [{name: s, image: i, script: 'true'}]}";
const TIMED_OUT: &str = "TaskRun cancelled as the PipelineRun it belongs to has timed out.";
const CANCELLED: &str = "TaskRun cancelled as the PipelineRun it belongs to has been cancelled.";

/// `a`, then `b`; `f` in `finally`.
fn with_finally(spec: &str) -> World {
    World::with_spec(
        &format!(
            "tasks: [{{name: a, {TASK}}}, {{name: b, runAfter: [a], {TASK}}}]\nfinally: [{{name: f, \
             {TASK}}}]"
        ),
        spec,
    )
}

/// `a` and `b` beside each other.
fn beside(spec: &str) -> World {
    World::with_spec(&format!("tasks: [{{name: a, {TASK}}}, {{name: b, {TASK}}}]"), spec)
}

fn told(world: &World) -> Vec<(String, String)> {
    let told = world.children.values().filter(|child| child.spec.status == "TaskRunCancelled");
    told.map(|child| (child.metadata.name.clone().unwrap_or_default(), child.spec.status_message.clone()))
        .collect()
}

fn pair(name: &str, message: &str) -> (String, String) {
    (name.to_owned(), message.to_owned())
}

/// The rows of contract 12.10 that no other test of this module is about.
#[test]
fn conditions_on_the_way() {
    let mut world = beside("");
    world.settle();
    world.fail("a");
    assert_eq!(
        world.condition(),
        "Unknown/PipelineRunStopping Tasks Completed: 1 (Failed: 1, Cancelled 0), Incomplete: 1, Skipped: 0"
    );
    world.succeed("b");
    assert_eq!(world.condition(), "False/Failed Tasks Completed: 2 (Failed: 1, Cancelled 0), Skipped: 0");

    let mut world = World::embedded(&format!(
        "tasks: [{{name: a, {TASK}}}, {{name: b, {TASK}}}]\nfinally: [{{name: f, {TASK}}}]"
    ));
    world.settle();
    world.fail("a");
    assert_eq!(
        world.condition(),
        "Unknown/Running Tasks Completed: 1 (Failed: 1, Cancelled 0), Incomplete: 2, Skipped: 0"
    );

    let mut world = with_finally("");
    world.settle();
    world.fail("a");
    world.succeed("f");
    assert_eq!(world.condition(), "False/Failed Tasks Completed: 2 (Failed: 1, Cancelled 0), Skipped: 1");

    let mut world =
        World::embedded(&format!("tasks: [{{name: a, onError: continue, {TASK}}}, {{name: b, {TASK}}}]"));
    world.settle();
    world.fail("a");
    assert_eq!(
        world.condition(),
        "Unknown/Running Tasks Completed: 1 (Failed: 0, Cancelled 0), Incomplete: 1, Skipped: 0"
    );
    assert_eq!(
        world.children["x-a"].metadata.annotations.as_ref().expect("annotations")["pipeline.tekton.dev/pipeline-task-on-error"],
        "continue"
    );
    world.succeed("b");
    assert_eq!(
        world.condition(),
        "True/Succeeded Tasks Completed: 2 (Failed: 1 (Ignored: 1), Cancelled 0), Skipped: 0"
    );

    let mut world = World::embedded(&format!(
        "tasks: [{{name: a, {TASK}}}, {{name: b, runAfter: [a], when: [{{input: a, operator: in, values: \
         [b]}}], {TASK}}}]"
    ));
    world.settle();
    world.succeed("a");
    assert_eq!(world.condition(), "True/Completed Tasks Completed: 1 (Failed: 0, Cancelled 0), Skipped: 1");
}

#[test]
fn a_user_who_cancels_one_child_cancels_the_run() {
    let mut world = World::embedded(&format!(
        "tasks: [{{name: a, onError: continue, {TASK}}}, {{name: b, runAfter: [a], {TASK}}}]"
    ));
    world.settle();
    world.child("a").spec.status = "TaskRunCancelled".into();
    world.cancel_told();
    assert_eq!(world.condition(), "False/Cancelled Tasks Completed: 1 (Failed: 0, Cancelled 1), Skipped: 1");
    assert_eq!(world.skipped(), ["b: PipelineRun was stopping"]);
}

#[test]
fn cancelled_ends_at_once() {
    let mut world = with_finally("");
    world.settle();
    world.ask("Cancelled");
    assert_eq!(told(&world), [pair("x-a", CANCELLED)]);
    assert_eq!(world.condition(), r#"False/Cancelled PipelineRun "x" was cancelled"#);
    assert!(world.status().completion_time.is_some());
    assert_eq!(world.born(), ["a"]);
    assert!(world.skipped().is_empty());
    world.cancel_told();
    assert_eq!(world.condition(), r#"False/Cancelled PipelineRun "x" was cancelled"#);
}

#[test]
fn a_child_made_too_late_is_cancelled_after_the_end() {
    let mut world = with_finally("");
    world.settle();
    let mut late = world.children["x-a"].clone();
    late.metadata.name = Some("x-b".into());
    world.ask("Cancelled");
    let end = world.run["status"].clone();
    world.children.insert("x-b".into(), late);
    world.settle();
    assert_eq!(told(&world), [pair("x-a", CANCELLED), pair("x-b", CANCELLED)]);
    assert_eq!(world.run["status"], end);
}

#[test]
fn cancelled_before_it_began_makes_no_child() {
    let mut world = with_finally("status: Cancelled");
    world.settle();
    assert_eq!(world.condition(), r#"False/Cancelled PipelineRun "x" was cancelled"#);
    assert!(world.born().is_empty());
}

#[test]
fn cancelled_run_finally() {
    let mut world = with_finally("");
    world.settle();
    world.ask("CancelledRunFinally");
    assert_eq!(told(&world), [pair("x-a", CANCELLED)]);
    assert_eq!(world.skipped(), ["b: PipelineRun was gracefully cancelled"]);
    assert_eq!(world.born(), ["a"]);
    world.cancel_told();
    assert_eq!(world.born(), ["a", "f"]);
    assert_eq!(told(&world).len(), 1, "finally is spared");
    assert_eq!(
        world.condition(),
        "Unknown/CancelledRunningFinally Tasks Completed: 1 (Failed: 0, Cancelled 1), Incomplete: 1, \
         Skipped: 1"
    );
    world.succeed("f");
    assert_eq!(world.condition(), r#"False/Cancelled PipelineRun "x" was cancelled"#);
}

#[test]
fn stopped_run_finally() {
    let mut world = with_finally("");
    world.settle();
    world.ask("StoppedRunFinally");
    assert!(told(&world).is_empty());
    assert_eq!(world.skipped(), ["b: PipelineRun was gracefully stopped"]);
    assert!(world.condition().starts_with("Unknown/StoppedRunningFinally "), "{}", world.condition());
    world.succeed("a");
    assert_eq!(world.born(), ["a", "f"]);
    world.succeed("f");
    assert_eq!(world.condition(), r#"False/Cancelled PipelineRun "x" was cancelled"#);

    let mut world = with_finally("");
    world.settle();
    world.ask("StoppedRunFinally");
    world.fail("a");
    world.succeed("f");
    assert!(world.condition().starts_with("False/Failed "), "{}", world.condition());
}

#[test]
fn pending_waits_and_then_starts() {
    let mut world = with_finally("status: PipelineRunPending");
    world.settle();
    assert_eq!(world.condition(), r#"Unknown/PipelineRunPending PipelineRun "x" is pending"#);
    assert!(world.status().start_time.is_none());
    assert!(world.born().is_empty());
    world.ask("");
    assert!(world.status().start_time.is_some());
    assert_eq!(world.born(), ["a"]);
}

#[test]
fn the_pipeline_timeout_ends_everything_at_once() {
    let mut world = with_finally("timeouts: {pipeline: 1h}");
    world.settle();
    assert_eq!(world.plan().requeue, Some(Duration::from_secs(3_601)));
    world.wait(3600);
    assert!(world.condition().starts_with("Unknown/Running "));
    assert_eq!(world.plan().requeue, Some(Duration::from_secs(1)));
    world.wait(1);
    assert_eq!(told(&world), [pair("x-a", TIMED_OUT)]);
    assert_eq!(
        world.condition(),
        r#"False/PipelineRunTimeout PipelineRun "x" failed to finish within "1h0m0s""#
    );
    assert_eq!(world.born(), ["a"]);
    assert_eq!(world.plan().requeue, None);
}

#[test]
fn the_default_timeout_holds_and_zero_is_none() {
    let mut world = beside("");
    world.settle();
    assert_eq!(world.plan().requeue, Some(Duration::from_secs(3_601)));
    let mut world = beside("timeouts: {pipeline: 0s}");
    world.settle();
    assert_eq!(world.plan().requeue, None);
    world.wait(1_000_000);
    assert!(world.condition().starts_with("Unknown/Running "));
}

#[test]
fn the_tasks_timeout_without_finally_ends_the_run() {
    let mut world = beside("timeouts: {pipeline: 1h, tasks: 5m}");
    world.settle();
    world.succeed("b");
    world.wait(301);
    assert_eq!(told(&world), [pair("x-a", TIMED_OUT)]);
    assert_eq!(
        world.condition(),
        r#"False/PipelineRunTimeout PipelineRun "x" failed due to tasks failed to finish within "5m0s""#
    );
}

#[test]
fn the_tasks_timeout_leaves_finally_its_time() {
    let mut world = with_finally("timeouts: {pipeline: 1h, finally: 55m}");
    world.settle();
    assert_eq!(world.plan().requeue, Some(Duration::from_secs(301)), "tasks = pipeline - finally");
    world.wait(301);
    assert_eq!(told(&world), [pair("x-a", TIMED_OUT)]);
    assert_eq!(world.born(), ["a"]);
    assert!(world.condition().starts_with("Unknown/PipelineRunTimeoutRunningFinally "));
    world.cancel_told();
    assert_eq!(world.skipped(), ["b: PipelineRun was stopping"]);
    assert_eq!(world.born(), ["a", "f"]);
    assert_eq!(
        world.condition(),
        "Unknown/PipelineRunTimeoutRunningFinally Tasks Completed: 1 (Failed: 1, Cancelled 0), Incomplete: \
         1, Skipped: 1"
    );
    world.succeed("f");
    assert_eq!(
        world.condition(),
        r#"False/PipelineRunTimeout PipelineRun "x" failed due to tasks failed to finish within "5m0s""#
    );
}

#[test]
fn the_tasks_timeout_skips_what_is_due() {
    let mut world = with_finally("timeouts: {pipeline: 1h, tasks: 5m}");
    world.settle();
    world.now += Duration::from_secs(301);
    world.succeed("a");
    assert_eq!(world.skipped(), ["b: PipelineRun Tasks timeout has been reached"]);
    assert_eq!(world.born(), ["a", "f"]);
}

#[test]
fn the_tasks_timeout_is_looked_at_to_the_end() {
    let mut world = with_finally("timeouts: {pipeline: 1h, tasks: 5m}");
    world.settle();
    world.succeed("a");
    world.now += Duration::from_mins(3);
    world.succeed("b");
    world.wait(240);
    assert!(world.condition().starts_with("Unknown/PipelineRunTimeoutRunningFinally "));
    assert!(told(&world).is_empty());
    world.succeed("f");
    assert!(world.condition().starts_with("False/PipelineRunTimeout "), "{}", world.condition());
}

#[test]
fn the_finally_timeout_fails_the_run() {
    let mut world = World::with_spec(
        &format!("tasks: [{{name: a, {TASK}}}]\nfinally: [{{name: f, {TASK}}}]"),
        "timeouts: {pipeline: 1h, finally: 5m}",
    );
    world.settle();
    world.now += Duration::from_mins(1);
    world.succeed("a");
    assert_eq!(world.plan().requeue, Some(Duration::from_secs(301)), "from the start of finally");
    world.wait(301);
    assert_eq!(told(&world), [pair("x-f", TIMED_OUT)]);
    world.cancel_told();
    assert_eq!(world.condition(), "False/Failed Tasks Completed: 2 (Failed: 1, Cancelled 0), Skipped: 0");
}

#[test]
fn timeouts_of_children() {
    let timeout = |timeouts: &str, task: &str, settings: &str| {
        let mut world = World::with_spec(
            &format!("tasks: [{{name: a, {TASK}{task}}}]\nfinally: []"),
            &format!("timeouts: {{{timeouts}}}\ntaskRunSpecs: [{{pipelineTaskName: a{settings}}}]"),
        );
        world.settle();
        json!(world.children["x-a"].spec.timeout)
    };
    for (timeouts, task, settings, expected) in [
        ("pipeline: 2h", "", "", json!(null)),
        ("pipeline: 3h, tasks: 2h", "", "", json!("2h0m0s")),
        ("pipeline: 3h, finally: 30m", "", "", json!("2h30m0s")),
        ("pipeline: 3h, tasks: 10m", "", "", json!(null)),
        ("pipeline: 0s, tasks: 0s", "", "", json!("0s")),
        ("pipeline: 3h, tasks: 2h", ", timeout: 1m", "", json!("1m0s")),
        ("pipeline: 3h, tasks: 2h", ", timeout: 1m", ", timeout: 2m", json!("2m0s")),
    ] {
        assert_eq!(timeout(timeouts, task, settings), expected, "{timeouts}{task}{settings}");
    }
}

#[test]
fn retries_are_the_childs_business() {
    let mut world = World::embedded(&format!(
        "tasks: [{{name: a, retries: 2, params: [{{name: p, value: $(context.pipelineTask.retries)}}], \
         {TASK}}}]"
    ));
    world.settle();
    assert_eq!(world.children["x-a"].spec.retries, 2);
    assert_eq!(world.params_of("a"), json!([{"name": "p", "value": "2"}]));
}

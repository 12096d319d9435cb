use serde_json::json;

use super::World;

const STEP: &str = "steps: [{name: s, image: i, script: 'true'}]";

#[test]
fn a_chain_with_a_result_runs_to_the_end() {
    let mut world = World::new(&format!(
        "kind: Task
metadata: {{name: reader, labels: {{team: blue}}}}
spec:
  params: [{{name: v}}]
  {STEP}
---
kind: PipelineRun
metadata:
  name: x
  labels: {{app: demo}}
  annotations: {{note: kept, chains.tekton.dev/signed: 'true', ropewalk.dev/v1beta1: '{{}}'}}
spec:
  params: [{{name: greeting, value: hello}}]
  pipelineSpec:
    params: [{{name: greeting}}, {{name: tail, default: '$(params.greeting)!'}}]
    results:
    - {{name: out, value: 'got $(tasks.a.results.r)'}}
    tasks:
    - name: b
      taskRef: {{name: reader}}
      params: [{{name: v, value: '$(params.tail) $(tasks.a.results.r)'}}]
    - name: a
      taskSpec:
        results: [{{name: r}}]
        steps: [{{name: s, image: i, script: 'echo $(params.greeting) $(context.pipelineRun.name)'}}]
    finally:
    - name: f
      taskSpec: {{{STEP}}}
      params: [{{name: how, value: '$(tasks.a.status) $(tasks.status)'}}]
"
    ));
    let first = world.plan();
    assert_eq!(first.status, None, "the label comes first, alone");
    world.settle();
    assert_eq!(world.run["metadata"]["labels"]["tekton.dev/pipeline"], "x");
    assert_eq!(world.born(), ["a"]);
    assert_eq!(world.script_of("a"), "echo hello x");
    assert_eq!(
        world.condition(),
        "Unknown/Running Tasks Completed: 0 (Failed: 0, Cancelled 0), Incomplete: 3, Skipped: 0"
    );
    let waiting: Vec<String> =
        world.plan().report.iter().map(|w| format!("{} {}", w.subject, w.reason)).collect();
    assert_eq!(waiting, [r#"b waits for "a""#, "f waits for all tasks of the graph to be done"]);

    world.succeed_with("a", &[("r", json!("42"))]);
    assert_eq!(world.born(), ["a", "b"]);
    assert_eq!(world.params_of("b"), json!([{"name": "v", "value": "hello! 42"}]));
    let metadata = json!(world.children["x-b"].metadata);
    assert_eq!(
        metadata["labels"],
        json!({
            "app": "demo",
            "team": "blue",
            "tekton.dev/memberOf": "tasks",
            "tekton.dev/pipeline": "x",
            "tekton.dev/pipelineRun": "x",
            "tekton.dev/pipelineRunUID": "run-uid",
            "tekton.dev/pipelineTask": "b",
            "tekton.dev/task": "reader",
        })
    );
    assert_eq!(metadata["annotations"]["note"], "kept");
    for own in ["chains.tekton.dev/signed", "ropewalk.dev/v1beta1"] {
        assert!(metadata["annotations"].get(own).is_none(), "{own}");
    }
    assert_eq!(
        metadata["ownerReferences"],
        json!([{
            "apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "name": "x", "uid": "run-uid",
            "controller": true, "blockOwnerDeletion": true,
        }])
    );

    world.succeed("b");
    assert_eq!(world.born(), ["a", "b", "f"]);
    assert_eq!(world.params_of("f"), json!([{"name": "how", "value": "Succeeded Succeeded"}]));
    assert!(world.status().finally_start_time.is_some());
    world.succeed("f");
    assert_eq!(world.condition(), "True/Succeeded Tasks Completed: 3 (Failed: 0, Cancelled 0), Skipped: 0");
    let status = world.status();
    assert!(status.completion_time.is_some());
    let flags = status.provenance.and_then(|provenance| provenance.feature_flags).expect("feature flags");
    assert_eq!(flags["enableAPIFields"], "beta");
    assert_eq!(json!(status.results), json!([{"name": "out", "value": "got 42"}]));
    let references: Vec<&str> = status.child_references.iter().map(|child| child.name.as_str()).collect();
    assert_eq!(references, ["x-b", "x-a", "x-f"]);
    assert_eq!(status.child_references[0].kind, "TaskRun");
    assert_eq!(status.child_references[0].pipeline_task_name, "b");
}

/// The graph of contract 12.3.
fn cascade(a: &str, b: &str) -> World {
    let task = |name: &str, more: &str| format!("- {{name: {name}, taskSpec: {{{STEP}}}{more}}}\n");
    let wants = |operator: &str| {
        format!(", when: [{{input: $(tasks.a.results.r), operator: {operator}, values: [x]}}]")
    };
    let mut spec = format!("tasks:\n- {{name: a, taskSpec: {{results: [{{name: r}}], {STEP}}}{a}}}\n");
    spec.push_str(&task("b", &format!(", params: [{{name: p, value: $(tasks.a.results.r)}}]{b}")));
    spec.push_str(&task("c", ", runAfter: [b]"));
    spec.push_str(&task("d", ", runAfter: [a]"));
    spec.push_str(&task("e", &format!(", runAfter: [d]{}", wants("in"))));
    spec.push_str(&task("f", &wants("notin")));
    spec.push_str(&task("g", ", runAfter: [f]"));
    spec.push_str(&task("h", ", runAfter: [e]"));
    World::embedded(&spec)
}

const WHEN: &str = "When Expressions evaluated to false";
const PARENT: &str = "Parent Tasks were skipped";
const MISSING: &str = "Results were missing";
const STOPPING: &str = "PipelineRun was stopping";

fn skips(pairs: &[(&str, &str)]) -> Vec<String> {
    pairs.iter().map(|(name, reason)| format!("{name}: {reason}")).collect()
}

#[test]
fn a_false_when_cascades_only_through_results() {
    let mut world = cascade(", when: [{input: never, operator: in, values: ['yes']}]", "");
    world.settle();
    assert_eq!(world.born(), ["d"]);
    world.succeed("d");
    assert_eq!(world.born(), ["d", "h"]);
    world.succeed("h");
    assert_eq!(
        world.skipped(),
        skips(&[("a", WHEN), ("b", MISSING), ("c", PARENT), ("e", WHEN), ("f", MISSING), ("g", PARENT)])
    );
    assert_eq!(world.condition(), "True/Completed Tasks Completed: 2 (Failed: 0, Cancelled 0), Skipped: 6");
    let unresolved = &world.status().skipped_tasks[3].when_expressions[0];
    assert_eq!(unresolved.input, "$(tasks.a.results.r)");
}

#[test]
fn a_failure_stops_the_rest() {
    let mut world = cascade("", "");
    world.settle();
    world.fail("a");
    let all: Vec<(&str, &str)> = ["b", "c", "d", "e", "f", "g", "h"].map(|name| (name, STOPPING)).into();
    assert_eq!(world.skipped(), skips(&all));
    assert_eq!(world.condition(), "False/Failed Tasks Completed: 1 (Failed: 1, Cancelled 0), Skipped: 7");
}

#[test]
fn a_result_not_written_is_failed_validation() {
    let mut world = cascade("", "");
    world.settle();
    world.succeed("a");
    assert_eq!(world.born(), ["a"]);
    let rest: Vec<(&str, &str)> = ["c", "d", "e", "g", "h"].map(|name| (name, STOPPING)).into();
    assert_eq!(world.skipped(), skips(&rest));
    let complaint = |consumer: &str| {
        format!(
            "task \"a\" completed successfully but did not emit the result \"r\", which is referenced by \
             task \"{consumer}\""
        )
    };
    assert_eq!(
        world.condition(),
        format!(
            "False/PipelineValidationFailed Tasks Completed: 1 (Failed: 0, Cancelled 0), Skipped: 5, Failed \
             Validation: 2 ({}; {})",
            complaint("b"),
            complaint("f")
        )
    );
}

#[test]
fn an_ignored_failure_without_the_result_is_failed_validation() {
    let mut world = cascade(", onError: continue", "");
    world.settle();
    world.fail("a");
    let text = "Invalid task result reference: Could not find result with name r for pipeline task a";
    assert_eq!(
        world.condition(),
        format!(
            "False/PipelineValidationFailed Tasks Completed: 1 (Failed: 1 (Ignored: 1), Cancelled 0), \
             Skipped: 5, Failed Validation: 2 ({text}; {text})"
        )
    );
}

#[test]
fn a_consumer_whose_failure_does_not_matter_is_skipped() {
    let spec = format!(
        "tasks:
- {{name: a, onError: continue, taskSpec: {{results: [{{name: r}}], {STEP}}}}}
- {{name: b, onError: continue, taskSpec: {{{STEP}}}, params: [{{name: p, value: $(tasks.a.results.r)}}]}}
- {{name: c, runAfter: [a], taskSpec: {{{STEP}}}}}"
    );
    let mut world = World::embedded(&spec);
    world.settle();
    world.fail("a");
    assert_eq!(world.born(), ["a", "c"]);
    world.succeed("c");
    assert_eq!(world.skipped(), skips(&[("b", MISSING)]));
    assert_eq!(
        world.condition(),
        "True/Completed Tasks Completed: 2 (Failed: 1 (Ignored: 1), Cancelled 0), Skipped: 1"
    );
}

#[test]
fn one_missing_result_leaves_all_references_verbatim() {
    let spec = format!(
        "tasks:
- {{name: a, taskSpec: {{results: [{{name: r}}], {STEP}}}}}
- {{name: b, when: [{{input: a, operator: in, values: []}}], taskSpec: {{results: [{{name: s}}], {STEP}}}}}
- name: c
  taskSpec: {{{STEP}}}
  when: [{{input: '$(tasks.a.results.r)-$(tasks.b.results.s)', operator: notin, values: [x]}}]"
    );
    let mut world = World::embedded(&spec);
    world.settle();
    world.succeed_with("a", &[("r", json!("2"))]);
    assert_eq!(world.skipped(), skips(&[("b", WHEN), ("c", MISSING)]));
    let input = &world.status().skipped_tasks[1].when_expressions[0].input;
    assert_eq!(input, "$(tasks.a.results.r)-$(tasks.b.results.s)");
}

#[test]
fn results_of_all_types_reach_params_scripts_and_the_run() {
    let spec = format!(
        "results:
- {{name: whole, value: '$(tasks.a.results.list[*])'}}
- {{name: first, value: '$(tasks.a.results.list)'}}
- {{name: second, value: 'n $(tasks.a.results.list[1])'}}
- {{name: object, value: '$(tasks.a.results.map[*])'}}
- {{name: late, value: '$(finally.f.results.r)'}}
- {{name: literal, value: 'text'}}
tasks:
- name: a
  taskSpec:
    results: [{{name: list, type: array}}, {{name: map, type: object}}, {{name: word}}]
    {STEP}
- name: b
  params:
  - {{name: list, value: '$(tasks.a.results.list[*])'}}
  - {{name: item, value: '$(tasks.a.results.list[0])'}}
  - {{name: map, value: '$(tasks.a.results.map[*])'}}
  - {{name: key, value: '$(tasks.a.results.map.k)'}}
  - {{name: longer, value: [z, '$(tasks.a.results.list[*])']}}
  taskSpec: {{steps: [{{name: s, image: i, script: 'echo $(tasks.a.results.word) \
         $(tasks.a.results.map.k)'}}]}}
finally:
- {{name: f, taskSpec: {{results: [{{name: r}}], {STEP}}}}}"
    );
    let mut world = World::embedded(&spec);
    world.settle();
    world.succeed_with(
        "a",
        &[("list", json!(["one", "two"])), ("map", json!({"k": "v"})), ("word", json!("w"))],
    );
    assert_eq!(
        world.params_of("b"),
        json!([
            {"name": "list", "value": ["one", "two"]},
            {"name": "item", "value": "one"},
            {"name": "map", "value": {"k": "v"}},
            {"name": "key", "value": "v"},
            {"name": "longer", "value": ["z", "one", "two"]},
        ])
    );
    assert_eq!(world.script_of("b"), "echo w v");
    world.succeed("b");
    world.succeed_with("f", &[("r", json!("end"))]);
    assert_eq!(
        json!(world.status().results),
        json!([
            {"name": "whole", "value": ["one", "two"]},
            {"name": "first", "value": "one"},
            {"name": "second", "value": "n two"},
            {"name": "object", "value": {"k": "v"}},
            {"name": "late", "value": "end"},
        ])
    );
}

#[test]
fn a_run_result_that_a_good_task_did_not_write_fails_the_run() {
    let spec = format!(
        "results: [{{name: good, value: $(tasks.a.results.r)}}, {{name: bad, value: $(tasks.a.results.s)}}]
tasks: [{{name: a, taskSpec: {{results: [{{name: r}}, {{name: s}}], {STEP}}}}}]"
    );
    let mut world = World::embedded(&spec);
    world.settle();
    world.succeed_with("a", &[("r", json!("1"))]);
    assert_eq!(
        world.condition(),
        "False/CouldntGetPipelineResult Failed to get PipelineResult from TaskRun Results for PipelineRun \
         x: invalid pipelineresults [bad], the referenced results don't exist"
    );
    assert_eq!(json!(world.status().results), json!([{"name": "good", "value": "1"}]));

    let mut world = World::embedded(&spec);
    world.settle();
    world.fail("a");
    assert!(world.condition().starts_with("False/Failed "), "{}", world.condition());
    assert!(world.status().results.is_empty());
}

#[test]
fn an_index_out_of_bounds_is_failed_validation() {
    let spec = format!(
        "tasks:
- {{name: a, taskSpec: {{results: [{{name: r, type: array}}], {STEP}}}}}
- {{name: b, taskSpec: {{{STEP}}}, params: [{{name: p, value: '$(tasks.a.results.r[5])'}}]}}"
    );
    let mut world = World::embedded(&spec);
    world.settle();
    world.succeed_with("a", &[("r", json!(["1", "2"]))]);
    let condition = world.condition();
    assert!(condition.starts_with("False/PipelineValidationFailed "), "{condition}");
    assert!(
        condition.contains("array Result Index 5 for Task a Result r is out of bound of size 2"),
        "{condition}"
    );
}

#[test]
fn finally_hears_how_the_graph_went() {
    let spec = format!(
        "tasks:
- {{name: a, onError: continue, taskSpec: {{results: [{{name: r}}], {STEP}}}}}
- {{name: b, runAfter: [a], when: [{{input: a, operator: in, values: []}}], taskSpec: {{{STEP}}}}}
finally:
- name: f
  taskSpec: {{{STEP}}}
  params: [{{name: p, value: '$(tasks.a.status) $(tasks.a.reason) $(tasks.b.status) \
         $(tasks.b.reason)$(tasks.status)'}}]
- {{name: g, taskSpec: {{{STEP}}}, params: [{{name: p, value: $(tasks.a.results.r)}}]}}
- {{name: h, taskSpec: {{{STEP}}}, when: [{{input: $(tasks.status), operator: in, values: [Succeeded]}}]}}"
    );
    let mut world = World::embedded(&spec);
    world.settle();
    world.fail("a");
    assert_eq!(world.born(), ["a", "f"]);
    assert_eq!(world.params_of("f"), json!([{"name": "p", "value": "Failed Failed None Failed"}]));
    world.succeed("f");
    assert_eq!(world.skipped(), skips(&[("b", WHEN), ("g", MISSING), ("h", WHEN)]));
    let listed: Vec<usize> =
        world.status().skipped_tasks.iter().map(|task| task.when_expressions.len()).collect();
    assert_eq!(listed, [1, 0, 1]);
}

#[test]
fn a_child_made_before_a_crash_is_found_again() {
    let spec = format!("tasks: [{{name: a, taskSpec: {{{STEP}}}}}, {{name: b, taskSpec: {{{STEP}}}}}]");
    let mut world = World::embedded(&spec);
    let label = world.plan();
    world.apply(&label.writes[0]);
    let interrupted = world.plan();
    world.apply(&interrupted.writes[0]);
    world.settle();
    assert_eq!(world.born(), ["a", "b"], "each exactly once");
    assert_eq!(world.status().child_references.len(), 2);
}

#[test]
fn a_recorded_child_that_is_not_seen_is_never_skipped() {
    let spec = format!("tasks: [{{name: a, taskSpec: {{{STEP}}}}}, {{name: b, taskSpec: {{{STEP}}}}}]");
    let mut world = World::embedded(&spec);
    world.settle();
    let unseen = world.children.remove("x-b").expect("a child");
    world.conclude("a", super::ConditionStatus::False, "Failed");
    let plan = world.plan();
    assert_eq!(plan.writes.len(), 1, "made again under its name, which is nothing new: {:?}", plan.writes);
    assert!(plan.status.is_some_and(|status| !format!("{status:?}").contains("stopping")));
    world.children.insert("x-b".into(), unseen);
    world.settle();
    assert_eq!(
        world.condition(),
        "Unknown/PipelineRunStopping Tasks Completed: 1 (Failed: 1, Cancelled 0), Incomplete: 1, Skipped: 0"
    );
}

#[test]
fn params_propagate_into_embedded_tasks_by_precedence() {
    let spec = "params: [{name: a, default: pipeline}, {name: b, default: pipeline}, {name: c, default: \
                pipeline}]
tasks:
- name: t
  params: [{name: c, value: task}]
  taskSpec:
    params: [{name: a, default: spec}, {name: b, default: spec}, {name: c, default: spec}, {name: d, \
                default: spec}]
    steps: [{name: s, image: i, script: '$(params.a) $(params.b) $(params.c) $(params.d)'}]";
    let mut world = World::with_spec(spec, "params: [{name: a, value: run}]");
    world.settle();
    assert_eq!(world.script_of("t"), "run pipeline $(params.c) $(params.d)");
    assert_eq!(world.params_of("t"), json!([{"name": "c", "value": "task"}]));
}

#[test]
fn keys_of_objects_propagate_one_by_one() {
    let spec = "tasks:
- name: t
  params: [{name: repo, value: {url: task, branch: task}}]
  taskSpec:
    steps: [{name: s, image: i, script: '$(params.repo.url) $(params.repo.commit) $(inputs.params.repo.commit)'}]";
    let mut world = World::with_spec(spec, "params: [{name: repo, value: {url: run, commit: run}}]");
    world.settle();
    assert_eq!(world.script_of("t"), "$(params.repo.url) run run");
    assert_eq!(world.params_of("t"), json!([{"name": "repo", "value": {"branch": "task", "url": "task"}}]));
}

#[test]
fn a_stored_pipeline_wins_over_later_edits() {
    let mut world = World::new(&format!(
        "kind: Pipeline
metadata: {{name: p, labels: {{from: pipeline}}}}
spec: {{tasks: [{{name: a, taskSpec: {{{STEP}}}}}, {{name: b, runAfter: [a], taskSpec: {{{STEP}}}}}]}}
---
kind: PipelineRun
metadata: {{name: x}}
spec: {{pipelineRef: {{name: p}}}}"
    ));
    world.settle();
    assert_eq!(world.run["metadata"]["labels"], json!({"from": "pipeline", "tekton.dev/pipeline": "p"}));
    world.pipelines.clear();
    world.succeed("a");
    world.succeed("b");
    assert!(world.condition().starts_with("True/Succeeded "));
}

#[test]
fn five_thousand_tasks_are_planned_in_one_go() {
    let tasks: Vec<String> = (0..5_000)
        .map(|i: usize| match i.checked_sub(1) {
            None => "- {name: t0, taskRef: {name: one}}".to_owned(),
            Some(before) => format!("- {{name: t{i}, taskRef: {{name: one}}, runAfter: [t{before}]}}"),
        })
        .collect();
    let spec = format!("tasks:\n{}", tasks.join("\n"));
    let mut world = World::embedded(&spec);
    let task = format!("{{metadata: {{name: one}}, spec: {{{STEP}}}}}");
    world.tasks.insert("one".into(), serde_saphyr::from_str(&task).expect("a Task"));
    world.settle();
    assert_eq!(world.born(), ["t0"]);
    world.fail("t0");
    assert_eq!(world.status().skipped_tasks.len(), 4_999);
}

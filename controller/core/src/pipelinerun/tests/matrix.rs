//! Pipeline tasks with a matrix, from combinations to one array of results (contract 7.2).

use serde_json::json;

use super::World;

const STEP: &str = "steps: [{name: s, image: i, script: 'true'}]";

#[test]
fn a_matrix_fans_out_and_its_results_come_together() {
    let spec = format!(
        "results: [{{name: all, value: '$(tasks.build.results.r[*])'}}]
tasks:
- {{name: list, taskSpec: {{results: [{{name: archs, type: array}}], {STEP}}}}}
- name: build
  displayName: for $(params.arch)
  params: [{{name: id, value: '7'}}]
  matrix:
    params:
    - {{name: os, value: [linux, mac]}}
    - {{name: arch, value: ['$(tasks.list.results.archs[*])']}}
    include: [{{name: apple, params: [{{name: os, value: mac}}, {{name: sign, value: 'true'}}]}}]
  taskSpec:
    params: [{{name: os}}, {{name: arch}}, {{name: id}}]
    results: [{{name: r}}]
    {STEP}
- name: publish
  taskSpec: {{{STEP}}}
  params:
  - {{name: images, value: '$(tasks.build.results.r[*])'}}
  - {{name: count, value: '$(tasks.build.matrix.length) $(tasks.build.matrix.r.length)'}}"
    );
    let mut world = World::embedded(&spec);
    world.settle();
    assert_eq!(world.born(), ["list"]);
    world.succeed_with("list", &[("archs", json!(["x", "y"]))]);
    assert_eq!(world.born()[1..], ["build-0", "build-1", "build-2", "build-3"]);
    assert_eq!(
        world.params_of("build-1"),
        json!([
            {"name": "arch", "value": "x"},
            {"name": "os", "value": "mac"},
            {"name": "sign", "value": "true"},
            {"name": "id", "value": "7"},
        ])
    );
    let shown: Vec<String> =
        world.status().child_references.into_iter().map(|child| child.display_name).collect();
    assert_eq!(shown, ["", "for x", "apple", "for y", "apple"]);
    assert!(
        world.condition().contains("Tasks Completed: 1 (Failed: 0, Cancelled 0), Incomplete: 2"),
        "all children count as one task: {}",
        world.condition()
    );
    for (number, result) in [(3, "d"), (0, "a"), (2, "c"), (1, "b")] {
        assert_eq!(world.born().len(), 5, "the next waits for all");
        world.succeed_with(&format!("build-{number}"), &[("r", json!(result))]);
    }
    assert_eq!(
        world.params_of("publish"),
        json!([{"name": "images", "value": ["a", "b", "c", "d"]}, {"name": "count", "value": "4 4"}])
    );
    world.succeed("publish");
    assert_eq!(world.condition(), "True/Succeeded Tasks Completed: 3 (Failed: 0, Cancelled 0), Skipped: 0");
    assert_eq!(json!(world.status().results), json!([{"name": "all", "value": ["a", "b", "c", "d"]}]));
}

fn plain(matrix: &str) -> World {
    World::embedded(&format!(
        "tasks:
- {{name: a, matrix: {matrix}, taskSpec: {{{STEP}}}}}
- {{name: b, runAfter: [a], taskSpec: {{{STEP}}}}}"
    ))
}

#[test]
fn one_combination_keeps_the_plain_name() {
    let mut world = plain("{params: [{name: p, value: [x]}]}");
    world.settle();
    assert_eq!(world.born(), ["a"]);
}

#[test]
fn an_empty_array_skips_the_task_and_those_after_it() {
    let mut world = plain("{params: [{name: p, value: []}]}");
    world.settle();
    assert_eq!(world.skipped(), ["a: Matrix Parameters have an empty array", "b: Parent Tasks were skipped"]);
    assert!(world.condition().starts_with("True/Completed "), "{}", world.condition());
}

#[test]
fn a_failed_combination_fails_the_task_once_all_are_done() {
    let mut world = plain("{params: [{name: p, value: [u, v]}]}");
    world.settle();
    world.fail("a-0");
    assert_eq!(
        world.condition(),
        "Unknown/Running Tasks Completed: 0 (Failed: 0, Cancelled 0), Incomplete: 2, Skipped: 0"
    );
    world.succeed("a-1");
    assert_eq!(world.condition(), "False/Failed Tasks Completed: 1 (Failed: 1, Cancelled 0), Skipped: 1");
}

#[test]
fn cancelling_reaches_every_combination() {
    let mut world = plain("{params: [{name: p, value: [u, v, w]}]}");
    world.settle();
    world.succeed("a-1");
    world.ask("CancelledRunFinally");
    let told = world.children.values().filter(|child| child.spec.status == "TaskRunCancelled").count();
    assert_eq!(told, 2);
    world.cancel_told();
    assert_eq!(world.condition(), r#"False/Cancelled PipelineRun "x" was cancelled"#);
}

#[test]
fn a_crash_in_the_middle_of_a_fan_out_is_made_good() {
    let mut world = plain("{params: [{name: p, value: [u, v, w]}]}");
    let label = world.plan();
    world.apply(&label.writes[0]);
    let interrupted = world.plan();
    world.apply(&interrupted.writes[1]);
    world.settle();
    assert_eq!(world.born(), ["a-1", "a-0", "a-2"], "each exactly once");
    let listed: Vec<String> = world.status().child_references.into_iter().map(|child| child.name).collect();
    assert_eq!(listed, ["x-a-0", "x-a-1", "x-a-2"]);
}

#[test]
fn what_is_no_array_fails_the_run() {
    let mut world = plain("{params: [{name: p, value: text}]}");
    world.settle();
    assert!(
        world
            .condition()
            .starts_with("False/InvalidMatrixParameterTypes [User error] Failed to validate matrix"),
        "{}",
        world.condition()
    );
}

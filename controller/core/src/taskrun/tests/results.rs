//! From result files to the status (contract 5.6 and 12.6).

use rstest::rstest;

use super::*;

fn run_with(declaration: &str, content: Option<&str>) -> World {
    let mut world = World::new(&format!(
        "
metadata: {{name: t}}
spec:
  taskSpec:
    results: [{declaration}]
    steps: [{{name: a, image: i, script: x}}]
"
    ));
    world.settle();
    world.steps_exit(&[0]);
    if let Some(content) = content {
        let message = json!([{"key": "r", "value": content, "type": 1}]).to_string();
        terminated(&mut world, 0)["message"] = json!(message);
    }
    world.settle();
    world
}

fn terminated(world: &mut World, step: usize) -> &mut Value {
    &mut world.pods[0]["status"]["containerStatuses"][step]["state"]["terminated"]
}

const STRING: &str = "{name: r}";
const ARRAY: &str = "{name: r, type: array}";
const OBJECT: &str = "{name: r, type: object, properties: {k: {}}}";

#[rstest]
#[case(STRING, "abc", json!("abc"))]
#[case(STRING, "abc\n", json!("abc\n"))]
#[case(STRING, "\"abc\"", json!("\"abc\""))]
#[case(STRING, "[\"a\",\"b\"]", json!("[\"a\",\"b\"]"))]
#[case(STRING, "{\"k\":\"v\"}", json!("{\"k\":\"v\"}"))]
#[case(STRING, "", json!(""))]
#[case(ARRAY, "[\"a\",\"b\"]", json!(["a", "b"]))]
#[case(ARRAY, "[\"a\",\"b\"]\n", json!(["a", "b"]))]
#[case(OBJECT, "{\"k\":\"v\"}", json!({"k": "v"}))]
#[case(OBJECT, "{}", json!({}))]
#[case(OBJECT, "{\"k\":\"v\",\"j\":\"w\"}", json!({"k": "v", "j": "w"}))]
fn results_that_fit(#[case] declaration: &str, #[case] content: &str, #[case] value: Value) {
    let world = run_with(declaration, Some(content));
    assert_eq!(world.said(), "True/Succeeded: All Steps have completed executing");
    let results = world.status().results;
    assert_eq!(results.len(), 1);
    assert_eq!(json!(results[0].value), value);
}

#[rstest]
#[case(ARRAY, "abc", "array", "string")]
#[case(ARRAY, "\"abc\"", "array", "string")]
#[case(ARRAY, "[1,2]", "array", "string")]
#[case(ARRAY, "{\"k\":\"v\"}", "array", "object")]
#[case(ARRAY, " [\"a\"]", "array", "string")]
#[case(ARRAY, "", "array", "string")]
#[case(OBJECT, "abc", "object", "string")]
#[case(OBJECT, "[\"a\"]", "object", "array")]
#[case(OBJECT, "", "object", "string")]
fn results_of_the_wrong_type(
    #[case] declaration: &str,
    #[case] content: &str,
    #[case] expected: &str,
    #[case] found: &str,
) {
    let world = run_with(declaration, Some(content));
    assert_eq!(
        world.said(),
        format!(
            "False/TaskRunValidationFailed: [User error] Provided results don't match declared results; may be \
             invalid JSON or missing result declaration:  \"r\": task result is expected to be \"{expected}\" type \
             but was initialized to a different type \"{found}\""
        )
    );
    assert!(world.status().results.is_empty());
}

#[test]
fn an_object_without_a_declared_key_fails_and_is_kept() {
    let world = run_with(OBJECT, Some("{\"j\":\"v\"}"));
    assert_eq!(
        world.said(),
        "False/TaskRunValidationFailed: [User error] missing keys for these results which are required in \
         TaskResult's properties map[r:[k]]"
    );
    assert_eq!(json!(world.status().results[0].value), json!({"j": "v"}));
}

#[test]
fn a_result_never_written_is_absent() {
    let world = run_with(ARRAY, None);
    assert_eq!(world.said(), "True/Succeeded: All Steps have completed executing");
    assert!(world.status().results.is_empty());
}

#[test]
fn the_last_step_wins_in_the_place_of_the_first_and_strangers_are_not_read() {
    let mut world = World::new(
        "
metadata: {name: t}
spec:
  taskSpec:
    results: [{name: r}, {name: s}, {name: from-step, value: '$(steps.b.results.own)'}, {name: around, value: 'x $(steps.b.results.text) y'}]
    steps:
    - {name: a, image: i, script: x}
    - {name: b, image: i, script: x, results: [{name: own}, {name: text, type: string}]}
",
    );
    world.settle();
    world.steps_exit(&[0, 1]);
    terminated(&mut world, 0)["message"] = json!(
        r#"[{"key":"r","value":"1","type":1},{"key":"s","value":"2","type":1},{"key":"nobody","value":"","type":1}]"#
    );
    terminated(&mut world, 1)["message"] = json!(
        r#"[{"key":"r","value":"3","type":1},{"key":"own","value":"[\"x\"]","type":4},{"key":"text","value":"[\"x\"]","type":4},{"key":"alien","value":"","type":4}]"#
    );
    world.settle();
    assert_eq!(world.said(), "False/StepFailed: \"step-b\" exited with code 1: Error");
    let status = world.status();
    assert_eq!(
        json!(status.results),
        json!([
            {"name": "r", "type": "string", "value": "3"},
            {"name": "s", "type": "string", "value": "2"},
            {"name": "from-step", "type": "string", "value": "[\"x\"]"},
            {"name": "around", "type": "string", "value": "[\"x\"]"},
        ]),
        "results are read even on failure"
    );
    assert_eq!(
        json!(status.steps[1].results),
        json!([
            {"name": "own", "type": "array", "value": ["x"]},
            {"name": "text", "type": "string", "value": "[\"x\"]"},
        ])
    );
}

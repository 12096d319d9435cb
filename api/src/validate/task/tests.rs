#![expect(clippy::needless_pass_by_value, reason = "tables of cases hand their values over")]

use rstest::rstest;
use serde_json::{Value, json};

use super::*;

fn check_with(spec: Value, config: &Config) -> String {
    let object =
        json!({"apiVersion": "tekton.dev/v1", "kind": "Task", "metadata": {"name": "t"}, "spec": spec});
    serde_json::from_value::<Task>(object).unwrap().validate(config).to_string()
}

fn check(spec: Value) -> String {
    check_with(spec, &Config::default())
}

fn check_step(step: Value) -> String {
    check(json!({"steps": [step]}))
}

#[rstest]
#[case(json!({"steps": [{"image": "i"}]}))]
#[case(json!({"steps": [{"script": "x"}], "stepTemplate": {"image": "i"}}))]
#[case(json!({"steps": [{"ref": {"name": "a"}, "params": [{"name": "p", "value": "v"}]}], "stepTemplate": {"image": "i"}}))]
#[case(json!({
    "steps": [{"image": "i", "workspaces": [{"name": "w"}]}],
    "workspaces": [{"name": "w"}, {"name": "x", "mountPath": "/x"}],
}))]
#[case(json!({"steps": [{"image": "i", "volumeMounts": [{"name": "v", "mountPath": "/tekton/home/x"}]}]}))]
fn right(#[case] spec: Value) {
    assert_eq!(check(spec), "");
}

#[rstest]
#[case(json!({}), "missing field(s): spec.steps")]
#[case(json!({"steps": [{}]}), "missing field(s): spec.steps[0].Image")]
#[case(
    json!({"steps": [{"image": "i", "name": "a"}, {"image": "i", "name": "a"}]}),
    "expected exactly one, got both: spec.steps[1].name"
)]
#[case(
    json!({"steps": [{"image": "i"}], "volumes": [{"name": "v"}, {"name": "v"}]}),
    "multiple volumes with same name \"v\": spec.volumes[1].name"
)]
#[case(
    json!({"steps": [{"image": "i"}], "workspaces": [{"name": "w"}, {"name": "w", "mountPath": "/x"}]}),
    "workspace name \"w\" must be unique: spec.workspaces[1].name"
)]
#[case(
    json!({"steps": [{"image": "i", "volumeMounts": [{"name": "v", "mountPath": "/a//b/"}]}], "workspaces": [{"name": "w", "mountPath": "/a/b"}]}),
    "workspace mount path \"/a/b\" must be unique: spec.workspaces[0].mountPath"
)]
#[case(
    json!({"steps": [{"image": "i", "workspaces": [{"name": "w"}]}]}),
    "undefined workspace \"w\": spec.steps[0].workspaces[0].name"
)]
#[case(
    json!({"steps": [{"image": "i"}], "sidecars": [{"name": "tekton-log-results", "image": "i"}]}),
    "Invalid: cannot use reserved sidecar name tekton-log-results: spec.sidecars.name"
)]
#[case(
    json!({"steps": [{"image": "i"}], "sidecars": [{"name": "a", "script": "x", "command": ["y"]}]}),
    "missing field(s): spec.sidecars.image\nscript cannot be used with command: spec.sidecars.script"
)]
#[case(
    json!({"steps": [{"script": "x"}], "stepTemplate": {"image": "i", "command": ["y"]}}),
    "script cannot be used with command: spec.steps[0].script"
)]
fn wrong(#[case] spec: Value, #[case] text: &str) {
    assert_eq!(check(spec), text);
}

#[rstest]
#[case(json!({"image": "i", "timeout": "-1s", "command": ["a"], "script": "b"}), "invalid value: -1s: spec.steps[0].negative timeout")]
#[case(
    json!({"image": "i", "onError": "ignore"}),
    "invalid value: \"ignore\": spec.steps[0].onError\nTask step onError must be either \"continue\" or \"stopAndFail\""
)]
#[case(json!({"image": "i", "params": [{"name": "a"}]}), "params cannot be used without Ref: spec.steps[0].params")]
#[case(
    json!({"ref": {"name": "a"}, "image": "i", "workingDir": "/", "results": [{"name": "r"}]}),
    "image cannot be used with Ref: spec.steps[0].image\nresults cannot be used with Ref: spec.steps[0].results\n\
     working dir cannot be used with Ref: spec.steps[0].workingDir"
)]
#[case(json!({"ref": {}}), "missing field(s): spec.steps[0].ref.name")]
#[case(
    json!({"image": "i", "script": "#!win\nx"}),
    "windows script support requires \"enable-api-fields\" feature gate to be \"alpha\" but it is \"beta\": \
     spec.steps[0].script"
)]
#[case(
    json!({"image": "i", "script": "$(artifacts.path)"}),
    "feature flag enable-artifacts should be set to true to use artifacts feature.: spec.steps[0]"
)]
#[case(
    json!({"image": "i", "volumeMounts": [{"name": "v", "mountPath": "/tekton/../tekton/x"}]}),
    "volumeMount cannot be mounted under /tekton/ (volumeMount \"v\" mounted at \"/tekton/../tekton/x\"): \
     spec.steps[0].volumeMounts[0].mountPath"
)]
#[case(
    json!({"image": "i", "volumeMounts": [{"name": "tekton-internal-x", "mountPath": "/x"}]}),
    "volumeMount name \"tekton-internal-x\" cannot start with \"tekton-internal-\": spec.steps[0].volumeMounts[0].name"
)]
#[case(json!({"image": "i", "when": [{}]}), "missing field(s): spec.steps[0].when[0]")]
#[case(json!({"image": "$(params.no)"}), "non-existent variable in \"$(params.no)\": spec.steps[0].image")]
fn wrong_steps(#[case] step: Value, #[case] text: &str) {
    assert_eq!(check_step(step), text);
}

#[test]
fn mounts_of_the_template_are_judged_once() {
    let template = json!({"volumeMounts": [{"name": "v", "mountPath": "/tekton/x"}]});
    assert_eq!(
        check(json!({"steps": [{"image": "i"}, {"image": "i"}], "stepTemplate": template})),
        "volumeMount cannot be mounted under /tekton/ (volumeMount \"v\" mounted at \"/tekton/x\"): \
         spec.stepTemplate.volumeMounts[0].mountPath"
    );
}

/// An error quotes the whole field, so one for each variable in it would be as large as the square of the field.
#[test]
fn a_field_is_quoted_once_however_much_is_wrong_in_it() {
    let script = "$(params.no)$(context.task.no)$(results.no.path)".repeat(5_000);
    let text = check_step(json!({"image": "i", "script": script}));
    assert_eq!(text, format!("non-existent variable in \"{script}\": spec.steps[0].script"));
}

#[test]
fn a_step_name_is_a_label() {
    let text = check_step(json!({"image": "i", "name": "No"}));
    assert_eq!(text.lines().next(), Some("invalid value \"No\": spec.steps[0].name"));
}

#[test]
fn step_workspaces_are_beta() {
    let mut config = Config::default();
    config.features.enable_api_fields = ApiFields::Stable;
    let spec =
        json!({"steps": [{"image": "i", "workspaces": [{"name": "w"}]}], "workspaces": [{"name": "w"}]});
    assert_eq!(
        check_with(spec, &config),
        "step workspaces requires \"enable-api-fields\" feature gate to be \"alpha\" or \"beta\" but it is \"stable\": \
         spec.steps[0].workspaces"
    );
}

#[rstest]
#[case("/a/b", "/a/b")]
#[case("/a/./b//c/", "/a/b/c")]
#[case("/../a/..", "/")]
#[case("a/../..", "..")]
#[case("", ".")]
fn paths_are_cleaned(#[case] path: &str, #[case] cleaned: &str) {
    assert_eq!(clean(path), cleaned);
}

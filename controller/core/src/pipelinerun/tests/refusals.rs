use super::World;
use crate::plan::{Resource, Target};
use crate::snapshot::Refusal;

const TASK: &str = "taskSpec: {steps: [{name: s, image: i, script: 'true'}]}";

fn refusal(resource: Resource, name: &str, message: &str) -> Refusal {
    Refusal {
        target: Target { resource, namespace: "ns".into(), name: name.into() },
        of_status: false,
        code: 403,
        reason: "Forbidden".into(),
        message: message.into(),
    }
}

#[test]
fn a_refused_child_fails_the_run_and_the_others_stay_listed() {
    let mut world = World::embedded(&format!("tasks: [{{name: a, {TASK}}}, {{name: b, {TASK}}}]"));
    let label = world.plan();
    world.apply(&label.writes[0]);
    let creation = world.plan();
    world.apply(&creation.writes[0]);
    world.refusals.push(refusal(Resource::TaskRun, "x-b", "admission webhook says \"no\""));
    world.settle();
    assert_eq!(world.condition(), r#"False/CreateRunFailed admission webhook says "no""#);
    let listed: Vec<String> = world.status().child_references.into_iter().map(|child| child.name).collect();
    assert_eq!(listed, ["x-a"]);
}

#[test]
fn a_refused_cancellation_is_said_and_tried_again() {
    let mut world = World::embedded(&format!("tasks: [{{name: a, {TASK}}}]"));
    world.settle();
    world.run["spec"]["status"] = "Cancelled".into();
    world.refusals.push(refusal(Resource::TaskRun, "x-a", "not now"));
    world.settle();
    assert_eq!(
        world.condition(),
        "Unknown/PipelineRunCouldntCancel PipelineRun \"x\" was cancelled but had errors trying to cancel \
         TaskRuns and/or Runs: not now"
    );
    assert!(world.plan().requeue.is_some());
    world.refusals.clear();
    world.settle();
    assert_eq!(world.condition(), r#"False/Cancelled PipelineRun "x" was cancelled"#);
}

#[test]
fn a_refused_timeout_is_said_and_tried_again() {
    let mut world = World::embedded(&format!("tasks: [{{name: a, {TASK}}}]"));
    world.settle();
    world.refusals.push(refusal(Resource::TaskRun, "x-a", "not now"));
    world.wait(3601);
    assert!(world.condition().starts_with("Unknown/PipelineRunCouldntTimeOut "), "{}", world.condition());
    world.refusals.clear();
    world.settle();
    assert!(world.condition().starts_with("False/PipelineRunTimeout "), "{}", world.condition());
}

#[test]
fn claims_come_before_the_first_child_and_only_once() {
    let spec = format!(
        "workspaces: [{{name: w}}]
tasks:
- {{name: a, workspaces: [{{name: source, workspace: w, subPath: '../$(context.pipelineRun.name)'}}], \
         {TASK}}}
- {{name: b, runAfter: [a], {TASK}}}"
    );
    let run = "workspaces:
- name: w
  subPath: dir/sub
  volumeClaimTemplate:
    metadata: {name: cache, labels: {l: v}}
    spec: {accessModes: [ReadWriteOnce]}";
    let mut world = World::with_spec(&spec, run);
    world.settle();
    world.succeed("a");
    assert_eq!(world.claims.len(), 1);
    let claim = world.claims[0].clone();
    // sha256("w" + "run-uid"), first ten hex digits.
    assert_eq!(claim, "cache-02e80f4c66");
    let binding = serde_json::json!(world.children["x-a"].spec.workspaces);
    assert_eq!(
        binding,
        serde_json::json!([{
            "name": "source", "subPath": "dir/x", "persistentVolumeClaim": {"claimName": claim},
        }])
    );

    let mut world = World::with_spec(&spec, run);
    world.refusals.push(refusal(Resource::PersistentVolumeClaim, &claim, "exceeded quota"));
    world.settle();
    assert_eq!(
        world.condition(),
        format!(
            "False/CouldntCreateWorkspacePVC Failed to create PVC for PipelineRun ns/x correctly: PVC \
             creation error for {claim}: exceeded quota"
        )
    );
    assert!(world.born().is_empty());
}

#[test]
fn a_status_without_room_ends_the_run_in_fewer_words() {
    let mut world = World::embedded(&format!("tasks: [{{name: a, {TASK}}}]"));
    world.settle();
    let message = "etcdserver: request is too large";
    let refused = refusal(Resource::PipelineRun, "x", message);
    world.refusals.push(Refusal { of_status: true, code: 500, ..refused });
    world.settle();
    assert_eq!(
        world.condition(),
        "False/PipelineValidationFailed the status of PipelineRun \"x\", which repeats its Pipeline, is too large to be \
         stored: etcdserver: request is too large; make the scripts of its embedded Tasks or the params smaller"
    );
    assert!(world.status().pipeline_spec.is_none());
}

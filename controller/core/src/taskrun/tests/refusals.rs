//! What the API server refuses (contract 5.11).

use rstest::rstest;

use super::*;
use crate::plan::Target;

fn refuse(world: &mut World, resource: Resource, name: &str, code: u16, reason: &str, message: &str) {
    let target = Target { resource, namespace: "ns".into(), name: name.into() };
    world.refusals = vec![Refusal { target, code, reason: reason.into(), message: message.into() }];
}

#[rstest]
#[case(422, "Invalid", "bad pod", "PodCreationFailed", "bad pod")]
#[case(
    403,
    "Forbidden",
    "pod violates PodSecurity \"restricted\"",
    "PodAdmissionFailed",
    "pod violates PodSecurity \"restricted\""
)]
#[case(403, "Forbidden", "no rights", "PodCreationFailed", "no rights")]
fn a_refused_pod_fails_the_run(
    #[case] code: u16,
    #[case] reason: &str,
    #[case] message: &str,
    #[case] expected: &str,
    #[case] text: &str,
) {
    let mut world = World::new(ONE_STEP);
    refuse(&mut world, Resource::Pod, "run-pod", code, reason, message);
    world.settle();
    assert_eq!(
        world.said(),
        format!("False/{expected}: failed to create task run pod \"run\": {text}. Maybe invalid TaskSpec")
    );
    assert!(world.pods.is_empty());
}

#[test]
fn a_full_quota_is_waited_out_without_spending_the_runs_time() {
    let mut world = World::new(ONE_STEP);
    refuse(&mut world, Resource::Pod, "run-pod", 403, "Forbidden", "exceeded quota: q");
    world.settle();
    assert_eq!(
        world.said(),
        "Unknown/ExceededResourceQuota: TaskRun Pod exceeded available resources: exceeded quota: q"
    );
    assert_eq!(world.status().start_time, None);
    world.refusals.clear();
    let plan = world.plan();
    assert!(plan.is_empty(), "not again at once: {plan:?}");
    assert_eq!(plan.requeue, Some(Duration::from_mins(1)));
    world.pass(60);
    world.settle();
    assert_eq!(world.pods.len(), 1);
    assert_eq!(world.status().start_time, Some(Time(world.now)));
}

#[test]
fn two_writers_of_one_quota() {
    let mut world = World::new(ONE_STEP);
    let message = "Operation cannot be fulfilled on resourcequotas \"q\": the object has been modified";
    refuse(&mut world, Resource::Pod, "run-pod", 409, "Conflict", message);
    world.settle();
    assert_eq!(
        world.said(),
        "Unknown/Pending: tried to create pod, but it failed with ResourceQuotaConflictError"
    );
    world.refusals.clear();
    assert_eq!(world.plan().requeue, Some(Duration::from_secs(1)));
}

#[test]
fn a_name_taken_by_somebody_else() {
    let mut world = World::new(ONE_STEP);
    refuse(&mut world, Resource::Pod, "run-pod", 409, "AlreadyExists", "pods \"run-pod\" already exists");
    world.settle();
    assert_eq!(world.said(), "Unknown/Pending: tried to create pod, but it already exists");
    assert!(world.diagnosis().expect("a diagnosis").contains("pod \"run-pod\" belongs to somebody else"));
    assert!(world.plan().requeue.is_some());
}

#[test]
fn a_refused_claim() {
    let mut world = World::new(
        "
metadata: {name: t}
spec:
  workspaces: [{name: w, volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce]}}}]
  taskSpec: {workspaces: [{name: w}], steps: [{name: a, image: i, script: x}]}
",
    );
    let name = world.plan().writes[0].target().name.clone();
    refuse(&mut world, Resource::PersistentVolumeClaim, &name, 403, "Forbidden", "exceeded quota");
    world.settle();
    assert_eq!(
        world.said(),
        format!(
            "False/CouldntCreateWorkspacePVC: Failed to create PVC for TaskRun t workspaces correctly: PVC creation \
             error for {name}: exceeded quota"
        )
    );
}

//! What the API server refuses (contract 5.11).

use rstest::rstest;

use super::*;
use crate::plan::Target;

fn refuse(world: &mut World, resource: Resource, name: &str, code: u16, reason: &str, message: &str) {
    let target = Target { resource, namespace: "ns".into(), name: name.into() };
    world.refusals =
        vec![Refusal { target, of_status: false, code, reason: reason.into(), message: message.into() }];
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
    assert_eq!(plan.requeue, Some(Duration::from_secs(5)));
    world.pass(5);
    world.settle();
    assert_eq!(world.pods.len(), 1);
    assert_eq!(world.diagnosis(), None);
    assert_eq!(world.status().start_time, Some(Time(world.now)));
}

#[test]
fn a_freed_quota_is_told_of_also_when_the_status_was_lost_after_the_pod_was_made() {
    let mut world = World::new(ONE_STEP);
    refuse(&mut world, Resource::Pod, "run-pod", 403, "Forbidden", "exceeded quota: q");
    world.settle();
    world.refusals.clear();
    world.pass(5);
    let plan = world.plan();
    plan.writes.iter().for_each(|write| world.apply(write));
    assert_eq!((world.pods.len(), world.said().contains("ExceededResourceQuota")), (1, true));
    world.settle();
    assert_eq!(world.said(), "Unknown/Started: ");
    assert_eq!(world.diagnosis(), None);
}

#[test]
fn a_quota_that_stays_full_is_tried_ever_more_seldom_and_written_of_once() {
    let mut world = World::new(ONE_STEP);
    let text =
        "pods \"run-pod\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0";
    refuse(&mut world, Resource::Pod, "run-pod", 403, "Forbidden", text);
    world.settle();
    assert_eq!(
        world.diagnosis().as_deref(),
        Some(
            "the API server refuses pod \"run-pod\": pods \"run-pod\" is forbidden: exceeded quota: q, requested: \
             pods=1, used: pods=0, limited: pods=0; it is tried again until there is room"
        )
    );
    let writes = world.writes;
    let mut pauses = Vec::new();
    let mut pause = Duration::from_secs(5);
    for _ in 0..6 {
        world.now += pause;
        world.refusals.clear();
        assert_eq!(world.plan().writes.len(), 1, "the pod is tried again");
        refuse(&mut world, Resource::Pod, "run-pod", 403, "Forbidden", text);
        let plan = world.plan();
        assert!(plan.is_empty(), "{plan:?}");
        pause = plan.requeue.expect("a time");
        pauses.push(pause.as_secs());
    }
    assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
    assert_eq!(world.writes, writes);
}

#[rstest]
#[case::service_account(
    "pods \"run-pod\" is forbidden: error looking up service account ns/x: serviceaccount \"x\" not found",
    "; make that ServiceAccount, or set another serviceAccountName"
)]
#[case::pod_security(
    "pods \"run-pod\" is forbidden: violates PodSecurity \"restricted:latest\"",
    "; set \"set-security-context\" in ConfigMap \"feature-flags\", or the steps' securityContext"
)]
#[case::policy("admission webhook \"policy.example.com\" denied the request: no", "")]
fn a_refusal_is_diagnosed_with_the_api_servers_words(#[case] text: &str, #[case] hint: &str) {
    let mut world = World::new(ONE_STEP);
    refuse(&mut world, Resource::Pod, "run-pod", 403, "Forbidden", text);
    world.settle();
    assert_eq!(world.succeeded().status, "False");
    let expected = format!("the API server refuses pod \"run-pod\": {text}{hint}");
    assert_eq!(world.diagnosis(), Some(expected));
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

#[test]
fn a_status_without_room_ends_the_run_in_fewer_words() {
    let mut world = World::new(&format!("retries: 3\n{ONE_STEP}"));
    world.settle();
    assert_eq!(world.pods.len(), 1);
    let target = Target { resource: Resource::TaskRun, namespace: "ns".into(), name: "run".into() };
    let message = "etcdserver: request is too large".to_owned();
    world.refusals = vec![Refusal { target, of_status: true, code: 500, reason: String::new(), message }];
    world.settle();
    assert_eq!(
        world.said(),
        "False/TaskRunValidationFailed: the status of TaskRun \"run\", which repeats its Task, is too large to be stored: \
         etcdserver: request is too large; make the Task's scripts or the params smaller"
    );
    assert!(world.pods.is_empty() && world.status().task_spec.is_none());
}

//! Why a pod waits: what the scheduler and the node say reaches the second condition, and nothing else changes.

use rstest::rstest;

use super::*;

const MISSING: &str = "MountVolume.SetUp failed for volume \"cfg\" : configmap \" docker-config\" not found";
const WAITING: &str = "{phase: Pending, containerStatuses: [{name: step-a, image: i, imageID: '', ready: false, \
                       restartCount: 0, state: {waiting: {reason: ContainerCreating}}}]}";

/// A run whose pod a node has taken and cannot start.
fn pending() -> World {
    let mut world = World::new(ONE_STEP);
    world.settle();
    world.pod_says(WAITING);
    world
}

fn warn(world: &mut World, reason: &str, message: &str) {
    world.warnings.extend(PodWarning::new("run-pod-uid", reason, message));
}

#[test]
fn a_missing_configmap_is_told_with_the_nodes_own_words() {
    let mut world = pending();
    warn(&mut world, "FailedMount", MISSING);
    world.settle();
    assert_eq!(world.diagnosis(), None, "a healthy pod may be warned of in its first seconds");
    assert_eq!(world.plan().requeue, Some(Duration::from_secs(5)));
    world.pass(5);
    world.settle();
    assert_eq!(world.diagnosis().as_deref(), Some(&*format!("pod \"run-pod\": FailedMount: {MISSING}")));
    assert_eq!(world.said(), "Unknown/Pending: Pending", "upstream's words stay");
    assert_eq!(world.status().conditions[0].type_, "Succeeded");
    let told: Vec<&String> = world.events.iter().filter(|event| event.starts_with("Warning")).collect();
    assert_eq!(told, [&format!("Warning Diagnosed: pod \"run-pod\": FailedMount: {MISSING}")]);
}

#[test]
fn a_slow_node_that_says_nothing_costs_one_write() {
    let mut world = World::new(ONE_STEP);
    world.settle();
    let writes = world.writes;
    let not_yet = |what: &str| {
        format!("{{phase: Pending, conditions: [{{type: {what}, status: 'False', message: later}}]}}")
    };
    for second in 0..29 {
        world.pod_says(["{phase: Pending}", &not_yet("Initialized"), WAITING][second % 3]);
        assert!(world.plan().is_empty(), "after {second} s");
        world.pass(1);
    }
    assert_eq!(world.writes, writes);
    assert_eq!(world.plan().requeue, Some(Duration::from_secs(1)));
    world.pass(1);
    world.pod_says(WAITING);
    world.settle();
    assert_eq!((world.said().as_str(), world.writes), ("Unknown/Pending: Pending", writes + 1));
}

#[test]
fn the_same_words_again_are_no_news() {
    let mut world = pending();
    warn(&mut world, "FailedMount", MISSING);
    world.pass(6);
    world.settle();
    let writes = world.writes;
    for _ in 0..5 {
        world.pass(30);
        assert!(world.plan().is_empty());
    }
    assert_eq!(world.writes, writes);
}

#[test]
fn words_that_alternate_are_written_at_a_bounded_rate() {
    let mut world = pending();
    world.pass(6);
    let mut writes = 0;
    for second in 0..53 {
        world.warnings.clear();
        warn(&mut world, "FailedCreatePodSandBox", &format!("cannot make sandbox {second}"));
        writes += usize::from(world.step().status.is_some());
        world.pass(1);
    }
    assert!((10..=11).contains(&writes), "{writes}");
    let requeue = world.plan().requeue.expect("the last word is told in the end");
    world.now += requeue;
    world.settle();
    let diagnosis = world.diagnosis().expect("a diagnosis");
    assert!(diagnosis.ends_with("sandbox 52"), "{diagnosis} {requeue:?}");
}

#[test]
fn it_is_over_once_the_pod_runs() {
    let mut world = pending();
    warn(&mut world, "FailedMount", MISSING);
    world.pass(6);
    world.settle();
    assert!(world.diagnosis().is_some());
    world.pod_runs();
    world.settle();
    assert_eq!(world.diagnosis(), None);
}

#[test]
fn what_a_run_waited_for_to_the_end_stays() {
    let mut world = pending();
    world.run["spec"]["timeout"] = "1m".into();
    warn(&mut world, "FailedMount", MISSING);
    world.pass(6);
    world.settle();
    world.pass(60);
    world.settle();
    assert_eq!(world.succeeded().reason, "TaskRunTimeout");
    assert!(world.diagnosis().expect("a diagnosis").contains(MISSING));
    let statuses: Vec<String> = world.status().conditions.iter().map(|c| c.status.clone()).collect();
    assert_eq!(statuses, ["False", "False"]);
}

#[test]
fn a_cancelled_run_waits_for_nothing() {
    let mut world = pending();
    warn(&mut world, "FailedMount", MISSING);
    world.pass(6);
    world.settle();
    world.run["spec"]["status"] = "TaskRunCancelled".into();
    world.settle();
    assert_eq!(world.diagnosis(), None);
}

#[test]
fn an_unschedulable_pod_is_told_with_the_schedulers_words() {
    let mut world = World::new(ONE_STEP);
    world.settle();
    world.pod_says(
        "{phase: Pending, conditions: [{type: PodScheduled, status: 'False', reason: Unschedulable, \
         message: '0/1 nodes are available: 1 Insufficient cpu.'}]}",
    );
    world.settle();
    assert_eq!(world.diagnosis(), None, "a node may be free in a moment");
    assert_eq!(world.plan().requeue, Some(Duration::from_secs(5)));
    world.pass(5);
    world.settle();
    assert_eq!(
        world.diagnosis().as_deref(),
        Some("pod \"run-pod\" has no node: Unschedulable: 0/1 nodes are available: 1 Insufficient cpu.")
    );
}

#[rstest]
#[case::the_same_words("Failed", "Error: configmap \"x\" not found", "configmap \"x\" not found", false)]
#[case::the_same_cause("Failed", "Failed to pull image \"i\": denied", "denied", false)]
#[case::more_words("Failed", "Failed to pull image \"i\": denied", "Back-off pulling image \"i\"", true)]
fn an_event_is_told_when_it_says_more_than_the_container(
    #[case] reason: &str,
    #[case] message: &str,
    #[case] waiting: &str,
    #[case] told: bool,
) {
    let mut world = pending();
    world.pods[0]["status"]["containerStatuses"][0]["state"]["waiting"] =
        json!({"reason": "ImagePullBackOff", "message": waiting});
    warn(&mut world, reason, message);
    world.settle();
    let diagnosis = world.diagnosis().expect("a diagnosis");
    assert!(diagnosis.starts_with("container \"step-a\" cannot start: ImagePullBackOff: "), "{diagnosis}");
    assert_eq!(diagnosis.contains(&format!("; pod \"run-pod\": {reason}: {message}")), told, "{diagnosis}");
}

#[test]
fn another_pods_warnings_are_not_told() {
    let mut world = pending();
    world.warnings.extend(PodWarning::new("somebody-elses", "FailedMount", MISSING));
    world.pass(6);
    world.settle();
    assert_eq!(world.diagnosis(), None);
}

#[test]
fn many_causes_are_bounded() {
    let mut world = pending();
    for volume in 0..100 {
        warn(&mut world, "FailedMount", &format!("MountVolume.SetUp failed for volume \"v{volume}\" : no"));
    }
    world.pass(6);
    world.settle();
    let diagnosis = world.diagnosis().expect("a diagnosis");
    assert!(diagnosis.ends_with("; and more") && diagnosis.len() < 600, "{diagnosis}");
}

//! What a run's tasks wait for stands in its second condition.

use ropewalk_api::conditions::{self, ConditionStatus};

use super::World;
use crate::diagnosis;

const TASK: &str = "taskSpec: {steps: [{name: s, image: i, script: 'true'}]}";

fn world(tasks: &[&str]) -> World {
    let tasks: Vec<String> = tasks.iter().map(|name| format!("{{name: {name}, {TASK}}}")).collect();
    let mut world = World::embedded(&format!("tasks: [{}]", tasks.join(", ")));
    world.settle();
    world
}

/// The child of this task says this, or nothing more.
fn says(world: &mut World, task: &str, status: ConditionStatus, text: Option<&str>) {
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.now);
    let child = world.child(task).status.get_or_insert_default();
    diagnosis::set(&mut child.conditions, status, text, &now);
}

/// The run's diagnosis, as `status: text`.
fn said(world: &World) -> Option<String> {
    let status = world.status();
    let condition = conditions::find(&status.conditions, diagnosis::TYPE)?;
    assert_eq!(status.conditions[0].type_, "Succeeded");
    Some(format!("{}: {}", condition.status, condition.message))
}

#[test]
fn a_waiting_task_is_told_until_it_runs() {
    let mut world = world(&["build", "test"]);
    assert_eq!(said(&world), None);
    says(&mut world, "build", ConditionStatus::Unknown, Some("configmap \" docker-config\" not found"));
    world.settle();
    let text = "Unknown: task \"build\" (TaskRun \"x-build\") waits: configmap \" docker-config\" not found";
    assert_eq!(said(&world).as_deref(), Some(text));
    assert!(world.condition().starts_with("Unknown/Running Tasks Completed: 0 "), "upstream's words stay");
    says(&mut world, "build", ConditionStatus::Unknown, None);
    world.settle();
    assert_eq!(said(&world), None);
    world.succeed("build");
    world.succeed("test");
    assert_eq!(said(&world), None);
}

#[test]
fn the_first_time_is_a_warning() {
    let mut world = world(&["a"]);
    says(&mut world, "a", ConditionStatus::Unknown, Some("no node"));
    let events = world.plan().events;
    let told: Vec<_> = events.iter().map(|event| (event.warning, event.message.as_str())).collect();
    assert_eq!(told, [(true, "task \"a\" (TaskRun \"x-a\") waits: no node")]);
}

#[test]
fn a_task_that_could_not_run_is_told_to_the_end() {
    let mut world = world(&["a", "b"]);
    says(&mut world, "a", ConditionStatus::False, Some("container \"step-s\" cannot start: no"));
    world.fail("a");
    let text = "task \"a\" (TaskRun \"x-a\") failed: container \"step-s\" cannot start: no";
    assert_eq!(said(&world), Some(format!("Unknown: {text}")));
    world.succeed("b");
    assert!(world.condition().starts_with("False/Failed"));
    assert_eq!(said(&world), Some(format!("False: {text}")));
    assert!(world.plan().is_empty());
}

#[test]
fn a_cancelled_run_waits_for_nothing() {
    let mut world = world(&["a"]);
    says(&mut world, "a", ConditionStatus::Unknown, Some("no node"));
    world.settle();
    world.ask("Cancelled");
    assert!(world.condition().starts_with("False/Cancelled"));
    assert_eq!(said(&world), None);
}

#[test]
fn many_tasks_that_wait_are_bounded_and_seldom_written() {
    let names: Vec<String> = (0..40).map(|number| format!("t{number:02}")).collect();
    let mut world = world(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let long = "x".repeat(10_000);
    let mut writes = 0;
    for name in &names {
        says(&mut world, name, ConditionStatus::Unknown, Some(&long));
        let plan = world.plan();
        writes += usize::from(plan.status.is_some());
        plan.status.iter().for_each(|write| world.apply(write));
    }
    assert_eq!(writes, 1, "at one moment one write");
    world.wait(10);
    let text = said(&world).expect("a diagnosis");
    assert!(text.ends_with("; and more") && text.len() < 2100, "{text}");
    assert!(text.contains("\"t02\"") && !text.contains("\"t03\""), "{text}");
}

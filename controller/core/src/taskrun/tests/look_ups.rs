use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::images::{Command, Commands, Image, Lookup, Wanted};

const KANIKO: &str = "
metadata: {name: run}
spec:
  serviceAccountName: builder
  podTemplate: {imagePullSecrets: [{name: a}, {name: b}]}
  params: [{name: tag, value: debug}]
  taskSpec:
    params: [{name: tag}]
    stepTemplate: {image: 'kaniko:$(params.tag)', env: [{name: E, value: v}]}
    steps:
    - {name: build, args: [--context=., '--destination=r.example/a', 'a b']}
    - {name: say, image: other, script: echo}
";

fn found(reference: &str, entrypoint: &str, cmd: &str) -> Lookup {
    let command = Command { entrypoint: vec![entrypoint.into()], cmd: vec![cmd.into()] };
    let commands = Commands(BTreeMap::from([("linux/amd64".to_owned(), command)]));
    Lookup::Found(Image { reference: reference.into(), commands: Arc::new(commands) })
}

fn world(look_ups: &[(&str, Lookup)]) -> World {
    let mut world = World::new(KANIKO);
    world.images = Some(look_ups.iter().map(|(image, it)| ((*image).to_owned(), it.clone())).collect());
    world
}

fn pending(world: &World, problem: Option<&str>) -> BTreeMap<String, Lookup> {
    let lookup = Lookup::Pending { since: world.now, problem: problem.map(str::to_owned) };
    BTreeMap::from([("kaniko:debug".to_owned(), lookup)])
}

fn args(container: &Value) -> Vec<&str> {
    container["args"].as_array().expect("args").iter().map(|arg| arg.as_str().expect("text")).collect()
}

#[test]
fn an_image_is_named_after_substitution_and_with_who_may_pull_it() {
    let plan = world(&[]).plan();
    assert!(plan.is_empty(), "{plan:?}");
    let wanted = Wanted {
        image: "kaniko:debug".into(),
        namespace: "ns".into(),
        service_account: "builder".into(),
        pull_secrets: vec!["a".into(), "b".into()],
    };
    assert_eq!(plan.images, [wanted]);
    assert_eq!(plan.report[0].subject, "kaniko:debug");
}

#[test]
fn a_run_waits_silently_at_first_and_says_why_when_it_takes_long() {
    let mut world = world(&[]);
    world.images = Some(pending(&world, None));
    let plan = world.step();
    assert!(plan.is_empty(), "{plan:?}");
    assert_eq!(plan.images.len(), 1);
    assert_eq!(plan.requeue, Some(Duration::from_secs(5)));

    world.images = Some(pending(&world, Some("registry \"kaniko.example\" does not answer")));
    world.pass(5);
    world.settle();
    assert_eq!(world.said(), "Unknown/Started: ");
    let expected = "asking again for the entrypoint of image \"kaniko:debug\": registry \"kaniko.example\" does not answer";
    assert_eq!(world.diagnosis().as_deref(), Some(expected));
    assert_eq!(world.status().start_time, Some(Time(world.now)));
    assert_eq!(world.plan().images.len(), 1);

    let mut answered = World { run: world.run.clone(), ..self::world(&[]) };
    answered.images = Some(BTreeMap::from([("kaniko:debug".to_owned(), Lookup::Failed("gone".into()))]));
    answered.settle();
    assert_eq!(answered.succeeded().reason, "PodCreationFailed");
    assert_eq!(answered.diagnosis(), None);

    // Its own timeout counts meanwhile.
    world.pass(3602);
    world.settle();
    assert_eq!(world.succeeded().reason, "TaskRunTimeout");
    assert_eq!(world.plan().images, []);
}

#[test]
fn the_entrypoint_gets_the_images_commands_and_the_steps_arguments() {
    let mut world = world(&[("kaniko:debug", found("kaniko@sha256:1", "/kaniko/executor", "--help"))]);
    let plan = world.settle();
    assert_eq!(plan.images, []);
    let container = &world.pods[0]["spec"]["containers"][0];
    assert_eq!(container["image"], "kaniko@sha256:1");
    assert_eq!(container["command"], json!(["/tekton/bin/entrypoint"]));
    let commands =
        json!({"name": "TEKTON_PLATFORM_COMMANDS", "value": r#"{"linux/amd64":["/kaniko/executor"]}"#});
    assert_eq!(container["env"], json!([{"name": "E", "value": "v"}, commands]));
    let args = args(container);
    assert!(!args.contains(&"-entrypoint"), "{args:?}");
    assert_eq!(args[args.len() - 4..], ["--", "--context=.", "--destination=r.example/a", "a b"]);

    let other = &world.pods[0]["spec"]["containers"][1];
    assert_eq!(other["image"], "other");
    assert_eq!(other["env"], json!([{"name": "E", "value": "v"}]));
    assert_eq!(world.status().task_spec.expect("stored").steps[0].image, "");
}

#[test]
fn a_look_up_that_failed_fails_the_run_and_quotes_the_reference() {
    let mut world = world(&[("kaniko:debug", Lookup::Failed("registry \"h\" has no such image".into()))]);
    world.settle();
    assert_eq!(
        world.said(),
        "False/PodCreationFailed: failed to create task run pod \"run\": translating TaskSpec to Pod: step \"build\" has \
         neither command nor script, and the entrypoint of image \"kaniko:debug\" cannot be looked up: registry \"h\" has \
         no such image. Maybe invalid TaskSpec"
    );
    assert_eq!(world.plan().images, []);
}

#[test]
fn every_attempt_asks_again() {
    let mut world = world(&[("kaniko:debug", found("kaniko@sha256:1", "/e", ""))]);
    world.run["spec"]["retries"] = 1.into();
    world.settle();
    world.steps_exit(&[1, 0]);
    world.images = Some(BTreeMap::new());
    world.settle();
    assert_eq!(world.pods.len(), 1);
    assert_eq!(world.plan().images.len(), 1);
}

#[test]
fn a_lost_pod_counts_once_however_long_its_images_take() {
    let answer = found("kaniko@sha256:1", "/e", "");
    let mut world = world(&[("kaniko:debug", answer.clone())]);
    world.settle();
    world.pods.clear();
    world.pass(10);
    world.images = Some(pending(&world, Some("no answer")));
    for _ in 0..6 {
        world.pass(10);
        let plan = world.step();
        assert!(plan.is_empty(), "{plan:?}");
        assert_eq!(plan.images.len(), 1);
    }
    world.images = Some(BTreeMap::from([("kaniko:debug".to_owned(), answer)]));
    world.settle();
    assert_eq!(world.pods.len(), 1);
    assert_eq!(world.status().annotations["ropewalk.dev/pod-recreations"], "1");
}

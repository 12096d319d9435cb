//! Worlds that go wrong on purpose: each invariant notices.

use std::sync::Arc;

use jiff::Timestamp;
use kube::core::params::{DeleteParams, Patch, PatchParams, PostParams};
use ropewalk_core::settings::Settings;
use serde_json::{Value, json};

use super::*;

const TEKTON: &str = "/apis/tekton.dev/v1/namespaces/default";

/// A PipelineRun with tasks `a` and `b` after it, and `f` at last; all that follows is done by hand.
struct World {
    api: Api,
    invariants: Invariants,
}

impl World {
    fn new() -> Self {
        let api = Api::new(Arc::default(), &Settings::default(), 1, Timestamp::UNIX_EPOCH).unwrap();
        let mut world = Self { api, invariants: Invariants::default() };
        let task = |name: &str, after: &[&str]| {
            json!({
                "name": name,
                "runAfter": after,
                "taskSpec": { "steps": [{ "name": "s", "image": "any", "script": "true" }] },
            })
        };
        let run = json!({
            "apiVersion": "tekton.dev/v1",
            "kind": "PipelineRun",
            "metadata": { "name": "run" },
            "spec": { "pipelineSpec": {
                "tasks": [task("a", &[]), task("b", &["a"])],
                "finally": [task("f", &[])],
            }},
        });
        world.create(&format!("{TEKTON}/pipelineruns"), &run).unwrap();
        world
    }

    fn send(&mut self, request: &http::Request<Vec<u8>>) -> Result<(), String> {
        let answer = self.api.send(request, Timestamp::UNIX_EPOCH);
        assert!((200..300).contains(&answer.code), "{answer:?}");
        for delta in self.api.take_untold() {
            if let Some(watched) = self.api.watched(&delta) {
                self.invariants.check(&delta, watched, &self.api).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    fn create(&mut self, collection: &str, object: &Value) -> Result<(), String> {
        let request = kube::core::Request::new(collection.to_owned());
        self.send(&request.create(&PostParams::default(), object.to_string().into_bytes()).unwrap())
    }

    fn uid(&self, watched: Watched, name: &str) -> String {
        let object = self.api.objects(watched).find(|object| object["metadata"]["name"] == name).unwrap();
        object["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    /// Makes a child of the run for a pipeline task.
    fn child(&mut self, task: &str, name: &str) -> Result<(), String> {
        let uid = self.uid(Watched::PipelineRuns, "run");
        let child = json!({
            "apiVersion": "tekton.dev/v1",
            "kind": "TaskRun",
            "metadata": {
                "name": name,
                "labels": { "tekton.dev/pipelineTask": task },
                "ownerReferences": [owner("PipelineRun", "run", &uid)],
            },
            "spec": { "taskSpec": { "steps": [{ "name": "s", "image": "any", "script": "true" }] } },
        });
        self.create(&format!("{TEKTON}/taskruns"), &child)
    }

    fn pod(&mut self, run: &str, name: &str) -> Result<(), String> {
        let uid = self.uid(Watched::TaskRuns, run);
        let pod = json!({
            "metadata": { "name": name, "ownerReferences": [owner("TaskRun", run, &uid)] },
            "spec": { "containers": [{ "name": "step-s", "image": "any" }] },
        });
        self.create("/api/v1/namespaces/default/pods", &pod)
    }

    fn status(&mut self, collection: &str, name: &str, status: &Value) -> Result<(), String> {
        let request = kube::core::Request::new(collection.to_owned());
        let patch = Patch::Merge(json!({ "status": status }));
        self.send(&request.patch_subresource("status", name, &PatchParams::default(), &patch).unwrap())
    }

    fn run_is(&mut self, plural: &str, name: &str, status: &str, completed: bool) -> Result<(), String> {
        let status = json!({
            "conditions": [{ "type": "Succeeded", "status": status, "reason": "Told" }],
            "completionTime": completed.then_some("1970-01-01T00:00:01Z"),
        });
        self.status(&format!("{TEKTON}/{plural}"), name, &status)
    }

    fn ends(&mut self, child: &str) -> Result<(), String> {
        self.run_is("taskruns", child, "True", true)
    }
}

fn owner(kind: &str, name: &str, uid: &str) -> Value {
    json!({ "apiVersion": "tekton.dev/v1", "kind": kind, "name": name, "uid": uid, "controller": true })
}

fn noticed(result: Result<(), String>) -> String {
    result.expect_err("nothing was noticed")
}

#[test]
fn a_run_as_it_should_be_passes() {
    let mut world = World::new();
    world.child("a", "run-a").unwrap();
    world.pod("run-a", "run-a-pod").unwrap();
    world.ends("run-a").unwrap();
    world.child("b", "run-b").unwrap();
    world.ends("run-b").unwrap();
    world.child("f", "run-f").unwrap();
    world.ends("run-f").unwrap();
    world.run_is("pipelineruns", "run", "True", true).unwrap();
    let unrest = at_rest(&world.api).map_err(|error| error.to_string());
    assert_eq!(noticed(unrest), "nothing happens any more, and yet pod \"run-a-pod\" is at work");
}

#[test]
fn children_come_once_in_order_and_in_time() {
    let mut world = World::new();
    world.child("a", "run-a").unwrap();
    assert_eq!(noticed(world.child("a", "other")), "pipeline task \"a\" got a second child \"other\"");

    let mut world = World::new();
    world.child("a", "run-a").unwrap();
    assert_eq!(noticed(world.child("b", "run-b")), "pipeline task \"b\" began before \"a\" had ended");

    let mut world = World::new();
    world.child("a", "run-a").unwrap();
    assert_eq!(noticed(world.child("f", "run-f")), "pipeline task \"f\" began before \"a\" had ended");

    let mut world = World::new();
    world.child("b", "run-b").unwrap();
    let why = "pipeline task \"a\" began too late: one that waits for it had begun";
    assert_eq!(noticed(world.child("a", "run-a")), why);

    let mut world = World::new();
    world.child("f", "run-f").unwrap();
    let why = "pipeline task \"b\" began too late: finally had begun";
    assert_eq!(noticed(world.child("b", "run-b")), why);

    let mut world = World::new();
    world.run_is("pipelineruns", "run", "False", true).unwrap();
    let why = "\"run-a\" was created: its PipelineRun had ended";
    assert_eq!(noticed(world.child("a", "run-a")), why);
}

#[test]
fn an_end_is_an_end() {
    let mut world = World::new();
    world.child("a", "run-a").unwrap();
    world.ends("run-a").unwrap();
    let noticed_change = noticed(world.run_is("taskruns", "run-a", "False", true));
    assert!(noticed_change.starts_with("\"run-a\" had ended and changed from True/Told"), "{noticed_change}");

    let mut world = World::new();
    world.child("a", "run-a").unwrap();
    let why = "\"run-a\" is True/Told//- with completion time none";
    assert_eq!(noticed(world.run_is("taskruns", "run-a", "True", false)), why);

    let mut world = World::new();
    world.child("a", "run-a").unwrap();
    let why = "\"run\" ended as Told while \"run-a\" was running";
    assert_eq!(noticed(world.run_is("pipelineruns", "run", "True", true)), why);
    let unrest = at_rest(&world.api).map_err(|error| error.to_string());
    assert_eq!(noticed(unrest), "nothing happens any more, and yet TaskRun \"run-a\" has not ended");
}

#[test]
fn a_task_run_has_one_pod_and_its_steps_run_once() {
    let mut world = World::new();
    world.child("a", "run-a").unwrap();
    world.pod("run-a", "one").unwrap();
    assert_eq!(noticed(world.pod("run-a", "two")), "TaskRun \"run-a\" has pod \"two\" beside \"one\"");

    let pods = "/api/v1/namespaces/default/pods";
    for (state, again) in
        [("waiting", None), ("running", Some("was created again although its steps had begun"))]
    {
        let mut world = World::new();
        world.child("a", "run-a").unwrap();
        world.pod("run-a", "one").unwrap();
        let status = json!({ "containerStatuses": [{
            "name": "step-s", "image": "any", "imageID": "", "ready": false, "restartCount": 0,
            "state": { (state): {} },
        }]});
        world.status(pods, "one", &status).unwrap();
        let delete = kube::core::Request::new(pods).delete("one", &DeleteParams::default()).unwrap();
        world.send(&delete).unwrap();
        let made = world.pod("run-a", "one");
        assert_eq!(made.err(), again.map(|why| format!("pod \"one\" {why}")), "{state}");
    }
}

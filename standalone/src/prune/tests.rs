//! Pruning against the API server.

use std::path::Path;
use std::sync::Arc;

use kube::api::{ListParams, Patch, PatchParams, PostParams};
use ropewalk_apiserver::{NoAdmission, State};
use serde_json::{Value, json};

use super::*;
use crate::server::{NoLogs, Server};

/// What no test should ever take, on a machine however busy.
const PATIENCE: Duration = Duration::from_mins(1);

fn client() -> Client {
    let table = crate::resources().expect("a table");
    let state = State::new(table, 1, Timestamp::now());
    Server::new(state, Arc::new(NoAdmission), Arc::new(NoLogs)).client()
}

async fn make<K>(client: &Client, object: Value, status: Value) -> String
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + serde::Serialize,
{
    let api = Api::<K>::namespaced(client.clone(), "default");
    let object: K = serde_json::from_value(object).expect("an object");
    let made = api.create(&PostParams::default(), &object).await.expect("created");
    let name = made.meta().name.clone().expect("a name");
    let status = Patch::Merge(json!({ "status": status }));
    api.patch_status(&name, &PatchParams::default(), &status).await.expect("a status");
    made.meta().uid.clone().expect("a UID")
}

fn run(name: &str, owner: Option<(&str, &str, &str)>) -> Value {
    let owners = owner.map(|(kind, name, uid)| {
        json!([{ "apiVersion": "tekton.dev/v1", "kind": kind, "name": name, "uid": uid, "controller": true }])
    });
    json!({ "metadata": { "name": name, "ownerReferences": owners }, "spec": {} })
}

fn done(minute: i64) -> Value {
    let time = at(minute).to_string();
    json!({
        "completionTime": time,
        "conditions": [{ "type": "Succeeded", "status": "True", "lastTransitionTime": time }],
    })
}

/// A minute of the hour before now.
fn at(minute: i64) -> Timestamp {
    let now = Timestamp::now() - jiff::SignedDuration::from_mins(60 - minute);
    now.round(jiff::Unit::Second).expect("a time")
}

fn log(data_dir: &Path, uid: &str, bytes: usize) {
    let attempt = data_dir.join("pods").join(uid).join("containers/step-a/0");
    std::fs::create_dir_all(&attempt).expect("made");
    std::fs::write(attempt.join("log"), vec![b'x'; bytes]).expect("written");
}

async fn names<K>(client: &Client) -> Vec<String>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let list = Api::<K>::all(client.clone()).list(&ListParams::default()).await.expect("listed");
    list.items.iter().map(|object| object.meta().name.clone().expect("a name")).collect()
}

/// Everything there is.
async fn all(client: &Client) -> Vec<String> {
    let mut all = names::<PipelineRun>(client).await;
    all.extend(names::<TaskRun>(client).await);
    all.extend(names::<Pod>(client).await);
    all
}

fn pod(name: &str, owner: Option<(&str, &str, &str)>) -> Value {
    let mut pod = run(name, owner);
    pod["spec"] = json!({ "containers": [{ "name": "step-a", "image": "i" }] });
    pod
}

fn pod_done(minute: i64) -> Value {
    let state = json!({ "terminated": { "exitCode": 0, "finishedAt": at(minute).to_string() } });
    json!({ "phase": "Succeeded", "containerStatuses": [{
        "name": "step-a", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state,
    }] })
}

/// A pipeline run `<name>` with a task run and its pod, all of which ended, and so many bytes of log.
async fn finished(client: &Client, data_dir: &Path, name: &str, minute: i64, bytes: usize) {
    let uid = make::<PipelineRun>(client, run(name, None), done(minute)).await;
    let task = format!("{name}-task");
    let uid = make::<TaskRun>(client, run(&task, Some(("PipelineRun", name, &uid))), done(minute)).await;
    let owned = pod(&format!("{name}-pod"), Some(("TaskRun", &task, &uid)));
    let object: Pod = serde_json::from_value(owned).expect("a pod");
    let api = Api::<Pod>::namespaced(client.clone(), "default");
    let made = api.create(&PostParams::default(), &object).await.expect("created");
    // The log is there before the pod is said to have ended.
    log(data_dir, &made.metadata.uid.expect("a UID"), bytes);
    let status = Patch::Merge(json!({ "status": pod_done(minute) }));
    api.patch_status(&format!("{name}-pod"), &PatchParams::default(), &status).await.expect("a status");
}

/// Waits until this is all there is.
async fn until(client: &Client, expected: &[&str]) {
    let pods = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default());
    let runs = watcher(Api::<PipelineRun>::all(client.clone()), watcher::Config::default());
    let mut changes = stream::select(pods.map(|_| ()).boxed(), runs.map(|_| ()).boxed());
    let waited = tokio::time::timeout(PATIENCE, async {
        while all(client).await != expected {
            changes.next().await;
        }
    });
    let waited = waited.await;
    assert!(waited.is_ok(), "there is {:?}, and not {expected:?}", all(client).await);
}

#[tokio::test]
async fn runs_go_with_all_that_is_theirs() {
    let root = tempfile::tempdir().expect("a directory");
    let client = client();
    // One that runs stays, and so does a pod of a run that goes on.
    let running = make::<PipelineRun>(&client, run("running", None), json!({})).await;
    let owner = Some(("PipelineRun", "running", running.as_str()));
    make::<TaskRun>(&client, run("running-task", owner), done(1)).await;
    for (name, minute) in [("old", 2), ("mid", 3), ("new", 4)] {
        finished(&client, root.path(), name, minute, 10).await;
    }
    let limits = Limits { count: 3, log_bytes: 100, ..Limits::default() };
    let pruner = tokio::spawn(super::run(client.clone(), root.path().to_owned(), limits));
    // By count, when one more ends.
    make::<Pod>(&client, pod("alone", None), pod_done(5)).await;
    let runs = ["mid", "new", "running", "mid-task", "new-task", "running-task"];
    until(&client, &[&runs[..], &["alone", "mid-pod", "new-pod"]].concat()).await;
    // By bytes: with those of the newest one there are too many.
    finished(&client, root.path(), "large", 6, 95).await;
    until(&client, &["large", "running", "large-task", "running-task", "alone", "large-pod"]).await;
    pruner.abort();
}

#[tokio::test]
async fn what_is_too_old_at_the_start_goes_then() {
    let root = tempfile::tempdir().expect("a directory");
    let client = client();
    finished(&client, root.path(), "old", 10, 0).await;
    finished(&client, root.path(), "new", 50, 0).await;
    let limits = Limits { age: jiff::SignedDuration::from_mins(30), ..Limits::default() };
    let pruner = tokio::spawn(super::run(client.clone(), root.path().to_owned(), limits));
    until(&client, &["new", "new-task", "new-pod"]).await;
    pruner.abort();
}

#[tokio::test]
async fn runs_of_other_controllers_go_as_well() {
    let root = tempfile::tempdir().expect("a directory");
    let client = client();
    for (name, minute) in [("old", 10), ("new", 50)] {
        let mut object = run(name, None);
        object["spec"] = json!({ "customRef": { "apiVersion": "example.dev/v1", "kind": "Example" } });
        make::<CustomRun>(&client, object, done(minute)).await;
    }
    let limits = Limits { age: jiff::SignedDuration::from_mins(30), ..Limits::default() };
    let pruner = tokio::spawn(super::run(client.clone(), root.path().to_owned(), limits));
    let mut changes = watcher(Api::<CustomRun>::all(client.clone()), watcher::Config::default()).boxed();
    let waited = tokio::time::timeout(PATIENCE, async {
        while names::<CustomRun>(&client).await != ["new"] {
            changes.next().await;
        }
    });
    assert!(waited.await.is_ok());
    pruner.abort();
}

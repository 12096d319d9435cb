//! What other clients send about runs, byte for byte.

use anyhow::{Result, bail};
use http::{Method, Request};
use kube::Client;
use ropewalk_api::{PipelineRun, TaskRun};
use ropewalk_test::harness::RunKey;
use serde_json::{Value, json};

/// How often a client reads again what has changed under its hands.
const TRIES: usize = 10;

/// What a client sends about a run, byte for byte.
async fn send(
    client: &Client,
    method: Method,
    run: &RunKey,
    media: &str,
    body: &Value,
) -> kube::Result<Value> {
    let RunKey { kind, namespace, name } = run;
    let resource = format!("{}s", kind.to_lowercase());
    let request = Request::builder()
        .method(method)
        .uri(format!("/apis/tekton.dev/v1/namespaces/{namespace}/{resource}/{name}"))
        .header("content-type", media)
        .body(body.to_string().into_bytes())
        .map_err(kube::Error::HttpError)?;
    client.request(request).await
}

pub(crate) async fn json_patch(client: &Client, run: &RunKey, patch: Value) -> kube::Result<Value> {
    send(client, Method::PATCH, run, "application/json-patch+json", &patch).await
}

/// Reads the run, changes it and puts it back as a client in Go does, which knows only the fields of its types and writes
/// their zero values; reads again when somebody else was faster.
pub(crate) async fn put(client: &Client, run: &RunKey, change: impl Fn(&mut Value)) -> kube::Result<Value> {
    let mut tries = 0;
    loop {
        let mut object =
            as_go_writes(send(client, Method::GET, run, "application/json", &Value::Null).await?);
        change(&mut object);
        tries += 1;
        match send(client, Method::PUT, run, "application/json", &object).await {
            Err(kube::Error::Api(status)) if status.reason == "Conflict" && tries < TRIES => {}
            answer => return answer,
        }
    }
}

fn as_go_writes(object: Value) -> Value {
    let typed = if object["kind"] == "TaskRun" {
        serde_json::from_value::<TaskRun>(object).and_then(serde_json::to_value)
    } else {
        serde_json::from_value::<PipelineRun>(object).and_then(serde_json::to_value)
    };
    let mut object = typed.expect("a run");
    // What controllers of a newer release have written is not in the client's types.
    object["status"] = json!({});
    let spec = &mut object["spec"];
    zero_task(&mut spec["taskSpec"]);
    for list in ["tasks", "finally"] {
        for task in spec["pipelineSpec"][list].as_array_mut().into_iter().flatten() {
            let task = &mut task["taskSpec"];
            zero_task(task);
            if task.is_object() {
                task["metadata"] = json!({});
                task["spec"] = Value::Null;
            }
        }
    }
    for workspace in spec["workspaces"].as_array_mut().into_iter().flatten() {
        let claim = &mut workspace["volumeClaimTemplate"];
        if claim.is_object() {
            claim["metadata"]["creationTimestamp"] = Value::Null;
            claim["status"] = json!({});
        }
    }
    remove_nulls(&mut object, &["spec", "creationTimestamp"]);
    object
}

fn zero_task(task: &mut Value) {
    for step in task["steps"].as_array_mut().into_iter().flatten() {
        if step["computeResources"].is_null() {
            step["computeResources"] = json!({});
        }
    }
}

/// Of what indexing has made, all but these fields.
fn remove_nulls(value: &mut Value, but: &[&str]) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| !value.is_null() || but.contains(&name.as_str()));
            fields.values_mut().for_each(|value| remove_nulls(value, but));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| remove_nulls(value, but)),
        _ => {}
    }
}

/// The server's words of a refusal.
pub(crate) fn refusal(answer: kube::Result<Value>) -> Result<String> {
    match answer {
        Err(kube::Error::Api(status)) => Ok(status.message.clone()),
        Err(error) => Err(error.into()),
        Ok(object) => bail!("accepted: {object}"),
    }
}

//! What is created to be measured. Pure.

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ObjectMeta;
use ropewalk_api::{PipelineRun, TaskRun};
use serde_json::{Value, json};

/// A pod that does nothing.
pub fn bare_pod(name: &str, image: &str) -> Result<Pod> {
    pod(name, &json!({ "restartPolicy": "Never", "containers": [nothing(image)] }))
}

/// The same with an init container that does nothing.
pub fn bare_pod_with_init(name: &str, image: &str) -> Result<Pod> {
    let mut init = nothing(image);
    init["name"] = "init".into();
    pod(name, &json!({ "restartPolicy": "Never", "initContainers": [init], "containers": [nothing(image)] }))
}

/// A pod of this spec.
pub fn pod(name: &str, spec: &Value) -> Result<Pod> {
    Ok(serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec }))?)
}

/// A pod like that of a run, to the last volume and argument, that no engine follows: without its owner, its labels and
/// its place. The annotations stay; the first step waits for one of them.
pub fn of_shape(name: &str, pod: &Pod) -> Pod {
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        annotations: pod.metadata.annotations.clone(),
        ..ObjectMeta::default()
    };
    let mut spec = pod.spec.clone();
    if let Some(spec) = &mut spec {
        spec.node_name = None;
    }
    Pod { metadata, spec, status: None }
}

/// A TaskRun with its Task embedded.
pub fn task_run(name: &str, task: &Value) -> Result<TaskRun> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "tekton.dev/v1", "kind": "TaskRun", "metadata": { "name": name }, "spec": { "taskSpec": task },
    }))?)
}

/// A Task with one step that does nothing.
pub fn one_step(image: &str) -> Value {
    json!({ "steps": [nothing(image)] })
}

/// A PipelineRun of so many such tasks, one after the other.
pub fn pipeline_run(name: &str, tasks: usize, image: &str) -> Result<PipelineRun> {
    let task = |number: usize| {
        let after = number.checked_sub(1).map(|before| format!("t{before}"));
        json!({ "name": format!("t{number}"), "runAfter": Vec::from_iter(after), "taskSpec": one_step(image) })
    };
    let tasks: Vec<_> = (0..tasks).map(task).collect();
    Ok(serde_json::from_value(json!({
        "apiVersion": "tekton.dev/v1",
        "kind": "PipelineRun",
        "metadata": { "name": name },
        "spec": { "pipelineSpec": { "tasks": tasks } },
    }))?)
}

/// A result of [`steps`]: when each step but the last said that it is done, in seconds with nanoseconds.
pub const POSTED: &str = "posted";

/// A result of [`steps`]: when each step but the first began to wait for its turn, likewise.
pub const WAITED: &str = "waited";

/// A Task of so many steps that work for different times, so that no hand-over falls in step with a clock, with the
/// results [`POSTED`] and [`WAITED`].
pub fn steps(count: usize, image: &str) -> Value {
    let last = count - 1;
    let step = |number: usize| {
        let script = if number == last {
            // The last step sees the files of all others. The first thing an entrypoint does is to make that directory.
            format!(
                "seconds() {{ stat -c %.9Y \"$@\" | tr '\\n' ' '; }}\n\
                 cd /tekton/run\n\
                 seconds $(seq -f %g/out 0 {}) > /tekton/results/{POSTED}\n\
                 seconds $(seq -f %g/status/results 1 {last}) > /tekton/results/{WAITED}\n",
                last - 1
            )
        } else {
            format!("sleep 0.0{}", number * 5 % 7)
        };
        json!({ "image": image, "script": script })
    };
    let results = [POSTED, WAITED].map(|name| json!({ "name": name }));
    json!({ "results": results, "steps": (0..count).map(step).collect::<Vec<_>>() })
}

fn nothing(image: &str) -> Value {
    json!({ "name": "main", "image": image, "command": ["true"] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_nobodys() {
        let pod = serde_json::from_value(json!({
            "metadata": {
                "name": "run-pod", "uid": "u", "resourceVersion": "7",
                "labels": { "app.kubernetes.io/managed-by": "tekton-pipelines" },
                "annotations": { "tekton.dev/ready": "READY" },
                "ownerReferences": [{ "apiVersion": "tekton.dev/v1", "kind": "TaskRun", "name": "run", "uid": "v" }],
            },
            "spec": { "nodeName": "n", "containers": [{ "name": "step-main", "image": "i", "args": ["a"] }] },
            "status": { "phase": "Succeeded" },
        }))
        .unwrap();
        assert_eq!(
            serde_json::to_value(of_shape("shape", &pod)).unwrap(),
            json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": { "name": "shape", "annotations": { "tekton.dev/ready": "READY" } },
                "spec": { "containers": [{ "name": "step-main", "image": "i", "args": ["a"] }] },
            })
        );
    }

    #[test]
    fn tasks_follow_one_another() {
        let run = serde_json::to_value(pipeline_run("five", 3, "i").unwrap()).unwrap();
        let after = |number: usize| run["spec"]["pipelineSpec"]["tasks"][number]["runAfter"].clone();
        assert_eq!((after(1), after(2)), (json!(["t0"]), json!(["t1"])));
    }
}

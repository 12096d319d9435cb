//! Limits that runs meet: memory, quotas, nodes that do not fit, Secrets that are not there, and their users' own word.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ResourceQuota, Secret};
use kube::api::{Api, PostParams};
use kube::runtime::wait::await_condition;
use ropewalk_test::harness::{PATIENCE, State, World, one_task, set, taskrun};
use serde_json::json;

use crate::marked::is_running;
use crate::waiting::{SAID, both_say};

/// The step that is killed is named, and none runs after it.
pub(crate) async fn memory(world: &World) -> Result<()> {
    let namespace = world.namespace("memory").await?;
    let spec = json!({ "steps": [
        {
            "name": "eat",
            "image": "bash",
            "script": "tail /dev/zero\nexit $?\n",
            "computeResources": { "limits": { "memory": "64Mi" } },
        },
        { "name": "after", "image": "bash", "script": "true" },
    ] });
    let run = namespace.start(&one_task("big", "eat", &spec)).await?;
    let ended = namespace.done(&run, PATIENCE).await?;
    assert_eq!((ended.status(), ended.reason()), ("False", "Failed"), "{ended}");
    let task = namespace.done(&taskrun(&run, "big-eat"), PATIENCE).await?;
    assert_eq!((task.status(), task.reason()), ("False", "StepOOM"), "{task}");
    assert_eq!(task.message(), "\"step-eat\" exited with code 137: OOMKilled");
    let steps = &task.value["status"]["steps"];
    assert_eq!(steps[0]["terminated"]["exitCode"], 137, "{steps}");
    assert_eq!(steps[0]["terminated"]["reason"], "OOMKilled", "{steps}");
    assert_ne!(steps[1]["terminated"]["exitCode"], 0, "{steps}");
    assert_eq!(namespace.children(&ended).await?, set(["TaskRun big-eat", "Pod big-eat-pod"]));
    namespace.finish().await
}

/// The run waits with the server's text, and goes on by itself.
pub(crate) async fn quota(world: &World) -> Result<()> {
    let namespace = world.namespace("quota").await?;
    let holder = namespace
        .apply(
            r#"
apiVersion: tekton.dev/v1
kind: TaskRun
metadata:
  name: holder
spec:
  podTemplate:
    nodeSelector:
      kubernetes.io/hostname: nobody
  taskSpec:
    steps:
      - name: never
        image: bash
        script: "true"
"#,
        )
        .await?;
    namespace.until(&holder[0], PATIENCE, |state| state.reason() == "Pending").await?;
    let quotas = Api::<ResourceQuota>::namespaced(world.client(), namespace.name());
    let quota = serde_json::from_value(
        json!({ "metadata": { "name": "one" }, "spec": { "hard": { "pods": "1" } } }),
    )?;
    quotas.create(&PostParams::default(), &quota).await?;
    let is_full = |quota: Option<&ResourceQuota>| {
        let used = quota.and_then(|quota| quota.status.as_ref()?.used.as_ref()?.get("pods"));
        used.is_some_and(|used| used.0 == "1")
    };
    tokio::time::timeout(PATIENCE, await_condition(quotas, "one", is_full))
        .await
        .context("no full quota")??;

    let spec = json!({ "steps": [{ "name": "last", "image": "bash", "script": "true" }] });
    let run = namespace.start(&one_task("wait", "room", &spec)).await?;
    let task = taskrun(&run, "wait-room");
    let text = "exceeded quota: one, requested: pods=1, used: pods=1, limited: pods=1";
    let (pipeline, waits) = both_say(&namespace, &run, &task, &["\"wait-room-pod\"", text]).await?;
    assert_eq!(waits.reason(), "ExceededResourceQuota", "{waits}");
    assert!(waits.message().contains(text), "{waits}");
    assert_eq!(waits.value["status"]["startTime"], json!(null), "its timeout does not run yet");
    assert!(pipeline.diagnosis().contains("\"room\""), "{pipeline}");
    assert_eq!(namespace.children(&pipeline).await?, set(["TaskRun wait-room"]));

    namespace.patch(&holder[0], json!({ "spec": { "status": "TaskRunCancelled" } })).await?;
    let ended = namespace.done(&run, PATIENCE).await?;
    assert_eq!((ended.status(), ended.reason(), ended.diagnosis()), ("True", "Succeeded", ""), "{ended}");
    let task = namespace.done(&task, PATIENCE).await?;
    assert_eq!((task.status(), task.diagnosis()), ("True", ""), "{task}");
    assert_eq!(namespace.children(&ended).await?, set(["TaskRun wait-room", "Pod wait-room-pod"]));
    namespace.finish().await
}

/// A container that needs it cannot be made, and that is the end, as upstream has it.
pub(crate) async fn secret_as_variable(world: &World) -> Result<()> {
    let namespace = world.namespace("variable").await?;
    let secret = json!({ "secretKeyRef": { "name": "nothing", "key": "token" } });
    let spec = json!({ "steps": [{
        "name": "never",
        "image": "bash",
        "script": "true",
        "env": [{ "name": "TOKEN", "valueFrom": secret }],
    }] });
    let run = namespace.start(&one_task("lack", "token", &spec)).await?;
    let ended = namespace.done(&run, SAID).await?;
    assert_eq!((ended.status(), ended.reason()), ("False", "Failed"), "{ended}");
    let task = namespace.done(&taskrun(&run, "lack-token"), SAID).await?;
    assert_eq!((task.status(), task.reason()), ("False", "CreateContainerConfigError"), "{task}");
    assert_eq!(task.message(), "Failed to create pod due to config error");
    assert!(task.diagnosis().contains("secret \"nothing\" not found"), "{task}");
    namespace.pod_gone("lack-token-pod", PATIENCE).await?;
    assert_eq!(namespace.children(&ended).await?, set(["TaskRun lack-token"]));
    namespace.finish().await
}

/// A volume may still come: the run waits for it.
pub(crate) async fn secret_as_volume(world: &World) -> Result<()> {
    let namespace = world.namespace("volume").await?;
    let spec = json!({
        "volumes": [{ "name": "key", "secret": { "secretName": "deploy-key" } }],
        "steps": [{
            "name": "read",
            "image": "bash",
            "script": "test \"$(cat /key/id)\" = \"the key\"",
            "volumeMounts": [{ "name": "key", "mountPath": "/key" }],
        }],
    });
    let run = namespace.start(&one_task("lack", "key", &spec)).await?;
    let task = taskrun(&run, "lack-key");
    let (pipeline, _) = both_say(&namespace, &run, &task, &["secret \"deploy-key\" not found"]).await?;
    let children = set(["TaskRun lack-key", "Pod lack-key-pod"]);
    assert_eq!(namespace.children(&pipeline).await?, children);

    let secret = serde_json::from_value(
        json!({ "metadata": { "name": "deploy-key" }, "stringData": { "id": "the key" } }),
    )?;
    Api::<Secret>::namespaced(world.client(), namespace.name())
        .create(&PostParams::default(), &secret)
        .await?;
    let ended = namespace.done(&run, PATIENCE).await?;
    assert_eq!((ended.status(), ended.reason(), ended.diagnosis()), ("True", "Succeeded", ""), "{ended}");
    assert_eq!(namespace.children(&ended).await?, children);
    namespace.finish().await
}

/// The scheduler's own words, until the run's timeout.
pub(crate) async fn unschedulable(world: &World) -> Result<()> {
    let namespace = world.namespace("nowhere").await?;
    let spec = json!({ "steps": [{ "name": "never", "image": "bash", "script": "true" }] });
    let mut run = one_task("wait", "node", &spec);
    run["spec"]["timeouts"]["pipeline"] = "20s".into();
    run["spec"]["taskRunTemplate"]["podTemplate"]["nodeSelector"]["kubernetes.io/hostname"] = "nobody".into();
    let run = namespace.start(&run).await?;
    let task = taskrun(&run, "wait-node");
    let words = ["\"wait-node-pod\" has no node: Unschedulable: ", "nodes are available"];
    let (pipeline, waits) = both_say(&namespace, &run, &task, &words).await?;
    assert_eq!(waits.reason(), "Pending", "{waits}");
    assert!(waits.message().starts_with("pod status \"PodScheduled\":\"False\"; message: "), "{waits}");
    assert_eq!(namespace.children(&pipeline).await?, set(["TaskRun wait-node", "Pod wait-node-pod"]));

    let ended = namespace.done(&run, PATIENCE).await?;
    assert_eq!((ended.status(), ended.reason()), ("False", "PipelineRunTimeout"), "{ended}");
    namespace.pod_gone("wait-node-pod", PATIENCE).await?;
    assert_eq!(namespace.children(&ended).await?, set(["TaskRun wait-node"]));
    namespace.finish().await
}

/// What runs ends, what has not begun never does, and `finally` is for both.
pub(crate) async fn stopped(world: &World) -> Result<()> {
    let namespace = world.namespace("stopped").await?;
    let runs = namespace
        .apply(
            r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: stop
spec:
  pipelineSpec:
    tasks:
      - name: first
        taskSpec:
          steps:
            # Long beside the time that a patch takes.
            - name: work
              image: bash
              script: sleep 10
      - name: second
        runAfter: [first]
        taskSpec:
          steps:
            - name: never
              image: bash
              script: "false"
    finally:
      - name: last
        taskSpec:
          steps:
            - name: tidy
              image: bash
              script: "true"
---
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: born-cancelled
spec:
  status: Cancelled
  pipelineSpec:
    tasks:
      - name: never
        taskSpec:
          steps:
            - name: never
              image: bash
              script: "false"
"#,
        )
        .await?;
    let never = namespace.done(&runs[1], PATIENCE).await?;
    assert_eq!((never.status(), never.reason()), ("False", "Cancelled"), "{never}");
    assert_eq!(namespace.children(&never).await?, set([]));

    let first = taskrun(&runs[0], "stop-first");
    namespace.until(&first, PATIENCE, is_running(0)).await?;
    namespace.patch(&runs[0], json!({ "spec": { "status": "StoppedRunFinally" } })).await?;
    let stopping = |state: &State| state.reason() == "StoppedRunningFinally";
    namespace.until(&runs[0], PATIENCE, stopping).await?;
    let ended = namespace.done(&runs[0], PATIENCE).await?;
    assert_eq!((ended.status(), ended.reason()), ("False", "Cancelled"), "{ended}");
    let skipped = &ended.value["status"]["skippedTasks"];
    assert_eq!(skipped[0]["name"], "second", "{skipped}");
    assert_eq!(skipped[0]["reason"], "PipelineRun was gracefully stopped", "{skipped}");
    for task in [&first, &taskrun(&runs[0], "stop-last")] {
        let task = namespace.done(task, PATIENCE).await?;
        assert_eq!(task.status(), "True", "{task}");
    }
    assert_eq!(
        namespace.children(&ended).await?,
        set(["TaskRun stop-first", "Pod stop-first-pod", "TaskRun stop-last", "Pod stop-last-pod"])
    );
    namespace.finish().await
}

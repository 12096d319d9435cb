//! Objects written in one version and read in another, by the webhook of a cluster or in one process.

use anyhow::{Context, Result};
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use ropewalk_test::harness::{PATIENCE, World};
use ropewalk_test::versions;
use serde_json::json;

const V1: &str = "v1";
const V1BETA1: &str = "v1beta1";

/// With what only v1beta1 has, what it calls otherwise, and what it has elsewhere.
const OLD: &str = r"
apiVersion: tekton.dev/v1beta1
kind: Task
metadata:
  name: old
spec:
  stepTemplate:
    resources:
      requests:
        memory: 16Mi
  steps:
    - name: say
      image: bash
      tty: true
      resources:
        requests:
          cpu: 10m
      script: printf said > $(results.word.path)
  results:
    - name: word
---
apiVersion: tekton.dev/v1beta1
kind: PipelineRun
metadata:
  name: old
spec:
  timeout: 5m
  serviceAccountName: default
  podTemplate:
    enableServiceLinks: false
  taskRunSpecs:
    - pipelineTaskName: say
      taskServiceAccountName: default
      stepOverrides:
        - name: say
          resources:
            requests:
              cpu: 20m
  pipelineSpec:
    tasks:
      - name: say
        taskRef:
          name: old
    results:
      - name: word
        value: $(tasks.say.results.word)
";

/// The same kinds in v1.
const NEW: &str = r#"
apiVersion: tekton.dev/v1
kind: Task
metadata:
  name: new
spec:
  steps:
    - name: say
      image: bash
      computeResources:
        requests:
          cpu: 10m
      script: "true"
---
apiVersion: tekton.dev/v1
kind: TaskRun
metadata:
  name: new
spec:
  taskRef:
    name: new
  stepSpecs:
    - name: say
      computeResources:
        requests:
          cpu: 20m
"#;

/// What the API server says to field names of another version where it has no schema itself.
const WRONG: &str = r"
apiVersion: tekton.dev/v1beta1
kind: TaskRun
metadata:
  name: wrong
spec:
  taskSpec:
    steps:
      - image: bash
        computeResources:
          requests:
            cpu: 10m
";

fn api(client: Client, namespace: &str, kind: &str, version: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("tekton.dev", version, kind));
    Api::namespaced_with(client, namespace, &resource)
}

/// Runs written in either version end; both kinds read back as they were written, and in the other version's words.
pub(crate) async fn run(world: &World) -> Result<()> {
    let namespace = world.namespace("versions").await?;
    let objects = |kind: &str, version: &str| api(world.client(), namespace.name(), kind, version);
    let mut runs = namespace.apply(OLD).await?;
    runs.extend(namespace.apply(NEW).await?);
    for run in &runs {
        let ended = namespace.done(run, PATIENCE).await?;
        assert_eq!(ended.status(), "True", "{ended}");
    }

    let old = objects("Task", V1BETA1).get("old").await?;
    assert_eq!(old.data["spec"]["steps"][0]["resources"]["requests"]["cpu"], "10m");
    assert_eq!(old.data["spec"]["steps"][0]["tty"], true);
    let stored = objects("Task", V1).get("old").await?;
    let step = &stored.data["spec"]["steps"][0];
    assert_eq!(step["computeResources"]["requests"]["cpu"], "10m");
    assert_eq!((step.get("resources"), step.get("tty")), (None, None));

    let old = objects("PipelineRun", V1BETA1).get("old").await?;
    assert_eq!(old.data["spec"]["timeout"], "5m");
    assert_eq!(old.data["spec"]["serviceAccountName"], "default");
    assert_eq!(old.data["spec"].get("taskRunTemplate"), None);
    assert_eq!(old.data["status"]["pipelineResults"], json!([{ "name": "word", "value": "said" }]));
    let stored = objects("PipelineRun", V1).get("old").await?;
    assert_eq!(stored.data["spec"]["timeouts"]["pipeline"], "5m");
    assert_eq!(stored.data["spec"]["taskRunTemplate"]["serviceAccountName"], "default");
    assert_eq!(
        stored.data["spec"]["taskRunSpecs"][0]["stepSpecs"][0]["computeResources"]["requests"]["cpu"],
        "20m"
    );
    assert_eq!(stored.data["status"]["results"], json!([{ "name": "word", "value": "said" }]));

    let new = objects("TaskRun", V1BETA1).get("new").await?;
    assert_eq!(new.data["spec"]["stepOverrides"][0]["resources"]["requests"]["cpu"], "20m");

    writes(&objects).await?;
    let refused = namespace.apply(WRONG).await.err().context("a field of v1 was taken in v1beta1")?;
    assert!(refused.to_string().contains("use \"resources\" instead"), "{refused}");
    let every_kind = world.namespace("every-kind").await?;
    versions::check(&world.client(), every_kind.name()).await?;
    every_kind.finish().await?;
    namespace.finish().await
}

/// Writes in either version, by every verb that there is.
async fn writes(objects: &impl Fn(&str, &str) -> Api<DynamicObject>) -> Result<()> {
    let (v1, v1beta1) = (objects("Task", V1), objects("Task", V1BETA1));
    // What is written as it was read changes nothing.
    for (kind, name) in [("Task", "old"), ("Task", "new"), ("TaskRun", "new"), ("PipelineRun", "old")] {
        let before = objects(kind, V1).get(name).await?;
        let same = objects(kind, V1BETA1);
        same.replace(name, &PostParams::default(), &same.get(name).await?).await?;
        let after = objects(kind, V1).get(name).await?;
        assert_eq!(after.data, before.data, "{kind} {name}");
        assert_eq!(after.metadata.generation, before.metadata.generation, "{kind} {name}");
        assert_eq!(after.metadata.annotations, before.metadata.annotations, "{kind} {name}");
    }

    let patch = json!({ "spec": { "steps": [{ "name": "say", "image": "bash", "resources": { "requests": { "cpu": "30m" } }, "script": "true" }] } });
    v1beta1.patch("new", &PatchParams::default(), &Patch::Merge(patch)).await?;
    assert_eq!(v1.get("new").await?.data["spec"]["steps"][0]["computeResources"]["requests"]["cpu"], "30m");

    let applied = |version: &str, resources: &str| {
        json!({
            "apiVersion": format!("tekton.dev/{version}"), "kind": "Task", "metadata": { "name": "applied" },
            "spec": { "steps": [{ "name": "say", "image": "bash", resources: { "requests": { "cpu": "40m" } } }] },
        })
    };
    let by = PatchParams::apply("versions");
    v1beta1.patch("applied", &by, &Patch::Apply(applied(V1BETA1, "resources"))).await?;
    let twice = v1.patch("applied", &by, &Patch::Apply(applied(V1, "computeResources"))).await?;
    assert_eq!(twice.data["spec"]["steps"][0]["computeResources"]["requests"]["cpu"], "40m");
    Ok(())
}

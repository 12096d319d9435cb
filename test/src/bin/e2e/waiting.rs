//! Why a run waits is in its status while it does.

use std::time::Duration;

use anyhow::Result;
use ropewalk_test::harness::{PATIENCE, RunKey, World, set};
use serde_json::json;

/// How soon a run says what the scheduler and the kubelet say.
const SAID: Duration = Duration::from_secs(15);

/// The leading blank must be seen.
pub(crate) async fn config_map(world: &World) -> Result<()> {
    let namespace = world.namespace("blank").await?;
    let runs = namespace
        .apply(
            r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: wait
spec:
  pipelineSpec:
    tasks:
      - name: mount
        taskSpec:
          volumes:
            - name: settings
              configMap:
                name: " docker-config"
          steps:
            - name: never
              image: bash
              script: "true"
              volumeMounts:
                - name: settings
                  mountPath: /settings
"#,
        )
        .await?;
    let names_it = |diagnosis: &str| diagnosis.contains("\" docker-config\"");
    let taskrun = RunKey { kind: "TaskRun", name: "wait-mount".to_owned(), ..runs[0].clone() };
    let (pipeline, task) = tokio::try_join!(
        namespace.until(&runs[0], SAID, |state| names_it(state.diagnosis())),
        namespace.until(&taskrun, SAID, |state| names_it(state.diagnosis())),
    )?;
    assert_eq!((pipeline.status(), task.status()), ("Unknown", "Unknown"));
    assert_eq!(namespace.children(&pipeline).await?, set(["TaskRun wait-mount", "Pod wait-mount-pod"]));
    namespace.patch(&runs[0], json!({ "spec": { "status": "Cancelled" } })).await?;
    let ended = namespace.done(&runs[0], PATIENCE).await?;
    assert_eq!(ended.reason(), "Cancelled", "{ended}");
    namespace.finish().await
}

/// The run ends, as upstream's does, and says which image.
pub(crate) async fn image(world: &World) -> Result<()> {
    let namespace = world.namespace("image").await?;
    let runs = namespace
        .apply(
            r#"
apiVersion: tekton.dev/v1
kind: TaskRun
metadata:
  name: pull
spec:
  taskSpec:
    steps:
      - name: never
        image: registry.invalid/none:1
        script: "true"
"#,
        )
        .await?;
    let ended = namespace.done(&runs[0], PATIENCE).await?;
    assert_eq!((ended.status(), ended.reason()), ("False", "TaskRunImagePullFailed"), "{ended}");
    assert!(ended.message().contains("\"never\""), "{ended}");
    assert!(ended.to_string().contains("registry.invalid/none:1"), "{ended}");
    namespace.pod_gone("pull-pod", PATIENCE).await?;
    assert_eq!(namespace.children(&ended).await?, set([]));
    namespace.finish().await
}

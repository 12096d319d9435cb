//! Cancelling ends what runs.

use anyhow::{Context, Result};
use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, LogParams};
use ropewalk_test::harness::{GONE, Namespace, PATIENCE, World, set, taskrun};
use serde_json::json;

use crate::marked::is_running;

/// One step ends on the signal, the other has to be killed.
pub(crate) async fn run(world: &World) -> Result<()> {
    let namespace = world.namespace("cancel").await?;
    let runs = namespace
        .apply(
            r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: long
spec:
  pipelineSpec:
    tasks:
      - name: polite
        taskSpec:
          steps:
            - name: sleep
              image: bash
              command: [sleep, "1000"]
      - name: deaf
        taskSpec:
          steps:
            - name: sleep
              image: bash
              script: |
                trap '' TERM INT
                echo deaf
                sleep 1000
"#,
        )
        .await?;
    let children =
        set(["TaskRun long-polite", "Pod long-polite-pod", "TaskRun long-deaf", "Pod long-deaf-pod"]);
    for task in ["long-polite", "long-deaf"] {
        namespace.until(&taskrun(&runs[0], task), PATIENCE, is_running(0)).await?;
    }
    // Before it says so, it would end on the signal.
    tokio::time::timeout(PATIENCE, says(world, &namespace, "deaf"))
        .await
        .context("it does not become deaf")??;
    namespace.patch(&runs[0], json!({ "spec": { "status": "Cancelled" } })).await?;
    let ended = namespace.done(&runs[0], GONE).await?;
    assert_eq!((ended.status(), ended.reason()), ("False", "Cancelled"), "{ended}");
    for pod in ["long-polite-pod", "long-deaf-pod"] {
        namespace.pod_gone(pod, GONE).await?;
    }
    let left = namespace.children(&ended).await?;
    assert!(left.is_subset(&children), "a cancelled run has new children: {left:?}");
    assert_eq!(left.len(), 2, "its TaskRuns stay: {left:?}");
    namespace.finish().await
}

/// Follows the log of the step until it has this line.
async fn says(world: &World, namespace: &Namespace<'_>, line: &str) -> Result<()> {
    let pods = Api::<Pod>::namespaced(world.client(), namespace.name());
    let follow = LogParams { container: Some("step-sleep".to_owned()), follow: true, ..LogParams::default() };
    let mut lines = pods.log_stream("long-deaf-pod", &follow).await?.lines();
    while let Some(said) = lines.try_next().await? {
        if said == line {
            return Ok(());
        }
    }
    anyhow::bail!("the step ends and has not said \"{line}\"")
}

//! Cancelling ends what runs.

use std::time::Duration;

use anyhow::Result;
use ropewalk_test::harness::{PATIENCE, RunKey, State, World, set};
use serde_json::json;

/// A pod's grace period when it names none, and a moment for the node to see to it.
const GONE: Duration = Duration::from_secs(35);

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
                sleep 1000
"#,
        )
        .await?;
    let children =
        set(["TaskRun long-polite", "Pod long-polite-pod", "TaskRun long-deaf", "Pod long-deaf-pod"]);
    for task in ["long-polite", "long-deaf"] {
        let taskrun = RunKey { kind: "TaskRun", name: task.to_owned(), ..runs[0].clone() };
        let steps = |state: &State| state.value["status"]["steps"][0]["running"].is_object();
        namespace.until(&taskrun, PATIENCE, steps).await?;
    }
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

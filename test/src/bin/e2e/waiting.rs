//! Why a run waits is in its status while it does, and why one cannot begin is in its status at its end.

use std::time::Duration;

use anyhow::Result;
use ropewalk_test::harness::{Namespace, PATIENCE, RunKey, State, World, one_task, set, taskrun};
use serde_json::json;

/// How soon a run says what the scheduler and the kubelet say.
pub(crate) const SAID: Duration = Duration::from_secs(15);

/// Waits until the PipelineRun and its TaskRun both say this while they wait.
pub(crate) async fn both_say(
    namespace: &Namespace<'_>,
    pipeline: &RunKey,
    task: &RunKey,
    words: &[&str],
) -> Result<(State, State)> {
    let says = |state: &State| words.iter().all(|word| state.diagnosis().contains(word));
    let found = tokio::try_join!(namespace.until(pipeline, SAID, says), namespace.until(task, SAID, says))?;
    assert_eq!((found.0.status(), found.1.status()), ("Unknown", "Unknown"));
    Ok(found)
}

/// The leading blank must be seen.
pub(crate) async fn config_map(world: &World) -> Result<()> {
    let namespace = world.namespace("blank").await?;
    let spec = json!({
        "volumes": [{ "name": "settings", "configMap": { "name": " docker-config" } }],
        "steps": [{
            "name": "never",
            "image": "bash",
            "script": "true",
            "volumeMounts": [{ "name": "settings", "mountPath": "/settings" }],
        }],
    });
    let run = namespace.start(&one_task("wait", "mount", &spec)).await?;
    let task = taskrun(&run, "wait-mount");
    // The name by itself, and in the words of the node.
    let words = ["ConfigMap name \" docker-config\" begins", "configmap \" docker-config\" not found"];
    let (pipeline, _) = both_say(&namespace, &run, &task, &words).await?;
    assert_eq!(namespace.children(&pipeline).await?, set(["TaskRun wait-mount", "Pod wait-mount-pod"]));
    namespace.patch(&run, json!({ "spec": { "status": "Cancelled" } })).await?;
    let ended = namespace.done(&run, PATIENCE).await?;
    assert_eq!(ended.reason(), "Cancelled", "{ended}");
    namespace.finish().await
}

/// The runs say which image soon after the kubelet has said so; they end, as upstream's do, when it tries no more for a while.
pub(crate) async fn image(world: &World) -> Result<()> {
    const IMAGE: &str = "registry.invalid/none:1";
    let namespace = world.namespace("image").await?;
    let spec = json!({ "steps": [{ "name": "never", "image": IMAGE, "script": "true" }] });
    let run = namespace.start(&one_task("pull", "none", &spec)).await?;
    namespace.event("Pod", "pull-none-pod", "Failed", PATIENCE).await?;
    let task = taskrun(&run, "pull-none");
    let says = |state: &State| state.to_string().contains(IMAGE);
    tokio::try_join!(namespace.until(&run, SAID, says), namespace.until(&task, SAID, says))?;
    let (ended, task) = tokio::try_join!(namespace.done(&run, PATIENCE), namespace.done(&task, PATIENCE))?;
    assert_eq!((task.status(), task.reason()), ("False", "TaskRunImagePullFailed"), "{task}");
    assert!(task.message().contains("\"never\""), "{task}");
    assert_eq!((ended.status(), ended.reason()), ("False", "Failed"), "{ended}");
    for state in [&ended, &task] {
        assert!(state.to_string().contains(IMAGE), "{state}");
    }
    namespace.pod_gone("pull-none-pod", PATIENCE).await?;
    assert_eq!(namespace.children(&ended).await?, set(["TaskRun pull-none"]));
    namespace.finish().await
}

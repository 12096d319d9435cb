//! The example that the README begins with.

use anyhow::Result;
use ropewalk_test::harness::{PATIENCE, World, set};

pub(crate) async fn run(world: &World) -> Result<()> {
    let namespace = world.namespace("quickstart").await?;
    let runs = namespace.apply(include_str!("../../../../examples/quickstart.yaml")).await?;
    let ended = namespace.done(&runs[0], PATIENCE).await?;
    // One of its tasks is skipped.
    assert_eq!((ended.status(), ended.reason()), ("True", "Completed"), "{ended}");
    assert_eq!(ended.value["status"]["results"][0]["value"], "27");
    assert_eq!(ended.value["status"]["skippedTasks"][0]["name"], "shout");
    assert_eq!(
        namespace.children(&ended).await?,
        set([
            "TaskRun quickstart-measure",
            "Pod quickstart-measure-pod",
            "TaskRun quickstart-report",
            "Pod quickstart-report-pod",
            "TaskRun quickstart-summary",
            "Pod quickstart-summary-pod",
        ])
    );
    namespace.finish().await
}

//! The webhook is away while runs are in flight.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ropewalk_test::harness::audit::CONTROLLER;
use ropewalk_test::harness::installation::{Installation, WEBHOOK};
use ropewalk_test::harness::{Namespace, PATIENCE, RunKey, World, set};

use crate::figure;
use crate::marked::{Marked, is_running, repairing};

/// Its first task ends, and its second cannot be created, while the webhook is away. The webhook takes some seconds to end.
const NEXT: Marked = Marked { name: "next", tasks: &[("first", &[40]), ("second", &[0])] };

/// Its only child is there when the webhook goes.
const LAST: &str = r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: last
spec:
  pipelineSpec:
    tasks:
      - name: only
        taskSpec:
          steps:
            - name: sleep
              image: bash
              command: [sleep, "40"]
"#;

/// Somebody asks for it while the webhook is away.
const LATE: &str = r#"
apiVersion: tekton.dev/v1
kind: TaskRun
metadata:
  name: late
spec:
  taskSpec:
    steps:
      - name: true
        image: bash
        command: ["true"]
"#;

/// The longest pause between two tries of a creation, and what there is to do then.
const ENDS: Duration = Duration::from_mins(1);

/// New objects are refused, as long as somebody has to look at them first; what exists goes on. In one process the
/// webhook is a function call, and cannot be away.
pub(crate) async fn away(world: &World) -> Result<()> {
    let installation = Installation::of(world);
    let replicas = i32::try_from(installation.pods(WEBHOOK).await?.len())?;
    let namespace = world.namespace("away").await?;
    let test = async {
        let next = NEXT.start(&namespace).await?;
        let last = namespace.apply(LAST).await?.remove(0);
        let only = RunKey { kind: "TaskRun", name: "last-only".to_owned(), ..last.clone() };
        let first = NEXT.taskrun(&next, "first");
        for run in [&only, &first] {
            namespace.until(run, PATIENCE, is_running(0)).await?;
        }
        installation.scale(WEBHOOK, 0).await?;
        for run in [&only, &first] {
            let state = namespace.until(run, PATIENCE, |_| true).await?;
            assert!(!state.is_done(), "steps have to outlast the webhook: {state}");
        }

        let ended = namespace.done(&last, PATIENCE).await?;
        assert_eq!((ended.status(), ended.reason()), ("True", "Succeeded"), "{ended}");
        assert_eq!(namespace.children(&ended).await?, set(["TaskRun last-only", "Pod last-only-pod"]));
        namespace.done(&first, PATIENCE).await?;
        let refused =
            namespace.apply(LATE).await.err().context("an object was created without the webhook")?;
        assert!(refused.to_string().contains("webhook.pipeline.tekton.dev"), "{refused}");

        installation.scale(WEBHOOK, replicas).await?;
        let back = Instant::now();
        namespace.until(&NEXT.taskrun(&next, "second"), ENDS, |_| true).await?;
        figure("from the webhook's return to the next child", back.elapsed());
        let ended = namespace.done(&next, ENDS).await?;
        NEXT.assert_ended_well(&namespace, &ended).await?;
        assert_tried(world, &namespace)
    };
    Box::pin(repairing(test, async || installation.scale(WEBHOOK, replicas).await)).await?;
    namespace.finish().await
}

/// The controller has tried to create the child in vain, and then once with success.
fn assert_tried(world: &World, namespace: &Namespace<'_>) -> Result<()> {
    let Some(audit) = world.audit() else { return Ok(()) };
    let requests = audit.requests(namespace.name())?;
    let creations = requests.iter().filter(|request| {
        request.user == CONTROLLER
            && request.verb == "create"
            && request.resource == "taskruns"
            && request.name == "next-second"
    });
    let (done, failed): (Vec<_>, Vec<_>) = creations.partition(|request| request.code < 300);
    assert!(!failed.is_empty(), "nobody tried to create the child while the webhook was away");
    assert_eq!(done.len(), 1, "one creation succeeds");
    Ok(())
}

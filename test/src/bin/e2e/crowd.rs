//! Many runs at once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::try_join_all;
use ropewalk_test::harness::{Namespace, World};

use crate::figure;

const NAMESPACES: usize = 10;

/// In each namespace.
const RUNS: usize = 10;

/// Two hundred pods on two cores; most of that is the node's work.
const ENDS: Duration = Duration::from_mins(5);

/// A hundred PipelineRuns over ten namespaces, of two tasks each: they have only the engine in common.
pub(crate) async fn run(world: &World) -> Result<()> {
    let namespaces = try_join_all((0..NAMESPACES).map(|_| world.namespace("crowd"))).await?;
    let begun = Instant::now();
    try_join_all(namespaces.iter().map(all_end_well)).await?;
    figure("a hundred runs of two tasks", begun.elapsed());
    for namespace in namespaces {
        namespace.finish().await?;
    }
    Ok(())
}

async fn all_end_well(namespace: &Namespace<'_>) -> Result<()> {
    let runs = namespace.apply(&(0..RUNS).map(yaml).collect::<String>()).await?;
    for (n, run) in runs.iter().enumerate() {
        let ended = namespace.done(run, ENDS).await?;
        assert_eq!((ended.status(), ended.reason()), ("True", "Succeeded"), "{ended}");
        assert_eq!(ended.value["status"]["results"][0]["value"], n.to_string(), "its own result");
        let children: BTreeSet<_> = ["first", "second"]
            .into_iter()
            .flat_map(|task| [format!("TaskRun run-{n}-{task}"), format!("Pod run-{n}-{task}-pod")])
            .collect();
        assert_eq!(namespace.children(&ended).await?, children);
    }
    assert_eq!(namespace.pods().await?.len(), 2 * RUNS, "nor is there a pod of nobody's");
    Ok(())
}

fn yaml(n: usize) -> String {
    format!(
        "
---
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: run-{n}
spec:
  pipelineSpec:
    results:
      - name: told
        value: $(tasks.second.results.told)
    tasks:
      - name: first
        taskSpec:
          results:
            - name: number
          steps:
            - name: say
              image: bash
              script: printf {n} > $(results.number.path)
      - name: second
        taskSpec:
          params:
            - name: number
          results:
            - name: told
          steps:
            - name: repeat
              image: bash
              script: printf '%s' $(params.number) > $(results.told.path)
        params:
          - name: number
            value: $(tasks.first.results.number)
"
    )
}

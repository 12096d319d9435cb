//! Pipelines whose steps write down that they ran: a step that ran twice is seen, whoever had it run again.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, resume_unwind};

use anyhow::Result;
use futures::FutureExt;
use ropewalk_test::harness::{Namespace, RunKey, State, taskrun};

/// A pipeline of tasks, one after the other.
pub(crate) struct Marked {
    /// The run's name.
    pub(crate) name: &'static str,
    /// Each task's name and the steps' lengths in seconds.
    pub(crate) tasks: &'static [(&'static str, &'static [u32])],
}

impl Marked {
    /// Starts a run of it.
    pub(crate) async fn start(&self, namespace: &Namespace<'_>) -> Result<RunKey> {
        let mut runs = namespace.apply(&self.yaml(namespace.name())).await?;
        Ok(runs.remove(0))
    }

    /// The TaskRun of one of the tasks.
    pub(crate) fn taskrun(&self, run: &RunKey, task: &str) -> RunKey {
        taskrun(run, &format!("{}-{task}", self.name))
    }

    /// The end state: succeeded, with one TaskRun and one pod for each task, and every step ran once.
    pub(crate) async fn assert_ended_well(&self, namespace: &Namespace<'_>, ended: &State) -> Result<()> {
        assert_eq!((ended.status(), ended.reason()), ("True", "Succeeded"), "{ended}");
        let steps =
            self.tasks.iter().flat_map(|(task, steps)| (0..steps.len()).map(move |n| format!("{task}.{n}")));
        let ran: Vec<_> = steps.collect();
        assert_eq!(ended.value["status"]["results"][0]["value"], ran.join(" "), "what ran, in this order");
        assert_eq!(namespace.children(ended).await?, self.children());
        let pods = namespace.pods().await?.into_iter().filter_map(|pod| pod.metadata.name);
        let pods = pods.filter(|pod| pod.starts_with(&format!("{}-", self.name))).count();
        assert_eq!(pods, self.tasks.len() + 1, "nor is there a pod of nobody's");
        Ok(())
    }

    fn children(&self) -> BTreeSet<String> {
        let tasks = self.tasks.iter().map(|(task, _)| *task).chain(["tell"]);
        tasks
            .flat_map(|task| {
                [format!("TaskRun {}-{task}", self.name), format!("Pod {}-{task}-pod", self.name)]
            })
            .collect()
    }

    /// The notes are in a directory of the node: they have to survive pods.
    fn yaml(&self, namespace: &str) -> String {
        let Self { name, tasks } = self;
        let mut yaml = format!(
            "
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: {name}
spec:
  pipelineSpec:
    results:
      - name: ran
        value: $(tasks.tell.results.ran)
    tasks:
"
        );
        let volume = format!(
            "        taskSpec:
          volumes:
            - name: notes
              hostPath:
                path: /tmp/ropewalk-e2e/{namespace}/{name}
                type: DirectoryOrCreate
          stepTemplate:
            image: bash
            volumeMounts:
              - name: notes
                mountPath: /notes
"
        );
        let mut before = None;
        for (task, steps) in *tasks {
            let _ = writeln!(yaml, "      - name: {task}");
            if let Some(before) = before.replace(task) {
                let _ = writeln!(yaml, "        runAfter: [{before}]");
            }
            yaml += &volume;
            yaml += "          steps:\n";
            for (n, seconds) in steps.iter().enumerate() {
                let _ = writeln!(yaml, "            - name: step{n}");
                let _ =
                    writeln!(yaml, "              script: echo {task}.{n} >> /notes/ran; sleep {seconds}");
            }
        }
        yaml += "      - name: tell\n";
        if let Some(before) = before {
            let _ = writeln!(yaml, "        runAfter: [{before}]");
        }
        yaml += &volume;
        yaml += "          results:
            - name: ran
          steps:
            - name: tell
              script: |
                echo $(cat /notes/ran) | tr -d '\\n' > $(results.ran.path)
                rm /notes/ran
";
        yaml
    }
}

/// A step of the TaskRun runs.
pub(crate) fn is_running(step: usize) -> impl Fn(&State) -> bool {
    move |state| state.value["status"]["steps"][step]["running"].is_object()
}

/// Runs a test that breaks something and, whatever came of it, what repairs that.
pub(crate) async fn repairing(
    test: impl Future<Output = Result<()>>,
    repair: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let ended = AssertUnwindSafe(test).catch_unwind().await;
    let repaired = repair().await;
    match ended {
        Ok(Ok(())) => repaired,
        Ok(Err(error)) => Err(error),
        // An assertion that does not hold.
        Err(panic) => resume_unwind(panic),
    }
}

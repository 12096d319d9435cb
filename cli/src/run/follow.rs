//! Follows runs to their end: their state by watches, their steps' logs as they are written.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{AsyncBufReadExt, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{Api, ListParams, LogParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use ropewalk_api::conditions::{self, Condition, SUCCEEDED};
use ropewalk_api::{PipelineRun, TaskRun, labels};
use tokio::task::JoinSet;

use super::screen::Screen;

/// A run that was started.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct RunKey {
    /// `TaskRun` or `PipelineRun`.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Runs as they ended, and the TaskRuns that belong to them, by [`key`].
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Started PipelineRuns.
    pub pipelineruns: BTreeMap<String, PipelineRun>,
    /// Every TaskRun.
    pub taskruns: BTreeMap<String, TaskRun>,
    /// How long each took as seen from here; the API keeps whole seconds only.
    pub took: BTreeMap<String, Duration>,
}

enum Change {
    PipelineRun(Box<PipelineRun>),
    TaskRun(Box<TaskRun>),
    Pod(Box<Pod>),
}

/// `kind/namespace/name`, the key of [`Ended`].
pub(super) fn key(kind: &str, namespace: &str, name: &str) -> String {
    format!("{kind}/{namespace}/{name}")
}

/// Shows progress and logs until every run is done and every log has been read to its end.
pub(super) async fn follow(
    client: &Client,
    runs: &[RunKey],
    screen: &Arc<Screen>,
) -> Result<Ended, kube::Error> {
    let mut follower = Follower {
        client: client.clone(),
        screen: Arc::clone(screen),
        several: runs.len() > 1,
        pending: runs.iter().cloned().collect(),
        ended: Ended::default(),
        began: HashMap::new(),
        shown: HashMap::new(),
        followed: HashSet::new(),
        logs: JoinSet::new(),
    };
    let pipelineruns = watcher(Api::<PipelineRun>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .applied_objects()
        .map_ok(|run| Change::PipelineRun(Box::new(run)));
    let taskruns = watcher(Api::<TaskRun>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .applied_objects()
        .map_ok(|run| Change::TaskRun(Box::new(run)));
    let pods = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default().labels(labels::TASK_RUN))
        .default_backoff()
        .applied_objects()
        .map_ok(|pod| Change::Pod(Box::new(pod)));
    let mut changes = stream::select(stream::select(pipelineruns.boxed(), taskruns.boxed()), pods.boxed());
    while !follower.pending.is_empty() {
        match changes.next().await {
            Some(Ok(change)) => follower.see(change),
            // The watcher backs off and lists again by itself.
            Some(Err(error)) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "watch interrupted");
            }
            None => break,
        }
    }
    // The last containers may have started and ended while their run's last change was on its way.
    for pod in Api::<Pod>::all(client.clone()).list(&ListParams::default().labels(labels::TASK_RUN)).await? {
        follower.see(Change::Pod(Box::new(pod)));
    }
    for run in Api::<TaskRun>::all(client.clone()).list(&ListParams::default()).await? {
        follower.see(Change::TaskRun(Box::new(run)));
    }
    while follower.logs.join_next().await.is_some() {}
    Ok(follower.ended)
}

struct Follower {
    client: Client,
    screen: Arc<Screen>,
    several: bool,
    pending: HashSet<RunKey>,
    ended: Ended,
    /// When each run was first seen.
    began: HashMap<String, Instant>,
    /// The last reason shown for each waiting task.
    shown: HashMap<String, String>,
    /// Containers whose logs are being or have been read.
    followed: HashSet<(String, String)>,
    logs: JoinSet<()>,
}

impl Follower {
    fn see(&mut self, change: Change) {
        match change {
            Change::PipelineRun(run) => self.see_pipelinerun(*run),
            Change::TaskRun(run) => self.see_taskrun(*run),
            Change::Pod(pod) => self.see_pod(&pod),
        }
    }

    fn see_pipelinerun(&mut self, run: PipelineRun) {
        let (namespace, name) = (run.namespace().unwrap_or_default(), run.name_any());
        let entry = key("PipelineRun", &namespace, &name);
        let began = *self.began.entry(entry.clone()).or_insert_with(Instant::now);
        if run.status.as_ref().is_some_and(|status| conditions::is_done(&status.conditions)) {
            self.pending.remove(&RunKey { kind: "PipelineRun", namespace, name });
            self.ended.took.entry(entry.clone()).or_insert_with(|| began.elapsed());
            self.ended.pipelineruns.insert(entry, run);
        }
    }

    fn see_taskrun(&mut self, run: TaskRun) {
        let (namespace, name) = (run.namespace().unwrap_or_default(), run.name_any());
        let entry = key("TaskRun", &namespace, &name);
        let began = *self.began.entry(entry.clone()).or_insert_with(Instant::now);
        let task = self.label(&run.metadata, &name);
        let conditions = run.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        if conditions::is_done(conditions) {
            self.screen.ended(&task);
            self.ended.took.entry(entry.clone()).or_insert_with(|| began.elapsed());
            self.pending.remove(&RunKey { kind: "TaskRun", namespace, name });
        } else if let Some(condition) = conditions::find(conditions, SUCCEEDED) {
            self.screen.started(&task);
            self.show_waiting(&task, condition, conditions);
        }
        self.ended.taskruns.insert(entry, run);
    }

    /// What holds a task up is worth a line; that it starts or runs is not.
    fn show_waiting(&mut self, task: &str, succeeded: &Condition, all: &[Condition]) {
        // Our own condition, where there is one, says more than the one tools compare.
        let ours = all.iter().find(|condition| condition.type_.starts_with(ropewalk_api::ROPEWALK_GROUP));
        // Upstream's words for a pod that has nothing to say yet end in an empty message.
        let ordinary = matches!(succeeded.reason.as_str(), "Started" | "Running")
            || succeeded.message.ends_with("message: \"\"")
            || succeeded.message == "Pending";
        let Some(condition) = ours.or_else(|| (!ordinary).then_some(succeeded)) else { return };
        let message = &condition.message;
        if !message.is_empty()
            && self.shown.insert(task.to_owned(), message.clone()).as_ref() != Some(message)
        {
            self.screen.line(&format!("task \"{task}\" waits: {message}"));
        }
    }

    fn see_pod(&mut self, pod: &Pod) {
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        for status in statuses.filter(|status| status.name.starts_with("step-") && has_started(status)) {
            let container = (pod.uid().unwrap_or_default(), status.name.clone());
            if self.followed.insert(container) {
                let api: Api<Pod> =
                    Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
                let task =
                    self.label(&pod.metadata, pod.labels().get(labels::TASK_RUN).map_or("", String::as_str));
                let screen = Arc::clone(&self.screen);
                self.logs.spawn(copy_log(api, pod.name_any(), status.name.clone(), task, screen));
            }
        }
    }

    /// How people know a task: by its name in the pipeline, with the run's in front when there are several.
    fn label(&self, metadata: &kube::api::ObjectMeta, name: &str) -> String {
        let label = |key| metadata.labels.as_ref().and_then(|labels| labels.get(key));
        match (label(labels::PIPELINE_TASK), label(labels::PIPELINE_RUN)) {
            (Some(task), Some(run)) if self.several => format!("{run}/{task}"),
            (Some(task), _) => task.clone(),
            (None, _) => name.to_owned(),
        }
    }
}

fn has_started(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
}

async fn copy_log(api: Api<Pod>, pod: String, container: String, task: String, screen: Arc<Screen>) {
    let params = LogParams { container: Some(container.clone()), follow: true, ..LogParams::default() };
    // A pod that was deleted meanwhile has no log any more; its run says why.
    let Ok(log) = api.log_stream(&pod, &params).await else { return };
    let step = container.strip_prefix("step-").unwrap_or(&container);
    let mut log = std::pin::pin!(log);
    let mut line = Vec::new();
    // By bytes: a log need not be UTF-8.
    while matches!(log.read_until(b'\n', &mut line).await, Ok(1..)) {
        let text = String::from_utf8_lossy(&line);
        screen.log(&task, step, text.trim_end_matches(['\n', '\r']));
        line.clear();
    }
}

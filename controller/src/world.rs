//! The watches: one per kind, each feeding a reflector and the triggers of the controllers that care.

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Event as PodEvent, Pod};
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use ropewalk_api::{Pipeline, PipelineRun, Task, TaskRun, labels};
use ropewalk_cluster::client::watch_config;
use ropewalk_cluster::watch::watch;
use ropewalk_core::cache::Cached;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::listed::Listed;
use crate::owners::Owners;
use crate::pod_events::{self, PodEvents};
use crate::touched::touched;

/// How many changes of TaskRuns may wait for the PipelineRun controller before the TaskRun watch is held back: a burst
/// of one wide matrix; the controller behind it merges triggers of one run, so the queue drains at memory speed.
const TRIGGERS: usize = 1024;

/// What reconcilers read.
#[derive(Clone)]
pub(crate) struct View {
    listed: Listed,
    pub(crate) pods: Store<Pod>,
    pub(crate) pods_of: Owners,
    pub(crate) said: PodEvents,
    pub(crate) taskruns: Store<TaskRun>,
    pub(crate) taskruns_of: Owners,
    pub(crate) tasks: Store<Task>,
    pub(crate) pipelines: Store<Pipeline>,
}

impl View {
    /// Waits until every cache has been listed once, and the events.
    pub(crate) async fn ready(&self) {
        self.listed.wait().await;
        self.said.ready().await;
    }
}

/// What wakes the TaskRun controller.
pub(crate) struct TaskRunTriggers {
    pub(crate) runs: BoxStream<'static, Result<TaskRun, watcher::Error>>,
    pub(crate) store: Store<TaskRun>,
    pub(crate) pods: BoxStream<'static, Result<Pod, watcher::Error>>,
    pub(crate) warnings: BoxStream<'static, Result<Event<PodEvent>, watcher::Error>>,
}

/// What wakes the PipelineRun controller.
pub(crate) struct PipelineRunTriggers {
    pub(crate) runs: BoxStream<'static, Result<PipelineRun, watcher::Error>>,
    pub(crate) store: Store<PipelineRun>,
    pub(crate) children: BoxStream<'static, ObjectRef<PipelineRun>>,
}

/// All watches of one process.
pub(crate) struct World {
    pub(crate) view: View,
    pub(crate) taskruns: TaskRunTriggers,
    pub(crate) pipelineruns: PipelineRunTriggers,
    /// Keeps the reflectors of Tasks and Pipelines up to date; they trigger nothing.
    pub(crate) references: futures::future::BoxFuture<'static, ()>,
}

impl World {
    pub(crate) fn start(client: &Client, namespace: Option<&str>) -> Self {
        // Only pods that carry the engine's label are watched; the value is the user's to choose (contract 5.1).
        let ours = watch_config().labels(labels::MANAGED_BY);
        // Of pods, TaskRuns, Tasks and Pipelines.
        let listed = Listed::of(4);
        let pods_of = Owners::default();
        let (pods, writer) = store();
        let said = PodEvents::default();
        let pod_events = tracked(events(client, namespace, ours), &pods_of)
            .inspect({
                let said = said.clone();
                move |event| event.iter().for_each(|event| said.follow(event))
            })
            .reflect(writer);
        let pod_events = touched(listed.follow(pod_events), pods.clone());
        let told = watch_config().fields(pod_events::SELECTOR);
        let warnings = events::<PodEvent>(client, namespace, told);

        let taskruns_of = Owners::default();
        let (taskruns, writer) = store();
        let (send, receive) = mpsc::channel(TRIGGERS);
        let taskrun_events =
            tracked(events::<TaskRun>(client, namespace, watch_config()), &taskruns_of).reflect(writer);
        let taskrun_events = touched(listed.follow(taskrun_events), taskruns.clone())
            .then(move |change| wake_owner(send.clone(), change));

        let (pipelineruns, writer) = store();
        let pipelinerun_events = events(client, namespace, watch_config()).reflect(writer);
        let pipelinerun_events = touched(pipelinerun_events, pipelineruns.clone());

        let (tasks, task_writer) = store();
        let task_events = events::<Task>(client, namespace, watch_config()).reflect(task_writer);
        let task_events = listed.follow(task_events).for_each(|_| std::future::ready(()));
        let (pipelines, pipeline_writer) = store();
        let pipeline_events = events::<Pipeline>(client, namespace, watch_config()).reflect(pipeline_writer);
        let pipeline_events = listed.follow(pipeline_events).for_each(|_| std::future::ready(()));

        Self {
            view: View {
                listed,
                pods,
                pods_of,
                said,
                taskruns: taskruns.clone(),
                taskruns_of,
                tasks,
                pipelines,
            },
            taskruns: TaskRunTriggers {
                runs: taskrun_events.boxed(),
                store: taskruns,
                pods: pod_events.boxed(),
                warnings: warnings.boxed(),
            },
            pipelineruns: PipelineRunTriggers {
                runs: pipelinerun_events.boxed(),
                store: pipelineruns,
                children: receiver(receive).boxed(),
            },
            references: Box::pin(async move {
                tokio::join!(task_events, pipeline_events);
            }),
        }
    }
}

/// A watch whose objects have lost what nobody reads. It never fails: a controller that heard of an interruption would
/// hold up its other watches for a pause of their own.
fn events<K>(
    client: &Client,
    namespace: Option<&str>,
    config: watcher::Config,
) -> impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + use<K>
where
    K: Cached
        + Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
{
    let api: Api<K> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    watch(api, config).map(Ok).modify(Cached::slim)
}

fn tracked<K, S>(events: S, owners: &Owners) -> impl Stream<Item = S::Item> + Send + use<K, S>
where
    K: Resource,
    S: Stream<Item = Result<Event<K>, watcher::Error>> + Send,
{
    let owners = owners.clone();
    events.inspect(move |event| {
        if let Ok(event) = event {
            owners.apply(event);
        }
    })
}

async fn wake_owner(
    owners: mpsc::Sender<ObjectRef<PipelineRun>>,
    change: Result<TaskRun, watcher::Error>,
) -> Result<TaskRun, watcher::Error> {
    if let Ok(child) = &change
        && let Some(owner) = child
            .owner_references()
            .iter()
            .find(|owner| owner.controller == Some(true) && owner.kind == "PipelineRun")
        && let Some(namespace) = child.namespace()
    {
        // The receiver is gone only while the process ends.
        owners.send(ObjectRef::new(&owner.name).within(&namespace)).await.ok();
    }
    change
}

fn receiver<T: Send + 'static>(receive: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send {
    stream::unfold(receive, |mut receive| async move { receive.recv().await.map(|item| (item, receive)) })
}

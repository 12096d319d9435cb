//! When the pods and runs of a namespace appear and end, as a client sees it. Watches.

use std::collections::HashMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Event, watcher};
use kube::{Client, Resource, ResourceExt};
use ropewalk_api::conditions::{Condition, is_done, is_successful};
use ropewalk_api::{PipelineRun, TaskRun};
use ropewalk_cluster::client::{watch_backoff, watch_config};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::PATIENCE;

/// What ends.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// A pod, ours or a run's.
    Pod,
    /// A TaskRun.
    TaskRun,
    /// A PipelineRun.
    PipelineRun,
}

/// Follows a namespace until it is dropped.
pub struct Timeline {
    seen: watch::Receiver<Seen>,
    /// Ends with this.
    _watches: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Seen {
    objects: HashMap<(Kind, String), Times>,
    /// Watches that have listed what there is.
    listed: usize,
    /// Objects that have ended well so far, those that are gone included.
    succeeded: usize,
    /// Those that have not ended well.
    failed: usize,
}

#[derive(Clone, Copy, Debug)]
struct Times {
    appeared: Instant,
    /// And whether well.
    ended: Option<(Instant, bool)>,
}

/// From the creation of something to its end.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// All of it.
    pub total: Duration,
    /// Until the first pod appeared.
    pub before: Duration,
    /// While there was a pod that had not ended, one pod after the other.
    pub pods: Duration,
    /// From the end of a pod to the next pod's appearance.
    pub between: Duration,
    /// From the end of the last pod.
    pub after: Duration,
}

impl Timeline {
    /// Follows these kinds; what is created when this returns is seen from its first moment.
    pub async fn start(client: &Client, namespace: &str, kinds: &[Kind]) -> Result<Self> {
        let (sender, mut seen) = watch::channel(Seen::default());
        let sender = Arc::new(sender);
        let mut watches = JoinSet::new();
        for kind in kinds {
            let (client, sender) = (client.clone(), Arc::clone(&sender));
            match kind {
                Kind::Pod => watches.spawn(follow(Api::namespaced(client, namespace), *kind, of_pod, sender)),
                Kind::TaskRun => {
                    let outcome = |run: &TaskRun| of_run(&run.status.as_ref()?.conditions);
                    watches.spawn(follow(Api::namespaced(client, namespace), *kind, outcome, sender))
                }
                Kind::PipelineRun => {
                    let outcome = |run: &PipelineRun| of_run(&run.status.as_ref()?.conditions);
                    watches.spawn(follow(Api::namespaced(client, namespace), *kind, outcome, sender))
                }
            };
        }
        tokio::time::timeout(PATIENCE, seen.wait_for(|seen| seen.listed >= kinds.len()))
            .await
            .context("the namespace cannot be watched")??;
        Ok(Self { seen, _watches: watches })
    }

    /// Waits for the end, and says when it was seen; an error if it is no good end.
    pub async fn ended(&self, kind: Kind, name: &str) -> Result<Instant> {
        let key = (kind, name.to_owned());
        let mut seen = self.seen.clone();
        let end = |seen: &Seen| seen.objects.get(&key)?.ended;
        let (at, well) = tokio::time::timeout(PATIENCE, async {
            anyhow::Ok(end(&*seen.wait_for(|seen| end(seen).is_some()).await?))
        })
        .await
        .with_context(|| format!("{kind:?} \"{name}\" does not end"))??
        .context("the end is known")?;
        ensure!(well, "{kind:?} \"{name}\" has failed");
        Ok(at)
    }

    /// How many have ended well so far, those included that had ended before the start.
    pub fn succeeded(&self) -> usize {
        self.seen.borrow().succeeded
    }

    /// Waits until so many objects have ended well; an error if one of them has failed.
    pub async fn all_ended(&self, count: usize, patience: Duration) -> Result<()> {
        let mut seen = self.seen.clone();
        let enough = seen.wait_for(|seen| seen.succeeded >= count || seen.failed > 0);
        let reached = tokio::time::timeout(patience, enough).await.map(|seen| seen.map(|seen| seen.failed));
        let failed = reached.with_context(|| {
            format!("only {} of {count} have ended after {patience:?}", self.seen.borrow().succeeded)
        })??;
        ensure!(failed == 0, "{failed} have failed");
        Ok(())
    }

    /// How the time went from `begun` to `ended` for the run or pod of this name, and the pods whose names begin with it
    /// and a dash.
    pub async fn sample(&self, name: &str, begun: Instant, ended: Instant) -> Result<Sample> {
        let belongs =
            |pod: &str| pod.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
        let pods = |seen: &Seen| {
            let pods = seen.objects.iter().filter(|((kind, name), _)| *kind == Kind::Pod && belongs(name));
            pods.map(|(_, times)| Some((times.appeared, times.ended?.0))).collect::<Option<Vec<_>>>()
        };
        // The run's end may be seen before that of its pod: they come by two watches.
        let all = |seen: &Seen| pods(seen).filter(|pods| !pods.is_empty());
        let mut seen = self.seen.clone();
        let found = async { anyhow::Ok(all(&*seen.wait_for(|seen| all(seen).is_some()).await?)) };
        let pods = tokio::time::timeout(PATIENCE, found)
            .await
            .with_context(|| format!("\"{name}\" has no pod"))??;
        Ok(split(begun, ended, pods.unwrap_or_default()))
    }

    /// What is there now.
    pub fn present(&self) -> Vec<(Kind, String)> {
        self.seen.borrow().objects.keys().cloned().collect()
    }

    /// Waits until nothing is there.
    pub async fn empty(&self) -> Result<()> {
        let mut seen = self.seen.clone();
        let gone = tokio::time::timeout(PATIENCE, seen.wait_for(|seen| seen.objects.is_empty())).await;
        gone.with_context(|| format!("these stay: {:?}", self.present()))??;
        Ok(())
    }
}

impl Seen {
    fn note(&mut self, kind: Kind, name: String, ended: Option<bool>, at: Instant) {
        let times = self.objects.entry((kind, name)).or_insert(Times { appeared: at, ended: None });
        if let (None, Some(well)) = (times.ended, ended) {
            times.ended = Some((at, well));
            *if well { &mut self.succeeded } else { &mut self.failed } += 1;
        }
    }
}

async fn follow<K>(api: Api<K>, kind: Kind, outcome: fn(&K) -> Option<bool>, to: Arc<watch::Sender<Seen>>)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + 'static,
{
    let mut events = pin!(watcher(api, watch_config()).backoff(watch_backoff()));
    while let Some(event) = events.next().await {
        let at = Instant::now();
        to.send_modify(|seen| match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => {
                seen.note(kind, object.name_any(), outcome(&object), at);
            }
            Ok(Event::Delete(object)) => drop(seen.objects.remove(&(kind, object.name_any()))),
            Ok(Event::InitDone) => seen.listed += 1,
            // A watch that is interrupted goes on; whoever waits has a deadline.
            Ok(Event::Init) | Err(_) => {}
        });
    }
}

fn of_pod(pod: &Pod) -> Option<bool> {
    match pod.status.as_ref()?.phase.as_deref()? {
        "Succeeded" => Some(true),
        "Failed" => Some(false),
        _ => None,
    }
}

fn of_run(conditions: &[Condition]) -> Option<bool> {
    is_done(conditions).then(|| is_successful(conditions))
}

fn split(begun: Instant, ended: Instant, mut pods: Vec<(Instant, Instant)>) -> Sample {
    pods.sort_unstable();
    let first = pods.first().map_or(ended, |pod| pod.0);
    let last = pods.last().map_or(begun, |pod| pod.1);
    Sample {
        total: ended.saturating_duration_since(begun),
        before: first.saturating_duration_since(begun),
        pods: pods.iter().map(|(appeared, ended)| ended.saturating_duration_since(*appeared)).sum(),
        between: pods.windows(2).map(|pair| pair[1].0.saturating_duration_since(pair[0].1)).sum(),
        after: ended.saturating_duration_since(last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_run_is_split_without_rest() {
        let begun = Instant::now();
        let at = |ms: u64| begun + Duration::from_millis(ms);
        let sample = split(begun, at(100), vec![(at(50), at(90)), (at(10), at(30))]);
        let ms = Duration::from_millis;
        assert_eq!((sample.total, sample.before, sample.pods), (ms(100), ms(10), ms(60)));
        assert_eq!((sample.between, sample.after), (ms(20), ms(10)));
    }

    #[test]
    fn an_object_ends_once() {
        let (mut seen, now) = (Seen::default(), Instant::now());
        seen.note(Kind::Pod, "a".to_owned(), None, now);
        seen.note(Kind::Pod, "a".to_owned(), Some(true), now + Duration::from_secs(1));
        seen.note(Kind::Pod, "a".to_owned(), Some(true), now + Duration::from_secs(2));
        let times = seen.objects[&(Kind::Pod, "a".to_owned())];
        assert_eq!((times.appeared, times.ended), (now, Some((now + Duration::from_secs(1), true))));
        assert_eq!((seen.succeeded, seen.failed), (1, 0));
    }
}

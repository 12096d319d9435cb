//! Removes what finished long ago, so that a machine that serves for years keeps its memory and its disk. Runs go with
//! all that belongs to them: pods by garbage collection, logs with the pods.
//!
//! [`decide`] decides; this watches runs and pods, remembers a line of each, and deletes.

mod decide;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, DeleteParams, Preconditions, PropagationPolicy};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Resource};
use ropewalk_api::conditions::{self, Condition};
use ropewalk_api::{CustomRun, PipelineRun, TaskRun};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

pub use decide::Limits;
use decide::{Finished, surplus};

use crate::node::logs;

/// When a deletion that was refused is tried again, if nothing happens before.
const AGAIN: Duration = Duration::from_mins(1);

/// How long the timer sleeps at most. Runs end at wall-clock times, and the clock may be set meanwhile.
const LONGEST: Duration = Duration::from_hours(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    PipelineRun,
    TaskRun,
    CustomRun,
    Pod,
}

/// What is remembered of a run or pod.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    kind: Kind,
    namespace: String,
    name: String,
    owners: Vec<String>,
    /// When it ended, if it has.
    ended: Option<Timestamp>,
    log_bytes: u64,
}

enum Change {
    /// By UID; nothing for one that is being deleted, as nothing is left to do about it.
    Is(String, Option<Known>),
    /// All of a kind follow, and the UIDs of all that there are then.
    Began(Kind),
    Listed(Kind),
}

/// Prunes until dropped. `data_dir` is the node's.
pub(crate) async fn run(client: Client, data_dir: PathBuf, limits: Limits) {
    let mut changes = stream::select_all([
        changes(&client, Kind::PipelineRun, data_dir.clone(), |run: &PipelineRun| {
            let status = run.status.as_ref()?;
            ended(&run.metadata, &status.conditions, status.completion_time.as_ref())
        }),
        changes(&client, Kind::TaskRun, data_dir.clone(), |run: &TaskRun| {
            let status = run.status.as_ref()?;
            ended(&run.metadata, &status.conditions, status.completion_time.as_ref())
        }),
        changes(&client, Kind::CustomRun, data_dir.clone(), |run: &CustomRun| {
            let status = run.status.as_ref()?;
            ended(&run.metadata, &status.conditions, status.completion_time.as_ref())
        }),
        changes(&client, Kind::Pod, data_dir, pod_ended),
    ]);
    let mut pruner = Pruner { client, limits, known: BTreeMap::new(), listing: BTreeMap::new() };
    let mut wake = Instant::now() + LONGEST;
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(change) => {
                    if !pruner.learn(change) {
                        continue;
                    }
                }
                None => return,
            },
            () = tokio::time::sleep_until(wake) => {}
        }
        wake = Instant::now() + pruner.prune().await;
    }
}

/// The watch of one kind, as changes of what is remembered.
fn changes<K>(
    client: &Client,
    kind: Kind,
    data_dir: PathBuf,
    ended: impl Fn(&K) -> Option<Timestamp> + Send + 'static,
) -> stream::BoxStream<'static, Change>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let watch = watcher(Api::<K>::all(client.clone()), watcher::Config::default()).default_backoff();
    let known = move |object: &K, gone: bool| {
        let meta = object.meta();
        let uid = meta.uid.clone().unwrap_or_default();
        let lives = !gone && meta.deletion_timestamp.is_none();
        let known = lives.then(|| known(kind, meta, ended(object), &data_dir));
        Change::Is(uid, known)
    };
    watch
        .filter_map(move |event| {
            let change = match event {
                Ok(watcher::Event::Init) => Some(Change::Began(kind)),
                Ok(watcher::Event::InitDone) => Some(Change::Listed(kind)),
                Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                    Some(known(&object, false))
                }
                Ok(watcher::Event::Delete(object)) => Some(known(&object, true)),
                // The watcher backs off and lists again by itself.
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "watch interrupted");
                    None
                }
            };
            std::future::ready(change)
        })
        .boxed()
}

fn known(kind: Kind, meta: &ObjectMeta, ended: Option<Timestamp>, data_dir: &std::path::Path) -> Known {
    let owners = meta.owner_references.iter().flatten().map(|owner| owner.uid.clone()).collect();
    let log_bytes = match (&meta.uid, kind) {
        // Those of a pod that runs grow, and are counted when it has ended.
        (Some(uid), Kind::Pod) if ended.is_some() => logs::bytes(data_dir, uid),
        _ => 0,
    };
    let (namespace, name) = (meta.namespace.clone(), meta.name.clone());
    Known {
        kind,
        namespace: namespace.unwrap_or_default(),
        name: name.unwrap_or_default(),
        owners,
        ended,
        log_bytes,
    }
}

/// When something was made: the best there is for what does not say when it ended.
fn created(meta: &ObjectMeta) -> Timestamp {
    meta.creation_timestamp.as_ref().map_or(Timestamp::MIN, |time| time.0)
}

/// When a run ended, if it has.
fn ended(meta: &ObjectMeta, conditions: &[Condition], completion: Option<&Time>) -> Option<Timestamp> {
    let succeeded = conditions::find(conditions, conditions::SUCCEEDED)?;
    let time = completion.or(succeeded.last_transition_time.as_ref());
    conditions::is_done(conditions).then(|| time.map_or_else(|| created(meta), |time| time.0))
}

/// When a pod ended, if it has: with the last of its containers.
fn pod_ended(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    if !matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let containers = status.container_statuses.iter().flatten();
    let times = containers
        .filter_map(|container| Some(container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0));
    Some(times.max().unwrap_or_else(|| created(&pod.metadata)))
}

struct Pruner {
    client: Client,
    limits: Limits,
    /// By UID.
    known: BTreeMap<String, Known>,
    /// UIDs seen so far of kinds that are being listed.
    listing: BTreeMap<Kind, BTreeSet<String>>,
}

impl Pruner {
    /// Whether there may be something to do about it.
    fn learn(&mut self, change: Change) -> bool {
        match change {
            Change::Began(kind) => {
                self.listing.insert(kind, BTreeSet::new());
                false
            }
            Change::Listed(kind) => {
                let listed = self.listing.remove(&kind).unwrap_or_default();
                self.known.retain(|uid, known| known.kind != kind || listed.contains(uid));
                self.listing.is_empty()
            }
            Change::Is(uid, None) => {
                self.known.remove(&uid);
                false
            }
            Change::Is(uid, Some(known)) => {
                if let Some(listed) = self.listing.get_mut(&known.kind) {
                    listed.insert(uid.clone());
                }
                let ended = known.ended.is_some();
                let before = self.known.insert(uid, known.clone());
                // Before everything is listed, a pod may seem to belong to nobody.
                ended && self.listing.is_empty() && before.is_none_or(|before| before != known)
            }
        }
    }

    /// Deletes what is to go. The answer is when to look again.
    async fn prune(&mut self) -> Duration {
        if !self.listing.is_empty() {
            return LONGEST;
        }
        let now = Timestamp::now();
        let (surplus, next) = surplus(self.finished(), now, &self.limits);
        let mut all_went = true;
        for uid in surplus {
            let Some(known) = self.known.get(&uid) else { continue };
            match delete(&self.client, &uid, known).await {
                Ok(()) => {
                    self.known.remove(&uid);
                }
                Err(error) => {
                    all_went = false;
                    let (namespace, name) = (&known.namespace, &known.name);
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(namespace, name, kind = ?known.kind, error, "a finished run cannot be deleted");
                }
            }
        }
        let next = next.map_or(LONGEST, |next| next.duration_since(now).try_into().unwrap_or_default());
        if all_went { next.min(LONGEST) } else { AGAIN }
    }

    /// What has ended and belongs to nothing else that is known, with the logs of all that belongs to it.
    fn finished(&self) -> Vec<Finished<String>> {
        let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
        for uid in self.known.keys() {
            *bytes.entry(self.root(uid)).or_default() += self.known[uid].log_bytes;
        }
        let roots = bytes.into_iter().filter_map(|(uid, log_bytes)| {
            let ended = self.known.get(uid)?.ended?;
            Some(Finished { key: uid.to_owned(), ended, log_bytes })
        });
        roots.filter(|root| self.known[&root.key].owners.is_empty()).collect()
    }

    /// The run a run or pod belongs to in the end, itself if to none.
    fn root<'a>(&'a self, uid: &'a str) -> &'a str {
        let mut root = uid;
        // A pod of a task of a pipeline, of a pipeline in a pipeline: deeper than anybody nests, and no endless circle.
        for _ in 0..16 {
            let owners = self.known.get(root).map_or(&[][..], |known| &known.owners);
            match owners.iter().find(|owner| self.known.contains_key(*owner)) {
                Some(owner) => root = owner,
                None => break,
            }
        }
        root
    }
}

/// Deletes a run with all that belongs to it, unless it has been replaced by another of its name.
async fn delete(client: &Client, uid: &str, known: &Known) -> Result<(), kube::Error> {
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
        propagation_policy: Some(PropagationPolicy::Background),
        ..DeleteParams::default()
    };
    let (client, namespace, name) = (client.clone(), &known.namespace, &known.name);
    let deleted = match known.kind {
        Kind::PipelineRun => {
            Api::<PipelineRun>::namespaced(client, namespace).delete(name, &params).await.map(drop)
        }
        Kind::TaskRun => Api::<TaskRun>::namespaced(client, namespace).delete(name, &params).await.map(drop),
        Kind::CustomRun => {
            Api::<CustomRun>::namespaced(client, namespace).delete(name, &params).await.map(drop)
        }
        Kind::Pod => Api::<Pod>::namespaced(client, namespace).delete(name, &params).await.map(drop),
    };
    match deleted {
        // Somebody was faster.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        deleted => deleted,
    }
}

#[cfg(test)]
mod tests;

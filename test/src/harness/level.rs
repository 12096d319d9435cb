//! Waiting for a level of one object, which a watch tells of.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// What a watch can be set up for.
pub trait Watched: Resource<DynamicType = ()> + Clone + Debug + Send + DeserializeOwned + 'static {}

impl<K: Resource<DynamicType = ()> + Clone + Debug + Send + DeserializeOwned + 'static> Watched for K {}

/// Waits until there is an object of this name, as wanted.
pub async fn until<K: Watched>(
    api: Api<K>,
    name: &str,
    patience: Duration,
    wanted: impl Fn(&K) -> bool,
) -> Result<K> {
    let mut states = pin!(watch_object(api, name).default_backoff());
    let reached = async {
        while let Some(state) = states.next().await {
            // An error means a watch that is taken up again; the deadline ends those that come to nothing.
            if let Ok(Some(object)) = state
                && wanted(&object)
            {
                return Some(object);
            }
        }
        None
    };
    let reached = tokio::time::timeout(patience, reached).await.ok().flatten();
    reached.with_context(|| format!("{} \"{name}\" is not as wanted after {patience:?}", K::kind(&())))
}

/// Waits until there is no object of this name.
pub async fn gone<K: Watched>(api: Api<K>, name: &str, patience: Duration) -> Result<()> {
    let mut states = pin!(watch_object(api, name).default_backoff());
    let gone = async { while !matches!(states.next().await, None | Some(Ok(None))) {} };
    tokio::time::timeout(patience, gone)
        .await
        .with_context(|| format!("{} \"{name}\" is still there after {patience:?}", K::kind(&())))
}

/// Waits until a pod is gone, or is to go and none of its containers runs.
pub async fn ended(api: Api<Pod>, name: &str, patience: Duration) -> Result<()> {
    let mut states = pin!(watch_object(api, name).default_backoff());
    let ended = async {
        while let Some(state) = states.next().await {
            match state {
                Ok(None) => return,
                Ok(Some(pod)) if pod.metadata.deletion_timestamp.is_some() && !runs(&pod) => return,
                Ok(Some(_)) | Err(_) => {}
            }
        }
    };
    let ended = tokio::time::timeout(patience, ended).await;
    ended.with_context(|| format!("Pod \"{name}\" still runs after {patience:?}"))
}

fn runs(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let statuses = [&status.init_container_statuses, &status.container_statuses];
    let mut states = statuses.into_iter().flatten().flatten().filter_map(|status| status.state.as_ref());
    states.any(|state| state.running.is_some())
}

//! Every version of the runs of a namespace, as those see them who watch.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, WatchEvent, WatchParams};
use kube::core::GroupVersionKind;
use kube::runtime::{WatchStreamExt, watcher};

use super::namespace::Namespace;
use super::state::State;

/// The versions of all runs of one kind since it began.
pub struct History {
    events: BoxStream<'static, kube::Result<WatchEvent<DynamicObject>>>,
    versions: BTreeMap<String, Vec<State>>,
}

impl Namespace<'_> {
    /// Begins to take down every version of the runs of this kind.
    pub async fn history(&self, kind: &str) -> Result<History> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(ropewalk_api::GROUP, "v1", kind));
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), &self.name, &resource);
        let begin = api.list(&ListParams::default().limit(1)).await?.metadata.resource_version;
        let begin = begin.context("a list without a resource version")?;
        // The server ends watches; a test is over before it does.
        let params = WatchParams::default().timeout(280);
        Ok(History { events: api.watch(&params, &begin).await?.boxed(), versions: BTreeMap::new() })
    }

    /// Waits for an event with this reason about this object.
    pub async fn event(&self, kind: &str, name: &str, reason: &str, patience: Duration) -> Result<()> {
        let api = Api::<Event>::namespaced(self.client.clone(), &self.name);
        let config = watcher::Config::default().fields(&format!("involvedObject.name={name}"));
        let mut events = pin!(watcher(api, config).default_backoff().applied_objects());
        let told = async {
            while let Some(event) = events.next().await {
                // An error means a watch that is taken up again.
                if event.is_ok_and(|event| {
                    event.involved_object.kind.as_deref() == Some(kind)
                        && event.reason.as_deref() == Some(reason)
                }) {
                    return;
                }
            }
        };
        tokio::time::timeout(patience, told)
            .await
            .with_context(|| format!("no event {reason} about {kind} \"{name}\" after {patience:?}"))
    }
}

impl History {
    /// The versions of a run, up to one that is as wanted at least.
    pub async fn until(
        &mut self,
        name: &str,
        patience: Duration,
        wanted: impl Fn(&State) -> bool,
    ) -> Result<&[State]> {
        let reached = tokio::time::timeout(patience, async {
            while !self.versions.get(name).is_some_and(|versions| versions.iter().any(&wanted)) {
                match self.events.try_next().await?.context("the watch has ended")? {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                        let name = object.metadata.name.clone().unwrap_or_default();
                        let value = serde_json::to_value(object)?;
                        self.versions.entry(name).or_default().push(State { value });
                    }
                    WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => {}
                    WatchEvent::Error(status) => bail!("the watch has failed: {}", status.message),
                }
            }
            anyhow::Ok(())
        })
        .await;
        let versions = self.versions.get(name).map(Vec::as_slice).unwrap_or_default();
        let Ok(read) = reached else {
            let last = versions.last().map_or_else(|| "never seen".to_owned(), State::to_string);
            bail!("\"{name}\" has had no version as wanted after {patience:?}: {last}");
        };
        read?;
        Ok(versions)
    }
}

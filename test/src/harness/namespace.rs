//! A namespace of a test's own, and what tests do in it.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Event, Namespace as Object, Pod};
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use ropewalk_cli::documents::{self, Document, Source};
pub use ropewalk_cli::run::RunKey;
use ropewalk_cli::run::{Objects, apply};
use serde_json::{Value, json};

use super::PATIENCE;
use super::images::Images;
use super::level::{ended, gone};
use super::nodes::{self, Labels};
use super::registry::Published;
use super::state::State;

/// Objects of this kind are started, and end.
pub fn is_run(kind: &str) -> bool {
    matches!(kind, "TaskRun" | "PipelineRun")
}

/// The TaskRun of this name, beside another run.
pub fn taskrun(beside: &RunKey, name: &str) -> RunKey {
    RunKey { kind: "TaskRun", name: name.to_owned(), ..beside.clone() }
}

/// A PipelineRun of one task with this `taskSpec`; its TaskRun is called as both, with a dash between.
pub fn one_task(name: &str, task: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "tekton.dev/v1",
        "kind": "PipelineRun",
        "metadata": { "name": name },
        "spec": { "pipelineSpec": { "tasks": [{ "name": task, "taskSpec": spec }] } },
    })
}

/// A namespace that nobody else uses.
pub struct Namespace<'a> {
    pub(super) client: Client,
    /// Where the world's nodes get their images; None where every image is the machine's root file system.
    pub(super) images: Option<&'a Images>,
    /// Where the world's images are pulled from instead.
    pub(super) published: Option<&'a Published>,
    /// What the world's nodes are labelled with.
    pub(super) labels: &'a Labels,
    pub(super) name: String,
}

impl Namespace<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Creates everything in the YAML, definitions first; the runs among them, in order.
    pub async fn apply(&self, yaml: &str) -> Result<Vec<RunKey>> {
        let source = Source::new("test.yaml", yaml);
        let documents = documents::parse(source).map_err(|wrong| anyhow!("{}", wrong.render(false)))?;
        self.apply_documents(documents).await
    }

    /// Creates one run.
    pub async fn start(&self, run: &Value) -> Result<RunKey> {
        self.apply(&run.to_string()).await?.pop().context("no run was created")
    }

    /// What [`apply`](Self::apply) does, for documents. The error is what the API server says to the first that it refuses.
    pub async fn apply_documents(&self, documents: Vec<Document>) -> Result<Vec<RunKey>> {
        let mut objects = Objects::default();
        for document in documents {
            let mut value = document.value.clone();
            if value["metadata"]["namespace"].as_str().is_none_or(str::is_empty) {
                value["metadata"]["namespace"] = self.name.clone().into();
            }
            if self.images.is_none() {
                nodes::drop_filled_in(&mut value);
            }
            if let Some(published) = self.published {
                published.provide(&mut value).await?;
            }
            let list = if is_run(document.kind()) { &mut objects.runs } else { &mut objects.definitions };
            list.push(ropewalk_cli::run::Object { value, document: Some(document) });
        }
        let all = objects.definitions.iter().chain(&objects.runs).map(|object| &object.value);
        if let (Some(images), None) = (self.images, self.published) {
            images.provide(all.clone()).await?;
        }
        self.labels.provide(&self.client, all).await?;
        apply(&self.client, &objects).await.map_err(|refused| {
            anyhow!(refused.first().map_or_else(String::new, |refused| refused.message().to_owned()))
        })
    }

    /// Waits until the run is as wanted. The error says how it was last seen.
    pub async fn until(
        &self,
        run: &RunKey,
        patience: Duration,
        wanted: impl Fn(&State) -> bool,
    ) -> Result<State> {
        let api = self.api(run.kind);
        let mut last = None;
        let mut states = pin!(watch_object(api, &run.name).default_backoff());
        let reached = tokio::time::timeout(patience, async {
            while let Some(state) = states.next().await {
                // An error means a watch that is taken up again; the deadline ends those that come to nothing.
                let Ok(Some(object)) = state else { continue };
                let value = serde_json::to_value(object)?;
                let state = last.insert(State { value });
                if wanted(state) {
                    return Ok(Some(state.clone()));
                }
            }
            anyhow::Ok(None)
        })
        .await;
        match reached {
            Ok(Ok(Some(state))) => Ok(state),
            Ok(Err(error)) => Err(error),
            Ok(Ok(None)) | Err(_) => {
                let last = last.map_or_else(|| "never seen".to_owned(), |state| state.to_string());
                bail!("{} \"{}\" is not as wanted after {patience:?}: {last}", run.kind, run.name)
            }
        }
    }

    /// Waits for the run's end.
    pub async fn done(&self, run: &RunKey, patience: Duration) -> Result<State> {
        self.until(run, patience, State::is_done).await.context("no end")
    }

    /// Changes the run by a merge patch, as clients do.
    pub async fn patch(&self, run: &RunKey, patch: Value) -> Result<()> {
        self.api(run.kind).patch(&run.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Everything the run owns, directly or through what it owns, each as `Kind name`.
    pub async fn children(&self, of: &State) -> Result<BTreeSet<String>> {
        let mut all = Vec::new();
        for kind in ["PipelineRun", "TaskRun", "CustomRun"] {
            let found = self.api(kind).list(&ListParams::default()).await?;
            all.extend(found.items.into_iter().map(|object| (kind, object.metadata)));
        }
        all.extend(self.pods().await?.into_iter().map(|pod| ("Pod", pod.metadata)));
        let (mut owners, mut children) = (vec![of.uid().to_owned()], BTreeSet::new());
        while let Some(owner) = owners.pop() {
            for (kind, metadata) in &all {
                if metadata.owner_references.iter().flatten().any(|reference| reference.uid == owner) {
                    owners.extend(metadata.uid.clone());
                    children.insert(format!("{kind} {}", metadata.name.as_deref().unwrap_or_default()));
                }
            }
        }
        Ok(children)
    }

    /// Every pod.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        let api = Api::<Pod>::namespaced(self.client.clone(), &self.name);
        Ok(api.list(&ListParams::default()).await?.items)
    }

    /// Waits until nothing runs in this pod and nothing will, as long as that may take, and then until it is gone: a
    /// kubelet keeps a pod whose containers have ended until it collects what is left of them, which that of 1.20 does
    /// once a minute.
    pub async fn pod_gone(&self, name: &str, patience: Duration) -> Result<()> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.name);
        ended(pods.clone(), name, patience).await?;
        gone(pods, name, PATIENCE).await
    }

    /// Every event as `Kind name Reason: message`.
    pub async fn events(&self) -> Result<Vec<String>> {
        let api = Api::<Event>::namespaced(self.client.clone(), &self.name);
        let events = api.list(&ListParams::default()).await?.items.into_iter();
        Ok(events
            .map(|event| {
                let of = event.involved_object;
                let text = |text: Option<String>| text.unwrap_or_default();
                let (kind, name) = (text(of.kind), text(of.name));
                format!("{kind} {name} {}: {}", text(event.reason), text(event.message))
            })
            .collect())
    }

    /// Removes it with everything in it, without waiting for the end of that.
    pub async fn finish(self) -> Result<()> {
        Api::<Object>::all(self.client).delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }

    fn api(&self, kind: &str) -> Api<DynamicObject> {
        let version = if kind == "CustomRun" { "v1beta1" } else { "v1" };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(ropewalk_api::GROUP, version, kind));
        Api::namespaced_with(self.client.clone(), &self.name, &resource)
    }
}

//! Where pods run: a node of our own with either runtime, or the nodes of a cluster.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{AsyncBufReadExt, AsyncReadExt, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DeleteParams, DynamicObject, LogParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use ropewalk_apiserver::{NoAdmission, ResourceTable, State};
use ropewalk_standalone::node::logs::Logs;
use ropewalk_standalone::node::{self, Instance, NodeConfig, RootfsMode, RuntimeKind};
use ropewalk_standalone::server::Server;
use ropewalk_test::harness::{self, Features, Kind};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::case::{Case, Seen, phase, status};

/// What every container is made from. Our node has the machine's own root file system under every name.
pub(crate) const IMAGE: &str = harness::images::IMAGE;

/// Bytes of log that our node keeps of a container here: few, for the case that writes more.
pub(crate) const LOG_BYTES: u64 = 8 << 20;

/// Processes that our node gives a container here: few, for those that make as many as they can.
pub(crate) const PIDS: u64 = 200;

/// What a pod may take on a machine however busy.
const PATIENCE: Duration = Duration::from_mins(1);

/// A namespace whose pods run.
pub(crate) enum World {
    Ours(Box<Ours>),
    Cluster(Box<harness::World>),
}

/// An API server and a node in this process.
pub(crate) struct Ours {
    client: Client,
    instance: Option<Instance>,
    shutdown: watch::Sender<bool>,
    node: JoinHandle<Result<(), node::NodeError>>,
    root: tempfile::TempDir,
}

impl World {
    pub(crate) fn ours(runtime: RuntimeKind) -> Result<Self> {
        // Not below /tmp, which containers find empty: where the program keeps its data by default.
        let root = tempfile::tempdir_in("/var/lib").context("cannot make a directory")?;
        let instance = Instance::create(root.path())?;
        let data_dir = instance.data_dir();
        let config = NodeConfig {
            rootfs: RootfsMode::Host,
            runtime,
            private_dirs: vec![root.path().to_owned()],
            log_bytes: LOG_BYTES,
            pids: PIDS,
            ..NodeConfig::new(data_dir, PathBuf::from(node::OWN_EXECUTABLE))
        };
        let state = State::new(ResourceTable::built_in(), 1, Timestamp::now());
        let server = Server::new(state, Arc::new(NoAdmission), Arc::new(Logs::new(data_dir)));
        let client = server.client();
        let (shutdown, stopping) = watch::channel(false);
        let node = tokio::spawn(node::run(client.clone(), config, stopping));
        Ok(Self::Ours(Box::new(Ours { client, instance: Some(instance), shutdown, node, root })))
    }

    pub(crate) async fn cluster() -> Result<Self> {
        let world = harness::World::start(Kind::Cluster, &Features::default()).await?;
        Ok(Self::Cluster(Box::new(world)))
    }

    /// Ends it; an error if anything of a pod is left on our node.
    pub(crate) async fn stop(self) -> Result<()> {
        match self {
            Self::Cluster(world) => world.stop().await,
            Self::Ours(mut ours) => {
                ours.shutdown.send_replace(true);
                (&mut ours.node).await.context("the node panicked")??;
                let instance = ours.instance.take().context("it is stopped once")?;
                instance.remove().context("cannot remove what containers left")?;
                let path = ours.root.path().to_string_lossy().into_owned();
                let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
                ensure!(!mounts.contains(&path), "a mount is left: {mounts}");
                Ok(())
            }
        }
    }

    /// Runs the pods of a case in a namespace of its own, and tells what is seen.
    pub(crate) async fn observe(&self, case: &Case) -> Result<Seen> {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": case.metadata,
            "spec": case.spec,
        });
        match self {
            Self::Ours(ours) => {
                let client = &ours.client;
                // Names tell them apart: one namespace is enough.
                for object in case.objects.iter().chain([&pod]) {
                    create(client, "default", object).await?;
                }
                observe(client, "default", case).await
            }
            Self::Cluster(world) => {
                let namespace = world.namespace("containers").await?;
                for object in case.objects.iter().chain([&pod]) {
                    namespace.apply(&object.to_string()).await?;
                }
                let seen = observe(&world.client(), namespace.name(), case).await;
                namespace.finish().await?;
                seen
            }
        }
    }
}

/// A test that fails leaves nothing running either.
impl Drop for Ours {
    fn drop(&mut self) {
        self.node.abort();
        if let Some(instance) = self.instance.take() {
            let _ = instance.remove();
        }
    }
}

async fn create(client: &Client, namespace: &str, object: &Value) -> Result<()> {
    let kind = object["kind"].as_str().context("an object has a kind")?;
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind));
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
    api.create(&PostParams::default(), &serde_json::from_value(object.clone())?).await?;
    Ok(())
}

async fn observe(client: &Client, namespace: &str, case: &Case) -> Result<Seen> {
    let api = Api::<Pod>::namespaced(client.clone(), namespace);
    let name = case.metadata["name"].as_str().context("a pod has a name")?;
    let mut last = None;
    let watched = async {
        match case.deleted_after {
            None => {
                watch(&api, name, &mut last, |pod| pod.is_none_or(&case.until)).await?;
                logs(&api, last.as_ref().context("it was never there")?).await
            }
            Some(line) => {
                watch(&api, name, &mut last, |pod| pod.is_some_and(|pod| phase(pod) == "Running")).await?;
                let log = delete_after(&api, name, line);
                let (log, gone) = tokio::join!(log, watch(&api, name, &mut last, |pod| pod.is_none()));
                gone?;
                Ok([(super::case::ONLY.to_owned(), log?)].into())
            }
        }
    };
    let logs = tokio::time::timeout(PATIENCE, watched).await;
    let shown = |pod: Option<&Pod>| {
        pod.map_or_else(|| "never seen".to_owned(), |pod| json!({ "status": pod.status }).to_string())
    };
    let logs = logs
        .with_context(|| format!("not as wanted after {PATIENCE:?}; last {}", shown(last.as_ref())))?
        .with_context(|| format!("last {}", shown(last.as_ref())))?;
    if case.deleted_after.is_none() {
        // Some of them would wait for ever.
        let _ = api.delete(name, &DeleteParams::default().grace_period(0)).await;
    }
    Ok(Seen { pod: last.context("it was never there")?, logs })
}

/// Waits until the pod is as wanted, or no longer there and that is wanted; keeps how it was last seen.
async fn watch(
    api: &Api<Pod>,
    name: &str,
    last: &mut Option<Pod>,
    wanted: impl Fn(Option<&Pod>) -> bool,
) -> Result<()> {
    let mut states = std::pin::pin!(watch_object(api.clone(), name).default_backoff());
    while let Some(state) = states.next().await {
        // An error means a watch that is taken up again.
        let Ok(pod) = state else { continue };
        let reached = wanted(pod.as_ref());
        *last = pod.or_else(|| last.take());
        if reached {
            return Ok(());
        }
    }
    anyhow::bail!("the watch ended")
}

/// Reads the log; deletes the pod when the line stands there. Returns all of it.
async fn delete_after(api: &Api<Pod>, name: &str, line: &str) -> Result<String> {
    let follow = LogParams { follow: true, ..LogParams::default() };
    let mut stream = std::pin::pin!(api.log_stream(name, &follow).await?);
    let mut text = String::new();
    while stream.read_line(&mut text).await? > 0 {
        if text.lines().last() == Some(line) {
            api.delete(name, &DeleteParams::default()).await?;
            // What comes after it is cut off where the container's directory goes.
            let _ = stream.read_to_string(&mut text).await;
            // Which a kubelet says in the log itself.
            return Ok(text.split("rpc error: ").next().unwrap_or_default().to_owned());
        }
    }
    anyhow::bail!("\"{line}\" was never written: {text:?}")
}

/// What the containers wrote that have run.
async fn logs(api: &Api<Pod>, pod: &Pod) -> Result<std::collections::BTreeMap<String, String>> {
    let mut logs = std::collections::BTreeMap::new();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    for container in spec.init_containers.into_iter().flatten().chain(spec.containers) {
        if status(pod, &container.name).is_some_and(|status| status.container_id.is_some()) {
            let parameters = LogParams { container: Some(container.name.clone()), ..LogParams::default() };
            logs.insert(container.name, api.logs(name, &parameters).await?);
        }
    }
    Ok(logs)
}

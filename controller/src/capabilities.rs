//! What a cluster can do: its version alone does not tell. It is asked when this process begins to work, and its nodes
//! are followed from then on, since older ones may join.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use http::StatusCode;
use k8s_openapi::api::core::v1::{Node, NodeSystemInfo, Pod};
use kube::api::{ListParams, PostParams};
use kube::runtime::watcher::Event;
use kube::{Api, Client, ResourceExt};
use ropewalk_cluster::client::{watch_backoff, watch_config};
use ropewalk_core::settings::Settings;
use serde_json::json;
use tokio::sync::watch;

/// How long the runs wait for the first answer. An API server that answers at all needs a second for the largest
/// cluster, and a new leader has little time.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long one attempt to ask may take.
const ATTEMPT: Duration = Duration::from_secs(20);

/// Nodes read at a time, of some 20 kB each.
const PAGE: u32 = 100;

/// Nodes read at most: as many as Kubernetes is built for.
const NODES: usize = 5_000;

/// The volume asked about.
const VOLUME: &str = "entrypoint";

/// The first release of Kubernetes in which a kubelet can mount images.
const CAPABLE: (u32, u32) = (1, 33);

/// The first release in which it does so without being told.
const DEFAULT: (u32, u32) = (1, 35);

/// `settings`, whose `image_volumes` says at any time whether every node can mount the entrypoint's image as a volume of
/// a pod, as far as nodes say what they are. The question to the API server is a pod in `namespace` that is never stored.
///
/// What cannot be found out counts as no, and is logged: pods then have an init container, which works everywhere. What
/// the API server keeps is asked once it answers, and not again in the life of this process.
pub async fn follow(client: &Client, namespace: &str, settings: Settings) -> watch::Receiver<Arc<Settings>> {
    let image = settings.entrypoint_image.clone();
    let (sender, mut receiver) = watch::channel(Arc::new(Settings { image_volumes: false, ..settings }));
    let (client, namespace) = (client.clone(), namespace.to_owned());
    tokio::spawn(async move {
        let Some(server) = begin(&client, &namespace, &image, &sender).await else { return };
        let nodes = ropewalk_cluster::watch::watch(Api::<Node>::all(client), watch_config());
        tokio::select! {
            () = watch_nodes(nodes, server, &sender) => {}
            () = sender.closed() => {}
        }
    });
    // It is marked as changed by the first answer, or its sender is gone when there will be none.
    if tokio::time::timeout(PATIENCE, receiver.changed()).await.is_err() {
        tracing::warn!(
            "no answer within {PATIENCE:?} whether images can be volumes: pods have an init container until then"
        );
    }
    receiver
}

/// Asks until there is an answer, and publishes it. The API server's version if the nodes decide.
async fn begin(
    client: &Client,
    namespace: &str,
    image: &str,
    settings: &watch::Sender<Arc<Settings>>,
) -> Option<Option<(u32, u32)>> {
    let mut pauses = watch_backoff();
    loop {
        let asked = tokio::time::timeout(ATTEMPT, ask(client, namespace, image));
        let asked = tokio::select! {
            asked = asked => asked,
            () = settings.closed() => return None,
        };
        let error: &(dyn std::error::Error + Send + Sync) = match &asked {
            Ok(Ok((server, verdict))) => {
                if let Err(reason) = verdict {
                    tracing::info!(%reason, "images cannot be volumes yet: pods have an init container");
                }
                publish(settings, verdict.as_ref().err());
                return Some(*server);
            }
            Ok(Err(Error::Obstacle(obstacle))) => {
                tracing::info!(reason = %obstacle, "images cannot be volumes here: pods have an init container");
                return None;
            }
            Ok(Err(error)) if error.is_forbidden() => {
                let error = error as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    "whether images can be volumes is not for us to know: pods have an init container"
                );
                return None;
            }
            Ok(Err(error)) => error,
            Err(elapsed) => elapsed,
        };
        refused(error);
        tokio::time::sleep(pauses.next().unwrap_or(ATTEMPT)).await;
    }
}

fn refused(error: &(dyn std::error::Error + 'static)) {
    tracing::warn!(
        error,
        "cannot find out whether images can be volumes, trying again: pods have an init container"
    );
}

/// Judges the nodes whenever one comes, goes or says something else of itself. Only pods made from then on differ.
async fn watch_nodes(
    events: impl Stream<Item = Event<Node>>,
    server: Option<(u32, u32)>,
    settings: &watch::Sender<Arc<Settings>>,
) {
    let mut events = std::pin::pin!(events);
    // As many as the cluster has nodes, of some hundred bytes each; the nodes themselves are not kept.
    let mut verdicts = BTreeMap::new();
    let mut listed = BTreeMap::new();
    let judge = |node: &Node| verdict(node, server);
    while let Some(event) = events.next().await {
        match event {
            Event::Init => {
                listed.clear();
                continue;
            }
            Event::InitApply(node) => {
                listed.insert(node.name_any(), judge(&node));
                continue;
            }
            Event::InitDone => verdicts = std::mem::take(&mut listed),
            Event::Apply(node) => {
                let verdict = judge(&node);
                if verdicts.insert(node.name_any(), verdict.clone()) == Some(verdict) {
                    continue;
                }
            }
            Event::Delete(node) => drop(verdicts.remove(&node.name_any())),
        }
        let obstacle = verdicts.values().find_map(|verdict| verdict.as_ref().err());
        let silent = !verdicts.values().any(|verdict| *verdict == Ok(true));
        publish(settings, obstacle.or(silent.then_some(&Obstacle::NoNode)));
    }
}

/// Says it once, and logs what is new.
fn publish(settings: &watch::Sender<Arc<Settings>>, obstacle: Option<&Obstacle>) {
    let image_volumes = obstacle.is_none();
    let changed = settings.borrow().image_volumes != image_volumes;
    match obstacle {
        None if changed => {
            tracing::info!("every node mounts images as volumes: new pods need no init container");
        }
        Some(reason) if changed => {
            tracing::warn!(%reason, "images cannot be volumes any more: new pods have an init container");
        }
        _ => {}
    }
    settings.send_modify(|settings| Arc::make_mut(settings).image_volumes = image_volumes);
}

/// Why pods have an init container.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot {what}")]
    Ask { what: &'static str, source: kube::Error },
    #[error(transparent)]
    Obstacle(#[from] Obstacle),
}

impl Error {
    fn is_forbidden(&self) -> bool {
        matches!(self, Self::Ask { source: kube::Error::Api(status), .. } if status.code == StatusCode::FORBIDDEN.as_u16())
    }
}

fn asking(what: &'static str) -> impl FnOnce(kube::Error) -> Error {
    move |source| Error::Ask { what, source }
}

/// What speaks against image volumes.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
enum Obstacle {
    #[error("the API server does not keep the field")]
    Dropped,
    #[error("no node says what it runs")]
    NoNode,
    #[error("more than {NODES} nodes")]
    TooManyNodes,
    #[error("node \"{node}\" has kubelet \"{version}\", which does not mount images unless told to")]
    Kubelet { node: String, version: String },
    #[error("node \"{node}\" has container runtime \"{version}\", which is not known to mount images")]
    Runtime { node: String, version: String },
}

/// The API server's version, and what its nodes say of themselves; an obstacle in the way of the question is an error.
async fn ask(
    client: &Client,
    namespace: &str,
    entrypoint_image: &str,
) -> Result<(Option<(u32, u32)>, Result<(), Obstacle>), Error> {
    let server = client.apiserver_version().await.map_err(asking("read the API server's version"))?;
    let server = version(&format!("{}.{}", server.major, server.minor));
    if !keeps_image_volumes(client, namespace, entrypoint_image).await? {
        return Err(Obstacle::Dropped.into());
    }
    Ok((server, ask_nodes(client, server).await?))
}

async fn ask_nodes(client: &Client, server: Option<(u32, u32)>) -> Result<Result<(), Obstacle>, Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let mut parameters = ListParams::default().limit(PAGE);
    let (mut read, mut reporting) = (0, 0);
    loop {
        let page = nodes.list(&parameters).await.map_err(asking("list the nodes"))?;
        read += page.items.len();
        for node in &page.items {
            match verdict(node, server) {
                Ok(mounts) => reporting += usize::from(mounts),
                Err(obstacle) => return Ok(Err(obstacle)),
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            None if reporting == 0 => return Ok(Err(Obstacle::NoNode)),
            None => return Ok(Ok(())),
            Some(_) if read >= NODES => return Err(Obstacle::TooManyNodes.into()),
            Some(token) => parameters = parameters.continue_token(&token),
        }
    }
}

fn verdict(node: &Node, server: Option<(u32, u32)>) -> Result<bool, Obstacle> {
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    info.map_or(Ok(false), |info| mounts_images(&node.name_any(), info, server))
}

/// Whether the field comes back from a creation that is only tried.
async fn keeps_image_volumes(client: &Client, namespace: &str, image: &str) -> Result<bool, Error> {
    let what = "try to create a pod with an image volume";
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod: Pod =
        serde_json::from_value(probe(image)).map_err(|error| asking(what)(kube::Error::SerdeError(error)))?;
    let parameters = PostParams { dry_run: true, ..PostParams::default() };
    match pods.create(&parameters, &pod).await {
        Ok(created) => {
            let mut volumes = created.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
            Ok(volumes.any(|volume| volume.name == VOLUME && volume.image.is_some()))
        }
        // Where the feature is switched off nothing is left of the volume, and that is refused.
        Err(kube::Error::Api(status)) if status.code == StatusCode::UNPROCESSABLE_ENTITY.as_u16() => {
            Ok(false)
        }
        Err(error) => Err(asking(what)(error)),
    }
}

/// A pod that meets the "restricted" Pod Security Standard, so that no namespace refuses it.
fn probe(image: &str) -> serde_json::Value {
    json!({
        "metadata": {"generateName": "image-volume-"},
        "spec": {
            "automountServiceAccountToken": false,
            "restartPolicy": "Never",
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "nop",
                "image": image,
                "resources": {
                    "requests": {"cpu": "1m", "memory": "1Mi"},
                    "limits": {"cpu": "1m", "memory": "1Mi"},
                },
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": VOLUME, "mountPath": "/tekton/bin", "readOnly": true}],
            }],
            "volumes": [{"name": VOLUME, "image": {"reference": image}}],
        },
    })
}

/// Whether a node says that it mounts images; no if it says nothing, or runs no steps.
///
/// Kubelets follow the API server by up to three releases. One that has the feature switched off by default is believed
/// to have it on only if the API server, as old, keeps the field: somebody switched it on there, for a purpose.
fn mounts_images(node: &str, info: &NodeSystemInfo, server: Option<(u32, u32)>) -> Result<bool, Obstacle> {
    if info.kubelet_version.is_empty() || info.operating_system == "windows" {
        return Ok(false);
    }
    let least = if server.is_some_and(|server| server < DEFAULT) { CAPABLE } else { DEFAULT };
    if version(&info.kubelet_version).is_none_or(|kubelet| kubelet < least) {
        return Err(Obstacle::Kubelet { node: node.to_owned(), version: info.kubelet_version.clone() });
    }
    let runtime = &info.container_runtime_version;
    let least = match runtime.split_once("://") {
        Some(("containerd", release)) => version(release).map(|release| release >= (2, 1)),
        Some(("cri-o", release)) => version(release).map(|release| release >= (1, 31)),
        _ => None,
    };
    match least {
        Some(true) => Ok(true),
        _ => Err(Obstacle::Runtime { node: node.to_owned(), version: runtime.clone() }),
    }
}

/// Major and minor of a version such as `v1.33.4-gke.100`, or of an API server's `1.33+`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.strip_prefix('v').unwrap_or(text).split('.');
    let mut number = || {
        let part = parts.next()?;
        let digits = part.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(part.len());
        part[..digits].parse().ok()
    };
    Some((number()?, number()?))
}

#[cfg(test)]
mod tests;

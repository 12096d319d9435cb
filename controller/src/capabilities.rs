//! What a cluster can do, asked once at start: its version alone does not tell.

use std::time::Duration;

use http::StatusCode;
use k8s_openapi::api::core::v1::{Node, NodeSystemInfo, Pod};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

/// How long asking may take. An API server that answers at all needs a second for the largest cluster.
const PATIENCE: Duration = Duration::from_secs(20);

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

/// Whether every node can mount `entrypoint_image` as a volume of a pod, as far as nodes say what they are. The
/// question to the API server is a pod in `namespace` that is never stored.
///
/// What cannot be found out counts as no, and is logged: pods then have an init container, which works everywhere.
pub async fn image_volumes(client: &Client, namespace: &str, entrypoint_image: &str) -> bool {
    let asked = tokio::time::timeout(PATIENCE, ask(client, namespace, entrypoint_image)).await;
    match asked {
        Ok(Ok(())) => {
            tracing::info!("every node mounts images as volumes: pods need no init container");
            true
        }
        Ok(Err(Error::Obstacle(obstacle))) => {
            tracing::info!(reason = %obstacle, "images cannot be volumes here: pods have an init container");
            false
        }
        Ok(Err(error)) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                error,
                "cannot find out whether images can be volumes: pods have an init container"
            );
            false
        }
        Err(_) => {
            tracing::warn!(
                "no answer within {PATIENCE:?} whether images can be volumes: pods have an init container"
            );
            false
        }
    }
}

/// Why pods have an init container.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot {what}")]
    Ask { what: &'static str, source: kube::Error },
    #[error(transparent)]
    Obstacle(#[from] Obstacle),
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

async fn ask(client: &Client, namespace: &str, entrypoint_image: &str) -> Result<(), Error> {
    let server = client.apiserver_version().await.map_err(asking("read the API server's version"))?;
    let server = version(&format!("{}.{}", server.major, server.minor));
    if !keeps_image_volumes(client, namespace, entrypoint_image).await? {
        return Err(Obstacle::Dropped.into());
    }
    let nodes: Api<Node> = Api::all(client.clone());
    let mut parameters = ListParams::default().limit(PAGE);
    let (mut read, mut reporting) = (0, 0);
    loop {
        let page = nodes.list(&parameters).await.map_err(asking("list the nodes"))?;
        read += page.items.len();
        for node in &page.items {
            let Some(info) = node.status.as_ref().and_then(|status| status.node_info.as_ref()) else {
                continue;
            };
            reporting += usize::from(mounts_images(&node.name_any(), info, server)?);
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            None if reporting == 0 => return Err(Obstacle::NoNode.into()),
            None => return Ok(()),
            Some(_) if read >= NODES => return Err(Obstacle::TooManyNodes.into()),
            Some(token) => parameters = parameters.continue_token(&token),
        }
    }
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

//! Our own processes on a cluster, for tests that take them away. Reads and writes the cluster.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::World;
use super::level::{gone, until};

/// Where it is.
const NAMESPACE: &str = "tekton-pipelines";

/// The name of the controller's Deployment and of its Lease.
pub const CONTROLLER: &str = "tekton-pipelines-controller";

/// The name of the webhook's Deployment.
pub const WEBHOOK: &str = "tekton-pipelines-webhook";

/// How long a Deployment may take to be as asked for: images are on the node, and probes come every few seconds.
const SETTLED: Duration = Duration::from_mins(1);

/// How long a pod may be there that was asked to end: half a minute of grace, and the kubelet tidies up containers that it
/// overlooked as they ended once a minute.
const GONE: Duration = Duration::from_secs(150);

/// The installation in the world's cluster.
pub struct Installation {
    client: Client,
}

impl Installation {
    /// That of this world, which has to be a cluster.
    pub fn of(world: &World) -> Self {
        Self { client: world.client() }
    }

    /// The Deployment's pods.
    pub async fn pods(&self, deployment: &str) -> Result<Vec<Pod>> {
        let component = if deployment == WEBHOOK { "webhook" } else { "controller" };
        let selector =
            format!("app.kubernetes.io/part-of=tekton-pipelines,app.kubernetes.io/component={component}");
        Ok(self.api::<Pod>().list(&ListParams::default().labels(&selector)).await?.items)
    }

    /// The pod of the controller that holds the lease.
    pub async fn leader(&self) -> Result<Pod> {
        let lease = self.api::<Lease>().get(CONTROLLER).await?;
        let name = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
        self.api().get(&name).await.with_context(|| format!("the holder of the lease, \"{name}\", is no pod"))
    }

    /// Deletes the pod, as everybody does: it may end in peace.
    pub async fn delete(&self, pod: &Pod) -> Result<()> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        self.api::<Pod>().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Asks for so many pods, and waits until exactly these are there and ready.
    pub async fn scale(&self, deployment: &str, replicas: i32) -> Result<()> {
        let scale = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
        self.api::<Deployment>().patch_scale(deployment, &PatchParams::default(), &scale).await?;
        self.settled(deployment).await
    }

    /// Waits until every pod that the Deployment asks for is ready. Those whose container had to be started again make way
    /// for new ones: the kubelet lets a container that ends often wait ever longer, and the next test would find that.
    pub async fn renew(&self, deployment: &str) -> Result<()> {
        for pod in self.pods(deployment).await? {
            let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref());
            if statuses.unwrap_or_default().iter().any(|status| status.restart_count > 0) {
                self.delete(&pod).await?;
            }
        }
        self.settled(deployment).await
    }

    /// Waits until the pod's container has been started again.
    pub async fn restarted(&self, pod: &Pod) -> Result<()> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let restarts = |pod: &Pod| {
            let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref());
            statuses.unwrap_or_default().iter().map(|status| status.restart_count).sum::<i32>()
        };
        let before = restarts(pod);
        until(self.api(), name, SETTLED, |pod| restarts(pod) > before).await.map(drop)
    }

    /// Waits until exactly as many pods as the Deployment asks for are there, and ready.
    pub async fn settled(&self, deployment: &str) -> Result<()> {
        let settled = |found: &Deployment| {
            let wanted = found.spec.replicas.unwrap_or(1);
            found.status.as_ref().is_some_and(|status| {
                status.observed_generation >= found.metadata.generation
                    && status.replicas.unwrap_or(0) == wanted
                    && status.ready_replicas.unwrap_or(0) == wanted
            })
        };
        // Pods that are asked to end are no replicas any more, but there; one that was asked just now may still be counted.
        self.ending_are_gone(deployment).await?;
        until(self.api(), deployment, SETTLED, settled).await?;
        self.ending_are_gone(deployment).await
    }

    async fn ending_are_gone(&self, deployment: &str) -> Result<()> {
        for pod in self.pods(deployment).await? {
            if pod.metadata.deletion_timestamp.is_some() {
                gone(self.api::<Pod>(), pod.metadata.name.as_deref().unwrap_or_default(), GONE).await?;
            }
        }
        Ok(())
    }

    /// Where pods find the API server.
    pub async fn api_server(&self) -> Result<IpAddr> {
        let service = Api::<Service>::namespaced(self.client.clone(), "default").get("kubernetes").await?;
        let address = service.spec.and_then(|spec| spec.cluster_ip).unwrap_or_default();
        address.parse().with_context(|| format!("\"{address}\" is no address"))
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }
}

/// Who has held the lease since when, as far as this process has seen it. Seen from the moment this is made on.
pub struct Holders {
    seen: Arc<Seen>,
    following: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    holders: Mutex<Vec<(Instant, String)>>,
    news: Notify,
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, String)>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holders {
    /// Follows the lease.
    pub async fn follow(installation: &Installation) -> Result<Self> {
        let (seen, api) = (Arc::new(Seen::default()), installation.api::<Lease>());
        let following = tokio::spawn({
            let seen = Arc::clone(&seen);
            async move {
                let mut states = pin!(watch_object(api, CONTROLLER).default_backoff());
                while let Some(state) = states.next().await {
                    let Ok(Some(lease)) = state else { continue };
                    let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
                    let mut holders = seen.lock();
                    if holders.last().is_none_or(|(_, last)| *last != holder) {
                        holders.push((Instant::now(), holder));
                        seen.news.notify_waiters();
                    }
                }
            }
        });
        let holders = Self { seen, following };
        // The first is who held it before.
        holders.until(SETTLED, |holders| !holders.is_empty()).await?;
        Ok(holders)
    }

    /// Waits until what has been seen, oldest first, is as wanted; returns it. A released lease is held by "".
    pub async fn until(
        &self,
        patience: Duration,
        wanted: impl Fn(&[(Instant, String)]) -> bool,
    ) -> Result<Vec<(Instant, String)>> {
        let reached = async {
            loop {
                let mut news = pin!(self.seen.news.notified());
                news.as_mut().enable();
                let holders = self.seen.lock().clone();
                if wanted(&holders) {
                    return holders;
                }
                news.await;
            }
        };
        match tokio::time::timeout(patience, reached).await {
            Ok(holders) => Ok(holders),
            Err(_) => {
                bail!("the holders of the lease are not as wanted after {patience:?}: {:?}", self.seen.lock())
            }
        }
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        self.following.abort();
    }
}

//! A node without containers: the pods it is given run and succeed as soon as it hears of them. Watches and writes.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Container, Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use ropewalk_cluster::client::{watch_backoff, watch_config};
use ropewalk_entrypoint_protocol::termination::{self, RunResult, STARTED_AT};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::PATIENCE;

/// On the node, and in the selectors of pods that are meant for it; the key of its taint, too.
const KEY: &str = "bench.ropewalk.dev/node";

/// As kubelets do. The cluster takes a node for lost after 40 s.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Where nodes' leases are.
const LEASES: &str = "kube-node-lease";

/// Pods whose statuses are written at once: more would wait in the API server.
const AT_ONCE: usize = 32;

/// The node, until it is [stopped](Self::stop).
pub struct FakeNode {
    client: Client,
    name: String,
    _tasks: JoinSet<()>,
}

impl FakeNode {
    /// Registers the node and waits until pods can be bound to it. It runs the pods of this namespace.
    pub async fn start(client: &Client, namespace: &str) -> Result<Self> {
        let name = format!("bench-{}", std::process::id());
        let nodes = Api::<Node>::all(client.clone());
        nodes.create(&PostParams::default(), &node(&name)?).await.context("cannot register a node")?;
        let mut tasks = JoinSet::new();
        tasks.spawn(heartbeat(client.clone(), name.clone()));
        tasks.spawn(run_pods(client.clone(), namespace.to_owned(), name.clone()));
        let fake = Self { client: client.clone(), name, _tasks: tasks };
        // New nodes are tainted until the cluster has seen that they are ready.
        let open = |node: Option<&Node>| {
            let taints = node.and_then(|node| node.spec.as_ref()?.taints.as_ref());
            taints.is_some_and(|taints| taints.iter().all(|taint| taint.key == KEY))
        };
        let opened = tokio::time::timeout(PATIENCE, await_condition(nodes, &fake.name, open)).await;
        opened.context("no pods can be bound to the node")??;
        Ok(fake)
    }

    /// What the spec of a pod has to say to be run here, and the pod template of a run.
    pub fn placement(&self) -> Value {
        json!({
            "nodeSelector": { KEY: self.name },
            "tolerations": [{ "key": KEY, "operator": "Exists" }],
        })
    }

    /// Takes the node back.
    pub async fn stop(self) -> Result<()> {
        Api::<Node>::all(self.client.clone()).delete(&self.name, &DeleteParams::default()).await?;
        let leases = Api::<Lease>::namespaced(self.client.clone(), LEASES);
        leases.delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }
}

fn node(name: &str) -> Result<Node> {
    let now = Timestamp::now().to_string();
    let capacity =
        json!({ "cpu": "1000", "memory": "1000Gi", "ephemeral-storage": "1000Gi", "pods": "100000" });
    Ok(serde_json::from_value(json!({
        "metadata": { "name": name, "labels": { KEY: name } },
        "spec": { "taints": [{ "key": KEY, "effect": "NoSchedule" }] },
        "status": {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [{
                "type": "Ready",
                "status": "True",
                "reason": "KubeletReady",
                "message": "it has nothing to do",
                "lastHeartbeatTime": now,
                "lastTransitionTime": now,
            }],
        },
    }))?)
}

/// Keeps the node's lease.
async fn heartbeat(client: Client, name: String) {
    let leases = Api::<Lease>::namespaced(client, LEASES);
    let mut ticks = tokio::time::interval(HEARTBEAT);
    loop {
        ticks.tick().await;
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": { "name": name },
            "spec": {
                "holderIdentity": name,
                "leaseDurationSeconds": 40,
                "renewTime": format!("{:.6}", Timestamp::now()),
            },
        });
        // One that is missed is made up for by the next.
        let _ = leases.patch(&name, &PatchParams::apply("bench").force(), &Patch::Apply(lease)).await;
    }
}

async fn run_pods(client: Client, namespace: String, name: String) {
    let pods = Api::<Pod>::namespaced(client, &namespace);
    let ours = watch_config().fields(&format!("spec.nodeName={name}"));
    let changes = pin!(watcher(pods.clone(), ours).backoff(watch_backoff()).applied_objects());
    let changes = changes.filter_map(|pod| std::future::ready(pod.ok()));
    let pods = &pods;
    changes.for_each_concurrent(AT_ONCE, |pod| async move { see_to(pods, &pod).await }).await;
}

/// A write that fails leaves its pod as it is; whoever waits for it says so.
async fn see_to(pods: &Api<Pod>, pod: &Pod) {
    let name = pod.name_any();
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if phase != Some("Pending") {
        return;
    }
    if pod.metadata.deletion_timestamp.is_some() {
        let _ = pods.delete(&name, &DeleteParams::default().grace_period(0)).await;
        return;
    }
    let now = Timestamp::now();
    let patches =
        [running(pod, now), succeeded(pod, now)].map(|status| Patch::Strategic(json!({ "status": status })));
    let writes = futures::stream::iter(&patches).map(Ok);
    let _ = writes
        .try_for_each(|patch| async {
            pods.patch_status(&name, &PatchParams::default(), patch).await.map(drop)
        })
        .await;
}

fn running(pod: &Pod, now: Timestamp) -> Value {
    let now = seconds(now);
    json!({
        "phase": "Running",
        "startTime": now,
        "conditions": conditions(true, &now),
        "initContainerStatuses": statuses(init(pod), &json!({ "terminated": terminated(&now, None) }), true),
        "containerStatuses": statuses(regular(pod), &json!({ "running": { "startedAt": now } }), true),
    })
}

fn succeeded(pod: &Pod, now: Timestamp) -> Value {
    // The entrypoint's word; a step without it is taken to have failed before it began.
    let message = termination::encode(&[RunResult::internal(STARTED_AT, format!("{now:.3}"))]);
    let now = seconds(now);
    json!({
        "phase": "Succeeded",
        "conditions": conditions(false, &now),
        "containerStatuses": statuses(regular(pod), &json!({ "terminated": terminated(&now, Some(&message)) }), false),
    })
}

fn conditions(ready: bool, now: &str) -> Value {
    let ready = if ready { "True" } else { "False" };
    let conditions = [("Initialized", "True"), ("Ready", ready), ("ContainersReady", ready)];
    conditions
        .map(|(type_, status)| json!({ "type": type_, "status": status, "lastTransitionTime": now }))
        .into()
}

fn terminated(now: &str, message: Option<&str>) -> Value {
    json!({ "exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now, "message": message })
}

fn statuses(containers: &[Container], state: &Value, ready: bool) -> Value {
    let status = |container: &Container| {
        json!({
            "name": container.name,
            "image": container.image,
            "imageID": "",
            "ready": ready,
            "restartCount": 0,
            "state": state,
        })
    };
    containers.iter().map(status).collect()
}

fn regular(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default()
}

fn init(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default()
}

/// As times in objects are.
fn seconds(now: Timestamp) -> String {
    format!("{now:.0}")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
    use ropewalk_entrypoint_protocol::termination::Termination;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "run-pod" },
            "spec": { "initContainers": [{ "name": "prepare" }], "containers": [{ "name": "step-main" }] },
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_runs_and_then_its_steps_have_ended_well() {
        let now = "2026-01-02T03:04:05.678Z".parse().unwrap();
        let running: PodStatus = serde_json::from_value(running(&pod(), now)).unwrap();
        assert_eq!(running.phase.as_deref(), Some("Running"));
        let state = |containers: Option<Vec<ContainerStatus>>| containers.unwrap().remove(0).state.unwrap();
        assert!(state(running.container_statuses).running.is_some());
        assert_eq!(state(running.init_container_statuses).terminated.unwrap().exit_code, 0);

        let succeeded: PodStatus = serde_json::from_value(succeeded(&pod(), now)).unwrap();
        assert_eq!(succeeded.phase.as_deref(), Some("Succeeded"));
        let ended = state(succeeded.container_statuses).terminated.unwrap();
        assert_eq!(ended.exit_code, 0);
        assert_eq!(serde_json::to_value(ended.finished_at).unwrap(), json!("2026-01-02T03:04:05Z"));
        let message = Termination::parse(&ended.message.unwrap()).unwrap();
        assert_eq!(message.started_at.as_deref(), Some("2026-01-02T03:04:05.678Z"));
    }

    #[test]
    fn only_pods_that_are_meant_for_the_node_are_bound_to_it() {
        let node = node("bench-1").unwrap();
        let spec = node.spec.unwrap_or_default();
        let taints = spec.taints.unwrap_or_default();
        assert_eq!((taints[0].key.as_str(), taints[0].effect.as_str()), (KEY, "NoSchedule"));
        assert_eq!(node.metadata.labels.unwrap()[KEY], "bench-1");
    }
}

//! Shows the machine to the API server as a Node, which is what pods are given to.

use std::fs;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node as Object;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use ropewalk_kubelet::node::{self, Machine};
use serde_json::json;

use super::{Node, cgroup};

/// The wait before a failed registration is tried again: the API server is in this process, or starting.
const PAUSE: Duration = Duration::from_secs(1);

/// Makes the Node, or brings the one that an earlier process made up to date; what users set on it stays. Returns when
/// the API server has it.
pub(super) async fn register(node: &Node) {
    while let Err(error) = tell(node).await {
        tracing::warn!(%error, "registering the node failed, trying again");
        tokio::time::sleep(PAUSE).await;
    }
}

async fn tell(node: &Node) -> Result<(), kube::Error> {
    let version = node.client.apiserver_version().await?.git_version;
    let object = node::object(&node.facts, &machine(node, version), Timestamp::now());
    let api: Api<Object> = Api::all(node.client.clone());
    match api.create(&PostParams::default(), &object).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        other => return other.map(drop),
    }
    let (name, parameters) = (&node.config.node_name, PatchParams::default());
    let labels = json!({"metadata": {"labels": object.metadata.labels}});
    api.patch(name, &parameters, &Patch::Merge(&labels)).await?;
    let status = json!({"status": object.status});
    api.patch_status(name, &parameters, &Patch::Merge(&status)).await.map(drop)
}

fn machine(node: &Node, version: String) -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let release = read("/etc/os-release");
    let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let storage = rustix::fs::statvfs(&node.config.data_dir).map(|found| found.f_blocks * found.f_frsize);
    Machine {
        pods: node.config.max_pods,
        storage_bytes: storage.unwrap_or_default(),
        architecture: std::env::consts::ARCH.to_owned(),
        kernel: read("/proc/sys/kernel/osrelease"),
        os_image: pretty.unwrap_or_default().trim_matches('"').to_owned(),
        machine_id: read("/etc/machine-id"),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        system_uuid: read("/sys/class/dmi/id/product_uuid"),
        version,
        network: node.config.network.to_string(),
        limits: cgroup::limits_hold(&node.cgroups),
        runtime: concat!("ropewalk://", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}

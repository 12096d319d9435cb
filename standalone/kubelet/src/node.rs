//! The Node object a machine is shown as. No IO.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeAddress, NodeCondition, NodeStatus, NodeSystemInfo};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use crate::HostFacts;

/// What only the Node object tells of a machine; texts are empty where they are unknown.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Machine {
    /// Pods at once.
    pub pods: usize,
    /// Bytes of the file system that pods write to.
    pub storage_bytes: u64,
    /// As Rust calls it, for example `x86_64`.
    pub architecture: String,
    /// For example `6.1.0-31-amd64`.
    pub kernel: String,
    /// For example `Debian GNU/Linux 12 (bookworm)`.
    pub os_image: String,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// Of this boot.
    pub boot_id: String,
    /// The firmware's.
    pub system_uuid: String,
    /// The release whose API the node follows, for example `v1.36.0`.
    pub version: String,
    /// Who runs containers, for example `ropewalk://0.1.0`.
    pub runtime: String,
    /// Which network pods have, for people.
    pub network: String,
    /// Whether limits on memory, CPU and processes hold.
    pub limits: bool,
}

/// What takes the limits of containers to hold; those of users' own sessions need asking for.
const NO_LIMITS: &str = "the node takes pods; their limits on memory, CPU and processes do not hold, as it may not set them: \
                         start it with \"systemd-run --user --scope -p Delegate=yes\" if it is not root's";

/// The Node as of `now`: all of the machine is for pods, as nothing is set aside here.
pub fn object(facts: &HostFacts, machine: &Machine, now: Timestamp) -> Node {
    let architecture = architecture(&machine.architecture);
    let ready = if machine.limits { "the node takes pods" } else { NO_LIMITS };
    let labels = [
        ("kubernetes.io/arch", architecture),
        ("kubernetes.io/hostname", facts.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
    ];
    let kibibytes = |bytes: u64| format!("{}Ki", bytes / 1024);
    let capacity: BTreeMap<_, _> = [
        ("cpu", facts.cpus.to_string()),
        ("ephemeral-storage", kibibytes(machine.storage_bytes)),
        ("memory", kibibytes(facts.memory_bytes)),
        ("pods", machine.pods.to_string()),
    ]
    .into_iter()
    .map(|(name, amount)| (name.to_owned(), Quantity(amount)))
    .collect();
    let address =
        |kind: &str, address: &str| NodeAddress { type_: kind.to_owned(), address: address.to_owned() };
    let condition = |kind: &str, status: &str, reason: &str, message: &str| NodeCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    Node {
        metadata: ObjectMeta {
            name: Some(facts.node_name.clone()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..ObjectMeta::default()
        },
        status: Some(NodeStatus {
            allocatable: Some(capacity.clone()),
            capacity: Some(capacity),
            addresses: Some(vec![
                address("InternalIP", &facts.host_ip),
                address("Hostname", &facts.node_name),
            ]),
            conditions: Some(vec![
                condition("NetworkUnavailable", "False", "PodNetwork", &machine.network),
                condition("Ready", "True", "KubeletReady", ready),
            ]),
            node_info: Some(NodeSystemInfo {
                architecture: architecture.to_owned(),
                boot_id: machine.boot_id.clone(),
                container_runtime_version: machine.runtime.clone(),
                kernel_version: machine.kernel.clone(),
                kubelet_version: machine.version.clone(),
                machine_id: machine.machine_id.clone(),
                operating_system: "linux".to_owned(),
                os_image: machine.os_image.clone(),
                system_uuid: machine.system_uuid.clone(),
                ..NodeSystemInfo::default()
            }),
            ..NodeStatus::default()
        }),
        ..Node::default()
    }
}

/// Kubernetes names architectures as Go does.
fn architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::facts::example;

    #[test]
    fn a_node_tells_what_there_is_and_where() {
        let machine = Machine {
            pods: 110,
            storage_bytes: 5 << 20,
            architecture: "aarch64".into(),
            version: "v1.36.0".into(),
            network: "pods share the network of this machine".into(),
            limits: true,
            ..Machine::default()
        };
        let node = serde_json::to_value(object(&example(), &machine, Timestamp::UNIX_EPOCH)).expect("a node");
        assert_eq!(
            node["metadata"]["labels"],
            json!({"kubernetes.io/arch": "arm64", "kubernetes.io/hostname": "here", "kubernetes.io/os": "linux"})
        );
        let all = json!({"cpu": "2", "ephemeral-storage": "5120Ki", "memory": "1048576Ki", "pods": "110"});
        assert_eq!((&node["status"]["capacity"], &node["status"]["allocatable"]), (&all, &all));
        assert_eq!(node["status"]["addresses"][0], json!({"type": "InternalIP", "address": "10.0.0.7"}));
        let conditions = node["status"]["conditions"].as_array().expect("conditions");
        let said = |field: &str| conditions.iter().map(|said| said[field].clone()).collect::<Vec<_>>();
        assert_eq!(
            (said("type"), said("status")),
            (vec!["NetworkUnavailable".into(), "Ready".into()], vec!["False".into(), "True".into()])
        );
        assert_eq!(conditions[0]["message"], "pods share the network of this machine");
        assert_eq!(conditions[1]["message"], "the node takes pods");
        let without = object(&example(), &Machine { limits: false, ..machine }, Timestamp::UNIX_EPOCH);
        let without = serde_json::to_value(without).expect("a node");
        let said = without["status"]["conditions"][1]["message"].as_str().expect("a message");
        assert!(said.starts_with("the node takes pods; their limits"), "{said}");
        assert_eq!(node["status"]["nodeInfo"]["kubeletVersion"], "v1.36.0");
    }
}

//! What the decisions need to know about the machine, gathered once by the shell.

/// Facts about the node a pod runs on, as that pod finds it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostFacts {
    /// The node's name as `spec.nodeName` shows it.
    pub node_name: String,
    /// The node's address.
    pub host_ip: String,
    /// The address of the pod that asks: the node's with host networking, else none until it has got its own.
    pub pod_ip: Option<String>,
    /// Cores, the default of `limits.cpu` in a `resourceFieldRef`.
    pub cpus: u32,
    /// Memory in bytes, the default of `limits.memory` in a `resourceFieldRef`.
    pub memory_bytes: u64,
    /// The node's own capabilities, bit n for capability number n.
    pub capabilities: u64,
    /// Whether containers that are not privileged can open no device of the machine, whatever device nodes they have.
    pub closes_devices: bool,
    /// Where pods reach the API server: host and port. `None` where they cannot.
    pub api: Option<(String, u16)>,
    /// Whether any image reference gets the machine's own root file system (`--rootfs host`).
    pub host_rootfs: bool,
}

/// The node of the tests.
#[cfg(test)]
pub(crate) fn example() -> HostFacts {
    HostFacts {
        node_name: "here".to_owned(),
        host_ip: "10.0.0.7".to_owned(),
        pod_ip: Some("10.209.0.9".to_owned()),
        cpus: 2,
        memory_bytes: 1 << 30,
        capabilities: u64::MAX,
        closes_devices: true,
        api: None,
        host_rootfs: true,
    }
}

//! What a pod says about its walls, beyond users and capabilities: system calls, settings of the kernel, namespaces of
//! the node, devices. What cannot be honoured is refused, never passed over. No IO.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::{Container, Pod, SeccompProfile};
use oci_spec::OciSpecError;
pub use oci_spec::runtime::LinuxDevice;
use oci_spec::runtime::{Linux, LinuxDeviceBuilder, LinuxDeviceType, LinuxNamespaceType, Spec};

use crate::user::{Identity, MKNOD, capability};
use crate::{ConfigError, seccomp};

/// `status.reason` of a pod that wants settings which it may not have.
pub const SYSCTL_FORBIDDEN: &str = "SysctlForbidden";

/// Settings of a network that a kubelet takes for safe: those of a pod's own bother no other pod.
const NETWORK_SYSCTLS: [&str; 12] = [
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_rto_min_us",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Settings of the kernel that belong to a namespace which every container has for itself.
const SYSCTLS: [&str; 7] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
];

/// A device of the machine; numbers are major and minor, owners user and group.
pub fn device(
    path: &Path,
    block: bool,
    (major, minor): (u32, u32),
    mode: u32,
    (user, group): (u32, u32),
) -> Option<LinuxDevice> {
    let built = LinuxDeviceBuilder::default()
        .path(path)
        .typ(if block { LinuxDeviceType::B } else { LinuxDeviceType::C })
        .major(i64::from(major))
        .minor(i64::from(minor))
        .file_mode(mode)
        .uid(user)
        .gid(group)
        .build();
    built.ok()
}

/// Puts up the walls in a container's OCI document; `devices` are the machine's, for privileged containers.
pub fn isolate(
    spec: &mut Spec,
    pod: &Pod,
    container: &Container,
    identity: &Identity,
    devices: &[LinuxDevice],
) -> Result<(), ConfigError> {
    refuse(pod, container, identity)?;
    let mut shared = spec.linux().iter().flat_map(|linux| linux.namespaces().iter().flatten());
    let own_network = shared.any(|namespace| namespace.typ() == LinuxNamespaceType::Network);
    let sysctls = sysctls(pod, own_network).map_err(|what| ConfigError::Unsupported {
        what,
        hint: "only those can be set that a kubelet takes for safe, and of the container's own communication between \
               processes all: kernel.msg*, kernel.sem, kernel.shm* and fs.mqueue.*",
    })?;
    let filtered = filtered(pod, container)? && !identity.privileged;
    let host = pod.spec.as_ref().map(|spec| (spec.host_pid == Some(true), spec.host_ipc == Some(true)));
    let (host_pid, host_ipc) = host.unwrap_or_default();
    let build = |error: OciSpecError| ConfigError::Oci {
        container: container.name.clone(),
        detail: error.to_string(),
    };
    let seccomp = filtered.then(|| seccomp::profile(&identity.capabilities)).transpose().map_err(build)?;

    let mut linux: Linux = spec.linux().clone().unwrap_or_default();
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    namespaces.retain(|namespace| match namespace.typ() {
        LinuxNamespaceType::Pid => !host_pid,
        LinuxNamespaceType::Ipc => !host_ipc,
        _ => true,
    });
    linux.set_namespaces(Some(namespaces));
    if !sysctls.is_empty() {
        linux.set_sysctl(Some(sysctls.into_iter().collect()));
    }
    linux.set_seccomp(seccomp);
    if identity.privileged {
        linux.set_devices(Some(devices.to_vec()));
    }
    spec.set_linux(Some(linux));
    Ok(())
}

/// What no container here can have.
fn refuse(pod: &Pod, container: &Container, identity: &Identity) -> Result<(), ConfigError> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let refused = |what: String, hint: &'static str| Err(ConfigError::Unsupported { what, hint });
    if spec.host_users == Some(false) {
        return refused("hostUsers: false".to_owned(), "leave it out: containers share the node's users");
    }
    if spec.share_process_namespace == Some(true) {
        let hint = "leave it out: each container has processes of its own; hostPID shows all of them";
        return refused("shareProcessNamespace: true".to_owned(), hint);
    }
    if let Some(class) = spec.runtime_class_name.as_deref().filter(|class| !class.is_empty()) {
        return refused(format!("runtimeClassName \"{class}\""), "leave it out: the node has one runtime");
    }
    let of_pod = spec.security_context.as_ref();
    let own = container.security_context.as_ref();
    let labels = own.and_then(|own| own.se_linux_options.as_ref());
    if labels.or(of_pod.and_then(|pod| pod.se_linux_options.as_ref())).is_some() {
        return refused("seLinuxOptions".to_owned(), "leave them out: the node labels no processes");
    }
    let armor = own.and_then(|own| own.app_armor_profile.as_ref());
    let armor = armor.or(of_pod.and_then(|pod| pod.app_armor_profile.as_ref()));
    if let Some(profile) = armor.filter(|profile| profile.type_ == "Localhost") {
        let name = profile.localhost_profile.as_deref().unwrap_or_default();
        return refused(format!("AppArmor profile \"{name}\""), "leave it out: the node loads no profiles");
    }
    if own.and_then(|own| own.proc_mount.as_deref()) == Some("Unmasked") && !identity.privileged {
        let hint = "leave it out, or set privileged: kernel interfaces are open only there";
        return refused("procMount: Unmasked".to_owned(), hint);
    }
    refuse_mounts(container)?;
    let probes = [&container.startup_probe, &container.liveness_probe, &container.readiness_probe];
    if probes.into_iter().flatten().any(|probe| probe.grpc.is_some()) {
        return refused("a grpc probe".to_owned(), "use exec, httpGet or tcpSocket");
    }
    let mut added = own.and_then(|own| own.capabilities.as_ref()?.add.as_ref()).into_iter().flatten();
    if !identity.capabilities.contains(MKNOD)
        && let Some(name) = added.find(|name| capability(name).is_ok_and(|name| name == MKNOD))
    {
        let hint = "set privileged if the container needs device nodes: nothing else on this node keeps it from the disks";
        return refused(format!("capability \"{name}\""), hint);
    }
    Ok(())
}

/// What no volume here can have.
fn refuse_mounts(container: &Container) -> Result<(), ConfigError> {
    let refused = |what: String, hint: &'static str| Err(ConfigError::Unsupported { what, hint });
    if container.volume_devices.iter().flatten().next().is_some() {
        return refused("volumeDevices".to_owned(), "use volumeMounts: the node has no volumes of blocks");
    }
    for mount in container.volume_mounts.iter().flatten() {
        if let Some(kind) = mount.mount_propagation.as_deref().filter(|kind| !matches!(*kind, "" | "None")) {
            let hint = "leave it out: what is mounted later is seen only where it was mounted";
            return refused(format!("mountPropagation \"{kind}\""), hint);
        }
        if mount.recursive_read_only.as_deref() == Some("Enabled") {
            let hint = "use IfPossible: what is mounted below a hostPath stays as it is";
            return refused("recursiveReadOnly: Enabled".to_owned(), hint);
        }
    }
    Ok(())
}

/// Whether the pod wants only settings of the kernel that it may have; if not, why, in a kubelet's words.
pub fn admit(pod: &Pod, own_network: bool) -> Result<(), String> {
    sysctls(pod, own_network).map(drop)
}

/// `securityContext.sysctls`, by name.
fn sysctls(pod: &Pod, own_network: bool) -> Result<BTreeMap<String, String>, String> {
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let given = context.and_then(|context| context.sysctls.as_ref()).into_iter().flatten();
    let host_ipc = pod.spec.as_ref().and_then(|spec| spec.host_ipc) == Some(true);
    let mut found = BTreeMap::new();
    for sysctl in given {
        // Both spellings are Kubernetes' own.
        let name = sysctl.name.replace('/', ".");
        let of_ipc = SYSCTLS.contains(&name.as_str())
            || name.strip_prefix("fs.mqueue.").is_some_and(|rest| {
                !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            });
        let of_network = NETWORK_SYSCTLS.contains(&name.as_str());
        let fault = match (of_ipc, of_network) {
            (true, _) if host_ipc => "not allowed with host IPC enabled",
            (_, true) if !own_network => "not allowed with host Net enabled",
            (false, false) => "not allowlisted",
            _ => {
                found.insert(name, sysctl.value.clone());
                continue;
            }
        };
        return Err(format!("forbidden sysctl: \"{}\" {fault}", sysctl.name));
    }
    Ok(found)
}

/// Whether the container gets the default choice of system calls; the container's word counts before the pod's.
fn filtered(pod: &Pod, container: &Container) -> Result<bool, ConfigError> {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref()?.seccomp_profile.as_ref());
    let own = container.security_context.as_ref().and_then(|own| own.seccomp_profile.as_ref());
    let Some(SeccompProfile { type_, localhost_profile }) = own.or(of_pod) else { return Ok(false) };
    match type_.as_str() {
        "RuntimeDefault" => Ok(true),
        "Unconfined" => Ok(false),
        _ => Err(ConfigError::Unsupported {
            what: format!("seccomp profile \"{}\"", localhost_profile.as_deref().unwrap_or(type_)),
            hint: "use RuntimeDefault: the node keeps no profiles of its own",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HostFacts;
    use crate::facts::example;
    use crate::user;
    use serde_json::{Value, json};

    fn isolated(pod: Value, container: Value) -> Result<Value, ConfigError> {
        isolated_on(&example(), pod, container)
    }

    fn isolated_on(facts: &HostFacts, pod: Value, container: Value) -> Result<Value, ConfigError> {
        let mut container = container;
        container["name"] = json!("c");
        let container: Container = serde_json::from_value(container).expect("a container");
        let mut spec = pod;
        spec["containers"] = json!([]);
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).expect("a pod");
        let identity = user::identity(&pod, &container, "", facts).expect("an identity");
        let mut spec: Spec = serde_json::from_value(json!({
            "ociVersion": "1.0.2",
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}]},
        }))
        .expect("a document");
        isolate(&mut spec, &pod, &container, &identity, &[])?;
        Ok(serde_json::to_value(spec).expect("JSON")["linux"].clone())
    }

    #[test]
    fn a_plain_pod_shares_nothing_and_may_call_everything() {
        let linux = isolated(json!({}), json!({})).expect("isolated");
        assert_eq!(linux["namespaces"], json!([{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}]));
        assert_eq!((&linux["seccomp"], &linux["sysctl"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn namespaces_of_the_node() {
        let linux = isolated(json!({"hostPID": true, "hostIPC": true}), json!({})).expect("isolated");
        assert_eq!(linux["namespaces"], json!([{"type": "mount"}]));
    }

    #[test]
    fn profiles_of_system_calls() {
        let profile = |kind: &str| json!({"securityContext": {"seccompProfile": {"type": kind}}});
        let filtered = |pod, container| isolated(pod, container).expect("isolated")["seccomp"].is_object();
        assert!(filtered(profile("RuntimeDefault"), json!({})));
        assert!(filtered(json!({}), profile("RuntimeDefault")));
        assert!(!filtered(profile("RuntimeDefault"), profile("Unconfined")), "the container's word counts");
        let mut privileged = profile("RuntimeDefault");
        privileged["securityContext"]["privileged"] = json!(true);
        assert!(!filtered(json!({}), privileged));
    }

    #[test]
    fn settings_of_the_kernel() {
        let sysctl = |name: &str| json!({"securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
        for (name, kept) in [("kernel.msgmax", "kernel.msgmax"), ("fs/mqueue/msg_max", "fs.mqueue.msg_max")] {
            assert_eq!(isolated(sysctl(name), json!({})).expect("allowed")["sysctl"][kept], json!("1"));
        }
        for name in ["kernel.panic", "net.ipv4.ip_forward", "vm.swappiness", "fs.mqueue.", "fs.mqueue.../x"] {
            let error = isolated(sysctl(name), json!({})).expect_err(name).to_string();
            assert!(error.contains(&format!("forbidden sysctl: \"{name}\" not allowlisted")), "{error}");
        }
        let mut shared = sysctl("kernel.msgmax");
        shared["hostIPC"] = json!(true);
        isolated(shared, json!({})).expect_err("it is the machine's then");
    }

    #[test]
    fn a_pod_is_told_what_it_may_not_set_as_a_kubelet_does() {
        let admitted = |name: &str, more: Value, own_network| {
            let mut spec = more;
            spec["containers"] = json!([]);
            spec["securityContext"] = json!({"sysctls": [{"name": name, "value": "1"}]});
            admit(&serde_json::from_value(json!({"spec": spec})).expect("a pod"), own_network)
        };
        let forbidden = |words: &str| Err(format!("forbidden sysctl: {words}"));
        let syncookies = "net.ipv4.tcp_syncookies";
        assert_eq!(admitted(syncookies, json!({}), true), Ok(()));
        assert_eq!(admitted("net/ipv4/tcp_syncookies", json!({}), true), Ok(()));
        assert_eq!(
            admitted(syncookies, json!({}), false),
            forbidden("\"net.ipv4.tcp_syncookies\" not allowed with host Net enabled")
        );
        assert_eq!(
            admitted("kernel.shm_rmid_forced", json!({"hostIPC": true}), true),
            forbidden("\"kernel.shm_rmid_forced\" not allowed with host IPC enabled")
        );
        assert_eq!(admitted("kernel.shm_rmid_forced", json!({}), false), Ok(()));
        for unsafe_one in
            ["net.core.somaxconn", "net.ipv4.ip_forward", "kernel.panic", "net.ipv4.tcp_syncookies.x"]
        {
            assert_eq!(
                admitted(unsafe_one, json!({}), true),
                forbidden(&format!("\"{unsafe_one}\" not allowlisted"))
            );
        }
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        let context = |fields: Value| json!({"securityContext": fields});
        for (pod, container, word) in [
            (json!({"hostUsers": false}), json!({}), "hostUsers"),
            (json!({"shareProcessNamespace": true}), json!({}), "shareProcessNamespace"),
            (json!({"runtimeClassName": "x"}), json!({}), "runtimeClassName \"x\""),
            (context(json!({"seLinuxOptions": {"level": "s0"}})), json!({}), "seLinuxOptions"),
            (
                json!({}),
                context(json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "a"}})),
                "\"a\"",
            ),
            (json!({}), context(json!({"procMount": "Unmasked"})), "procMount"),
            (
                json!({}),
                json!({"volumeMounts": [{"name": "v", "mountPath": "/v", "mountPropagation": "Bidirectional"}]}),
                "mountPropagation \"Bidirectional\"",
            ),
            (
                json!({}),
                json!({"volumeMounts": [
                    {"name": "v", "mountPath": "/v", "readOnly": true, "recursiveReadOnly": "Enabled"}
                ]}),
                "recursiveReadOnly",
            ),
            (json!({}), json!({"volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]}), "volumeDevices"),
            (json!({}), json!({"livenessProbe": {"grpc": {"port": 1}}}), "grpc"),
            (
                json!({}),
                context(json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "s.json"}})),
                "\"s.json\"",
            ),
        ] {
            let error = isolated(pod, container).expect_err(word).to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn what_is_so_already_is_not_refused() {
        let privileged = json!({"securityContext": {"privileged": true, "procMount": "Unmasked"}});
        isolated(json!({}), privileged).expect("all is unmasked there");
        let mounts = json!({"volumeMounts": [
            {"name": "v", "mountPath": "/v", "mountPropagation": "None", "recursiveReadOnly": "Disabled"},
            {"name": "w", "mountPath": "/w", "recursiveReadOnly": "IfPossible"},
        ]});
        isolated(json!({}), mounts).expect("it is asked for nothing");
    }

    #[test]
    fn device_nodes_are_made_where_they_open_nothing() {
        let adding = |privileged: bool| json!({"securityContext": {"privileged": privileged, "capabilities": {"add": ["CAP_MKNOD"]}}});
        isolated(json!({}), adding(false)).expect("devices are closed");
        let open = HostFacts { closes_devices: false, ..example() };
        let error = isolated_on(&open, json!({}), adding(false)).expect_err("refused").to_string();
        assert!(error.contains("capability \"CAP_MKNOD\""), "{error}");
        isolated_on(&open, json!({}), adding(true)).expect("it has it anyway");
    }
}

//! Who a container runs as and with which privileges: the pod's and the container's security context merged as
//! the kubelet merges them. No IO.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::{ConfigError, ENTRYPOINT_IMAGE, HostFacts};

/// What every container engine grants by default, without `MKNOD`: device nodes are kept out by capability,
/// not by a device cgroup, because the latter needs BPF on cgroup v2.
const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Every capability of capabilities(7) by its number; what `privileged` and `ALL` mean.
const ALL_CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The uid the embedded entrypoint image runs as when the pod insists on a user that is not root.
const NONROOT: u32 = 65532;

/// The user, groups and privileges of one container.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups, sorted, with `fsGroup` among them.
    pub groups: Vec<u32>,
    /// Capabilities without the `CAP_` prefix; all sets but ambient get them.
    pub capabilities: BTreeSet<String>,
    /// Whether the process may gain privileges through setuid binaries.
    pub no_new_privileges: bool,
    /// Whether `/` is read-only.
    pub read_only_root: bool,
    /// Whether kernel interfaces stay unmasked and writable.
    pub privileged: bool,
}

/// Merges both security contexts; the container's wins field by field. Of the capabilities asked for it gets those
/// the node has itself, as a kubelet's runtime does.
pub fn identity(pod: &Pod, container: &Container, facts: &HostFacts) -> Result<Identity, ConfigError> {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.clone()).unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();

    let non_root = own.run_as_non_root.or(of_pod.run_as_non_root).unwrap_or(false);
    let given = own.run_as_user.or(of_pod.run_as_user).map(|value| id("runAsUser", value)).transpose()?;
    let embedded = container.image.as_deref() == Some(ENTRYPOINT_IMAGE);
    let uid = match given {
        Some(0) if non_root => {
            return Err(ConfigError::RunAsRootExplicit {
                pod: pod_label(pod),
                container: container.name.clone(),
            });
        }
        Some(uid) => uid,
        None if non_root && embedded => NONROOT,
        None if non_root => {
            return Err(ConfigError::RunAsRootImage {
                pod: pod_label(pod),
                container: container.name.clone(),
            });
        }
        None => 0,
    };
    let gid = own.run_as_group.or(of_pod.run_as_group).map(|value| id("runAsGroup", value)).transpose()?;

    let mut groups = BTreeSet::new();
    for group in of_pod.supplemental_groups.iter().flatten() {
        groups.insert(id("supplementalGroups", *group)?);
    }
    if let Some(group) = of_pod.fs_group {
        groups.insert(id("fsGroup", group)?);
    }

    let privileged = own.privileged.unwrap_or(false);
    let mut capabilities: BTreeSet<String> = if privileged {
        ALL_CAPABILITIES.iter().map(|&name| name.to_owned()).collect()
    } else {
        DEFAULT_CAPABILITIES.iter().map(|&name| name.to_owned()).collect()
    };
    if let Some(change) = own.capabilities.filter(|_| !privileged) {
        for name in change.drop.iter().flatten() {
            match capability(name)? {
                "ALL" => capabilities.clear(),
                known => drop(capabilities.remove(known)),
            }
        }
        for name in change.add.iter().flatten() {
            match capability(name)? {
                "ALL" => capabilities.extend(ALL_CAPABILITIES.iter().map(|&name| name.to_owned())),
                known => drop(capabilities.insert(known.to_owned())),
            }
        }
    }

    let available =
        ALL_CAPABILITIES.iter().enumerate().filter(|(number, _)| facts.capabilities >> number & 1 == 1);
    let available: BTreeSet<&str> = available.map(|(_, name)| *name).collect();
    capabilities.retain(|name| available.contains(name.as_str()));

    Ok(Identity {
        uid,
        gid: gid.unwrap_or(0),
        groups: groups.into_iter().collect(),
        capabilities,
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        read_only_root: own.read_only_root_filesystem.unwrap_or(false),
        privileged,
    })
}

/// `name_namespace(uid)`, the kubelet's way to name a pod in messages.
fn pod_label(pod: &Pod) -> String {
    let meta = &pod.metadata;
    let or_empty = |value: &Option<String>| value.clone().unwrap_or_default();
    format!("{}_{}({})", or_empty(&meta.name), or_empty(&meta.namespace), or_empty(&meta.uid))
}

fn id(field: &'static str, value: i64) -> Result<u32, ConfigError> {
    match i32::try_from(value) {
        Ok(fits) if fits >= 0 => Ok(fits.unsigned_abs()),
        _ => Err(ConfigError::IdOutOfRange { field, value }),
    }
}

fn capability(name: &str) -> Result<&'static str, ConfigError> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if bare == "ALL" {
        return Ok("ALL");
    }
    let known = ALL_CAPABILITIES.iter().find(|known| **known == bare);
    known.copied().ok_or_else(|| ConfigError::UnknownCapability(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::example;
    use serde_json::{Value, json};

    #[expect(clippy::needless_pass_by_value, reason = "every caller builds the value in place")]
    fn of(pod: Value, container: Value) -> Result<Identity, ConfigError> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"securityContext": pod, "containers": []}
        }))
        .expect("a pod");
        let mut container = container;
        container["name"] = json!("c");
        let container: Container = serde_json::from_value(container).expect("a container");
        // A node without SYS_RESOURCE.
        let facts = HostFacts { capabilities: !(1 << 24), ..example() };
        identity(&pod, &container, &facts)
    }

    #[test]
    fn container_wins_over_pod() {
        let found = of(
            json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 9, "supplementalGroups": [12, 3]}),
            json!({"securityContext": {"runAsUser": 5}}),
        )
        .expect("valid");
        assert_eq!((found.uid, found.gid, found.groups), (5, 2, vec![3, 9, 12]));
    }

    #[test]
    fn non_root_is_enforced() {
        let explicit = of(json!({"runAsNonRoot": true}), json!({"securityContext": {"runAsUser": 0}}))
            .expect_err("root");
        assert_eq!(
            explicit.to_string(),
            "container's runAsUser breaks non-root policy (pod: \"p_n(u)\", container: c)"
        );
        let image = of(json!({"runAsNonRoot": true}), json!({"image": "busybox"})).expect_err("root image");
        assert_eq!(
            image.to_string(),
            "container has runAsNonRoot and image will run as root (pod: \"p_n(u)\", container: c)"
        );
        let allowed = of(json!({"runAsNonRoot": true}), json!({"securityContext": {"runAsNonRoot": false}}));
        assert_eq!(allowed.expect("the container's word counts").uid, 0);
        let embedded = of(json!({"runAsNonRoot": true}), json!({"image": ENTRYPOINT_IMAGE}));
        assert_eq!(embedded.expect("the embedded image has a user").uid, NONROOT);
    }

    #[test]
    fn capabilities_drop_before_add() {
        let found = of(
            json!({}),
            json!({"securityContext": {"capabilities": {"drop": ["ALL"], "add": ["CAP_CHOWN"]}}}),
        );
        assert_eq!(found.expect("valid").capabilities, ["CHOWN".to_owned()].into());
        let default = of(json!({}), json!({})).expect("valid").capabilities;
        assert!(!default.contains("MKNOD") && !default.contains("SYS_ADMIN") && default.contains("SETUID"));
        let privileged =
            of(json!({}), json!({"securityContext": {"privileged": true}})).expect("valid").capabilities;
        assert!(
            privileged.contains("SYS_ADMIN") && !privileged.contains("SYS_RESOURCE"),
            "what the node has"
        );
        let unknown = of(json!({}), json!({"securityContext": {"capabilities": {"add": ["FLY"]}}}));
        assert_eq!(unknown, Err(ConfigError::UnknownCapability("FLY".into())));
    }

    #[test]
    fn ids_must_fit() {
        for value in [-1_i64, 1 << 31] {
            let found = of(json!({}), json!({"securityContext": {"runAsUser": value}}));
            assert_eq!(found, Err(ConfigError::IdOutOfRange { field: "runAsUser", value }));
        }
    }
}

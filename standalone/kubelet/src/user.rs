//! Who a container runs as and with which privileges: the pod's and the container's security context merged as
//! the kubelet merges them. No IO.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::account::{self, Account};
use crate::{ConfigError, ENTRYPOINT_IMAGE, HostFacts};

/// The capability to make device nodes. Where the node cannot close the machine's devices to a container, it is all that
/// keeps one from the disks, and then only privileged ones have it.
pub(crate) const MKNOD: &str = "MKNOD";

/// What every container engine grants by default, beside [`MKNOD`].
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

/// What stands for all of them.
const ALL: &str = "ALL";

/// The uid the embedded entrypoint image runs as when the pod insists on a user that is not root.
const NONROOT: u32 = 65532;

/// The user, groups and privileges of one container.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// User and groups, `fsGroup` among the supplementary ones.
    pub account: Account,
    /// Capabilities without the `CAP_` prefix; all sets but ambient get them.
    pub capabilities: BTreeSet<String>,
    /// Whether the process may gain privileges through setuid binaries.
    pub no_new_privileges: bool,
    /// Whether `/` is read-only.
    pub read_only_root: bool,
    /// Whether kernel interfaces stay unmasked and writable.
    pub privileged: bool,
}

/// Merges both security contexts; the container's wins field by field, and `image_user`, the image's `USER` or
/// `USER:GROUP`, says what neither does. Of the capabilities asked for it gets those the node has itself, as a kubelet's
/// runtime does.
pub fn identity(
    pod: &Pod,
    container: &Container,
    image_user: &str,
    facts: &HostFacts,
) -> Result<Identity, ConfigError> {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.clone()).unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();

    let non_root = own.run_as_non_root.or(of_pod.run_as_non_root).unwrap_or(false);
    let given = own.run_as_user.or(of_pod.run_as_user).map(|value| id("runAsUser", value)).transpose()?;
    let embedded = container.image.as_deref() == Some(ENTRYPOINT_IMAGE);
    let (image_user, image_group) = image_user.split_once(':').unwrap_or((image_user, ""));
    let image_user = if image_user.is_empty() { "0" } else { image_user };
    let at_fault = || (pod_label(pod), container.name.clone());
    let user = match given {
        Some(0) if non_root => {
            let (pod, container) = at_fault();
            return Err(ConfigError::RunAsRootExplicit { pod, container });
        }
        Some(uid) => uid.to_string(),
        None if non_root && embedded => NONROOT.to_string(),
        None if non_root => match account::id(image_user) {
            Some(0) => {
                let (pod, container) = at_fault();
                return Err(ConfigError::RunAsRootImage { pod, container });
            }
            Some(uid) => uid.to_string(),
            None => {
                let (pod, container) = at_fault();
                return Err(ConfigError::RunAsUnknown { user: image_user.to_owned(), pod, container });
            }
        },
        None => image_user.to_owned(),
    };
    let group = own.run_as_group.or(of_pod.run_as_group).map(|value| id("runAsGroup", value)).transpose()?;
    // The image's group is that of the image's user.
    let of_image = || given.is_none().then(|| image_group.to_owned()).filter(|group| !group.is_empty());
    let group = group.map(|gid| gid.to_string()).or_else(of_image);

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
        DEFAULT_CAPABILITIES.iter().chain([&MKNOD]).map(|&name| name.to_owned()).collect()
    };
    if let Some(change) = own.capabilities.filter(|_| !privileged) {
        let known = |names: Option<Vec<String>>| -> Result<Vec<&'static str>, ConfigError> {
            names.iter().flatten().map(|name| capability(name)).collect()
        };
        let (add, remove) = (known(change.add)?, known(change.drop)?);
        // In containerd's order: what is named outweighs `ALL`, and what is dropped what is added.
        if add.contains(&ALL) {
            capabilities.extend(ALL_CAPABILITIES.map(str::to_owned));
        }
        if remove.contains(&ALL) {
            capabilities.clear();
        }
        capabilities.extend(add.into_iter().filter(|name| *name != ALL).map(str::to_owned));
        capabilities.retain(|name| !remove.contains(&name.as_str()));
    }

    let available =
        ALL_CAPABILITIES.iter().enumerate().filter(|(number, _)| facts.capabilities >> number & 1 == 1);
    let available: BTreeSet<&str> = available.map(|(_, name)| *name).collect();
    capabilities.retain(|name| available.contains(name.as_str()));
    if !privileged && !facts.closes_devices {
        capabilities.remove(MKNOD);
    }

    let memberships = of_pod.supplemental_groups_policy.as_deref() != Some("Strict");
    Ok(Identity {
        account: Account { user, group, groups, memberships },
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

pub(crate) fn capability(name: &str) -> Result<&'static str, ConfigError> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if bare == ALL {
        return Ok(ALL);
    }
    let known = ALL_CAPABILITIES.iter().find(|known| **known == bare);
    known.copied().ok_or_else(|| ConfigError::UnknownCapability(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::example;
    use serde_json::{Value, json};

    fn of(pod: Value, container: Value) -> Result<Identity, ConfigError> {
        of_image(pod, container, "")
    }

    #[expect(clippy::needless_pass_by_value, reason = "every caller builds the value in place")]
    fn of_image(pod: Value, container: Value, image_user: &str) -> Result<Identity, ConfigError> {
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
        identity(&pod, &container, image_user, &facts)
    }

    #[test]
    fn container_wins_over_pod() {
        let found = of(
            json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 9, "supplementalGroups": [12, 3]}),
            json!({"securityContext": {"runAsUser": 5}}),
        )
        .expect("valid");
        let Account { user, group, groups, memberships } = found.account;
        assert_eq!(
            (user.as_str(), group.as_deref(), groups, memberships),
            ("5", Some("2"), [3, 9, 12].into(), true)
        );
        let strict = of(json!({"supplementalGroupsPolicy": "Strict"}), json!({})).expect("valid");
        assert!(!strict.account.memberships);
    }

    #[test]
    fn the_image_says_what_the_pod_does_not() {
        for (pod, image, user, group) in [
            (json!({}), "", "0", None),
            (json!({}), "build", "build", None),
            (json!({}), "build:docker", "build", Some("docker")),
            (json!({}), "1000:1001", "1000", Some("1001")),
            (json!({}), ":5", "0", Some("5")),
            (json!({"runAsUser": 7}), "build:docker", "7", None),
            (json!({"runAsGroup": 8}), "build:docker", "build", Some("8")),
            (json!({"runAsNonRoot": true}), "1000:0", "1000", Some("0")),
            (json!({"runAsNonRoot": true, "runAsUser": 7}), "root", "7", None),
        ] {
            let found = of_image(pod.clone(), json!({}), image).expect("valid").account;
            assert_eq!((found.user.as_str(), found.group.as_deref()), (user, group), "{pod} {image}");
        }
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
        for root in ["0", "000", "0:5"] {
            let image = of_image(json!({"runAsNonRoot": true}), json!({}), root).expect_err("root image");
            assert!(matches!(image, ConfigError::RunAsRootImage { .. }), "{root}: {image}");
        }
        // The name alone does not tell who it is, not even this one.
        for name in ["build", "root"] {
            let unknown = of_image(json!({"runAsNonRoot": true}), json!({}), name).expect_err("a name");
            let text = format!(
                "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root \
                 (pod: \"p_n(u)\", container: c)"
            );
            assert_eq!(unknown.to_string(), text);
        }
        let allowed = of(json!({"runAsNonRoot": true}), json!({"securityContext": {"runAsNonRoot": false}}));
        assert_eq!(allowed.expect("the container's word counts").account.user, "0");
        let embedded = of(json!({"runAsNonRoot": true}), json!({"image": ENTRYPOINT_IMAGE}));
        assert_eq!(embedded.expect("the embedded image has a user").account.user, NONROOT.to_string());
    }

    #[test]
    fn what_is_dropped_by_name_stays_dropped() {
        for (add, drop, has, has_not) in [
            (json!(["ALL"]), json!(["NET_RAW"]), Some("SYS_ADMIN"), "NET_RAW"),
            (json!(["NET_RAW"]), json!(["CAP_NET_RAW"]), Some("CHOWN"), "NET_RAW"),
            (json!(["ALL"]), json!(["ALL"]), None, "CHOWN"),
            (json!(["ALL", "SYS_ADMIN"]), json!(["ALL"]), Some("SYS_ADMIN"), "CHOWN"),
            (json!(["SYS_ADMIN"]), json!(["ALL", "SYS_ADMIN"]), None, "SYS_ADMIN"),
        ] {
            let capabilities = json!({"add": add, "drop": drop});
            let found = of(json!({}), json!({"securityContext": {"capabilities": capabilities}}));
            let found = found.expect("valid").capabilities;
            assert!(has.is_none_or(|name| found.contains(name)), "{capabilities}: {found:?}");
            assert!(!found.contains(has_not), "{capabilities}: {found:?}");
        }
    }

    #[test]
    fn capabilities_drop_before_add() {
        let found = of(
            json!({}),
            json!({"securityContext": {"capabilities": {"drop": ["ALL"], "add": ["CAP_CHOWN"]}}}),
        );
        assert_eq!(found.expect("valid").capabilities, ["CHOWN".to_owned()].into());
        let default = of(json!({}), json!({})).expect("valid").capabilities;
        assert!(default.contains("MKNOD") && !default.contains("SYS_ADMIN") && default.contains("SETUID"));
        let all = json!({"securityContext": {"capabilities": {"add": ["ALL"]}}});
        let all = of(json!({}), all).expect("valid").capabilities;
        assert_eq!(all.len(), ALL_CAPABILITIES.len() - 1, "all that the node has: {all:?}");
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

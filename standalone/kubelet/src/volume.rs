//! What each volume of a pod is made of, and where a container sees it. No IO: file contents come from
//! [`Objects`], directories are made by the shell.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, Volume,
};

use crate::image::PullPolicy;
use crate::objects::TokenWanted;
use crate::{ConfigError, ENTRYPOINT_IMAGE, HostFacts, Objects, env, fields};

const SUPPORTED: &str =
    "emptyDir, configMap, secret, projected, downwardAPI, hostPath, persistentVolumeClaim and image";

/// Mode of a file when neither the item nor the volume gives one.
const DEFAULT_MODE: i32 = 0o644;

/// One file of a volume whose content comes from objects.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct File {
    /// The bytes.
    pub contents: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// What a hostPath must be before it is mounted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HostKind {
    /// Anything that exists.
    Any,
    /// A directory, made if missing.
    DirectoryOrCreate,
    /// A directory.
    Directory,
    /// A file, made empty if missing.
    FileOrCreate,
    /// A file.
    File,
    /// A unix socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// What the shell must provide for one volume.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Plan {
    /// A fresh directory that lives as long as the pod.
    Empty {
        /// Whether it is kept in memory.
        memory: bool,
        /// Bound in bytes, enforced for memory only.
        size_limit: Option<u64>,
    },
    /// A directory with these files, by relative path.
    Files(BTreeMap<String, File>),
    /// A path of the machine.
    Host {
        /// Absolute path.
        path: String,
        /// What it must be.
        kind: HostKind,
    },
    /// The directory of a claim, shared by all pods that name it.
    Claim {
        /// Claim name.
        name: String,
        /// UID of the claim: a new claim of the same name starts empty.
        uid: String,
    },
    /// The root of the image with the injected binary.
    Entrypoint,
    /// The root of another image.
    Image {
        /// Its reference.
        reference: String,
        /// When it is pulled.
        policy: PullPolicy,
    },
}

/// On a claim: the directory of this machine it stands for, in place of one of the node's own.
pub const DIRECTORY_ANNOTATION: &str = "ropewalk.dev/directory";

/// What `volume` of `pod` is made of.
pub fn plan(pod: &Pod, volume: &Volume, objects: &Objects, facts: &HostFacts) -> Result<Plan, ConfigError> {
    plain_name(&volume.name)?;
    // Kubernetes' own defaulting makes a volume without a source an emptyDir.
    if *volume == (Volume { name: volume.name.clone(), ..Volume::default() }) {
        return Ok(Plan::Empty { memory: false, size_limit: None });
    }
    if let Some(source) = &volume.empty_dir {
        let limit = source.size_limit.as_ref().map(fields::amount).transpose()?;
        return Ok(Plan::Empty {
            memory: source.medium.as_deref() == Some("Memory"),
            size_limit: limit.and_then(|limit| u64::try_from(limit.units()).ok()).filter(|bytes| *bytes > 0),
        });
    }
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let optional = source.optional == Some(true);
        return config_map_files(objects, &source.name, source.items.as_deref(), optional, mode)
            .map(Plan::Files);
    }
    if let Some(source) = &volume.secret {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let optional = source.optional == Some(true);
        let name = source.secret_name.as_deref().unwrap_or_default();
        return secret_files(objects, name, source.items.as_deref(), optional, mode).map(Plan::Files);
    }
    if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        return downward_files(pod, source.items.as_deref(), facts, mode).map(Plan::Files);
    }
    if let Some(source) = &volume.projected {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let mut files = BTreeMap::new();
        for part in source.sources.iter().flatten() {
            if let Some(part) = &part.config_map {
                let optional = part.optional == Some(true);
                files.extend(config_map_files(objects, &part.name, part.items.as_deref(), optional, mode)?);
            }
            if let Some(part) = &part.secret {
                let optional = part.optional == Some(true);
                files.extend(secret_files(objects, &part.name, part.items.as_deref(), optional, mode)?);
            }
            if let Some(part) = &part.downward_api {
                files.extend(downward_files(pod, part.items.as_deref(), facts, mode)?);
            }
            if let Some(part) = &part.service_account_token {
                relative(&part.path)?;
                let token = objects.tokens.get(&TokenWanted::of(part));
                let token = token.ok_or_else(|| ConfigError::NoTokens(volume.name.clone()))?;
                let file = File { contents: token.clone().into_bytes(), mode: permission(mode) };
                files.insert(part.path.clone(), file);
            }
        }
        return Ok(Plan::Files(files));
    }
    if let Some(source) = &volume.host_path {
        let kind = match source.type_.as_deref().unwrap_or_default() {
            "DirectoryOrCreate" => HostKind::DirectoryOrCreate,
            "Directory" => HostKind::Directory,
            "FileOrCreate" => HostKind::FileOrCreate,
            "File" => HostKind::File,
            "Socket" => HostKind::Socket,
            "CharDevice" => HostKind::CharDevice,
            "BlockDevice" => HostKind::BlockDevice,
            _ => HostKind::Any,
        };
        if !source.path.starts_with('/') || source.path.split('/').any(|part| part == "..") {
            return Err(ConfigError::UnsafePath(source.path.clone()));
        }
        return Ok(Plan::Host { path: source.path.clone(), kind });
    }
    if let Some(source) = &volume.persistent_volume_claim {
        let claim = objects.claim(&source.claim_name)?;
        let annotations = claim.metadata.annotations.as_ref();
        if let Some(path) = annotations.and_then(|all| all.get(DIRECTORY_ANNOTATION)) {
            return Ok(Plan::Host { path: path.clone(), kind: HostKind::Directory });
        }
        return Ok(Plan::Claim {
            name: source.claim_name.clone(),
            uid: claim.metadata.uid.clone().unwrap_or_default(),
        });
    }
    if let Some(source) = &volume.image {
        let reference = source.reference.as_deref().unwrap_or_default();
        if reference == ENTRYPOINT_IMAGE {
            return Ok(Plan::Entrypoint);
        }
        if facts.host_rootfs {
            return Err(ConfigError::ImageVolume(reference.to_owned()));
        }
        let policy = PullPolicy::of(source.pull_policy.as_deref(), reference);
        return Ok(Plan::Image { reference: reference.to_owned(), policy });
    }
    Err(ConfigError::UnsupportedVolume { name: volume.name.clone(), supported: SUPPORTED })
}

/// Whether the volume's files follow the pod's metadata while it runs.
pub fn follows_metadata(volume: &Volume) -> bool {
    let projected = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    volume.downward_api.is_some() || projected.into_iter().any(|part| part.downward_api.is_some())
}

/// Where one container sees a volume.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Use {
    /// Volume name.
    pub volume: String,
    /// Path below the volume's root, checked not to leave it by `..`; symbolic links are the shell's to refuse.
    pub sub_path: Option<String>,
    /// Absolute path in the container.
    pub destination: String,
    /// Whether the container may not write.
    pub read_only: bool,
}

/// The volumes a container mounts, parents before children whatever the order in the pod.
pub fn uses(
    pod: &Pod,
    container: &Container,
    variables: &BTreeMap<String, String>,
) -> Result<Vec<Use>, ConfigError> {
    let volumes = || pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mut uses = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = volumes()
            .find(|volume| volume.name == mount.name)
            .ok_or_else(|| ConfigError::NoSuchVolume(mount.name.clone()))?;
        let expression = mount.sub_path_expr.as_deref().filter(|text| !text.is_empty());
        let expanded = expression.map(|text| expand_path(text, variables)).transpose()?;
        let sub_path = mount.sub_path.clone().filter(|path| !path.is_empty()).or(expanded);
        if let Some(path) = &sub_path {
            relative(path)?;
        }
        let claim_read_only = volume.persistent_volume_claim.as_ref().and_then(|claim| claim.read_only);
        uses.push(Use {
            volume: mount.name.clone(),
            sub_path,
            destination: if mount.mount_path.starts_with('/') {
                mount.mount_path.clone()
            } else {
                format!("/{}", mount.mount_path)
            },
            // As on any node: what the API server's objects say is not for containers to change, least of all while
            // the node writes there.
            read_only: mount.read_only == Some(true)
                || claim_read_only == Some(true)
                || volume.image.is_some()
                || volume.config_map.is_some()
                || volume.secret.is_some()
                || volume.projected.is_some()
                || volume.downward_api.is_some(),
        });
    }
    uses.sort_by_key(|found| found.destination.split('/').filter(|part| !part.is_empty()).count());
    Ok(uses)
}

/// As `$(NAME)` is replaced elsewhere, but each has to have a value: without one, pods would share a directory that each
/// was to have for itself.
fn expand_path(text: &str, variables: &BTreeMap<String, String>) -> Result<String, ConfigError> {
    let missing = env::names(text).into_iter().find(|name| variables.get(*name).is_none_or(String::is_empty));
    match missing {
        Some(name) => Err(ConfigError::SubPathVariable { text: text.to_owned(), name: name.to_owned() }),
        None => Ok(env::expand(text, variables)),
    }
}

fn relative(path: &str) -> Result<(), ConfigError> {
    if path.is_empty() || path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(ConfigError::UnsafePath(path.to_owned()));
    }
    Ok(())
}

/// A key that becomes a file: what Kubernetes takes for one, and so never a way out of the volume.
fn file_name(key: &str) -> Result<(), ConfigError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if key.is_empty() || key.len() > 253 || key == "." || key.starts_with("..") || !key.bytes().all(plain) {
        return Err(ConfigError::UnsafePath(key.to_owned()));
    }
    Ok(())
}

/// A name of a volume or container, which becomes a directory: a DNS label, as the API server has it too.
pub fn plain_name(name: &str) -> Result<(), ConfigError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > 63 || !name.bytes().all(plain) {
        return Err(ConfigError::UnsafePath(name.to_owned()));
    }
    Ok(())
}

fn permission(mode: i32) -> u32 {
    mode.unsigned_abs() & 0o7777
}

/// All of `data`, or only `items` of it under their paths.
fn select<'a>(
    kind: &'static str,
    data: &BTreeMap<&'a str, &'a [u8]>,
    items: Option<&[KeyToPath]>,
    optional: bool,
    default_mode: i32,
) -> Result<BTreeMap<String, File>, ConfigError> {
    let file = |contents: &[u8], mode: i32| File { contents: contents.to_vec(), mode: permission(mode) };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        data.keys().try_for_each(|key| file_name(key))?;
        let all = data.iter().map(|(key, value)| ((*key).to_owned(), file(value, default_mode)));
        return Ok(all.collect());
    };
    let mut files = BTreeMap::new();
    for item in items {
        relative(&item.path)?;
        match data.get(item.key.as_str()) {
            Some(value) => {
                files.insert(item.path.clone(), file(value, item.mode.unwrap_or(default_mode)));
            }
            None if optional => {}
            None => return Err(ConfigError::VolumeKeyMissing { kind, key: item.key.clone() }),
        }
    }
    Ok(files)
}

fn config_map_files(
    objects: &Objects,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: bool,
    mode: i32,
) -> Result<BTreeMap<String, File>, ConfigError> {
    let missing = ConfigMap::default();
    let object = match objects.config_map(name) {
        Ok(found) => found,
        Err(_) if optional => &missing,
        Err(error) => return Err(error),
    };
    let text = object.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes()));
    let binary = object.binary_data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()));
    select("config", &text.chain(binary).collect(), items, optional, mode)
}

fn secret_files(
    objects: &Objects,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: bool,
    mode: i32,
) -> Result<BTreeMap<String, File>, ConfigError> {
    let missing = Secret::default();
    let object = match objects.secret(name) {
        Ok(found) => found,
        Err(_) if optional => &missing,
        Err(error) => return Err(error),
    };
    let data = object.data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()));
    select("secret", &data.collect(), items, optional, mode)
}

fn downward_files(
    pod: &Pod,
    items: Option<&[DownwardAPIVolumeFile]>,
    facts: &HostFacts,
    mode: i32,
) -> Result<BTreeMap<String, File>, ConfigError> {
    let mut files = BTreeMap::new();
    for item in items.into_iter().flatten() {
        relative(&item.path)?;
        let contents = if let Some(selector) = &item.field_ref {
            fields::field(pod, selector, facts)?
        } else if let Some(selector) = &item.resource_field_ref {
            // A volume's resource reference always names its container.
            fields::resource(pod, &Container::default(), selector, facts)?
        } else {
            String::new()
        };
        let mode = permission(item.mode.unwrap_or(mode));
        files.insert(item.path.clone(), File { contents: contents.into_bytes(), mode });
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::example;
    use serde_json::{Value, json};

    fn objects() -> Objects {
        let read = |value: Value| serde_json::from_value(value).expect("an object");
        Objects {
            config_maps: [(
                "cm".to_owned(),
                read(json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "AAE="}})),
            )]
            .into(),
            secrets: [(
                "sec".to_owned(),
                serde_json::from_value(json!({"data": {"s": "aGlkZGVu"}})).expect("a secret"),
            )]
            .into(),
            claims: [
                ("data", json!({"metadata": {"uid": "u1"}})),
                ("named", json!({"metadata": {"annotations": {DIRECTORY_ANNOTATION: "/srv/source"}}})),
            ]
            .map(|(name, claim)| (name.to_owned(), serde_json::from_value(claim).expect("a claim")))
            .into(),
            tokens: [(TokenWanted { audience: None, seconds: 3607 }, "a.b.c".to_owned())].into(),
        }
    }

    #[test]
    fn tokens_become_files_where_they_were_issued() {
        let asks = |audience: &str, seconds: i64, path: &str| {
            let token = json!({"audience": audience, "expirationSeconds": seconds, "path": path});
            planned(json!({"projected": {"sources": [{"serviceAccountToken": token}]}}))
        };
        let file = File { contents: b"a.b.c".to_vec(), mode: 0o644 };
        assert_eq!(asks("", 3607, "token"), Ok(Plan::Files([("token".to_owned(), file)].into())));
        assert_eq!(asks("vault", 3607, "token"), Err(ConfigError::NoTokens("v".to_owned())));
        assert_eq!(asks("", 600, "token"), Err(ConfigError::NoTokens("v".to_owned())));
        assert_eq!(asks("", 3607, "../token"), Err(ConfigError::UnsafePath("../token".to_owned())));
    }

    fn planned(source: Value) -> Result<Plan, ConfigError> {
        let mut volume = source;
        volume["name"] = json!("v");
        let volume: Volume = serde_json::from_value(volume).expect("a volume");
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": "p", "annotations": {"tekton.dev/ready": "READY"}}}),
        )
        .expect("a pod");
        plan(&pod, &volume, &objects(), &example())
    }

    fn files(source: Value) -> Vec<(String, Vec<u8>, u32)> {
        match planned(source).expect("a plan") {
            Plan::Files(files) => {
                files.into_iter().map(|(path, file)| (path, file.contents, file.mode)).collect()
            }
            other => unreachable!("not files: {other:?}"),
        }
    }

    #[test]
    fn object_volumes() {
        assert_eq!(
            files(json!({"configMap": {"name": "cm"}})),
            [
                ("a".to_owned(), b"1".to_vec(), 0o644),
                ("b".to_owned(), b"2".to_vec(), 0o644),
                ("c".to_owned(), vec![0, 1], 0o644)
            ]
        );
        assert_eq!(
            files(json!({"secret": {"secretName": "sec", "defaultMode": 256,
                                    "items": [{"key": "s", "path": "deep/er", "mode": 384}]}})),
            [("deep/er".to_owned(), b"hidden".to_vec(), 0o600)]
        );
        assert_eq!(files(json!({"configMap": {"name": "none", "optional": true}})), []);
        assert_eq!(
            files(json!({"projected": {"defaultMode": 292, "sources": [
                {"configMap": {"name": "cm", "items": [{"key": "a", "path": "one"}]}},
                {"secret": {"name": "sec"}},
                {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}
            ]}})),
            [
                ("name".to_owned(), b"p".to_vec(), 0o444),
                ("one".to_owned(), b"1".to_vec(), 0o444),
                ("s".to_owned(), b"hidden".to_vec(), 0o444)
            ]
        );
        assert_eq!(
            files(json!({"downwardAPI": {"items": [
                {"path": "ready", "fieldRef": {"fieldPath": "metadata.annotations['tekton.dev/ready']"}}]}})),
            [("ready".to_owned(), b"READY".to_vec(), 0o644)]
        );
    }

    #[test]
    fn nothing_leads_out_of_a_volume() {
        let named = |name: &str| Volume { name: name.to_owned(), ..Volume::default() };
        for name in ["/etc/cron.d", "../..", "a/b", "", "UPPER", "."] {
            let planned = plan(&Pod::default(), &named(name), &objects(), &example());
            assert_eq!(planned, Err(ConfigError::UnsafePath(name.to_owned())), "{name}");
        }
        for key in ["../x", "/etc/cron.d/x", "..", ".", "..data", "a/b", ""] {
            assert_eq!(file_name(key), Err(ConfigError::UnsafePath(key.to_owned())), "{key}");
        }
        assert_eq!(file_name(".hidden_Key-1.txt"), Ok(()));
    }

    #[test]
    fn directories() {
        for (source, expected) in [
            (json!({"emptyDir": {}}), Plan::Empty { memory: false, size_limit: None }),
            (json!({}), Plan::Empty { memory: false, size_limit: None }),
            (
                json!({"persistentVolumeClaim": {"claimName": "named"}}),
                Plan::Host { path: "/srv/source".into(), kind: HostKind::Directory },
            ),
            (
                json!({"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
                Plan::Empty { memory: true, size_limit: Some(1 << 20) },
            ),
            (
                json!({"hostPath": {"path": "/srv", "type": "Directory"}}),
                Plan::Host { path: "/srv".into(), kind: HostKind::Directory },
            ),
            (
                json!({"persistentVolumeClaim": {"claimName": "data"}}),
                Plan::Claim { name: "data".into(), uid: "u1".into() },
            ),
            (json!({"image": {"reference": ENTRYPOINT_IMAGE}}), Plan::Entrypoint),
        ] {
            assert_eq!(planned(source.clone()), Ok(expected), "{source}");
        }
    }

    #[test]
    fn image_volumes_need_images() {
        let volume = |reference: &str| -> Volume {
            serde_json::from_value(json!({"name": "v", "image": {"reference": reference}})).expect("a volume")
        };
        let of = |volume: &Volume, host_rootfs| {
            plan(&Pod::default(), volume, &objects(), &HostFacts { host_rootfs, ..example() })
        };
        let image = |policy| Plan::Image { reference: "tools:1".into(), policy };
        assert_eq!(of(&volume("tools:1"), false), Ok(image(PullPolicy::IfNotPresent)));
        let always: Volume = serde_json::from_value(
            json!({"name": "v", "image": {"reference": "tools:1", "pullPolicy": "Always"}}),
        )
        .expect("a volume");
        assert_eq!(of(&always, false), Ok(image(PullPolicy::Always)));
        assert_eq!(of(&volume(ENTRYPOINT_IMAGE), false), Ok(Plan::Entrypoint));
        assert_eq!(of(&volume("tools:1"), true), Err(ConfigError::ImageVolume("tools:1".into())));
    }

    #[test]
    fn refusals_name_the_culprit() {
        for (source, message) in [
            (json!({"configMap": {"name": "x"}}), "configmap \"x\" not found"),
            (json!({"secret": {"secretName": "x"}}), "secret \"x\" not found"),
            (json!({"persistentVolumeClaim": {"claimName": "x"}}), "persistentvolumeclaim \"x\" not found"),
            (
                json!({"configMap": {"name": "cm", "items": [{"key": "z", "path": "z"}]}}),
                "references non-existent config key: z",
            ),
            (
                json!({"configMap": {"name": "cm", "items": [{"key": "a", "path": "../a"}]}}),
                "volume path \"../a\" must be relative and must not contain \"..\"",
            ),
            (
                json!({"nfs": {"server": "s", "path": "/"}}),
                "volume \"v\" has a type this node does not support; it supports emptyDir, configMap, secret, \
                 projected, downwardAPI, hostPath, persistentVolumeClaim and image",
            ),
        ] {
            assert_eq!(planned(source).expect_err("refused").to_string(), message);
        }
    }

    #[test]
    fn mounts_come_parents_first() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [], "volumes": [
            {"name": "a", "emptyDir": {}},
            {"name": "b", "persistentVolumeClaim": {"claimName": "data", "readOnly": true}}]}}))
        .expect("a pod");
        let container: Container = serde_json::from_value(json!({"name": "c", "volumeMounts": [
            {"name": "a", "mountPath": "/x/y", "subPathExpr": "$(DIR)/z"},
            {"name": "b", "mountPath": "/x"}]}))
        .expect("a container");
        let variables = [("DIR".to_owned(), "d".to_owned())].into();
        let found = uses(&pod, &container, &variables).expect("valid");
        assert_eq!(
            found,
            [
                Use { volume: "b".into(), sub_path: None, destination: "/x".into(), read_only: true },
                Use {
                    volume: "a".into(),
                    sub_path: Some("d/z".into()),
                    destination: "/x/y".into(),
                    read_only: false
                },
            ]
        );
        // Or pods that differ in a name would share a directory of the claim.
        for variables in [BTreeMap::new(), [("DIR".to_owned(), String::new())].into()] {
            let error = uses(&pod, &container, &variables).expect_err("there is no such directory");
            assert_eq!(
                error.to_string(),
                "failed to expand subPathExpr \"$(DIR)/z\": missing value for \"DIR\""
            );
        }
        let escape = [("DIR".to_owned(), "..".to_owned())].into();
        assert_eq!(uses(&pod, &container, &escape), Err(ConfigError::UnsafePath("../z".into())));
    }
}

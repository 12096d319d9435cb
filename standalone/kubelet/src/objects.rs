//! The objects a pod refers to, as the shell found them, and what is said when one is missing.
//! No IO: the shell reads, this module looks up.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, PersistentVolumeClaim, Pod, Secret, ServiceAccountTokenProjection,
};

/// Why a container cannot be configured. The text is the kubelet's own, which users search for.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A ConfigMap that is not optional does not exist.
    #[error("configmap \"{0}\" not found")]
    ConfigMapMissing(String),
    /// A Secret that is not optional does not exist.
    #[error("secret \"{0}\" not found")]
    SecretMissing(String),
    /// A claim does not exist.
    #[error("persistentvolumeclaim \"{0}\" not found")]
    ClaimMissing(String),
    /// An environment variable wants a key the object does not have.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    KeyMissing {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Namespace of the object.
        namespace: String,
        /// Name of the object.
        name: String,
        /// The key that is missing.
        key: String,
    },
    /// A volume wants a key the object does not have.
    #[error("references non-existent {kind} key: {key}")]
    VolumeKeyMissing {
        /// `config` or `secret`, as the kubelet words it.
        kind: &'static str,
        /// The key that is missing.
        key: String,
    },
    /// A sub path is made of a variable that has no value.
    #[error("failed to expand subPathExpr \"{text}\": missing value for \"{name}\"")]
    SubPathVariable {
        /// The expression.
        text: String,
        /// The variable's.
        name: String,
    },
    /// `runAsNonRoot` with a user 0 given explicitly.
    #[error("container's runAsUser breaks non-root policy (pod: \"{pod}\", container: {container})")]
    RunAsRootExplicit {
        /// `name_namespace(uid)`.
        pod: String,
        /// Container name.
        container: String,
    },
    /// `runAsNonRoot` with an image whose user is root.
    #[error("container has runAsNonRoot and image will run as root (pod: \"{pod}\", container: {container})")]
    RunAsRootImage {
        /// `name_namespace(uid)`.
        pod: String,
        /// Container name.
        container: String,
    },
    /// `runAsNonRoot` with an image whose user is a name.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: \
         \"{pod}\", container: {container})"
    )]
    RunAsUnknown {
        /// The image's user.
        user: String,
        /// `name_namespace(uid)`.
        pod: String,
        /// Container name.
        container: String,
    },
    /// A number in the security context does not fit a uid or gid.
    #[error("{field} {value} is not a valid id, use a number from 0 to 2147483647")]
    IdOutOfRange {
        /// Field name, such as `runAsUser`.
        field: &'static str,
        /// The value given.
        value: i64,
    },
    /// A capability nobody knows.
    #[error("unknown capability \"{0}\", use a name from capabilities(7) without the CAP_ prefix")]
    UnknownCapability(String),
    /// Something about a container's walls that this node cannot do.
    #[error("{what} is not supported on this node; {hint}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// What to do instead.
        hint: &'static str,
    },
    /// A field path this kubelet does not serve.
    #[error("unsupported fieldPath \"{0}\"")]
    UnsupportedField(String),
    /// A resource this kubelet does not serve.
    #[error("unsupported container resource \"{0}\"")]
    UnsupportedResource(String),
    /// A quantity that cannot be read.
    #[error("quantity \"{0}\" cannot be read, use a form such as 100m, 1.5 or 64Mi")]
    BadQuantity(String),
    /// A container mounts a volume the pod does not have.
    #[error("volume \"{0}\" is not in spec.volumes")]
    NoSuchVolume(String),
    /// A file of a volume would lie outside it.
    #[error("volume path \"{0}\" must be relative and must not contain \"..\"")]
    UnsafePath(String),
    /// A kind of volume this node does not have.
    #[error("volume \"{name}\" has a type this node does not support; it supports {supported}")]
    UnsupportedVolume {
        /// Volume name.
        name: String,
        /// What there is instead.
        supported: &'static str,
    },
    /// An image volume on a node without images.
    #[error(
        "image \"{0}\" is not present; with --rootfs host this node only mounts \"ropewalk.dev/entrypoint:embedded\""
    )]
    ImageVolume(String),
    /// A service account token was asked for.
    #[error(
        "volume \"{0}\" asks for a serviceAccountToken, and the API server issued none: it only does where pods can \
         reach it, and for a service account that exists"
    )]
    NoTokens(String),
    /// A container without a command whose image gives none.
    #[error("no command specified for container \"{container}\": image \"{image}\" {why}; set command")]
    NoCommand {
        /// Container name.
        container: String,
        /// Image reference.
        image: String,
        /// That it gives none.
        why: &'static str,
    },
    /// The OCI document could not be built.
    #[error("OCI configuration of container \"{container}\" cannot be built: {detail}")]
    Oci {
        /// Container name.
        container: String,
        /// What the builder said.
        detail: String,
    },
}

/// Which token a projected volume asks for.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct TokenWanted {
    /// Whom it is for; the API server itself where it names nobody.
    pub audience: Option<String>,
    /// Seconds it should hold.
    pub seconds: i64,
}

impl TokenWanted {
    /// What this source of a projected volume asks for.
    pub fn of(source: &ServiceAccountTokenProjection) -> Self {
        // Kubernetes' default is an hour.
        let seconds = source.expiration_seconds.unwrap_or(3600);
        Self { audience: source.audience.clone().filter(|name| !name.is_empty()), seconds }
    }
}

/// ConfigMaps, Secrets and claims of the pod's namespace by name; an object that is absent here does not exist.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// ConfigMaps by name.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Secret>,
    /// Claims by name.
    pub claims: BTreeMap<String, PersistentVolumeClaim>,
    /// Tokens of the pod's service account.
    pub tokens: BTreeMap<TokenWanted, String>,
}

/// The kind and name of an object a pod refers to.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Reference {
    /// A ConfigMap.
    ConfigMap(String),
    /// A Secret.
    Secret(String),
    /// A PersistentVolumeClaim.
    Claim(String),
}

impl Objects {
    /// The ConfigMap, or the kubelet's words for its absence.
    pub fn config_map(&self, name: &str) -> Result<&ConfigMap, ConfigError> {
        self.config_maps.get(name).ok_or_else(|| ConfigError::ConfigMapMissing(name.to_owned()))
    }

    /// The Secret, or the kubelet's words for its absence.
    pub fn secret(&self, name: &str) -> Result<&Secret, ConfigError> {
        self.secrets.get(name).ok_or_else(|| ConfigError::SecretMissing(name.to_owned()))
    }

    /// The claim, or the kubelet's words for its absence.
    pub fn claim(&self, name: &str) -> Result<&PersistentVolumeClaim, ConfigError> {
        self.claims.get(name).ok_or_else(|| ConfigError::ClaimMissing(name.to_owned()))
    }
}

/// Everything a pod's volumes and containers refer to.
pub fn references(pod: &Pod) -> BTreeSet<Reference> {
    let mut found = volume_references(pod);
    if let Some(spec) = &pod.spec {
        let init = spec.init_containers.iter().flatten();
        init.chain(&spec.containers).for_each(|container| found.extend(environment_references(container)));
    }
    found
}

/// The tokens that the pod's volumes ask for.
pub fn tokens(pod: &Pod) -> BTreeSet<TokenWanted> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let sources = volumes.filter_map(|volume| volume.projected.as_ref()?.sources.as_ref()).flatten();
    sources.filter_map(|source| source.service_account_token.as_ref()).map(TokenWanted::of).collect()
}

/// What the pod's volumes refer to.
pub fn volume_references(pod: &Pod) -> BTreeSet<Reference> {
    let mut found = BTreeSet::new();
    let Some(spec) = &pod.spec else { return found };
    for volume in spec.volumes.iter().flatten() {
        if let Some(source) = &volume.config_map {
            found.insert(Reference::ConfigMap(source.name.clone()));
        }
        if let Some(name) = volume.secret.as_ref().and_then(|source| source.secret_name.clone()) {
            found.insert(Reference::Secret(name));
        }
        if let Some(source) = &volume.persistent_volume_claim {
            found.insert(Reference::Claim(source.claim_name.clone()));
        }
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            if let Some(source) = &source.config_map {
                found.insert(Reference::ConfigMap(source.name.clone()));
            }
            if let Some(source) = &source.secret {
                found.insert(Reference::Secret(source.name.clone()));
            }
        }
    }
    found
}

/// What a container's environment refers to.
pub fn environment_references(container: &Container) -> BTreeSet<Reference> {
    let mut found = BTreeSet::new();
    for source in container.env_from.iter().flatten() {
        if let Some(source) = &source.config_map_ref {
            found.insert(Reference::ConfigMap(source.name.clone()));
        }
        if let Some(source) = &source.secret_ref {
            found.insert(Reference::Secret(source.name.clone()));
        }
    }
    for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        if let Some(source) = &source.config_map_key_ref {
            found.insert(Reference::ConfigMap(source.name.clone()));
        }
        if let Some(source) = &source.secret_key_ref {
            found.insert(Reference::Secret(source.name.clone()));
        }
    }
    found
}

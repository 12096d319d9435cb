//! The secrets that a pod's steps are given as credentials: those of its service account, by type and annotation
//! (contract 5.8). Pure; and what a secret holds never comes here.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{SecretVolumeSource, ServiceAccount, Volume, VolumeMount};
use ropewalk_api::config::FeatureFlags;
use ropewalk_api::names::short_hash;
use ropewalk_entrypoint_protocol::flags::{Credential, CredentialKind};
use ropewalk_entrypoint_protocol::paths;
use serde_json::Value;

/// Secrets of one service account that are looked up. Every one is a request for each pod, and a volume in it.
const MAX_SECRETS: usize = 128;

const BASIC_AUTH: &str = "kubernetes.io/basic-auth";
const SSH_AUTH: &str = "kubernetes.io/ssh-auth";
const DOCKER_CONFIG: &str = "kubernetes.io/dockerconfigjson";
const DOCKER_CFG: &str = "kubernetes.io/dockercfg";

const GIT_PREFIX: &str = "tekton.dev/git-";
const DOCKER_PREFIX: &str = "tekton.dev/docker-";

const KNOWN_HOSTS: &str = "known_hosts";

/// What the API server answers when it is asked for an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer<T> {
    /// This.
    Found(T),
    /// There is none.
    Missing,
    /// It may not be read: the API server's words.
    Refused(String),
}

/// A service account, and what is known of its secrets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    named: Vec<String>,
    /// By name.
    pub secrets: BTreeMap<String, Answer<Secret>>,
}

impl Account {
    /// The account, with nothing known yet of its secrets. Those of `imagePullSecrets` are none of a step's business.
    pub fn new(account: &ServiceAccount) -> Self {
        let mut seen = BTreeSet::new();
        let names = account.secrets.iter().flatten().filter_map(|secret| secret.name.clone());
        let named = names.filter(|name| !name.is_empty() && seen.insert(name.clone())).collect();
        Self { named, secrets: BTreeMap::new() }
    }

    /// The secrets to look up; none when there are too many for a pod.
    pub fn wanted(&self) -> &[String] {
        if self.named.len() > MAX_SECRETS { &[] } else { &self.named }
    }
}

/// What can be known of a secret without reading what it holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Secret {
    type_: String,
    /// Those that say what it is for.
    annotations: BTreeMap<String, String>,
    /// Its keys, where [`Secret::wants_keys`].
    pub keys: Option<BTreeSet<String>>,
}

impl Secret {
    /// From the API server's table of one secret, which has its type in a column and its metadata beside them. The object
    /// itself would have its content, too.
    pub fn of_table(table: &Value) -> Option<Self> {
        let columns = table["columnDefinitions"].as_array()?;
        let column = columns.iter().position(|column| column["name"] == "Type")?;
        let row = table.pointer("/rows/0")?;
        let annotations = row.pointer("/object/metadata/annotations").and_then(Value::as_object);
        let annotations = annotations.into_iter().flatten();
        let annotations = annotations.filter_map(|(key, url)| Some((key.as_str(), url.as_str()?)));
        Some(Self::new(row["cells"].get(column)?.as_str()?, annotations))
    }

    /// From a file, of which nobody else reads more.
    pub fn of_object(secret: &k8s_openapi::api::core::v1::Secret) -> Self {
        let annotations = secret.metadata.annotations.iter().flatten();
        let annotations = annotations.map(|(key, url)| (key.as_str(), url.as_str()));
        Self::new(secret.type_.as_deref().unwrap_or_default(), annotations)
    }

    fn new<'a>(type_: &str, annotations: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        // kubectl's record of what was applied, for one, repeats what the secret holds.
        let ours = |key: &str| key.starts_with(GIT_PREFIX) || key.starts_with(DOCKER_PREFIX);
        let ours = annotations.filter(|(key, _)| ours(key));
        let annotations = ours.map(|(key, url)| (key.to_owned(), url.to_owned())).collect();
        Self { type_: type_.to_owned(), annotations, keys: None }
    }

    /// Whether the names of its keys have to be known.
    pub fn wants_keys(&self, features: &FeatureFlags) -> bool {
        features.require_git_ssh_secret_known_hosts && self.type_ == SSH_AUTH
    }

    /// What it is for, as upstream orders it: registries first, then by the text of the annotations.
    fn credentials(&self, secret: &str) -> Vec<Credential> {
        let annotated = |prefix: &str| {
            let all = self.annotations.iter().filter(|(key, _)| key.starts_with(prefix));
            let mut urls: Vec<String> = all.map(|(_, url)| url.clone()).collect();
            urls.sort_unstable();
            urls
        };
        let each = |kind, urls: Vec<String>| {
            let credential = |url| Credential { kind, secret: secret.to_owned(), url };
            urls.into_iter().map(credential).collect::<Vec<_>>()
        };
        match self.type_.as_str() {
            BASIC_AUTH => [
                each(CredentialKind::BasicDocker, annotated(DOCKER_PREFIX)),
                each(CredentialKind::BasicGit, annotated(GIT_PREFIX)),
            ]
            .concat(),
            SSH_AUTH => each(CredentialKind::SshGit, annotated(GIT_PREFIX)),
            DOCKER_CONFIG => each(CredentialKind::DockerConfig, vec![String::new()]),
            DOCKER_CFG => each(CredentialKind::DockerCfg, vec![String::new()]),
            _ => Vec::new(),
        }
    }
}

/// Why a service account's secrets cannot be used. The texts end up in the run's condition.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// Upstream's words.
    #[error("serviceaccounts \"{0}\" not found")]
    NoAccount(String),
    /// The API server's words.
    #[error("{0}")]
    Refused(String),
    /// More than a pod should mount.
    #[error(
        "service account \"{account}\" names {count} secrets, and {MAX_SECRETS} are looked at; name fewer"
    )]
    TooMany {
        /// The account.
        account: String,
        /// How many it names.
        count: usize,
    },
    /// `require-git-ssh-secret-known-hosts` asks for them. Upstream's words.
    #[error(
        "TaskRun validation failed. Git SSH Secret must have \"known_hosts\" included when feature flag \
         \"require-git-ssh-secret-known-hosts\" is set to true"
    )]
    KnownHosts {
        /// The secret.
        secret: String,
    },
}

/// What a pod has of its service account's secrets; nothing by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Credentials {
    /// Flags of every step, in a fixed order.
    pub(crate) flags: Vec<Credential>,
    /// A volume for each secret that is for something.
    pub(crate) volumes: Vec<Volume>,
    /// Where every step mounts them.
    pub(crate) mounts: Vec<VolumeMount>,
    /// Secrets that the account names and that do not exist.
    pub(crate) missing: Vec<String>,
}

impl Credentials {
    /// Those of the service account `name`, as the API server answers.
    pub fn of_answer(name: &str, account: &Answer<Account>) -> Result<Self, Error> {
        match account {
            Answer::Found(account) => Self::of(name, account),
            Answer::Missing => Err(Error::NoAccount(name.to_owned())),
            Answer::Refused(text) => Err(Error::Refused(text.clone())),
        }
    }

    /// Those of the service account `name`.
    pub fn of(name: &str, account: &Account) -> Result<Self, Error> {
        if account.named.len() > MAX_SECRETS {
            return Err(Error::TooMany { account: name.to_owned(), count: account.named.len() });
        }
        let mut credentials = Self::default();
        for secret in &account.named {
            match account.secrets.get(secret) {
                Some(Answer::Found(found)) => credentials.add(secret, found)?,
                Some(Answer::Refused(text)) => return Err(Error::Refused(text.clone())),
                Some(Answer::Missing) | None => credentials.missing.push(secret.clone()),
            }
        }
        Ok(credentials)
    }

    fn add(&mut self, name: &str, secret: &Secret) -> Result<(), Error> {
        if secret.keys.as_ref().is_some_and(|keys| !keys.contains(KNOWN_HOSTS)) {
            return Err(Error::KnownHosts { secret: name.to_owned() });
        }
        let flags = secret.credentials(name);
        if flags.is_empty() {
            return Ok(());
        }
        let mut volume = volume_name(name);
        while self.volumes.iter().any(|taken| taken.name == volume) {
            volume = volume_name(&format!("{volume}$"));
        }
        self.flags.extend(flags);
        self.mounts.push(VolumeMount {
            name: volume.clone(),
            mount_path: paths::creds_secret(name),
            ..VolumeMount::default()
        });
        let source =
            SecretVolumeSource { secret_name: Some(name.to_owned()), ..SecretVolumeSource::default() };
        self.volumes.push(Volume { name: volume, secret: Some(source), ..Volume::default() });
        Ok(())
    }
}

/// Names of secrets may be longer than those of volumes, and have dots.
fn volume_name(text: &str) -> String {
    format!("tekton-creds-{}", short_hash(text, 8))
}

#[cfg(test)]
mod tests;

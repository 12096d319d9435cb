//! Flags that say which mounted secret is a credential for what (contract 5.8). Pure.

use super::FlagError;
use super::go::bad;

/// What a secret is a credential for; each has a flag of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    /// `kubernetes.io/basic-auth`, for git over http.
    BasicGit,
    /// `kubernetes.io/ssh-auth`, for git over ssh.
    SshGit,
    /// `kubernetes.io/basic-auth`, for a registry.
    BasicDocker,
    /// `kubernetes.io/dockerconfigjson`, which names its registries itself.
    DockerConfig,
    /// `kubernetes.io/dockercfg`, which names its registries itself.
    DockerCfg,
}

impl CredentialKind {
    const ALL: [Self; 5] =
        [Self::BasicGit, Self::SshGit, Self::BasicDocker, Self::DockerConfig, Self::DockerCfg];

    /// The kind that a flag of this name, without dash, is for.
    pub(super) fn of_flag(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.flag() == name)
    }

    fn flag(self) -> &'static str {
        match self {
            Self::BasicGit => "basic-git",
            Self::SshGit => "ssh-git",
            Self::BasicDocker => "basic-docker",
            Self::DockerConfig => "docker-config",
            Self::DockerCfg => "docker-cfg",
        }
    }

    fn has_url(self) -> bool {
        !matches!(self, Self::DockerConfig | Self::DockerCfg)
    }
}

/// A secret that the step's container mounts, and what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// What it is for.
    pub kind: CredentialKind,
    /// The secret, named as Kubernetes names them: there is no `=` and no `/` in it.
    pub secret: String,
    /// As the secret is annotated, for git over ssh `host[:port][/path]`; empty for the kinds that name registries
    /// themselves.
    pub url: String,
}

impl Credential {
    /// As one argument, the way upstream writes it.
    pub(super) fn render(&self) -> String {
        let Self { kind, secret, url } = self;
        let equals = if kind.has_url() { "=" } else { "" };
        format!("-{}={secret}{equals}{url}", kind.flag())
    }

    /// Reads the value of a flag.
    pub(super) fn read(kind: CredentialKind, value: &str) -> Result<Self, FlagError> {
        let refuse = |problem: &str| bad(kind.flag(), value, &problem);
        let (secret, url) = if kind.has_url() {
            value.split_once('=').ok_or_else(|| refuse("expected \"secret=URL\""))?
        } else {
            (value, "")
        };
        // It is the name of a directory.
        if matches!(secret, "" | "." | "..") || secret.contains(['/', '\0']) {
            return Err(refuse("that is no secret's name"));
        }
        Ok(Self { kind, secret: secret.to_owned(), url: url.to_owned() })
    }
}

//! What mounted secrets become: the files that git, ssh and clients of registries look for (contract 5.8). Pure: secrets
//! come in as bytes and go out as files; no error holds a part of them.

mod docker;
mod git;
mod ssh;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::flags::{Credential, CredentialKind};

const USERNAME: &str = "username";
const PASSWORD: &str = "password";
const PRIVATE_KEY: &str = "ssh-privatekey";
const KNOWN_HOSTS: &str = "known_hosts";
const DOCKER_CONFIG: &str = ".dockerconfigjson";
const DOCKER_CFG: &str = ".dockercfg";

/// The keys of a secret that are read for a credential; those it may lack among them.
pub fn keys(kind: CredentialKind) -> &'static [&'static str] {
    match kind {
        CredentialKind::BasicGit | CredentialKind::BasicDocker => &[USERNAME, PASSWORD],
        CredentialKind::SshGit => &[PRIVATE_KEY, KNOWN_HOSTS],
        CredentialKind::DockerConfig => &[DOCKER_CONFIG],
        CredentialKind::DockerCfg => &[DOCKER_CFG],
    }
}

/// What secrets hold, by name and key. It is never shown.
#[derive(Default)]
pub struct Secrets(BTreeMap<String, BTreeMap<&'static str, Vec<u8>>>);

impl Secrets {
    /// Adds one of the [`keys`] of a secret.
    pub fn insert(&mut self, secret: &str, key: &'static str, content: Vec<u8>) {
        self.0.entry(secret.to_owned()).or_default().insert(key, content);
    }

    fn get(&self, secret: &str, key: &str) -> Option<&[u8]> {
        self.0.get(secret)?.get(key).map(Vec::as_slice)
    }

    fn need(&self, secret: &str, key: &'static str) -> Result<&[u8], CredentialError> {
        self.get(secret, key).ok_or_else(|| CredentialError::NoKey { secret: secret.to_owned(), key })
    }

    /// User name and password of a `kubernetes.io/basic-auth`.
    fn user(&self, secret: &str) -> Result<(&[u8], &[u8]), CredentialError> {
        Ok((self.need(secret, USERNAME)?, self.need(secret, PASSWORD)?))
    }
}

/// The files to write, and what is doubtful about them.
#[derive(Default)]
pub struct Layout {
    /// Contents by path, below the directory of credentials and below HOME alike.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What was left out, or will not work.
    pub doubts: Vec<CredentialError>,
}

/// What is wrong with a secret, or with what it is annotated for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// There is no use for the secret without it.
    #[error("secret \"{secret}\" has no key \"{key}\"")]
    NoKey {
        /// The secret.
        secret: String,
        /// The key.
        key: &'static str,
    },
    /// It would end the line it is written on, and begin another.
    #[error(
        "secret \"{secret}\" is annotated for {url:?}, and no URL has blanks, quotes or control characters"
    )]
    Url {
        /// The secret.
        secret: String,
        /// What it is annotated for.
        url: String,
    },
    /// Which of them is meant nobody can tell.
    #[error("secrets \"{first}\" and \"{second}\" are both annotated for \"{url}\"; leave one of them")]
    Twice {
        /// One secret.
        first: String,
        /// The other.
        second: String,
        /// What both are annotated for.
        url: String,
    },
    /// git knows no such place.
    #[error(
        "secret \"{secret}\" is annotated for \"{url}\", which is not the URL of a git server; write \"https://\" before it"
    )]
    NoScheme {
        /// The secret.
        secret: String,
        /// What it is annotated for.
        url: String,
    },
    /// ssh knows no such host.
    #[error(
        "secret \"{secret}\" is annotated for \"{url}\", which is no host; write it as \"host[:port][/path]\""
    )]
    NoHost {
        /// The secret.
        secret: String,
        /// What it is annotated for.
        url: String,
    },
    /// It hardly is a part of the user's name or password.
    #[error("key \"{key}\" of secret \"{secret}\" ends in a line break, which is sent with it")]
    LineBreak {
        /// The secret.
        secret: String,
        /// The key.
        key: &'static str,
    },
    /// It is not what docker writes.
    #[error("key \"{key}\" of secret \"{secret}\" is no configuration of a registry client, and left out")]
    NotDocker {
        /// The secret.
        secret: String,
        /// The key.
        key: &'static str,
    },
}

/// The files for a step. `dir` is the directory they are read from, whatever HOME is.
pub fn lay_out(credentials: &[Credential], secrets: &Secrets, dir: &str) -> Result<Layout, CredentialError> {
    check_urls(credentials)?;
    let mut layout = Layout { doubts: line_breaks(credentials, secrets), ..Layout::default() };
    docker::lay_out(credentials, secrets, &mut layout)?;
    git::lay_out(credentials, secrets, &mut layout)?;
    ssh::lay_out(credentials, secrets, dir, &mut layout)?;
    Ok(layout)
}

fn of_kind(credentials: &[Credential], kind: CredentialKind) -> impl Iterator<Item = &Credential> {
    credentials.iter().filter(move |credential| credential.kind == kind)
}

fn check_urls(credentials: &[Credential]) -> Result<(), CredentialError> {
    let mut users: BTreeMap<(bool, &str), &str> = BTreeMap::new();
    for Credential { kind, secret, url } in credentials {
        if url.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '\\')) {
            return Err(CredentialError::Url { secret: secret.clone(), url: url.clone() });
        }
        // A host may know several keys, but one user.
        let is_git = match kind {
            CredentialKind::BasicGit => true,
            CredentialKind::BasicDocker => false,
            CredentialKind::SshGit | CredentialKind::DockerConfig | CredentialKind::DockerCfg => continue,
        };
        if let Some(first) = users.insert((is_git, url), secret)
            && first != secret
        {
            let (first, second) = (first.to_owned(), secret.clone());
            return Err(CredentialError::Twice { first, second, url: url.clone() });
        }
    }
    Ok(())
}

fn line_breaks(credentials: &[Credential], secrets: &Secrets) -> Vec<CredentialError> {
    let basic = credentials
        .iter()
        .filter(|it| matches!(it.kind, CredentialKind::BasicGit | CredentialKind::BasicDocker));
    let names: BTreeSet<&String> = basic.map(|credential| &credential.secret).collect();
    let ends = |secret: &String, key| secrets.get(secret, key).is_some_and(|it| it.ends_with(b"\n"));
    let both = names.into_iter().flat_map(|secret| [USERNAME, PASSWORD].map(|key| (secret, key)));
    both.filter(|(secret, key)| ends(secret, key))
        .map(|(secret, key)| CredentialError::LineBreak { secret: secret.clone(), key })
        .collect()
}

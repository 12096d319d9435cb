//! `.ssh`, and what git has to know of it. Pure.

use super::{CredentialError, KNOWN_HOSTS, Layout, PRIVATE_KEY, Secrets, git, of_kind};
use crate::flags::{Credential, CredentialKind};

const CONFIG: &str = ".ssh/config";
const HOSTS: &str = ".ssh/known_hosts";
const DEFAULT_PORT: &str = "22";

pub(super) fn lay_out(
    credentials: &[Credential],
    secrets: &Secrets,
    dir: &str,
    layout: &mut Layout,
) -> Result<(), CredentialError> {
    let mut places: Vec<(Place<'_>, Vec<&str>)> = Vec::new();
    for Credential { secret, url, .. } in of_kind(credentials, CredentialKind::SshGit) {
        layout.files.insert(format!(".ssh/id_{secret}"), secrets.need(secret, PRIVATE_KEY)?.to_vec());
        let Some(place) = Place::of(url) else {
            layout.doubts.push(CredentialError::NoHost { secret: secret.clone(), url: url.clone() });
            continue;
        };
        match places.iter_mut().find(|(known, _)| *known == place) {
            Some((_, keys)) => keys.push(secret),
            None => places.push((place, vec![secret])),
        }
    }
    // ssh takes what it reads first.
    places.sort_by_key(|(place, _)| !place.path.is_empty());
    let (mut config, mut hosts, mut rewritten) = (Vec::new(), Vec::new(), String::new());
    for (place, keys) in &places {
        let Place { host, port, .. } = place;
        let known: Vec<&[u8]> = keys.iter().filter_map(|key| secrets.get(key, KNOWN_HOSTS)).collect();
        config.push(format!("Host {}\n    HostName {host}\n    Port {port}\n", place.alias()));
        config.extend(keys.iter().map(|key| format!("    IdentityFile {dir}/.ssh/id_{key}\n")));
        if known.is_empty() {
            // Nobody is there to be asked. A key that a step brings holds, other than with "no".
            config.push("    StrictHostKeyChecking accept-new\n".to_owned());
        }
        for lines in known {
            hosts.extend_from_slice(lines);
            if !lines.ends_with(b"\n") {
                hosts.push(b'\n');
            }
        }
        rewritten.push_str(&place.rewritten());
    }
    if !config.is_empty() {
        layout.files.insert(CONFIG.to_owned(), config.concat().into_bytes());
    }
    if !hosts.is_empty() {
        layout.files.insert(HOSTS.to_owned(), hosts);
    }
    if !rewritten.is_empty() {
        layout.files.entry(git::CONFIG.to_owned()).or_default().extend_from_slice(rewritten.as_bytes());
    }
    Ok(())
}

#[derive(PartialEq)]
struct Place<'a> {
    host: &'a str,
    port: &'a str,
    /// Of a repository, without the slash before it and the `.git` behind it; empty for all of a host.
    path: &'a str,
}

impl<'a> Place<'a> {
    fn of(url: &'a str) -> Option<Self> {
        let (authority, path) = url.split_once('/').unwrap_or((url, ""));
        let (host, port) = match authority.strip_prefix('[') {
            Some(literal) => {
                let (host, rest) = literal.split_once(']')?;
                (host, rest.strip_prefix(':').unwrap_or(DEFAULT_PORT))
            }
            // More than one colon makes an address, not a port.
            None => match authority.split_once(':') {
                Some((host, port)) if !port.contains(':') => (host, port),
                _ => (authority, DEFAULT_PORT),
            },
        };
        let path = path.trim_end_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path);
        let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        // Patterns would be for hosts that nobody named, and ssh replaces what follows a percent sign.
        let is_host = !host.is_empty() && !url.contains(['*', '?', '!', ',', '@', '%']);
        (is_host && is_port).then_some(Self { host, port, path })
    }

    /// What ssh knows it by: a repository with a key of its own is a host of its own.
    fn alias(&self) -> String {
        if self.path.is_empty() {
            return self.host.to_owned();
        }
        format!("{}--{}", self.host, self.path.replace('/', "--"))
    }

    /// Has git ask ssh for that host. With the `.git` that a repository's URL ends in, as git compares beginnings.
    fn rewritten(&self) -> String {
        if self.path.is_empty() {
            return String::new();
        }
        let (Self { host, port, path }, alias) = (self, self.alias());
        let port = if *port == DEFAULT_PORT { String::new() } else { format!(":{port}") };
        format!(
            "[url \"git@{alias}:{path}.git\"]\n\tinsteadOf = git@{host}:{path}.git\n\
             [url \"ssh://{alias}/{path}.git\"]\n\tinsteadOf = ssh://{host}{port}/{path}.git\n\
             [url \"ssh://git@{alias}/{path}.git\"]\n\tinsteadOf = ssh://git@{host}{port}/{path}.git\n"
        )
    }
}

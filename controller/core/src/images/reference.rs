//! Image references, read as upstream and Docker read them. Pure.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// The registry of references that name none, under the name that credentials know it by.
const DOCKER_HUB: &str = "index.docker.io";
/// Its other names.
const DOCKER_HUB_ALIASES: [&str; 2] = ["docker.io", "registry-1.docker.io"];
/// Where images on Docker Hub are that name no owner.
const DOCKER_LIBRARY: &str = "library/";
/// What the distribution specification allows a tag to be long.
const MAX_TAG: usize = 128;
/// What registries allow a repository's name to be long, the host included.
const MAX_REPOSITORY: usize = 255;

/// Why a text is not the reference of an image.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReferenceError {
    /// It has no registry that could be asked.
    #[error("\"{0}\" is not the host of a registry; expected HOST or HOST:PORT")]
    Host(String),
    /// It has no repository.
    #[error(
        "\"{0}\" is not a repository; expected lower-case names of letters, digits, \".\", \"_\" and \"-\""
    )]
    Repository(String),
    /// It has a bad tag.
    #[error("\"{0}\" is not a tag; expected up to {MAX_TAG} letters, digits, \".\", \"_\" and \"-\"")]
    Tag(String),
    /// It has a bad digest.
    #[error("\"{0}\" is not a digest; expected \"sha256:\" and 64 hexadecimal digits")]
    Digest(String),
}

/// `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Digest(String);

impl Digest {
    /// The digest of this content.
    pub fn of(content: &[u8]) -> Self {
        let mut text = "sha256:".to_owned();
        for byte in Sha256::digest(content) {
            let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or_default();
            text.extend([digit(byte >> 4), digit(byte & 15)]);
        }
        Self(text)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Digest {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let is_hex =
            |hex: &str| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match text.strip_prefix("sha256:") {
            Some(hex) if is_hex(hex) => Ok(Self(text.to_owned())),
            _ => Err(ReferenceError::Digest(text.to_owned())),
        }
    }
}

/// Which content of a repository is meant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Version {
    /// What this tag points to at the moment.
    Tag(String),
    /// This content.
    Digest(Digest),
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// A reference with everything it leaves out filled in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reference {
    /// `host` or `host:port`, in lower case.
    pub host: String,
    /// The repository in that registry.
    pub repository: String,
    /// Its tag, or its digest, which wins over a tag beside it.
    pub version: Version,
}

impl Reference {
    /// The registry as people write it: only credentials know Docker Hub by the name in `host`.
    pub fn registry(&self) -> &str {
        if self.host == DOCKER_HUB { DOCKER_HUB_ALIASES[0] } else { &self.host }
    }

    /// `<registry>/<repository>:<tag>` or `<registry>/<repository>@<digest>`, as people write it.
    pub fn full_name(&self) -> String {
        let sign = match self.version {
            Version::Tag(_) => ':',
            Version::Digest(_) => '@',
        };
        format!("{}/{}{sign}{}", self.registry(), self.repository, self.version)
    }

    /// `<host>/<repository>@<digest>`
    pub fn at(&self, digest: &Digest) -> String {
        format!("{}/{}@{digest}", self.host, self.repository)
    }

    /// Whether the registry may be asked without TLS: on private and loopback addresses, where nobody has certificates.
    pub fn allows_plain_http(&self) -> bool {
        let (name, _) = split_port(&self.host);
        match name.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(IpAddr::V4(address)) => address.is_private() || address.is_loopback(),
            Ok(IpAddr::V6(address)) => address.is_loopback(),
            Err(_) => {
                name == "localhost"
                    || name.strip_suffix(".localhost").or(name.strip_suffix(".local")).is_some()
            }
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        // A colon before a slash belongs to the port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (rest, "latest"),
        };
        let is_word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if tag.is_empty() || tag.len() > MAX_TAG || tag.starts_with(['.', '-']) || !tag.bytes().all(is_word) {
            return Err(ReferenceError::Tag(tag.to_owned()));
        }
        let (host, mut repository) = match name.split_once('/') {
            Some((host, repository)) if host.contains(['.', ':']) || host == "localhost" => {
                (normal_host(host)?, repository.to_owned())
            }
            _ => (DOCKER_HUB.to_owned(), name.to_owned()),
        };
        if host == DOCKER_HUB && !repository.is_empty() && !repository.contains('/') {
            repository.insert_str(0, DOCKER_LIBRARY);
        }
        if host.len() + repository.len() >= MAX_REPOSITORY || !repository.split('/').all(is_path_part) {
            return Err(ReferenceError::Repository(repository));
        }
        let version = digest.map_or_else(|| Version::Tag(tag.to_owned()), Version::Digest);
        Ok(Self { host, repository, version })
    }
}

/// No part can be `..`: it begins and ends with a letter or a digit.
fn is_path_part(part: &str) -> bool {
    let ends = [part.bytes().next(), part.bytes().last()];
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    ends.into_iter().all(|end| end.is_some_and(is_plain))
        && part.bytes().all(|b| is_plain(b) || matches!(b, b'.' | b'_' | b'-'))
}

/// The host under its one name, in lower case.
fn normal_host(host: &str) -> Result<String, ReferenceError> {
    let lower = host.to_ascii_lowercase();
    let (name, port) = split_port(&lower);
    let is_name = match name.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        }
    };
    if !is_name || port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(ReferenceError::Host(host.to_owned()));
    }
    Ok(docker_hub_or(&lower).to_owned())
}

/// The one name of Docker Hub for any of its names, other hosts as they are.
pub(super) fn docker_hub_or(host: &str) -> &str {
    if DOCKER_HUB_ALIASES.contains(&host) { DOCKER_HUB } else { host }
}

/// A host without and with its port.
pub(super) fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        // The colons of an IPv6 address stand inside brackets.
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[rstest]
    #[case("ubuntu", "index.docker.io library/ubuntu latest")]
    #[case("ubuntu:24.04", "index.docker.io library/ubuntu 24.04")]
    #[case("user/img", "index.docker.io user/img latest")]
    #[case("docker.io/ubuntu", "index.docker.io library/ubuntu latest")]
    #[case("docker.io/user/img:1", "index.docker.io user/img 1")]
    #[case("registry-1.docker.io/user/img", "index.docker.io user/img latest")]
    #[case("localhost/img", "localhost img latest")]
    #[case("localhost:5000/a/b/c:x", "localhost:5000 a/b/c x")]
    #[case("192.168.10.4:30704/img", "192.168.10.4:30704 img latest")]
    #[case("GCR.io/kaniko-project/executor:v1.9.1-debug", "gcr.io kaniko-project/executor v1.9.1-debug")]
    #[case("[::1]:5000/a", "[::1]:5000 a latest")]
    #[case(
        "registry.cicd.svc.cluster.local:5000/a_b/c--d",
        "registry.cicd.svc.cluster.local:5000 a_b/c--d latest"
    )]
    fn what_is_left_out_is_filled_in(#[case] text: &str, #[case] expected: &str) {
        let reference: Reference = text.parse().expect("a reference");
        assert_eq!(format!("{} {} {}", reference.host, reference.repository, reference.version), expected);
    }

    #[test]
    fn a_digest_wins_over_a_tag() {
        let reference: Reference = format!("r.example/a:1@sha256:{HEX}").parse().expect("a reference");
        let Version::Digest(digest) = &reference.version else { panic!("{:?}", reference.version) };
        assert_eq!(*digest, Digest::of(b""));
        assert_eq!(reference.at(digest), format!("r.example/a@sha256:{HEX}"));
        assert_eq!(reference.full_name(), format!("r.example/a@sha256:{HEX}"));
    }

    #[rstest]
    #[case("ubuntu", "docker.io/library/ubuntu:latest")]
    #[case("registry-1.docker.io/user/img:1", "docker.io/user/img:1")]
    #[case("GCR.io:443/a", "gcr.io:443/a:latest")]
    fn people_write_docker_io(#[case] text: &str, #[case] expected: &str) {
        let reference: Reference = text.parse().expect("a reference");
        assert_eq!(reference.full_name(), expected);
    }

    #[rstest]
    #[case("", ReferenceError::Repository(String::new()))]
    #[case(" ubuntu", ReferenceError::Repository("library/ ubuntu".into()))]
    #[case("r.example/", ReferenceError::Repository(String::new()))]
    #[case("r.example/a/../b", ReferenceError::Repository("a/../b".into()))]
    #[case("r.example/A", ReferenceError::Repository("A".into()))]
    #[case("r.example/a?b", ReferenceError::Repository("a?b".into()))]
    #[case("r.example:port/a", ReferenceError::Host("r.example:port".into()))]
    #[case("r.exa%mple/a", ReferenceError::Host("r.exa%mple".into()))]
    #[case("[::g]:1/a", ReferenceError::Host("[::g]:1".into()))]
    #[case("a:", ReferenceError::Tag(String::new()))]
    #[case("a:b c", ReferenceError::Tag("b c".into()))]
    #[case("a@md5:0", ReferenceError::Digest("md5:0".into()))]
    #[case("user:secret@r.example/a", ReferenceError::Digest("r.example/a".into()))]
    fn what_is_no_reference(#[case] text: &str, #[case] expected: ReferenceError) {
        assert_eq!(text.parse::<Reference>(), Err(expected));
    }

    #[rstest]
    #[case("10.1.2.3/a", true)]
    #[case("172.16.0.1:5000/a", true)]
    #[case("172.32.0.1:5000/a", false)]
    #[case("192.168.1.1:30704/a", true)]
    #[case("127.0.0.1:5000/a", true)]
    #[case("[::1]:5000/a", true)]
    #[case("localhost:5000/a", true)]
    #[case("registry.local/a", true)]
    #[case("registry.cicd.svc.cluster.local:5000/a", true)]
    #[case("registry.localhost/a", true)]
    #[case("8.8.8.8/a", false)]
    #[case("localhost.example.com/a", false)]
    #[case("10.example.com/a", false)]
    #[case("notlocal:5000/a", false)]
    #[case("ubuntu", false)]
    fn plain_http_is_for_private_and_loopback_addresses(#[case] text: &str, #[case] expected: bool) {
        assert_eq!(text.parse::<Reference>().expect("a reference").allows_plain_http(), expected);
    }
}

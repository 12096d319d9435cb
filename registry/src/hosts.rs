//! Where a registry's images are had, and by whose word: mirrors, plain HTTP, authorities, in the form that containerd's
//! `certs.d` has. IO: reads small files, each time anew.
//!
//! ```text
//! DIR/registry.example:5000/hosts.toml    for one registry; `docker.io` for Docker Hub
//! DIR/registry.example:5000/*.crt         its authorities, where there is no hosts.toml; so Docker has them
//! DIR/_default/hosts.toml                 for all others
//! ```
//!
//! Of the keys of `hosts.toml` those are known that say where and whom to trust: `server`, `host`, `capabilities` (`pull`,
//! `resolve`), `ca` and `override_path`. Others are refused rather than passed over, and so is `skip_verify = true`.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use reqwest::Url;
use ropewalk_core::images::reference::{Reference, Version};
use serde::Deserialize;

/// Bytes of one of these files: a bundle of all public authorities has a quarter.
const MAX_FILE: u64 = 1 << 20;
/// Mirrors of one registry: each may have to be waited for.
const MAX_HOSTS: usize = 8;

/// Where the certificate of an authority goes that nobody else knows, for whoever keeps such a directory with its data.
pub const TRUST_HINT: &str =
    "put the certificate of its authority into \"certs.d/REGISTRY/ca.crt\" below the data directory";

/// Why what is configured about a registry cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    /// A file.
    #[error("cannot read it")]
    Read(#[source] io::Error),
    /// Not TOML, or with keys that nobody here knows. The parser's own words would quote the line, and headers hold secrets.
    #[error(
        "line {0} is not what this program knows of a hosts.toml; expected \"server\", \"host\", \"capabilities\", \"ca\" \
         and \"override_path\""
    )]
    Shape(usize),
    /// Not an address.
    #[error("\"{0}\" is not an address; expected http:// or https:// and a host")]
    Address(String),
    /// An address with a secret in it, which is not quoted.
    #[error(
        "the address of a host has a user name or a password in it; put them where credentials are, as with \"docker login\""
    )]
    Credentials,
    /// Too open.
    #[error("\"skip_verify\" is not done; put the certificate of the registry's authority under \"ca\"")]
    SkipVerify,
    /// Too many.
    #[error("it has more than {MAX_HOSTS} hosts")]
    Hosts,
}

/// A server that has a registry's images.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Endpoint {
    /// `host` or `host:port`: what credentials and messages know it by.
    pub(crate) host: String,
    /// `http` or `https`; the registry's own address decides where nobody has said.
    pub(crate) scheme: Option<&'static str>,
    /// The beginning of all paths: `/v2`, mostly.
    pub(crate) base: String,
    /// The registry that it stands for.
    pub(crate) mirror_of: Option<String>,
    /// Authorities to trust besides the usual ones, in PEM.
    pub(crate) roots: String,
}

impl Endpoint {
    /// The registry itself, without anything said about it.
    pub(crate) fn itself(reference: &Reference) -> Self {
        Self {
            host: reference.host.clone(),
            scheme: None,
            base: "/v2".to_owned(),
            mirror_of: None,
            roots: String::new(),
        }
    }
}

/// Who may have an image.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Servers {
    pub(crate) mirrors: Vec<Endpoint>,
    pub(crate) registry: Endpoint,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    server: Option<String>,
    #[serde(default)]
    host: IndexMap<String, RawHost>,
    ca: Option<OneOrMore>,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    override_path: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHost {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMore>,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    override_path: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(PathBuf),
    More(Vec<PathBuf>),
}

/// The servers to ask for an image, or the file that cannot be used.
pub(crate) fn servers(
    directory: Option<&Path>,
    reference: &Reference,
) -> Result<Servers, (PathBuf, HostsError)> {
    let itself =
        |roots| Servers { mirrors: Vec::new(), registry: Endpoint { roots, ..Endpoint::itself(reference) } };
    for candidate in directory.into_iter().flat_map(|directory| candidates(directory, reference.registry())) {
        let file = candidate.join("hosts.toml");
        let found = match read(&file) {
            Ok(text) => from_file(&text, &candidate, reference),
            Err(error) if is_absent(&error) => match authorities(&candidate) {
                Ok(None) => continue,
                Ok(Some(roots)) => Ok(itself(roots)),
                Err(error) => Err(HostsError::Read(error)),
            },
            Err(error) => Err(HostsError::Read(error)),
        };
        return found.map_err(|error| (file, error));
    }
    Ok(itself(String::new()))
}

/// The names a registry's directory may have, some file systems and some tools having no colons.
fn candidates(directory: &Path, registry: &str) -> Vec<PathBuf> {
    let mut names = vec![registry.to_owned()];
    if let Some((name, port)) = registry.rsplit_once(':') {
        names.push(format!("{name}_{port}_"));
    }
    names.push("_default".to_owned());
    names.into_iter().map(|name| directory.join(name)).collect()
}

fn from_file(text: &str, directory: &Path, reference: &Reference) -> Result<Servers, HostsError> {
    let line_of = |error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        HostsError::Shape(1 + before.matches('\n').count())
    };
    let raw: RawFile = toml::from_str(text).map_err(line_of)?;
    if raw.host.len() > MAX_HOSTS {
        return Err(HostsError::Hosts);
    }
    if raw.skip_verify || raw.host.values().any(|host| host.skip_verify) {
        return Err(HostsError::SkipVerify);
    }
    let mut mirrors = Vec::new();
    for (address, host) in &raw.host {
        let can = |what: &str| {
            host.capabilities.as_ref().is_none_or(|those| those.iter().any(|capability| capability == what))
        };
        // Who cannot resolve may have an old image under a tag.
        if !can("pull") || matches!(reference.version, Version::Tag(_)) && !can("resolve") {
            continue;
        }
        let mut endpoint = endpoint(address, host.override_path)?;
        endpoint.mirror_of = (endpoint.host != reference.host).then(|| reference.host.clone());
        endpoint.roots = certificates(directory, host.ca.as_ref())?;
        mirrors.push(endpoint);
    }
    let server = raw.server.as_deref().map(|server| endpoint(server, raw.override_path)).transpose()?;
    let server = server.unwrap_or_else(|| Endpoint::itself(reference));
    let roots = certificates(directory, raw.ca.as_ref())?;
    Ok(Servers { mirrors, registry: Endpoint { roots, ..server } })
}

fn endpoint(address: &str, override_path: bool) -> Result<Endpoint, HostsError> {
    if address.contains('@') {
        return Err(HostsError::Credentials);
    }
    let bad = || HostsError::Address(address.to_owned());
    let whole = if address.contains("://") { address.to_owned() } else { format!("https://{address}") };
    let url = Url::parse(&whole).map_err(|_| bad())?;
    let scheme = match url.scheme() {
        "http" => "http",
        "https" => "https",
        _ => return Err(bad()),
    };
    let name = url.host_str().filter(|_| url.query().is_none()).ok_or_else(bad)?;
    let host = url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
    let path = url.path().trim_end_matches('/');
    let base = if override_path || path.ends_with("/v2") { path.to_owned() } else { format!("{path}/v2") };
    Ok(Endpoint { host, scheme: Some(scheme), base, mirror_of: None, roots: String::new() })
}

/// The named files' content, those without a leading slash being in the directory.
fn certificates(directory: &Path, files: Option<&OneOrMore>) -> Result<String, HostsError> {
    let files = match files {
        None => &[][..],
        Some(OneOrMore::One(file)) => std::slice::from_ref(file),
        Some(OneOrMore::More(files)) => files,
    };
    let texts = files.iter().map(|file| {
        let path = directory.join(file);
        read(&path).map_err(|error| {
            HostsError::Read(io::Error::new(error.kind(), format!("\"{}\": {error}", path.display())))
        })
    });
    texts.collect::<Result<Vec<_>, _>>().map(|texts| texts.join("\n"))
}

/// All `*.crt` of a directory; nothing if it does not exist.
fn authorities(directory: &Path) -> Result<Option<String>, io::Error> {
    let entries = match fs::read_dir(directory) {
        Err(error) if is_absent(&error) => return Ok(None),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "crt") {
            files.push(path);
        }
    }
    files.sort_unstable();
    let texts = files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(texts.join("\n")))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn read(path: &Path) -> Result<String, io::Error> {
    let mut text = String::new();
    let taken = fs::File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if taken as u64 > MAX_FILE { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    struct Directory(tempfile::TempDir);

    impl Directory {
        fn with(files: &[(&str, &str)]) -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            for (name, content) in files {
                let path = directory.path().join(name);
                fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
                fs::write(path, content).expect("a file");
            }
            Self(directory)
        }

        fn servers(&self, image: &str) -> Result<Servers, (PathBuf, HostsError)> {
            servers(Some(self.0.path()), &image.parse().expect("a reference"))
        }

        /// Where to ask, in order, and with how many bytes of certificates.
        fn asked(&self, image: &str) -> Vec<String> {
            let Servers { mirrors, registry } = self.servers(image).expect("servers");
            let text = |it: &Endpoint| {
                format!("{}://{}{} {}", it.scheme.unwrap_or("?"), it.host, it.base, it.roots.len())
            };
            mirrors.iter().chain([&registry]).map(text).collect()
        }
    }

    #[test]
    fn a_registry_of_which_nothing_is_said() {
        let directory = Directory::with(&[("other.example/hosts.toml", "!")]);
        assert_eq!(directory.asked("r.example/a"), ["?://r.example/v2 0"]);
        let nothing = servers(None, &"r.example/a".parse().expect("a reference")).expect("servers");
        assert_eq!(nothing, directory.servers("r.example/a").expect("servers"));
    }

    #[test]
    fn mirrors_come_in_the_order_of_the_file_and_the_registry_last() {
        let hosts = r#"
            server = "https://registry-1.docker.io"
            [host."https://z.example:8443"]
            capabilities = ["pull", "resolve"]
            [host."http://10.0.0.1:5000/proxy/"]
            [host."http://a.example/whole/path"]
            override_path = true
            ca = "a.pem"
            [host."https://pulls.example"]
            capabilities = ["pull"]
            [host."https://pushes.example"]
            capabilities = ["push"]
        "#;
        let directory = Directory::with(&[("docker.io/hosts.toml", hosts), ("docker.io/a.pem", "12345")]);
        let by_tag = [
            "https://z.example:8443/v2 0",
            "http://10.0.0.1:5000/proxy/v2 0",
            "http://a.example/whole/path 5",
            "https://registry-1.docker.io/v2 0",
        ];
        assert_eq!(directory.asked("ubuntu:24.04"), by_tag);
        let digest = format!("ubuntu@sha256:{}", "0".repeat(64));
        let mut by_digest = by_tag.to_vec();
        by_digest.insert(3, "https://pulls.example/v2 0");
        assert_eq!(directory.asked(&digest), by_digest);
        let mirror = &directory.servers("ubuntu").expect("servers").mirrors[0];
        assert_eq!(mirror.mirror_of.as_deref(), Some("index.docker.io"));
    }

    #[rstest]
    #[case("r.example:5000/hosts.toml", "server = \"http://r.example:5000\"", "http://r.example:5000/v2 0")]
    #[case("r.example_5000_/hosts.toml", "server = \"http://r.example:5000\"", "http://r.example:5000/v2 0")]
    #[case("_default/hosts.toml", "server = \"m.example\"", "https://m.example/v2 0")]
    #[case("r.example:5000/ca.crt", "1234", "?://r.example:5000/v2 4")]
    #[case("r.example:5000/client.cert", "1234", "?://r.example:5000/v2 0")]
    fn a_registry_has_a_directory(#[case] name: &str, #[case] content: &str, #[case] expected: &str) {
        assert_eq!(Directory::with(&[(name, content)]).asked("r.example:5000/a"), [expected]);
    }

    #[rstest]
    #[case("skip_verify = true", "\"skip_verify\" is not done")]
    #[case("[host.\"https://m.example\"]\nskip_verify = true", "\"skip_verify\" is not done")]
    #[case("client = \"c.pem\"", "line 1 is not what this program knows of a hosts.toml")]
    #[case("\n[host.\"m.example\"]\nheader = { Authorization = \"hidden\" }", "line 3 is not what")]
    #[case("ca = \"a.pem\"\nserver = [\"hidden\"]", "line 2 is not what")]
    #[case("server = \"https://r.example?a=b\"", "is not an address")]
    #[case("server = \"ftp://r.example\"", "\"ftp://r.example\" is not an address")]
    #[case("server = \"https://u:hidden@r.example\"", "has a user name or a password in it")]
    #[case("[host.\"u:hidden@r.example:99999\"]", "has a user name or a password in it")]
    #[case("ca = \"gone.pem\"", "cannot read it")]
    fn what_cannot_be_done_is_not_passed_over(#[case] content: &str, #[case] expected: &str) {
        let directory = Directory::with(&[("r.example/hosts.toml", content)]);
        let (path, error) = directory.servers("r.example/a").expect_err("it is refused");
        assert!(path.ends_with("r.example/hosts.toml"));
        let text = ropewalk_api::errors::chain(&error);
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("hidden"), "{text}");
    }
}

//! The HTTP client for registries: which certificates it trusts, and where it lets itself be sent.

use std::error::Error as _;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, Url};
use ropewalk_core::images::reference::Reference;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, RootCertStore};
use tokio::sync::watch;

use crate::error::Error;
use crate::hosts::{Endpoint, Servers, servers};
use crate::session::{Access, Session};

/// Of a request, connecting may take this long: it is lost before plain HTTP is tried where nobody listens for TLS.
const CONNECT: Duration = Duration::from_secs(4);
/// Time without a byte after which a transfer is taken for broken: networks that lose packets recover sooner.
pub(crate) const STALL: Duration = Duration::from_secs(30);
/// Registries send to their blob store, which may send on once.
const REDIRECTS: usize = 4;
/// Clients for different certificates: those of few registries are configured, and others are made again.
const CLIENTS: NonZeroUsize = NonZeroUsize::new(8).expect("not zero");

/// How registries are reached: every session comes from here.
pub struct Registries {
    extra_roots: watch::Receiver<String>,
    trust_hint: &'static str,
    hosts: Option<PathBuf>,
    /// By the certificates they trust besides the usual ones.
    clients: Mutex<LruCache<String, Client>>,
}

impl Registries {
    /// Trusts `extra_roots` (PEM) besides the public authorities and those of this machine; what they become holds from the
    /// next session on. `trust_hint` tells users where such certificates go: it stands at the end of messages, after a
    /// semicolon.
    ///
    /// `hosts` is a directory in the form of containerd's `certs.d`: mirrors, plain HTTP, and authorities for single registries.
    /// It need not exist, and what is in it holds from the next session on.
    pub fn new(
        extra_roots: watch::Receiver<String>,
        trust_hint: &'static str,
        hosts: Option<PathBuf>,
    ) -> Self {
        Self { extra_roots, trust_hint, hosts, clients: Mutex::new(LruCache::new(CLIENTS)) }
    }

    /// Talks with these credentials to the servers that may have an image. Connects when they are first asked something.
    pub fn sessions<'a>(&self, reference: &Reference, access: Access<'a>) -> Result<Sessions<'a>, Error> {
        let host = || reference.host.clone();
        let Servers { mirrors, registry } = servers(self.hosts.as_deref(), reference)
            .map_err(|(path, source)| Error::Hosts { host: host(), path, source })?;
        let of = |endpoint: Endpoint| {
            let roots = [&*self.extra_roots.borrow(), endpoint.roots.as_str()].join("\n");
            let client = self.client(roots).map_err(|failure| Error::Http { host: host(), failure })?;
            Ok(Session::new(client, endpoint, reference, access, self.trust_hint))
        };
        let mirrors = mirrors.into_iter().map(of).collect::<Result<_, Error>>()?;
        Ok(Sessions { mirrors, registry: of(registry)? })
    }

    fn client(&self, extra_roots: String) -> Result<Client, Failure> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&extra_roots) {
            return Ok(client.clone());
        }
        let client = build(&extra_roots)?;
        clients.put(extra_roots, client.clone());
        Ok(client)
    }
}

/// One with each server that may have an image.
pub struct Sessions<'a> {
    /// To be asked first, in this order; whatever they say, the registry may know better.
    pub mirrors: Vec<Session<'a>>,
    /// Has the last word.
    pub registry: Session<'a>,
}

fn build(extra_roots: &str) -> Result<Client, Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::Client(error.to_string()))?
        .with_root_certificates(roots(extra_roots))
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(Policy::custom(redirect))
        .referer(false)
        .connect_timeout(CONNECT)
        .read_timeout(STALL)
        .user_agent(concat!("ropewalk/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| Failure::Client(error.to_string()))
}

/// Our images have no certificates in their file system, a machine may have some of its own: both are trusted.
fn roots(extra: &str) -> RootCertStore {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for (index, certificate) in CertificateDer::pem_slice_iter(extra.as_bytes()).enumerate() {
        let added = match certificate {
            Ok(certificate) => roots.add(certificate).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = added {
            tracing::warn!(index, error, "a configured certificate for registries cannot be used");
        }
    }
    roots
}

/// Credentials are left behind by the library when the host, the port or the scheme changes.
fn redirect(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let was_secure = attempt.previous().iter().any(|url| url.scheme() == "https");
    if was_secure && attempt.url().scheme() != "https" {
        return attempt.error(Refused("it redirects from https to http"));
    }
    if is_link_local(attempt.url()) {
        return attempt.error(Refused("it redirects to a link-local address"));
    }
    if attempt.previous().len() > REDIRECTS {
        return attempt.error(Refused("it redirects too often"));
    }
    attempt.follow()
}

/// Addresses that answer each machine differently: a cloud tells the machine's own secrets there. A registry may not send
/// this process to them.
fn is_link_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    match host.trim_matches(['[', ']']).parse().map(|address: IpAddr| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => address.is_link_local(),
        Ok(IpAddr::V6(address)) => address.is_unicast_link_local(),
        Err(_) => false,
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(&'static str);

/// Why there is no answer. Says nothing of the address: what follows the host may be a secret.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A defect of ours, or of this machine's.
    #[error("cannot make an HTTP client: {0}")]
    Client(String),
    /// The server is not who it says.
    #[error("its certificate is refused: {problem}{}", hint.map(|hint| format!("; {hint}")).unwrap_or_default())]
    Certificate {
        /// In the words of the TLS library.
        problem: String,
        /// Where more certificates go, if they would help.
        hint: Option<&'static str>,
    },
    /// Nobody there, or nobody who speaks TLS.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// Nobody answers.
    #[error("no answer within {} s", limit.as_secs())]
    Timeout {
        /// The time it had.
        limit: Duration,
    },
    /// It sends us where we do not go.
    #[error("{0}")]
    Redirect(String),
    /// It broke off.
    #[error("the connection broke: {0}")]
    Broken(String),
}

impl Failure {
    /// What the library reports of a request that had `limit`.
    pub(crate) fn of(error: &reqwest::Error, limit: Duration, trust_hint: &'static str) -> Self {
        let innermost = innermost(error);
        match tls_error(error) {
            Some(rustls::Error::InvalidCertificate(reason)) => {
                let unknown_issuer = matches!(
                    reason,
                    CertificateError::UnknownIssuer
                        | CertificateError::BadSignature
                        | CertificateError::Other(_)
                );
                let hint = unknown_issuer.then_some(trust_hint);
                return Self::Certificate { problem: reason.to_string(), hint };
            }
            Some(error) => return Self::Connect(error.to_string()),
            None => {}
        }
        if error.is_redirect() {
            Self::Redirect(innermost)
        } else if error.is_timeout() {
            Self::Timeout { limit }
        } else if error.is_connect() {
            Self::Connect(innermost)
        } else {
            Self::Broken(innermost)
        }
    }

    /// Nobody speaks TLS there: it may be somebody who does not need to.
    pub(crate) fn is_connect(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Timeout { .. })
    }

    /// Another time may have another outcome.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Timeout { .. } | Self::Broken(_))
    }
}

/// The last cause in a chain: the outer ones repeat the address.
fn innermost(error: &reqwest::Error) -> String {
    let Some(mut cause) = error.source() else { return "unknown cause".to_owned() };
    while let Some(inner) = below(cause) {
        cause = inner;
    }
    cause.to_string()
}

fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = below(error);
    }
    None
}

/// What an error wraps; an `io::Error` leaves that out of its chain of sources.
fn below<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a (dyn std::error::Error + 'static)> {
    let io = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    match io {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

/// Parses an address that a registry gave; it may not lead from https to http, nor to a link-local address.
pub(crate) fn realm(text: &str, from: &Url) -> Option<Url> {
    let url = Url::parse(text).ok().filter(|url| !is_link_local(url))?;
    (url.scheme() == "https" || url.scheme() == "http" && from.scheme() == "http").then_some(url)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("https://auth.example.com/token", true)]
    #[case("https://10.0.0.1/token", true)]
    #[case("https://[fd00::1]/token", true)]
    #[case("http://auth.example.com/token", false)]
    #[case("https://169.254.169.254/latest/meta-data", false)]
    #[case("https://0xa9fea9fe/", false)]
    #[case("https://[fe80::1]/", false)]
    #[case("https://[febf::1]/", false)]
    #[case("https://[::ffff:169.254.169.254]/", false)]
    fn realms(#[case] realm: &str, #[case] taken: bool) {
        let from = Url::parse("https://registry.example.com/v2/").expect("an address");
        assert_eq!(super::realm(realm, &from).is_some(), taken);
    }

    #[tokio::test]
    async fn nobody_answers() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let client = Client::builder().timeout(Duration::from_millis(20));
        let client = client.tls_backend_preconfigured(tls()).build().expect("a client");
        let error = client.get(url).send().await.expect_err("nobody answers");
        let failure = Failure::of(&error, Duration::from_secs(10), "");
        assert!(failure.is_transient());
        assert_eq!(failure.to_string(), "no answer within 10 s");
    }

    fn tls() -> rustls::ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        config.expect("protocols").with_root_certificates(RootCertStore::empty()).with_no_client_auth()
    }
}

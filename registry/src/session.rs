//! A conversation with one registry about one image. IO.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Client, Method, Response, StatusCode, Url};
use ropewalk_core::images::keyring::{Credential, Keyring};
use ropewalk_core::images::manifest::{self, Manifest, ManifestError};
use ropewalk_core::images::reference::{Digest, Reference};
use serde::Deserialize;

use crate::http::{self, Failure};

/// One request with its answer. A registry that is alive answers in well under a second; a manifest of the largest size
/// we take comes within this time at 4 Mbit/s.
const REQUEST: Duration = Duration::from_secs(10);
/// A manifest or a configuration: registries refuse larger manifests, and configurations of a tenth are unheard of.
const MAX_CONTENT: usize = 4 << 20;
/// An answer with a token: those with many groups in them reach some 10 kB.
const MAX_TOKEN: usize = 64 << 10;
/// Credentials tried on one registry: each costs two requests, and registries lock accounts.
const MAX_CREDENTIALS: usize = 8;

/// Why a registry was asked in vain. For users' eyes: names the registry and no credentials.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer.
    #[error("registry \"{host}\": {failure}")]
    Http {
        /// The registry.
        host: String,
        /// Why not.
        failure: Failure,
    },
    /// An answer that does not help.
    #[error("registry \"{host}\" answers {status}")]
    Status {
        /// The registry.
        host: String,
        /// The answer.
        status: StatusCode,
    },
    /// No such image.
    #[error(
        "registry \"{host}\" has no image \"{repository}\" in version \"{version}\"; check its name and who may see it"
    )]
    Missing {
        /// The registry.
        host: String,
        /// The repository in it.
        repository: String,
        /// The tag or digest.
        version: String,
    },
    /// Not for us.
    #[error("registry \"{host}\" refuses access ({status}): {tried}")]
    Denied {
        /// The registry.
        host: String,
        /// Its last word.
        status: StatusCode,
        /// Which secrets there were, by name.
        tried: String,
    },
    /// It wants something else than names and passwords.
    #[error("registry \"{host}\" asks for credentials in an unknown way")]
    Challenge {
        /// The registry.
        host: String,
    },
    /// It sends credentials to a place that they would have to reach in the open.
    #[error("registry \"{host}\" asks for credentials at an address without https")]
    Realm {
        /// The registry.
        host: String,
    },
    /// Too much.
    #[error("registry \"{host}\" sends more than {limit} bytes")]
    TooLarge {
        /// The registry.
        host: String,
        /// What would have been taken.
        limit: usize,
    },
    /// Not what was asked for.
    #[error("registry \"{host}\" sends content that is not what digest \"{digest}\" stands for")]
    Digest {
        /// The registry.
        host: String,
        /// What was asked for.
        digest: Digest,
    },
    /// Unreadable content.
    #[error("registry \"{host}\" sends a bad manifest")]
    Manifest {
        /// The registry.
        host: String,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// Unreadable answer of its token service.
    #[error("registry \"{host}\" has a token service without tokens")]
    Token {
        /// The registry.
        host: String,
    },
}

impl Error {
    /// Another time may have another outcome.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Http { failure, .. } => failure.is_transient(),
            Self::Status { status, .. } => {
                status.is_server_error()
                    || matches!(*status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
            }
            _ => false,
        }
    }
}

/// Who is asking.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// The credentials to try.
    pub keyring: &'a Keyring,
    /// Where a secret could be linked, for messages.
    pub service_account: &'a str,
}

/// What is known of a registry, and what it knows of us. Serves several requests at once.
pub struct Session<'a> {
    client: Client,
    reference: Reference,
    access: Access<'a>,
    trust_hint: &'static str,
    state: Mutex<State>,
}

#[derive(Clone, Default)]
struct State {
    scheme: Scheme,
    authorization: Option<HeaderValue>,
}

#[derive(Clone, Copy, Default, Eq, PartialEq)]
enum Scheme {
    /// TLS, and plain HTTP where nobody speaks TLS and the address allows it.
    #[default]
    ToBeFound,
    /// The registry has once spoken TLS: nothing leads back.
    Tls,
    Plain,
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        client: Client,
        reference: Reference,
        access: Access<'a>,
        trust_hint: &'static str,
    ) -> Self {
        Self { client, reference, access, trust_hint, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn host(&self) -> String {
        self.reference.host.clone()
    }

    fn failed(&self, error: &reqwest::Error) -> Error {
        Error::Http { host: self.host(), failure: Failure::of(error, REQUEST, self.trust_hint) }
    }

    /// Sends a request for what is at `path` below the repository. Finds out on the way whether the registry speaks TLS and
    /// whom it lets in; the answer has any status but 401.
    pub async fn request(&self, method: Method, path: &str) -> Result<Response, Error> {
        let response = self.reach(method.clone(), path).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        // What a place says that the registry has sent us to is no question of the registry's.
        if Url::parse(&self.url(path)).map(|url| url.origin()) != Ok(response.url().origin()) {
            return Err(Error::Status { host: self.host(), status: response.status() });
        }
        let challenge =
            challenge(response.headers()).ok_or_else(|| Error::Challenge { host: self.host() })?;
        let keyring = self.access.keyring;
        let mut credentials: Vec<Option<&Credential>> =
            keyring.credentials(&self.reference).into_iter().map(Some).take(MAX_CREDENTIALS).collect();
        if credentials.is_empty() {
            credentials.push(None);
        }
        let mut status = response.status();
        for credential in credentials {
            match self.authorize(&challenge, credential, response.url()).await? {
                Ok(authorization) => self.state().authorization = Some(authorization),
                Err(refused) => {
                    status = refused;
                    continue;
                }
            }
            let response = self.send(method.clone(), path).await?;
            match response.status() {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => status = response.status(),
                _ => return Ok(response),
            }
        }
        let tried = keyring.explain(&self.reference, self.access.service_account);
        Err(Error::Denied { host: self.host(), status, tried })
    }

    /// The first request finds out whether the registry speaks TLS.
    async fn reach(&self, method: Method, path: &str) -> Result<Response, Error> {
        let may_be_plain = self.state().scheme == Scheme::ToBeFound && self.reference.allows_plain_http();
        let found = match self.send(method.clone(), path).await {
            Err(Error::Http { failure, .. }) if failure.is_connect() && may_be_plain => {
                self.state().scheme = Scheme::Plain;
                return self.send(method, path).await;
            }
            answer => answer?,
        };
        let mut state = self.state();
        if state.scheme == Scheme::ToBeFound {
            state.scheme = Scheme::Tls;
        }
        Ok(found)
    }

    /// What to present at the next request, or the status with which the credential was refused.
    async fn authorize(
        &self,
        challenge: &Challenge,
        credential: Option<&Credential>,
        registry: &Url,
    ) -> Result<Result<HeaderValue, StatusCode>, Error> {
        let Challenge::Bearer { realm, service } = challenge else {
            let Some(credential) = credential else { return Ok(Err(StatusCode::UNAUTHORIZED)) };
            // The library's own way to write them.
            let request = self
                .client
                .get(registry.clone())
                .basic_auth(&credential.username, Some(&credential.password));
            let request = request.build().map_err(|error| self.failed(&error))?;
            return Ok(request.headers().get(AUTHORIZATION).cloned().ok_or(StatusCode::UNAUTHORIZED));
        };
        let mut realm = http::realm(realm, registry).ok_or_else(|| Error::Realm { host: self.host() })?;
        realm
            .query_pairs_mut()
            .append_pair("service", service)
            .append_pair("scope", &format!("repository:{}:pull", self.reference.repository));
        let mut request = self.client.get(realm).timeout(REQUEST);
        if let Some(credential) = credential {
            request = request.basic_auth(&credential.username, Some(&credential.password));
        }
        let response = request.send().await.map_err(|error| self.failed(&error))?;
        match response.status() {
            StatusCode::OK => {}
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => return Ok(Err(status)),
            status => return Err(Error::Status { host: self.host(), status }),
        }
        let content = self.read(response, MAX_TOKEN).await?;
        let token = serde_json::from_slice::<Token>(&content).ok().and_then(Token::header);
        token.map(Ok).ok_or_else(|| Error::Token { host: self.host() })
    }

    fn url(&self, path: &str) -> String {
        let scheme = if self.state().scheme == Scheme::Plain { "http" } else { "https" };
        let Reference { host, repository, .. } = &self.reference;
        format!("{scheme}://{host}/v2/{repository}/{path}")
    }

    async fn send(&self, method: Method, path: &str) -> Result<Response, Error> {
        let mut request =
            self.client.request(method, self.url(path)).header(ACCEPT, manifest::ACCEPT).timeout(REQUEST);
        if let Some(authorization) = self.state().authorization.clone() {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.send().await.map_err(|error| self.failed(&error))
    }

    /// The body of a good answer, checked against the digest it was asked for by: a manifest or a configuration.
    pub async fn content(&self, response: Response, digest: Option<&Digest>) -> Result<Vec<u8>, Error> {
        match response.status() {
            status if status.is_success() => {}
            StatusCode::NOT_FOUND => {
                return Err(Error::Missing {
                    host: self.host(),
                    repository: self.reference.repository.clone(),
                    version: self.reference.version.to_string(),
                });
            }
            status => return Err(Error::Status { host: self.host(), status }),
        }
        let content = self.read(response, MAX_CONTENT).await?;
        match digest {
            Some(digest) if Digest::of(&content) != *digest => {
                Err(Error::Digest { host: self.host(), digest: digest.clone() })
            }
            _ => Ok(content),
        }
    }

    async fn read(&self, mut response: Response, limit: usize) -> Result<Vec<u8>, Error> {
        let mut content = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failed(&error))? {
            if content.len() + chunk.len() > limit {
                return Err(Error::TooLarge { host: self.host(), limit });
            }
            content.extend_from_slice(&chunk);
        }
        Ok(content)
    }

    /// The content of this digest: a configuration.
    pub async fn blob(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let response = self.request(Method::GET, &format!("blobs/{digest}")).await?;
        self.content(response, Some(digest)).await
    }

    /// A manifest as such.
    pub fn manifest(&self, content: &[u8]) -> Result<Manifest, Error> {
        Manifest::parse(content).map_err(|source| self.bad_manifest(source))
    }

    /// What this registry sent cannot be used.
    pub fn bad_manifest(&self, source: ManifestError) -> Error {
        Error::Manifest { host: self.host(), source }
    }
}

/// What a registry wants to see.
enum Challenge {
    Basic,
    Bearer { realm: String, service: String },
}

/// The first challenge that we can meet, a token's before a password's.
fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let texts: Vec<&str> =
        headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).collect();
    let all = || texts.iter().filter_map(|text| http_auth::parse_challenges(text).ok()).flatten();
    let bearer =
        all().filter(|challenge| challenge.scheme.eq_ignore_ascii_case("bearer")).find_map(|challenge| {
            let param = |name: &str| {
                let mut params = challenge.params.iter();
                params.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_unescaped())
            };
            Some(Challenge::Bearer { realm: param("realm")?, service: param("service").unwrap_or_default() })
        });
    let mut basic = all().filter(|challenge| challenge.scheme.eq_ignore_ascii_case("basic"));
    bearer.or_else(|| basic.next().map(|_| Challenge::Basic))
}

/// Two names for the same.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Token {
    fn header(self) -> Option<HeaderValue> {
        let token = self.token.or(self.access_token).filter(|token| !token.is_empty())?;
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

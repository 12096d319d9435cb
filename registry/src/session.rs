//! A conversation with one registry about one image. IO.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::{
    ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RANGE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use reqwest::{Client, Method, Response, StatusCode, Url};
use ropewalk_core::images::keyring::{Credential, Keyring};
use ropewalk_core::images::manifest::{self, Manifest, ManifestError};
use ropewalk_core::images::reference::{Digest, Reference, Version};
use serde::Deserialize;

use crate::error::Error;
use crate::hosts::Endpoint;
use crate::http::{self, Failure, STALL};
use crate::patience::Patience;

/// One request with its answer. A registry that is alive answers in well under a second; a manifest of the largest size
/// we take comes within this time at 4 Mbit/s.
const REQUEST: Duration = Duration::from_secs(10);
/// A manifest or a configuration: registries refuse larger manifests, and configurations of a tenth are unheard of.
const MAX_CONTENT: usize = 4 << 20;
/// An answer with a token: those with many groups in them reach some 10 kB.
const MAX_TOKEN: usize = 64 << 10;
/// Credentials tried on one registry: each costs two requests, and registries lock accounts.
const MAX_CREDENTIALS: usize = 8;

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Who is asking.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// The credentials to try.
    pub keyring: &'a Keyring,
    /// What a user could do who has none, for messages.
    pub advice: &'a str,
}

/// One request.
struct Request<'a> {
    method: Method,
    /// Below the repository.
    path: &'a str,
    /// The first byte that is wanted.
    from: u64,
    /// For the answer with its body.
    limit: Option<Duration>,
}

/// What is known of a registry, and what it knows of us. Serves several requests at once.
pub struct Session<'a> {
    client: Client,
    /// With the host of the server that is asked.
    reference: Reference,
    endpoint: Endpoint,
    access: Access<'a>,
    trust_hint: &'static str,
    state: Mutex<State>,
}

struct State {
    scheme: Scheme,
    authorization: Option<HeaderValue>,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Scheme {
    /// TLS, and plain HTTP where nobody speaks TLS and the address allows it.
    ToBeFound,
    /// The registry has once spoken TLS: nothing leads back.
    Tls,
    Plain,
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        client: Client,
        endpoint: Endpoint,
        reference: &Reference,
        access: Access<'a>,
        trust_hint: &'static str,
    ) -> Self {
        let reference = Reference { host: endpoint.host.clone(), ..reference.clone() };
        let scheme = match endpoint.scheme {
            None => Scheme::ToBeFound,
            Some("http") => Scheme::Plain,
            Some(_) => Scheme::Tls,
        };
        let state = Mutex::new(State { scheme, authorization: None });
        Self { client, reference, endpoint, access, trust_hint, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn host(&self) -> String {
        self.reference.host.clone()
    }

    fn failed(&self, error: &reqwest::Error, limit: Duration) -> Error {
        Error::Http { host: self.host(), failure: Failure::of(error, limit, self.trust_hint) }
    }

    /// A blob whose connection broke.
    pub(crate) fn broken(&self, error: &reqwest::Error) -> Error {
        self.failed(error, STALL)
    }

    pub(crate) fn longer(&self, digest: &Digest, size: u64) -> Error {
        Error::Longer { host: self.host(), digest: digest.clone(), size }
    }

    pub(crate) fn truncated(&self, missing: u64) -> Error {
        Error::Truncated { host: self.host(), missing }
    }

    pub(crate) fn slow(&self) -> Error {
        Error::Slow { host: self.host() }
    }

    /// An answer with a status that does not help.
    pub(crate) fn unhelpful(&self, response: &Response) -> Error {
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Error::Status {
            host: self.host(),
            status: response.status(),
            retry_after: after.map(Duration::from_secs),
        }
    }

    pub(crate) fn missing(&self, version: &impl ToString) -> Error {
        let (repository, version) = (self.reference.repository.clone(), version.to_string());
        Error::Missing { host: self.host(), repository, version }
    }

    /// Sends a request for what is at `path` below the repository. Finds out on the way whether the registry speaks TLS and
    /// whom it lets in; the answer has any status but 401.
    pub async fn request(&self, method: Method, path: &str) -> Result<Response, Error> {
        self.ask(&Request { method, path, from: 0, limit: Some(REQUEST) }).await
    }

    /// A blob from this byte on, if the server knows ranges. Its body may take any time that it keeps coming.
    pub(crate) async fn blob_from(&self, digest: &Digest, from: u64) -> Result<Response, Error> {
        let path = format!("blobs/{digest}");
        self.ask(&Request { method: Method::GET, path: &path, from, limit: None }).await
    }

    async fn ask(&self, request: &Request<'_>) -> Result<Response, Error> {
        let response = self.reach(request).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        // What a place says that the registry has sent us to is no question of the registry's.
        if Url::parse(&self.url(request.path)).map(|url| url.origin()) != Ok(response.url().origin()) {
            return Err(self.unhelpful(&response));
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
            let response = self.send(request).await?;
            match response.status() {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => status = response.status(),
                _ => return Ok(response),
            }
        }
        let tried = keyring.explain(&self.reference, self.access.advice);
        Err(Error::Denied { host: self.host(), status, tried })
    }

    /// The first request finds out whether the registry speaks TLS.
    async fn reach(&self, request: &Request<'_>) -> Result<Response, Error> {
        let may_be_plain = self.state().scheme == Scheme::ToBeFound && self.reference.allows_plain_http();
        let found = match self.send(request).await {
            Err(Error::Http { failure, .. }) if failure.is_connect() && may_be_plain => {
                self.state().scheme = Scheme::Plain;
                return self.send(request).await;
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
            let request = request.build().map_err(|error| self.failed(&error, REQUEST))?;
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
        let response = request.send().await.map_err(|error| self.failed(&error, REQUEST))?;
        match response.status() {
            StatusCode::OK => {}
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => return Ok(Err(status)),
            _ => return Err(self.unhelpful(&response)),
        }
        let content = self.read(response, MAX_TOKEN).await?;
        let token = serde_json::from_slice::<Token>(&content).ok().and_then(Token::header);
        token.map(Ok).ok_or_else(|| Error::Token { host: self.host() })
    }

    fn url(&self, path: &str) -> String {
        let scheme = if self.state().scheme == Scheme::Plain { "http" } else { "https" };
        let Reference { host, repository, .. } = &self.reference;
        let url = format!("{scheme}://{host}{}/{repository}/{path}", self.endpoint.base);
        // A mirror may stand for several; containerd tells them so which is meant.
        match &self.endpoint.mirror_of {
            Some(registry) => format!("{url}?ns={registry}"),
            None => url,
        }
    }

    async fn send(&self, request: &Request<'_>) -> Result<Response, Error> {
        let mut sent = self.client.request(request.method.clone(), self.url(request.path));
        sent = sent.header(ACCEPT, manifest::ACCEPT);
        if let Some(authorization) = self.state().authorization.clone() {
            sent = sent.header(AUTHORIZATION, authorization);
        }
        if request.from > 0 {
            sent = sent.header(RANGE, format!("bytes={}-", request.from));
        }
        if let Some(limit) = request.limit {
            sent = sent.timeout(limit);
        }
        sent.send().await.map_err(|error| self.failed(&error, request.limit.unwrap_or(STALL)))
    }

    /// The body of a good answer, checked against the digest it was asked for by: a manifest or a configuration.
    pub async fn content(&self, response: Response, digest: Option<&Digest>) -> Result<Vec<u8>, Error> {
        match response.status() {
            status if status.is_success() => {}
            StatusCode::NOT_FOUND => {
                return Err(self.missing(&self.reference.version));
            }
            _ => return Err(self.unhelpful(&response)),
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
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failed(&error, REQUEST))? {
            if content.len() + chunk.len() > limit {
                return Err(Error::TooLarge { host: self.host(), limit });
            }
            content.extend_from_slice(&chunk);
        }
        Ok(content)
    }

    /// The digest of a manifest, if the registry tells it. Asking for no more than that does not count as a pull where pulls
    /// are counted.
    pub async fn digest(&self, version: &Version) -> Result<Option<Digest>, Error> {
        let response = self.request(Method::HEAD, &format!("manifests/{version}")).await?;
        if response.status().is_success() {
            let told = response.headers().get(DOCKER_CONTENT_DIGEST);
            return Ok(told.and_then(|value| value.to_str().ok()?.parse().ok()));
        }
        // What else it has to say it says better when it is asked for the manifest.
        let error = self.unhelpful(&response);
        if error.is_transient() { Err(error) } else { Ok(None) }
    }

    /// A manifest by its tag or digest, asked for as often as the patience allows.
    pub async fn fetch_manifest(&self, version: &Version, patience: &mut Patience) -> Result<Vec<u8>, Error> {
        let digest = if let Version::Digest(digest) = version { Some(digest) } else { None };
        loop {
            let content = async {
                let response = self.request(Method::GET, &format!("manifests/{version}")).await?;
                self.content(response, digest).await
            };
            match content.await {
                Ok(content) => return Ok(content),
                Err(error) => patience.wait(error).await?,
            }
        }
    }

    /// The content of this digest, a configuration, asked for as often as the patience allows.
    pub async fn fetch_blob(&self, digest: &Digest, patience: &mut Patience) -> Result<Vec<u8>, Error> {
        loop {
            match self.blob(digest).await {
                Ok(content) => return Ok(content),
                Err(error) => patience.wait(error).await?,
            }
        }
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

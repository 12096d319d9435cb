//! One registry, asked for one image (OCI distribution specification). IO; answers are read in `ropewalk-core`.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Client, Method, Response, StatusCode, Url};
use ropewalk_core::images::keyring::{Credential, Keyring};
use ropewalk_core::images::manifest::{self, ImageConfig, Manifest, ManifestError};
use ropewalk_core::images::reference::{Digest, Reference, Version};
use ropewalk_core::images::{Command, Commands, Image, Wanted};
use serde::Deserialize;

use super::digests::Digests;
use super::http::{self, Failure};

/// A manifest or a configuration: registries refuse larger manifests, and configurations of a tenth are unheard of.
const MAX_CONTENT: usize = 4 << 20;
/// An answer with a token: those with many groups in them reach some 10 kB.
const MAX_TOKEN: usize = 64 << 10;
/// What commands may amount to: they end up in every pod. A hundredth of it is much.
const MAX_COMMANDS: usize = 32 << 10;
/// Credentials tried on one registry: each costs two requests, and registries lock accounts.
const MAX_CREDENTIALS: usize = 8;
/// Requests at once to one registry for one image.
const AT_ONCE: usize = 4;

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Why an image is not known. For users' eyes: names the registry and no credentials.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// No answer.
    #[error("registry \"{host}\": {failure}")]
    Http { host: String, failure: Failure },
    /// An answer that does not help.
    #[error("registry \"{host}\" answers {status}")]
    Status { host: String, status: StatusCode },
    /// No such image.
    #[error(
        "registry \"{host}\" has no image \"{repository}\" in version \"{version}\"; check its name and who may see it"
    )]
    Missing { host: String, repository: String, version: String },
    /// Not for us.
    #[error("registry \"{host}\" refuses access ({status}): {tried}")]
    Denied { host: String, status: StatusCode, tried: String },
    /// It wants something else than names and passwords.
    #[error("registry \"{host}\" asks for credentials in an unknown way")]
    Challenge { host: String },
    /// It sends credentials to a place that they would have to reach in the open.
    #[error("registry \"{host}\" asks for credentials at an address without https")]
    Realm { host: String },
    /// Too much.
    #[error("registry \"{host}\" sends more than {limit} bytes")]
    TooLarge { host: String, limit: usize },
    /// Not what was asked for.
    #[error("registry \"{host}\" sends content that is not what digest \"{digest}\" stands for")]
    Digest { host: String, digest: Digest },
    /// Unreadable content.
    #[error("registry \"{host}\" sends a bad manifest")]
    Manifest { host: String, source: ManifestError },
    /// Unreadable answer of its token service.
    #[error("registry \"{host}\" has a token service without tokens")]
    Token { host: String },
    /// Nothing to run.
    #[error("the image has neither ENTRYPOINT nor CMD; set the step's command or script")]
    NoCommand,
    /// Too much to run.
    #[error(
        "the image's commands amount to more than {MAX_COMMANDS} bytes; set the step's command or script"
    )]
    LongCommand,
}

impl Error {
    /// Another time may have another outcome.
    pub(super) fn is_transient(&self) -> bool {
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

/// Finds out what an image runs; `reference` is the wanted image's, and `keyring` holds its credentials.
pub(super) async fn look_up(
    http: &Client,
    wanted: &Wanted,
    reference: &Reference,
    keyring: &Keyring,
    known: &Digests,
) -> Result<Image, Error> {
    let mut session = Session { http, reference, secure: true, authorization: None };
    let access = Access { keyring, service_account: &wanted.service_account };
    let path = format!("manifests/{}", reference.version);
    let (digest, content) = match &reference.version {
        Version::Digest(digest) => {
            let response = session.open(Method::GET, &path, &access).await?;
            (Some(digest.clone()), Some(response))
        }
        // Asking for no more than the digest does not count as a pull where pulls are counted.
        Version::Tag(_) => {
            let response = session.open(Method::HEAD, &path, &access).await?;
            (response.status().is_success().then(|| digest_in(response.headers())).flatten(), None)
        }
    };
    if let Some(digest) = &digest
        && let Some(commands) = known.get(wanted, reference, digest)
    {
        return Ok(Image { reference: reference.at(digest), commands });
    }
    let response = match (content, &digest) {
        (Some(response), _) => response,
        (None, Some(digest)) => session.send(Method::GET, &format!("manifests/{digest}")).await?,
        // A registry that says nothing to HEAD.
        (None, None) => session.send(Method::GET, &path).await?,
    };
    let content = session.content(response, digest.as_ref()).await?;
    let digest = digest.unwrap_or_else(|| Digest::of(&content));
    let (commands, whole) = session.commands(&content).await?;
    let commands = Arc::new(commands);
    if whole {
        known.put(wanted, reference, &digest, &commands);
    }
    Ok(Image { reference: reference.at(&digest), commands })
}

fn digest_in(headers: &HeaderMap) -> Option<Digest> {
    headers.get(DOCKER_CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
}

/// Who is asking.
struct Access<'a> {
    keyring: &'a Keyring,
    service_account: &'a str,
}

struct Session<'a> {
    http: &'a Client,
    reference: &'a Reference,
    secure: bool,
    authorization: Option<HeaderValue>,
}

impl Session<'_> {
    fn host(&self) -> String {
        self.reference.host.clone()
    }

    fn failed(&self, failure: Failure) -> Error {
        Error::Http { host: self.host(), failure }
    }

    /// Makes the first request, which finds out whether the registry speaks TLS and whom it lets in.
    async fn open(&mut self, method: Method, path: &str, access: &Access<'_>) -> Result<Response, Error> {
        let response = match self.send(method.clone(), path).await {
            Err(Error::Http { failure, .. })
                if failure.is_connect() && self.reference.allows_plain_http() =>
            {
                self.secure = false;
                self.send(method.clone(), path).await?
            }
            answer => answer?,
        };
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let challenge =
            challenge(response.headers()).ok_or_else(|| Error::Challenge { host: self.host() })?;
        let mut credentials: Vec<Option<&Credential>> =
            access.keyring.credentials(self.reference).into_iter().map(Some).take(MAX_CREDENTIALS).collect();
        if credentials.is_empty() {
            credentials.push(None);
        }
        let mut status = response.status();
        for credential in credentials {
            self.authorization = match self.authorize(&challenge, credential, response.url()).await? {
                Ok(authorization) => Some(authorization),
                Err(refused) => {
                    status = refused;
                    continue;
                }
            };
            let response = self.send(method.clone(), path).await?;
            match response.status() {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => status = response.status(),
                _ => return Ok(response),
            }
        }
        let tried = access.keyring.explain(self.reference, access.service_account);
        Err(Error::Denied { host: self.host(), status, tried })
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
            let request =
                self.http.get(registry.clone()).basic_auth(&credential.username, Some(&credential.password));
            let request = request.build().map_err(|error| self.failed(Failure::of(&error)))?;
            return Ok(request.headers().get(AUTHORIZATION).cloned().ok_or(StatusCode::UNAUTHORIZED));
        };
        let mut realm = http::realm(realm, registry).ok_or_else(|| Error::Realm { host: self.host() })?;
        realm
            .query_pairs_mut()
            .append_pair("service", service)
            .append_pair("scope", &format!("repository:{}:pull", self.reference.repository));
        let mut request = self.http.get(realm);
        if let Some(credential) = credential {
            request = request.basic_auth(&credential.username, Some(&credential.password));
        }
        let response = request.send().await.map_err(|error| self.failed(Failure::of(&error)))?;
        match response.status() {
            StatusCode::OK => {}
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => return Ok(Err(status)),
            status => return Err(Error::Status { host: self.host(), status }),
        }
        let content = self.read(response, MAX_TOKEN).await?;
        let token = serde_json::from_slice::<Token>(&content).ok().and_then(Token::header);
        token.map(Ok).ok_or_else(|| Error::Token { host: self.host() })
    }

    async fn send(&self, method: Method, path: &str) -> Result<Response, Error> {
        let scheme = if self.secure { "https" } else { "http" };
        let Reference { host, repository, .. } = self.reference;
        let mut request = self
            .http
            .request(method, format!("{scheme}://{host}/v2/{repository}/{path}"))
            .header(ACCEPT, manifest::ACCEPT);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.send().await.map_err(|error| self.failed(Failure::of(&error)))
    }

    /// The body of a good answer, checked against the digest it was asked for by.
    async fn content(&self, response: Response, digest: Option<&Digest>) -> Result<Vec<u8>, Error> {
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
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failed(Failure::of(&error)))? {
            if content.len() + chunk.len() > limit {
                return Err(Error::TooLarge { host: self.host(), limit });
            }
            content.extend_from_slice(&chunk);
        }
        Ok(content)
    }

    /// What an image or an index of images runs, and whether the registry has all of it: what one leaves out, another one
    /// may have under the same digest.
    async fn commands(&self, content: &[u8]) -> Result<(Commands, bool), Error> {
        let (commands, platforms) = match self.manifest(content)? {
            Manifest::Image(config) => {
                let config = self.config(&config).await?;
                (BTreeMap::from([(config.platform, config.command)]), 1)
            }
            Manifest::Index(platforms) => {
                let count = platforms.len();
                let commands: BTreeMap<_, _> = stream::iter(platforms)
                    .map(|platform| async move {
                        let command = self.platform(&platform.manifest).await?;
                        Ok(command.map(|command| (platform.name, command)))
                    })
                    .buffered(AT_ONCE)
                    .try_filter_map(|found| async { Ok(found) })
                    .try_collect()
                    .await?;
                (commands, count)
            }
        };
        let words = || commands.values().flat_map(|it: &Command| it.entrypoint.iter().chain(&it.cmd));
        if commands.values().all(Command::is_empty) {
            return Err(Error::NoCommand);
        }
        if words().map(String::len).sum::<usize>() > MAX_COMMANDS {
            return Err(Error::LongCommand);
        }
        let whole = commands.len() == platforms;
        Ok((Commands(commands), whole))
    }

    /// The command of one image of an index. Mirrors leave platforms out that nobody there uses.
    async fn platform(&self, digest: &Digest) -> Result<Option<Command>, Error> {
        let response = self.send(Method::GET, &format!("manifests/{digest}")).await?;
        let content = match self.content(response, Some(digest)).await {
            Err(Error::Missing { .. }) => return Ok(None),
            content => content?,
        };
        match self.manifest(&content)? {
            Manifest::Image(config) => Ok(Some(self.config(&config).await?.command)),
            Manifest::Index(_) => Ok(None),
        }
    }

    async fn config(&self, digest: &Digest) -> Result<ImageConfig, Error> {
        let response = self.send(Method::GET, &format!("blobs/{digest}")).await?;
        let content = self.content(response, Some(digest)).await?;
        ImageConfig::parse(&content).map_err(|source| Error::Manifest { host: self.host(), source })
    }

    fn manifest(&self, content: &[u8]) -> Result<Manifest, Error> {
        Manifest::parse(content).map_err(|source| Error::Manifest { host: self.host(), source })
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

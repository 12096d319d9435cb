//! From a URL and its headers to what is asked for. Pure.

use std::collections::BTreeMap;

use http::{HeaderMap, Method, header};
use percent_encoding::percent_decode_str;

use crate::{
    health::{self, Endpoint},
    state::State,
    status::{Failure, Result},
    table::ResourceId,
};

/// The query of a URL; of a key given twice the first counts, as with Go's `url.Values.Get`, unless all are asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(BTreeMap<String, Vec<String>>);

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, value) in form_urlencoded::parse(text.as_bytes()) {
            map.entry(key.into_owned()).or_default().push(value.into_owned());
        }
        Self(map)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.all(key).next()
    }

    /// All values of a key, in order.
    pub(crate) fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// The value, empty where there is none.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.get(key).unwrap_or_default()
    }

    /// As kube-apiserver reads one: whatever is there and does not deny it, so that `?watch` alone is enough.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|text| text != "0" && !text.eq_ignore_ascii_case("false"))
    }

    pub(crate) fn number(&self, key: &str) -> Result<Option<u64>> {
        let Some(text) = self.get(key).filter(|text| !text.is_empty()) else { return Ok(None) };
        let parsed = text.parse();
        parsed.map(Some).map_err(|_| Failure::bad_request(format!("{key}: {text:?} is not a whole number")))
    }

    /// As [`Query::number`], for what a validation of its own tells apart when it is negative.
    pub(crate) fn integer(&self, key: &str) -> Result<Option<i64>> {
        let Some(text) = self.get(key).filter(|text| !text.is_empty()) else { return Ok(None) };
        let parsed = text.parse();
        parsed.map(Some).map_err(|_| Failure::bad_request(format!("{key}: {text:?} is not a whole number")))
    }

    /// A resourceVersion: `None` where it is missing or empty.
    pub(crate) fn version(&self) -> Result<Option<u64>> {
        let Some(text) = self.get("resourceVersion").filter(|text| !text.is_empty()) else { return Ok(None) };
        let parsed = text.parse();
        parsed.map(Some).map_err(|_| Failure::bad_request(format!("invalid resource version {text:?}")))
    }
}

/// The form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    /// `as=Table`: what kubectl prints.
    Table,
    /// `as=PartialObjectMetadata[List]`.
    Metadata,
}

impl Format {
    /// Takes the first form of the `Accept` header that the server has.
    pub(crate) fn negotiate(headers: &HeaderMap) -> Result<Self> {
        let accept: Vec<&str> =
            headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
        if accept.is_empty() {
            return Ok(Self::Json);
        }
        for range in accept.iter().flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            if !matches!(parts.next(), Some("application/json" | "application/*" | "*/*")) {
                continue;
            }
            let parameters: BTreeMap<&str, &str> = parts.filter_map(|part| part.split_once('=')).collect();
            match parameters.get("as").copied() {
                None => return Ok(Self::Json),
                Some("Table") if parameters.get("v") == Some(&"v1") => return Ok(Self::Table),
                Some("PartialObjectMetadata" | "PartialObjectMetadataList") => return Ok(Self::Metadata),
                Some(_) => {}
            }
        }
        Err(Failure::not_acceptable())
    }
}

/// What a URL under a resource points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) id: ResourceId,
    /// Index of the version in the resource.
    pub(crate) version: usize,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
}

/// What a URL points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Health(Endpoint),
    Version,
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/<group>`
    Group(String),
    /// `/api/v1` and `/apis/<group>/<version>`
    Resources(String, String),
    OpenApi,
    /// All documents as one, in version 2.
    OpenApiV2,
    /// The document of one group and version.
    OpenApiOf(String, String),
    Object(Target),
}

impl Route {
    pub(crate) fn parse(state: &State, path: &str) -> Result<Self> {
        let mut segments = Vec::new();
        for segment in path.trim_matches('/').split('/') {
            let segment = percent_decode_str(segment).decode_utf8().map_err(|_| Failure::unknown_path())?;
            // Names are data here and never file paths, but what could climb elsewhere is no name.
            if segment.contains(['/', '\0']) || segment == "." || segment == ".." {
                return Err(Failure::unknown_path());
            }
            segments.push(segment.into_owned());
        }
        let words: Vec<&str> = segments.iter().map(String::as_str).collect();
        let owned = |text: &str| text.to_owned();
        Ok(match words.as_slice() {
            ["version"] => Self::Version,
            ["openapi", "v2"] => Self::OpenApiV2,
            ["openapi", "v3"] => Self::OpenApi,
            ["openapi", "v3", "api", version] => Self::OpenApiOf(String::new(), owned(version)),
            ["openapi", "v3", "apis", group, version] => Self::OpenApiOf(owned(group), owned(version)),
            ["api"] => Self::CoreVersions,
            ["apis"] => Self::Groups,
            ["apis", group] => Self::Group(owned(group)),
            ["api", version] => Self::Resources(String::new(), owned(version)),
            ["apis", group, version] => Self::Resources(owned(group), owned(version)),
            ["api", version, rest @ ..] => target(state, "", version, rest)?,
            ["apis", group, version, rest @ ..] => target(state, group, version, rest)?,
            [first] | [first, health::CHECK] => {
                Self::Health(Endpoint::named(first).ok_or_else(Failure::unknown_path)?)
            }
            _ => return Err(Failure::unknown_path()),
        })
    }
}

fn target(state: &State, group: &str, version: &str, rest: &[&str]) -> Result<Route> {
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..]
            // `/namespaces/x/status` is about the namespace itself.
            if !rest.is_empty() && !matches!(rest, ["status" | "finalize"]) =>
        {
            (Some(*namespace), rest)
        }
        rest => (None, rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (*plural, None, None),
        [plural, name] => (*plural, Some(*name), None),
        [plural, name, subresource] => (*plural, Some(*name), Some(*subresource)),
        _ => return Err(Failure::unknown_path()),
    };
    if [namespace, name].contains(&Some("")) {
        return Err(Failure::unknown_path());
    }
    let (id, version) = state.table().find(group, version, plural).ok_or_else(Failure::unknown_path)?;
    let resource = state.table().get(id);
    // A namespaced object is only reached through its namespace; a list may span all of them.
    if namespace.is_some() != resource.namespaced && (name.is_some() || namespace.is_some()) {
        return Err(Failure::unknown_path());
    }
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Ok(Route::Object(Target {
        id,
        version,
        namespace: owned(namespace),
        name: owned(name),
        subresource: owned(subresource),
    }))
}

/// The media type of the body, without parameters.
pub(crate) fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// Refuses what Kubernetes has no use for.
pub(crate) fn check_method(method: &Method) -> Result<()> {
    if [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method)
    {
        Ok(())
    } else {
        Err(Failure::method_not_allowed())
    }
}

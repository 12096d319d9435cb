//! From the bytes of a request to a JSON value: JSON, YAML, or Kubernetes' protobuf for built-in kinds. Pure.
//!
//! Nothing here needs the server's state: whoever guards that with a lock reads bodies before, so that a large one holds up
//! nobody but its sender.

mod duplicates;
mod protobuf;

use http::{HeaderMap, Method, Request};
use serde_json::Value;

use crate::{
    handle::BODY_LIMIT,
    object::{self, OBJECT_LIMIT},
    patch::{self, Change},
    route::{self, Query},
    status::{Failure, Result},
};

use duplicates::duplicates;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The body of a request, read as far as that goes without the server's state. What is wrong with it is told when somebody
/// who may send it wants it for something.
#[derive(Debug)]
pub struct Body {
    /// Bytes of it.
    length: usize,
    content: Result<Content>,
    /// Paths of fields that stand twice in one object.
    twice: Vec<String>,
}

#[derive(Debug)]
enum Content {
    Object(Value),
    Change(Change),
}

impl Content {
    /// Refuses what is larger than any object, before anything is made of it under a lock. What a patch of operations comes
    /// to is seen only then.
    fn check_size(self) -> Result<Self> {
        let (Self::Object(value) | Self::Change(Change::Merge(value) | Change::Strategic(value))) = &self
        else {
            return Ok(self);
        };
        if object::fits(value) { Ok(self) } else { Err(Failure::too_large(OBJECT_LIMIT)) }
    }
}

impl Body {
    /// Reads the body of a request. The time it takes, and the memory, grow with its length; one beyond [`BODY_LIMIT`]
    /// is not looked at.
    pub fn of<B: AsRef<[u8]>>(request: &Request<B>) -> Self {
        let (method, headers, bytes) = (request.method(), request.headers(), request.body().as_ref());
        let length = bytes.len();
        let wanted = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method);
        if !wanted || length > BODY_LIMIT {
            return Self { length, content: Ok(Content::Object(Value::Null)), twice: Vec::new() };
        }
        let content = match (method, route::content_type(headers)) {
            (&Method::PATCH, patch::APPLY) => yaml(bytes).map(Content::Object),
            (&Method::PATCH, media_type) => patch::read(media_type, bytes).map(Content::Change),
            _ => decode(headers, bytes).map(Content::Object),
        };
        let content = content.and_then(Content::check_size);
        let validation = Query::parse(request.uri().query().unwrap_or_default());
        let strict = *method != Method::DELETE && validation.text("fieldValidation") != "Ignore";
        let twice = if strict && content.is_ok() { duplicates(bytes) } else { Vec::new() };
        Self { length, content, twice }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(crate) fn is_too_large(&self) -> bool {
        self.length > BODY_LIMIT
    }

    /// The object that was sent, in any of the forms that objects come in.
    pub(crate) fn object(self) -> Result<Value> {
        match self.content? {
            Content::Object(object) => Ok(object),
            Content::Change(_) => Err(Failure::unsupported_media_type(&[JSON, YAML, PROTOBUF])),
        }
    }

    /// As [`Body::object`], for a first look.
    pub(crate) fn peek(&self) -> Result<&Value> {
        match &self.content {
            Ok(Content::Object(object)) => Ok(object),
            Ok(Content::Change(_)) => Err(Failure::unsupported_media_type(&[JSON, YAML, PROTOBUF])),
            Err(failure) => Err(failure.clone()),
        }
    }

    /// The patch that was sent, which is no configuration to apply.
    pub(crate) fn change(self) -> Result<Change> {
        match self.content? {
            Content::Change(change) => Ok(change),
            Content::Object(_) => Err(Failure::bad_request("error decoding patch: it is an object")),
        }
    }

    /// Takes the paths of fields that stand twice; none were looked for where the request says not to.
    pub(crate) fn take_duplicates(&mut self) -> Vec<String> {
        std::mem::take(&mut self.twice)
    }
}

/// The body of a request that is no patch. kubectl's generators and other typed clients send protobuf for built-in
/// kinds, and do not fall back to anything else when it is refused.
fn decode(headers: &HeaderMap, body: &[u8]) -> Result<Value> {
    match route::content_type(headers) {
        "" | JSON => serde_json::from_slice(body)
            .map_err(|error| Failure::bad_request(format!("the object provided is unrecognized: {error}"))),
        YAML => yaml(body),
        PROTOBUF => protobuf::decode(body).map_err(|fault| match fault {
            // Clients that know several forms can take another one.
            protobuf::Fault::UnknownKind(_) => Failure::unsupported_media_type(&[JSON, YAML]),
            other => Failure::bad_request(format!("the object provided is unrecognized: {other}")),
        }),
        _ => Err(Failure::unsupported_media_type(&[JSON, YAML, PROTOBUF])),
    }
}

/// YAML, of which JSON is a part.
fn yaml(body: &[u8]) -> Result<Value> {
    // JSON first: it is what programs send, and is read many times faster as such.
    let parsed = serde_json::from_slice(body).or_else(|_| {
        let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
        // The text itself, which the parser would quote, is the client's.
        serde_saphyr::from_str(text).map_err(|error| error.without_snippet().to_string())
    });
    parsed.map_err(|error| Failure::bad_request(format!("error decoding YAML: {error}")))
}

#[cfg(test)]
mod tests;

//! From the bytes of a request to a JSON value: JSON, YAML, or Kubernetes' protobuf for built-in kinds. Pure.

mod duplicates;
mod protobuf;

use http::HeaderMap;
use serde_json::Value;

use crate::{
    route,
    status::{Failure, Result},
};

pub(crate) use duplicates::duplicates;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The body of a request that is no patch. kubectl's generators and other typed clients send protobuf for built-in
/// kinds, and do not fall back to anything else when it is refused.
pub(crate) fn decode(headers: &HeaderMap, body: &[u8]) -> Result<Value> {
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
pub(crate) fn yaml(body: &[u8]) -> Result<Value> {
    // JSON first: it is what programs send, and is read many times faster as such.
    let parsed = serde_json::from_slice(body).or_else(|_| {
        let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    });
    parsed.map_err(|error| Failure::bad_request(format!("error decoding YAML: {error}")))
}

#[cfg(test)]
mod tests;

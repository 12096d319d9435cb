//! `tekton.dev/v1alpha1`: VerificationPolicy (contract 1.7).

use k8s_openapi::api::core::v1::SecretReference;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::v1::or_default;

/// Whose signatures resources from which places must bear.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "tekton.dev",
    version = "v1alpha1",
    kind = "VerificationPolicy",
    plural = "verificationpolicies",
    namespaced,
    schema = "disabled",
    derive = "Default",
    derive = "PartialEq",
    doc = "Whose signatures resources from which places must bear."
)]
#[serde(rename_all = "camelCase")]
pub struct VerificationPolicySpec {
    /// The places; one that matches is enough.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<ResourcePattern>,
    /// The keys; a signature by one of them is enough.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub authorities: Vec<Authority>,
    /// `enforce`, which empty means too, or `warn`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub mode: String,
}

/// Places that resources come from.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct ResourcePattern {
    /// A regular expression for the whole URI of a source, less its `git+`.
    #[serde(default, deserialize_with = "or_default")]
    pub pattern: String,
}

/// Someone who signs.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Authority {
    /// For people.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// The public key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyRef>,
}

/// A public key, from exactly one place.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyRef {
    /// A Secret that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretReference>,
    /// The key itself, as PEM.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub data: String,
    /// Its URL at a service that manages keys.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub kms: String,
    /// `sha224`, `sha256`, which empty means too, `sha384` or `sha512`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub hash_algorithm: String,
}

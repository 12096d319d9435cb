//! `resolution.tekton.dev/v1beta1`: ResolutionRequest (contract 1.7). What v1alpha1 has otherwise is in
//! `conversion/resolution.rs`.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conditions::Condition;
use crate::v1::{Param, RefSource, or_default};

/// A question to a resolver: the text of one Task, Pipeline or StepAction from elsewhere.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "resolution.tekton.dev",
    version = "v1beta1",
    kind = "ResolutionRequest",
    namespaced,
    schema = "disabled",
    status = "ResolutionRequestStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "A question to a resolver: the text of one Task, Pipeline or StepAction from elsewhere."
)]
pub struct ResolutionRequestSpec {
    /// What the resolver is to look for.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<Param>,
    /// The same in one URL, as the name of a reference gives it.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub url: String,
}

/// The answer.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolutionRequestStatus {
    /// The generation last acted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Succeeded`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What the resolver tells besides: the type of the content, the revision.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The text found, in base64.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub data: String,
    /// Where it is from; deprecated, `refSource` says the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<RefSource>,
    /// Where it is from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ref_source: Option<RefSource>,
}

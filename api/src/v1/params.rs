//! Params and results, declared and given (contract 1.1).

use std::collections::BTreeMap;

use ropewalk_entrypoint_protocol::value::{ParamType, ParamValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::or_default;

/// A declared param of a Task, Pipeline or StepAction.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParamSpec {
    /// The name `$(params.<name>)` refers to.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// `string`, `array` or `object`; inferred by defaulting when absent. Kept as text so that a wrong one can be refused by name.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub param_type: Option<String>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The keys of an object param.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, PropertySpec>,
    /// The value when the run gives none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<ParamValue>,
    /// The only values allowed.
    #[serde(
        rename = "enum",
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub allowed: Vec<String>,
}

impl ParamSpec {
    /// The declared type, or the inferred one of contract 3.3: properties, then the default's type, then string.
    /// An unknown type text reads as string; validation refuses it.
    pub fn value_type(&self) -> ParamType {
        match self.param_type.as_deref() {
            Some("array") => ParamType::Array,
            Some("object") => ParamType::Object,
            Some("") | None if !self.properties.is_empty() => ParamType::Object,
            Some("") | None => self.default.as_ref().map_or(ParamType::String, ParamValue::kind),
            Some(_) => ParamType::String,
        }
    }
}

/// The type of one key of an object param or result.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct PropertySpec {
    /// Only `string` is allowed.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub property_type: Option<String>,
}

/// A given param.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Param {
    /// The declared name.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// What it is set to.
    #[serde(default)]
    pub value: ParamValue,
}

/// A result a Task declares.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct TaskResult {
    /// The file name under `/tekton/results`.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// `string`, `array` or `object`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub result_type: Option<String>,
    /// The keys of an object result.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, PropertySpec>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Taken from this one step result instead of a file of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<ParamValue>,
}

impl TaskResult {
    /// The declared type; properties make an object, anything else undeclared is a string (contract 3.3).
    pub fn value_type(&self) -> ParamType {
        match self.result_type.as_deref() {
            Some("array") => ParamType::Array,
            Some("object") => ParamType::Object,
            Some("") | None if !self.properties.is_empty() => ParamType::Object,
            _ => ParamType::String,
        }
    }
}

/// A result a step declares.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct StepResult {
    /// The file name under the step's results directory.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// `string`, `array` or `object`; an untyped result takes the type of its content (contract 5.6).
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub result_type: Option<String>,
    /// The keys of an object result.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, PropertySpec>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A result a Pipeline declares.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct PipelineResult {
    /// Its name in the run's status.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// `string`, `array` or `object`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub result_type: Option<String>,
    /// For people.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// An expression over task results.
    #[serde(default)]
    pub value: ParamValue,
}

/// A result of a TaskRun or of one of its steps, in status.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct TaskRunResult {
    /// The declared name.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// `string`, `array` or `object`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub result_type: Option<String>,
    /// What the step wrote.
    #[serde(default)]
    pub value: ParamValue,
}

/// A result of a PipelineRun, in status.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct PipelineRunResult {
    /// The declared name.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// The value after substitution.
    #[serde(default)]
    pub value: ParamValue,
}

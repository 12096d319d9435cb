//! Values of params and results: a string, an array of strings, or an object of strings
//! (contract 1.1, table in 12.5). Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// The three types a param or result can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ParamType {
    /// One string.
    #[default]
    String,
    /// A list of strings.
    Array,
    /// A map from string to string.
    Object,
}

impl ParamType {
    /// The word used in specs and messages: `string`, `array` or `object`.
    pub fn as_str(self) -> &'static str {
        match self {
            ParamType::String => "string",
            ParamType::Array => "array",
            ParamType::Object => "object",
        }
    }
}

impl std::fmt::Display for ParamType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The value of a param or result.
///
/// Reading never fails: whatever does not fit one of the three types is kept as the text of its
/// JSON. Writing follows the type held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParamValue {
    /// One string.
    String(String),
    /// A list of strings, possibly empty.
    Array(Vec<String>),
    /// A map from key to string, possibly empty.
    Object(BTreeMap<String, String>),
}

impl ParamValue {
    /// The value a JSON document holds, by the rule of contract 1.1.
    ///
    /// `null` is the empty string, also inside arrays and objects. Numbers, booleans, and arrays or
    /// objects with elements other than strings become their compact JSON text.
    pub fn from_json(value: &Value) -> Self {
        typed(value).unwrap_or_else(|| ParamValue::String(value.to_string()))
    }

    /// The value the content of a result file stands for (contract 12.5).
    ///
    /// The type is chosen by the very first byte, so a blank before `[` or `{` makes the content a
    /// string, as does anything that is no JSON at all; such text is kept as it is.
    pub fn decode(text: &str) -> Self {
        serde_json::from_str(text)
            .ok()
            .filter(|value| {
                !matches!(value, Value::Array(_) | Value::Object(_)) || text.starts_with(['[', '{'])
            })
            .and_then(|value| typed(&value))
            .unwrap_or_else(|| text.into())
    }

    /// The type of this value.
    pub fn kind(&self) -> ParamType {
        match self {
            ParamValue::String(_) => ParamType::String,
            ParamValue::Array(_) => ParamType::Array,
            ParamValue::Object(_) => ParamType::Object,
        }
    }

    /// The string, when this is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            ParamValue::String(text) => Some(text),
            ParamValue::Array(_) | ParamValue::Object(_) => None,
        }
    }
}

/// The value of a document that has one of the three types, counting `null` as the empty string.
fn typed(value: &Value) -> Option<ParamValue> {
    match value {
        Value::Array(items) => items.iter().map(string_or_null).collect::<Option<_>>().map(ParamValue::Array),
        Value::Object(entries) => entries
            .iter()
            .map(|(key, value)| Some((key.clone(), string_or_null(value)?)))
            .collect::<Option<_>>()
            .map(ParamValue::Object),
        other => string_or_null(other).map(ParamValue::String),
    }
}

fn string_or_null(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}

impl Default for ParamValue {
    fn default() -> Self {
        ParamValue::String(String::new())
    }
}

impl From<&str> for ParamValue {
    fn from(text: &str) -> Self {
        ParamValue::String(text.to_owned())
    }
}

impl From<String> for ParamValue {
    fn from(text: String) -> Self {
        ParamValue::String(text)
    }
}

impl<'de> Deserialize<'de> for ParamValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(ParamValue::from_json(&Value::deserialize(deserializer)?))
    }
}

impl Serialize for ParamValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            ParamValue::String(text) => text.serialize(serializer),
            ParamValue::Array(items) => items.serialize(serializer),
            ParamValue::Object(entries) => entries.serialize(serializer),
        }
    }
}

/// Schemaless as upstream's: no structural schema can say "string, or array, or object".
#[cfg(feature = "schemars")]
impl schemars::JsonSchema for ParamValue {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ParamValue".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn array(items: &[&str]) -> ParamValue {
        ParamValue::Array(items.iter().map(ToString::to_string).collect())
    }

    fn object(entries: &[(&str, &str)]) -> ParamValue {
        ParamValue::Object(entries.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
    }

    #[rstest]
    #[case(json!("x"), "x".into())]
    #[case(json!(1), "1".into())]
    #[case(json!(1.5), "1.5".into())]
    #[case(json!(true), "true".into())]
    #[case(json!(null), "".into())]
    #[case(json!("[\"a\"]"), "[\"a\"]".into())]
    #[case(json!(["a", "b"]), array(&["a", "b"]))]
    #[case(json!([]), array(&[]))]
    #[case(json!(["a", null]), array(&["a", ""]))]
    #[case(json!(["a", 1]), r#"["a",1]"#.into())]
    #[case(json!([["a"]]), r#"[["a"]]"#.into())]
    #[case(json!({"k": "v"}), object(&[("k", "v")]))]
    #[case(json!({}), object(&[]))]
    #[case(json!({"k": null}), object(&[("k", "")]))]
    #[case(json!({"k": 1}), r#"{"k":1}"#.into())]
    #[case(json!({"k": {}}), r#"{"k":{}}"#.into())]
    fn reads_json_by_the_contract_table(#[case] given: Value, #[case] expected: ParamValue) {
        assert_eq!(ParamValue::from_json(&given), expected);
        assert_eq!(serde_json::from_value::<ParamValue>(given).ok(), Some(expected));
    }

    #[rstest]
    #[case("abc", "abc".into())]
    #[case("abc\n", "abc\n".into())]
    #[case("\"abc\"", "abc".into())]
    #[case("\"abc\"\n", "abc".into())]
    #[case("", "".into())]
    #[case("null", "".into())]
    #[case("1.50", "1.50".into())]
    #[case(r#"["a","b"]"#, array(&["a", "b"]))]
    #[case("[\"a\",\"b\"]\n", array(&["a", "b"]))]
    #[case(r#" ["a"]"#, r#" ["a"]"#.into())]
    #[case("[1, 2]", "[1, 2]".into())]
    #[case("[\"a\"", "[\"a\"".into())]
    #[case(r#"["a",null]"#, array(&["a", ""]))]
    #[case(r#"{"k":"v"}"#, object(&[("k", "v")]))]
    #[case(r#"{"k": 1}"#, r#"{"k": 1}"#.into())]
    #[case("{}", object(&[]))]
    fn decodes_result_files(#[case] content: &str, #[case] expected: ParamValue) {
        assert_eq!(ParamValue::decode(content), expected);
    }

    #[rstest]
    #[case("x".into(), json!("x"), ParamType::String)]
    #[case(array(&["a"]), json!(["a"]), ParamType::Array)]
    #[case(object(&[("k", "v")]), json!({"k": "v"}), ParamType::Object)]
    fn writes_by_type(#[case] value: ParamValue, #[case] expected: Value, #[case] kind: ParamType) {
        assert_eq!(serde_json::to_value(&value).ok(), Some(expected));
        assert_eq!(value.kind(), kind);
    }
}

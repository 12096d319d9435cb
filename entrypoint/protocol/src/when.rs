//! `when` expressions of pipeline tasks and steps (contract 1.1). Pure.

use serde::{Deserialize, Deserializer, Serialize};

/// One guard: `input` must (or must not) be among `values`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WhenExpression {
    /// The value looked for; may hold variables.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub input: String,
    /// `in` or `notin`.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub operator: String,
    /// The values compared with; may hold variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub values: Vec<String>,
    /// A CEL expression in place of the other three.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub cel: String,
}

impl WhenExpression {
    /// Whether the guard lets its task or step run, once all variables are substituted.
    ///
    /// An operator other than `in` and `notin` (validation refuses it) lets nothing run. `cel` is not
    /// looked at: whoever supports it evaluates it instead of calling this.
    pub fn evaluate(&self) -> bool {
        match self.operator.as_str() {
            "in" => self.values.contains(&self.input),
            "notin" => !self.values.contains(&self.input),
            _ => false,
        }
    }
}

/// Typed Go clients write `null` for an empty list.
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("a", "in", &["a", "b"], true)]
    #[case("c", "in", &["a", "b"], false)]
    #[case("a", "notin", &["a"], false)]
    #[case("c", "notin", &["a"], true)]
    #[case("", "in", &[""], true)]
    #[case("", "in", &[], false)]
    #[case("", "notin", &[], true)]
    #[case("a", "exists", &["a"], false)]
    fn evaluates(#[case] input: &str, #[case] operator: &str, #[case] values: &[&str], #[case] runs: bool) {
        let when = WhenExpression {
            input: input.into(),
            operator: operator.into(),
            values: values.iter().map(ToString::to_string).collect(),
            cel: String::new(),
        };
        assert_eq!(when.evaluate(), runs);
    }

    #[test]
    fn reads_nulls_and_writes_no_empties() {
        let when: Result<WhenExpression, _> =
            serde_json::from_str(r#"{"input": "a", "operator": "in", "values": null}"#);
        let when = when.unwrap_or_default();
        assert_eq!(when.input, "a");
        assert_eq!(serde_json::to_string(&when).ok().as_deref(), Some(r#"{"input":"a","operator":"in"}"#));
    }
}

//! Carrying a typed change over to the JSON it was read from. Pure.

use serde_json::{Map, Value};

/// Applies to `original` what changed from `before` to `after`, its typed readings. What the types do not know, and how
/// what they know was spelled, stays.
pub(crate) fn merge(original: &mut Value, before: &Value, after: &Value) {
    if before == after {
        return;
    }
    match (original, before, after) {
        (Value::Object(original), Value::Object(before), Value::Object(after)) => {
            merge_objects(original, before, after);
        }
        (Value::Array(original), Value::Array(before), Value::Array(after))
            if original.len() == before.len() && before.len() == after.len() =>
        {
            for ((original, before), after) in original.iter_mut().zip(before).zip(after) {
                merge(original, before, after);
            }
        }
        (original, _, after) => *original = after.clone(),
    }
}

fn merge_objects(original: &mut Map<String, Value>, before: &Map<String, Value>, after: &Map<String, Value>) {
    for (key, after) in after {
        let original = original.entry(key.clone()).or_insert(Value::Null);
        merge(original, before.get(key).unwrap_or(&Value::Null), after);
    }
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        original.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::added(json!({"a": 1}), json!({"a": 1}), json!({"a": 1, "b": 2}), json!({"a": 1, "b": 2}))]
    #[case::foreign(json!({"x": 9}), json!({}), json!({"b": 2}), json!({"x": 9, "b": 2}))]
    #[case::removed(json!({"a": 1, "x": 9}), json!({"a": 1}), json!({}), json!({"x": 9}))]
    #[case::null(json!({"a": null}), json!({}), json!({"a": {"b": 1}}), json!({"a": {"b": 1}}))]
    #[case::spelling(json!({"a": 1, "b": {}}), json!({"a": "1"}), json!({"a": "1", "c": 3}), json!({"a": 1, "b": {}, "c": 3}))]
    #[case::in_lists(
        json!([{"x": 9}, {"a": 1}]),
        json!([{}, {"a": 1}]),
        json!([{"k": 1}, {"a": 1}]),
        json!([{"x": 9, "k": 1}, {"a": 1}])
    )]
    #[case::longer_list(json!([1]), json!([1]), json!([1, 2]), json!([1, 2]))]
    fn merges(#[case] original: Value, #[case] before: Value, #[case] after: Value, #[case] expected: Value) {
        let mut merged = original;
        merge(&mut merged, &before, &after);
        assert_eq!(merged, expected);
    }
}

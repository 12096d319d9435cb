//! Carrying a typed change over to the JSON it was read from. Pure.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Result, Value};

type Fields<'a> = BTreeMap<String, &'a RawValue>;

/// Applies to `original` what changed from `before` to `after`, its typed readings as they are written by the same code.
/// What the types do not know, and how what they know was spelled, stays.
///
/// The readings are texts because a [`Value`] takes up to a hundred times the memory, and most of an object is not changed.
///
/// # Errors
/// A reading that is no JSON.
pub(crate) fn merge(original: &mut Value, before: &RawValue, after: &RawValue) -> Result<()> {
    if before.get() == after.get() {
        return Ok(());
    }
    match original {
        Value::Object(original) if is_map(before) && is_map(after) => {
            return merge_objects(original, &read(before)?, read(after)?);
        }
        Value::Array(original) if is_list(before) && is_list(after) => {
            let (before, after): (Vec<&RawValue>, Vec<&RawValue>) = (read(before)?, read(after)?);
            if original.len() == before.len() && before.len() == after.len() {
                let mut items = original.iter_mut().zip(before).zip(after);
                return items.try_for_each(|((original, before), after)| merge(original, before, after));
            }
        }
        _ => {}
    }
    *original = read(after)?;
    Ok(())
}

fn merge_objects(original: &mut Map<String, Value>, before: &Fields<'_>, after: Fields<'_>) -> Result<()> {
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        original.remove(key);
    }
    for (key, after) in after {
        let before = before.get(&key).copied().unwrap_or(RawValue::NULL);
        merge(original.entry(key).or_insert(Value::Null), before, after)?;
    }
    Ok(())
}

fn is_map(text: &RawValue) -> bool {
    text.get().starts_with('{')
}

fn is_list(text: &RawValue) -> bool {
    text.get().starts_with('[')
}

fn read<'a, T: serde::Deserialize<'a>>(text: &'a RawValue) -> Result<T> {
    serde_json::from_str(text.get())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;
    use serde_json::value::to_raw_value;

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
    #[case::names_that_are_escaped(json!({"\"a\n\"": "x"}), json!({}), json!({"\"a\n\"": "é\\"}), json!({"\"a\n\"": "é\\"}))]
    #[case::longer_list(json!([1]), json!([1]), json!([1, 2]), json!([1, 2]))]
    fn merges(#[case] original: Value, #[case] before: Value, #[case] after: Value, #[case] expected: Value) {
        let mut merged = original;
        merge(&mut merged, &to_raw_value(&before).unwrap(), &to_raw_value(&after).unwrap()).unwrap();
        assert_eq!(merged, expected);
    }
}

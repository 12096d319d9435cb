//! The combinations a matrix fans out to (contract 7.2). Pure.

use std::collections::BTreeMap;

use ropewalk_api::{Matrix, Param, ParamType, ParamValue, PipelineTask};

/// One child of a matrix.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Combination {
    /// Its params, by name.
    pub(super) params: BTreeMap<String, String>,
    /// The names of the `include` entries that went into it.
    pub(super) display_name: String,
}

/// Why a matrix has no combinations.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum MatrixError {
    /// A param of another type. The sentence is upstream's, slip included, because tools compare it (contract
    /// 7.2).
    #[error(
        "[User error] Failed to validate matrix \"parameters of type {expected} only are allowed, but param \
         \"{param}\" has type \"{actual}\" in pipelineTask \"{task}\"\" with error %!v(MISSING)"
    )]
    Type { task: String, param: String, expected: ParamType, actual: ParamType },
    /// More children than the configuration allows.
    #[error(
        "[User error] pipeline task \"{task}\" has {count} matrix combinations, and no more than {limit} \
         are allowed: shorten its arrays, or raise \"default-max-matrix-combinations-count\""
    )]
    TooMany { task: String, count: usize, limit: usize },
}

/// The matrix of a task that fans out; an empty one does not.
pub(super) fn of(task: &PipelineTask) -> Option<&Matrix> {
    task.matrix.as_ref().filter(|matrix| !matrix.params.is_empty() || !matrix.include.is_empty())
}

/// The combinations of a matrix whose variables are all replaced; none when an array is empty.
pub(super) fn combinations(
    task: &str,
    matrix: &Matrix,
    limit: usize,
) -> Result<Vec<Combination>, MatrixError> {
    let mut arrays = Vec::new();
    for param in &matrix.params {
        match &param.value {
            ParamValue::Array(items) => arrays.push((&param.name, items)),
            other => return Err(mistyped(task, param, ParamType::Array, other.kind())),
        }
    }
    let mut includes = Vec::new();
    for include in &matrix.include {
        let mut entry = Vec::new();
        for param in &include.params {
            match &param.value {
                ParamValue::String(text) => entry.push((&param.name, text)),
                other => return Err(mistyped(task, param, ParamType::String, other.kind())),
            }
        }
        includes.push((include.name.as_str(), entry));
    }

    let grid = arrays
        .iter()
        .fold(usize::from(!arrays.is_empty()), |product, (_, items)| product.saturating_mul(items.len()));
    if grid == 0 && !arrays.is_empty() {
        return Ok(Vec::new());
    }
    // Upstream counts its children apart from its combinations: an entry with several new values makes
    // surplus ones.
    let listed = |name: &String, value: &String| {
        arrays.iter().find(|(array, _)| *array == name).map(|(_, items)| items.contains(value))
    };
    let added: usize = if arrays.is_empty() {
        includes.len()
    } else {
        let new = |entry: &[(&String, &String)]| {
            let known = entry.iter().filter_map(|(name, value)| listed(name, value));
            known.take_while(|is_listed| !is_listed).count()
        };
        includes.iter().map(|(_, entry)| new(entry)).sum()
    };
    let count = grid.saturating_add(added);
    if count > limit {
        return Err(MatrixError::TooMany { task: task.to_owned(), count, limit });
    }

    let mut found: Vec<Combination> = (0..grid).map(|number| in_grid(&arrays, number)).collect();
    for (name, entry) in &includes {
        let agrees = |combination: &Combination| {
            entry.iter().all(|(name, value)| combination.params.get(*name).is_none_or(|held| held == *value))
        };
        for combination in found.iter_mut().filter(|combination| agrees(combination)) {
            extend(combination, name, entry);
        }
    }
    for (name, entry) in &includes {
        let occurs = |combination: &Combination| {
            entry.iter().any(|(name, value)| combination.params.get(*name) == Some(*value))
        };
        if arrays.is_empty() || !found.iter().any(occurs) {
            let mut combination = Combination::default();
            extend(&mut combination, name, entry);
            found.push(combination);
        }
    }
    if found.len() < count {
        found.resize(count, Combination::default());
    }
    Ok(found)
}

fn mistyped(task: &str, param: &Param, expected: ParamType, actual: ParamType) -> MatrixError {
    MatrixError::Type { task: task.to_owned(), param: param.name.clone(), expected, actual }
}

/// The first array varies fastest.
fn in_grid(arrays: &[(&String, &Vec<String>)], number: usize) -> Combination {
    let mut rest = number;
    let mut combination = Combination::default();
    for (name, items) in arrays {
        combination.params.insert((*name).clone(), items[rest % items.len()].clone());
        rest /= items.len();
    }
    combination
}

fn extend(combination: &mut Combination, name: &str, entry: &[(&String, &String)]) {
    for (name, value) in entry {
        combination.params.insert((*name).clone(), (*value).clone());
    }
    if !name.is_empty() {
        if !combination.display_name.is_empty() {
            combination.display_name.push(' ');
        }
        combination.display_name.push_str(name);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fan_out(matrix: serde_json::Value) -> Result<Vec<String>, String> {
        let matrix = serde_json::from_value(matrix).expect("a matrix");
        let found = combinations("t", &matrix, 256).map_err(|error| error.to_string())?;
        let line = |combination: Combination| {
            let params: Vec<String> =
                combination.params.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("{} [{}]", params.join(" "), combination.display_name)
        };
        Ok(found.into_iter().map(line).collect())
    }

    fn grid(include: &serde_json::Value) -> serde_json::Value {
        json!({
            "params": [{"name": "os", "value": ["linux", "mac"]}, {"name": "arch", "value": ["x", "y", "z"]}],
            "include": include,
        })
    }

    fn entry(name: &str, params: &[(&str, &str)]) -> serde_json::Value {
        let params: Vec<_> =
            params.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        json!({"name": name, "params": params})
    }

    /// Contract 12.9.
    #[test]
    fn the_worked_example() {
        let include = json!([
            entry("common", &[("flags", "-a")]),
            entry("macs", &[("os", "mac"), ("extra", "e")]),
            entry("clash", &[("os", "linux"), ("arch", "z"), ("flags", "-b")]),
            entry("fresh", &[("os", "bsd"), ("arch", "w")]),
            entry("mixed", &[("os", "bsd2"), ("arch", "x")]),
        ]);
        assert_eq!(
            fan_out(grid(&include)).expect("combinations"),
            [
                "arch=x flags=-a os=linux [common]",
                "arch=x extra=e flags=-a os=mac [common macs]",
                "arch=y flags=-a os=linux [common]",
                "arch=y extra=e flags=-a os=mac [common macs]",
                "arch=z flags=-a os=linux [common]",
                "arch=z extra=e flags=-a os=mac [common macs]",
                "arch=w os=bsd [fresh]",
                " []",
                " []",
            ]
        );
    }

    #[test]
    fn an_earlier_entry_keeps_a_later_one_out() {
        let include = json!([
            entry("clash", &[("os", "linux"), ("arch", "z"), ("flags", "-b")]),
            entry("common", &[("flags", "-a")]),
        ]);
        let found = fan_out(grid(&include)).expect("combinations");
        assert_eq!(found[4], "arch=z flags=-b os=linux [clash]");
        assert_eq!(found[0], "arch=x flags=-a os=linux [common]");
        assert_eq!(found.len(), 6);
    }

    #[test]
    fn include_alone_makes_one_each() {
        let matrix = json!({"include": [entry("a", &[("v", "1")]), entry("", &[("v", "1"), ("w", "2")])]});
        assert_eq!(fan_out(matrix).expect("combinations"), ["v=1 [a]", "v=1 w=2 []"]);
    }

    #[test]
    fn an_empty_array_makes_none() {
        let matrix = json!({"params": [{"name": "a", "value": []}, {"name": "b", "value": ["x"]}]});
        assert_eq!(fan_out(matrix), Ok(Vec::new()));
    }

    #[test]
    fn wrong_types_and_sizes_are_refused() {
        let text = fan_out(json!({"params": [{"name": "p", "value": "x"}]})).expect_err("no combinations");
        assert_eq!(
            text,
            "[User error] Failed to validate matrix \"parameters of type array only are allowed, but param \
             \"p\" has type \"string\" in pipelineTask \"t\"\" with error %!v(MISSING)"
        );
        let long: Vec<String> = (0..1_000).map(|i| i.to_string()).collect();
        let huge: Vec<_> = (0..30).map(|i| json!({"name": i.to_string(), "value": long})).collect();
        let text = fan_out(json!({ "params": huge })).expect_err("too many");
        assert!(text.contains("no more than 256 are allowed"), "{text}");
    }
}

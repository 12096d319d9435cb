//! Errors of validation: collected, merged and rendered as the clients of upstream's webhook know them (contract 2).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One thing wrong with an object, at one or several fields.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct FieldError {
    /// What, without the path: `missing field(s)`.
    pub message: String,
    /// Where, from the root of the object; an empty path is the object validated itself.
    pub paths: Vec<String>,
    /// More, on a line of its own; may be empty.
    pub details: String,
    /// The part of the field's text that is at fault, when it is not all of it; not in the text clients see, which is
    /// upstream's. Tools underline it.
    pub culprit: String,
    /// What would mend it, for tools; may be empty.
    pub hint: String,
    /// Where tools should point, when upstream's path names something larger; may be empty.
    pub place: String,
}

impl FieldError {
    /// A message of its own.
    pub fn new(message: impl Into<String>, paths: &[&str]) -> Self {
        Self {
            message: message.into(),
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            details: String::new(),
            culprit: String::new(),
            hint: String::new(),
            place: String::new(),
        }
    }

    /// `missing field(s): …`
    pub fn missing(paths: &[&str]) -> Self {
        Self::new("missing field(s)", paths)
    }

    /// `must not set the field(s): …`
    pub fn disallowed(paths: &[&str]) -> Self {
        Self::new("must not set the field(s)", paths)
    }

    /// `expected exactly one, got both: …`
    pub fn both(paths: &[&str]) -> Self {
        Self::new("expected exactly one, got both", paths)
    }

    /// `expected exactly one, got neither: …`
    pub fn neither(paths: &[&str]) -> Self {
        Self::new("expected exactly one, got neither", paths)
    }

    /// `invalid value: V: path`
    pub fn invalid(value: impl fmt::Display, path: &str) -> Self {
        Self::new(format!("invalid value: {value}"), &[path])
    }

    /// `expected L <= V <= U: path`
    pub fn out_of_bounds(
        value: impl fmt::Display,
        lower: impl fmt::Display,
        upper: impl fmt::Display,
        path: &str,
    ) -> Self {
        Self::new(format!("expected {lower} <= {value} <= {upper}"), &[path])
    }

    /// Adds the details.
    #[must_use]
    pub fn detail(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// Says which part of the field is at fault.
    #[must_use]
    pub fn culprit(mut self, culprit: impl Into<String>) -> Self {
        self.culprit = culprit.into();
        self
    }

    /// Says where tools should point.
    #[must_use]
    pub fn place(mut self, place: impl Into<String>) -> Self {
        self.place = place.into();
        self
    }

    /// Says what would mend it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.message, self.paths.join(", "))?;
        if self.details.is_empty() { Ok(()) } else { write!(f, "\n{}", self.details) }
    }
}

/// Everything wrong with an object. [`fmt::Display`] gives the text clients see.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    /// Nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one error.
    pub fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    /// Adds all errors of a part.
    pub fn also(&mut self, others: FieldErrors) {
        self.0.extend(others.0);
    }

    /// The same errors below a field: `name` becomes `<field>.name`.
    #[must_use]
    pub fn via_field(mut self, field: &str) -> Self {
        let below = |path: &str| match path {
            "" => field.to_owned(),
            below if below.starts_with('[') => format!("{field}{below}"),
            path => format!("{field}.{path}"),
        };
        for error in &mut self.0 {
            error.paths.iter_mut().for_each(|path| *path = below(path));
            if !error.place.is_empty() {
                error.place = below(&error.place);
            }
        }
        self
    }

    /// The same errors below an element of a list: `name` becomes `<field>[<index>].name`.
    #[must_use]
    pub fn via_index(self, field: &str, index: usize) -> Self {
        self.via_field(&format!("{field}[{index}]"))
    }

    /// The same errors below an element that is known by a key: `name` becomes `<field>[<key>].name`.
    #[must_use]
    pub fn via_key(self, field: &str, key: &str) -> Self {
        self.via_field(&format!("{field}[{key}]"))
    }

    /// The same errors at other paths.
    #[must_use]
    pub fn map_paths(mut self, path: impl Fn(&str) -> String) -> Self {
        for error in &mut self.0 {
            error.paths.iter_mut().for_each(|at| *at = path(at));
            if !error.place.is_empty() {
                error.place = path(&error.place);
            }
        }
        self
    }

    /// The errors that `others` does not hold as well: what a change adds to what was wrong before.
    #[must_use]
    pub fn without(mut self, others: &FieldErrors) -> Self {
        let others: BTreeSet<&FieldError> = others.0.iter().collect();
        self.0.retain(|error| !others.contains(error));
        self
    }

    /// The errors one by one, each with its own paths and none twice, for tools that show every place.
    pub fn distinct(&self) -> impl Iterator<Item = &FieldError> {
        let mut seen = BTreeSet::new();
        self.0.iter().filter(move |error| seen.insert((&error.message, &error.details, &error.paths)))
    }

    /// The errors with equal message and details merged, each with its paths sorted; sorted by message.
    pub fn merged(&self) -> Vec<FieldError> {
        let mut by_text: BTreeMap<(&str, &str), (&FieldError, BTreeSet<&str>)> = BTreeMap::new();
        for error in &self.0 {
            let (_, paths) =
                by_text.entry((&error.message, &error.details)).or_insert_with(|| (error, BTreeSet::new()));
            paths.extend(error.paths.iter().map(String::as_str));
        }
        by_text
            .into_values()
            .map(|(first, paths)| FieldError {
                paths: paths.into_iter().map(str::to_owned).collect(),
                ..first.clone()
            })
            .collect()
    }
}

impl From<FieldError> for FieldErrors {
    fn from(error: FieldError) -> Self {
        Self(vec![error])
    }
}

impl FromIterator<FieldError> for FieldErrors {
    fn from_iter<T: IntoIterator<Item = FieldError>>(errors: T) -> Self {
        Self(errors.into_iter().collect())
    }
}

impl fmt::Display for FieldErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.merged().iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_grow_from_the_inside() {
        let errors =
            FieldErrors::from(FieldError::missing(&["name"])).via_index("steps", 2).via_field("spec");
        assert_eq!(errors.to_string(), "missing field(s): spec.steps[2].name");
        let errors =
            FieldErrors::from(FieldError::new("bad", &[""])).via_key("params", "x").via_field("spec");
        assert_eq!(errors.to_string(), "bad: spec.params[x]");
    }

    #[test]
    fn equal_errors_are_merged_and_all_are_sorted() {
        let errors: FieldErrors = [
            FieldError::new("b", &["z", "y"]),
            FieldError::new("a", &["x"]).detail("why"),
            FieldError::new("b", &["a", "y"]),
        ]
        .into_iter()
        .collect();
        assert_eq!(errors.to_string(), "a: x\nwhy\nb: a, y, z");
    }
}

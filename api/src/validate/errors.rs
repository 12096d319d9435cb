//! Errors of validation: collected, merged and rendered as the clients of upstream's webhook know them (contract 2).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How much is kept of what is wrong with one object, in bytes. Errors quote what they are about, and so an object may have
/// as much of them as it is long, times over; clients are told a hundredth of this.
const MOST: usize = 4 << 20;

/// How many errors of one object are kept: nobody reads more, and one mistake made in every element of a long list is
/// known from the first of them. Those beyond are counted.
const MOST_ERRORS: usize = 1000;

/// How much of a name stands in a path, in bytes: more than a valid one has.
const LONGEST_NAME: usize = 256;

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

    fn size(&self) -> usize {
        let texts = [&self.message, &self.details, &self.culprit, &self.hint, &self.place];
        size_of::<Self>() + texts.into_iter().chain(&self.paths).map(String::len).sum::<usize>()
    }
}

/// A name as it stands in a path: all of it, but for those that are made to be long.
pub(super) fn shown(name: &str) -> &str {
    &name[..name.floor_char_boundary(LONGEST_NAME)]
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.message, self.paths.join(", "))?;
        if self.details.is_empty() { Ok(()) } else { write!(f, "\n{}", self.details) }
    }
}

/// Everything wrong with an object: the first thousand errors, up to 4 MB, and how many more there are.
/// [`fmt::Display`] gives the text clients see.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FieldErrors {
    all: Vec<FieldError>,
    /// Bytes of them.
    size: usize,
    /// How many there was no room for.
    more: usize,
}

impl FieldErrors {
    /// Nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty() && self.more == 0
    }

    /// Adds one error, or counts it when there is no room. There always is for one.
    pub fn push(&mut self, error: FieldError) {
        let size = self.size + error.size();
        // What comes after the first that is left out is left out as well: those kept are the first.
        let is_full = self.more > 0 || self.all.len() >= MOST_ERRORS || size > MOST;
        if is_full && !self.is_empty() {
            self.more += 1;
            return;
        }
        self.size = size;
        self.all.push(error);
    }

    /// Adds all errors of a part.
    pub fn also(&mut self, others: FieldErrors) {
        others.all.into_iter().for_each(|error| self.push(error));
        self.more += others.more;
    }

    /// The same errors below a field: `name` becomes `<field>.name`.
    #[must_use]
    pub fn via_field(self, field: &str) -> Self {
        let below = |path: &str| match path {
            "" => field.to_owned(),
            below if below.starts_with('[') => format!("{field}{below}"),
            path => format!("{field}.{path}"),
        };
        self.map_paths(below)
    }

    /// The same errors below an element of a list: `name` becomes `<field>[<index>].name`.
    #[must_use]
    pub fn via_index(self, field: &str, index: usize) -> Self {
        if self.all.is_empty() {
            return self;
        }
        self.via_field(&format!("{field}[{index}]"))
    }

    /// The same errors below an element that is known by a key: `name` becomes `<field>[<key>].name`.
    #[must_use]
    pub fn via_key(self, field: &str, key: &str) -> Self {
        if self.all.is_empty() {
            return self;
        }
        self.via_field(&format!("{field}[{}]", shown(key)))
    }

    /// The same errors at other paths.
    #[must_use]
    pub fn map_paths(self, path: impl Fn(&str) -> String) -> Self {
        let rename = |mut error: FieldError| {
            error.paths.iter_mut().for_each(|at| *at = path(at));
            if !error.place.is_empty() {
                error.place = path(&error.place);
            }
            error
        };
        let mut renamed: Self = self.all.into_iter().map(rename).collect();
        renamed.more += self.more;
        renamed
    }

    /// The errors that `others` does not hold as well: what a change adds to what was wrong before.
    #[must_use]
    pub fn without(mut self, others: &FieldErrors) -> Self {
        let known: BTreeSet<&FieldError> = others.all.iter().collect();
        self.all.retain(|error| !known.contains(error));
        self.more = self.more.saturating_sub(others.more);
        self
    }

    /// How many errors there are beside those that are kept.
    pub fn more(&self) -> usize {
        self.more
    }

    /// The errors one by one, each with its own paths and none twice, for tools that show every place.
    pub fn distinct(&self) -> impl Iterator<Item = &FieldError> {
        let mut seen = BTreeSet::new();
        self.all.iter().filter(move |error| seen.insert((&error.message, &error.details, &error.paths)))
    }

    /// The errors with equal message and details merged, each with its paths sorted; sorted by message.
    pub fn merged(&self) -> Vec<FieldError> {
        let mut by_text: BTreeMap<(&str, &str), (&FieldError, BTreeSet<&str>)> = BTreeMap::new();
        for error in &self.all {
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
        std::iter::once(error).collect()
    }
}

impl FromIterator<FieldError> for FieldErrors {
    fn from_iter<T: IntoIterator<Item = FieldError>>(errors: T) -> Self {
        let mut all = Self::default();
        errors.into_iter().for_each(|error| all.push(error));
        all
    }
}

impl fmt::Display for FieldErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.merged().iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        if self.more > 0 {
            let separator = if self.all.is_empty() { "" } else { "\n" };
            write!(f, "{separator}and {} more", self.more)?;
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

    /// Ten thousand bytes each, below a name of a megabyte.
    #[test]
    fn errors_take_no_more_than_they_may() {
        let one = FieldError::new("bad ".repeat(2 << 20), &["x"]);
        assert!(!FieldErrors::from(one).is_empty(), "there is room for one of any length");
        let long = "bad ".repeat(2500);
        let many = (0..900).map(|index| FieldError::new(format!("{long}{index}"), &["x"]));
        let errors = many.collect::<FieldErrors>().via_key("params", &"n".repeat(1 << 20));
        let kept = errors.distinct().count();
        assert!(kept > 300, "{kept}");
        assert_eq!(kept + errors.more(), 900);
        let size: usize = errors.distinct().map(FieldError::size).sum();
        assert!(size <= MOST, "{size}");
        assert_eq!(errors.distinct().next().unwrap().paths, [format!("params[{}].x", "n".repeat(256))]);
    }

    #[test]
    fn of_many_errors_the_first_are_kept_and_all_are_counted() {
        let wrong = |count: usize| {
            let mut errors = FieldErrors::default();
            for index in 0..count {
                errors.also(FieldErrors::from(FieldError::missing(&["name"])).via_index("steps", index));
            }
            errors.via_field("spec").map_paths(str::to_owned)
        };
        let errors = wrong(30_000);
        assert_eq!(errors.distinct().count(), 1000);
        assert_eq!(errors.distinct().last().unwrap().paths, ["spec.steps[999].name"]);
        assert!(errors.to_string().ends_with("\nand 29000 more"), "{errors}");
        assert!(wrong(1000).to_string().ends_with("spec.steps[99].name, spec.steps[9].name"));
        assert!(wrong(30_000).without(&errors).is_empty());
        assert_eq!(wrong(30_001).without(&errors).to_string(), "and 1 more");
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

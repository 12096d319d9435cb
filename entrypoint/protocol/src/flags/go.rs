//! Go's flag grammar, one argument at a time. Pure.

use super::FlagError;

/// Reads flags off the front of an argument list.
pub(super) struct Reader<'a> {
    args: &'a [String],
}

/// A flag with the `=value` it may have carried.
pub(super) struct Flag<'a> {
    pub(super) name: &'a str,
    inline: Option<&'a str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(args: &'a [String]) -> Self {
        Reader { args }
    }

    /// The next flag, or `None` at the first argument that is none; a `--` is consumed.
    pub(super) fn next_flag(&mut self) -> Result<Option<Flag<'a>>, FlagError> {
        let Some((first, rest)) = self.args.split_first() else { return Ok(None) };
        let Some(one) = first.strip_prefix('-').filter(|name| !name.is_empty()) else { return Ok(None) };
        self.args = rest;
        if one == "-" {
            return Ok(None);
        }
        let body = one.strip_prefix('-').unwrap_or(one);
        if body.starts_with(['-', '=']) {
            return Err(FlagError::Malformed(first.clone()));
        }
        Ok(Some(match body.split_once('=') {
            Some((name, value)) => Flag { name, inline: Some(value) },
            None => Flag { name: body, inline: None },
        }))
    }

    /// The value of a flag: after its `=`, or the argument that follows whatever it looks like.
    pub(super) fn value(&mut self, flag: &Flag<'a>) -> Result<&'a str, FlagError> {
        if let Some(value) = flag.inline {
            return Ok(value);
        }
        let (first, rest) =
            self.args.split_first().ok_or_else(|| FlagError::MissingValue(flag.name.to_owned()))?;
        self.args = rest;
        Ok(first)
    }

    /// What is left after the flags.
    pub(super) fn rest(self) -> &'a [String] {
        self.args
    }
}

impl Flag<'_> {
    /// The value of a boolean flag, which never takes the next argument.
    pub(super) fn boolean(&self, name: &'static str) -> Result<bool, FlagError> {
        match self.inline {
            None | Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(true),
            Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(false),
            Some(other) => Err(bad(name, other, &"expected \"true\" or \"false\"")),
        }
    }
}

/// Appends a flag and its value to a command line.
pub(super) fn push(line: &mut Vec<String>, flag: &str, value: &str) {
    line.extend([flag.to_owned(), value.to_owned()]);
}

/// Longest part of a bad value worth repeating; scripts are values too.
const SHOWN_CHARS: usize = 80;

pub(super) fn bad(flag: &'static str, value: &str, problem: &dyn std::fmt::Display) -> FlagError {
    FlagError::BadValue {
        flag,
        value: value.chars().take(SHOWN_CHARS).collect(),
        problem: problem.to_string(),
    }
}

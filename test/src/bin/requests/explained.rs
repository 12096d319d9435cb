//! The differences that remain, each with its reason: `test/requests/explained.yaml`, from which the table in
//! `docs/standalone-api.md` is written.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::compare::Difference;

/// Differences of one kind. In patterns a `*` stands for anything.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    /// What is different, as a heading.
    pub(crate) what: String,
    /// What a kube-apiserver of 1.20 does.
    pub(crate) kubernetes: String,
    /// What ours does.
    pub(crate) ropewalk: String,
    /// Why: the release of Kubernetes that does as ours, or what is won.
    pub(crate) why: String,
    /// Where: `KIND/CASE: STEP: PATH`, one of these.
    places: Vec<String>,
    /// What ours says there, as JSON; a `-` for nothing.
    ours: Option<String>,
    /// What a kube-apiserver says there, as JSON; a `-` for nothing.
    theirs: Option<String>,
}

impl Row {
    /// Whether a difference is one of these.
    pub(crate) fn covers(&self, difference: &Difference<'_>) -> bool {
        let Difference { case, step, path, ours, theirs } = difference;
        let place = format!("{case}: {step}: {path}");
        let says = |pattern: &Option<String>, value: Option<&Value>| {
            pattern.as_ref().is_none_or(|pattern| {
                let text = value.map_or_else(|| "-".to_owned(), ToString::to_string);
                matches(pattern.as_bytes(), text.as_bytes())
            })
        };
        self.places.iter().any(|pattern| matches(pattern.as_bytes(), place.as_bytes()))
            && says(&self.ours, *ours)
            && says(&self.theirs, *theirs)
    }
}

/// Whether a text is as the pattern says, where `*` stands for any text.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut next) = (0, 0);
    // Where the last star was, and how much of the text it stands for so far.
    let mut star: Option<(usize, usize)> = None;
    while at < text.len() {
        if pattern.get(next) == Some(&b'*') {
            star = Some((next, at));
            next += 1;
        } else if pattern.get(next) == Some(&text[at]) {
            next += 1;
            at += 1;
        } else if let Some((place, taken)) = star {
            star = Some((place, taken + 1));
            next = place + 1;
            at = taken + 1;
        } else {
            return false;
        }
    }
    pattern[next..].iter().all(|rest| *rest == b'*')
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All rows.
pub(crate) fn rows() -> Result<Vec<Row>> {
    let path = root().join("requests/explained.yaml");
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("cannot read \"{}\"", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("cannot understand \"{}\"", path.display()))
}

/// What the document has before its table.
const MARK: &str =
    "<!-- The table is written by `cargo run -p ropewalk-test --bin requests -- --write`. -->\n";

/// The document as it is, and as it should be.
pub(crate) fn document(rows: &[Row]) -> Result<(String, String)> {
    let path = root().join("../docs/standalone-api.md");
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("cannot read \"{}\"", path.display()))?;
    let (head, _) =
        text.split_once(MARK).with_context(|| format!("\"{}\" lacks its mark", path.display()))?;
    let mut table = format!("{head}{MARK}\n| what | Kubernetes 1.20 | Ropewalk | why |\n|---|---|---|---|\n");
    for row in rows {
        let cells =
            [&row.what, &row.kubernetes, &row.ropewalk, &row.why].map(|cell| cell.trim().replace('|', "\\|"));
        writeln!(table, "| {} |", cells.join(" | "))?;
    }
    Ok((text, table))
}

/// Writes the document.
pub(crate) fn write(document: &str) -> Result<()> {
    let path = root().join("../docs/standalone-api.md");
    std::fs::write(&path, document).with_context(|| format!("cannot write \"{}\"", path.display()))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stands_for_any_text() {
        let table = [
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acb", false),
            ("*b*", "abc", true),
            ("*ab", "aab", true),
            ("", "", true),
            ("", "a", false),
            ("a", "", false),
            ("**", "", true),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}

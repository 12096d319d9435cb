//! What is wrong, where, and what to do about it: one clear message for a person.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};

use crate::documents::Source;

/// One finding.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    message: String,
    warning: bool,
    count: usize,
    place: Option<(Arc<Source>, Range<usize>)>,
    hint: Option<String>,
}

/// A stretch of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place<'a> {
    /// The file, as the user named it.
    pub path: &'a Path,
    /// Line and column of its first character, both counted from 1, columns in characters.
    pub start: (usize, usize),
    /// Line and column behind its last character.
    pub end: (usize, usize),
}

impl Diagnostic {
    /// A finding without a place.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), warning: false, count: 1, place: None, hint: None }
    }

    /// Where it stands, as bytes of the source.
    #[must_use]
    pub fn at(mut self, source: Arc<Source>, bytes: Range<usize>) -> Self {
        self.place = Some((source, bytes));
        self
    }

    /// Something that goes on all the same.
    #[must_use]
    pub fn as_warning(mut self) -> Self {
        self.warning = true;
        self
    }

    /// One that stands for so many that are not told one by one.
    #[must_use]
    pub fn standing_for(mut self, count: usize) -> Self {
        self.count = count;
        self
    }

    /// What would mend it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The message alone.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// It goes on all the same.
    pub fn is_warning(&self) -> bool {
        self.warning
    }

    /// How many it stands for: itself, or those that are not told one by one.
    pub fn count(&self) -> usize {
        self.count
    }

    /// What would mend it, if anybody knows.
    pub fn help(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Where it stands, for programs.
    pub fn place(&self) -> Option<Place<'_>> {
        let (source, bytes) = self.place.as_ref()?;
        Some(Place {
            path: &source.path,
            start: source.position(bytes.start),
            end: source.position(bytes.end),
        })
    }

    /// The message with its source line underlined; `color` for a terminal.
    pub fn render(&self, color: bool) -> String {
        let level = if self.warning { Level::WARNING } else { Level::ERROR };
        let mut group = level
            .primary_title(self.message.as_str())
            .elements(std::iter::empty::<Snippet<'_, annotate_snippets::Annotation<'_>>>());
        if let Some((source, bytes)) = &self.place {
            let path = source.path.to_string_lossy();
            let (line, column) = source.position(bytes.start);
            let shown = Excerpt::of(&source.text, bytes);
            let snippet = Snippet::source(shown.text)
                .line_start(line)
                .annotation(AnnotationKind::Primary.span(shown.bytes));
            group = if shown.is_cut {
                // The renderer would count the columns of what is left.
                let origin = Origin::path(path).line(line).char_column(column);
                group.element(origin).element(snippet)
            } else {
                group.element(snippet.path(path))
            };
        }
        if let Some(hint) = &self.hint {
            group = group.element(Level::HELP.message(hint.as_str()));
        }
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
    }
}

/// How much is shown on either side of the place, in bytes: more than a terminal is wide. All of a file, or of a line that a
/// program wrote, would be gone through for every finding in it.
const AROUND: usize = 512;

/// The line of a place, or what is near it.
struct Excerpt<'a> {
    text: &'a str,
    /// The place in the text.
    bytes: Range<usize>,
    /// The line begins further left.
    is_cut: bool,
}

impl<'a> Excerpt<'a> {
    fn of(source: &'a str, bytes: &Range<usize>) -> Self {
        let start = source.floor_char_boundary(bytes.start);
        let end = source.floor_char_boundary(bytes.end.clamp(start, start + AROUND));
        let earliest = source.floor_char_boundary(start.saturating_sub(AROUND));
        let latest = source.floor_char_boundary(end + AROUND);
        let line = source[earliest..start].rfind('\n').map(|at| earliest + at + 1);
        let from = line.unwrap_or(earliest);
        let to = source[end..latest].find('\n').map_or(latest, |at| end + at);
        Self {
            text: &source[from..to],
            bytes: start - from..end - from,
            is_cut: line.is_none() && earliest > 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However long a file or a line is: there may be a thousand findings in it.
    #[test]
    fn little_of_a_long_text_is_gone_through_for_a_finding() {
        for long in ["ä".repeat(1 << 20), "äöü\n".repeat(1 << 18)] {
            let source = Source::new("long.yaml", long.clone());
            for at in [0, 4, 1 << 19, (1 << 20) + 4, long.len() - 2] {
                let at = long.floor_char_boundary(at);
                let excerpt = Excerpt::of(&long, &(at..at + 2));
                assert!(excerpt.text.len() <= 2 * AROUND + 2, "{} bytes", excerpt.text.len());
                assert_eq!(excerpt.text.get(excerpt.bytes), long.get(at..at + 2));
                assert!(source.counted(at) <= 1024, "{} bytes", source.counted(at));
                let before = &long[..at];
                let line = before.rsplit('\n').next().unwrap_or_default();
                let expected = (before.matches('\n').count() + 1, line.chars().count() + 1);
                assert_eq!(source.position(at), expected);
            }
        }
    }
}

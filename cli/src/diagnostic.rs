//! What is wrong, where, and what to do about it: one clear message for a person.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use crate::documents::Source;

/// One finding.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    message: String,
    warning: bool,
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
        Self { message: message.into(), warning: false, place: None, hint: None }
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

    /// What would mend it, if anybody knows.
    pub fn help(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Where it stands, for programs.
    pub fn place(&self) -> Option<Place<'_>> {
        let (source, bytes) = self.place.as_ref()?;
        let position = |at: usize| {
            let before = source.text.get(..at).unwrap_or(&source.text);
            let line = before.rsplit('\n').next().unwrap_or_default();
            (before.matches('\n').count() + 1, line.chars().count() + 1)
        };
        Some(Place { path: &source.path, start: position(bytes.start), end: position(bytes.end) })
    }

    /// The message with its source line underlined; `color` for a terminal.
    pub fn render(&self, color: bool) -> String {
        let level = if self.warning { Level::WARNING } else { Level::ERROR };
        let mut group = level
            .primary_title(self.message.as_str())
            .elements(std::iter::empty::<Snippet<'_, annotate_snippets::Annotation<'_>>>());
        if let Some((source, bytes)) = &self.place {
            group = group.element(
                Snippet::source(source.text.as_str())
                    .path(source.path.to_string_lossy().into_owned())
                    .annotation(AnnotationKind::Primary.span(bytes.clone())),
            );
        }
        if let Some(hint) = &self.hint {
            group = group.element(Level::HELP.message(hint.as_str()));
        }
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
    }
}

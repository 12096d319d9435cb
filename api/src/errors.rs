//! An error as people read it, for whoever has one line: a status, a log, a terminal. Pure.

use std::error::Error;

/// An error and its causes, outermost first, joined with colons.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        // Some crates print their causes themselves.
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<Self>>,
    }

    fn text(texts: &[&'static str]) -> String {
        let link = |source, text: &&'static str| Some(Box::new(Link { text, source }));
        chain(texts.iter().rev().fold(None, link).expect("a link").as_ref())
    }

    #[test]
    fn causes_follow_in_order() {
        assert_eq!(text(&["alone"]), "alone");
        assert_eq!(
            text(&["cannot start", "cannot read \"a\"", "denied"]),
            "cannot start: cannot read \"a\": denied"
        );
    }

    #[test]
    fn what_was_said_is_not_said_again() {
        assert_eq!(text(&["cannot start: denied", "denied", "by \"b\""]), "cannot start: denied: by \"b\"");
    }
}

//! Whether a text is one of Go's regular expressions. Pure.
//!
//! The parser is that of Rust's expressions, which differ in little: what only Go reads is respelled before, and what
//! only Rust takes of what people write by mistake is refused after. Nothing is compiled: that could take far more memory
//! than the text has.

use regex_syntax::ast::parse::ParserBuilder;
use regex_syntax::ast::{Ast, RepetitionKind, RepetitionRange, Visitor, visit};

/// The longest pattern, in bytes: its parts take a hundred times as much, and addresses have far less.
const LONGEST: usize = 64 << 10;

/// How deep groups may stand in each other, and how often a part may be repeated, as in Go.
const DEEPEST: u32 = 1000;

/// Parses an expression.
///
/// # Errors
/// What is wrong with it, in a few words.
pub(super) fn check(pattern: &str) -> Result<(), String> {
    if pattern.len() > LONGEST {
        return Err(format!("it is longer than {LONGEST} bytes"));
    }
    let parsed = ParserBuilder::new().nest_limit(DEEPEST).build().parse(&respelled(pattern));
    let ast = parsed.map_err(|error| error.kind().to_string())?;
    visit(&ast, Repetitions)
}

/// Go takes neither a repetition of a repetition, which is what `**` is, nor more than a thousand of anything.
struct Repetitions;

impl Visitor for Repetitions {
    type Output = ();
    type Err = String;

    fn finish(self) -> Result<(), String> {
        Ok(())
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), String> {
        let Ast::Repetition(repetition) = ast else { return Ok(()) };
        if matches!(*repetition.ast, Ast::Repetition(_)) {
            return Err("invalid nested repetition operator".to_owned());
        }
        let RepetitionKind::Range(range) = &repetition.op.kind else { return Ok(()) };
        let (RepetitionRange::Exactly(most)
        | RepetitionRange::AtLeast(most)
        | RepetitionRange::Bounded(_, most)) = range;
        if *most > DEEPEST { Err("invalid repeat count".to_owned()) } else { Ok(()) }
    }
}

/// The same expression without what Rust's parser does not know: `\Q…\E`, braces that mean themselves, and brackets
/// within brackets that do.
fn respelled(pattern: &str) -> String {
    let mut spelled = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(next) = rest.chars().next() {
        let (taken, replacement) = match next {
            '\\' if rest.starts_with("\\Q") => {
                let quoted = &rest[2..];
                let (text, end) = quoted.split_once("\\E").map_or((quoted, 2), |(text, _)| (text, 4));
                (text.len() + end, Some(regex_syntax::escape(text)))
            }
            // Braces after these give a name or a number.
            '\\' if ["\\p{", "\\P{", "\\x{"].iter().any(|start| rest.starts_with(start)) => {
                (rest.find('}').map_or(rest.len(), |end| end + 1), None)
            }
            '\\' => (1 + rest[1..].chars().next().map_or(0, char::len_utf8), None),
            '[' => {
                let length = class(rest);
                (length, Some(respelled_class(&rest[..length])))
            }
            '{' if !is_count(rest) => (1, Some("\\{".to_owned())),
            _ => (next.len_utf8(), None),
        };
        match replacement {
            Some(text) => spelled.push_str(&text),
            None => spelled.push_str(&rest[..taken]),
        }
        rest = &rest[taken..];
    }
    spelled
}

/// `{2}`, `{2,}` or `{2,3}`; anything else in braces is itself.
fn is_count(text: &str) -> bool {
    let Some((inner, _)) = text[1..].split_once('}') else { return false };
    let (least, most) = inner.split_once(',').unwrap_or((inner, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !least.is_empty() && digits(least) && digits(most)
}

/// The length of the class that a text begins with, both brackets included; that of the text where it does not end.
fn class(text: &str) -> usize {
    let negated = if text[1..].starts_with('^') { 2 } else { 1 };
    // A bracket that comes first does not end it.
    let mut at = if text[negated..].starts_with(']') { negated + 1 } else { negated };
    while let Some(next) = text[at..].chars().next() {
        match next {
            ']' => return at + 1,
            '\\' => at += 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
            '[' if text[at..].starts_with("[:") => at += text[at..].find(":]").map_or(1, |end| end + 2),
            _ => at += next.len_utf8(),
        }
    }
    text.len()
}

/// Rust's classes hold other classes, and have operators of two letters.
fn respelled_class(class: &str) -> String {
    let mut spelled = String::with_capacity(class.len());
    let mut before = ' ';
    for (at, next) in class.char_indices() {
        let nested = next == '[' && at > 0 && !class[at..].starts_with("[:");
        if before != '\\' && (nested || matches!(next, '&' | '~')) {
            spelled.push('\\');
        }
        spelled.push(next);
        before = if before == '\\' { ' ' } else { next };
    }
    spelled
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("")]
    #[case("https://github.com/tektoncd/catalog.git")]
    #[case("^https://(www\\.)?example\\.com/[a-z]+$")]
    #[case("\\Qa.b(\\E.*")]
    #[case("\\Qa.b(")]
    #[case("a{b}{")]
    #[case("a{2,3}{x")]
    #[case("[[]|[]a]|[^]a]|[a[b]")]
    #[case("[&&][~~]")]
    #[case("[[:alpha:]_]+")]
    #[case("(?i)x|(?P<name>y)|(?<other>z)|(?:w)")]
    #[case("x*?y+?z??")]
    #[case("\\pL\\p{Greek}\\x{1F600}\\d\\w\\s\\b\\z")]
    #[case("é[é\\]]")]
    fn go_reads_it(#[case] pattern: &str) {
        assert_eq!(check(pattern), Ok(()));
    }

    #[rstest]
    #[case("*")]
    #[case("https://example.com/**")]
    #[case("a+*")]
    #[case("a{1001}")]
    #[case("a{2,1001}")]
    #[case("(")]
    #[case("a)")]
    #[case("[a")]
    #[case("[b-a]")]
    #[case("\\")]
    #[case("\\y")]
    #[case("(?=a)")]
    #[case("\\1")]
    fn go_does_not(#[case] pattern: &str) {
        assert!(check(pattern).is_err());
    }

    #[test]
    fn what_is_too_much_is_refused() {
        assert_eq!(check(&"a".repeat(LONGEST)), Ok(()));
        assert_eq!(check(&"a".repeat(LONGEST + 1)), Err("it is longer than 65536 bytes".to_owned()));
        let nested = |depth: usize| format!("{}{}", "(".repeat(depth), ")".repeat(depth));
        assert_eq!(check(&nested(900)), Ok(()));
        assert!(check(&nested(1100)).is_err());
    }
}

//! The one parser of `$(...)` variables, shared by validation, substitution in the controller and
//! substitution in the step (contract 4.1). Pure, and linear in the length of the text.
//!
//! A variable runs from a `$(` to the next `)`, and no other `$(` lies between: in
//! `$(foo $(params.a)` only `$(params.a)` is one. There is no escape: `$$(params.a)` is a dollar sign
//! and a variable.

/// A stretch of text: as it is, or a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment<'a> {
    /// Text without variables; never empty.
    Literal(&'a str),
    /// A variable.
    Variable(Variable<'a>),
}

impl<'a> Segment<'a> {
    /// The text this segment was read from.
    pub fn raw(&self) -> &'a str {
        match self {
            Segment::Literal(text) => text,
            Segment::Variable(variable) => variable.raw,
        }
    }
}

/// A `$(key)` as it stands in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable<'a> {
    /// The whole variable, `$(` and `)` included.
    pub raw: &'a str,
    /// What stands between the parentheses.
    pub key: &'a str,
}

/// A key taken apart: `tasks.t.results["r"][0]` has the parts `tasks`, `t`, `results`, `r` and the
/// subscript 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The names between dots, and those in quoted brackets as they are; at least one, none empty.
    pub parts: Vec<String>,
    /// The closing `[0]` or `[*]`.
    pub subscript: Option<Subscript>,
    /// Whether a part was written in brackets with quotes (`["x"]` or `['x']`).
    pub quoted: bool,
}

/// What stands in the closing brackets of a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscript {
    /// `[n]`: one element, counted from 0.
    Index(usize),
    /// `[*]`: all elements.
    All,
}

impl Variable<'_> {
    /// The key as a reference, or `None` when it has no such form (a shell command, for one).
    pub fn path(&self) -> Option<Reference> {
        Reference::parse(self.key)
    }
}

impl Reference {
    /// Takes apart the key of a variable.
    ///
    /// Names outside quotes consist of letters, digits, `_` and `-`. A subscript can only come last.
    pub fn parse(key: &str) -> Option<Reference> {
        let (first, mut rest) = split_name(key)?;
        let mut reference = Reference { parts: vec![first.to_owned()], subscript: None, quoted: false };
        while !rest.is_empty() {
            if let Some(dotted) = rest.strip_prefix('.') {
                let (name, next) = split_name(dotted)?;
                reference.parts.push(name.to_owned());
                rest = next;
                continue;
            }
            let bracket = rest.strip_prefix('[')?;
            if let Some(quote) = bracket.chars().next().filter(|c| matches!(c, '"' | '\'')) {
                let (name, next) = bracket[1..].split_once(quote)?;
                if name.is_empty() {
                    return None;
                }
                reference.parts.push(name.to_owned());
                reference.quoted = true;
                rest = next.strip_prefix(']')?;
                continue;
            }
            reference.subscript = Some(parse_subscript(bracket.strip_suffix(']')?)?);
            rest = "";
        }
        Some(reference)
    }

    /// The parts as text slices, for matching against slice patterns.
    pub fn names(&self) -> Vec<&str> {
        self.parts.iter().map(String::as_str).collect()
    }
}

fn split_name(text: &str) -> Option<(&str, &str)> {
    let end =
        text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn parse_subscript(text: &str) -> Option<Subscript> {
    if text == "*" {
        return Some(Subscript::All);
    }
    // `usize::from_str` would also take "+1".
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten().map(Subscript::Index)
}

/// Splits a text into literals and variables; their raw texts joined are the text again.
pub fn parse(text: &str) -> Vec<Segment<'_>> {
    let bytes = text.as_bytes();
    let mut segments = Vec::new();
    let mut done = 0;
    let mut open = None;
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], open) {
            (b'$', _) if bytes.get(at + 1) == Some(&b'(') => {
                open = Some(at);
                at += 1;
            }
            (b')', Some(start)) => {
                if start > done {
                    segments.push(Segment::Literal(&text[done..start]));
                }
                done = at + 1;
                segments
                    .push(Segment::Variable(Variable { raw: &text[start..done], key: &text[start + 2..at] }));
                open = None;
            }
            _ => {}
        }
        at += 1;
    }
    if done < text.len() {
        segments.push(Segment::Literal(&text[done..]));
    }
    segments
}

/// The variables of a text, in order.
pub fn variables(text: &str) -> impl Iterator<Item = Variable<'_>> {
    parse(text).into_iter().filter_map(|segment| match segment {
        Segment::Variable(variable) => Some(variable),
        Segment::Literal(_) => None,
    })
}

/// The variable a text consists of, when it is exactly one and nothing else.
pub fn whole(text: &str) -> Option<Variable<'_>> {
    match parse(text).as_slice() {
        [Segment::Variable(variable)] => Some(*variable),
        _ => None,
    }
}

/// Replaces each variable by what `lookup` has for it, in one pass from left to right.
///
/// Inserted text is not looked at again, and variables `lookup` does not know stay as they are.
pub fn substitute(text: &str, mut lookup: impl FnMut(&Variable<'_>) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    for segment in parse(text) {
        match segment {
            Segment::Literal(literal) => out.push_str(literal),
            Segment::Variable(variable) => match lookup(&variable) {
                Some(value) => out.push_str(&value),
                None => out.push_str(variable.raw),
            },
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("", &[])]
    #[case("plain", &[])]
    #[case("$(params.a)", &["params.a"])]
    #[case("a$(x)b$(y)c", &["x", "y"])]
    #[case("$(foo $(params.a)", &["params.a"])]
    #[case("$($(params.a))", &["params.a"])]
    #[case("$$(params.a)", &["params.a"])]
    #[case("$(open", &[])]
    #[case("$ (a) $", &[])]
    #[case(")$()", &[""])]
    #[case("é$(ü)é", &["ü"])]
    fn finds_variables(#[case] text: &str, #[case] keys: &[&str]) {
        assert_eq!(variables(text).map(|v| v.key).collect::<Vec<_>>(), keys);
    }

    #[rstest]
    #[case("params.a", &["params", "a"], None, false)]
    #[case("params.a.b", &["params", "a", "b"], None, false)]
    #[case("params[\"a.b\"]", &["params", "a.b"], None, true)]
    #[case("params['a']", &["params", "a"], None, true)]
    #[case("params[\"arr\"][*]", &["params", "arr"], Some(Subscript::All), true)]
    #[case("params['arr'][12]", &["params", "arr"], Some(Subscript::Index(12)), true)]
    #[case("tasks.t.results.r[0]", &["tasks", "t", "results", "r"], Some(Subscript::Index(0)), false)]
    #[case("tasks.t.results['r'].k", &["tasks", "t", "results", "r", "k"], None, true)]
    #[case("x[*]", &["x"], Some(Subscript::All), false)]
    #[case("single", &["single"], None, false)]
    fn takes_keys_apart(
        #[case] key: &str,
        #[case] parts: &[&str],
        #[case] subscript: Option<Subscript>,
        #[case] quoted: bool,
    ) {
        let parts = parts.iter().map(ToString::to_string).collect();
        assert_eq!(Reference::parse(key), Some(Reference { parts, subscript, quoted }));
    }

    #[rstest]
    #[case("")]
    #[case(".a")]
    #[case("a.")]
    #[case("a..b")]
    #[case("date +%s")]
    #[case("cat a.txt")]
    #[case("a[x]")]
    #[case("a[]")]
    #[case("a[+1]")]
    #[case("a[0].b")]
    #[case("a[0][1]")]
    #[case("a[\"b]")]
    #[case("a[\"\"]")]
    #[case("a[99999999999999999999999]")]
    #[case("[0]")]
    fn refuses_other_keys(#[case] key: &str) {
        assert_eq!(Reference::parse(key), None);
    }

    #[rstest]
    #[case("$(a)", Some("a"))]
    #[case("$(a) ", None)]
    #[case("$(a)$(b)", None)]
    #[case("a", None)]
    fn a_whole_text_can_be_one_variable(#[case] text: &str, #[case] key: Option<&str>) {
        assert_eq!(whole(text).map(|v| v.key), key);
    }

    #[rstest]
    #[case("$(params.a)-$(nosuch)", "1-$(nosuch)")]
    #[case("$$(params.a)", "$1")]
    #[case("$(params.b)", "$(params.a)")]
    #[case("$(foo $(params.a)", "$(foo 1")]
    fn substitutes_in_one_pass(#[case] text: &str, #[case] expected: &str) {
        let result = substitute(text, |variable| match variable.key {
            "params.a" => Some("1".into()),
            "params.b" => Some("$(params.a)".into()),
            _ => None,
        });
        assert_eq!(result, expected);
    }

    /// Texts rich in the characters the parser looks at.
    fn texts() -> impl Strategy<Value = String> {
        prop::collection::vec(
            prop::sample::select(vec![
                "$", "(", ")", "$(", "$(a)", "a", ".", "[", "]", "\"", "'", "*", "0", "é",
            ]),
            0..40,
        )
        .prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn raw_texts_join_to_the_input(text in texts()) {
            prop_assert_eq!(parse(&text).iter().map(Segment::raw).collect::<String>(), text);
        }

        #[test]
        fn literals_hold_no_variables(text in texts()) {
            for segment in parse(&text) {
                if let Segment::Literal(literal) = segment {
                    prop_assert!(!literal.is_empty());
                    prop_assert_eq!(variables(literal).count(), 0);
                }
            }
        }

        #[test]
        fn knowing_no_variable_changes_nothing(text in texts()) {
            prop_assert_eq!(substitute(&text, |_| None), text);
        }

        #[test]
        fn one_known_key_is_replaced_as_plain_text(text in texts()) {
            let result = substitute(&text, |v| (v.key == "a").then(|| "X".to_owned()));
            prop_assert_eq!(result, text.replace("$(a)", "X"));
        }

        #[test]
        fn every_key_is_parsed_or_refused(key in texts()) {
            if let Some(reference) = Reference::parse(&key) {
                prop_assert!(reference.parts.iter().all(|part| !part.is_empty()));
            }
        }
    }
}

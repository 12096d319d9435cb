//! JSON spelled as Go's `encoding/json` spells it. Pure.
//!
//! The termination message is limited by its encoded size and compared byte for byte by other
//! tools, so `<`, `>` and `&` must cost six bytes here as they do there.

use serde::Serialize;

/// Encodes `value` compactly with Go's HTML-safe escapes.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<String, serde_json::Error> {
    Ok(escape(&serde_json::to_string(value)?))
}

/// Escapes what Go escapes and serde_json does not. All five characters can only occur inside
/// string literals of valid JSON, so a plain replacement over the whole document is exact.
fn escape(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            other => out.push(other),
        }
    }
    out
}

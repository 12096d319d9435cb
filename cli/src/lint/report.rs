//! Findings as text, JSON, SARIF and GitHub's workflow commands. Pure.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::{Finding, Rule};

/// For people: each finding with its source line, and a sum at the end.
pub(super) fn text(findings: &[Finding], color: bool) -> String {
    let mut text = String::new();
    for finding in findings {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(text, "{}\n", finding.diagnostic.render(color));
    }
    let count = |warnings: bool, what: &str| {
        let counted = findings.iter().filter(|finding| finding.diagnostic.is_warning() == warnings);
        let count: usize = counted.map(|finding| finding.diagnostic.count()).sum();
        format!("{count} {what}{}", if count == 1 { "" } else { "s" })
    };
    if !findings.is_empty() {
        let _ = writeln!(text, "{}, {}", count(false, "error"), count(true, "warning"));
    }
    text
}

/// One list of objects; a finding without a place has no `file`.
pub(super) fn json(findings: &[Finding]) -> String {
    let findings: Vec<Value> = findings
        .iter()
        .map(|finding| {
            let diagnostic = &finding.diagnostic;
            let mut entry = Map::new();
            entry.insert("level".into(), level(finding).into());
            entry.insert("rule".into(), finding.rule.as_str().into());
            entry.insert("message".into(), diagnostic.message().into());
            if let Some(hint) = diagnostic.help() {
                entry.insert("hint".into(), hint.into());
            }
            if let Some(place) = diagnostic.place() {
                entry.insert("file".into(), place.path.to_string_lossy().into());
                entry.insert("line".into(), place.start.0.into());
                entry.insert("column".into(), place.start.1.into());
                entry.insert("endLine".into(), place.end.0.into());
                entry.insert("endColumn".into(), place.end.1.into());
            }
            Value::Object(entry)
        })
        .collect();
    format!("{:#}\n", Value::Array(findings))
}

/// SARIF 2.1.0, what code scanning services read.
pub(super) fn sarif(findings: &[Finding]) -> String {
    let rules: Vec<Value> = Rule::ALL
        .iter()
        .map(|rule| json!({"id": rule.as_str(), "shortDescription": {"text": rule.description()}}))
        .collect();
    let results: Vec<Value> = findings
        .iter()
        .map(|finding| {
            let locations: Vec<Value> = finding
                .diagnostic
                .place()
                .into_iter()
                .map(|place| {
                    json!({"physicalLocation": {
                        "artifactLocation": {"uri": uri(&place.path.to_string_lossy())},
                        "region": {
                            "startLine": place.start.0, "startColumn": place.start.1,
                            "endLine": place.end.0, "endColumn": place.end.1,
                        },
                    }})
                })
                .collect();
            json!({
                "ruleId": finding.rule.as_str(),
                "level": level(finding),
                "message": {"text": with_hint(finding)},
                "locations": locations,
            })
        })
        .collect();
    let report = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "ropewalk", "version": env!("CARGO_PKG_VERSION"), "rules": rules}},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    format!("{report:#}\n")
}

/// Workflow commands, which GitHub shows beside the lines of a change.
pub(super) fn github(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let place = finding.diagnostic.place().map(|place| {
            let file = escape(&place.path.to_string_lossy(), true);
            let mut place_text = format!(" file={file},line={},col={}", place.start.0, place.start.1);
            // GitHub takes an end column on the same line only.
            if place.start.0 == place.end.0 {
                let _ = write!(place_text, ",endColumn={}", place.end.1);
            }
            place_text
        });
        let message = escape(&with_hint(finding), false);
        let _ = writeln!(text, "::{}{}::{message}", level(finding), place.unwrap_or_default());
    }
    text
}

fn level(finding: &Finding) -> &'static str {
    if finding.diagnostic.is_warning() { "warning" } else { "error" }
}

fn with_hint(finding: &Finding) -> String {
    let message = finding.diagnostic.message();
    finding.diagnostic.help().map_or_else(|| message.to_owned(), |hint| format!("{message}\nhelp: {hint}"))
}

/// What would end a command, or a property of one, is written in percents.
fn escape(text: &str, property: bool) -> String {
    let text = text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    if property { text.replace(':', "%3A").replace(',', "%2C") } else { text }
}

/// A path as a relative or absolute URI reference (RFC 3986).
fn uri(path: &str) -> String {
    let mut uri = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}

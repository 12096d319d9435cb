//! Termination messages.

use serde_json::json;

use crate::case::{Case, script};

pub(crate) fn cases() -> Vec<Case> {
    let fallback = || json!({ "terminationMessagePolicy": "FallbackToLogsOnError" });
    vec![
        script("a message in the usual place", "printf last > /dev/termination-log; exit 3").leaves("last"),
        script("a message in a place of its own", "printf last > /some/where/file")
            .container(json!({ "terminationMessagePath": "/some/where/file" }))
            .leaves("last"),
        script("a message from a user without rights", "printf last > /dev/termination-log")
            .container(json!({ "securityContext": { "runAsUser": 1234, "readOnlyRootFilesystem": true } }))
            .leaves("last"),
        script("a message is cut", "head -c 10000 /dev/zero | tr '\\0' y > /dev/termination-log")
            .leaves("y".repeat(4096)),
        script("the log stands in for a message", "echo words; exit 1")
            .container(fallback())
            .leaves("words\n"),
        script(
            "the log does not stand in for a message that is there",
            "echo words; printf own > /dev/termination-log; exit 1",
        )
        .container(fallback())
        .leaves("own"),
        script("the log of a success is no message", "echo words").container(fallback()).leaves(""),
        script("only the end of the log stands in", "seq 1 100; exit 1")
            .container(fallback())
            .leaves((21..=100).map(|number: u8| number.to_string() + "\n").collect::<String>()),
    ]
}

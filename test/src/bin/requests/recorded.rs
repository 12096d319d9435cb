//! A kube-apiserver's answers, kept in the repository so that the corpus is compared without a cluster, too.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::server::Answer;

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("requests/kubernetes-1.20.jsonl")
}

/// The answers by case and step.
pub(crate) fn read() -> Result<BTreeMap<(String, String), Answer>> {
    let path = path();
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("cannot read \"{}\"", path.display()))?;
    text.lines()
        .map(|line| {
            let (case, step, answer): (String, String, Value) = serde_json::from_str(line)?;
            Ok(((case, step), answer))
        })
        .collect()
}

/// Keeps these answers in place of those before: one a line, so that differences are seen.
pub(crate) fn write(answers: &BTreeMap<(String, String), Answer>) -> Result<()> {
    let mut text = String::new();
    for ((case, step), answer) in answers {
        writeln!(text, "{}", json!([case, step, answer]))?;
    }
    let path = path();
    std::fs::write(&path, text).with_context(|| format!("cannot write \"{}\"", path.display()))
}

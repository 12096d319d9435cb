//! Other people's files pass admission, when there is a folder of them.
//!
//! The folder is given by `ROPEWALK_CORPUS`, or lies beside the repository. Where it has a table of what was seen
//! (`../expected.tsv`), the runs refused under the default flags must be the ones refused there.

#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test that reads files")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use ropewalk_api::config::{ApiFields, Config};
use ropewalk_webhook::{Decision, Operation, Request, Settings, admit};
use serde_json::Value;

#[expect(clippy::print_stderr, reason = "a skipped test must say so")]
fn corpus() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus/tekton");
    let folder = std::env::var_os("ROPEWALK_CORPUS").map_or(beside, PathBuf::from);
    if !folder.exists() {
        let required = std::env::var_os("ROPEWALK_REQUIRE_TOOLS").is_some();
        assert!(!required, "there is no corpus in {}, and it is required", folder.display());
        eprintln!("SKIPPED: there is no corpus in {}; set ROPEWALK_CORPUS", folder.display());
        return None;
    }
    Some(folder)
}

/// The documents of every file, by the file's path from the folder.
fn documents(folder: &Path) -> BTreeMap<String, Vec<Value>> {
    let mut documents = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                let text = fs::read_to_string(&path).unwrap();
                let all: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
                documents.insert(name, all.into_iter().filter(Value::is_object).collect());
            }
        }
    }
    documents
}

fn refusal(object: &Value, config: &Config) -> Option<String> {
    let (group, _) = object["apiVersion"].as_str()?.split_once('/')?;
    let kind = object["kind"].as_str()?;
    let request =
        Request { operation: Operation::Create, group, kind, subresource: None, object, old_object: None };
    match admit(&request, config, &Settings::default()) {
        Decision::Allow { object, .. } => {
            let again = Request {
                operation: Operation::Update,
                object: &object,
                old_object: Some(&object),
                ..request
            };
            let unchanged = Decision::Allow { object: object.clone(), warnings: Vec::new() };
            assert_eq!(admit(&again, config, &Settings::default()), unchanged);
            None
        }
        Decision::Deny { message, .. } => Some(message),
    }
}

#[test]
fn every_file_is_admitted_with_every_flag_on() {
    let Some(folder) = corpus() else { return };
    let mut config = Config::default();
    config.features.enable_api_fields = ApiFields::Alpha;
    config.features.enable_artifacts = true;
    config.features.enable_cel_in_when_expression = true;
    config.features.enable_concise_resolver_syntax = true;
    config.features.enable_param_enum = true;
    let mut refused = Vec::new();
    for (file, documents) in documents(&folder) {
        refused.extend(
            documents.iter().filter_map(|document| Some((file.clone(), refusal(document, &config)?))),
        );
    }
    assert_eq!(refused, []);
}

#[test]
fn with_the_default_flags_the_same_runs_are_refused_as_upstream_refuses() {
    let Some(folder) = corpus() else { return };
    let Ok(table) = fs::read_to_string(folder.join("../expected.tsv")) else { return };
    let expected: BTreeSet<String> = table
        .lines()
        .filter(|line| line.ends_with("\tRejected"))
        .filter_map(|line| line.split('\t').next().map(str::to_owned))
        .collect();
    let runs = ["TaskRun", "PipelineRun"];
    let refused: BTreeMap<String, String> = documents(&folder)
        .into_iter()
        .filter_map(|(file, documents)| {
            let mut runs = documents.iter().filter(|d| runs.iter().any(|run| d["kind"] == *run));
            Some((file, runs.find_map(|run| refusal(run, &Config::default()))?))
        })
        .collect();
    assert_eq!(refused.keys().cloned().collect::<BTreeSet<_>>(), expected, "{refused:#?}");
}

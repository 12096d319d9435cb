//! Files that tests read: our own, and a folder of other people's when there is one.

#![expect(clippy::disallowed_methods, reason = "these are for tests; the crate reads no files")]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{kinds, strict};

/// The folder of other people's files: where `ROPEWALK_CORPUS` says, or beside the repository.
pub(crate) fn corpus() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus/tekton");
    let folder = std::env::var_os("ROPEWALK_CORPUS").map_or(beside, PathBuf::from);
    if folder.exists() {
        return Some(folder);
    }
    let required = std::env::var_os("ROPEWALK_REQUIRE_TOOLS").is_some();
    assert!(!required, "there is no corpus in {}, and it is required", folder.display());
    eprintln!("SKIPPED: there is no corpus in {}; set ROPEWALK_CORPUS", folder.display());
    None
}

/// The documents of our kinds in a folder, in any version served, with the file each is from.
pub(crate) fn documents(folder: &Path) -> Vec<(PathBuf, Value)> {
    let mut paths = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    let mut documents = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let all: Vec<Value> =
            serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for mut document in all {
            let (Some(name), Some(version)) = (document["kind"].as_str(), document["apiVersion"].as_str())
            else {
                continue;
            };
            let Some(kind) = kinds::find(name).filter(|kind| kind.version_of(version).is_some()) else {
                continue;
            };
            strict::correct_case(kind.kind, &mut document);
            documents.push((path.clone(), document));
        }
    }
    assert!(!documents.is_empty(), "{}", folder.display());
    documents
}

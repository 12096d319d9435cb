//! The files that are measured with: other people's, or our own examples. Reads folders.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The YAML files of the folder that `ROPEWALK_CORPUS` names, or of the corpus beside the repository, and of those below it,
/// in order of their paths; without a corpus those of our own examples.
pub fn files() -> Result<Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let beside = root.join("../shared/corpus/tekton");
    let corpus = std::env::var_os("ROPEWALK_CORPUS").map_or(beside, PathBuf::from);
    let mut folders = vec![if corpus.is_dir() { corpus } else { root.join("examples") }];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("\"{}\"", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

//! The files a user names, directories walked, as text. Reads files and standard input.

use std::path::{Path, PathBuf};

use crate::diagnostic::Diagnostic;
use crate::documents::{self, Source};

/// What `-` is called in findings.
const STDIN: &str = "<stdin>";
/// Repositories nest less deeply; a deeper tree is a mistake or a trap.
const MAX_DEPTH: usize = 32;
/// Names looked at in all directories together: a large repository with what its package managers unpacked, and about
/// a second's work.
const MAX_ENTRIES: usize = 200_000;
/// All texts together: they are in memory at once, as references go across files.
const MAX_TOTAL: usize = 256 * 1024 * 1024;

/// The texts of what is named, directories in the order of their names; and what could not be read.
///
/// Of a directory, only `*.yaml` and `*.yml` that mention Tekton are taken: a repository holds many other YAML files,
/// and not all of them are objects. Templates of Helm charts are not, nor even YAML. Links in directories are not followed.
pub(super) fn sources(named: &[PathBuf]) -> (Vec<Source>, Vec<Diagnostic>) {
    let mut reading = Reading::default();
    for path in named {
        if path.as_os_str() == "-" {
            reading.take(STDIN.into(), std::io::stdin().lock(), true);
        } else if path.is_dir() {
            reading.walk(path);
        } else {
            reading.file(path, true);
        }
    }
    (reading.sources, reading.unread)
}

#[derive(Default)]
struct Reading {
    sources: Vec<Source>,
    unread: Vec<Diagnostic>,
    entries: usize,
    bytes: usize,
}

impl Reading {
    fn walk(&mut self, root: &Path) {
        let mut folders = vec![(root.to_owned(), 0)];
        let mut files = Vec::new();
        while let Some((folder, depth)) = folders.pop() {
            let entries = match std::fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) => {
                    self.refuse(&folder, &error.to_string());
                    continue;
                }
            };
            for entry in entries.flatten() {
                self.entries += 1;
                if self.entries > MAX_ENTRIES {
                    self.refuse(root, &format!("there are more than {MAX_ENTRIES} files in it"));
                    return;
                }
                let path = entry.path();
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() && is_templates(&path) => {}
                    Ok(kind) if kind.is_dir() && depth < MAX_DEPTH => folders.push((path, depth + 1)),
                    Ok(kind) if kind.is_dir() => {
                        self.refuse(&path, &format!("it lies more than {MAX_DEPTH} directories deep"));
                    }
                    Ok(kind) if kind.is_file() && is_yaml(&path) => files.push(path),
                    _ => {}
                }
            }
        }
        files.sort();
        for file in files {
            self.file(&file, false);
        }
    }

    fn file(&mut self, path: &Path, named: bool) {
        match std::fs::File::open(path) {
            Ok(file) => self.take(path.to_owned(), file, named),
            Err(error) => self.refuse(path, &error.to_string()),
        }
    }

    fn take(&mut self, path: PathBuf, content: impl std::io::Read, named: bool) {
        let bytes = match documents::bounded(content) {
            Ok(bytes) => bytes,
            Err(why) => return self.refuse(&path, &why),
        };
        // An object of ours cannot be without the word.
        if !named && !bytes.windows(6).any(|window| window == b"tekton") {
            return;
        }
        self.bytes += bytes.len();
        if self.bytes > MAX_TOTAL {
            return self.refuse(&path, &format!("the files are larger than {MAX_TOTAL} bytes together"));
        }
        match documents::text(bytes) {
            Ok(text) => {
                let source = Source::new(path, text);
                self.sources.push(if named { source } else { source.found() });
            }
            Err(why) => self.refuse(&path, &why),
        }
    }

    fn refuse(&mut self, path: &Path, why: &str) {
        self.unread.push(Diagnostic::new(format!("cannot read \"{}\": {why}", path.display())));
    }
}

fn is_templates(folder: &Path) -> bool {
    folder.ends_with("templates") && folder.with_file_name("Chart.yaml").is_file()
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

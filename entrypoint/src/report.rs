//! What a step leaves behind: exit code file, post file, termination message.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ropewalk_entrypoint_protocol::paths::{ERR_SUFFIX, EXIT_CODE, STEP_RESULTS};
use ropewalk_entrypoint_protocol::termination::{
    self, FAILURE, MAX_MESSAGE_BYTES, ResultType, RunResult, STARTED_AT, TerminationError,
};

/// Longest text of a [`FAILURE`] entry in characters, so that it leaves room for results.
const FAILURE_CHARS: usize = 300;

/// Why something could not be left behind.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    #[error("writing {path:?}")]
    Write { path: PathBuf, source: io::Error },
    #[error("reading result {name:?}")]
    Result { name: String, source: io::Error },
    // The text is upstream's; users search for it.
    #[error(transparent)]
    TooLarge(TerminationError),
    #[error(
        "the results leave no room for the step's start time in a termination message of {MAX_MESSAGE_BYTES} bytes; make them smaller"
    )]
    NoRoom,
}

/// Writes the exit code for later steps to read.
pub(crate) fn exit_code(metadata_dir: &str, code: &str) -> Result<(), ReportError> {
    write(&Path::new(metadata_dir).join(EXIT_CODE), code)
}

/// Creates the file the next step waits for. No path means nobody waits.
pub(crate) fn post(post_file: &str, released: bool) -> Result<(), ReportError> {
    if post_file.is_empty() {
        return Ok(());
    }
    let path = if released { post_file.to_owned() } else { format!("{post_file}{ERR_SUFFIX}") };
    write(Path::new(&path), "")
}

fn write(path: &Path, content: &str) -> Result<(), ReportError> {
    fs::write(path, content).map_err(|source| ReportError::Write { path: path.to_owned(), source })
}

/// The results found in `dir` among `names`, in that order; those without a file are left out.
pub(crate) fn results(
    dir: &Path,
    names: &[String],
    result_type: ResultType,
) -> Result<Vec<RunResult>, ReportError> {
    let mut found = Vec::new();
    for name in names {
        match read(&dir.join(name)) {
            Ok(value) => found.push(RunResult { key: name.clone(), value, result_type }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(ReportError::Result { name: name.clone(), source }),
        }
    }
    Ok(found)
}

/// Reads no more than a little over what a message can hold; a longer file is refused as too large
/// either way, and must not fill the memory first.
fn read(path: &Path) -> io::Result<String> {
    let mut content = Vec::new();
    // A step may have left a pipe there; opening one to read would wait for a writer that never comes.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    fs::File::open(path)?.take(MAX_MESSAGE_BYTES as u64 + 1).read_to_end(&mut content)?;
    Ok(String::from_utf8_lossy(&content).into_owned())
}

/// Directory of the step's own results.
pub(crate) fn step_results_dir(metadata_dir: &str) -> PathBuf {
    Path::new(metadata_dir).join(STEP_RESULTS)
}

/// The termination message as it grows.
pub(crate) struct Message {
    path: PathBuf,
    text: String,
}

impl Message {
    /// Continues the message in the file, if there is one.
    pub(crate) fn open(path: &str) -> Self {
        let path = PathBuf::from(path);
        let text = read(&path).unwrap_or_default();
        Message { path, text }
    }

    /// Adds results; all or, when they do not fit, none.
    pub(crate) fn add_results(&mut self, results: &[RunResult]) -> Result<(), ReportError> {
        if !results.is_empty() {
            self.text = termination::append(&self.text, results).map_err(ReportError::TooLarge)?;
        }
        Ok(())
    }

    /// Adds the start time and the entries of the step's ending, and writes the file.
    ///
    /// In place: the runtime mounts the very file, so it cannot be replaced by a rename.
    pub(crate) fn finish(mut self, started_at: &str, entries: &[RunResult]) -> Result<(), ReportError> {
        let mut all = vec![RunResult::internal(STARTED_AT, started_at)];
        all.extend(entries.iter().cloned().map(shorten_failure));
        // An explanation is dropped before anything a reader relies on.
        let essential: Vec<_> = all.iter().filter(|entry| entry.key != FAILURE).cloned().collect();
        let outcome = match termination::append(&self.text, &all)
            .or_else(|_| termination::append(&self.text, &essential))
        {
            Ok(text) => {
                self.text = text;
                Ok(())
            }
            Err(_) => Err(ReportError::NoRoom),
        };
        if !self.path.as_os_str().is_empty() {
            write(&self.path, &self.text)?;
        }
        outcome
    }
}

fn shorten_failure(mut entry: RunResult) -> RunResult {
    if entry.key == FAILURE && entry.value.chars().count() > FAILURE_CHARS {
        entry.value = entry.value.chars().take(FAILURE_CHARS).chain(['…']).collect();
    }
    entry
}

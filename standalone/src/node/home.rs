//! The directory of a node whose containers outlive its process: `<root>/node`. The next process adopts them, or somebody
//! ends them. At most one process at a time may use it, which is its callers' to see to.

use std::fs;
use std::path::{Path, PathBuf};

use super::{NodeError, exec, files, instance, logs};

/// The directory, below the root.
const NODE: &str = "node";

/// Makes the directory, for `NodeConfig::data_dir`, and removes all that dead instances left beside it.
pub fn open(root: &Path) -> Result<PathBuf, NodeError> {
    instance::clear_dead(root)?;
    let directory = root.join(NODE);
    fs::create_dir_all(&directory).map_err(NodeError::path("make", &directory))?;
    // Processes and mounts are found by their paths, which the kernel tells without symbolic links.
    let directory = fs::canonicalize(&directory).map_err(NodeError::path("find", &directory))?;
    // What the last process forked last has executed the shim by now, or it would hold its lock on the root still; but
    // its command line may not be there to be seen yet.
    std::thread::sleep(instance::KILL_PAUSE);
    Ok(directory)
}

/// How many containers run that a process of this root has started.
pub fn running(root: &Path) -> usize {
    unended(&root.join(NODE)).count()
}

/// Ends all containers that run and removes mounts, namespaces and cgroups; returns how many containers that were. Claims,
/// logs, and how containers ended stay for the next process. Safe to repeat after being killed at any point.
pub fn end(root: &Path) -> Result<usize, NodeError> {
    instance::clear_dead(root)?;
    let directory = root.join(NODE);
    if !directory.exists() {
        return Ok(0);
    }
    let directory = fs::canonicalize(&directory).map_err(NodeError::path("find", &directory))?;
    exec::end_orphans(&directory);
    instance::end(&directory)?;
    let mut ended = 0;
    for attempt in unended(&directory) {
        let lost = files::lost("the container was ended with \"ropewalk down\"");
        files::write_json(&attempt.join(files::EXIT), &lost)
            .map_err(NodeError::path("write in", &attempt))?;
        ended += 1;
    }
    Ok(ended)
}

/// The directories of attempts that were begun and of whose end nothing is known.
fn unended(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let list = |directory: PathBuf| fs::read_dir(directory).into_iter().flatten().flatten();
    let pods = list(directory.join(logs::PODS));
    let containers = pods.flat_map(move |pod| list(pod.path().join(logs::CONTAINERS)));
    let attempts = containers.flat_map(move |container| list(container.path())).map(|attempt| attempt.path());
    attempts.filter(|attempt| files::is_begun(attempt) && !attempt.join(files::EXIT).exists())
}

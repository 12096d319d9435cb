//! Parts of the pod's layout (contract 5.2, 5.3), made by the init container for all steps or by each container for
//! itself. Making one again is harmless.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use ropewalk_entrypoint_protocol::flags::Script;

/// Mode of script files, whatever the umask: steps run as any user.
const SCRIPT_MODE: u32 = 0o755;
/// Added to the mode of working directories: like the workspace they lie in, they belong to no user of the pod.
const WORKING_DIR_MODE: u32 = 0o777;

/// What could not be laid out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayoutError {
    #[error("{0:?} is no step container's name")]
    StepName(String),
    #[error("linking {path:?} to the step's status")]
    Link { path: PathBuf, source: io::Error },
    #[error("script {path:?} is not directly in {dir:?}")]
    ScriptOutside { path: String, dir: PathBuf },
    #[error("writing script {path:?}")]
    Script { path: PathBuf, source: io::Error },
}

/// Makes `steps/<name>` and `steps/<index>` lead to the status directory of each step.
pub(crate) fn link_steps(root: &Path, names: &[String]) -> Result<(), LayoutError> {
    for (index, name) in names.iter().enumerate() {
        let plain = Path::new(name).components().eq([Component::Normal(name.as_ref())]);
        if !plain {
            return Err(LayoutError::StepName(name.clone()));
        }
        let status = root.join("run").join(index.to_string()).join("status");
        for link in [name.clone(), index.to_string()] {
            let path = root.join("steps").join(link);
            remove(&path)
                .and_then(|()| symlink(&status, &path))
                .map_err(|source| LayoutError::Link { path, source })?;
        }
    }
    Ok(())
}

/// Writes a script, executable for every user.
pub(crate) fn write_script(root: &Path, script: &Script) -> Result<(), LayoutError> {
    let dir = root.join("scripts");
    let path = Path::new(&script.path);
    let directly_inside = path.parent() == Some(&dir)
        && path.components().all(|part| part != Component::ParentDir)
        && path.file_name().is_some();
    if !directly_inside {
        return Err(LayoutError::ScriptOutside { path: script.path.clone(), dir });
    }
    fs::write(path, &script.content)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(SCRIPT_MODE)))
        .map_err(|source| LayoutError::Script { path: path.to_owned(), source })
}

/// Makes a working directory and its parents; one that exists stays as it is.
pub(crate) fn make_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_dir(parent)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            // What is there already may be a set-group-id bit, inherited from a volume with an fsGroup.
            let mode = fs::metadata(path)?.permissions().mode() | WORKING_DIR_MODE;
            fs::set_permissions(path, fs::Permissions::from_mode(mode))
        }
    }
}

/// Removes a file that need not exist.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

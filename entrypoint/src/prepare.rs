//! The init container: lays out what the steps rely on (contract 5.2, in one container).

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use ropewalk_entrypoint_protocol::flags::{PrepareFlags, Script};
use ropewalk_entrypoint_protocol::paths;

/// Mode of the binary's copy: steps may execute it, and nobody has to read it.
const BINARY_MODE: u32 = 0o311;
/// Mode of script files, whatever the umask: steps run as any user.
const SCRIPT_MODE: u32 = 0o755;

/// What could not be laid out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    #[error("copying the entrypoint to {path:?}")]
    Copy { path: PathBuf, source: io::Error },
    #[error("{0:?} is no step container's name")]
    StepName(String),
    #[error("linking {path:?} to the step's status")]
    Link { path: PathBuf, source: io::Error },
    #[error("script {path:?} is not directly in {dir:?}")]
    ScriptOutside { path: String, dir: PathBuf },
    #[error("writing script {path:?}")]
    Script { path: PathBuf, source: io::Error },
    #[error("creating working directory {path:?}")]
    WorkingDir { path: PathBuf, source: io::Error },
}

/// Does everything the flags ask for. Doing it again, after the container was restarted, is harmless.
pub(crate) fn run(flags: &PrepareFlags) -> Result<(), PrepareError> {
    let root = Path::new(flags.root.as_deref().unwrap_or(paths::ROOT));
    if let Some(path) = &flags.copy_to {
        let path = Path::new(path);
        copy_self(path).map_err(|source| PrepareError::Copy { path: path.to_owned(), source })?;
    }
    for (index, name) in flags.steps.iter().enumerate() {
        link_step(root, index, name)?;
    }
    for script in &flags.scripts {
        write_script(&root.join("scripts"), script)?;
    }
    let workspace = Path::new(flags.workspace.as_deref().unwrap_or(paths::WORKSPACE));
    for dir in &flags.working_dirs {
        if let Some(path) = inside(workspace, Path::new(dir)) {
            fs::create_dir_all(&path).map_err(|source| PrepareError::WorkingDir { path, source })?;
        }
    }
    Ok(())
}

/// Copies this program under a temporary name first, so that a half-written one is never executed.
fn copy_self(to: &Path) -> io::Result<()> {
    let mut partial = to.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    remove(&partial)?;
    // Read whole: the program is small, and `io::copy` would make it larger.
    let program = fs::read("/proc/self/exe")?;
    let mut target = OpenOptions::new().write(true).create_new(true).mode(BINARY_MODE).open(&partial)?;
    target.write_all(&program)?;
    target.set_permissions(fs::Permissions::from_mode(BINARY_MODE))?;
    drop(target);
    fs::rename(&partial, to)
}

/// Makes `steps/<name>` and `steps/<index>` lead to the status directory of the step.
fn link_step(root: &Path, index: usize, name: &str) -> Result<(), PrepareError> {
    let plain = Path::new(name).components().eq([Component::Normal(name.as_ref())]);
    if !plain {
        return Err(PrepareError::StepName(name.to_owned()));
    }
    let status = root.join("run").join(index.to_string()).join("status");
    for link in [name.to_owned(), index.to_string()] {
        let path = root.join("steps").join(link);
        remove(&path)
            .and_then(|()| symlink(&status, &path))
            .map_err(|source| PrepareError::Link { path, source })?;
    }
    Ok(())
}

fn write_script(dir: &Path, script: &Script) -> Result<(), PrepareError> {
    let path = Path::new(&script.path);
    let directly_inside = path.parent() == Some(dir)
        && path.components().all(|part| part != Component::ParentDir)
        && path.file_name().is_some();
    if !directly_inside {
        return Err(PrepareError::ScriptOutside { path: script.path.clone(), dir: dir.to_owned() });
    }
    fs::write(path, &script.content)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(SCRIPT_MODE)))
        .map_err(|source| PrepareError::Script { path: path.to_owned(), source })
}

/// The directory meant by `dir` when it lies in the workspace; the runtime creates others.
fn inside(workspace: &Path, dir: &Path) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for part in workspace.join(dir).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir => {}
            other => path.push(other),
        }
    }
    path.starts_with(workspace).then_some(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("src", Some("/workspace/src"))]
    #[case("./a/../b", Some("/workspace/b"))]
    #[case("/workspace/a/b", Some("/workspace/a/b"))]
    #[case("/workspace", Some("/workspace"))]
    #[case("..", None)]
    #[case("/workspace/../etc", None)]
    #[case("/workspaces/a", None)]
    #[case("/etc", None)]
    #[case("a/../../workspace/b", Some("/workspace/b"))]
    fn only_the_workspace_is_ours(#[case] dir: &str, #[case] expected: Option<&str>) {
        assert_eq!(inside(Path::new("/workspace"), Path::new(dir)), expected.map(PathBuf::from));
    }
}

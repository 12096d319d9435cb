//! The init container: lays out what the steps rely on (contract 5.2, in one container).

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use ropewalk_entrypoint_protocol::flags::PrepareFlags;
use ropewalk_entrypoint_protocol::paths;

use crate::layout::{self, LayoutError, remove};
use crate::log;

/// Mode of the binary's copy: steps may execute it, and nobody has to read it.
const BINARY_MODE: u32 = 0o311;

/// What could not be laid out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    #[error("copying the entrypoint to {path:?}")]
    Copy { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Layout(#[from] LayoutError),
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
    layout::link_steps(root, &flags.steps)?;
    for script in &flags.scripts {
        layout::write_script(root, script)?;
    }
    let workspace = Path::new(flags.workspace.as_deref().unwrap_or(paths::WORKSPACE));
    for dir in &flags.working_dirs {
        let Some(path) = inside(workspace, Path::new(dir)) else { continue };
        match layout::make_dir(&path) {
            Ok(()) => {}
            // The image has a user without privileges, the volume perhaps an owner. The runtime, which is root, makes
            // the directory before the step starts in it.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                let path = path.display();
                log(&format!("leaving working directory \"{path}\" to the container runtime: {error}"));
            }
            Err(source) => return Err(PrepareError::WorkingDir { path, source }),
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

//! A sidecar with a script: writes it and becomes it, so that it runs as it would have on its own.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use ropewalk_entrypoint_protocol::flags::ScriptFlags;
use ropewalk_entrypoint_protocol::paths;

use crate::command::{self, CommandError};
use crate::layout::{self, LayoutError};

/// Where our own image holds this program.
const IMAGE_PROGRAM: &str = "/entrypoint";

/// What every release of this program contains, and so few others that they may be taken for it. The image that stops a
/// container may be of another release than what the container was started with.
static MARK: [u8; 64] = *b"ropewalk entrypoint 5f0c2a9e-1b7d-4e0a-9a52-7c1d3b86e4f1 marker.";

/// Why a sidecar's script does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScriptError {
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// Executes the script in place of this program. Returns only if that fails, or if the container is being stopped by
/// our own image: it then ends successfully, as no script has an interpreter there (contract 5.7).
pub(crate) fn run(flags: &ScriptFlags) -> Result<(), ScriptError> {
    let root = Path::new(flags.root.as_deref().unwrap_or(paths::ROOT));
    layout::write_script(root, &flags.script)?;
    let path = &flags.script.path;
    // Unlike a bare `execve`, this resets the signal that is ignored from the start.
    let error = Command::new(path).args(&flags.args).exec();
    if is_our_image().unwrap_or(false) {
        return Ok(());
    }
    Err(command::explain(path, Path::new(path), error).into())
}

fn is_our_image() -> io::Result<bool> {
    Ok(is_ours(&fs::read(IMAGE_PROGRAM)?))
}

fn is_ours(program: &[u8]) -> bool {
    // Hidden from the compiler, which would take it apart, so that it stands in the program as it is.
    let mark = std::hint::black_box(&MARK);
    program.windows(mark.len()).any(|window| window == mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_build_is_recognised() -> io::Result<()> {
        assert!(is_ours(&fs::read("/proc/self/exe")?));
        assert!(!is_ours(&fs::read("/bin/sh")?));
        Ok(())
    }
}

//! What an ordinary user's command does first.

use std::path::Path;
use std::process::ExitCode;

use crate::run::REFUSED;

/// Makes the process root of a user namespace if it is not root; returns how it ends if it cannot be. It must have one thread.
pub fn enter(data_dir: &Path) -> Option<ExitCode> {
    let refused = ropewalk_standalone::rootless::enter(data_dir).err()?;
    crate::report(&[crate::from_chain(&refused)], false);
    Some(ExitCode::from(REFUSED))
}

//! `ropewalk down`: end what an `up` that has ended left running.

use std::process::ExitCode;

use crate::args;
use crate::run::REFUSED;

/// Runs the command.
pub fn down(args: &args::Down) -> ExitCode {
    let ended = ropewalk_standalone::down(&args.data_dir).map_err(|error| crate::from_chain(&error));
    match ended.and_then(|ended| crate::print(&format!("{ended} containers ended\n"))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(diagnostic) => {
            crate::report(&[diagnostic], false);
            ExitCode::from(REFUSED)
        }
    }
}

//! The cases, each file about one thing.

mod ends;
mod environment;
mod files;
mod hooks;
mod init;
mod limits;
mod logs;
mod messages;
mod names;
mod objects;
mod privileges;
mod processes;
mod refusals;
mod restarts;
mod signals;
mod streams;
mod users;

use crate::case::Case;

pub(crate) fn all() -> Vec<Case> {
    [
        ends::cases(),
        environment::cases(),
        files::cases(),
        hooks::cases(),
        init::cases(),
        limits::cases(),
        logs::cases(),
        messages::cases(),
        names::cases(),
        objects::cases(),
        privileges::cases(),
        processes::cases(),
        refusals::cases(),
        restarts::cases(),
        signals::cases(),
        streams::cases(),
        users::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

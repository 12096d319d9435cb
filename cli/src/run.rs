//! `ropewalk run`: apply the files to a Kubernetes API of this process, and follow their runs to the end.

mod apply;
pub(crate) mod check;
mod follow;
mod objects;
mod pulls;
mod screen;
mod summary;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use ropewalk_standalone::Standalone;
use ropewalk_standalone::node::{RootfsMode, RuntimeKind};

use crate::args::{self, Output};
use crate::diagnostic::Diagnostic;
use crate::documents::{self, Document};
pub use apply::apply;
use follow::Ended;
pub use follow::RunKey;
pub use objects::{Additions, Object, Objects, assemble};
use screen::Screen;

/// Something was refused before or while it was applied.
pub(crate) const REFUSED: u8 = 2;
/// As shells report a program that SIGINT ended.
const INTERRUPTED: u8 = 130;

/// Why nothing came of it.
enum Stop {
    /// The user's to mend.
    Refused(Vec<Diagnostic>),
    /// The user wants it to end.
    Interrupted,
}

impl From<Diagnostic> for Stop {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::Refused(vec![diagnostic])
    }
}

impl From<Vec<Diagnostic>> for Stop {
    fn from(diagnostics: Vec<Diagnostic>) -> Self {
        Self::Refused(diagnostics)
    }
}

/// Runs the command. Everything started has ended when it returns, however it returns.
pub async fn run(args: args::Run) -> ExitCode {
    let screen = Arc::new(Screen::new(args.output));
    match attempt(args, &screen).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Stop::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(Stop::Refused(diagnostics)) => {
            crate::report(&diagnostics, screen.color());
            ExitCode::from(REFUSED)
        }
    }
}

async fn attempt(args: args::Run, screen: &Arc<Screen>) -> Result<bool, Stop> {
    let documents = read(&args.files)?;
    let workspaces = objects::directories(&args.workspaces)?;
    let additions = Additions { params: &args.params, workspaces: &workspaces, namespace: &args.namespace };
    let objects = assemble(documents, &additions)?;

    let mut interrupt = std::pin::pin!(interrupted());
    let mut standalone = Standalone::start(config(args.rootfs, args.runtime, args.data_dir))
        .map_err(|error| crate::from_chain(&error))?;
    let (client, pulls) = (standalone.client(), standalone.pulls());
    let outcome = tokio::select! {
        outcome = apply_and_follow(&client, &objects, screen) => outcome,
        never = pulls::show(pulls, screen) => match never {},
        error = standalone.failed() => Err(crate::from_chain(&error).into()),
        () = &mut interrupt => {
            screen.line("interrupted: stopping what runs");
            Err(Stop::Interrupted)
        }
    };
    let stopped = standalone.stop().await;
    let (runs, ended) = outcome?;

    stopped.map_err(|error| crate::from_chain(&error))?;
    let (summary, succeeded) = summary::summarize(&runs, &ended);
    screen.line(summary.trim_end());
    screen.lost().map_or(Ok(()), Err)?;
    if args.output == Output::Json {
        print_json(&ended)?;
    }
    Ok(succeeded)
}

/// How containers are run, as the arguments say.
pub(crate) fn config(
    rootfs: Option<args::Rootfs>,
    runtime: args::Runtime,
    data_root: PathBuf,
) -> ropewalk_standalone::Config {
    ropewalk_standalone::Config {
        rootfs: match rootfs {
            Some(args::Rootfs::Host) => RootfsMode::Host,
            None => RootfsMode::Images,
        },
        runtime: match runtime {
            args::Runtime::Builtin => RuntimeKind::Builtin,
            args::Runtime::Runc => RuntimeKind::Runc("runc".into()),
        },
        data_root,
        ..ropewalk_standalone::Config::default()
    }
}

async fn apply_and_follow(
    client: &kube::Client,
    objects: &Objects,
    screen: &Arc<Screen>,
) -> Result<(Vec<RunKey>, Ended), Stop> {
    let runs = apply(client, objects).await?;
    for run in &runs {
        screen.line(&format!("{} \"{}\" started", run.kind, run.name));
    }
    let ended = follow::follow(client, &runs, screen).await.map_err(|error| crate::from_chain(&error))?;
    Ok((runs, ended))
}

/// Reads all files and checks the form of what is in them, so that everything wrong is told at once.
pub(crate) fn read(files: &[std::path::PathBuf]) -> Result<Vec<Document>, Vec<Diagnostic>> {
    let mut documents = Vec::new();
    let mut wrong = Vec::new();
    for file in files {
        match documents::read(file) {
            Ok(read) => documents.extend(read),
            Err(diagnostic) => wrong.push(diagnostic),
        }
    }
    let warnings: Vec<_> = documents.iter_mut().flat_map(check::correct_case).collect();
    crate::report(&warnings, false);
    wrong.extend(documents.iter().flat_map(check::check));
    if wrong.is_empty() { Ok(documents) } else { Err(wrong) }
}

/// The runs as they ended, for programs.
fn print_json(ended: &Ended) -> Result<(), Diagnostic> {
    let pipelineruns = ended.pipelineruns.values().filter_map(|run| serde_json::to_value(run).ok());
    let taskruns = ended.taskruns.values().filter_map(|run| serde_json::to_value(run).ok());
    crate::print(&format!("{:#}\n", pipelineruns.chain(taskruns).collect::<serde_json::Value>()))
}

/// The signals by which a user ends the command: Ctrl-C, Ctrl-\, a closed terminal, a plain kill. They are caught from
/// this call on, whenever the future is first looked at; where they cannot be had, it never resolves.
pub(crate) fn interrupted() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()];
    let signals = kinds.into_iter().map(signal).collect::<std::io::Result<Vec<_>>>();
    async {
        let Ok(mut signals) = signals else { return std::future::pending().await };
        let received = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
        futures::future::select_all(received).await;
    }
}

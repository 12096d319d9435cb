//! The life of one step: wait, fill in, run, report (contract 5.5).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ropewalk_entrypoint_protocol::flags::StepFlags;
use ropewalk_entrypoint_protocol::paths;
use ropewalk_entrypoint_protocol::termination::{FAILURE, ResultType, RunResult};

use crate::child::{Child, End};
use crate::command::{self, CommandError};
use crate::ending::{Consequences, Ending};
use crate::layout::{self, LayoutError};
use crate::report::{self, Message, ReportError};
use crate::signals::Signals;
use crate::spawn::{self, Invocation};
use crate::substitute::Texts;
use crate::tee::{Log, Tee};
use crate::wait::{self, WaitError, Waited};
use crate::watch::Watch;
use crate::{FAILED, clock, credentials, describe, log};

/// Added to a signal's number to make an exit code, as shells do.
const SIGNAL_EXIT_BASE: i32 = 128;

/// Why a step failed before its command had a chance.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    #[error("setting up signals")]
    Signals(#[source] io::Error),
    #[error("creating directory {path:?}")]
    Directory { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Wait(#[from] WaitError),
}

/// Runs a step and returns the exit code of its container.
pub(crate) fn run(flags: &StepFlags) -> Result<u8, StepError> {
    let signals = Signals::block().map_err(StepError::Signals)?;
    let home = std::env::var_os("HOME");
    if let Err(error) = credentials::lay_out(&flags.credentials, root(flags), home.as_deref()) {
        let message = describe(&error);
        log(&message);
        return Ok(finish(flags, SystemTime::now(), &Ending::NotStarted(message)));
    }
    let mut watch = Watch::default();
    match wait_for_turn(flags, &mut watch, &signals) {
        Ok(Waited::Ready) => {
            let started_at = SystemTime::now();
            let ending = execute(flags, &mut watch, &signals);
            Ok(finish(flags, started_at, &ending))
        }
        Ok(Waited::EarlierStepFailed) => {
            log("skipping this step because an earlier step failed");
            Ok(finish(flags, SystemTime::now(), &Ending::EarlierStepFailed))
        }
        Ok(Waited::Interrupted(signal)) => {
            log(&format!("ended by signal {signal} before it was this step's turn"));
            Ok(u8::try_from(SIGNAL_EXIT_BASE + signal).unwrap_or(FAILED))
        }
        Err(error) => {
            // Later steps must not wait for one that will never run.
            if let Err(error) = report::post(&flags.post_file, false) {
                log(&describe(&error));
            }
            Err(error)
        }
    }
}

fn wait_for_turn(flags: &StepFlags, watch: &mut Watch, signals: &Signals) -> Result<Waited, StepError> {
    layout::link_steps(root(flags), &flags.steps)?;
    if let Some(script) = &flags.script {
        layout::write_script(root(flags), script)?;
    }
    for dir in &flags.make_dirs {
        // The step that starts in it tries again, and complains if it must.
        let _ = layout::make_dir(Path::new(dir));
    }
    if !flags.step_metadata_dir.is_empty() {
        for name in [paths::STEP_RESULTS, paths::STEP_ARTIFACTS] {
            let path = Path::new(&flags.step_metadata_dir).join(name);
            fs::create_dir_all(&path).map_err(|source| StepError::Directory { path, source })?;
        }
    }
    Ok(wait::for_files(&flags.wait_files, flags.wait_file_content, watch, signals)?)
}

fn execute(flags: &StepFlags, watch: &mut Watch, signals: &Signals) -> Ending {
    run_command(flags, watch, signals).unwrap_or_else(|error| {
        let message = describe(&error);
        log(&format!("error executing command: {message}"));
        Ending::NotStarted(message)
    })
}

/// Why a command did not run to its end.
#[derive(Debug, thiserror::Error)]
enum ExecuteError {
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("CEL in a step's when expression is not supported: {0:?}; use input, operator and values")]
    Cel(String),
    #[error("entering working directory {path:?}")]
    WorkingDir { path: String, source: io::Error },
    #[error("opening {path:?} for a copy of the step's output")]
    Output { path: String, source: io::Error },
    #[error("waiting for command {command:?}")]
    Supervise { command: String, source: io::Error },
}

fn run_command(flags: &StepFlags, watch: &mut Watch, signals: &Signals) -> Result<Ending, ExecuteError> {
    let mut texts = Texts {
        env: std::env::vars_os().collect(),
        when: flags.when_expressions.clone(),
        argv: command::argv(flags)?,
    };
    if let Err(error) = texts.fill_in(&root(flags).join("steps")) {
        log(&format!("error filling in step results, going on without: {}", describe(&error)));
    }
    if let Some(guard) = texts.when.iter().find(|guard| !guard.cel.is_empty()) {
        return Err(ExecuteError::Cel(guard.cel.clone()));
    }
    if !texts.when.iter().all(ropewalk_entrypoint_protocol::when::WhenExpression::evaluate) {
        log("skipping this step because its when expressions do not hold");
        return Ok(Ending::WhenFalse);
    }
    if let Some(dir) = &flags.working_dir {
        enter(Path::new(dir)).map_err(|source| ExecuteError::WorkingDir { path: dir.clone(), source })?;
    }
    let name = texts.argv.first().ok_or(CommandError::None)?;
    let path = texts.env.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.as_os_str());
    let program = command::locate(name, path)?;
    let (mut tees, mut outputs) = (Vec::new(), Vec::new());
    for (path, log) in [(&flags.stdout_path, Log::Stdout), (&flags.stderr_path, Log::Stderr)] {
        if let Some(path) = path {
            let (tee, writer) = Tee::open(Path::new(path), log)
                .map_err(|source| ExecuteError::Output { path: path.clone(), source })?;
            tees.push(tee);
            outputs.push((log.descriptor(), writer));
        }
    }
    let invocation = Invocation { program: &program, argv: &texts.argv, env: &texts.env, outputs: &outputs };
    let pid = spawn::spawn(&invocation).map_err(|source| command::explain(name, &program, source))?;
    // With our copies open, the pipes would have no end.
    drop(outputs);
    let timeout = flags.timeout.filter(|timeout| !timeout.is_zero()).map(|timeout| timeout.as_std());
    let end = Child { pid }
        .run_to_end(timeout, signals, watch, &mut tees)
        .map_err(|source| ExecuteError::Supervise { command: name.clone(), source })?;
    if end == End::TimedOut {
        log(&format!("command {name:?} was stopped: it ran longer than the step's timeout"));
    }
    Ok(Ending::Ran(end))
}

fn enter(dir: &Path) -> io::Result<()> {
    match std::env::set_current_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            layout::make_dir(dir)?;
            std::env::set_current_dir(dir)
        }
        entered => entered,
    }
}

/// Leaves behind what an ending entails. A failure to do so fails the step, but stops nothing that
/// can still be written.
fn finish(flags: &StepFlags, started_at: SystemTime, ending: &Ending) -> u8 {
    let consequences = ending.consequences(flags.on_error);
    let mut exit = consequences.exit;
    let mut check = |outcome: Result<(), ReportError>| {
        if let Err(error) = outcome {
            log(&describe(&error));
            exit = FAILED;
        }
    };
    // Before the post file: once that exists, the next step may read the exit code.
    if let Some(code) = &consequences.exit_code_file {
        check(report::exit_code(&flags.step_metadata_dir, code));
    }
    // Before the results: an oversize result must not hold back the next step (contract 5.5).
    check(report::post(&flags.post_file, consequences.released));
    check(write_message(flags, started_at, &consequences));
    exit
}

fn write_message(
    flags: &StepFlags,
    started_at: SystemTime,
    consequences: &Consequences,
) -> Result<(), ReportError> {
    let mut message = Message::open(&flags.termination_path);
    let results = if consequences.results { add_results(flags, &mut message) } else { Ok(()) };
    let mut entries = consequences.entries.clone();
    if let Err(error) = &results {
        entries.push(RunResult::internal(FAILURE, describe(error)));
    }
    results.and(message.finish(&clock::rfc3339_millis(started_at), &entries))
}

fn add_results(flags: &StepFlags, message: &mut Message) -> Result<(), ReportError> {
    let task = flags.results.as_deref().unwrap_or_default();
    message.add_results(&report::results(&root(flags).join("results"), task, ResultType::TaskRun)?)?;
    let dir = report::step_results_dir(&flags.step_metadata_dir);
    message.add_results(&report::results(&dir, &flags.step_results, ResultType::Step)?)
}

fn root(flags: &StepFlags) -> &Path {
    Path::new(flags.root.as_deref().unwrap_or(paths::ROOT))
}

//! The life of one step: wait, fill in, run, report (contract 5.5).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use ropewalk_entrypoint_protocol::flags::StepFlags;
use ropewalk_entrypoint_protocol::paths;
use ropewalk_entrypoint_protocol::termination::{FAILURE, ResultType, RunResult};

use crate::child::{self, End};
use crate::command::{self, CommandError};
use crate::ending::{Consequences, Ending};
use crate::report::{self, Message, ReportError};
use crate::signals::Signals;
use crate::substitute::Texts;
use crate::tee::{Log, Tee};
use crate::wait::{self, WaitError, Waited};
use crate::{FAILED, clock, describe, log};

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
    Wait(#[from] WaitError),
}

/// Runs a step and returns the exit code of its container.
pub(crate) fn run(flags: &StepFlags) -> Result<u8, StepError> {
    let signals = Signals::block().map_err(StepError::Signals)?;
    match wait_for_turn(flags, &signals) {
        Ok(Waited::Ready) => {
            let started_at = SystemTime::now();
            let ending = execute(flags, &signals);
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

fn wait_for_turn(flags: &StepFlags, signals: &Signals) -> Result<Waited, StepError> {
    if !flags.step_metadata_dir.is_empty() {
        for name in [paths::STEP_RESULTS, paths::STEP_ARTIFACTS] {
            let path = Path::new(&flags.step_metadata_dir).join(name);
            fs::create_dir_all(&path).map_err(|source| StepError::Directory { path, source })?;
        }
    }
    Ok(wait::for_files(&flags.wait_files, flags.wait_file_content, signals)?)
}

fn execute(flags: &StepFlags, signals: &Signals) -> Ending {
    run_command(flags, signals).unwrap_or_else(|error| {
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
    #[error("opening {path:?} for a copy of the step's output")]
    Output { path: String, source: io::Error },
    #[error("waiting for command {command:?}")]
    Supervise { command: String, source: io::Error },
}

fn run_command(flags: &StepFlags, signals: &Signals) -> Result<Ending, ExecuteError> {
    let mut texts = Texts {
        // Variables that are no UTF-8 cannot hold a reference and reach the command untouched.
        env: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
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
    let (name, arguments) = texts.argv.split_first().ok_or(CommandError::None)?;
    let filled_path = texts.env.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.into());
    let path = filled_path.or_else(|| std::env::var_os("PATH"));
    let program = command::locate(name, path.as_deref())?;
    let mut command = Command::new(&program);
    command.args(arguments).envs(texts.env);
    set_argv0(&mut command, name);
    let mut tees = Vec::new();
    if let Some(path) = &flags.stdout_path {
        let (tee, writer) = open_tee(path, Log::Stdout)?;
        tees.push(tee);
        command.stdout(writer);
    }
    if let Some(path) = &flags.stderr_path {
        let (tee, writer) = open_tee(path, Log::Stderr)?;
        tees.push(tee);
        command.stderr(writer);
    }
    let child = child::start(&mut command).map_err(|source| command::explain(name, &program, source))?;
    // It holds our copies of the pipes, without which they have no end.
    drop(command);
    let timeout = flags.timeout.filter(|timeout| !timeout.is_zero()).map(|timeout| timeout.as_std());
    let end = child
        .run_to_end(timeout, signals, &mut tees)
        .map_err(|source| ExecuteError::Supervise { command: name.clone(), source })?;
    if end == End::TimedOut {
        log(&format!("command {name:?} was stopped: it ran longer than the step's timeout"));
    }
    Ok(Ending::Ran(end))
}

fn open_tee(path: &str, log: Log) -> Result<(Tee, io::PipeWriter), ExecuteError> {
    Tee::open(Path::new(path), log).map_err(|source| ExecuteError::Output { path: path.to_owned(), source })
}

/// Programs such as busybox look at the name they were called by, not at the file found for it.
fn set_argv0(command: &mut Command, name: &str) {
    std::os::unix::process::CommandExt::arg0(command, name);
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

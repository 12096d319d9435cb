//! Runs every YAML file of a folder in a world of its own kind and holds each run's outcome against the committed
//! expectations: `cargo run -p ropewalk-test --bin corpus -- FOLDER --rootfs host`.
//!
//! Prints a row per run and closes with `N passed, M failed, K skipped`: passed as it should, ended otherwise than
//! expected, and not passing yet for the reason the expectations give.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use futures::{StreamExt, stream};
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::wait::await_condition;
use ropewalk_api::config::{ApiFields, Config};
use ropewalk_cli::documents;
use ropewalk_cli::run::{Additions, RunKey, apply, assemble};
use ropewalk_standalone::Standalone;
use ropewalk_standalone::node::{RootfsMode, shim};
use serde_json::Value;

/// Files at once. They mostly sleep; the machine's cores bound what they do besides.
const AT_ONCE: usize = 6;

/// How long a file's runs may take together. The slowest sleep for half a minute and retry.
const PATIENCE: Duration = Duration::from_secs(150);

#[derive(Parser)]
struct Args {
    /// The folder, searched through all its subfolders
    folder: PathBuf,
    /// What containers see as their root file system
    #[arg(long, value_enum)]
    rootfs: Option<Rootfs>,
    /// The expected outcomes, by file and run
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus-expectations.tsv"))]
    expectations: PathBuf,
    /// Only files whose path contains this; expectations of others are not looked at
    #[arg(long)]
    only: Option<String>,
    /// Print the expectations that the outcomes amount to
    #[arg(long)]
    write: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Rootfs {
    Host,
}

/// What became of one run.
struct Row {
    file: String,
    /// Counted from 0 among the runs of the file.
    index: usize,
    outcome: Outcome,
    seconds: f64,
}

#[derive(Clone, Debug)]
enum Outcome {
    Passed,
    /// Why not, in one line.
    Failed(String),
}

fn main() -> Result<ExitCode> {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "__shim") {
        return Ok(shim::main(std::env::args_os().skip(2)));
    }
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_env("ROPEWALK_LOG")).init();
    let args = Args::parse();
    let expectations = read_expectations(&args.expectations)?;
    let mut files = yaml_files(&args.folder)?;
    files.retain(|file| args.only.as_ref().is_none_or(|only| file.to_string_lossy().contains(only.as_str())));
    let rows = tokio::runtime::Runtime::new()?.block_on(run_all(&args, &files))?;
    if args.write {
        return Ok(write_expectations(&rows));
    }
    Ok(judge(&rows, &expectations, args.only.is_none()))
}

async fn run_all(args: &Args, files: &[PathBuf]) -> Result<Vec<Row>> {
    // Files in an `alpha` folder need the flags their README names; all of them, as upstream's own test does.
    let (alpha, others): (Vec<_>, Vec<_>) =
        files.iter().partition(|file| file.parent().is_some_and(|parent| parent.ends_with("alpha")));
    let mut flags = Config::default();
    flags.features.enable_api_fields = ApiFields::Alpha;
    flags.features.enable_param_enum = true;
    flags.features.enable_artifacts = true;
    flags.features.enable_cel_in_when_expression = true;
    let mut rows = run_in_world(args, others, Config::default()).await?;
    rows.extend(run_in_world(args, alpha, flags).await?);
    rows.sort_by(|a, b| (&a.file, a.index).cmp(&(&b.file, b.index)));
    Ok(rows)
}

async fn run_in_world(args: &Args, files: Vec<&PathBuf>, engine: Config) -> Result<Vec<Row>> {
    let rootfs = args.rootfs.map_or(RootfsMode::None, |Rootfs::Host| RootfsMode::Host);
    let config = ropewalk_standalone::Config { rootfs, engine, ..ropewalk_standalone::Config::default() };
    let world = Standalone::start(config).context("cannot start the world")?;
    let client = world.client();
    let rows = stream::iter(files.into_iter().enumerate())
        .map(|(number, file)| run_file(&client, &args.folder, file, number))
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    world.stop().await.context("cannot stop the world")?;
    Ok(rows.into_iter().flatten().collect())
}

/// Every file has a namespace of its own, so that they cannot see each other.
async fn run_file(client: &kube::Client, folder: &Path, file: &Path, number: usize) -> Vec<Row> {
    let name = file.strip_prefix(folder).unwrap_or(file).to_string_lossy().into_owned();
    let row = |index, outcome, seconds| Row { file: name.clone(), index, outcome, seconds };
    let refused = |text: &str| Outcome::Failed(one_line(&format!("refused: {text}")));
    let documents = match documents::read(file) {
        Ok(documents) => documents,
        Err(error) => return vec![row(0, refused(error.message()), 0.0)],
    };
    let has_run = |document: &documents::Document| matches!(document.kind(), "TaskRun" | "PipelineRun");
    if !documents.iter().any(has_run) {
        return Vec::new();
    }
    let namespace = format!("corpus-{number}");
    let additions = Additions { params: &[], workspaces: &[], namespace: &namespace };
    let objects = match assemble(documents, &additions) {
        Ok(objects) => objects,
        Err(error) => return vec![row(0, refused(error.message()), 0.0)],
    };
    let begun = Instant::now();
    let runs = match apply(client, &objects).await {
        Ok(runs) => runs,
        Err(errors) => {
            let text = errors.first().map_or("", |error| error.message());
            return (0..objects.runs.len()).map(|index| row(index, refused(text), 0.0)).collect();
        }
    };
    let mut rows = Vec::new();
    for (index, run) in runs.iter().enumerate() {
        let outcome = outcome(client, run, PATIENCE.saturating_sub(begun.elapsed())).await;
        let row = row(index, outcome, begun.elapsed().as_secs_f64());
        print_row(&row);
        rows.push(row);
    }
    rows
}

async fn outcome(client: &kube::Client, run: &RunKey, patience: Duration) -> Outcome {
    let gvk = GroupVersionKind::gvk("tekton.dev", "v1", run.kind);
    let api: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), &run.namespace, &ApiResource::from_gvk(&gvk));
    let done = await_condition(api.clone(), &run.name, |run: Option<&DynamicObject>| {
        run.and_then(succeeded).is_some_and(|condition| condition["status"] != "Unknown")
    });
    let found = match tokio::time::timeout(patience, done).await {
        Ok(Ok(Some(run))) => Some(run),
        _ => api.get_opt(&run.name).await.ok().flatten(),
    };
    match found.as_ref().and_then(succeeded) {
        Some(condition) if condition["status"] == "True" => Outcome::Passed,
        Some(condition) => {
            let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
            Outcome::Failed(one_line(&format!("{} {}: {}", text("status"), text("reason"), text("message"))))
        }
        None => Outcome::Failed("never looked at".to_owned()),
    }
}

fn succeeded(run: &DynamicObject) -> Option<&Value> {
    let conditions = run.data.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|condition| condition["type"] == "Succeeded")
}

fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list \"{}\"", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
                files.push(path);
            }
        }
    }
    if files.is_empty() {
        bail!("there is no YAML file in \"{}\"", folder.display());
    }
    files.sort();
    Ok(files)
}

/// What a row must come to: `pass`, or a cause why it does not yet.
type Expectations = BTreeMap<(String, usize), Option<String>>;

/// Lines of `file<TAB>run<TAB>pass|not yet<TAB>cause`; `#` starts a comment.
fn read_expectations(path: &Path) -> Result<Expectations> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Expectations::new()),
        text => text.with_context(|| format!("cannot read \"{}\"", path.display()))?,
    };
    let rows = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    rows.map(|line| match line.split('\t').collect::<Vec<_>>().as_slice() {
        [file, index, "pass"] => Ok(((file.to_string(), index.parse()?), None)),
        [file, index, "not yet", cause] => Ok(((file.to_string(), index.parse()?), Some(cause.to_string()))),
        _ => bail!("\"{line}\" is not an expectation"),
    })
    .collect()
}

/// Compares; the exit code is 0 exactly when every row came out as expected.
#[expect(clippy::print_stdout, reason = "this is the program's output")]
fn judge(rows: &[Row], expectations: &Expectations, whole: bool) -> ExitCode {
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let mut seen = Vec::new();
    for row in rows {
        let key = (row.file.clone(), row.index);
        match (expectations.get(&key), &row.outcome) {
            (Some(None), Outcome::Passed) => passed += 1,
            (Some(Some(_)), Outcome::Failed(_)) => skipped += 1,
            (Some(None), Outcome::Failed(why)) => {
                failed += 1;
                println!("MUST PASS {} {}: {why}", row.file, row.index);
            }
            (Some(Some(cause)), Outcome::Passed) => {
                failed += 1;
                println!(
                    "PASSES NOW {} {}, expected not yet ({cause}): move the row to pass",
                    row.file, row.index
                );
            }
            (None, _) => {
                failed += 1;
                println!("UNKNOWN {} {}: add the row to the expectations", row.file, row.index);
            }
        }
        seen.push(key);
    }
    if whole {
        for (file, index) in expectations.keys().filter(|key| !seen.contains(key)) {
            failed += 1;
            println!("MISSING {file} {index}: expected, but there is no such run");
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::print_stdout, reason = "this is the program's output")]
fn print_row(row: &Row) {
    match &row.outcome {
        Outcome::Passed => println!("pass      {:6.1} s  {} {}", row.seconds, row.file, row.index),
        Outcome::Failed(why) => {
            println!("not yet   {:6.1} s  {} {}: {why}", row.seconds, row.file, row.index);
        }
    }
}

#[expect(clippy::print_stdout, reason = "this is the program's output")]
fn write_expectations(rows: &[Row]) -> ExitCode {
    println!("# file\trun\toutcome\tcause");
    for Row { file, index, outcome, .. } in rows {
        match outcome {
            Outcome::Passed => println!("{file}\t{index}\tpass"),
            Outcome::Failed(why) => println!("{file}\t{index}\tnot yet\t{why}"),
        }
    }
    ExitCode::SUCCESS
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

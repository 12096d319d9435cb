//! Runs every YAML file of a folder in a world and holds each run's outcome against the committed expectations:
//! `cargo run -p ropewalk-test --bin corpus -- FOLDER --world cluster`.
//!
//! Where a step has no command, or the expectations say that what its image is matters, images come from a registry, which is
//! asked what they run; elsewhere the world's own way has to do.
//!
//! Prints a row per run and closes with `N passed, M failed, K skipped (WORLD)`: passed as it should, ended otherwise
//! than expected, and not passing yet for the reason the expectations give.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use futures::{StreamExt, stream};
use ropewalk_cli::documents;
use ropewalk_test::harness::{self, Features, Kind, Namespace, RunKey, World, is_run, registry};
use serde_json::Value;

/// Files at once. They mostly sleep; the machine's cores bound what they do besides.
const AT_ONCE: usize = 6;

/// How long a file's runs may take together. The slowest sleep for half a minute and retry.
const PATIENCE: Duration = Duration::from_secs(150);

/// How long for a run that is not expected to pass: some wait for what never comes, and hold up the others.
const LITTLE_PATIENCE: Duration = Duration::from_secs(45);

#[derive(Parser)]
#[command(
    about = "Runs every YAML file of a folder, and holds the outcomes against the committed expectations"
)]
struct Args {
    /// The folder, searched through all its subfolders
    folder: PathBuf,
    /// Where to run the files
    #[arg(long, value_enum, default_value = "standalone")]
    world: Kind,
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
    if let Some(ended) = harness::begin() {
        return Ok(ended);
    }
    let args = Args::parse();
    if let Some(lacking) = args.world.lacks() {
        bail!("the world {} needs {lacking}", args.world);
    }
    let expectations = read_expectations(&args.expectations)?;
    let mut files = yaml_files(&args.folder)?;
    files.retain(|file| args.only.as_ref().is_none_or(|only| file.to_string_lossy().contains(only.as_str())));
    let rows = tokio::runtime::Runtime::new()?.block_on(run_all(&args, &files, &expectations))?;
    if args.write {
        return Ok(write_expectations(&rows));
    }
    Ok(judge(&rows, &expectations, &args))
}

async fn run_all(args: &Args, files: &[PathBuf], expectations: &Expectations) -> Result<Vec<Row>> {
    // Files in an `alpha` folder need the flags their README names; all of them, as upstream's own test does.
    let (alpha, others): (Vec<_>, Vec<_>) =
        files.iter().partition(|file| file.parent().is_some_and(|parent| parent.ends_with("alpha")));
    let mut rows = run_with(args, others, expectations, &Features::default()).await?;
    rows.extend(run_with(args, alpha, expectations, &Features::alpha()).await?);
    rows.sort_by(|a, b| (&a.file, a.index).cmp(&(&b.file, b.index)));
    Ok(rows)
}

async fn run_with(
    args: &Args,
    files: Vec<&PathBuf>,
    expectations: &Expectations,
    features: &Features,
) -> Result<Vec<Row>> {
    let (pulling, others): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|file| needs_registry(&args.folder, file, expectations));
    let mut rows = Vec::new();
    if !others.is_empty() {
        let world = World::start(args.world, features).await?;
        rows.extend(run_in(world, args, others, expectations).await?);
    }
    if !pulling.is_empty() {
        if let Some(lacking) = registry::lacks() {
            bail!("images have to come from a registry, which needs {lacking}");
        }
        let world = World::start_with_registry(args.world, features).await?;
        rows.extend(run_in(world, args, pulling, expectations).await?);
    }
    Ok(rows)
}

async fn run_in(
    world: World,
    args: &Args,
    files: Vec<&PathBuf>,
    expectations: &Expectations,
) -> Result<Vec<Row>> {
    let rows = stream::iter(files)
        .map(|file| run_file(&world, &args.folder, file, expectations))
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    world.stop().await?;
    Ok(rows.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn needs_registry(folder: &Path, file: &Path, expectations: &Expectations) -> bool {
    let is_expected = (expectations.range((name(folder, file), 0)..))
        .take_while(|((of, _), _)| *of == name(folder, file))
        .any(|(_, expected)| expected.needs_images);
    // What cannot be read is told when it is run.
    is_expected || documents::read(file).is_ok_and(|all| all.iter().any(|it| asks_registry(&it.value)))
}

/// Whether there is a step without a command: its image's is asked for.
fn asks_registry(value: &Value) -> bool {
    let has = |step: &Value, field: &str| step.get(field).is_some_and(|value| !value.is_null());
    let asks = |step: &Value| has(step, "image") && !has(step, "command") && !has(step, "script");
    match value {
        Value::Object(fields) => fields.iter().any(|(field, value)| {
            field == "steps" && value.as_array().is_some_and(|steps| steps.iter().any(asks))
                || asks_registry(value)
        }),
        Value::Array(items) => items.iter().any(asks_registry),
        _ => false,
    }
}

fn name(folder: &Path, file: &Path) -> String {
    file.strip_prefix(folder).unwrap_or(file).to_string_lossy().into_owned()
}

/// Every file has a namespace of its own, so that they cannot see each other.
async fn run_file(
    world: &World,
    folder: &Path,
    file: &Path,
    expectations: &Expectations,
) -> Result<Vec<Row>> {
    let name = name(folder, file);
    let row = |index, outcome, seconds| Row { file: name.clone(), index, outcome, seconds };
    let refused = |text: &str| Outcome::Failed(one_line(&format!("refused: {text}")));
    let documents = match documents::read(file) {
        Ok(documents) => documents,
        Err(error) => return Ok(vec![row(0, refused(error.message()), 0.0)]),
    };
    let count = documents.iter().filter(|document| is_run(document.kind())).count();
    if count == 0 {
        return Ok(Vec::new());
    }
    let namespace = world.namespace("corpus").await?;
    let begun = Instant::now();
    let mut rows = Vec::new();
    match namespace.apply_documents(documents).await {
        Ok(runs) => {
            for (index, run) in runs.iter().enumerate() {
                let expected = expectations.get(&(name.clone(), index));
                let patience = if expected.is_some_and(|expected| expected.not_yet.is_some()) {
                    LITTLE_PATIENCE
                } else {
                    PATIENCE
                };
                let outcome = outcome(&namespace, run, patience.saturating_sub(begun.elapsed())).await;
                rows.push(row(index, outcome, begun.elapsed().as_secs_f64()));
            }
        }
        Err(error) => {
            rows.extend((0..count).map(|index| row(index, refused(&error.to_string()), 0.0)));
        }
    }
    rows.iter().for_each(print_row);
    namespace.finish().await?;
    Ok(rows)
}

async fn outcome(namespace: &Namespace<'_>, run: &RunKey, patience: Duration) -> Outcome {
    match namespace.done(run, patience).await {
        Ok(state) if state.status() == "True" => Outcome::Passed,
        Ok(state) => Outcome::Failed(one_line(&state.to_string())),
        Err(error) => Outcome::Failed(one_line(&format!("{error:#}"))),
    }
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

/// What a row must come to.
#[derive(Clone, Debug, Default)]
struct Expected {
    /// Why it does not pass yet.
    not_yet: Option<String>,
    /// Its images have to be what they are meant to be.
    needs_images: bool,
}

type Expectations = BTreeMap<(String, usize), Expected>;

/// Lines of `file<TAB>run<TAB>pass`, of `file<TAB>run<TAB>images<TAB>cause` for what passes with an image that has what its
/// scripts rely on, and of `file<TAB>run<TAB>not yet<TAB>cause` for what does not pass yet; `#` starts a comment.
fn read_expectations(path: &Path) -> Result<Expectations> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read \"{}\"", path.display()))?;
    let rows = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    rows.map(|line| {
        let (file, index, expected) = match *line.split('\t').collect::<Vec<_>>() {
            [file, index, "pass"] => (file, index, Expected::default()),
            [file, index, "images", _] => {
                (file, index, Expected { needs_images: true, ..Expected::default() })
            }
            [file, index, "not yet", cause] => {
                (file, index, Expected { not_yet: Some(cause.to_owned()), ..Expected::default() })
            }
            _ => bail!("\"{line}\" is not an expectation"),
        };
        Ok(((file.to_owned(), index.parse()?), expected))
    })
    .collect()
}

/// Compares; the exit code is 0 exactly when every row came out as expected.
#[expect(clippy::print_stdout, reason = "this is the program's output")]
fn judge(rows: &[Row], expectations: &Expectations, args: &Args) -> ExitCode {
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let mut seen = Vec::new();
    for row in rows {
        let key = (row.file.clone(), row.index);
        match (expectations.get(&key).map(|it| &it.not_yet), &row.outcome) {
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
    if args.only.is_none() {
        for (file, index) in expectations.keys().filter(|key| !seen.contains(key)) {
            failed += 1;
            println!("MISSING {file} {index}: expected, but there is no such run");
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped ({})", args.world);
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

//! Tests of the whole thing in one world: `cargo run -p ropewalk-test --bin e2e -- --world cluster [FILTER]`.
//!
//! Prints a row per test and closes with `N passed, M failed, K skipped (WORLD)`. A test is skipped where its world
//! is another one. To add one: a function in a file beside this, and its line in [`CASES`]; `ropewalk_test::harness`
//! tells what tests have to hand.

mod cancel;
mod quickstart;
mod waiting;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use ropewalk_standalone::node::shim;
use ropewalk_test::harness::{Features, Kind, World};

/// Tests at once. They mostly wait; pods of more than a few would wait for each other's cores.
const AT_ONCE: usize = 4;

/// No test takes longer, whatever it waits for.
const LIMIT: Duration = Duration::from_mins(6);

/// One test.
struct Case {
    name: &'static str,
    /// The only world it makes sense in, if there is one.
    only: Option<Kind>,
    /// It disturbs others: no other test runs at the same time.
    alone: bool,
    run: for<'a> fn(&'a World) -> BoxFuture<'a, Result<()>>,
}

impl Case {
    /// In any world, beside others.
    const fn new(name: &'static str, run: for<'a> fn(&'a World) -> BoxFuture<'a, Result<()>>) -> Self {
        Self { name, only: None, alone: false, run }
    }

    const fn only(self, world: Kind) -> Self {
        Self { only: Some(world), ..self }
    }
}

const CASES: &[Case] = &[
    Case::new("quickstart", |world| quickstart::run(world).boxed()),
    Case::new("missing ConfigMap with a blank in its name", |world| waiting::config_map(world).boxed()),
    // Images of the other world are the machine's own root file system.
    Case::new("image that cannot be pulled", |world| waiting::image(world).boxed()).only(Kind::Cluster),
    Case::new("cancelled runs leave no pod past its grace period", |world| cancel::run(world).boxed()),
];

#[derive(Parser)]
struct Args {
    /// Where to run the tests
    #[arg(long, value_enum)]
    world: Kind,
    /// Only tests whose name contains this
    filter: Option<String>,
}

fn main() -> Result<ExitCode> {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "__shim") {
        return Ok(shim::main(std::env::args_os().skip(2)));
    }
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_env("ROPEWALK_LOG")).init();
    let args = Args::parse();
    if let Some(lacking) = args.world.lacks() {
        return Ok(lacks(args.world, lacking));
    }
    tokio::runtime::Runtime::new()?.block_on(run_all(&args))
}

/// Loud, and a failure where every tool is to be there.
#[expect(clippy::print_stderr, reason = "this is the program's output")]
fn lacks(world: Kind, lacking: &str) -> ExitCode {
    eprintln!("SKIPPED: every test in the world {world}, which needs {lacking}");
    if std::env::var_os("ROPEWALK_REQUIRE_TOOLS").is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[expect(clippy::print_stdout, reason = "this is the program's output")]
async fn run_all(args: &Args) -> Result<ExitCode> {
    let chosen = |case: &&Case| args.filter.as_ref().is_none_or(|filter| case.name.contains(filter.as_str()));
    let world = World::start(args.world, &Features::default()).await?;
    let (possible, skipped): (Vec<_>, Vec<_>) =
        CASES.iter().filter(chosen).partition(|case| case.only.is_none_or(|only| only == args.world));
    for case in &skipped {
        println!("SKIPPED           {}: not in the world {}", case.name, args.world);
    }
    let (alone, together): (Vec<_>, Vec<_>) = possible.into_iter().partition(|case| case.alone);
    let mut passed: Vec<bool> =
        stream::iter(together).map(|case| run_one(case, &world)).buffer_unordered(AT_ONCE).collect().await;
    for case in alone {
        passed.push(run_one(case, &world).await);
    }
    world.stop().await?;
    let failed = passed.iter().filter(|passed| !**passed).count();
    let passed = passed.len() - failed;
    println!("{passed} passed, {failed} failed, {} skipped ({})", skipped.len(), args.world);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether it passed. An assertion that fails is a panic, and ends this test only.
#[expect(clippy::print_stdout, reason = "this is the program's output")]
async fn run_one(case: &Case, world: &World) -> bool {
    let begun = Instant::now();
    let test = std::panic::AssertUnwindSafe((case.run)(world)).catch_unwind();
    let failure = match tokio::time::timeout(LIMIT, test).await {
        Ok(Ok(Ok(()))) => None,
        Ok(Ok(Err(error))) => Some(format!("{error:#}")),
        Ok(Err(_)) => Some("the assertion above does not hold".to_owned()),
        Err(_) => Some(format!("not done after {LIMIT:?}")),
    };
    let seconds = begun.elapsed().as_secs_f64();
    match &failure {
        None => println!("passed  {seconds:6.1} s  {}", case.name),
        Some(why) => println!("FAILED  {seconds:6.1} s  {}: {why}", case.name),
    }
    failure.is_none()
}

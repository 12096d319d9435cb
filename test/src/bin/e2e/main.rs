//! Tests of the whole thing in one world: `cargo run -p ropewalk-test --bin e2e -- --world cluster [FILTER]`.
//!
//! Prints a row per test and closes with `N passed, M failed, K skipped (WORLD)`. A test is skipped where its world
//! is another one. To add one: a function in a file beside this, and its line in [`CASES`]; `ropewalk_test::harness`
//! tells what tests have to hand.

mod admission;
mod apiserver;
mod cancel;
mod clients;
mod controller;
mod credentials;
mod crowd;
mod kubectl;
mod leader;
mod limits;
mod marked;
mod network;
mod node;
mod quickstart;
mod registry;
mod traps;
mod versions;
mod waiting;
mod webhook;
mod writes;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use ropewalk_test::harness::{self, Features, Kind, World, processes};

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
    /// Tells what it lacks on this machine, if anything.
    needs: fn() -> Option<&'static str>,
    run: for<'a> fn(&'a World) -> BoxFuture<'a, Result<()>>,
}

impl Case {
    /// In any world, beside others.
    const fn new(name: &'static str, run: for<'a> fn(&'a World) -> BoxFuture<'a, Result<()>>) -> Self {
        Self { name, only: None, alone: false, needs: || None, run }
    }

    const fn only(self, world: Kind) -> Self {
        Self { only: Some(world), ..self }
    }

    const fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    /// Takes parts of the installation away.
    const fn breaking(self) -> Self {
        self.only(Kind::Cluster).alone()
    }

    /// It reaches for processes on this machine.
    const fn with_processes(self) -> Self {
        self.needing(processes::lacks)
    }

    /// It counts requests.
    const fn counting(self) -> Self {
        self.needing(writes::lacks)
    }

    const fn needing(self, needs: fn() -> Option<&'static str>) -> Self {
        Self { needs, ..self }
    }

    /// It makes sense in this world.
    fn is_for(&self, world: Kind) -> bool {
        self.only.is_none_or(|only| only == world)
    }

    /// What is missing for it here, if anything.
    fn lacks(&self) -> Option<&'static str> {
        (self.needs)()
    }
}

const CASES: &[Case] = &[
    Case::new("quickstart", |world| quickstart::run(world).boxed()),
    Case::new("kubectl session", |world| kubectl::machines(world).boxed()).needing(kubectl::lacks),
    Case::new("kubectl session with the newest", |world| kubectl::newest(world).boxed())
        .needing(kubectl::lacks_newest),
    Case::new("missing ConfigMap with a blank in its name", |world| waiting::config_map(world).boxed()),
    // Images of the other world are the machine's own root file system.
    Case::new("image that cannot be pulled", |world| waiting::image(world).boxed()).only(Kind::Cluster),
    Case::new("cancelled runs leave no pod past its grace period", |world| cancel::run(world).boxed()),
    Case::new("stopped in peace, and cancelled before it began", |world| limits::stopped(world).boxed()),
    Case::new("step killed for memory", |world| limits::memory(world).boxed()),
    Case::new("quota exceeded, then freed", |world| limits::quota(world).boxed()),
    Case::new("no Secret for a variable", |world| limits::secret_as_variable(world).boxed()),
    Case::new("no Secret for a volume, for a while", |world| limits::secret_as_volume(world).boxed()),
    Case::new("credentials of a service account", |world| credentials::run(world).boxed()),
    Case::new("no node that fits", |world| limits::unschedulable(world).boxed()),
    // Others are created under the flags that the installation has.
    Case::new("right and wrong objects", |world| admission::objects(world).boxed()).alone(),
    Case::new("objects in either version", |world| versions::run(world).boxed()),
    Case::new("trap_1_status_is_written_four_ways", |world| traps::trap_1(world).boxed()),
    Case::new("trap_2_updates_are_compared_as_what_they_mean", |world| traps::trap_2(world).boxed()),
    Case::new("trap_3_succeeded_first_and_reasons_in_order", |world| traps::trap_3(world).boxed()),
    Case::new("trap_4_child_references", |world| traps::trap_4(world).boxed()),
    Case::new("trap_5_labels_and_names_of_the_pod", |world| traps::trap_5(world).boxed()),
    Case::new("trap_7_terminal_is_final", |world| traps::trap_7(world).boxed()),
    Case::new("trap_8_registry", |world| registry::trap_8(world).boxed())
        .only(Kind::Cluster)
        .with_processes(),
    Case::new("trap_8_registry", |_| registry::trap_8_in_one_process().boxed()).only(Kind::Standalone),
    Case::new("nothing is written when children of finished runs go", |world| {
        writes::vanishing(world).boxed()
    }),
    Case::new("few writes and events", |world| writes::few(world).boxed()).only(Kind::Cluster).counting(),
    Case::new("no admission calls but for creations", |world| writes::admission(world).boxed())
        .only(Kind::Cluster)
        .counting(),
    Case::new("nothing is written about finished runs by a new controller", |world| {
        writes::resync(world).boxed()
    })
    .breaking()
    .counting(),
    Case::new("100 PipelineRuns over 10 namespaces", |world| crowd::run(world).boxed()).alone(),
    Case::new("node drained", |world| node::drained(world).boxed()).alone(),
    Case::new("controller killed in a step", |world| controller::killed(world).boxed())
        .breaking()
        .with_processes(),
    Case::new("webhook away", |world| webhook::away(world).boxed()).breaking(),
    Case::new("API server out of reach for 15 s", |world| network::cut(world).boxed())
        .breaking()
        .with_processes(),
    Case::new("API server killed, and started again", |world| apiserver::restarted(world).boxed())
        .breaking()
        .with_processes(),
    Case::new("leader lost, then ended", |world| leader::replaced(world).boxed()).breaking().with_processes(),
];

#[derive(Parser)]
#[command(about = "Runs the tests of the whole thing in one world")]
struct Args {
    /// Where to run the tests
    #[arg(long, value_enum)]
    world: Kind,
    /// Only tests whose name contains this
    filter: Option<String>,
}

fn main() -> Result<ExitCode> {
    if let Some(ended) = harness::begin() {
        return Ok(ended);
    }
    let args = Args::parse();
    if let Some(lacking) = args.world.lacks() {
        return Ok(harness::skip(args.world, lacking));
    }
    tokio::runtime::Runtime::new()?.block_on(run_all(&args))
}

#[expect(clippy::print_stdout, reason = "this is the program's output")]
async fn run_all(args: &Args) -> Result<ExitCode> {
    let chosen = |case: &&Case| args.filter.as_ref().is_none_or(|filter| case.name.contains(filter.as_str()));
    let world = World::start(args.world, &Features::default()).await?;
    let (possible, elsewhere): (Vec<_>, Vec<_>) =
        CASES.iter().filter(chosen).partition(|case| case.is_for(args.world));
    for case in &elsewhere {
        println!("SKIPPED           {}: not in the world {}", case.name, args.world);
    }
    let (possible, lacking): (Vec<_>, Vec<_>) = possible.into_iter().partition(|case| case.lacks().is_none());
    for case in &lacking {
        println!("SKIPPED           {}: needs {}", case.name, case.lacks().unwrap_or_default());
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
    let skipped = elsewhere.len() + lacking.len();
    println!("{passed} passed, {failed} failed, {skipped} skipped ({})", args.world);
    let complete = lacking.is_empty() || std::env::var_os("ROPEWALK_REQUIRE_TOOLS").is_none();
    Ok(if failed == 0 && complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints how long something took in a test. What is promised about it, the test asserts.
#[expect(clippy::print_stdout, reason = "this is the program's output")]
fn figure(what: &str, took: Duration) {
    println!("        {:6.1} s    {what}", took.as_secs_f64());
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

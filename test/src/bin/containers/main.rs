//! What containers owe their pods, asked of a node: `cargo run -p ropewalk-test --bin containers -- [--runtime runc] [FILTER]`,
//! or with `--world cluster` of the nodes of the cluster that `KUBECONFIG` leads to.
//!
//! A case is a pod and what must be seen of it by its statuses and logs alone. To add one: a line in a file of `cases/`,
//! each of which is about one thing.

mod case;
mod cases;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use futures::{StreamExt, stream};
use ropewalk_standalone::node::RuntimeKind;
use ropewalk_test::harness::{self, Kind};
use serde_json::json;

use case::Case;
use world::World;

/// Pods at once: they mostly wait, for processes to start and for each other.
const AT_ONCE: usize = 8;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Runtime {
    /// Ours, in the process itself.
    Builtin,
    /// The command of this name.
    Runc,
}

#[derive(Parser)]
#[command(
    about = "Asks a node what containers owe their pods, and holds what it does against what Kubernetes does"
)]
struct Args {
    /// Where pods run
    #[arg(long, value_enum, default_value = "standalone")]
    world: Kind,
    /// Who makes the containers of our node
    #[arg(long, value_enum, default_value = "builtin")]
    runtime: Runtime,
    /// Only cases whose name contains this
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
    tokio::runtime::Runtime::new()?.block_on(run(&args))
}

#[expect(clippy::print_stdout, reason = "this is the program's output")]
async fn run(args: &Args) -> Result<ExitCode> {
    let (world, name) = match (args.world, args.runtime) {
        (Kind::Cluster, _) => (World::cluster().await?, "cluster"),
        (Kind::Standalone, Runtime::Builtin) => (World::ours(RuntimeKind::Builtin)?, "builtin"),
        (Kind::Standalone, Runtime::Runc) => (World::ours(RuntimeKind::Runc(PathBuf::from("runc")))?, "runc"),
    };
    let begun = Instant::now();
    let mut cases = cases::all();
    cases.retain(|case| args.filter.as_ref().is_none_or(|filter| case.name.contains(filter.as_str())));
    let (cases, elsewhere): (Vec<_>, Vec<_>) =
        cases.into_iter().partition(|case| case.world.is_none_or(|world| world == args.world));
    let results: Vec<bool> = stream::iter(cases.into_iter().enumerate())
        .map(|(number, case)| check(&world, number, case))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    world.stop().await?;
    let passed = results.iter().filter(|passed| **passed).count();
    let failed = results.len() - passed;
    let seconds = begun.elapsed().as_secs_f64();
    println!("{passed} passed, {failed} failed, {} elsewhere ({name}, {seconds:.1} s)", elsewhere.len());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether everything wanted is seen; says what is not.
#[expect(clippy::print_stdout, reason = "this is the program's output")]
async fn check(world: &World, number: usize, mut case: Case) -> bool {
    let begun = Instant::now();
    // Whatever else its metadata is, it has a name of its own.
    case.metadata = case::with(json!({ "name": format!("pod-{number}") }), case.metadata);
    let faults = match world.observe(&case).await {
        Ok(seen) => {
            let faults = case.wanted.iter().filter_map(|wanted| wanted(&seen).err());
            let faults: Vec<_> = faults.map(|fault| format!("{fault:#}")).collect();
            if !faults.is_empty() {
                let status = json!(seen.pod.status);
                println!("        status {status}, logs {:.2000?}", format!("{:?}", seen.logs));
            }
            faults
        }
        Err(error) => vec![format!("{error:#}")],
    };
    let seconds = begun.elapsed().as_secs_f64();
    if faults.is_empty() {
        println!("passed  {seconds:6.1} s  {}", case.name);
    } else {
        println!("FAILED  {seconds:6.1} s  {}: {}", case.name, faults.join("; "));
    }
    faults.is_empty()
}

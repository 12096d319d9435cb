//! What admission costs: `cargo run --release -p ropewalk-bench --bin admission -- target/release/ropewalk-webhook`.
//!
//! The webhook is the real process with its real certificates, alone on one core; its API server is this process's. What
//! it is asked is what API servers ask about the corpus' largest object, so often in a second, whatever becomes of the
//! requests before: a request's time begins when it was due, and so one that keeps others waiting is paid for by all of
//! them. The floor is a process on the same core that answers the same bytes under the same certificate without looking.
//!
//! Times are printed, never asserted. A refused request is an error, with certificates renewed under load, too.

#![expect(clippy::print_stdout, reason = "figures are this program's output")]

mod asking;
mod cluster;
mod floor;
mod judging;
mod largest;
mod load;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use ropewalk_bench::figures::{ms, quantile, ratio};
use ropewalk_bench::processes::Usage;

use asking::Asking;
use cluster::{Cluster, Webhook};
use floor::Floor;
use largest::Largest;
use load::Load;

/// Resident memory of upstream's webhook that has nothing to do, in MiB.
const UPSTREAM_IDLE: f64 = 78.0;

/// The core of the webhook, and of the floor; everything else is on the others.
const ITS_CORE: usize = 0;

/// Asked before anything is measured: code and memory are in place then.
const WARM_UP: Duration = Duration::from_secs(2);

#[derive(Parser)]
#[command(about = "Prints what admission costs, and renews the webhook's certificates under load")]
struct Args {
    /// The program
    webhook: PathBuf,

    /// Admissions a second; each asks twice, for defaults and for errors
    #[arg(long, default_value_t = 500)]
    rate: u32,

    /// Seconds for each figure
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

fn main() -> Result<ExitCode> {
    ropewalk_cluster::client::install_tls_provider();
    if std::env::args_os().nth(1).is_some_and(|argument| argument == floor::ARGUMENT) {
        return floor::serve(std::env::args_os().skip(2));
    }
    let args = Args::parse();
    judging::print()?;
    // Before there are threads, which go where this one may go.
    let alone = leave_its_core()?;
    tokio::runtime::Runtime::new()?.block_on(Box::pin(run(&args, alone)))?;
    Ok(ExitCode::SUCCESS)
}

/// Whether there is another core to go to.
fn leave_its_core() -> Result<bool> {
    let cores = std::thread::available_parallelism()?.get();
    let mut others = CpuSet::new();
    for core in (0..cores).filter(|core| *core != ITS_CORE) {
        others.set(core)?;
    }
    if cores > 1 {
        sched_setaffinity(Pid::from_raw(0), &others)?;
    }
    Ok(cores > 1)
}

async fn run(args: &Args, alone: bool) -> Result<()> {
    let largest = Largest::find()?;
    println!("\n{largest}");
    let cluster = Cluster::start().await?;
    let webhook = cluster.webhook(&args.webhook).await?;
    let idle = webhook.usage()?;
    let trust = cluster.trusted_by_api_servers().await?;
    let asked = Asking::new(Webhook::address(), trust.clone());
    let reviews = largest.reviews()?;
    let answers = asked.answers(&reviews).await?;

    let others = if alone { "this program on the others" } else { "beside this program" };
    println!(
        "{} admissions a second, two requests each, for {} s; on core {ITS_CORE}, {others}\n",
        args.rate, args.seconds
    );
    println!("{:<10} {:>9} {:>9} {:>9} {:>9} {:>9}", "ms", "median", "p90", "p99", "longest", "its core");
    let floor = Floor::start(&cluster.secret().await?, &answers).await?;
    let floors = Asking::new(floor.address(), trust);
    let least = measured("floor", &Arc::new(floors), &reviews, args, || floor.usage()).await?;
    drop(floor);
    let asked = Arc::new(asked);
    let found = measured("webhook", &asked, &reviews, args, || webhook.usage()).await?;
    println!("\np99 of the floor's: {:.1} times", ratio(found, least));

    Box::pin(rotate(&cluster, &asked, &reviews, args.rate)).await?;
    println!(
        "RSS: {:.1} MiB idle, {:.1} MiB after the load; upstream's when idle {UPSTREAM_IDLE} MiB",
        idle.rss,
        webhook.usage()?.rss
    );
    webhook.stop().await
}

/// Prints a row; the 99th percentile.
async fn measured(
    what: &str,
    asking: &Arc<Asking>,
    reviews: &asking::Reviews,
    args: &Args,
    usage: impl Fn() -> Result<Usage>,
) -> Result<Duration> {
    Load::start(asking, reviews, args.rate).for_as_long_as(tokio::time::sleep(WARM_UP)).await?;
    let before = usage()?;
    let time = Duration::from_secs(args.seconds);
    let load = Load::start(asking, reviews, args.rate).for_as_long_as(tokio::time::sleep(time)).await?;
    let cpu = usage()?.cpu - before.cpu;
    load.none_refused().with_context(|| format!("of the {what}"))?;
    let at = |percent| quantile(load.times.iter().copied(), percent);
    let busy = 100.0 * cpu / time.as_secs_f64();
    let [median, p90, p99, longest] = [50, 90, 99, 100].map(|percent| ms(at(percent)));
    println!("{what:<10} {median:>9.2} {p90:>9.2} {p99:>9.2} {longest:>9.2} {busy:>7.0} %");
    Ok(at(99))
}

/// A new certificate of the same authority, and then a new authority, while requests come.
async fn rotate(cluster: &Cluster, asking: &Arc<Asking>, reviews: &asking::Reviews, rate: u32) -> Result<()> {
    let before = asking.certificates();
    let load = Load::start(asking, reviews, rate);
    let rotations = async {
        let certificate = cluster.renew_certificate(asking).await;
        let authority = cluster.renew_authority(asking).await;
        certificate.and(authority)
    };
    let mut renewed = Ok(());
    let load = Box::pin(load.for_as_long_as(async { renewed = rotations.await })).await?;
    renewed?;
    load.none_refused().context("while certificates were renewed")?;
    let seen = asking.certificates() - before;
    ensure!(seen == 2, "{seen} new certificates were presented instead of 2");
    println!(
        "certificate and authority renewed under {} admissions: none refused, {} TLS handshakes, longest {:.1} ms",
        load.times.len(),
        asking.handshakes(),
        ms(quantile(load.times, 100))
    );
    Ok(())
}

//! Kills `ropewalk up` with SIGKILL at random moments while runs start, run and end, and holds against it what clients
//! were told: `cargo run --release -p ropewalk-test --bin soak-kill -- --kills 200`.
//!
//! Every write that was acknowledged must be there, every run must end as it was meant to, every step must have been
//! executed exactly once, and after `ropewalk down` nothing of it all may be left on the machine. Closes with one line that
//! counts these. The moments come from the seed; what they hit depends on the machine.
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a program of the command line")]

mod left;
mod runs;
mod server;
mod writes;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use kube::Client;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use ropewalk_cli::args::{Cli, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use left::Traces;
use runs::Tally;
use server::Server;

/// Of this many kills one comes while the server starts.
const AT_START: u32 = 4;

/// Moments of a kill, in milliseconds after the start of the process: while it starts and adopts, and while it works.
const STARTING: std::ops::Range<u64> = 0..200;
const WORKING: std::ops::Range<u64> = 200..2500;

/// How long the last runs may take once nobody kills any more.
const PATIENCE: Duration = Duration::from_mins(5);

#[derive(Parser)]
#[command(about = "Kills \"ropewalk up\" at random moments, and holds against it what its clients were told")]
struct Args {
    /// How often
    #[arg(long, default_value_t = 200)]
    kills: u32,
    /// Runs at once
    #[arg(long, default_value_t = 20)]
    runs: u64,
    /// Where randomness begins
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    // This binary is also the command it kills, and the shim of the containers of that.
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("__shim") => return ropewalk_standalone::node::shim::main(arguments),
        Some("up" | "down") => return ropewalk(),
        _ => {}
    }
    let done = tokio::runtime::Runtime::new().context("cannot start the runtime");
    match done.and_then(|runtime| runtime.block_on(soak(&Args::parse()))) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("soak kill: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The command as the `ropewalk` binary has it.
fn ropewalk() -> ExitCode {
    match Cli::parse().command {
        Command::Down(args) => ropewalk_cli::down::down(&args),
        Command::Up(args) => tokio::runtime::Runtime::new()
            .map_or(ExitCode::FAILURE, |runtime| runtime.block_on(ropewalk_cli::up::up(args))),
        _ => ExitCode::FAILURE,
    }
}

async fn soak(args: &Args) -> Result<String> {
    ensure!(nix::unistd::geteuid().is_root(), "running containers needs root");
    // Not below /tmp, which is empty for containers.
    let root = Scratch::make()?;
    let lines = root.0.join("lines");
    std::fs::create_dir(&lines)?;
    let mut random = SmallRng::seed_from_u64(args.seed);
    let mut server = Server::start(&root.0.join("data"))?;
    let client = server.client().await?;

    let (stop, stopping) = watch::channel(false);
    let tally = Arc::new(Tally::new(&lines));
    let mut slots = JoinSet::new();
    for slot in 0..args.runs {
        let random = SmallRng::seed_from_u64(args.seed.wrapping_mul(1_000_003).wrapping_add(slot));
        slots.spawn(runs::keep_running(client.clone(), Arc::clone(&tally), slot, random, stopping.clone()));
    }
    let writer = tokio::spawn(writes::keep_writing(client.clone(), stopping));

    let mut traces = Traces::of(server.data_dir());
    for kill in 1..=args.kills {
        let moments = if random.random_range(0..AT_START) == 0 { STARTING } else { WORKING };
        // The moment of the kill is what is tried: any, told by the seed, not one that an event announces.
        tokio::time::sleep(Duration::from_millis(random.random_range(moments))).await;
        traces.look();
        server.kill()?;
        server = server.restart()?;
        if let Some(slot) = slots.try_join_next() {
            slot??;
        }
        if kill % 20 == 0 {
            eprintln!("{kill} kills, {} runs ended", tally.ended());
        }
    }
    stop.send(true).context("nobody listens")?;
    let ends = async {
        while let Some(slot) = slots.join_next().await {
            slot??;
        }
        anyhow::Ok(writer.await??)
    };
    let written = tokio::time::timeout(PATIENCE, ends).await.context("not all runs ended")??;
    let told = check(&client, &tally, &written).await?;

    server.stop()?;
    server.down()?;
    let left = traces.left();
    ensure!(left.is_nothing(), "something is left: {left}");
    ensure!(traces.ranges() > 0, "pods had no networks of their own");
    Ok(format!("soak kill (seed {}): {} kills; {told}; {left} left", args.seed, args.kills))
}

/// Holds what is in the API at the end against what clients were told.
async fn check(client: &Client, tally: &Tally, written: &writes::Written) -> Result<String> {
    let writes = written.check(client).await?;
    let runs = tally.check(client).await?;
    Ok(format!("{writes}; {runs}"))
}

/// A directory that goes with its end.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> Result<Self> {
        let path = PathBuf::from(format!("/var/lib/ropewalk-soak-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot make \"{}\"", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What failed may still run from it.
        let _ = ropewalk_standalone::down(&self.0.join("data"));
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

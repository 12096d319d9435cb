//! A client that means harm: `cargo run -p ropewalk-test --bin hostile -- target/release/ropewalk`.
//!
//! Starts the program that is named as `ropewalk up`, and attacks it as a stranger and as a service account that may edit
//! its own namespace. Each attack has to be refused or bounded, while an honest client of another namespace, which opens a
//! new connection for each request, is answered within [`SOON`]. Prints what became of each, how long the honest client
//! waited at worst, and the server's memory, which has a bound, too.

mod attacks;
mod client;
mod server;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nix::unistd::geteuid;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use client::Client;
use server::Server;

/// The longest that an honest client may wait for an answer, whatever others do. A server that is not optimised reads
/// large bodies many times slower.
const SOON: Duration = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 1 });

/// Between two requests of the honest client.
const PAUSE: Duration = Duration::from_millis(20);

/// The most memory that the server may ever have had, in MiB: one attacker's share of bodies, coming and going, once more
/// for what they are parsed to, the connections' buffers, and the objects that the attacks leave behind.
const MEMORY: u64 = 400;

#[derive(Parser)]
#[command(about = "Attacks a \"ropewalk up\" of its own, and prints what became of it")]
struct Args {
    /// The program to attack
    ropewalk: PathBuf,
}

#[expect(clippy::print_stdout, reason = "this is the program's output")]
fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if !geteuid().is_root() {
        println!("SKIPPED: attacks on \"ropewalk up\", which needs root");
        let required = std::env::var_os("ROPEWALK_REQUIRE_TOOLS").is_some();
        return Ok(if required { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    tokio::runtime::Runtime::new()?.block_on(run(&args))?;
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "this is the program's output")]
async fn run(args: &Args) -> Result<()> {
    let server = Server::start(&args.ropewalk).await?;
    println!("RSS idle: {} MiB", server.memory("VmRSS")?);
    println!("{:<44} {:>12} {:>9}  what became of it", "attack", "others wait", "RSS MiB");
    for attack in attacks::ALL {
        let honest = Honest::start(server.honest.clone());
        let outcome = (attack.run)(&server).await.with_context(|| format!("attack \"{}\"", attack.name))?;
        let worst = honest.stop().await?;
        let memory = server.memory("VmRSS")?;
        println!("{:<44} {:>9} ms {memory:>9}  {outcome}", attack.name, worst.as_millis());
        ensure!(worst < SOON, "attack \"{}\": an honest client waited {worst:?}", attack.name);
    }
    let peak = server.memory("VmHWM")?;
    println!(
        "{} attacks refused or bounded; RSS at most {peak} MiB, of {MEMORY} allowed",
        attacks::ALL.len()
    );
    ensure!(peak <= MEMORY, "the server had {peak} MiB");
    server.stop().await
}

/// Who asks for an object again and again.
struct Honest {
    stop: watch::Sender<bool>,
    asking: JoinHandle<Result<Duration>>,
}

impl Honest {
    fn start(client: Client) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let asking = tokio::spawn(async move {
            let mut worst = Duration::ZERO;
            while !*stopped.borrow_and_update() {
                let begun = Instant::now();
                // A connection that is cut off is opened again; all of that is waiting.
                while client
                    .get("/api/v1/namespaces/theirs/configmaps/known")
                    .await
                    .is_none_or(|code| code != 200)
                {
                    ensure!(begun.elapsed() < 2 * SOON, "an honest client gets no answer");
                }
                worst = worst.max(begun.elapsed());
                // The pause ends with the attack.
                timeout(PAUSE, stopped.changed()).await.ok();
            }
            Ok(worst)
        });
        Self { stop, asking }
    }

    /// The longest it has waited.
    async fn stop(self) -> Result<Duration> {
        self.stop.send_replace(true);
        self.asking.await?
    }
}

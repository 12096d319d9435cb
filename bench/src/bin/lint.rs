//! How long `ropewalk lint` takes over a hundred files: `cargo run --release -p ropewalk-bench --bin lint -- target/release/ropewalk`.
//!
//! Of the whole process, as a user waits for it; the floor is the same process asked for its version.

#![expect(clippy::print_stdout, reason = "figures are this program's output")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ropewalk_bench::corpus;
use ropewalk_bench::figures::{median, ms, ratio};

/// As a repository of a team may have.
const FILES: usize = 100;

/// Runs of each.
const TIMES: usize = 15;

#[derive(Parser)]
#[command(about = "Prints how long \"ropewalk lint\" takes over a hundred files")]
struct Args {
    /// The program
    ropewalk: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let directory = tempfile::tempdir()?;
    let bytes = fill(directory.path())?;
    let mut version = Command::new(&args.ropewalk);
    version.arg("--version");
    let floor = timed(&mut version, &[0])?;
    let mut lint = Command::new(&args.ropewalk);
    lint.arg("lint").arg(directory.path());
    // What others' files have may be worth a finding.
    let took = timed(&mut lint, &[0, 1])?;
    println!(
        "lint of {FILES} files, {} kB: {:.1} ms, {:.1} times the floor's {:.1} ms (a process that prints its version)",
        bytes >> 10,
        ms(took),
        ratio(took, floor),
        ms(floor)
    );
    Ok(())
}

/// The corpus' files, those that come first when there are more and some twice when there are less; their size.
fn fill(directory: &Path) -> Result<usize> {
    let mut bytes = 0;
    for (index, file) in corpus::files()?.iter().cycle().take(FILES).enumerate() {
        let text = fs::read(file)?;
        bytes += text.len();
        fs::write(directory.join(format!("{index}.yaml")), text)?;
    }
    ensure!(bytes > 0, "there are no files to look at");
    Ok(bytes)
}

/// The median, of a command that has to end with one of these codes.
fn timed(command: &mut Command, codes: &[i32]) -> Result<Duration> {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut times = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let begun = Instant::now();
        let status = command.status().context("cannot start the program")?;
        times.push(begun.elapsed());
        ensure!(status.code().is_some_and(|code| codes.contains(&code)), "it ended with {status}");
    }
    Ok(median(times))
}

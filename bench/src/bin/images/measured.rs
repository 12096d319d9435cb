//! What a command costs. A process of this program starts it and waits: the kernel then knows the most memory that it had.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use ropewalk_bench::figures::median;
use serde::{Deserialize, Serialize};

/// The first argument of the process that starts a command.
pub(crate) const MEASURE: &str = "__measure";

/// What it cost.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Used {
    pub(crate) time: Duration,
    /// Of all its threads, and of the kernel for it.
    pub(crate) cpu: Duration,
    /// The most memory that it had resident, in KiB.
    pub(crate) memory: u64,
}

impl Used {
    /// The middle one of each.
    pub(crate) fn median(all: &[Self]) -> Self {
        let mut memory: Vec<_> = all.iter().map(|used| used.memory).collect();
        memory.sort_unstable();
        Self {
            time: median(all.iter().map(|used| used.time)),
            cpu: median(all.iter().map(|used| used.cpu)),
            memory: memory.get(memory.len() / 2).copied().unwrap_or_default(),
        }
    }

    pub(crate) fn one_after_the_other(all: &[Self]) -> Self {
        Self {
            time: all.iter().map(|used| used.time).sum(),
            cpu: all.iter().map(|used| used.cpu).sum(),
            memory: all.iter().map(|used| used.memory).max().unwrap_or_default(),
        }
    }
}

impl fmt::Display for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [time, cpu] = [self.time, self.cpu].map(|time| time.as_secs_f64());
        write!(f, "{time:>8.2} {cpu:>8.2} {:>6}", self.memory >> 10)
    }
}

/// Runs a command that has to succeed.
pub(crate) fn run(command: &Command) -> Result<Used> {
    let mut measure = Command::new(std::env::current_exe()?);
    measure.arg(MEASURE).arg(command.get_program()).args(command.get_args());
    let output = measure.stderr(Stdio::piped()).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} fails: {}", command.get_program().display(), said.trim());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What the process does that starts a command: prints what it cost.
pub(crate) fn measure(mut arguments: impl Iterator<Item = OsString>) -> Result<ExitCode> {
    let program = arguments.next().context("a program")?;
    let begun = Instant::now();
    let status =
        Command::new(&program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    let time = begun.elapsed();
    ensure!(status.success(), "it ended with {status}");
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let cpu = u64::try_from((usage.user_time() + usage.system_time()).num_microseconds())?;
    let used = Used { time, cpu: Duration::from_micros(cpu), memory: u64::try_from(usage.max_rss())? };
    println!("{}", serde_json::to_string(&used)?);
    Ok(ExitCode::SUCCESS)
}

/// Bytes that everything below a directory takes of its disk, files with several names once.
pub(crate) fn disk(directory: &Path) -> Result<u64> {
    let (mut bytes, mut seen, mut todo) = (0, BTreeSet::new(), vec![directory.to_owned()]);
    while let Some(path) = todo.pop() {
        let metadata = fs::symlink_metadata(&path)?;
        if seen.insert(metadata.ino()) {
            // In blocks of 512 bytes, whatever the file system's are.
            bytes += metadata.blocks() * 512;
        }
        if metadata.is_dir() {
            for entry in fs::read_dir(&path)? {
                todo.push(entry?.path());
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(time: u64, memory: u64) -> Used {
        Used { time: Duration::from_millis(time), cpu: Duration::from_millis(2 * time), memory }
    }

    #[test]
    fn parts_add_up_but_for_memory() {
        let all = Used::one_after_the_other(&[used(1, 30), used(2, 50), used(4, 10)]);
        assert_eq!(
            (all.time, all.cpu, all.memory),
            (Duration::from_millis(7), Duration::from_millis(14), 50)
        );
        let middle = Used::median(&[used(9, 10), used(1, 30), used(4, 20)]);
        assert_eq!(
            (middle.time, middle.cpu, middle.memory),
            (Duration::from_millis(4), Duration::from_millis(8), 20)
        );
    }

    #[test]
    fn files_with_several_names_are_on_the_disk_once() {
        let directory = tempfile::tempdir().unwrap();
        let empty = disk(directory.path()).unwrap();
        fs::write(directory.path().join("a"), vec![1; 1 << 20]).unwrap();
        fs::File::open(directory.path().join("a")).unwrap().sync_all().unwrap();
        let one = disk(directory.path()).unwrap();
        assert!(one - empty >= 1 << 20, "{empty} {one}");
        fs::hard_link(directory.path().join("a"), directory.path().join("b")).unwrap();
        assert_eq!(disk(directory.path()).unwrap(), one);
    }
}

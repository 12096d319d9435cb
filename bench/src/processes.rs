//! What the processes of this machine use. Reads /proc.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use procfs::process::{Process, all_processes};

/// A process as it was found.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// CPU seconds, its own and the kernel's for it, since it started.
    pub cpu: f64,
    /// Resident memory in MiB.
    pub rss: f64,
}

/// Every process of this machine by its id; containers are processes of the machine they run on.
#[derive(Clone, Debug)]
pub struct Processes(BTreeMap<i32, (String, Usage)>);

/// Names as the kernel has them, cut to 15 bytes.
pub const CONTROLLER: &str = "ropewalk-contro";
/// The webhook's.
pub const WEBHOOK: &str = "ropewalk-webhoo";

impl Processes {
    /// As they are now.
    pub fn now() -> Result<Self> {
        let all = all_processes().context("cannot read /proc")?;
        // A process that ends while it is read is not there.
        Ok(Self(all.filter_map(|process| read(&process.ok()?)).collect()))
    }

    /// Resident memory in MiB of each process of this name, largest first.
    pub fn rss(&self, name: &str) -> Vec<f64> {
        let named = self.0.values().filter(|(of, _)| of == name);
        let mut all: Vec<_> = named.map(|(_, usage)| usage.rss).collect();
        all.sort_by(|a, b| b.total_cmp(a));
        all
    }

    /// CPU seconds by name since `before`, most first.
    pub fn cpu_since(&self, before: &Self) -> Vec<(String, f64)> {
        let mut by_name = BTreeMap::<_, f64>::new();
        for (id, (name, usage)) in &self.0 {
            let was = before.0.get(id).map_or(0.0, |(_, usage)| usage.cpu);
            *by_name.entry(name.clone()).or_default() += usage.cpu - was;
        }
        let mut all: Vec<_> = by_name.into_iter().collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all
    }
}

/// The process of this id.
pub fn of(id: i32) -> Result<Usage> {
    let usage = Process::new(id).ok().and_then(|process| read(&process)).map(|(_, (_, usage))| usage);
    usage.with_context(|| format!("cannot read /proc/{id}"))
}

/// This process.
pub fn own() -> Result<Usage> {
    let usage = Process::myself().ok().and_then(|process| read(&process)).map(|(_, (_, usage))| usage);
    usage.context("cannot read /proc/self")
}

fn read(process: &Process) -> Option<(i32, (String, Usage))> {
    let stat = process.stat().ok()?;
    let ticks = f64::from(u32::try_from(stat.utime + stat.stime).ok()?);
    let per_second = f64::from(u32::try_from(procfs::ticks_per_second()).ok()?);
    let pages = f64::from(u32::try_from(stat.rss).ok()?);
    let page = f64::from(u32::try_from(procfs::page_size()).ok()?);
    let usage = Usage { cpu: ticks / per_second, rss: pages * page / f64::from(1 << 20) };
    Some((stat.pid, (stat.comm, usage)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(all: &[(&str, i32, f64)]) -> Processes {
        let usage = |cpu| Usage { cpu, rss: cpu };
        Processes(all.iter().map(|(name, id, cpu)| (*id, ((*name).to_owned(), usage(*cpu)))).collect())
    }

    #[test]
    fn replicas_are_added_up_and_new_processes_count_whole() {
        let before = found(&[("a", 1, 1.0), ("b", 2, 5.0)]);
        let after = found(&[("a", 1, 1.5), ("a", 3, 2.0), ("b", 2, 5.25)]);
        assert_eq!(after.cpu_since(&before), [("a".to_owned(), 2.5), ("b".to_owned(), 0.25)]);
        assert_eq!(after.rss("a"), [2.0, 1.5]);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(own().unwrap().rss > 0.0);
    }
}

//! What is left on the machine: processes, mounts, namespaces, cgroups and networks of a data directory.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Namespaces a container gets of its own.
const NAMESPACES: [&str; 5] = ["mnt", "pid", "ipc", "uts", "net"];

/// What containers of a data directory had so far.
pub(crate) struct Traces {
    directory: String,
    /// Namespaces they were in and this process is not.
    namespaces: BTreeSet<PathBuf>,
    /// What the addresses of their pods began with.
    networks: BTreeSet<[u8; 3]>,
}

/// How much of each is left.
pub(crate) struct Left {
    processes: usize,
    mounts: usize,
    namespaces: usize,
    cgroups: usize,
    /// Links, addresses and routes.
    networks: usize,
}

impl Traces {
    pub(crate) fn of(directory: &Path) -> Self {
        Self {
            directory: directory.display().to_string(),
            namespaces: BTreeSet::new(),
            networks: BTreeSet::new(),
        }
    }

    /// Notes what the containers that run now have.
    pub(crate) fn look(&mut self) {
        let own = namespaces(Path::new("/proc/self"));
        for process in self.processes() {
            self.namespaces
                .extend(namespaces(&process).into_iter().filter(|namespace| !own.contains(namespace)));
        }
        let range = fs::read(Path::new(&self.directory).join("node/network/range.json")).unwrap_or_default();
        let range: Value = serde_json::from_slice(&range).unwrap_or_default();
        let first = range["network"].as_str().and_then(|first| first.parse::<Ipv4Addr>().ok());
        self.networks.extend(first.map(|first| {
            let [a, b, c, _] = first.octets();
            [a, b, c]
        }));
    }

    pub(crate) fn left(&self) -> Left {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let known = |namespace: &PathBuf| self.namespaces.contains(namespace);
        // A namespace lives as long as a process is in it, or a mount of it.
        let mut held: BTreeSet<_> =
            all_processes().flat_map(|process| namespaces(&process)).filter(known).collect();
        held.extend(
            mounts.lines().filter_map(|line| line.split(' ').nth(3)).map(PathBuf::from).filter(known),
        );
        let cgroups = fs::read(Path::new(&self.directory).join("node/cgroups.json")).unwrap_or_default();
        let cgroups: Vec<PathBuf> = serde_json::from_slice(&cgroups).unwrap_or_default();
        Left {
            processes: self.processes().len(),
            mounts: mounts.lines().filter(|line| line.contains(&self.directory)).count(),
            namespaces: held.len(),
            cgroups: cgroups.iter().filter(|cgroup| cgroup.exists()).count(),
            networks: self.networks.iter().map(|range| networked(*range)).sum(),
        }
    }

    /// How many ranges its pods' networks had.
    pub(crate) fn ranges(&self) -> usize {
        self.networks.len()
    }

    /// Shims, by their command line, and what runs in containers, by its root.
    fn processes(&self) -> Vec<PathBuf> {
        let ours = |process: &PathBuf| {
            let read = |file: &str| fs::read(process.join(file)).unwrap_or_default();
            let tells = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).contains(&self.directory);
            let mounts = String::from_utf8_lossy(&read("mountinfo")).into_owned();
            let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/"));
            tells(read("cmdline")) || root.is_some_and(|root| root.contains(&self.directory))
        };
        all_processes().filter(ours).collect()
    }
}

fn all_processes() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_process = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    entries.filter(move |entry| entry.file_name().to_str().is_some_and(is_process)).map(|entry| entry.path())
}

/// How many links are named after addresses that begin so, and how often routes and addresses of this machine do.
fn networked([a, b, c]: [u8; 3]) -> usize {
    let name = format!("rw{a:02x}{b:02x}{c:02x}");
    let devices = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let links = devices.filter(|device| device.file_name().to_string_lossy().starts_with(&name));
    let routes = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    // Leaves of the trie: its inner nodes are what several routes have in common.
    links.count() + routes.matches(&format!("|-- {a}.{b}.{c}.")).count()
}

/// As the kernel names them: `net:[4026531840]`.
fn namespaces(process: &Path) -> Vec<PathBuf> {
    NAMESPACES.iter().filter_map(|kind| fs::read_link(process.join("ns").join(kind)).ok()).collect()
}

impl Left {
    pub(crate) fn is_nothing(&self) -> bool {
        [self.processes, self.mounts, self.namespaces, self.cgroups, self.networks] == [0; 5]
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processes, mounts, namespaces, cgroups, networks } = self;
        write!(
            f,
            "{processes} processes, {mounts} mounts, {namespaces} namespaces, {cgroups} cgroups, {networks} of networks"
        )
    }
}

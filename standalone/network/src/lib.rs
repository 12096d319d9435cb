//! A network for pods: a namespace for each, joined to this machine, which translates addresses for it. Speaks to the
//! kernel and nobody else; needs root, and nothing installed.
//!
//! Everything on the machine is derived from the range, which a file in the network's directory names, and from a pod's
//! address, which one in a directory of the pod's does: so the next process finds what a killed one left. There is
//! - per range: a route that claims it, the gateway's address on the loopback device, a table of nftables (`nat`);
//! - per pod: a namespace, mounted on a file, a pair of devices and a route (`link`).
//!
//! Which addresses are chosen is decided in `range`, which name servers in `resolver`.
//!
//! ```text
//! <directory>/range.json         the range
//! <directory>/<uid>/netns        what the pod's namespace is mounted on
//! <directory>/<uid>/address.json the pod's address, written when its network is whole
//! ```

mod link;
mod namespace;
mod nat;
mod netlink;
mod range;
mod resolver;

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::net::if_::if_nameindex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use link::{Links, Watcher};
use range::{Addresses, Range};

const RANGE: &str = "range.json";
const NAMESPACE: &str = "netns";
const ADDRESS: &str = "address.json";

/// Where systemd-resolved lists the servers it asks itself.
const BEHIND_RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Why pods cannot have, or a pod cannot get, a network of its own.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The kernel refused.
    #[error("cannot {what}")]
    Kernel {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A file cannot be used.
    #[error("cannot {what} \"{path}\"")]
    File {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Everything that ranges are chosen from leads somewhere already.
    #[error(
        "every range that could be the pods' overlaps with a route of this machine: see \"ip route show table all\""
    )]
    NoRange,
    /// More pods than a range has addresses.
    #[error("no address is free in {range}: as many pods as it has addresses run or are being removed")]
    NoAddress {
        /// The range.
        range: String,
    },
}

impl NetworkError {
    fn kernel(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Kernel { what, source }
    }

    fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { what, path: path.to_owned(), source }
    }
}

/// What [`RANGE`] holds.
#[derive(Debug, Deserialize, Serialize)]
struct Chosen {
    network: Ipv4Addr,
    /// When the machine was started: its end ends everything but this file.
    boot: String,
}

/// The network of the pods of one directory. At most one process at a time may use that, which is its callers' to see to.
#[derive(Debug)]
pub struct Network {
    directory: PathBuf,
    range: Range,
    addresses: Mutex<Addresses>,
    mtu: Option<u32>,
    resolv_conf: String,
}

impl Network {
    /// Sets up the network of this directory, or takes over what an earlier process left of it. Sets `net.ipv4.ip_forward`
    /// on this machine. Blocks for some milliseconds.
    pub fn open(directory: &Path) -> Result<Self, NetworkError> {
        fs::create_dir_all(directory).map_err(NetworkError::file("make", directory))?;
        let links = links()?;
        let range = choose(directory, &links)?;
        links
            .add_gateway(range)
            .map_err(NetworkError::kernel("give this machine the address of a gateway"))?;
        nat::install(range)
            .map_err(NetworkError::kernel("set up the translation of addresses with nftables"))?;
        forward()?;
        let addresses = find(directory, range);
        remove_lost(&links, range, &addresses).map_err(NetworkError::kernel("remove a link"))?;
        let own = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let behind = fs::read_to_string(BEHIND_RESOLVED).ok();
        let resolv_conf = resolver::resolv_conf(&own, behind.as_deref());
        if resolv_conf.is_none() {
            tracing::warn!(
                "pods cannot resolve names: /etc/resolv.conf names no server beyond the loopback device, and pods have \
                 one of their own; name another server there"
            );
        }
        Ok(Self {
            directory: directory.to_owned(),
            range,
            addresses: Mutex::new(addresses),
            mtu: uplink_mtu(&links),
            resolv_conf: resolv_conf.unwrap_or_default().to_owned(),
        })
    }

    /// Where it keeps what it has to know again.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The machine's address in the pods' network.
    pub fn gateway(&self) -> Ipv4Addr {
        self.range.gateway()
    }

    /// The addresses of pods, as `<address>/<bits>`.
    pub fn range(&self) -> String {
        self.range.to_string()
    }

    /// The text of `/etc/resolv.conf` in pods; empty if they have no server to ask.
    pub fn resolv_conf(&self) -> &str {
        &self.resolv_conf
    }

    /// The address of a pod that was [prepared](Self::prepare) and not [released](Self::release) since.
    pub fn address(&self, uid: &str) -> Option<Ipv4Addr> {
        self.addresses().of(uid)
    }

    /// The UIDs of the pods that have addresses.
    pub fn pods(&self) -> Vec<String> {
        self.addresses().pods().map(str::to_owned).collect()
    }

    /// What the network namespace of a prepared pod is mounted on.
    pub fn namespace(&self, uid: &str) -> PathBuf {
        self.directory.join(uid).join(NAMESPACE)
    }

    /// Gives a pod its network, unless it has it. Blocks for some milliseconds.
    pub fn prepare(&self, uid: &str) -> Result<Ipv4Addr, NetworkError> {
        let address = self.addresses().take(uid);
        let address = address.ok_or_else(|| NetworkError::NoAddress { range: self.range() })?;
        let directory = self.directory.join(uid);
        let (noted, namespace) = (directory.join(ADDRESS), self.namespace(uid));
        if noted.exists() && namespace::is_mounted(&namespace) {
            return Ok(address);
        }
        let links = links()?;
        // What a process that was killed half-way left, or one before the machine was started last.
        namespace::let_go(&namespace).map_err(NetworkError::file("unmount", &namespace))?;
        links.part(address).map_err(NetworkError::kernel("remove a link"))?;
        fs::create_dir_all(&directory).map_err(NetworkError::file("make", &directory))?;
        let made = namespace::make(&namespace).map_err(NetworkError::kernel("make a network namespace"))?;
        let linked = links.lead_to(address, made.as_fd(), self.mtu);
        linked.map_err(NetworkError::kernel("link a pod to this machine"))?;
        let inside = namespace::inside(&made, || {
            let watcher = Watcher::open()?;
            Links::open()?.set_up_inside(address)?;
            Ok(watcher)
        });
        let watcher = inside.map_err(NetworkError::kernel("set up a pod's network"))?;
        let joined = links.set_up_here(address).and_then(|()| watcher.until_up());
        joined.map_err(NetworkError::kernel("join a pod to this machine"))?;
        write_json(&noted, &address).map_err(NetworkError::file("write", &noted))?;
        Ok(address)
    }

    /// Takes a pod's network away and its address back, if it has any. Its containers have ended. Blocks until the kernel
    /// has nothing under way on the link: some 20 ms.
    pub fn release(&self, uid: &str) -> Result<(), NetworkError> {
        let (directory, namespace) = (self.directory.join(uid), self.namespace(uid));
        namespace::let_go(&namespace).map_err(NetworkError::file("unmount", &namespace))?;
        if let Some(address) = self.address(uid) {
            links()?.part(address).map_err(NetworkError::kernel("remove a link"))?;
        }
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(NetworkError::file("remove", &directory)(error));
            }
            _ => {}
        }
        self.addresses().free(uid);
        Ok(())
    }

    /// Nothing that is done under the lock can fail half-way.
    fn addresses(&self) -> MutexGuard<'_, Addresses> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes all that the network of this directory has on the machine, if it has anything, and the directory. Nothing runs
/// in it any more. Safe to repeat after being killed at any point. `net.ipv4.ip_forward` stays: others may rely on it.
pub fn end(directory: &Path) -> Result<(), NetworkError> {
    let path = directory.join(RANGE);
    let chosen: Option<Chosen> = read_json(&path).map_err(NetworkError::file("read", &path))?;
    let range = chosen.filter(|chosen| chosen.boot == boot()).map(|chosen| Range::of(chosen.network));
    for pod in fs::read_dir(directory).into_iter().flatten().flatten() {
        let namespace = pod.path().join(NAMESPACE);
        namespace::let_go(&namespace).map_err(NetworkError::file("unmount", &namespace))?;
    }
    if !directory.exists() {
        return Ok(());
    }
    let links = links()?;
    if let Some(range) = range {
        let failed = || NetworkError::kernel("remove the pods' network");
        links.part_all(range).map_err(failed())?;
        nat::remove(range).map_err(failed())?;
        links.remove_gateway(range).map_err(failed())?;
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(NetworkError::file("remove", directory)(error));
        }
        _ => {}
    }
    // Last: what is given back while the file still names it would be another process's. A process that is killed before
    // leaves a claim, which keeps one range from being chosen until the machine is started anew.
    range.map_or(Ok(()), |range| links.unclaim(range)).map_err(NetworkError::kernel("give a range back"))
}

fn links() -> Result<Links, NetworkError> {
    Links::open().map_err(NetworkError::kernel("speak to the kernel about its network"))
}

/// The success that it is when what was to be removed is not there.
fn present(removed: io::Result<()>) -> io::Result<()> {
    let absent = [Errno::ENODEV, Errno::ESRCH, Errno::ENOENT, Errno::EADDRNOTAVAIL];
    match removed {
        Err(error) if error.raw_os_error().is_some_and(|code| absent.contains(&Errno::from_raw(code))) => {
            Ok(())
        }
        other => other,
    }
}

/// The range of this directory, claimed.
fn choose(directory: &Path, links: &Links) -> Result<Range, NetworkError> {
    let path = directory.join(RANGE);
    let chosen: Option<Chosen> = read_json(&path).map_err(NetworkError::file("read", &path))?;
    if let Some(chosen) = chosen.filter(|chosen| chosen.boot == boot()) {
        return Ok(Range::of(chosen.network));
    }
    let routed = links.routed().map_err(NetworkError::kernel("list the routes of this machine"))?;
    let is_free = |range: &Range| !routed.iter().any(|(network, bits)| range.overlaps(*network, *bits));
    for range in Range::all(seed(directory)).filter(is_free) {
        match links.claim(range) {
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(NetworkError::kernel("claim a range of addresses")(error)),
            Ok(()) => {
                let chosen = Chosen { network: range.network(), boot: boot() };
                write_json(&path, &chosen).map_err(NetworkError::file("write", &path))?;
                return Ok(range);
            }
        }
    }
    Err(NetworkError::NoRange)
}

/// A number that is the directory's each time.
fn seed(directory: &Path) -> u8 {
    let bytes = directory.as_os_str().as_encoded_bytes();
    bytes.iter().fold(0, |seed: u8, byte| seed.wrapping_mul(31).wrapping_add(*byte))
}

fn boot() -> String {
    fs::read_to_string(BOOT).unwrap_or_default().trim().to_owned()
}

/// What pods of an earlier process have.
fn find(directory: &Path, range: Range) -> Addresses {
    let mut addresses = Addresses::new(range);
    for pod in fs::read_dir(directory).into_iter().flatten().flatten() {
        // What cannot be read is made again by whoever prepares the pod.
        let noted: Option<Ipv4Addr> = read_json(&pod.path().join(ADDRESS)).unwrap_or_default();
        if let Some(address) = noted.filter(|_| namespace::is_mounted(&pod.path().join(NAMESPACE))) {
            addresses.restore(&pod.file_name().to_string_lossy(), address);
        }
    }
    addresses
}

/// A process that was killed while it joined a pod to the machine noted nothing.
fn remove_lost(links: &Links, range: Range, addresses: &Addresses) -> io::Result<()> {
    for device in &if_nameindex()? {
        let linked = device.name().to_str().ok().and_then(range::linked);
        if let Some(address) = linked.filter(|linked| Range::of(*linked) == range && !addresses.has(*linked))
        {
            links.part(address)?;
        }
    }
    Ok(())
}

/// Lets packets pass through this machine, which those of pods have to.
fn forward() -> Result<(), NetworkError> {
    let path = Path::new(FORWARDING);
    let now = fs::read_to_string(path).map_err(NetworkError::file("read", path))?;
    // Writing resets what was set for single devices, so it is not written without need.
    if now.trim() != "1" {
        fs::write(path, "1").map_err(NetworkError::file("write", path))?;
        tracing::warn!("net.ipv4.ip_forward is 1 from now on: packets of pods pass through this machine");
    }
    Ok(())
}

/// The longest packet that the way out of this machine carries, where that is known.
fn uplink_mtu(links: &Links) -> Option<u32> {
    let index = links.uplink().ok()??;
    let all = if_nameindex().ok()?;
    let device = all.iter().find(|device| device.index() == index)?;
    let mtu = Path::new("/sys/class/net").join(device.name().to_str().ok()?).join("mtu");
    fs::read_to_string(mtu).ok()?.trim().parse().ok()
}

/// Writes a file so that a reader sees all of it or nothing.
fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let temporary = path.with_extension("new");
    fs::write(&temporary, serde_json::to_vec(value)?)?;
    fs::rename(&temporary, path)
}

/// Reads what [`write_json`] wrote; `None` if the file is not there.
fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

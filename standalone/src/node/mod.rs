//! The node: runs the pods of the API server as containers on this machine. This is the IO shell around
//! `ropewalk_kubelet`; what is decided is decided there.
//!
//! - [`run`] watches pods and gives each a task ([`pod`]) that feeds its state machine and carries out commands;
//! - [`container`] writes an OCI bundle and starts one [`shim`] per container, which outlives this process;
//! - [`exec`] runs further commands in containers;
//! - [`network`] says which network pods have, `ropewalk-network` makes it;
//! - [`usage`] looks at what pods take of the disk;
//! - [`volumes`] makes and unmounts volumes, [`report`] writes statuses and events, [`logs`] reads logs;
//! - [`Instance`] owns the directory all of it lives in and removes what a killed instance left; in a [`home`] that
//!   outlives its processes the next one adopts it.

mod cgroup;
mod container;
mod descriptor;
mod device_wall;
mod devices;
pub mod exec;
pub(crate) mod files;
pub mod home;
mod hooks;
mod images;
pub(crate) mod instance;
pub mod logs;
mod network;
mod objects;
pub(crate) mod overlay;
mod pod;
mod probe;
mod register;
mod report;
pub mod shim;
mod usage;
mod volumes;
mod watch;

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use ropewalk_kubelet::HostFacts;
use ropewalk_kubelet::machine::Event;
use ropewalk_network::{Network, NetworkError};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc, watch as channel};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use images::Images;
pub use images::{Pulls, local_images};
pub use instance::Instance;
pub use network::{NetworkChoice, PodNetwork};
pub use ropewalk_kubelet::volume::DIRECTORY_ANNOTATION;

/// The injected binary, static, for this machine's architecture.
pub const ENTRYPOINT: &[u8] = include_bytes!(env!("ROPEWALK_EMBEDDED_ENTRYPOINT"));

/// The program that is running, to be used as the shim. Unlike its path this still works when the file was
/// replaced, by an update or a build, while containers are being started.
pub const OWN_EXECUTABLE: &str = "/proc/self/exe";

/// The kubelet's own limit for pods at once on one node.
pub const DEFAULT_MAX_PODS: usize = 110;

/// Bytes a container's log file may have, the time before each line included: several million short lines, and few
/// enough that a step that prints without end does not fill a build machine's disk.
pub const DEFAULT_LOG_BYTES: u64 = 256 << 20;

/// Bytes a container on the machine's own root may write outside its volumes; that layer lives in memory.
pub const DEFAULT_SCRATCH_BYTES: u64 = 1 << 30;

/// Bytes on disk that a container from an image may write outside its volumes, its log among them: builds of the largest
/// images fit, and a command that writes without end is not all that a machine's disk has room for.
pub const DEFAULT_LAYER_BYTES: u64 = 64 << 30;

/// Bytes of data in images: some hundred of the usual ones, and a part of the disks that machines for builds have.
pub const DEFAULT_IMAGE_BYTES: u64 = 64 << 30;

/// Directory of images, below the root of everything.
pub const IMAGES: &str = "images";

/// Directory of the embedded image, below the node's.
const EMBEDDED: &str = "entrypoint";

/// Processes and threads one container may have: far above any build, and few of the 32,768 that a kernel has by default:
/// the node is to live on beside several containers that make as many as they can.
pub const DEFAULT_PIDS: u64 = 4096;

/// Directory of the pods' network, below the node's.
const NETWORK: &str = "network";

/// Events a pod's task may be behind with. The watch waits beyond that, which slows it down and loses nothing.
const QUEUE: usize = 64;

/// How long the work for pods may take to end once the node is stopped: what is being written to disk or mounted
/// is finished, which takes milliseconds.
const STOP: Duration = Duration::from_secs(5);

/// What an image reference means on this node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RootfsMode {
    /// Every image gets the machine's own root file system, read-only beneath a throw-away layer, with homes,
    /// sockets, secrets and the data directory hidden. What is mounted below `/`, such as a separate `/usr`, is
    /// not part of it: an overlay does not cross mount points.
    Host,
    /// Every image gets its own layers from the node's images, beneath a layer of the container's own on disk.
    Images,
}

/// Who makes containers.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RuntimeKind {
    /// libcontainer, inside the shim; needs nothing installed.
    Builtin,
    /// An OCI command line that speaks as runc does: its path or name.
    Runc(PathBuf),
}

/// How a node runs.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Directory for everything the node keeps; [`Instance::data_dir`] or a fixed one.
    pub data_dir: PathBuf,
    /// Further directories containers must not see, such as the API server's token and state.
    pub private_dirs: Vec<PathBuf>,
    /// What an image reference means.
    pub rootfs: RootfsMode,
    /// Directory of the node's images, which others may use at the same time.
    pub images: PathBuf,
    /// Bytes of data in images beyond which a pull removes pulled ones that nothing runs with, those least recently used first.
    pub image_bytes: u64,
    /// Where it is told how far pulls are.
    pub pulls: channel::Sender<Pulls>,
    /// Directory that says how registries are reached, in the form of containerd's `certs.d`; it need not exist.
    pub registries: PathBuf,
    /// Who makes containers.
    pub runtime: RuntimeKind,
    /// The executable whose hidden subcommand `__shim` is [`shim::main`]; as a rule [`OWN_EXECUTABLE`].
    pub shim_exe: PathBuf,
    /// The node's name.
    pub node_name: String,
    /// Pods that run at once; further ones wait.
    pub max_pods: usize,
    /// Where pods on the machine's network reach the API server, if they can; others do on the same port of their
    /// network's gateway.
    pub api: Option<SocketAddr>,
    /// Which network pods have.
    pub network: PodNetwork,
    /// Bytes of log per container.
    pub log_bytes: u64,
    /// Bytes a container on the machine's own root may write outside its volumes, in memory: further ones are not written.
    pub scratch_bytes: u64,
    /// Bytes a container may take on disk outside its volumes: one that takes more is evicted with its pod.
    pub layer_bytes: u64,
    /// Processes and threads a container may have.
    pub pids: u64,
}

impl NodeConfig {
    /// The defaults for a data directory.
    pub fn new(data_dir: impl Into<PathBuf>, shim_exe: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        Self {
            images: data_dir.join(IMAGES),
            image_bytes: DEFAULT_IMAGE_BYTES,
            pulls: channel::Sender::default(),
            registries: data_dir.join(ropewalk_pull::HOSTS),
            data_dir,
            private_dirs: Vec::new(),
            rootfs: RootfsMode::Images,
            runtime: RuntimeKind::Builtin,
            shim_exe: shim_exe.into(),
            node_name: "ropewalk".to_owned(),
            max_pods: DEFAULT_MAX_PODS,
            api: None,
            network: PodNetwork::Host { why: "nothing else was asked for".to_owned() },
            log_bytes: DEFAULT_LOG_BYTES,
            scratch_bytes: DEFAULT_SCRATCH_BYTES,
            layer_bytes: DEFAULT_LAYER_BYTES,
            pids: DEFAULT_PIDS,
        }
    }
}

/// Why a node cannot run.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Not root.
    #[error(
        "running containers needs root on this machine: mounts, namespaces and cgroups are made by the node \
         itself; run the command with sudo"
    )]
    NotRoot,
    /// A directory or file of the node cannot be used.
    #[error("cannot {what} \"{path}\"")]
    Path {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The node's images cannot be used.
    #[error("cannot use the images of this node")]
    Images(#[source] ropewalk_images::StoreError),
    /// Pods cannot have a network of their own, or it cannot be removed.
    #[error("the pods' network cannot be set up or removed")]
    Network(#[from] NetworkError),
    /// What runs has another network than what is to be started would have.
    #[error(
        "{running} containers of an earlier process run with --pod-network {before}; go on with that, or end them with \
         \"ropewalk down\" before --pod-network {wish}"
    )]
    OtherNetwork {
        /// How many containers.
        running: usize,
        /// What they have.
        before: NetworkChoice,
        /// What was asked for.
        wish: NetworkChoice,
    },
    /// The kernel's file notifications cannot be used.
    #[error("cannot watch files; raise fs.inotify.max_user_instances if it is exhausted")]
    Inotify(#[source] io::Error),
}

impl NodeError {
    pub(crate) fn path(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Path { what, path: path.to_owned(), source }
    }
}

/// What all tasks of a node share.
struct Node {
    client: Client,
    config: NodeConfig,
    facts: HostFacts,
    /// None where every image is the machine's own root.
    images: Option<Images>,
    /// Where containers get their cgroups.
    cgroups: Vec<PathBuf>,
    /// Where they may have some, those of earlier processes included.
    known_cgroups: Vec<PathBuf>,
    resolv_conf: String,
    /// Held while a claim's directory is made.
    claims: Mutex<()>,
    watches: watch::Watches,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Node {
    /// Runs a task that ends by itself soon after the node is stopped.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Runs a task that may be dropped at any of its waits when the node is stopped.
    fn spawn_droppable(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping.clone();
        self.tasks.spawn(async move {
            let _ = stopping.run_until_cancelled_owned(task).await;
        });
    }

    /// The directory of everything a pod has on this machine.
    fn pod_dir(&self, uid: &str) -> PathBuf {
        self.config.data_dir.join(logs::PODS).join(uid)
    }

    /// The directory of one attempt of a container.
    fn attempt_dir(&self, uid: &str, container: &str, attempt: u32) -> PathBuf {
        logs::attempt_dir(&self.config.data_dir, uid, container, attempt)
    }

    /// The network that a pod has a part of its own in; none if it shares the machine's.
    fn network_of(&self, pod: &Pod) -> Option<&Arc<Network>> {
        let shares = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
        self.config.network.own().filter(|_| !shares)
    }

    /// The machine as a pod finds it.
    fn facts_of(&self, pod: &Pod) -> HostFacts {
        let Some(network) = self.network_of(pod) else { return self.facts.clone() };
        let address = network.address(pod.metadata.uid.as_deref().unwrap_or_default());
        HostFacts {
            pod_ip: address.map(|address| address.to_string()),
            api: self.facts.api.as_ref().map(|(_, port)| (network.gateway().to_string(), *port)),
            ..self.facts.clone()
        }
    }

    /// Root of the embedded image.
    fn entrypoint_image(&self) -> PathBuf {
        self.config.data_dir.join(EMBEDDED)
    }
}

/// Runs the API server's pods until `shutdown` becomes true or its sender is gone. Containers keep running then:
/// a later node on the same directory adopts them, [`Instance::remove`] ends them.
pub async fn run(
    client: Client,
    config: NodeConfig,
    mut shutdown: channel::Receiver<bool>,
) -> Result<(), NodeError> {
    let node = Arc::new(prepare(client.clone(), config).await?);
    tokio::select! {
        // A sender that is gone means the same as a signal.
        _ = shutdown.wait_for(|stop| *stop) => {}
        () = Box::pin(watch_pods(client, Arc::clone(&node))) => {}
    }
    node.stopping.cancel();
    node.tasks.close();
    if tokio::time::timeout(STOP, node.tasks.wait()).await.is_err() {
        tracing::warn!("not all work for pods ended within {STOP:?}");
    }
    Ok(())
}

/// Gives every pod a task, for as long as the API server is watched.
async fn watch_pods(client: Client, node: Arc<Node>) {
    register::register(&node).await;
    let ours = watcher::Config::default().fields(&format!("spec.nodeName={}", node.config.node_name));
    let pods = watcher(Api::<Pod>::all(client), ours).default_backoff();
    let mut pods = std::pin::pin!(pods);
    let mut tasks = Tasks { node, senders: HashMap::new() };
    let (mut listed, mut waiting) = (Vec::new(), Vec::new());
    while let Some(event) = pods.next().await {
        match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                waiting.clear();
            }
            Ok(watcher::Event::InitApply(pod)) => {
                let uid = pod.uid().unwrap_or_default();
                // Those that run already are adopted before others take their places.
                if is_terminal(&pod) || tasks.node.pod_dir(&uid).exists() {
                    tasks.changed(pod).await;
                } else {
                    waiting.push(pod);
                }
                listed.push(uid);
            }
            Ok(watcher::Event::InitDone) => {
                for pod in waiting.drain(..) {
                    tasks.changed(pod).await;
                }
                tasks.retain(&listed).await;
            }
            Ok(watcher::Event::Apply(pod)) => tasks.changed(pod).await,
            Ok(watcher::Event::Delete(pod)) => tasks.gone(&pod.uid().unwrap_or_default()).await,
            Err(error) => tracing::warn!(%error, "watching pods failed, trying again"),
        }
    }
}

/// The tasks of the pods seen so far, by pod UID.
struct Tasks {
    node: Arc<Node>,
    senders: HashMap<String, mpsc::Sender<Event>>,
}

impl Tasks {
    async fn changed(&mut self, pod: Pod) {
        let Some(uid) = pod.uid() else { return };
        let event = match self.senders.get(&uid) {
            Some(sender) => match sender.send(Event::PodChanged(Box::new(pod))).await {
                Ok(()) => return,
                Err(mpsc::error::SendError(event)) => event,
            },
            None => Event::PodChanged(Box::new(pod)),
        };
        self.senders.retain(|_, sender| !sender.is_closed());
        let Event::PodChanged(pod) = event else { return };
        if is_terminal(&pod) && pod.metadata.deletion_timestamp.is_none() {
            // Its last process may have been killed between telling of the end and this.
            pod::tear_down(&self.node, uid);
        } else {
            let (sender, receiver) = mpsc::channel(QUEUE);
            self.node.spawn(pod::run(Arc::clone(&self.node), *pod, receiver, sender.downgrade()));
            self.senders.insert(uid, sender);
        }
    }

    async fn gone(&mut self, uid: &str) {
        let living = match self.senders.get(uid) {
            Some(sender) => sender.send(Event::PodGone).await.is_ok(),
            None => false,
        };
        // A task that is still there removes what the pod has when its containers have ended.
        if !living {
            self.senders.remove(uid);
            pod::purge(&self.node, uid).await;
        }
    }

    /// After a new list: pods that are no longer in it are gone, whether or not this process knew them.
    async fn retain(&mut self, listed: &[String]) {
        let mut known: Vec<_> = self.senders.keys().cloned().collect();
        if let Ok(entries) = std::fs::read_dir(self.node.config.data_dir.join(logs::PODS)) {
            known.extend(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()));
        }
        known.extend(self.node.config.network.own().into_iter().flat_map(|network| network.pods()));
        known.sort_unstable();
        known.dedup();
        for uid in known.iter().filter(|uid| !listed.contains(uid)) {
            self.gone(uid).await;
        }
    }
}

fn is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

async fn prepare(client: Client, mut config: NodeConfig) -> Result<Node, NodeError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(NodeError::NotRoot);
    }
    let given = &config.data_dir;
    std::fs::create_dir_all(given).map_err(NodeError::path("make", given))?;
    config.data_dir = std::fs::canonicalize(given).map_err(NodeError::path("find", given))?;
    let directory = config.data_dir.clone();
    let images = (config.rootfs == RootfsMode::Images).then(|| (client.clone(), config.clone()));
    let blocking = tokio::task::spawn_blocking(move || {
        exec::end_orphans(&directory);
        let (cgroups, known) = install(&directory)?;
        let images = images.map(|(client, config)| Images::open(client, &config)).transpose()?;
        let closes_devices =
            cgroups.iter().any(|parent| device_wall::fits(parent) && device_wall::works(parent));
        Ok::<_, NodeError>((cgroups, known, images, closes_devices))
    });
    let (cgroups, known_cgroups, images, closes_devices) =
        blocking.await.map_err(|error| NodeError::Inotify(io::Error::other(error)))??;
    if cgroups.is_empty() {
        tracing::warn!("no cgroup can be used: containers run without limits on memory, CPU and processes");
    }
    Ok(Node {
        client,
        facts: facts(&config, closes_devices),
        images,
        cgroups,
        known_cgroups,
        resolv_conf: std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
        claims: Mutex::default(),
        watches: watch::Watches::new(false).map_err(NodeError::Inotify)?,
        room: Arc::new(Semaphore::new(config.max_pods)),
        tasks: TaskTracker::new(),
        stopping: CancellationToken::new(),
        config,
    })
}

/// Lays out the data directory; finds the cgroups to use, and all that were used.
fn install(data_dir: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), NodeError> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    let image = data_dir.join(EMBEDDED);
    std::fs::create_dir_all(&image).map_err(NodeError::path("make", &image))?;
    // Pods' secrets lie below it.
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(data_dir, private).map_err(NodeError::path("protect", data_dir))?;
    // What is in the image is for every user, whatever this process's umask is.
    let public = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&image, public.clone()).map_err(NodeError::path("open", &image))?;
    let binary = image.join("entrypoint");
    // Containers that run already see it.
    if !std::fs::read(&binary).is_ok_and(|found| found == ENTRYPOINT) {
        files::write_atomically(&binary, ENTRYPOINT).map_err(NodeError::path("write", &binary))?;
    }
    std::fs::set_permissions(&binary, public).map_err(NodeError::path("make executable", &binary))?;

    // The inode keeps apart directories of the same name below different roots.
    let inode = std::fs::metadata(data_dir).map_err(NodeError::path("read", data_dir))?.ino();
    let name = data_dir.file_name().unwrap_or_default().to_string_lossy();
    let cgroups = cgroup::parents(&format!("{name}-{inode}"));
    let known = instance::remember_cgroups(data_dir, &cgroups)?;
    Ok((cgroups, known))
}

fn facts(config: &NodeConfig, closes_devices: bool) -> HostFacts {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let host_ip = host_ip();
    HostFacts {
        node_name: config.node_name.clone(),
        pod_ip: Some(host_ip.clone()),
        host_ip,
        cpus: u32::try_from(cpus).unwrap_or(1),
        memory_bytes: total.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0) * 1024,
        capabilities: capabilities().unwrap_or(u64::MAX),
        closes_devices,
        api: config.api.map(|address| (address.ip().to_string(), address.port())),
        host_rootfs: config.rootfs == RootfsMode::Host,
    }
}

/// The capabilities this process may hand on.
fn capabilities() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(effective.trim(), 16).ok()
}

/// The address this machine would speak to the world from; connecting a UDP socket sends nothing.
fn host_ip() -> String {
    let address = || -> io::Result<String> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect("192.0.2.1:9")?;
        Ok(socket.local_addr()?.ip().to_string())
    };
    address().unwrap_or_else(|_| "127.0.0.1".to_owned())
}

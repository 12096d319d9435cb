//! A pipeline engine in one process: Kubernetes API server, admission, controllers and kubelet, with nothing else
//! installed or running. The controllers are the ones a cluster runs; only their client leads here.

pub mod admission;
pub mod node;
pub mod prune;
pub mod rootless;
pub mod server;
pub mod store;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use kube::Client;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use prometheus::Registry;
use ropewalk_api::{conversion, crd};
use ropewalk_apiserver::{ResourceTable, State, TableError};
use ropewalk_controller::{ImageOptions, Metrics, Options};
use ropewalk_core::settings::Settings;
use tokio::sync::watch;
use tokio::task::JoinSet;

use node::{
    Instance, NetworkChoice, NodeConfig, NodeError, PodNetwork, Pulls, RootfsMode, RuntimeKind, home,
};
use server::secrets::{Secrets, SecretsError};
use server::tls::{Identity, TlsError};
use server::tokens::Keys;
use server::{Server, kubeconfig, private};
use store::{Kept, StoreError};

/// How long the parts may take to end what they are doing once asked to: what is on its way to the disk gets there.
const STOP: Duration = Duration::from_secs(5);

/// The file whose lock the process that serves from a directory holds.
const LOCK: &str = "up.lock";

/// How the process runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// What an image reference means.
    pub rootfs: RootfsMode,
    /// Who makes containers.
    pub runtime: RuntimeKind,
    /// Where everything on disk is, of instances and of the process that serves; only its owner may write there.
    pub data_root: PathBuf,
    /// The ConfigMaps' settings.
    pub engine: ropewalk_api::config::Config,
    /// Where others than this process reach the API, over HTTPS and with a token. Objects are kept in `data_root` then,
    /// and containers run on when the process ends, for the next one; `None` keeps all to the process and its time. At
    /// most one process serves from a `data_root`.
    pub listen: Option<SocketAddr>,
    /// What is kept of finished runs where the API is served.
    pub keep: prune::Limits,
    /// Bytes of data in images beyond which a pull removes others.
    pub image_bytes: u64,
    /// Which network pods get where the API is served: without a wish, each its own where this machine lets them.
    /// Elsewhere all share the machine's.
    pub pod_network: Option<NetworkChoice>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rootfs: RootfsMode::Images,
            runtime: RuntimeKind::Builtin,
            data_root: PathBuf::from("/var/lib/ropewalk"),
            engine: ropewalk_api::config::Config::default(),
            listen: None,
            keep: prune::Limits::default(),
            image_bytes: node::DEFAULT_IMAGE_BYTES,
            pod_network: None,
        }
    }
}

/// Why the process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Containers cannot be run here.
    #[error("cannot run containers on this machine")]
    Node(#[from] NodeError),
    /// An ordinary user may not.
    #[error(transparent)]
    Rootless(#[from] rootless::RootlessError),
    /// Our own CRDs do not fit the API server: a defect.
    #[error("cannot serve the custom resources")]
    Table(#[from] TableError),
    /// A metric was registered twice: a defect.
    #[error("cannot register the controllers' metrics")]
    Metrics(#[from] ropewalk_controller::Error),
    /// Another process serves from the directory.
    #[error(
        "another \"ropewalk up\" (process {process}) uses \"{directory}\"; stop it, or use another directory with \
         --data-dir"
    )]
    Taken {
        /// The directory.
        directory: PathBuf,
        /// Process id, or `unknown`.
        process: String,
    },
    /// There is nothing to end.
    #[error("no \"ropewalk up\" has used \"{directory}\"; name its directory with --data-dir")]
    Unused {
        /// The directory.
        directory: PathBuf,
    },
    /// A file of the server cannot be used.
    #[error("cannot {what} \"{path}\"")]
    File {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The address is taken, or not one of this machine.
    #[error("cannot listen on {address}; choose another address with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// No keys.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// No objects.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The thread that writes objects cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// No certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// How others than this process reach the API.
#[derive(Clone, Debug)]
pub struct Served {
    /// Where clients on this machine reach it.
    pub address: SocketAddr,
    /// The file that lets kubectl in as administrator.
    pub kubeconfig: PathBuf,
    /// Which network pods have.
    pub network: PodNetwork,
}

/// The way in from outside, prepared, and what is kept behind it.
struct Door {
    /// The node's directory.
    home: PathBuf,
    listener: TcpListener,
    /// For pods with a network of their own, on its gateway; none where the other one serves them, too.
    inner: Option<TcpListener>,
    served: Served,
    identity: Identity,
    admin: String,
    file: store::File,
    /// Held for its lock.
    lock: Flock<File>,
}

/// All parts, running.
pub struct Standalone {
    client: Client,
    server: Server,
    served: Option<Served>,
    pulls: watch::Receiver<Pulls>,
    data_root: PathBuf,
    /// Held for its lock until everything has ended.
    _lock: Option<Flock<File>>,
    /// What ends with this process; none where containers run on.
    instance: Option<Instance>,
    shutdown: watch::Sender<bool>,
    /// The parts. Only the node can fail once it was started.
    tasks: JoinSet<Result<(), NodeError>>,
}

impl Standalone {
    /// Starts every part; the API answers when this returns. What earlier instances left behind is removed first.
    /// Has to be called within a tokio runtime.
    ///
    /// Where the API is served, every object is as the last process left it, however that ended, before controllers and
    /// node see the API at all: with the same UIDs and resource versions, pods with the status that was last written.
    /// Later resource versions are higher, a watch from an earlier one is told to list again. From then on nothing is
    /// answered before it is on disk. Containers that still run are adopted.
    pub fn start(config: Config) -> Result<Self, Error> {
        if !nix::unistd::geteuid().is_root() {
            return Err(NodeError::NotRoot.into());
        }
        rootless::probe(&config.data_root)?;
        let door = |address| Door::open(&config.data_root, address, config.pod_network);
        let door = config.listen.map(door).transpose()?;
        let (data_dir, instance) = if let Some((.., door)) = &door {
            (door.home.clone(), None)
        } else {
            let instance = Instance::create(&config.data_root)?;
            (instance.data_dir().to_owned(), Some(instance))
        };
        let settings = Arc::new(Settings::default());
        let engine = Arc::new(config.engine);

        let admission = admission::Webhooks::new(Arc::clone(&engine), &settings);
        let logs = node::logs::Logs::new(&data_dir);
        // Names and UIDs have to differ from those of other instances, no more: the clock is seed enough.
        let now = Timestamp::now();
        let seed =
            now.as_nanosecond().to_le_bytes()[..8].iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte));
        let (shutdown, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let (server, served, lock) = match door {
            None => {
                let state = State::new(resources()?, seed, now);
                (Server::new(state, Arc::new(admission), Arc::new(logs)), None, None)
            }
            Some((keys, kept, mut door)) => {
                let state = restore(kept, &mut door, seed, now)?;
                let (admission, logs) = (Arc::new(admission), Arc::new(logs));
                let server =
                    Server::durable(state, admission, logs, keys, door.file).map_err(Error::Thread)?;
                let failed = |source| Error::Listen { address: door.served.address, source };
                for listener in [Some(door.listener), door.inner].into_iter().flatten() {
                    let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
                    let (identity, stopped) = (Arc::clone(&door.identity.config), stopped(stopping.clone()));
                    tasks.spawn(server.clone().serve_https(listener, identity, stopped).map(Ok));
                }
                // Whoever waits for the file finds a server that answers.
                let text = kubeconfig::text(door.served.address, &door.identity.authority, &door.admin);
                let path = &door.served.kubeconfig;
                private::write(path, &text).map_err(Error::file("write", path))?;
                (server, Some(door.served), Some(door.lock))
            }
        };
        if served.is_some() {
            let pruner = prune::run(server.client(), data_dir.clone(), config.keep);
            let mut stopping = stopping.clone();
            tasks.spawn(async move {
                tokio::select! {
                    () = pruner => {}
                    // A sender that is gone means the same as a signal.
                    _ = stopping.wait_for(|stop| *stop) => {}
                }
                Ok(())
            });
        }
        let commands = node::exec::Commands::new(&data_dir, node::OWN_EXECUTABLE);
        server.run_commands_with(Arc::new(commands));
        let client = server.client();
        // Nobody changes the configuration of one process; a receiver keeps its value without a sender.
        let (config_now, settings) = (watch::channel(engine).1, watch::channel(settings).1);
        let metrics = Metrics::new(&Registry::new())?;
        let registries = config.data_root.join(ropewalk_pull::HOSTS);
        let images = match config.rootfs {
            // Every image runs the same there, and that is nothing.
            RootfsMode::Host => None,
            RootfsMode::Images => Some(ImageOptions {
                extra_roots: watch::channel(String::new()).1,
                registries: Some(registries.clone()),
                local: Some(node::local_images(&config.data_root.join(node::IMAGES))?),
            }),
        };
        let options = Options { config: config_now, settings, namespace: None, images, metrics };
        let stopped = stopped(stopping.clone()).boxed();
        tasks.spawn(ropewalk_controller::run(client.clone(), options, stopped).map(Ok));
        let data_root = config.data_root.clone();
        let node = NodeConfig {
            rootfs: config.rootfs,
            images: config.data_root.join(node::IMAGES),
            image_bytes: config.image_bytes,
            registries,
            runtime: config.runtime,
            private_dirs: vec![config.data_root],
            api: served.as_ref().map(|served| served.address),
            ..NodeConfig::new(data_dir, node::OWN_EXECUTABLE)
        };
        let node = match &served {
            Some(served) => NodeConfig { network: served.network.clone(), ..node },
            None => node,
        };
        let pulls = node.pulls.subscribe();
        tasks.spawn(node::run(client.clone(), node, stopping));
        Ok(Self { client, server, served, pulls, data_root, _lock: lock, instance, shutdown, tasks })
    }

    /// How others reach the API, if they can.
    pub fn served(&self) -> Option<&Served> {
        self.served.as_ref()
    }

    /// A client of the API.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The pulls that are under way.
    pub fn pulls(&self) -> watch::Receiver<Pulls> {
        self.pulls.clone()
    }

    /// Resolves with the reason once the node has failed: nothing will run any more, and there is nothing left to do but
    /// [`stop`](Self::stop). Safe to drop and to call again.
    pub async fn failed(&mut self) -> Error {
        while let Some(ended) = self.tasks.join_next().await {
            if let Ok(Err(error)) = ended {
                return error.into();
            }
        }
        std::future::pending().await
    }

    /// Stops every part. Where the API was served containers run on, for the next process; elsewhere they are ended, and
    /// all that was made is removed.
    pub async fn stop(mut self) -> Result<(), Error> {
        // A receiver that is gone has stopped already.
        let _ = self.shutdown.send(true);
        if tokio::time::timeout(STOP, async { while self.tasks.join_next().await.is_some() {} })
            .await
            .is_err()
        {
            tracing::warn!("not every part stopped within {STOP:?}");
            self.tasks.shutdown().await;
        }
        self.server.close().await;
        if let Some(served) = &self.served {
            served.network.close(home::running(&self.data_root))?;
        }
        Ok(self.instance.map_or(Ok(()), Instance::remove)?)
    }
}

/// Ends what a process that served from this directory and does so no longer left on the machine: containers, mounts,
/// namespaces, cgroups, networks. Returns how many containers that were. Objects, claims and logs stay.
pub fn down(directory: &Path) -> Result<usize, Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(NodeError::NotRoot.into());
    }
    if !directory.join(LOCK).exists() {
        return Err(Error::Unused { directory: directory.to_owned() });
    }
    let _lock = lock(directory)?;
    Ok(home::end(directory)?)
}

impl Error {
    fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { what, path: path.to_owned(), source }
    }
}

impl Door {
    /// Takes the directory and the address, reads or makes keys, certificates and the file of objects, and sets up the
    /// network of pods.
    fn open(
        directory: &Path,
        address: SocketAddr,
        pod_network: Option<NetworkChoice>,
    ) -> Result<(Keys, Kept, Self), Error> {
        std::fs::create_dir_all(directory).map_err(Error::file("make", directory))?;
        let lock = lock(directory)?;
        let failed = |source| Error::Listen { address, source };
        let listener = bind(address)?;
        let listening = listener.local_addr().map_err(failed)?;
        let Secrets { authority, keys, admin } = Secrets::open(&directory.join("keys"))?;
        let (file, kept) = store::File::open(&directory.join("objects.redb"))?;
        let home = home::open(directory)?;
        let network = PodNetwork::open(&home, pod_network, home::running(directory))?;
        let gateway = network.own().map(|network| IpAddr::V4(network.gateway()));
        // The unspecified address is the gateway's, too.
        let inner = gateway.filter(|_| !listening.ip().is_unspecified());
        let inner = inner.map(|gateway| bind(SocketAddr::new(gateway, listening.port()))).transpose()?;
        let addresses: Vec<_> = [listening.ip()].into_iter().chain(gateway).collect();
        let identity = Identity::issue(&authority, &addresses)?;
        let (address, kubeconfig) = (kubeconfig::reachable(listening), directory.join("kubeconfig"));
        let served = Served { address, kubeconfig, network };
        Ok((keys, kept, Self { home, listener, inner, served, identity, admin, file, lock }))
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    let failed = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// The state that was kept, with what a served one needs besides; that is kept, too, before anybody sees it.
fn restore(kept: Kept, door: &mut Door, seed: u64, now: Timestamp) -> Result<State, Error> {
    let (mut state, unknown) = State::restore(resources()?, seed, now, kept.version, kept.objects);
    for object in unknown {
        tracing::warn!(object, "an object that was kept is not served: its kind or version is unknown");
    }
    ropewalk_apiserver::install(&mut state, &door.identity.authority, now);
    ropewalk_apiserver::install_roles(&mut state, server::roles::of_people(), now);
    let deltas = state.take_fresh();
    door.file.commit(state.version(), &store::changes(state.table(), &deltas))?;
    Ok(state)
}

/// Makes this the one process that serves from the directory. The kernel lets go of the lock however the process ends.
fn lock(directory: &Path) -> Result<Flock<File>, Error> {
    let path = directory.join(LOCK);
    let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
    let file = file.map_err(Error::file("open", &path))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            // Only told to people; without it they read that the process is unknown.
            let _ = lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id()));
            Ok(lock)
        }
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut process = String::new();
            let known = file.read_to_string(&mut process).is_ok() && !process.is_empty();
            let process = if known { process } else { "unknown".to_owned() };
            Err(Error::Taken { directory: directory.to_owned(), process })
        }
        Err((_, errno)) => Err(Error::file("lock", &path)(errno.into())),
    }
}

/// Everything the API serves: Kubernetes' own kinds that pipelines need, and ours by their CRDs.
pub fn resources() -> Result<ResourceTable, TableError> {
    let table = ResourceTable::built_in().with_crds(crd::all())?;
    Ok([ropewalk_api::GROUP, ropewalk_api::RESOLUTION_GROUP].into_iter().fold(table, |table, group| {
        table.converting(group, |object, _from, to| {
            conversion::convert(object, to).map_err(|error| error.to_string())
        })
    }))
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // A sender that is gone means the same as a signal.
    let _ = stopping.wait_for(|stop| *stop).await;
}

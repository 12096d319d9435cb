//! A pipeline engine in one process: Kubernetes API server, admission, controllers and kubelet, with nothing else
//! installed or running. The controllers are the ones a cluster runs; only their client leads here.

pub mod admission;
pub mod node;
pub mod server;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use kube::Client;
use prometheus::Registry;
use ropewalk_api::crd;
use ropewalk_apiserver::{ResourceTable, State, TableError};
use ropewalk_controller::{Metrics, Options};
use ropewalk_core::settings::Settings;
use tokio::sync::watch;
use tokio::task::JoinSet;

use node::{Instance, NodeConfig, NodeError, RootfsMode, RuntimeKind};
use server::Server;

/// How long the parts may take to end what they are doing once asked to. What containers still run then is killed with
/// their instance anyway.
const STOP: Duration = Duration::from_secs(5);

/// How the process runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// What an image reference means.
    pub rootfs: RootfsMode,
    /// Who makes containers.
    pub runtime: RuntimeKind,
    /// Where instances keep their directories; only its owner may write there.
    pub data_root: PathBuf,
    /// The ConfigMaps' settings.
    pub engine: ropewalk_api::config::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rootfs: RootfsMode::None,
            runtime: RuntimeKind::Builtin,
            data_root: PathBuf::from("/var/lib/ropewalk"),
            engine: ropewalk_api::config::Config::default(),
        }
    }
}

/// Why the process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Containers cannot be run here.
    #[error("cannot run containers on this machine")]
    Node(#[from] NodeError),
    /// Our own CRDs do not fit the API server: a defect.
    #[error("cannot serve the custom resources")]
    Table(#[from] TableError),
    /// A metric was registered twice: a defect.
    #[error("cannot register the controllers' metrics")]
    Metrics(#[from] ropewalk_controller::Error),
}

/// All parts, running.
pub struct Standalone {
    client: Client,
    instance: Instance,
    shutdown: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Standalone {
    /// Starts every part; the API answers when this returns. What earlier instances left behind is removed first.
    /// Has to be called within a tokio runtime.
    pub fn start(config: Config) -> Result<Self, Error> {
        if !nix::unistd::geteuid().is_root() {
            return Err(NodeError::NotRoot.into());
        }
        let instance = Instance::create(&config.data_root)?;
        let settings = Arc::new(Settings::default());
        let engine = Arc::new(config.engine);

        let admission = admission::Webhooks::new(Arc::clone(&engine), &settings);
        let logs = node::logs::Logs::new(instance.data_dir());
        // Names and UIDs have to differ from those of other instances, no more: the clock is seed enough.
        let now = Timestamp::now();
        let seed =
            now.as_nanosecond().to_le_bytes()[..8].iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte));
        let state = State::new(resources()?, seed, now);
        let client = Server::new(state, Arc::new(admission), Arc::new(logs)).client();

        let (shutdown, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        // Nobody changes the configuration of one process; a receiver keeps its value without a sender.
        let (_, config_now) = watch::channel(engine);
        let metrics = Metrics::new(&Registry::new())?;
        let options = Options { config: config_now, settings, namespace: None, images: None, metrics };
        let stopped = stopped(stopping.clone()).boxed();
        tasks.spawn(ropewalk_controller::run(client.clone(), options, stopped));
        let node = NodeConfig {
            rootfs: config.rootfs,
            runtime: config.runtime,
            private_dirs: vec![config.data_root],
            ..NodeConfig::new(instance.data_dir(), node::OWN_EXECUTABLE)
        };
        let node = node::run(client.clone(), node, stopping);
        tasks.spawn(async move {
            if let Err(error) = node.await {
                tracing::error!(error = &error as &dyn std::error::Error, "the node has stopped");
            }
        });
        Ok(Self { client, instance, shutdown, tasks })
    }

    /// A client of the API.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Stops every part, ends every container and removes all that was made.
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
        Ok(self.instance.remove()?)
    }
}

/// Everything the API serves: Kubernetes' own kinds that pipelines need, and ours by their CRDs.
fn resources() -> Result<ResourceTable, TableError> {
    crd::all().iter().try_fold(ResourceTable::built_in(), ResourceTable::with_crd)
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // A sender that is gone means the same as a signal.
    let _ = stopping.wait_for(|stop| *stop).await;
}

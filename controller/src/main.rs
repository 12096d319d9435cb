//! `ropewalk-controller`: the controllers as a process on a cluster.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use futures::StreamExt;
use kube::Client;
use prometheus::Registry;
use ropewalk_api::config::LeaderElection;
use ropewalk_cluster::config::ConfigMapNames;
use ropewalk_cluster::heartbeat::Heartbeat;
use ropewalk_cluster::signals::{self, Shutdown};
use ropewalk_cluster::{client, config, config_maps, http, logging, named_by, namespace};
use ropewalk_controller::lease::{Candidate, Held, Lost};
use ropewalk_controller::{ImageOptions, Metrics, Options, capabilities};
use ropewalk_core::settings::Settings;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// How long the controllers may take to end what they are doing. With the release of the lease and the last events this
/// stays below the 10 s that a clean stop may take.
const DRAIN: Duration = Duration::from_secs(6);

#[derive(Parser)]
#[command(
    version,
    about = "Turns Tekton's runs into pods and pods into results, on the cluster of a kubeconfig or its own"
)]
struct Args {
    /// The image that holds the entrypoint of every step, in its root directory
    #[arg(long, default_value = concat!("ropewalk.dev/entrypoint:v", env!("CARGO_PKG_VERSION")))]
    entrypoint_image: String,

    /// An image whose container ends at once, with which running sidecars are stopped; the entrypoint's is one
    #[arg(long)]
    nop_image: Option<String>,

    /// Serve this namespace only
    #[arg(long)]
    namespace: Option<String>,

    /// The cluster to serve; otherwise KUBECONFIG, ~/.kube/config or the pod's service account
    #[arg(long)]
    kubeconfig: Option<PathBuf>,

    /// Work without a lease; there must be no second process then
    #[arg(long)]
    disable_ha: bool,

    /// Where /livez and /readyz are
    #[arg(long, env = "PROBES_PORT", default_value_t = 8080)]
    probes_port: u16,

    /// Where /metrics is
    #[arg(long, env = "METRICS_PROMETHEUS_PORT", default_value_t = 9090)]
    metrics_port: u16,
}

fn main() -> ExitCode {
    let args = Args::parse();
    logging::init();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "stopping");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    let runtime = Runtime::new().context("cannot start threads")?;
    let outcome = runtime.block_on(serve(args));
    // The name of a registry may be looked up for half a minute, and nobody waits for it any more.
    runtime.shutdown_background();
    outcome
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let shutdown = signals::shutdown().context("cannot catch signals")?;
    let registry = Registry::new();
    let (heart, ready) = (Heartbeat::new(), Arc::new(AtomicBool::new(false)));
    let alive = heart.clone();
    http::serve(args.probes_port, http::probes(move || alive.check(), readiness(Arc::clone(&ready)))).await?;
    http::serve(args.metrics_port, http::metrics(registry.clone())).await?;
    let client = client::connect(args.kubeconfig.as_deref()).await?;
    tokio::select! {
        worked = Box::pin(work(args, client, registry, ready, shutdown)) => worked,
        never = heart.beat() => match never {},
    }
}

/// The certificates of registries, known from the start, since a look-up that fails for want of them fails its run.
async fn registry_certificates(client: &Client, system: &str) -> watch::Receiver<String> {
    let (sender, mut receiver) = watch::channel(String::new());
    let mut changes = Box::pin(config_maps::changes(client, system, "config-registry-cert"));
    tokio::spawn(async move {
        while let Some(mut data) = changes.next().await {
            if sender.send(data.remove("cert").unwrap_or_default()).is_err() {
                return;
            }
        }
    });
    // The sender outlives its receiver.
    let _ = receiver.changed().await;
    receiver
}

/// Waits for configuration and lease, and works until `shutdown`.
async fn work(
    args: Args,
    client: Client,
    registry: Registry,
    ready: Arc<AtomicBool>,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let system = namespace();
    let prepared = async {
        let config = config::watch(&client, &system, &registry).await?;
        let extra_roots = registry_certificates(&client, &system).await;
        let candidate = if args.disable_ha { None } else { Some(candidate(&client, &system).await) };
        // Whoever waits for the lease is as ready as it can be: it replaces its predecessor in a rollout.
        ready.store(true, Ordering::Relaxed);
        let held = match candidate {
            Some(candidate) => Some(candidate.acquire().await),
            None => None,
        };
        anyhow::Ok((config, extra_roots, held))
    };
    let (config, extra_roots, held) = tokio::select! {
        prepared = prepared => prepared?,
        () = shutdown.clone() => return Ok(()),
    };
    let settings = Settings {
        nop_image: args.nop_image.unwrap_or_else(|| args.entrypoint_image.clone()),
        entrypoint_image: args.entrypoint_image,
        ..Settings::default()
    };
    let (namespace, metrics) = (args.namespace, Metrics::new(&registry)?);
    let controllers = async {
        // Only now: whoever waited for the lease for weeks would know a cluster of weeks ago.
        let options = Options {
            config,
            settings: capabilities::follow(&client, &system, settings).await,
            namespace,
            images: Some(ImageOptions { extra_roots, registries: None, local: None }),
            metrics,
        };
        let controllers = ropewalk_controller::run(client, options, shutdown.clone());
        let drained = async {
            shutdown.await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            () = controllers => {}
            () = drained => tracing::warn!("not every reconcile ended within {DRAIN:?}"),
        }
    };
    Ok(Box::pin(lead(held, controllers)).await?)
}

/// Works while the lease is held. Nothing works any more when this returns.
async fn lead(held: Option<Held>, controllers: impl Future<Output = ()>) -> Result<(), Lost> {
    let Some(mut held) = held else {
        controllers.await;
        return Ok(());
    };
    tokio::select! {
        () = controllers => {}
        lost = held.keep() => return Err(lost),
    }
    held.release().await;
    Ok(())
}

/// A candidate under this process's name and the settings of `config-leader-election-controller`. Waits for the API
/// server: a process that ended over an outage would be started again later and later.
async fn candidate(client: &Client, system: &str) -> Candidate {
    let name = ConfigMapNames::from_environment().leader_election;
    let mut pauses = client::watch_backoff();
    let data = loop {
        match config_maps::read(client, system, &name).await {
            Ok(data) => break data,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(name, error, "cannot read the ConfigMap, trying again");
            }
        }
        tokio::time::sleep(pauses.next().unwrap_or_default()).await;
    };
    let settings = LeaderElection::from_config_map(&data).unwrap_or_else(|error| {
        let error = &error as &dyn std::error::Error;
        tracing::error!(name, error, "the ConfigMap cannot be used, leading under the usual settings");
        LeaderElection::default()
    });
    Candidate::new(client.clone(), system, identity(), settings)
}

/// A pod's name is its own for as long as it lives, and a container that is started again in it has outlived the one
/// before: it may take up that one's lease. Elsewhere the name has to be new each time.
fn identity() -> String {
    let host = named_by("HOSTNAME", "unnamed");
    std::env::var("POD_NAME").unwrap_or_else(|_| {
        let started = jiff::Timestamp::now().as_nanosecond();
        format!("{host}_{}_{started}", std::process::id())
    })
}

fn readiness(ready: Arc<AtomicBool>) -> impl http::Probe {
    move || {
        if ready.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err("the configuration has not been read".to_owned())
    }
}

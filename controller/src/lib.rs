//! The controllers: observe, plan, apply. They receive a [`kube::Client`] and cannot tell where it leads.
//!
//! No decision is made here; those are pure functions in `ropewalk-core`.

mod apply;
mod attempts;
pub mod capabilities;
mod credentials;
mod events;
mod images;
pub mod lease;
mod listed;
mod metrics;
mod owners;
mod pipelinerun;
mod pod_events;
mod reconcile;
mod retries;
mod superseded;
mod taskrun;
mod touched;
mod world;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{self, BoxFuture};
use kube::Client;
use ropewalk_api::config::Config;
use ropewalk_core::settings::Settings;
use tokio::sync::watch;

use self::events::Events;
pub use images::{ImageOptions, Local, SecretsError, pull_secrets};
pub use metrics::Metrics;

/// How the controllers run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The ConfigMaps; every observation takes what is newest.
    pub config: watch::Receiver<Arc<Config>>,
    /// Images and identity, and what the nodes can do; every observation takes what is newest.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// Serve only this namespace.
    pub namespace: Option<String>,
    /// Look up in registries what images run; none where images come from elsewhere.
    pub images: Option<ImageOptions>,
    /// Where the counters are registered.
    pub metrics: Metrics,
}

/// Why the controllers could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A metric of ours was registered twice in one registry.
    #[error("cannot register metric \"{name}\"")]
    Metric {
        /// The metric.
        name: &'static str,
        /// What the registry says.
        source: prometheus::Error,
    },
}

/// How long the end waits for events to be recorded: a thousand take less, and whoever stops a process waits.
const LAST_EVENTS: Duration = Duration::from_secs(2);

/// Runs both controllers until `shutdown` resolves and what is being reconciled has ended.
pub async fn run(client: Client, options: Options, shutdown: impl Future<Output = ()> + Send + 'static) {
    let shutdown: future::Shared<BoxFuture<'static, ()>> = shutdown.boxed().shared();
    let client = options.metrics.counting(client);
    let world = world::World::start(&client, options.namespace.as_deref());
    let (taskruns, pipelineruns) = (world.taskruns.store.clone(), world.pipelineruns.store.clone());
    options.metrics.count_runs(taskruns, pipelineruns, options.config.clone());
    let (events, recording) = Events::start(client.clone(), options.metrics.events_lost.clone());
    let recording = tokio::spawn(recording);
    let (look_ups, looking_up, answered) = images::start(&client, options.images.clone());
    let context = Arc::new(reconcile::Context::new(client, options, world.view, events, look_ups));
    let taskruns = taskrun::controller(world.taskruns, answered, &context, shutdown.clone());
    let pipelineruns = pipelinerun::controller(world.pipelineruns, &context, shutdown.clone());
    tokio::select! {
        ((), ()) = future::join(taskruns, pipelineruns) => {}
        () = looking_up => {}
        // References run as long as the controllers do.
        () = world.references => {}
    }
    // Nobody can hand in an event any more once the context is gone.
    drop(context);
    if tokio::time::timeout(LAST_EVENTS, recording).await.is_err() {
        tracing::warn!("not every event was recorded within {LAST_EVENTS:?}");
    }
}

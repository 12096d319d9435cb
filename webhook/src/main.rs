//! The webhook as a process on a cluster: HTTPS with certificates of its own, live configuration, probes and metrics.

mod certificates;
mod serve;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use clap::Parser;
use prometheus::Registry;
use ropewalk_cluster::heartbeat::Heartbeat;
use ropewalk_cluster::{client, config, http, logging, signals};
use ropewalk_webhook::{Metrics, Settings, router};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::sleep;

use certificates::Service;
use certificates::keeper::{self, Presented};

/// Upstream's ports.
const HTTPS: u16 = 8443;
const PROBES: u16 = 8080;
const METRICS: u16 = 9090;

/// The Service by which API servers find the webhook; upstream's name.
const SERVICE: &str = "tekton-pipelines-webhook";

/// How long requests are still taken after a signal to end: what routes them learns of the end at the same time, and
/// needs a moment.
const DRAIN: Duration = Duration::from_secs(5);

/// Ropewalk's admission webhook: defaults and validation of the tekton.dev kinds.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The API server to work for; inside a cluster it is found without this.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { kubeconfig } = Arguments::parse();
    logging::init();
    let shutdown = signals::shutdown().context("cannot catch signals")?;
    let registry = Registry::new();
    let (draining, drains) = watch::channel(false);
    // Empty until there is something that could be ready.
    let presented = Arc::new(OnceLock::<Presented>::new());
    http::serve(METRICS, http::metrics(registry.clone())).await?;
    let heart = Heartbeat::new();
    let alive = heart.clone();
    let ready = readiness(Arc::clone(&presented), drains.clone());
    http::serve(PROBES, http::probes(move || alive.check(), ready)).await?;

    let starting = start(kubeconfig, &registry);
    let work = async {
        let (listener, router, certificate) = tokio::select! {
            started = starting => started?,
            // There is nothing to finish yet.
            () = shutdown.clone() => return Ok(()),
        };
        // Nobody else sets it.
        let _ = presented.set(certificate.clone());
        let stop = async {
            shutdown.await;
            draining.send_replace(true);
            sleep(DRAIN).await;
        };
        let tls = serve::tls(Arc::new(certificate)).context("cannot set up TLS")?;
        serve::serve(listener, tls, router, drains, stop).await;
        Ok(())
    };
    tokio::select! {
        worked = work => worked,
        never = heart.beat() => match never {},
    }
}

/// Everything that needs the API server. Returns when the configuration is known.
async fn start(
    kubeconfig: Option<PathBuf>,
    registry: &Registry,
) -> anyhow::Result<(TcpListener, Router, Presented)> {
    let client = client::connect(kubeconfig.as_deref()).await?;
    let namespace = ropewalk_cluster::namespace();
    let metrics = Metrics::register(registry)?;
    let service = Service { name: SERVICE.to_owned(), namespace: namespace.clone() };
    let presented = keeper::start(&client, service, registry)?;
    let config = config::watch(&client, &namespace, registry).await?;
    let settings = Settings { release: env!("CARGO_PKG_VERSION").to_owned() };
    let router = router(Arc::new(move || Arc::clone(&config.borrow())), settings, metrics);
    let listener = http::listen(HTTPS).await?;
    Ok((listener, router, presented))
}

fn readiness(presented: Arc<OnceLock<Presented>>, draining: watch::Receiver<bool>) -> impl http::Probe {
    move || match presented.get() {
        _ if *draining.borrow() => Err("shutting down".to_owned()),
        Some(presented) => presented.ready(),
        None => Err("the configuration is not known yet".to_owned()),
    }
}

//! Logs on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Without `ROPEWALK_LOG`: ours from `info` on, and of the libraries below only what went wrong. kube-client's own word
/// on a failed request is left out, since whoever sent it logs it with its reason.
const USUAL: &str = "warn,ropewalk=info,kube_client::client::builder=off";

/// Starts logging: text on a terminal and one JSON object a line elsewhere, from the levels `ROPEWALK_LOG` asks for in
/// the manner of `RUST_LOG`. To be called once.
pub fn init() {
    let filter = EnvFilter::try_from_env("ROPEWALK_LOG").unwrap_or_else(|_| EnvFilter::new(USUAL));
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        registry.with(layer).init();
    } else {
        registry.with(layer.json().flatten_event(true)).init();
    }
}

//! What every process of ours on a cluster shares: the way to the API server, live configuration, probes and metrics
//! over plain HTTP, signals, logging. An IO shell: what the ConfigMaps mean is decided in `ropewalk-api`.

pub mod backoff;
pub mod client;
pub mod config;
pub mod config_maps;
pub mod connections;
pub mod follow;
pub mod heartbeat;
pub mod http;
pub mod logging;
mod process;
pub mod signals;
pub mod watch;

/// The namespace this process lives in, as the downward API says in `SYSTEM_NAMESPACE`; `tekton-pipelines` outside a
/// cluster.
pub fn namespace() -> String {
    named_by("SYSTEM_NAMESPACE", "tekton-pipelines")
}

/// What the environment calls an object, and its usual name otherwise. An empty variable is as good as none.
pub fn named_by(variable: &str, usual: &str) -> String {
    std::env::var(variable).ok().filter(|name| !name.is_empty()).unwrap_or_else(|| usual.to_owned())
}

//! The client of the API server. Reads a kubeconfig or what a pod is given; connects with the first request.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::client::ClientBuilder;
use kube::config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::runtime::watcher;
use kube::{Client, Config};
use tower::timeout::TimeoutLayer;

use crate::backoff::Doubling;

/// How long a TCP and TLS handshake may take. An API server that is there answers in milliseconds; one that restarts
/// refuses at once.
const CONNECT: Duration = Duration::from_secs(5);

/// How long an answer may take to begin. A creation waits for webhooks, each of which may take 10 s as we install ours
/// and 30 s at the most.
const ANSWER: Duration = Duration::from_secs(40);

/// How long the server keeps a watch open. Ends are cheap, because a watch goes on where it stopped, and a connection
/// that was cut without a word is noticed no later than shortly after its watch should have ended.
const WATCH_SECONDS: u32 = 60;

/// Silence after which a connection is given up: more than a watch may be silent, so that only a list or an answer
/// that stops half-way is concerned.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 40);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file named by the caller cannot be used.
    #[error("cannot use the kubeconfig \"{path}\"", path = .path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KubeconfigError,
    },
    /// Neither a kubeconfig nor a service account.
    #[error(
        "cannot find an API server: neither a kubeconfig nor a service account can be used; name one with --kubeconfig"
    )]
    Infer(#[source] InferConfigError),
    /// TLS material that cannot be used.
    #[error("cannot set up a client for \"{url}\"")]
    Build {
        /// The API server.
        url: String,
        /// Why.
        source: Box<kube::Error>,
    },
}

/// A client for the API server of this kubeconfig's current context; without one, of `KUBECONFIG`, `~/.kube/config` or
/// the pod's service account, in this order. Installs the TLS provider. It retries nothing and limits no rate: every
/// caller has a backoff of its own, and the API server its priority levels.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, Error> {
    install_tls_provider();
    let mut config = match kubeconfig {
        Some(path) => from_file(path).await?,
        None => Config::infer().await.map_err(Error::Infer)?,
    };
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    config.default_retry = false;
    let url = config.cluster_url.to_string();
    let builder =
        ClientBuilder::try_from(config).map_err(|source| Error::Build { url, source: Box::new(source) })?;
    Ok(builder.with_layer(&TimeoutLayer::new(ANSWER)).build())
}

/// How every watch is set up: a list, then a watch. Kubernetes before 1.27 ignores the request for a streaming list and
/// would never complete it.
pub fn watch_config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// Pauses of a watch that fails. Short, because the runs of a whole cluster wait for it, and harmless, because a process
/// has about ten watches.
pub fn watch_backoff() -> Doubling {
    Doubling::new(Duration::from_millis(200), Duration::from_secs(5))
}

/// Makes ring this process's TLS provider. To be called before any other use of TLS than [`connect`].
pub fn install_tls_provider() {
    // An error says that there is one already, and ring is the only one in the tree.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

async fn from_file(path: &Path) -> Result<Config, Error> {
    let error = |source| Error::Kubeconfig { path: path.to_owned(), source };
    let kubeconfig = Kubeconfig::read_from(path).map_err(error)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_unusable_kubeconfig_is_named() {
        let error = connect(Some(Path::new("/nowhere/ config"))).await.err().expect("there is none");
        assert_eq!(error.to_string(), "cannot use the kubeconfig \"/nowhere/ config\"");
    }
}

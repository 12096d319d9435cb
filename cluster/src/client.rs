//! The client of the API server. Reads a kubeconfig or what a pod is given; connects with the first request.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt};
use kube::config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::runtime::watcher;
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder};

use crate::backoff::Doubling;

/// How long a TCP and TLS handshake may take. An API server that is there answers in milliseconds; one that restarts
/// refuses at once.
const CONNECT: Duration = Duration::from_secs(5);

/// How long an answer may take to begin. A creation waits for webhooks, each of which may take 10 s as we install ours
/// and 30 s at the most.
const ANSWER: Duration = Duration::from_secs(40);

/// How long the server keeps a watch open. Ends are cheap, because a watch goes on where it stopped, and whoever holds
/// the connection open without a server behind it is noticed no later than shortly after its watch should have ended.
const WATCH_SECONDS: u32 = 60;

/// Silence after which a connection is given up: more than a watch may be silent, so that only a list or an answer
/// that stops half-way is concerned.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 40);

/// Silence after which the other end's kernel is asked whether it is there, which costs a packet or two.
const PROBE: Duration = Duration::from_secs(5);

/// Between two such questions.
const PROBE_AGAIN: Duration = Duration::from_secs(3);

/// How many go without an answer before a connection counts as cut, and how long sent data may do so: 14 s, less than a
/// lease. Watches are silent as a rule, so nobody else would notice for a minute.
const PROBES: u32 = 3;
const UNANSWERED: Duration = Duration::from_secs(14);

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
    let config = match kubeconfig {
        Some(path) => from_file(path).await?,
        None => Config::infer().await.map_err(Error::Infer)?,
    };
    build(&config)
        .map_err(|source| Error::Build { url: config.cluster_url.to_string(), source: Box::new(source) })
}

/// As kube builds it, but for connections that notice when the other end is gone, which it cannot be told.
fn build(config: &Config) -> kube::Result<Client> {
    if let Some(proxy) = &config.proxy_url {
        return Err(kube::Error::ProxyProtocolUnsupported { proxy_url: Box::new(proxy.clone()) });
    }
    let mut tcp = HttpConnector::new();
    // TLS is on top of it.
    tcp.enforce_http(false);
    tcp.set_keepalive(Some(PROBE));
    tcp.set_keepalive_interval(Some(PROBE_AGAIN));
    tcp.set_keepalive_retries(Some(PROBES));
    tcp.set_tcp_user_timeout(Some(UNANSWERED));
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(tcp)?);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_read_timeout(Some(SILENCE));
    connector.set_reset_reader_on_write(true);
    let service = ServiceBuilder::new()
        .timeout(ANSWER)
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(HttpClient::builder(TokioExecutor::new()).build::<_, Body>(connector));
    Ok(Client::new(service, config.default_namespace.clone()))
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

    #[tokio::test]
    async fn nothing_goes_past_a_proxy() {
        let mut config = Config::new("http://127.0.0.1:1".parse().expect("a URL"));
        config.proxy_url = Some("http://proxy.invalid:3128".parse().expect("a URL"));
        let error = build(&config).err().expect("proxies are not known");
        assert!(error.to_string().contains("proxy.invalid"), "{error}");
    }

    /// The kernel's clock of each connection to a local port of this machine: which timer runs, and the hundredths of a
    /// second it has left.
    fn timers(port: u16) -> Vec<(u8, u64)> {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("a table");
        let to = format!(":{port:04X}");
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.filter(|row| row.len() > 5 && row[2].ends_with(&to))
            .filter_map(|row| {
                let (timer, left) = row[5].split_once(':')?;
                Some((timer.parse().ok()?, u64::from_str_radix(left, 16).ok()?))
            })
            .collect()
    }

    #[tokio::test]
    async fn a_silent_connection_is_probed() {
        const KEEPALIVE: u8 = 2;
        install_tls_provider();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let config = Config::new(format!("http://{address}").parse().expect("a URL"));
        let client = build(&config).expect("a client");
        let asking = tokio::spawn(async move { client.apiserver_version().await });
        let (mut stream, _) = listener.accept().await.expect("a connection");
        // Whoever has sent nothing, or waits for a receipt, has other timers.
        tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 4096]).await.expect("a request");
        let timers = timers(address.port());
        let left = PROBE.as_secs() * 100;
        assert!(matches!(timers[..], [(KEEPALIVE, soon)] if soon <= left), "{timers:?}");
        asking.abort();
    }
}

//! What a webhook needs of a cluster: an API server with the installation's configurations, and the process itself. The
//! server is the one-process engine's, over HTTP on loopback.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::StreamExt;
use http::Request;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::runtime::{WatchStreamExt, watcher::watch_object};
use ropewalk_apiserver::{NoAdmission, Resource, ResourceTable, State};
use ropewalk_bench::PATIENCE;
use ropewalk_bench::processes::{self, Usage};
use ropewalk_standalone::server::{NoLogs, Server};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::ITS_CORE;
use crate::asking::{Asking, Trust};

const NAMESPACE: &str = "tekton-pipelines";
const SECRET: &str = "webhook-certs";
const DEFAULTING: &str = "webhook.pipeline.tekton.dev";

/// As installed.
const CONFIGURATIONS: &str = include_str!("../../../../config/admission/webhook-configurations.yaml");

/// The webhook's ports are the installation's.
const HTTPS: u16 = 8443;
const PROBES: u16 = 8080;

/// Between two looks at what nothing tells of.
const LOOK: Duration = Duration::from_millis(50);

/// The least time the webhook leaves between two renewals.
const BETWEEN: Duration = Duration::from_secs(11);

/// The data of a Secret.
pub(crate) type Data = BTreeMap<String, Vec<u8>>;

/// The API server.
pub(crate) struct Cluster {
    client: Client,
    secrets: Api<Secret>,
    directory: TempDir,
}

/// The webhook's process.
pub(crate) struct Webhook {
    process: Child,
}

/// The program, where nothing else of ours runs.
pub(crate) fn on_its_core(program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &ITS_CORE.to_string()]).arg(program);
    command
}

impl Cluster {
    /// With everything installed but the webhook.
    pub(crate) async fn start() -> Result<Self> {
        let mut table = ResourceTable::built_in();
        for (kind, plural) in [
            ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations"),
            ("ValidatingWebhookConfiguration", "validatingwebhookconfigurations"),
        ] {
            let mut kind = Resource::new("admissionregistration.k8s.io", "v1", kind, plural);
            kind.namespaced = false;
            table.add(kind)?;
        }
        let server =
            Server::new(State::new(table, 1, Timestamp::now()), Arc::new(NoAdmission), Arc::new(NoLogs));
        let client = server.client();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let directory = tempfile::tempdir()?;
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "bench",
            "contexts": [{ "name": "bench", "context": { "cluster": "bench", "user": "bench" } }],
            "clusters": [{ "name": "bench", "cluster": { "server": format!("http://{}", listener.local_addr()?) } }],
            "users": [{ "name": "bench", "user": {} }],
        });
        std::fs::write(directory.path().join("kubeconfig"), kubeconfig.to_string())?;
        tokio::spawn(server.serve(listener, std::future::pending()));

        let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } }))?;
        let params = PostParams::default();
        Api::all(client.clone()).create(&params, &namespace).await?;
        for configuration in serde_saphyr::from_multiple::<Value>(CONFIGURATIONS)? {
            if configuration["kind"] == "MutatingWebhookConfiguration" {
                let api = Api::<MutatingWebhookConfiguration>::all(client.clone());
                api.create(&params, &serde_json::from_value(configuration)?).await?;
            } else {
                let api = Api::<ValidatingWebhookConfiguration>::all(client.clone());
                api.create(&params, &serde_json::from_value(configuration)?).await?;
            }
        }
        Ok(Self { secrets: Api::namespaced(client.clone(), NAMESPACE), client, directory })
    }

    /// Starts the webhook, and waits until it is ready.
    pub(crate) async fn webhook(&self, program: &Path) -> Result<Webhook> {
        let process = on_its_core(program)
            .arg("--kubeconfig")
            .arg(self.directory.path().join("kubeconfig"))
            .env("ROPEWALK_LOG", "error")
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start \"{}\"", program.display()))?;
        let mut webhook = Webhook { process };
        let ready = async {
            while !is_ready().await {
                if let Some(ended) = webhook.process.try_wait()? {
                    ensure!(ended.success(), "the webhook ended with {ended}");
                }
                sleep(LOOK).await;
            }
            anyhow::Ok(())
        };
        timeout(PATIENCE, ready).await.context("the webhook is not ready")??;
        Ok(webhook)
    }

    /// Whom API servers trust, as long as this lives: what they are told of in the configuration.
    pub(crate) async fn trusted_by_api_servers(&self) -> Result<Trust> {
        let api = Api::<MutatingWebhookConfiguration>::all(self.client.clone());
        let (tell, mut told) = watch::channel(Vec::new());
        tokio::spawn(async move {
            let mut states = std::pin::pin!(watch_object(api, DEFAULTING).default_backoff());
            while let Some(state) = states.next().await {
                // An error means a watch that is taken up again.
                let Ok(Some(configuration)) = state else { continue };
                let bundle =
                    configuration.webhooks.and_then(|all| all.into_iter().next()?.client_config.ca_bundle);
                if tell.send(bundle.map(|bundle| bundle.0).unwrap_or_default()).is_err() {
                    return;
                }
            }
        });
        timeout(PATIENCE, told.wait_for(|bundle| !bundle.is_empty()))
            .await
            .context("nobody is trusted")??;
        Ok(told)
    }

    /// The certificates.
    pub(crate) async fn secret(&self) -> Result<Data> {
        let data = self.secrets.get(SECRET).await?.data.unwrap_or_default();
        Ok(data.into_iter().map(|(key, value)| (key, value.0)).collect())
    }

    /// Takes the certificate away, so that the webhook signs another one with the same authority, and waits until it is
    /// presented.
    pub(crate) async fn renew_certificate(&self, asking: &Asking) -> Result<()> {
        let nothing = Patch::Merge(json!({ "data": { "server-cert.pem": null } }));
        self.secrets.patch(SECRET, &PatchParams::default(), &nothing).await?;
        self.presented(asking).await
    }

    /// Takes everything away, so that the webhook makes another authority, and waits until a certificate of that one is
    /// presented: API servers trust it before.
    pub(crate) async fn renew_authority(&self, asking: &Asking) -> Result<()> {
        sleep_until(Instant::now() + BETWEEN).await;
        self.secrets.delete(SECRET, &DeleteParams::default()).await?;
        self.presented(asking).await
    }

    /// Waits until there is a certificate, and until clients have seen it.
    async fn presented(&self, asking: &Asking) -> Result<()> {
        let there = |secret: Option<&Secret>| {
            secret
                .and_then(|secret| secret.data.as_ref())
                .is_some_and(|data| data.contains_key("server-cert.pem"))
        };
        timeout(PATIENCE, await_condition(self.secrets.clone(), SECRET, there))
            .await
            .context("no certificate was made")??;
        let certificate = self.secret().await?.remove("server-cert.pem").context("no certificate")?;
        let seen = async {
            while !asking.has_seen(&certificate) {
                sleep(LOOK).await;
            }
        };
        timeout(PATIENCE, seen).await.context("the certificate is not presented")
    }
}

/// What its probe says; it is not ready before it can say anything.
async fn is_ready() -> bool {
    let asked = async {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, PROBES)).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::get("/readyz").header("host", "probe").body(Empty::<Bytes>::new())?;
        anyhow::Ok(sender.send_request(request).await?.status())
    };
    asked.await.is_ok_and(|status| status.is_success())
}

impl Webhook {
    pub(crate) fn address() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, HTTPS).into()
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        processes::of(self.process.id().context("the webhook has ended")?.try_into()?)
    }

    /// Ends it as a cluster does.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let id = self.process.id().context("the webhook has ended")?;
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(id.try_into()?),
            nix::sys::signal::Signal::SIGTERM,
        )?;
        let status = timeout(PATIENCE, self.process.wait()).await.context("the webhook does not end")??;
        ensure!(status.success(), "the webhook ended with {status}");
        Ok(())
    }
}

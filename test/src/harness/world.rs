//! The worlds tests run in.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace as Object, ServiceAccount};
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use ropewalk_standalone::Standalone;
use ropewalk_standalone::node::RootfsMode;
use serde_json::json;
use tempfile::TempDir;

use super::audit::Audit;
use super::features::Features;
use super::fitting::{self, Fitting};
use super::images::{Images, hack};
use super::installation::Installation;
use super::level::until;
use super::namespace::Namespace;
use super::nodes::Labels;
use super::registry::Published;

/// Where the installation is.
const SYSTEM_NAMESPACE: &str = "tekton-pipelines";

/// How long the installation may take to be there, and to notice a changed ConfigMap.
const SOON: Duration = Duration::from_mins(1);

/// Namespaces so far, of all worlds that this process has had: those of one before may still be on their way out.
static NAMESPACES: AtomicUsize = AtomicUsize::new(0);

/// Which world.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Kind {
    /// All of it in this process; images are the machine's root file system. Needs root.
    Standalone,
    /// The cluster that `KUBECONFIG` leads to, with our installation in it.
    Cluster,
}

impl Kind {
    /// What is missing for this world here, if anything.
    pub fn lacks(self) -> Option<&'static str> {
        match self {
            Self::Standalone if !nix::unistd::geteuid().is_root() => Some("root"),
            Self::Cluster if std::env::var_os("KUBECONFIG").is_none() => {
                Some("KUBECONFIG, as in: KUBECONFIG=$(hack/cluster kubeconfig)")
            }
            Self::Standalone | Self::Cluster => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Standalone => "standalone",
            Self::Cluster => "cluster",
        })
    }
}

/// A world, running; [`stop`](Self::stop) it, or what it made stays behind.
pub struct World {
    client: Client,
    parts: Parts,
    /// What its nodes have been labelled with.
    labels: Labels,
    /// Where its images are pulled from; elsewhere all of them are one that is on the node.
    published: Option<(Published, TempDir)>,
}

enum Parts {
    Standalone(Box<Standalone>),
    Cluster { fitting: Fitting, images: Images },
}

impl World {
    /// Starts a world with these feature flags. One cluster has one set of them: tests that need others must not run at
    /// the same time, whichever process they are in.
    pub async fn start(kind: Kind, features: &Features) -> Result<Self> {
        let config = ropewalk_standalone::Config {
            rootfs: RootfsMode::Host,
            engine: features.config()?,
            ..ropewalk_standalone::Config::default()
        };
        Self::begin(kind, features, config).await
    }

    /// Starts a world whose images come from a registry, each telling what it runs: see [`Published`].
    pub async fn start_with_registry(kind: Kind, features: &Features) -> Result<Self> {
        let directory = match kind {
            // Not below /tmp, which containers find empty.
            Kind::Standalone => tempfile::tempdir_in("/var/lib"),
            Kind::Cluster => tempfile::tempdir(),
        };
        let directory = directory.context("cannot make a directory")?;
        let config = ropewalk_standalone::Config {
            data_root: directory.path().join("data"),
            engine: features.config()?,
            ..ropewalk_standalone::Config::default()
        };
        let mut world = Self::begin(kind, features, config).await?;
        let address = match kind {
            Kind::Standalone => Ipv4Addr::LOCALHOST.into(),
            // Where the pods and the node of a cluster on this machine reach it.
            Kind::Cluster => Installation::of(&world).api_server().await?,
        };
        let published = Published::start(address, directory.path()).await?;
        if kind == Kind::Cluster {
            hack("cluster", &["registry", published.host()]).await?;
        }
        world.published = Some((published, directory));
        Ok(world)
    }

    async fn begin(kind: Kind, features: &Features, config: ropewalk_standalone::Config) -> Result<Self> {
        let labels = Labels::default();
        let (client, parts) = match kind {
            Kind::Standalone => {
                let standalone = Standalone::start(config).context("cannot start the world")?;
                (standalone.client(), Parts::Standalone(Box::new(standalone)))
            }
            Kind::Cluster => {
                let client = ropewalk_cluster::client::connect(None).await?;
                installed(&client).await?;
                set_features(&client, features).await?;
                let fitting = Fitting::start(&client, &labels).await?;
                (client, Parts::Cluster { fitting, images: Images::default() })
            }
        };
        Ok(Self { client, parts, labels, published: None })
    }

    /// A world in this process whose containers have the files of their images, which are kept below `data_root`.
    pub fn with_images(data_root: &Path) -> Result<Self> {
        let config = ropewalk_standalone::Config {
            data_root: data_root.to_owned(),
            ..ropewalk_standalone::Config::default()
        };
        let standalone = Standalone::start(config).context("cannot start a world with images")?;
        let client = standalone.client();
        let parts = Parts::Standalone(Box::new(standalone));
        Ok(Self { client, parts, labels: Labels::default(), published: None })
    }

    /// Ends what was started, and leaves the cluster with its default feature flags.
    pub async fn stop(self) -> Result<()> {
        match self.parts {
            Parts::Standalone(standalone) => standalone.stop().await.context("cannot stop the world"),
            Parts::Cluster { fitting, .. } => {
                fitting.stop(&self.client).await?;
                self.labels.take_back(&self.client).await?;
                set_features(&self.client, &Features::default()).await
            }
        }
    }

    /// Which one it is.
    pub fn kind(&self) -> Kind {
        match self.parts {
            Parts::Standalone(_) => Kind::Standalone,
            Parts::Cluster { .. } => Kind::Cluster,
        }
    }

    /// A client of its API server; an administrator's.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A fresh namespace whose name begins like this, ready for pods.
    pub async fn namespace(&self, name: &str) -> Result<Namespace<'_>> {
        let process = std::process::id();
        let name = format!("{name}-{process}-{}", NAMESPACES.fetch_add(1, Ordering::Relaxed));
        let images = match &self.parts {
            Parts::Standalone(_) => None,
            Parts::Cluster { images, .. } => Some(images),
        };
        let published = self.published.as_ref().map(|(published, _)| published);
        let namespace = Namespace { client: self.client(), images, published, labels: &self.labels, name };
        let object: Object = serde_json::from_value(json!({
            "metadata": { "name": namespace.name, "labels": { fitting::LABEL: process.to_string() } },
        }))?;
        Api::all(self.client()).create(&PostParams::default(), &object).await?;
        if self.kind() == Kind::Cluster {
            // No pod is admitted before its service account is there.
            let accounts = Api::<ServiceAccount>::namespaced(self.client(), &namespace.name);
            until(accounts, "default", SOON, |_| true).await?;
        }
        Ok(namespace)
    }

    /// The API server's log of requests; None where it cannot be read.
    pub fn audit(&self) -> Option<Audit> {
        match self.parts {
            Parts::Standalone(_) => None,
            Parts::Cluster { .. } => Audit::find(),
        }
    }
}

/// Waits until our installation answers.
async fn installed(client: &Client) -> Result<()> {
    let deployments = Api::<Deployment>::namespaced(client.clone(), SYSTEM_NAMESPACE);
    for name in ["tekton-pipelines-controller", "tekton-pipelines-webhook"] {
        let available = |deployment: &Deployment| {
            let conditions = deployment.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.is_some_and(|all| {
                all.iter().any(|condition| {
                    condition.type_.as_deref() == Some("Available")
                        && condition.status.as_deref() == Some("True")
                })
            })
        };
        if deployments.get_opt(name).await.context("cannot reach the cluster")?.is_none() {
            bail!(
                "Ropewalk is not installed in the cluster: there is no deployment \"{name}\"; install it with hack/install"
            );
        }
        until(deployments.clone(), name, SOON, available).await?;
    }
    Ok(())
}

/// Writes the ConfigMap, and waits until the webhook goes by it; the controller hears of it at the same time.
async fn set_features(client: &Client, features: &Features) -> Result<()> {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), SYSTEM_NAMESPACE);
    // Null takes a key away, and absent ones have their defaults. The rest is part of the installation.
    let data: serde_json::Map<_, _> = Features::alpha()
        .0
        .into_keys()
        .map(|key| {
            let value = features.0.get(&key).cloned().into();
            (key, value)
        })
        .collect();
    maps.patch("feature-flags", &PatchParams::default(), &Patch::Merge(json!({ "data": data }))).await?;
    let wanted = features.config()?.features.enable_param_enum;
    let noticed = async {
        // Nothing tells when a process has read a ConfigMap.
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        loop {
            ticks.tick().await;
            if takes_enums(client).await == wanted {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, noticed).await.context("the webhook has not noticed the changed feature flags")
}

/// A Task that only one of the flags makes valid would be admitted.
async fn takes_enums(client: &Client) -> bool {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(ropewalk_api::GROUP, "v1", "Task"));
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), "default", &resource);
    let task = serde_json::from_value(json!({
        "apiVersion": "tekton.dev/v1",
        "kind": "Task",
        "metadata": { "name": "probe" },
        "spec": { "params": [{ "name": "p", "enum": ["a"] }], "steps": [{ "image": "none", "script": "true" }] },
    }));
    let Ok(task) = task else { return false };
    api.create(&PostParams { dry_run: true, ..PostParams::default() }, &task).await.is_ok()
}

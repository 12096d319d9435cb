//! Where is measured: an API server, our controllers and something that runs pods, as they are. Unlike the harness of
//! the tests, nothing is changed in a cluster: no feature flag, and no webhook that would count.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, DeleteParams, PostParams};
use kube::runtime::wait::{await_condition, conditions::is_deleted};
use kube::{Client, ResourceExt};
use ropewalk_standalone::node::RootfsMode;
use ropewalk_standalone::{Config, Standalone};
use ropewalk_test::harness::Kind;
use ropewalk_test::harness::audit::Audit;
use ropewalk_test::harness::images::{IMAGE, Images};
use serde_json::json;

use crate::PATIENCE;

/// A world, running; [`stop`](Self::stop) it, or what it made stays behind.
pub struct World {
    client: Client,
    /// None on a cluster.
    standalone: Option<Box<Standalone>>,
}

impl World {
    /// Starts one process's world, or connects to the cluster of `KUBECONFIG`.
    pub async fn start(kind: Kind) -> Result<Self> {
        Ok(match kind {
            Kind::Standalone => {
                let config = Config { rootfs: RootfsMode::Host, ..Config::default() };
                let standalone = Standalone::start(config).context("cannot start the world")?;
                Self { client: standalone.client(), standalone: Some(Box::new(standalone)) }
            }
            Kind::Cluster => {
                Self { client: ropewalk_cluster::client::connect(None).await?, standalone: None }
            }
        })
    }

    /// Ends what was started.
    pub async fn stop(self) -> Result<()> {
        match self.standalone {
            Some(standalone) => standalone.stop().await.context("cannot stop the world"),
            None => Ok(()),
        }
    }

    /// A client of its API server; an administrator's.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// All of it is this process.
    pub fn is_standalone(&self) -> bool {
        self.standalone.is_some()
    }

    /// An image with a shell that is there already, so that no pull is measured.
    pub async fn image(&self) -> Result<&'static str> {
        if self.is_standalone() {
            return Ok("host");
        }
        Images::default().provide([json!({ "image": IMAGE })].iter()).await?;
        Ok(IMAGE)
    }

    /// The API server's log of requests; None where there is none to read.
    pub fn audit(&self) -> Option<Audit> {
        if self.is_standalone() { None } else { Audit::find() }
    }

    /// A fresh namespace, ready for pods; its name.
    pub async fn namespace(&self, name: &str) -> Result<String> {
        let name = format!("{name}-{}", std::process::id());
        let object: Namespace = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
        Api::all(self.client.clone()).create(&PostParams::default(), &object).await?;
        if !self.is_standalone() {
            // No pod is admitted before its service account is there.
            let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), &name);
            let there =
                await_condition(accounts, "default", |account: Option<&ServiceAccount>| account.is_some());
            tokio::time::timeout(PATIENCE, there).await.context("the namespace has no service account")??;
        }
        Ok(name)
    }

    /// Removes a namespace with all that is in it.
    pub async fn remove(&self, namespace: &str) -> Result<()> {
        if self.is_standalone() {
            // It goes with the world.
            return Ok(());
        }
        let api = Api::<Namespace>::all(self.client.clone());
        let uid = api.get(namespace).await?.uid().unwrap_or_default();
        api.delete(namespace, &DeleteParams::default()).await?;
        tokio::time::timeout(PATIENCE, await_condition(api, namespace, is_deleted(&uid)))
            .await
            .with_context(|| format!("namespace \"{namespace}\" stays"))??;
        Ok(())
    }
}

//! Keeps the certificates: carries out plans, and hands what is to be presented to the TLS server. An IO shell.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::utils::Backoff;
use kube::{Api, Client, ResourceExt};
use prometheus::{IntGauge, Registry};
use ropewalk_cluster::backoff::Doubling;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::Service;
use super::configuration::{Configuration, Configures, Kind};
use super::issue;
use super::observe::{CONFIGURATIONS, SECRET, Seen, observe};
use super::plan::{self, Issue, Memory, Snapshot, View, Why};
use super::stored::Leaf;

/// Who writes, in `managedFields`.
const MANAGER: &str = "ropewalk-webhook";

/// Pauses after a failed write.
const RETRIES: Doubling = Doubling::new(Duration::from_millis(500), Duration::from_mins(1));

/// What the TLS server and the readiness probe look at.
#[derive(Debug)]
struct State {
    certified: Option<Arc<CertifiedKey>>,
    waiting: Option<String>,
}

/// What is presented to clients at the moment, and whether that is good enough.
#[derive(Clone, Debug)]
pub(crate) struct Presented(watch::Receiver<State>);

impl Presented {
    /// Why no API server would get an answer now, if so.
    pub(crate) fn ready(&self) -> Result<(), String> {
        self.0.borrow().waiting.clone().map_or(Ok(()), Err)
    }
}

impl ResolvesServerCert for Presented {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.borrow().certified.clone()
    }
}

/// Starts keeping certificates for `service`. Has to be called within a tokio runtime; ends with it.
pub(crate) fn start(client: &Client, service: Service, registry: &Registry) -> prometheus::Result<Presented> {
    let expiry = IntGauge::new(
        "ropewalk_webhook_certificate_expiry_timestamp_seconds",
        "When the presented certificate expires",
    )?;
    registry.register(Box::new(expiry.clone()))?;
    let waiting = Some("there is no certificate yet".to_owned());
    let (state, presented) = watch::channel(State { certified: None, waiting });
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &service.namespace);
    let mutating: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let validating: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let seen = observe(secrets.clone(), &mutating, &validating, &definitions, &service);
    let keeper = Keeper {
        secret: View::Unknown,
        configurations: Default::default(),
        secrets,
        mutating,
        validating,
        definitions,
        service,
        state,
        expiry,
        advised: String::new(),
    };
    tokio::spawn(keeper.run(seen));
    Ok(Presented(presented))
}

struct Keeper {
    secret: View<Secret>,
    configurations: [View<Configuration>; CONFIGURATIONS],
    secrets: Api<Secret>,
    mutating: Api<MutatingWebhookConfiguration>,
    validating: Api<ValidatingWebhookConfiguration>,
    definitions: Api<CustomResourceDefinition>,
    service: Service,
    state: watch::Sender<State>,
    expiry: IntGauge,
    /// What an administrator has been asked to put into the configurations.
    advised: String,
}

impl Keeper {
    async fn run(mut self, mut seen: mpsc::Receiver<Seen>) {
        let mut memory = Memory::default();
        let mut retries = RETRIES;
        loop {
            #[expect(clippy::disallowed_methods, reason = "this is the shell around the plan")]
            let now = Timestamp::now();
            let (secret, configurations, service) = (&self.secret, &self.configurations, &self.service);
            let plan = plan::plan(Snapshot { secret, configurations, memory, service, now });
            memory = plan.memory;
            self.present(memory.served.as_ref(), plan.waiting);
            let mut wait = Duration::try_from(plan.wake.duration_since(now)).unwrap_or_default();
            if let Some((issue, why)) = plan.issue {
                if self.write_secret(&issue, &why, now).await {
                    continue;
                }
            } else if let Some(ca_bundle) = plan.ca_bundle {
                match self.write_configurations(&ca_bundle).await {
                    Ok(false) => retries.reset(),
                    // Maybe this process is ready now.
                    Ok(true) => continue,
                    Err(NotWritten) => wait = retries.next().map_or(wait, |pause| pause.min(wait)),
                }
            }
            match tokio::time::timeout(wait, seen.recv()).await {
                Ok(Some(Seen::Secret(view))) => self.secret = *view,
                Ok(Some(Seen::Configuration(index, view))) => self.configurations[index] = view,
                // The senders live as long as this.
                Ok(None) => return,
                Err(_) => {}
            }
        }
    }

    fn present(&self, leaf: Option<&Leaf>, waiting: Option<String>) {
        if let Some(leaf) = leaf {
            self.expiry.set(leaf.certificate.not_after.as_second());
        }
        let certified = leaf.map(|leaf| Arc::clone(&leaf.certified));
        self.state.send_modify(|state| {
            if state.waiting != waiting {
                if let Some(reason) = &waiting {
                    tracing::warn!(reason, "not ready");
                } else {
                    tracing::info!("ready");
                }
            }
            *state = State { certified, waiting };
        });
    }

    /// Whether the Secret is different now, by this process or by another one that was faster.
    async fn write_secret(&mut self, issue: &Issue, why: &Why, now: Timestamp) -> bool {
        let data = match issue::issue(issue, &self.service, now) {
            Ok(data) => data,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "no new certificates");
                return false;
            }
        };
        let written = if let View::Present(secret) = &self.secret {
            let version = json!({"resourceVersion": secret.resource_version()});
            let patch = Patch::Merge(json!({"metadata": version, "data": data}));
            self.secrets.patch(SECRET, &patch_params(), &patch).await
        } else {
            let labels = [("app.kubernetes.io/part-of".to_owned(), "tekton-pipelines".to_owned())];
            let metadata = ObjectMeta {
                name: Some(SECRET.to_owned()),
                labels: Some(labels.into()),
                ..ObjectMeta::default()
            };
            let secret = Secret { metadata, data: Some(data), ..Secret::default() };
            let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
            self.secrets.create(&params, &secret).await
        };
        match written {
            Ok(secret) => {
                tracing::info!(name = SECRET, %why, "wrote certificates");
                self.secret = View::Present(secret);
                true
            }
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                tracing::info!(name = SECRET, "another replica wrote certificates first");
                match self.secrets.get_opt(SECRET).await {
                    Ok(secret) => self.secret = secret.map_or(View::Absent, View::Present),
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(name = SECRET, error, "cannot read the certificates");
                    }
                }
                true
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(name = SECRET, %why, error, "cannot write the certificates");
                false
            }
        }
    }

    /// Whether the configurations are different now, and as they should be.
    async fn write_configurations(&mut self, ca_bundle: &str) -> Result<bool, NotWritten> {
        if self.configurations.contains(&View::Forbidden) {
            self.advise(ca_bundle);
        }
        let mut outcome = Ok(false);
        for index in 0..CONFIGURATIONS {
            let View::Present(configuration) = &self.configurations[index] else { continue };
            let Some(patch) = configuration.patch(ca_bundle) else { continue };
            let name = configuration.name.clone();
            match self.patch(configuration, patch).await {
                Ok(patched) if patched.patch(ca_bundle).is_none() => {
                    tracing::info!(name, "API servers are told whom to trust");
                    self.configurations[index] = View::Present(patched);
                    outcome = outcome.map(|_| true);
                    continue;
                }
                Ok(_) => tracing::warn!(name, "something keeps a webhook configuration from being written"),
                Err(kube::Error::Api(status)) if status.is_conflict() => {
                    tracing::info!(name, "a webhook configuration changed meanwhile");
                }
                Err(kube::Error::Api(status)) if status.is_forbidden() => self.advise(ca_bundle),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(name, error, "cannot write a webhook configuration");
                }
            }
            outcome = Err(NotWritten);
        }
        outcome
    }

    async fn patch(
        &self,
        configuration: &Configuration,
        patch: json_patch::Patch,
    ) -> kube::Result<Configuration> {
        let patch: Patch<()> = Patch::Json(patch);
        let (name, service, params) = (&configuration.name, &self.service, patch_params());
        match configuration.kind {
            Kind::Mutating => Ok(self.mutating.patch(name, &params, &patch).await?.read(service)),
            Kind::Validating => Ok(self.validating.patch(name, &params, &patch).await?.read(service)),
            Kind::Definition => Ok(self.definitions.patch(name, &params, &patch).await?.read(service)),
        }
    }

    /// Asks an administrator to do it, once for each text.
    fn advise(&mut self, ca_bundle: &str) {
        if self.advised == ca_bundle {
            return;
        }
        ca_bundle.clone_into(&mut self.advised);
        tracing::warn!(
            ca_bundle,
            "this service account may not read and write all webhook configurations and definitions: unless it is there \
             already, an administrator has to put this text, in base64, into clientConfig.caBundle of each of their \
             webhooks"
        );
    }
}

/// Some webhook configurations are not as they should be; logged where it happened.
struct NotWritten;

fn patch_params() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

#[cfg(test)]
mod tests;

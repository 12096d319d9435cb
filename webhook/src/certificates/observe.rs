//! The Secret, the webhook configurations and the definitions as the API server has them, each watched by its name. An IO shell.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Resource};
use ropewalk_cluster::follow::follow;
use ropewalk_webhook::{CONFIG_WEBHOOK, DEFAULTING_WEBHOOK, VALIDATING_WEBHOOK};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::Service;
use super::configuration::{Configuration, Configures};
use super::plan::View;

/// The Secret that all replicas share; upstream's name.
pub(crate) const SECRET: &str = "webhook-certs";

/// The definitions whose versions are converted here.
pub(crate) const DEFINITIONS: [&str; 5] = [
    "tasks.tekton.dev",
    "taskruns.tekton.dev",
    "pipelines.tekton.dev",
    "pipelineruns.tekton.dev",
    "resolutionrequests.resolution.tekton.dev",
];

/// How many objects lead here: webhook configurations and definitions.
pub(crate) const CONFIGURATIONS: usize = 3 + DEFINITIONS.len();

/// How long to wait before asking again for what this service account may not read: rights are given by hand.
const FORBIDDEN: Duration = Duration::from_mins(1);

/// News from the API server.
pub(crate) enum Seen {
    /// Of the Secret.
    Secret(Box<View<Secret>>),
    /// Of one of the configurations, which are numbered.
    Configuration(usize, View<Configuration>),
}

/// Everything as it is now, and every change. Has to be called within a tokio runtime.
pub(crate) fn observe(
    secrets: Api<Secret>,
    mutating: &Api<MutatingWebhookConfiguration>,
    validating: &Api<ValidatingWebhookConfiguration>,
    definitions: &Api<CustomResourceDefinition>,
    service: &Service,
) -> mpsc::Receiver<Seen> {
    // One place per sender: more could only be older states of the same.
    let (news, seen) = mpsc::channel(1 + CONFIGURATIONS);
    tokio::spawn(tell(secrets, SECRET, news.clone(), |view| Seen::Secret(Box::new(view))));
    tokio::spawn(tell(mutating.clone(), DEFAULTING_WEBHOOK, news.clone(), numbered(0, service)));
    tokio::spawn(tell(validating.clone(), VALIDATING_WEBHOOK, news.clone(), numbered(1, service)));
    tokio::spawn(tell(validating.clone(), CONFIG_WEBHOOK, news.clone(), numbered(2, service)));
    for (index, name) in DEFINITIONS.into_iter().enumerate() {
        tokio::spawn(tell(definitions.clone(), name, news.clone(), numbered(3 + index, service)));
    }
    seen
}

fn numbered<K: Configures>(index: usize, service: &Service) -> impl Fn(View<K>) -> Seen + Send + use<K> {
    let service = service.clone();
    move |view| Seen::Configuration(index, view.map(|object| object.read(&service)))
}

async fn tell<K>(
    api: Api<K>,
    name: &'static str,
    news: mpsc::Sender<Seen>,
    seen: impl Fn(View<K>) -> Seen + Send,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    // A watch does not tell whether it is refused for good; a single read does.
    while let Err(kube::Error::Api(status)) = api.get_opt(name).await
        && status.is_forbidden()
    {
        let kind = K::kind(&());
        tracing::warn!(%kind, name, hint = status.message, "this service account may not read an object");
        if news.send(seen(View::Forbidden)).await.is_err() {
            return;
        }
        sleep(FORBIDDEN).await;
    }
    let mut objects = pin!(follow(api, name));
    while let Some(object) = objects.next().await {
        if news.send(seen(object.map_or(View::Absent, View::Present))).await.is_err() {
            return;
        }
    }
}

//! The webhook configurations as far as trust goes: which of their entries lead here, and whom they trust. Pure.

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::Service;
use super::stored::{self, Certificate};

/// The two sorts of webhook configurations.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// `MutatingWebhookConfiguration`.
    Mutating,
    /// `ValidatingWebhookConfiguration`.
    Validating,
}

/// A webhook configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Configuration {
    /// Its sort.
    pub(crate) kind: Kind,
    /// Its name.
    pub(crate) name: String,
    /// The state that was seen.
    pub(crate) resource_version: String,
    /// The entries that call our Service. Those that call others are none of our business.
    pub(crate) entries: Vec<Entry>,
}

/// One of its webhooks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Entry {
    /// Its place in the list.
    index: usize,
    /// The authorities API servers accept for it, as PEM text.
    ca_bundle: Vec<u8>,
}

impl Entry {
    /// Whom API servers accept.
    pub(crate) fn trusted(&self) -> Vec<Certificate> {
        stored::certificates(&self.ca_bundle)
    }
}

impl Configuration {
    /// Whether API servers accept what this authority signed, wherever they call us.
    pub(crate) fn trusts(&self, authority: &Certificate) -> bool {
        self.entries.iter().all(|entry| entry.trusted().contains(authority))
    }

    /// The JSON patch that makes `ca_bundle` what all entries trust, if any has something else. It fails with a conflict
    /// when the configuration has changed since.
    pub(crate) fn patch(&self, ca_bundle: &str) -> Option<json_patch::Patch> {
        let version = ("/metadata/resourceVersion".to_owned(), json!(self.resource_version));
        let wrong = self.entries.iter().filter(|entry| entry.ca_bundle != ca_bundle.as_bytes());
        let bundle = k8s_openapi::ByteString(ca_bundle.as_bytes().to_vec());
        let bundles: Vec<(String, Value)> = wrong
            .map(|entry| (format!("/webhooks/{}/clientConfig/caBundle", entry.index), json!(bundle)))
            .collect();
        if bundles.is_empty() {
            return None;
        }
        let operations = std::iter::once(version).chain(bundles);
        let operations: Vec<Value> =
            operations.map(|(path, value)| json!({"op": "add", "path": path, "value": value})).collect();
        serde_json::from_value(Value::Array(operations)).ok()
    }
}

/// A kind of webhook configuration.
pub(crate) trait Configures: ResourceExt {
    /// Which.
    const KIND: Kind;

    /// How each entry is called, in order.
    fn clients(&self) -> impl Iterator<Item = &WebhookClientConfig>;

    /// The part that matters here.
    fn read(&self, service: &Service) -> Configuration {
        let entries = self.clients().enumerate().filter(|(_, client)| {
            client
                .service
                .as_ref()
                .is_some_and(|called| called.name == service.name && called.namespace == service.namespace)
        });
        let entries = entries.map(|(index, client)| Entry {
            index,
            ca_bundle: client.ca_bundle.clone().map(|bundle| bundle.0).unwrap_or_default(),
        });
        Configuration {
            kind: Self::KIND,
            name: self.name_any(),
            resource_version: self.resource_version().unwrap_or_default(),
            entries: entries.collect(),
        }
    }
}

impl Configures for MutatingWebhookConfiguration {
    const KIND: Kind = Kind::Mutating;

    fn clients(&self) -> impl Iterator<Item = &WebhookClientConfig> {
        self.webhooks.iter().flatten().map(|webhook| &webhook.client_config)
    }
}

impl Configures for ValidatingWebhookConfiguration {
    const KIND: Kind = Kind::Validating;

    fn clients(&self) -> impl Iterator<Item = &WebhookClientConfig> {
        self.webhooks.iter().flatten().map(|webhook| &webhook.client_config)
    }
}

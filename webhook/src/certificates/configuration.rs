//! The webhook configurations, and the definitions whose versions we convert, as far as trust goes: which of their
//! entries lead here, and whom they trust. Pure.

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::Service;
use super::stored::{self, Certificate};

/// What says where API servers find a webhook.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// `MutatingWebhookConfiguration`.
    Mutating,
    /// `ValidatingWebhookConfiguration`.
    Validating,
    /// `CustomResourceDefinition`.
    Definition,
}

/// A webhook configuration, or a definition with a webhook that converts.
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
    /// Where it says how it is called, as a JSON pointer.
    client: String,
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
        let bundle = ByteString(ca_bundle.as_bytes().to_vec());
        let bundles: Vec<(String, Value)> =
            wrong.map(|entry| (format!("{}/caBundle", entry.client), json!(bundle))).collect();
        if bundles.is_empty() {
            return None;
        }
        let operations = std::iter::once(version).chain(bundles);
        let operations: Vec<Value> =
            operations.map(|(path, value)| json!({"op": "add", "path": path, "value": value})).collect();
        serde_json::from_value(Value::Array(operations)).ok()
    }
}

/// How one webhook is called.
pub(crate) struct Called<'a> {
    /// Where that stands, as a JSON pointer.
    client: String,
    /// Name and namespace of the Service.
    service: Option<(&'a str, &'a str)>,
    /// The authorities, as PEM text.
    pub(crate) ca_bundle: Option<&'a ByteString>,
}

/// A kind of object that says so.
pub(crate) trait Configures: ResourceExt {
    /// Which.
    const KIND: Kind;

    /// How each webhook is called, in order.
    fn called(&self) -> Vec<Called<'_>>;

    /// The part that matters here.
    fn read(&self, service: &Service) -> Configuration {
        let ours = Some((service.name.as_str(), service.namespace.as_str()));
        let called = self.called().into_iter().filter(|called| called.service == ours);
        let entries = called.map(|called| Entry {
            client: called.client,
            ca_bundle: called.ca_bundle.cloned().map(|bundle| bundle.0).unwrap_or_default(),
        });
        Configuration {
            kind: Self::KIND,
            name: self.name_any(),
            resource_version: self.resource_version().unwrap_or_default(),
            entries: entries.collect(),
        }
    }
}

fn admission<'a>(clients: impl Iterator<Item = &'a WebhookClientConfig>) -> Vec<Called<'a>> {
    let called = clients.enumerate().map(|(index, client)| Called {
        client: format!("/webhooks/{index}/clientConfig"),
        service: client.service.as_ref().map(|service| (service.name.as_str(), service.namespace.as_str())),
        ca_bundle: client.ca_bundle.as_ref(),
    });
    called.collect()
}

impl Configures for MutatingWebhookConfiguration {
    const KIND: Kind = Kind::Mutating;

    fn called(&self) -> Vec<Called<'_>> {
        admission(self.webhooks.iter().flatten().map(|webhook| &webhook.client_config))
    }
}

impl Configures for ValidatingWebhookConfiguration {
    const KIND: Kind = Kind::Validating;

    fn called(&self) -> Vec<Called<'_>> {
        admission(self.webhooks.iter().flatten().map(|webhook| &webhook.client_config))
    }
}

impl Configures for CustomResourceDefinition {
    const KIND: Kind = Kind::Definition;

    fn called(&self) -> Vec<Called<'_>> {
        let conversion = self.spec.conversion.as_ref().and_then(|conversion| conversion.webhook.as_ref());
        let client = conversion.and_then(|webhook| webhook.client_config.as_ref());
        let called = client.map(|client| Called {
            client: "/spec/conversion/webhook/clientConfig".to_owned(),
            service: client
                .service
                .as_ref()
                .map(|service| (service.name.as_str(), service.namespace.as_str())),
            ca_bundle: client.ca_bundle.as_ref(),
        });
        called.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_told_whom_to_trust_where_they_convert() {
        let service =
            Service { name: "tekton-pipelines-webhook".to_owned(), namespace: "tekton-pipelines".to_owned() };
        let mut converting = Vec::new();
        for mut definition in ropewalk_api::crd::all() {
            definition["metadata"]["resourceVersion"] = json!("7");
            let typed: CustomResourceDefinition = serde_json::from_value(definition.clone()).unwrap();
            let configuration = typed.read(&service);
            let Some(patch) = configuration.patch("authority") else { continue };
            json_patch::patch(&mut definition, &patch).unwrap();
            let typed: CustomResourceDefinition = serde_json::from_value(definition).unwrap();
            assert_eq!(typed.called()[0].ca_bundle, Some(&ByteString(b"authority".to_vec())));
            assert_eq!(typed.read(&service).patch("authority"), None);
            converting.push(configuration.name);
        }
        assert_eq!(converting, crate::certificates::observe::DEFINITIONS);
    }
}

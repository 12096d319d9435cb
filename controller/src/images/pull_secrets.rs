//! Reads the secrets a run may pull its images with: by name, at each look-up, kept for no longer than that.

use std::collections::BTreeSet;
use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::{Api, Client, Resource};
use ropewalk_core::images::Wanted;
use ropewalk_core::images::keyring::Keyring;
use serde::de::DeserializeOwned;

/// Secrets read for one image: service accounts with a dozen are rare.
const MAX_SECRETS: usize = 32;

/// The API server did not answer.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {kind} \"{name}\" for its credentials")]
pub struct Error {
    kind: &'static str,
    name: String,
}

/// The credentials of the pod's imagePullSecrets, and of its service account's, and of the service account's secrets.
/// What does not exist or may not be read is noted in the keyring: the image may not need it.
pub async fn read(client: &Client, wanted: &Wanted) -> Result<Keyring, Error> {
    let mut keyring = Keyring::default();
    let mut names = wanted.pull_secrets.clone();
    let namespace = &wanted.namespace;
    let account = match get::<ServiceAccount>(client, namespace, &wanted.service_account).await {
        Ok(account) => account,
        Err(Trouble::Refused(_)) => None,
        Err(Trouble::Transient) => {
            return Err(Error { kind: "service account", name: wanted.service_account.clone() });
        }
    };
    if let Some(account) = account {
        names.extend(account.image_pull_secrets.into_iter().flatten().map(|secret| secret.name));
        names.extend(account.secrets.into_iter().flatten().filter_map(|secret| secret.name));
    }
    let mut seen = BTreeSet::new();
    names.retain(|name| !name.is_empty() && seen.insert(name.clone()));
    for name in names.iter().take(MAX_SECRETS) {
        match get::<Secret>(client, namespace, name).await {
            Ok(Some(secret)) => keyring.add(name, &secret),
            Ok(None) => keyring.unusable(name, "does not exist"),
            Err(Trouble::Refused(code)) => keyring.unusable(name, format!("may not be read (status {code})")),
            Err(Trouble::Transient) => return Err(Error { kind: "secret", name: name.clone() }),
        }
    }
    Ok(keyring)
}

enum Trouble {
    /// With this HTTP status.
    Refused(u16),
    Transient,
}

async fn get<K>(client: &Client, namespace: &str, name: &str) -> Result<Option<K>, Trouble>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    match api.get_opt(name).await {
        Ok(object) => Ok(object),
        Err(kube::Error::Api(status)) if matches!(status.code, 400..=407 | 409..=428) => {
            Err(Trouble::Refused(status.code))
        }
        // Its text may quote what could not be parsed.
        Err(_) => Err(Trouble::Transient),
    }
}

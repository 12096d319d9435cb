//! Reads the ConfigMaps, Secrets and claims a pod refers to, and waits for missing ones to appear.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{BoxStream, SelectAll};
use futures::{Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, ServiceAccount};
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use ropewalk_kubelet::Objects;
use ropewalk_kubelet::objects::{Reference, TokenWanted};

/// Reads what is referred to; what does not exist is left out.
pub(super) async fn read(
    client: &Client,
    namespace: &str,
    references: &BTreeSet<Reference>,
) -> Result<Objects, kube::Error> {
    let mut objects = Objects::default();
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    for reference in references {
        // A name no object can have would make the API server refuse the request; it is missing all the same.
        match reference {
            Reference::ConfigMap(name) if is_name(name) => {
                let found = config_maps.get_opt(name).await?;
                objects.config_maps.extend(found.map(|object| (name.clone(), object)));
            }
            Reference::Secret(name) if is_name(name) => {
                let found = secrets.get_opt(name).await?;
                objects.secrets.extend(found.map(|object| (name.clone(), object)));
            }
            Reference::Claim(name) if is_name(name) => {
                let found = claims.get_opt(name).await?;
                objects.claims.extend(found.map(|object| (name.clone(), object)));
            }
            _ => {}
        }
    }
    Ok(objects)
}

/// Asks for the tokens of the pod's service account, each bound to the pod. One that is refused is left out.
pub(super) async fn tokens(
    client: &Client,
    pod: &Pod,
    wanted: BTreeSet<TokenWanted>,
) -> Result<BTreeMap<TokenWanted, String>, kube::Error> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let account =
        pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
    let mut tokens = BTreeMap::new();
    for wanted in wanted {
        let spec = TokenRequestSpec {
            audiences: wanted.audience.clone().map(|audience| vec![audience]),
            expiration_seconds: Some(wanted.seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(pod.name_any()),
                uid: pod.uid(),
            }),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        match accounts.create_token_request(account, &PostParams::default(), &request).await {
            Ok(answer) => {
                let token = answer.status.and_then(|status| status.token);
                tokens.extend(token.map(|token| (wanted, token)));
            }
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => {
                tracing::warn!(pod = pod.name_any(), account, reason = status.message, "a token was refused");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(tokens)
}

fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    !name.is_empty() && name.chars().all(allowed)
}

/// Yields whenever one of the objects appears or changes.
pub(super) fn changes(
    client: &Client,
    namespace: &str,
    references: &BTreeSet<Reference>,
) -> SelectAll<BoxStream<'static, ()>> {
    let mut streams = SelectAll::new();
    for reference in references {
        match reference {
            Reference::ConfigMap(name) if is_name(name) => {
                streams.push(applied::<ConfigMap>(client, namespace, name).boxed());
            }
            Reference::Secret(name) if is_name(name) => {
                streams.push(applied::<Secret>(client, namespace, name).boxed());
            }
            Reference::Claim(name) if is_name(name) => {
                streams.push(applied::<PersistentVolumeClaim>(client, namespace, name).boxed());
            }
            _ => {}
        }
    }
    streams
}

fn applied<K>(client: &Client, namespace: &str, name: &str) -> impl Stream<Item = ()> + Send + use<K>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + Send + 'static,
    K: serde::de::DeserializeOwned,
    K::DynamicType: Default,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let name = name.to_owned();
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    watcher(api, config).default_backoff().applied_objects().filter_map(move |found| {
        let ours = found.is_ok_and(|object| object.name_any() == name);
        std::future::ready(ours.then_some(()))
    })
}

//! ConfigMaps by name: read once, or followed.

use std::collections::BTreeMap;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};

use crate::follow::follow;

/// The `data` of a ConfigMap; empty when there is none of that name.
pub type Data = BTreeMap<String, String>;

/// What a ConfigMap holds now.
pub async fn read(client: &Client, namespace: &str, name: &str) -> kube::Result<Data> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    Ok(api.get_opt(name).await?.and_then(|map| map.data).unwrap_or_default())
}

/// What a ConfigMap holds, as soon as the API server has said so, and after every change. Never ends.
pub fn changes(client: &Client, namespace: &str, name: &str) -> impl Stream<Item = Data> + Send + 'static {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    follow(api, name).map(|map| map.and_then(|map| map.data).unwrap_or_default())
}

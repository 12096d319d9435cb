//! ConfigMaps by name: read once, or followed. One watch per name, so that a role may name the ConfigMaps it needs.

use std::collections::BTreeMap;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};

use crate::client::watch_config;

/// The `data` of a ConfigMap; empty when there is none of that name.
pub type Data = BTreeMap<String, String>;

/// Reads a ConfigMap as it is now.
pub async fn read(client: &Client, namespace: &str, name: &str) -> kube::Result<Data> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    Ok(api.get_opt(name).await?.and_then(|map| map.data).unwrap_or_default())
}

/// What a ConfigMap holds now, as soon as the API server has said so, and after every change. Never ends; outages are
/// logged, and waited for with growing pauses.
pub fn follow(client: &Client, namespace: &str, name: &str) -> impl Stream<Item = Data> + Send + 'static {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let config = watch_config().fields(&format!("metadata.name={name}"));
    let name = name.to_owned();
    // The ConfigMap that a list has brought so far.
    let mut listed = None;
    watcher::watcher(api, config).default_backoff().filter_map(move |event| {
        let data = match event {
            Ok(event) => step(&mut listed, event),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(name, error, "cannot follow a ConfigMap, what was read last stays valid");
                None
            }
        };
        futures::future::ready(data)
    })
}

/// What is known after an event, if it tells anything. A list tells when it is complete, since it may bring nothing.
fn step(listed: &mut Option<ConfigMap>, event: Event<ConfigMap>) -> Option<Data> {
    let map = match event {
        Event::Init => {
            *listed = None;
            return None;
        }
        Event::InitApply(map) => {
            *listed = Some(map);
            return None;
        }
        Event::InitDone => listed.take(),
        Event::Apply(map) => Some(map),
        Event::Delete(_) => None,
    };
    Some(map.and_then(|map| map.data).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(value: &str) -> ConfigMap {
        ConfigMap { data: Some(data(value)), ..ConfigMap::default() }
    }

    fn data(value: &str) -> Data {
        Data::from([("key".to_owned(), value.to_owned())])
    }

    #[test]
    fn a_list_tells_when_it_is_complete_and_a_deletion_leaves_defaults() {
        let mut listed = None;
        let told: Vec<_> = [
            Event::Init,
            Event::InitApply(map("first")),
            Event::InitDone,
            Event::Apply(map("second")),
            Event::Delete(map("second")),
            Event::Init,
            Event::InitDone,
        ]
        .into_iter()
        .filter_map(|event| step(&mut listed, event))
        .collect();
        assert_eq!(told, [data("first"), data("second"), Data::new(), Data::new()]);
    }
}

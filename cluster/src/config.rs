//! The engine's configuration as its ConfigMaps have it at the moment (contract 3).

use std::pin::pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use kube::Client;
use prometheus::{IntCounter, Registry};
use ropewalk_api::config::Config;
use tokio::sync::watch;

use crate::config_maps::{self, Data};

/// The counter of ConfigMaps that could not be used.
const REJECTED: &str = "ropewalk_config_rejected_total";

/// Follows `config-defaults` and `feature-flags` in `namespace`, or what `CONFIG_DEFAULTS_NAME` and
/// `CONFIG_FEATURE_FLAGS_NAME` call them. A ConfigMap that is missing means the defaults. One that cannot be used is
/// logged and counted in `registry`, and changes nothing.
///
/// Returns when both have been looked up, and hence not before the API server answers. Has to be called within a tokio
/// runtime; the watches end with the last receiver.
pub async fn watch(
    client: &Client,
    namespace: &str,
    registry: &Registry,
) -> prometheus::Result<watch::Receiver<Arc<Config>>> {
    let rejected = IntCounter::new(REJECTED, "Changes of ConfigMaps that could not be used")?;
    registry.register(Box::new(rejected.clone()))?;
    let defaults = crate::named_by("CONFIG_DEFAULTS_NAME", "config-defaults");
    let features = crate::named_by("CONFIG_FEATURE_FLAGS_NAME", "feature-flags");
    let defaults = config_maps::follow(client, namespace, &defaults);
    let features = config_maps::follow(client, namespace, &features);
    let (sender, mut receiver) = watch::channel(Arc::new(Config::default()));
    tokio::spawn(keep(defaults, features, sender, rejected));
    // The sender outlives its receivers.
    let _ = receiver.changed().await;
    Ok(receiver)
}

/// Tells the receivers once both ConfigMaps are known, and after that whenever what they mean changes.
async fn keep(
    defaults: impl Stream<Item = Data> + Send,
    features: impl Stream<Item = Data> + Send,
    sender: watch::Sender<Arc<Config>>,
    rejected: IntCounter,
) {
    let (mut defaults, mut features) = (pin!(defaults), pin!(features));
    let (mut last_defaults, mut last_features) = (None, None);
    let mut told = false;
    loop {
        tokio::select! {
            Some(data) = defaults.next() => last_defaults = Some(data),
            Some(data) = features.next() => last_features = Some(data),
            () = sender.closed() => return,
            else => return,
        }
        let (Some(defaults), Some(features)) = (&last_defaults, &last_features) else { continue };
        match Config::from_config_maps(defaults, features) {
            Ok(config) => {
                sender.send_if_modified(|current| {
                    let changed = **current != config;
                    if changed {
                        *current = Arc::new(config);
                        tracing::info!("configuration changed");
                    }
                    changed || !told
                });
            }
            Err(errors) => {
                rejected.inc();
                let error = &errors as &dyn std::error::Error;
                tracing::error!(error, "configuration cannot be used, the last good one stays valid");
                // Who waits for the first one starts with the defaults.
                sender.send_if_modified(|_| !told);
            }
        }
        told = true;
    }
}

#[cfg(test)]
mod tests {
    use futures::channel::mpsc;
    use ropewalk_api::config::ApiFields;

    use super::*;

    fn data(key: &str, value: &str) -> Data {
        Data::from([(key.to_owned(), value.to_owned())])
    }

    #[tokio::test]
    async fn the_last_good_configuration_stays() {
        let (defaults, defaults_stream) = mpsc::unbounded();
        let (features, features_stream) = mpsc::unbounded();
        let (sender, mut receiver) = watch::channel(Arc::new(Config::default()));
        let rejected = IntCounter::new(REJECTED, "help").expect("a counter");
        let keeper = tokio::spawn(keep(defaults_stream, features_stream, sender, rejected.clone()));

        features.unbounded_send(data("enable-api-fields", "alpha")).expect("it listens");
        defaults.unbounded_send(Data::new()).expect("it listens");
        receiver.changed().await.expect("both are known");
        assert_eq!(receiver.borrow_and_update().features.enable_api_fields, ApiFields::Alpha);

        features.unbounded_send(data("enable-api-fields", "omega")).expect("it listens");
        // Changes of one ConfigMap are seen in order, so the bad one comes before this one.
        features.unbounded_send(data("enable-api-fields", "stable")).expect("it listens");
        receiver.changed().await.expect("it goes on");
        assert_eq!(receiver.borrow_and_update().features.enable_api_fields, ApiFields::Stable);
        assert_eq!(rejected.get(), 1);

        drop(receiver);
        keeper.await.expect("it ends with its receivers");
    }

    #[tokio::test]
    async fn a_bad_first_configuration_means_the_defaults() {
        let features = futures::stream::iter([data("enable-api-fields", "omega")]);
        let defaults = futures::stream::iter([Data::new()]);
        let (sender, mut receiver) = watch::channel(Arc::new(Config::default()));
        let rejected = IntCounter::new(REJECTED, "help").expect("a counter");
        keep(defaults, features, sender, rejected.clone()).await;
        receiver.changed().await.expect("whoever waits is told");
        assert_eq!(**receiver.borrow(), Config::default());
        assert_eq!(rejected.get(), 1);
    }
}

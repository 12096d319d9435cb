//! The engine's configuration as its ConfigMaps have it at the moment (contract 3).

use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use kube::Client;
use prometheus::{IntCounter, Registry};
use ropewalk_api::config::Config;
use tokio::sync::watch;

use crate::config_maps::{self, Data};
use crate::named_by;

/// The counter of ConfigMaps that could not be used.
const REJECTED: &str = "ropewalk_config_rejected_total";

/// What the engine's ConfigMaps are called.
#[derive(Clone, Debug)]
pub struct ConfigMapNames {
    /// `config-defaults`
    pub defaults: String,
    /// `feature-flags`
    pub features: String,
    /// `config-observability`
    pub observability: String,
    /// `config-leader-election-controller`
    pub leader_election: String,
}

impl ConfigMapNames {
    /// What upstream's variables call them (contract 3.2), and their usual names otherwise.
    pub fn from_environment() -> Self {
        Self {
            defaults: named_by("CONFIG_DEFAULTS_NAME", "config-defaults"),
            features: named_by("CONFIG_FEATURE_FLAGS_NAME", "feature-flags"),
            observability: named_by("CONFIG_OBSERVABILITY_NAME", "config-observability"),
            leader_election: named_by("CONFIG_LEADERELECTION_NAME", "config-leader-election-controller"),
        }
    }
}

/// How many ConfigMaps a [`Config`] is read from.
const MAPS: usize = 3;

/// Follows `config-defaults`, `feature-flags` and `config-observability` in `namespace`, or what the environment
/// calls them. One that is missing means the defaults. A change that cannot be used is logged and counted in `registry`;
/// that ConfigMap then stays as it was, and the others go on changing.
///
/// Returns when all have been looked up, and hence not before the API server answers. Has to be called within a tokio
/// runtime; the watches end with the last receiver.
pub async fn watch(
    client: &Client,
    namespace: &str,
    registry: &Registry,
) -> prometheus::Result<watch::Receiver<Arc<Config>>> {
    let rejected = IntCounter::new(REJECTED, "Changes of ConfigMaps that could not be used")?;
    registry.register(Box::new(rejected.clone()))?;
    let ConfigMapNames { defaults, features, observability, .. } = ConfigMapNames::from_environment();
    let names: [String; MAPS] = [defaults, features, observability];
    let changes = names.into_iter().enumerate().map(|(index, name)| {
        config_maps::changes(client, namespace, &name).map(move |data| (index, data)).boxed()
    });
    let (sender, mut receiver) = watch::channel(Arc::new(Config::default()));
    tokio::spawn(keep(stream::select_all(changes), sender, rejected));
    // An error would say that the sender is gone, and it outlives its receivers.
    let _ = receiver.changed().await;
    Ok(receiver)
}

/// Tells the receivers once every ConfigMap is known, and after that whenever what they mean changes.
async fn keep(
    mut changes: impl Stream<Item = (usize, Data)> + Unpin + Send,
    sender: watch::Sender<Arc<Config>>,
    rejected: IntCounter,
) {
    let mut maps: [Data; MAPS] = Default::default();
    let mut known = [false; MAPS];
    let mut told = false;
    loop {
        let (index, data) = tokio::select! {
            Some(change) = changes.next() => change,
            () = sender.closed() => return,
        };
        let before = std::mem::replace(&mut maps[index], data);
        let [defaults, features, observability] = &maps;
        let config = match Config::from_config_maps(defaults, features, observability) {
            Ok(config) => Some(config),
            Err(errors) => {
                rejected.inc();
                let error = &errors as &dyn std::error::Error;
                tracing::error!(error, "a ConfigMap cannot be used and stays as it was");
                maps[index] = before;
                None
            }
        };
        known[index] = true;
        sender.send_if_modified(|current| {
            let changed =
                config.filter(|config| *config != **current).map(|config| *current = Arc::new(config));
            let first = !told && known == [true; MAPS];
            told |= first;
            first || (told && changed.is_some())
        });
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

    fn rejected() -> IntCounter {
        IntCounter::new(REJECTED, "help").expect("a counter")
    }

    #[tokio::test]
    async fn a_bad_change_leaves_its_config_map_as_it_was_and_the_others_alone() {
        let (send, changes) = mpsc::unbounded();
        let (sender, mut receiver) = watch::channel(Arc::new(Config::default()));
        let rejected = rejected();
        let keeper = tokio::spawn(keep(changes, sender, rejected.clone()));

        for change in [(1, data("enable-api-fields", "alpha")), (0, Data::new()), (2, Data::new())] {
            send.unbounded_send(change).expect("it listens");
        }
        receiver.changed().await.expect("all are known");
        assert_eq!(receiver.borrow_and_update().features.enable_api_fields, ApiFields::Alpha);

        send.unbounded_send((1, data("enable-api-fields", "omega"))).expect("it listens");
        send.unbounded_send((0, data("default-service-account", "builder"))).expect("it listens");
        receiver.changed().await.expect("it goes on");
        let config = receiver.borrow_and_update().clone();
        assert_eq!(config.features.enable_api_fields, ApiFields::Alpha);
        assert_eq!(config.defaults.service_account, "builder");
        assert_eq!(rejected.get(), 1);

        drop(receiver);
        keeper.await.expect("it ends with its receivers");
    }

    #[tokio::test]
    async fn a_bad_first_config_map_means_its_defaults() {
        let changes =
            stream::iter([(1, data("enable-api-fields", "omega")), (0, Data::new()), (2, Data::new())]);
        let (sender, mut receiver) = watch::channel(Arc::new(Config::default()));
        let rejected = rejected();
        tokio::spawn(keep(changes, sender, rejected.clone()));
        receiver.changed().await.expect("whoever waits is told");
        assert_eq!(**receiver.borrow(), Config::default());
        assert_eq!(rejected.get(), 1);
    }
}

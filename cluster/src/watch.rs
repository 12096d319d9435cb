//! A watch that never ends, and waits longer each time it fails.

use std::fmt::Debug;

use futures::{Stream, StreamExt};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::time::sleep;

use crate::client::watch_backoff;

/// Every event of a list and its watch. What interrupts them is logged; after a pause, which grows until a list is
/// complete or a watch has told of a change, they go on.
pub fn watch<K>(api: Api<K>, config: watcher::Config) -> impl Stream<Item = Event<K>> + Send + 'static
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let fields = config.field_selector.clone().unwrap_or_default();
    patient(watcher(api, config), move |error| {
        let (kind, error) = (K::kind(&()), error as &dyn std::error::Error);
        tracing::warn!(%kind, fields, error, "watch interrupted, going on after a pause; what is known may be old");
    })
}

/// The events of `results`, which is not asked for more while it pauses. Not kube's own backoff: that starts over when a
/// list begins, and so never grows while lists fail.
fn patient<K: Send + 'static>(
    results: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    log: impl Fn(&watcher::Error) + Send + 'static,
) -> impl Stream<Item = Event<K>> + Send + 'static {
    let mut pauses = watch_backoff();
    results.filter_map(move |result| {
        let pause = match &result {
            Ok(Event::Init | Event::InitApply(_)) => None,
            Ok(Event::InitDone | Event::Apply(_) | Event::Delete(_)) => {
                pauses.reset();
                None
            }
            Err(error) => {
                log(error);
                pauses.next()
            }
        };
        async move {
            if let Some(pause) = pause {
                sleep(pause).await;
            }
            result.ok()
        }
    })
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use tokio::time::Instant;

    use super::*;

    fn failed() -> watcher::Result<Event<u8>> {
        Err(watcher::Error::NoResourceVersion)
    }

    /// What comes out, each with the milliseconds since what came before.
    async fn told(results: Vec<watcher::Result<Event<u8>>>) -> Vec<(Event<u8>, u128)> {
        let mut before = Instant::now();
        patient(stream::iter(results), |_| {})
            .map(|event| {
                let now = Instant::now();
                (event, (now - std::mem::replace(&mut before, now)).as_millis())
            })
            .collect()
            .await
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_while_lists_fail() {
        let tries = (0..7).flat_map(|_| [Ok(Event::Init), Ok(Event::InitApply(1)), failed()]);
        let told = told(tries.chain([Ok(Event::Init), Ok(Event::InitDone)]).collect()).await;
        let begun = told.iter().filter(|(event, _)| matches!(event, Event::Init));
        let waited: Vec<_> = begun.map(|(_, waited)| *waited).collect();
        assert_eq!(waited, [0, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_through_makes_the_next_pause_short() {
        for good in [Event::InitDone, Event::Apply(1), Event::Delete(1)] {
            let told = told(vec![failed(), failed(), Ok(good.clone()), failed(), Ok(good)]).await;
            let waited: Vec<_> = told.into_iter().map(|(_, waited)| waited).collect();
            assert_eq!(waited, [600, 200]);
        }
    }
}

//! Whether every cache has been filled once.
//!
//! Stores tell that too, but wake only one of those who wait: of several reconciles that begin before the first lists
//! are there, all but one would sleep for ever.

use futures::Stream;
use futures::StreamExt;
use kube::runtime::watcher::{Error, Event};
use tokio::sync::watch;

/// A countdown of the caches that are still empty.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    missing: watch::Sender<usize>,
}

impl Listed {
    /// Waits for this many caches.
    pub(crate) fn of(caches: usize) -> Self {
        Self { missing: watch::Sender::new(caches) }
    }

    /// The same events, as they come out of a reflector; the end of the first list is the cache's.
    pub(crate) fn follow<K, S>(&self, events: S) -> impl Stream<Item = S::Item> + Send + use<K, S>
    where
        S: Stream<Item = Result<Event<K>, Error>> + Send,
    {
        let (missing, mut done) = (self.missing.clone(), false);
        events.inspect(move |event| {
            if !done && matches!(event, Ok(Event::InitDone)) {
                done = true;
                missing.send_modify(|missing| *missing = missing.saturating_sub(1));
            }
        })
    }

    /// Returns when none is missing any more.
    pub(crate) async fn wait(&self) {
        // An error would say that the sender is gone, and it is here.
        let _ = self.missing.subscribe().wait_for(|missing| *missing == 0).await;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::channel::mpsc;
    use futures::future::join3;
    use futures::{FutureExt, stream};
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    #[tokio::test]
    async fn everybody_who_waits_is_woken_when_the_last_cache_is_full() {
        let listed = Listed::of(2);
        let (send, events) = mpsc::unbounded();
        let one = listed.follow(events);
        let other = listed.follow(stream::iter([Ok(Event::<Pod>::Init), Ok(Event::InitDone)]));
        let everybody = tokio::spawn({
            let listed = listed.clone();
            async move { join3(listed.wait(), listed.wait(), listed.wait()).await }
        });
        other.collect::<Vec<_>>().await;
        assert!(listed.wait().now_or_never().is_none(), "one is missing");

        let mut one = pin!(one);
        for event in [Event::<Pod>::Init, Event::InitDone, Event::Init, Event::InitDone] {
            send.unbounded_send(Ok(event)).expect("it listens");
            one.next().await.expect("an event").expect("no error");
        }
        everybody.await.expect("all of them end");
        listed.wait().now_or_never().expect("what is full stays so");
    }
}

//! What a watch tells of, once its cache shows it.
//!
//! kube tells of the objects of a list while it is being read. At the start that does no harm, as nothing is reconciled
//! before its cache is full; but when a list is read again, as after every restart of an API server, a reconcile then sees
//! what was there before, or nothing at all, and nothing wakes it when the cache has changed. And nobody is told of what
//! went meanwhile.

use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use kube::Resource;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{Error, Event};

/// The objects of a watch that has passed its reflector: each that changed or went, and at the end of a list all that are
/// in `cache` by then, and those that were there before it.
pub(crate) fn touched<K>(
    events: impl Stream<Item = Result<Event<K>, Error>> + Send,
    cache: Store<K>,
) -> impl Stream<Item = Result<K, Error>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    let mut before: Vec<Arc<K>> = Vec::new();
    events.flat_map(move |event| {
        let one = |result| (vec![], Some(result));
        let (listed, other) = match event {
            Ok(Event::Init) => {
                before = cache.state();
                (vec![], None)
            }
            Ok(Event::InitApply(_)) => (vec![], None),
            Ok(Event::InitDone) => {
                before.retain(|object| cache.get(&ObjectRef::from_obj(&**object)).is_none());
                before.extend(cache.state());
                (std::mem::take(&mut before), None)
            }
            Ok(Event::Apply(object) | Event::Delete(object)) => one(Ok(object)),
            Err(error) => one(Err(error)),
        };
        stream::iter(listed.into_iter().map(Arc::unwrap_or_clone).map(Ok).chain(other))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use k8s_openapi::api::core::v1::Pod;
    use kube::ResourceExt;
    use kube::runtime::WatchStreamExt;
    use kube::runtime::reflector::store;

    use super::*;

    fn pod(name: &str, version: &str) -> Pod {
        let metadata = serde_json::json!({ "name": name, "namespace": "ns", "resourceVersion": version });
        serde_json::from_value(serde_json::json!({ "metadata": metadata })).expect("a pod")
    }

    /// What is told of, as name and version, and the version that the cache has then.
    async fn told(events: Vec<Event<Pod>>) -> BTreeSet<(String, String, Option<String>)> {
        let (cache, writer) = store();
        let seen = cache.clone();
        let events = stream::iter(events.into_iter().map(Ok)).reflect(writer);
        touched(events, cache)
            .map(|object| {
                let object = object.expect("no error");
                let cached = seen.get(&ObjectRef::from_obj(&object)).and_then(|pod| pod.resource_version());
                (object.name_any(), object.resource_version().unwrap_or_default(), cached)
            })
            .collect()
            .await
    }

    fn entry(name: &str, version: &str, cached: Option<&str>) -> (String, String, Option<String>) {
        (name.to_owned(), version.to_owned(), cached.map(str::to_owned))
    }

    #[tokio::test]
    async fn a_change_is_told_when_the_cache_shows_it() {
        let first = [Event::Init, Event::InitApply(pod("a", "1")), Event::InitApply(pod("b", "2"))];
        let rest = [Event::InitDone, Event::Apply(pod("a", "3")), Event::Delete(pod("b", "4"))];
        assert_eq!(
            told(first.into_iter().chain(rest).collect()).await,
            [
                entry("a", "1", Some("1")),
                entry("a", "3", Some("3")),
                entry("b", "2", Some("2")),
                entry("b", "4", None)
            ]
            .into()
        );
    }

    #[tokio::test]
    async fn a_list_that_is_read_again_tells_what_is_new_and_what_went() {
        let first = [Event::Init, Event::InitApply(pod("gone", "1")), Event::InitApply(pod("kept", "2"))];
        // The second list fails half-way, and is begun once more.
        let again = [Event::InitDone, Event::Init, Event::InitApply(pod("kept", "5")), Event::Init];
        let rest = [Event::InitApply(pod("kept", "5")), Event::InitApply(pod("new", "6")), Event::InitDone];
        assert_eq!(
            told(first.into_iter().chain(again).chain(rest).collect()).await,
            [
                entry("gone", "1", Some("1")),
                entry("kept", "2", Some("2")),
                entry("gone", "1", None),
                entry("kept", "5", Some("5")),
                entry("new", "6", Some("6")),
            ]
            .into()
        );
    }
}

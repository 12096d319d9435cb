//! One object, followed by its name. A watch per name lets a role name the objects it needs.

use std::fmt::Debug;

use futures::{Stream, StreamExt};
use kube::runtime::watcher::Event;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::client::watch_config;
use crate::watch::watch;

/// The object of this name, as soon as the API server has said whether there is one, and after every change; `None`
/// when there is none. Never ends; outages are logged, and waited for with growing pauses.
pub fn follow<K>(api: Api<K>, name: &str) -> impl Stream<Item = Option<K>> + Send + 'static
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = watch_config().fields(&format!("metadata.name={name}"));
    // What a list has brought so far.
    let mut listed = None;
    watch(api, config).filter_map(move |event| futures::future::ready(step(&mut listed, event)))
}

/// What is known after an event, if it tells anything. A list tells when it is complete, since it may bring nothing.
#[expect(clippy::option_option, reason = "news, and in it the object or its absence")]
fn step<K>(listed: &mut Option<K>, event: Event<K>) -> Option<Option<K>> {
    match event {
        Event::Init => *listed = None,
        Event::InitApply(object) => *listed = Some(object),
        Event::InitDone => return Some(listed.take()),
        Event::Apply(object) => return Some(Some(object)),
        Event::Delete(_) => return Some(None),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_tells_when_it_is_complete() {
        let mut listed = None;
        let told: Vec<_> = [
            Event::Init,
            Event::InitApply(1),
            Event::InitDone,
            Event::Apply(2),
            Event::Delete(2),
            Event::Init,
            Event::InitDone,
        ]
        .into_iter()
        .filter_map(|event| step(&mut listed, event))
        .collect();
        assert_eq!(told, [Some(1), Some(2), None, None]);
    }
}

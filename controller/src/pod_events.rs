//! What nodes say of our pods in Warning events: kept while a pod waits, for the snapshots of the run that owns it. A real
//! kubelet tells of a volume it cannot mount nowhere else. Decides nothing.
//!
//! Whoever may create events in a namespace can write them, so everything here is bounded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use ropewalk_api::TaskRun;
use ropewalk_core::taskrun::PodWarning;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::reconcile::Context;

/// Which events are watched; API servers since 1.20 and before know these fields.
pub(crate) const SELECTOR: &str = "involvedObject.kind=Pod,type=Warning";

/// Pods whose words are kept: more wait at once only where everything waits, for the same reason. Full of the longest
/// words it is some megabytes.
const PODS: usize = 1024;

/// Words kept of one pod: a diagnosis tells about as many.
const WORDS: usize = 8;

/// How long a process that starts holds up the runs for what was said before. Without those words a diagnosis that stands
/// would go and come again; but they are not worth more than a list takes.
const FIRST_LIST: Duration = Duration::from_secs(5);

/// The last words about each pod that waits. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodEvents {
    said: Arc<Mutex<Said>>,
    listed: Arc<watch::Sender<bool>>,
}

#[derive(Debug, Default)]
struct Said {
    pods: HashMap<String, Words>,
    /// Pods ever noted, to know the oldest.
    noted: u64,
}

#[derive(Debug)]
struct Words {
    number: u64,
    words: Vec<(Timestamp, PodWarning)>,
}

impl PodEvents {
    /// Waits until what was said before this process began is known, or has been waited for long enough.
    pub(crate) async fn ready(&self) {
        let mut listed = self.listed.subscribe();
        // The sender lives as long as this.
        let _ = timeout(FIRST_LIST, listed.wait_for(|listed| *listed)).await;
        self.listed.send_if_modified(|listed| !std::mem::replace(listed, true));
    }

    /// What is known of the pod with this UID.
    pub(crate) fn of(&self, uid: &str) -> Vec<PodWarning> {
        let said = self.lock();
        said.pods
            .get(uid)
            .into_iter()
            .flat_map(|of_pod| &of_pod.words)
            .map(|(_, word)| word.clone())
            .collect()
    }

    /// Follows the watch of pods; called with every event. One that has started or is gone needs no explanation.
    pub(crate) fn follow(&self, event: &watcher::Event<Pod>) {
        let over = match event {
            watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => (!waits(pod)).then_some(pod),
            watcher::Event::Delete(pod) => Some(pod),
            watcher::Event::Init | watcher::Event::InitDone => None,
        };
        if let Some(uid) = over.and_then(|pod| pod.metadata.uid.as_deref()) {
            self.lock().pods.remove(uid);
        }
    }

    /// Keeps what an event says, unless it is old or known; tells whether it was news.
    fn note(&self, at: Timestamp, word: PodWarning) -> bool {
        let mut said = self.lock();
        let uid = word.pod_uid.clone();
        if !said.pods.contains_key(&uid) {
            if said.pods.len() >= PODS {
                let oldest = said.pods.iter().min_by_key(|(_, of_pod)| of_pod.number);
                if let Some(oldest) = oldest.map(|(uid, _)| uid.clone()) {
                    said.pods.remove(&oldest);
                }
            }
            said.noted += 1;
        }
        let number = said.noted;
        let words = &mut said.pods.entry(uid).or_insert_with(|| Words { number, words: Vec::new() }).words;
        if let Some((seen, other)) = words.iter_mut().find(|(_, other)| other.subject() == word.subject()) {
            let news = at >= *seen && *other != word;
            if at >= *seen {
                (*seen, *other) = (at, word);
            }
            return news;
        }
        if words.len() >= WORDS {
            words.remove(0);
        }
        words.push((at, word));
        true
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The runs whose pods there is news of.
pub(crate) fn wakes(
    events: BoxStream<'static, Result<watcher::Event<Event>, watcher::Error>>,
    context: Arc<Context>,
) -> impl Stream<Item = ObjectRef<TaskRun>> + Send {
    let pods = context.view.pods.clone();
    // Without the pods nobody knows which events are about ours.
    let ready = async move { pods.wait_until_ready().await.is_ok() };
    let events = stream::once(ready).filter(|ready| std::future::ready(*ready)).flat_map({
        let mut events = Some(events);
        move |_| events.take().unwrap_or_else(|| stream::empty().boxed())
    });
    events.filter_map(move |event| {
        let owner = match event {
            Ok(watcher::Event::Apply(event) | watcher::Event::InitApply(event)) => heard(&context, &event),
            Ok(watcher::Event::InitDone) => {
                context.view.said.listed.send_replace(true);
                None
            }
            _ => None,
        };
        std::future::ready(owner)
    })
}

/// Notes an event; the run to wake, if it is news of one's pod.
fn heard(context: &Context, event: &Event) -> Option<ObjectRef<TaskRun>> {
    let about = &event.involved_object;
    let (name, uid) = (about.name.as_deref()?, about.uid.as_deref()?);
    let namespace = about.namespace.as_deref()?;
    let pod = ObjectRef::new(name).within(namespace);
    let cached = || context.view.pods.get(&pod).filter(|pod| pod.metadata.uid.as_deref() == Some(uid));
    // In this order: a pod that is no longer expected is in the cache.
    let expected = context.attempts.expects(namespace, name);
    if !expected && !cached().is_some_and(|pod| waits(&pod)) {
        return None;
    }
    let word = PodWarning::new(uid, event.reason.as_deref()?, event.message.as_deref()?)?;
    if !context.view.said.note(time(event), word) {
        return None;
    }
    // A pod that only now appears in the cache wakes its owner by that.
    let pod = cached()?;
    let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true))?;
    (owner.kind == "TaskRun")
        .then(|| ObjectRef::new(&owner.name).within(&pod.namespace().unwrap_or_default()))
}

/// When it was last seen; old and new recorders write that in different fields.
fn time(event: &Event) -> Timestamp {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
    let exact = series.or(event.event_time.as_ref()).map(|time| time.0);
    let coarse = event.last_timestamp.as_ref().or(event.metadata.creation_timestamp.as_ref());
    exact.max(coarse.map(|time| time.0)).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn waits(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, None | Some("" | "Pending")) && pod.metadata.deletion_timestamp.is_none()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn word(uid: &str, message: &str) -> PodWarning {
        PodWarning::new(uid, "FailedMount", message).expect("a warning")
    }

    fn pod(uid: &str, phase: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"uid": uid}, "status": {"phase": phase}})).expect("a pod")
    }

    #[test]
    fn the_same_words_are_no_news() {
        let events = PodEvents::default();
        assert!(events.note(at(1), word("u", "volume \"v\" : not found")));
        assert!(!events.note(at(2), word("u", "volume \"v\" : not found")));
        assert!(events.note(at(3), word("u", "volume \"v\" : no key")));
        assert!(!events.note(at(2), word("u", "volume \"v\" : not found")), "older than what is known");
        assert!(events.note(at(3), word("u", "volume \"w\" : not found")));
        assert_eq!(
            events.of("u"),
            [word("u", "volume \"v\" : no key"), word("u", "volume \"w\" : not found")]
        );
        assert_eq!(events.of("another"), []);
    }

    #[tokio::test(start_paused = true)]
    async fn runs_are_not_held_up_for_ever_and_only_once() {
        let events = PodEvents::default();
        let begun = tokio::time::Instant::now();
        events.ready().await;
        assert_eq!(begun.elapsed(), FIRST_LIST);
        events.clone().ready().await;
        assert_eq!(begun.elapsed(), FIRST_LIST);
    }

    #[test]
    fn words_and_pods_are_bounded() {
        let events = PodEvents::default();
        for number in 0..3 * WORDS {
            events.note(at(1), word("u", &format!("volume {number} : no")));
        }
        assert_eq!(events.of("u").len(), WORDS);
        assert_eq!(events.of("u").pop(), Some(word("u", &format!("volume {} : no", 3 * WORDS - 1))));
        for number in 0..PODS {
            events.note(at(1), word(&format!("u{number}"), "volume v : no"));
        }
        assert_eq!(events.lock().pods.len(), PODS);
        assert_eq!(events.of("u"), [], "the oldest goes first");
        assert_eq!(events.of("u0").len(), 1);
    }

    #[test]
    fn a_pod_that_started_or_went_is_forgotten() {
        let events = PodEvents::default();
        let over = [
            watcher::Event::Apply(pod("u", "Running")),
            watcher::Event::InitApply(pod("u", "Failed")),
            watcher::Event::Delete(pod("u", "Pending")),
        ];
        for over in over {
            events.note(at(1), word("u", "volume v : no"));
            events.follow(&watcher::Event::Apply(pod("u", "Pending")));
            assert_eq!(events.of("u").len(), 1);
            events.follow(&over);
            assert_eq!(events.of("u"), [], "{over:?}");
        }
    }

    #[test]
    fn the_newest_time_of_an_event_counts() {
        let event = |more: serde_json::Value| -> Event {
            let mut event = json!({"metadata": {"creationTimestamp": "1970-01-01T00:00:01Z"}});
            event["involvedObject"] = json!({});
            for (key, value) in more.as_object().into_iter().flatten() {
                event[key] = value.clone();
            }
            serde_json::from_value(event).expect("an event")
        };
        let series = json!({"count": 2, "lastObservedTime": "1970-01-01T00:00:09.000000Z"});
        for (fields, expected) in [
            (json!({}), 1),
            (json!({"lastTimestamp": "1970-01-01T00:00:05Z"}), 5),
            (json!({"eventTime": "1970-01-01T00:00:04.000000Z"}), 4),
            (json!({"eventTime": "1970-01-01T00:00:04.000000Z", "series": series}), 9),
        ] {
            assert_eq!(time(&event(fields)), at(expected));
        }
    }
}

//! Which events are kept: so many, and for so long after they last happened. Pure.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::ObjectKey;
use crate::object;

/// Events kept, the oldest dropped first: a count bounds memory however fast they come.
const EVENTS: usize = 10_000;

/// How long an event is kept after it last happened, as in Kubernetes.
const EVENT_AGE: SignedDuration = SignedDuration::from_hours(1);

/// The events of a server in the order they were last written.
#[derive(Clone, Debug, Default)]
pub(super) struct Events(VecDeque<ObjectKey>);

impl Events {
    /// The events of an earlier server, each with its resource version.
    pub(super) fn restored(mut events: Vec<(u64, ObjectKey)>) -> Self {
        events.sort_unstable();
        Self(events.into_iter().map(|(_, key)| key).collect())
    }

    /// Takes up a new event; the answer is one to be removed for it.
    pub(super) fn add(&mut self, key: ObjectKey) -> Option<ObjectKey> {
        self.0.push_back(key);
        if self.0.len() > EVENTS { self.0.pop_front() } else { None }
    }

    /// One that happens again is as good as new.
    pub(super) fn renew(&mut self, key: &ObjectKey) {
        self.forget(key);
        self.0.push_back(key.clone());
    }

    /// Takes up one again whose removal is taken back.
    pub(super) fn put_back(&mut self, key: &ObjectKey) {
        if !self.0.contains(key) {
            self.0.push_front(key.clone());
        }
    }

    /// Drops one.
    pub(super) fn forget(&mut self, key: &ObjectKey) {
        self.0.retain(|known| known != key);
    }

    /// The one that was written first.
    pub(super) fn oldest(&self) -> Option<&ObjectKey> {
        self.0.front()
    }

    /// Takes the one that was written first.
    pub(super) fn take_oldest(&mut self) -> Option<ObjectKey> {
        self.0.pop_front()
    }
}

/// Whether an event last happened within the time it is kept for.
pub(super) fn is_recent(event: &Value, now: Timestamp) -> bool {
    happened(event, now).is_some_and(|last| now.duration_since(last) < EVENT_AGE)
}

/// When an event last happened, or was made; what lies in the future is a client's mistake.
fn happened(event: &Value, now: Timestamp) -> Option<Timestamp> {
    let times = ["metadata.creationTimestamp", "lastTimestamp", "series.lastObservedTime"];
    times.iter().filter_map(|path| object::text(event, path).parse().ok()).filter(|time| *time <= now).max()
}

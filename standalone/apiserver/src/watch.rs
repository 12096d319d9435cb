//! Watches: where one starts, and what it shows of each change. Pure; the shell holds the stream open.

use std::{borrow::Cow, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    handle::{Call, Reply},
    object,
    print::{self, Include},
    read::{self, in_version, partial},
    route::{Format, Target},
    selector::Selector,
    state::{Delta, DeltaKind, State},
    status::{Failure, FieldError, Result},
    table::{Resource, ResourceId},
};

/// A watch that has begun: the events to send at once, and how later changes look to it.
///
/// The shell sends [`initial`](Self::initial), then [`event`](Self::event) of every delta made after the request
/// that planned it, in order, until [`timeout`](Self::timeout). All events are lines of JSON.
#[derive(Clone, Debug)]
pub struct WatchPlan {
    id: ResourceId,
    resource: Arc<Resource>,
    version: usize,
    namespace: Option<String>,
    selector: Selector,
    format: Format,
    /// What rows of tables carry.
    include: Include,
    /// Events to send first.
    pub initial: Vec<Vec<u8>>,
    /// The resourceVersion up to which `initial` has told everything.
    pub position: u64,
    /// Whether the client wants bookmarks.
    pub bookmarks: bool,
    /// When the watch ends, counted from its start; `None` leaves it to the shell.
    pub timeout: Option<Duration>,
}

/// Plans the watch a GET with `watch=true` asks for.
pub(crate) fn plan(state: &State, call: &Call<'_>, target: &Target) -> Result<Reply> {
    let mut plan = WatchPlan {
        id: target.id,
        resource: state.resource(target.id),
        version: target.version,
        namespace: target.namespace.clone(),
        selector: read::selector(state, call, target)?,
        format: call.format()?,
        include: Include::of(&call.query)?,
        initial: Vec::new(),
        position: state.version(),
        bookmarks: call.query.flag("allowWatchBookmarks"),
        timeout: call.query.number("timeoutSeconds")?.filter(|seconds| *seconds > 0).map(Duration::from_secs),
    };
    let now = call.context.now;
    let since = call.query.version()?.filter(|version| *version > 0);
    let initial_events = call.query.get("sendInitialEvents").map(|_| call.query.flag("sendInitialEvents"));
    check_options(call, initial_events.is_some())?;
    match (initial_events, since) {
        // What there is, is older than the client has seen.
        (Some(true), Some(since)) if since > state.version() => {
            let failure = Failure::version_too_large(since, state.version());
            return Ok(Reply::Watch(Box::new(plan.end(&failure))));
        }
        // Without a version a watch begins with what there is, as if it were just made.
        (Some(true), _) | (None, None) => {
            for (_, object) in state.objects(plan.id, plan.namespace.as_deref()) {
                if plan.selector.matches(object) {
                    let line = plan.line("ADDED", object, now);
                    plan.initial.push(line);
                }
            }
            if initial_events == Some(true) && plan.bookmarks {
                let line = plan.bookmark_line(state.version(), true);
                plan.initial.push(line);
            }
        }
        (Some(false), None) => {}
        (_, Some(since)) => {
            // A version from the future comes from a server that kept more than this one: the client must list
            // again, and this is how it is told.
            let changes = if since > state.version() { None } else { state.changes_since(since) };
            let Some(changes) = changes else {
                let message = format!("too old resource version: {since} ({})", state.version());
                return Ok(Reply::Watch(Box::new(plan.end(&Failure::expired(message)))));
            };
            let lines: Vec<_> = changes.filter_map(|delta| plan.event(delta, now)).collect();
            plan.initial = lines;
        }
    }
    Ok(Reply::Watch(Box::new(plan)))
}

fn check_options(call: &Call<'_>, initial_events: bool) -> Result<()> {
    let matching = call.query.text("resourceVersionMatch");
    let fault = if initial_events && matching != "NotOlderThan" {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        FieldError::forbidden("resourceVersionMatch", why)
    } else if !initial_events && !matching.is_empty() {
        let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
        FieldError::forbidden("resourceVersionMatch", why)
    } else {
        return Ok(());
    };
    Err(Failure::invalid_options("ListOptions", &[fault]))
}

impl WatchPlan {
    /// Whether a change can matter to this watch at all: a cheap check before [`event`](Self::event).
    pub fn concerns(&self, delta: &Delta) -> bool {
        delta.resource == self.id
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == delta.key.namespace)
    }

    /// The line that tells of a change, or `None` where it is outside of the watch. An object that enters the
    /// selector is ADDED, one that leaves it DELETED. `now` serves the ages in tables.
    pub fn event(&self, delta: &Delta, now: Timestamp) -> Option<Vec<u8>> {
        if !self.concerns(delta) {
            return None;
        }
        let before = delta.previous.as_ref().is_some_and(|object| self.selector.matches(object));
        let after = delta.kind != DeltaKind::Deleted && self.selector.matches(&delta.object);
        match (before, after) {
            (false, false) => None,
            (false, true) => Some(self.line("ADDED", &delta.object, now)),
            (true, true) => Some(self.line("MODIFIED", &delta.object, now)),
            (true, false) if delta.kind == DeltaKind::Deleted => {
                Some(self.line("DELETED", &delta.object, now))
            }
            (true, false) => {
                // It left: the client sees it as it knew it, under the version of the change.
                let mut object = (**delta.previous.as_ref()?).clone();
                let version = Value::from(delta.resource_version.to_string());
                object::set_meta(&mut object, "resourceVersion", Some(version));
                Some(self.line("DELETED", &object, now))
            }
        }
    }

    /// The line of a bookmark: everything up to this version has been told.
    pub fn bookmark(&self, version: u64) -> Vec<u8> {
        self.bookmark_line(version, false)
    }

    /// The ERROR line that makes a client list again, for one that was too slow to follow.
    pub fn expired() -> Vec<u8> {
        let failure =
            Failure::expired("too old resource version: the watch did not keep up with the changes");
        event_line("ERROR", &failure.to_value())
    }

    /// Nothing but the ERROR of a version that cannot be watched from. Kubernetes sends it in the stream, with HTTP
    /// status 200.
    fn end(mut self, failure: &Failure) -> Self {
        self.initial = vec![event_line("ERROR", &failure.to_value())];
        self.timeout = Some(Duration::ZERO);
        self.bookmarks = false;
        self
    }

    fn line(&self, kind: &str, stored: &Value, now: Timestamp) -> Vec<u8> {
        let object = match in_version(&self.resource, self.version, stored) {
            Ok(object) => object,
            Err(failure) => return event_line("ERROR", &failure.to_value()),
        };
        let object = match self.format {
            Format::Json => object,
            Format::Metadata => Cow::Owned(partial(&object)),
            Format::Table => {
                let one = std::slice::from_ref(&object);
                Cow::Owned(print::table(&self.resource, self.version, one, self.include, now))
            }
        };
        event_line(kind, &object)
    }

    fn bookmark_line(&self, version: u64, initial_events_end: bool) -> Vec<u8> {
        let version_of = &self.resource.versions[self.version];
        let mut object = match self.format {
            Format::Json => json!({ "apiVersion": version_of.api_version(), "kind": self.resource.kind }),
            Format::Metadata => json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata" }),
            Format::Table => {
                print::table(&self.resource, self.version, &[], self.include, Timestamp::UNIX_EPOCH)
            }
        };
        object["metadata"] = json!({ "resourceVersion": version.to_string(), "creationTimestamp": null });
        if initial_events_end {
            object["metadata"]["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        event_line("BOOKMARK", &object)
    }
}

fn event_line(kind: &str, object: &Value) -> Vec<u8> {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n").into_bytes()
}

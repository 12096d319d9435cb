//! The Kubernetes object that an event becomes. Pure.
//!
//! It is one of the core group, as upstream's are: those of `events.k8s.io` must not name a source, and tools and older
//! kubectl show who said something from there.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event as Object, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use crate::plan::Event;

/// Bytes that a name may have (DNS-1123 subdomain).
const MAX_NAME: usize = 253;

/// The object about `run`, unique by the nanosecond of `now`.
pub fn object(event: &Event, run: ObjectReference, now: Timestamp) -> Object {
    let unique = format!(".{:x}", now.as_nanosecond());
    let name = run.name.as_deref().unwrap_or_default();
    // Names are ASCII, and one that is cut must not end in a dot.
    let name = &name[..name.floor_char_boundary(MAX_NAME - unique.len())];
    let component = run.kind.clone();
    Object {
        metadata: ObjectMeta {
            name: Some(format!("{}{unique}", name.trim_end_matches(['.', '-']))),
            namespace: run.namespace.clone(),
            ..ObjectMeta::default()
        },
        type_: Some(if event.warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(event.reason.clone()),
        message: Some(event.message.clone()),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource { component: component.clone(), host: None }),
        reporting_component: component,
        involved_object: run,
        ..Object::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(name: &str) -> ObjectReference {
        ObjectReference {
            api_version: Some("tekton.dev/v1".to_owned()),
            kind: Some("TaskRun".to_owned()),
            namespace: Some("ns".to_owned()),
            name: Some(name.to_owned()),
            uid: Some("u-1".to_owned()),
            resource_version: Some("7".to_owned()),
            ..ObjectReference::default()
        }
    }

    #[test]
    fn an_event_says_who_of_what() {
        let event = Event { warning: true, reason: "Failed".into(), message: "bad".into() };
        let now = "2026-01-01T00:00:01.5Z".parse().expect("a time");
        assert_eq!(
            serde_json::to_value(object(&event, run("build"), now)).expect("JSON"),
            json!({
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": format!("build.{:x}", 1_767_225_601_500_000_000_i64), "namespace": "ns"},
                "type": "Warning",
                "reason": "Failed",
                "message": "bad",
                "count": 1,
                "firstTimestamp": "2026-01-01T00:00:01Z",
                "lastTimestamp": "2026-01-01T00:00:01Z",
                "source": {"component": "TaskRun"},
                "reportingComponent": "TaskRun",
                "involvedObject": {
                    "apiVersion": "tekton.dev/v1",
                    "kind": "TaskRun",
                    "namespace": "ns",
                    "name": "build",
                    "uid": "u-1",
                    "resourceVersion": "7",
                },
            })
        );
    }

    #[test]
    fn a_long_name_leaves_room() {
        let event = Event { warning: false, reason: "Started".into(), message: String::new() };
        let mut long = "x".repeat(236);
        long.push('.');
        long.push_str(&"y".repeat(16));
        let now = "2026-01-01T00:00:00Z".parse().expect("a time");
        let name = object(&event, run(&long), now).metadata.name.expect("a name");
        assert!(name.len() <= 253, "{name}");
        assert!(name.starts_with(&"x".repeat(236)) && !name.contains(".."), "{name}");
    }
}

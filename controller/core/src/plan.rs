//! A plan: what to write, in which order, and what to say about it. Nothing is left to choose when it is applied.

use std::time::Duration;

use http::Request;
use kube::core::params::{DeleteParams, GetParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Map, Value, json};

use crate::images::Wanted;
use crate::metrics::Measure;

/// The resources this engine writes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Resource {
    /// `pods`
    Pod,
    /// `persistentvolumeclaims`
    PersistentVolumeClaim,
    /// `taskruns.tekton.dev`
    TaskRun,
    /// `pipelineruns.tekton.dev`
    PipelineRun,
}

impl Resource {
    /// `apiVersion`, `kind` and the plural name.
    pub fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Pod => ("v1", "Pod", "pods"),
            Self::PersistentVolumeClaim => ("v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
            Self::TaskRun => ("tekton.dev/v1", "TaskRun", "taskruns"),
            Self::PipelineRun => ("tekton.dev/v1", "PipelineRun", "pipelineruns"),
        }
    }

    fn collection(self, namespace: &str) -> String {
        let (api_version, _, plural) = self.names();
        let prefix = if api_version.contains('/') { "/apis" } else { "/api" };
        format!("{prefix}/{api_version}/namespaces/{namespace}/{plural}")
    }
}

/// One object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    /// Its resource.
    pub resource: Resource,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Target {
    /// The request that reads it.
    pub fn read(&self) -> Result<Request<Vec<u8>>, kube::core::request::Error> {
        kube::core::Request::new(self.resource.collection(&self.namespace))
            .get(&self.name, &GetParams::default())
    }
}

/// One request to the API server. Every write may be sent twice with the effect of once.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Creates a child under its derived name. `AlreadyExists` is success when the one there has the same controller.
    Create {
        /// Which.
        target: Target,
        /// The object, complete with `apiVersion`, `kind` and its controller reference.
        object: Value,
    },
    /// A JSON merge patch.
    Patch {
        /// Which.
        target: Target,
        /// `Some("status")`, or the object itself.
        subresource: Option<&'static str>,
        /// The patch; with `metadata.resourceVersion` it is refused on a stale object.
        patch: Value,
    },
    /// Deletes an object; one that is gone already is success.
    Delete {
        /// Which.
        target: Target,
        /// Only this incarnation.
        uid: Option<String>,
    },
}

impl Write {
    /// What is written to.
    pub fn target(&self) -> &Target {
        match self {
            Self::Create { target, .. } | Self::Patch { target, .. } | Self::Delete { target, .. } => target,
        }
    }

    /// The request that carries it out: the same bytes for a process and for the simulation.
    pub fn request(&self) -> Result<Request<Vec<u8>>, kube::core::request::Error> {
        let target = self.target();
        let request = kube::core::Request::new(target.resource.collection(&target.namespace));
        match self {
            Self::Create { object, .. } => {
                request.create(&PostParams::default(), object.to_string().into_bytes())
            }
            Self::Patch { subresource: Some(subresource), patch, .. } => request.patch_subresource(
                subresource,
                &target.name,
                &PatchParams::default(),
                &Patch::Merge(patch),
            ),
            Self::Patch { subresource: None, patch, .. } => {
                request.patch(&target.name, &PatchParams::default(), &Patch::Merge(patch))
            }
            Self::Delete { uid, .. } => {
                let preconditions =
                    uid.as_ref().map(|uid| Preconditions { uid: Some(uid.clone()), resource_version: None });
                request.delete(&target.name, &DeleteParams { preconditions, ..DeleteParams::default() })
            }
        }
    }
}

/// A Kubernetes Event about the run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event {
    /// `Warning` instead of `Normal`.
    pub warning: bool,
    /// The condition's reason, usually.
    pub reason: String,
    /// What people read.
    pub message: String,
}

/// Why something has not happened yet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Waiting {
    /// The pipeline task, step or object that waits.
    pub subject: String,
    /// What it waits for.
    pub reason: String,
}

/// The outcome of one decision. Empty when there is nothing to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In this order; children come before `status`.
    pub writes: Vec<Write>,
    /// The status write, made after all others; none when the status is right as it stands.
    pub status: Option<Write>,
    /// Published after the status is written.
    pub events: Vec<Event>,
    /// Recorded after the status is written.
    pub measures: Vec<Measure>,
    /// When to look again although nothing has changed: the next timeout.
    pub requeue: Option<Duration>,
    /// What is being waited for, for `describe` and tests.
    pub report: Vec<Waiting>,
    /// The images it waits for. They are looked up meanwhile, and remembered for as long as plans name them.
    pub images: Vec<Wanted>,
}

impl Plan {
    /// Nothing would change.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.status.is_none() && self.events.is_empty()
    }
}

/// The merge patch on `/status` that turns `before` into `after`, refused by the API server when `resource_version` is
/// no longer the newest; `None` when they are equal.
pub fn status_patch(
    target: Target,
    resource_version: Option<&str>,
    before: &Value,
    after: &Value,
) -> Option<Write> {
    let status = merge_diff(before, after)?;
    let mut patch = json!({ "status": status });
    if let Some(version) = resource_version {
        patch["metadata"] = json!({ "resourceVersion": version });
    }
    Some(Write::Patch { target, subresource: Some("status"), patch })
}

/// The JSON merge patch (RFC 7386) from `before` to `after`. Written here because json-patch only diffs to RFC 6902.
fn merge_diff(before: &Value, after: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        return (before != after).then(|| after.clone());
    };
    let mut patch = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        match old.get(key) {
            None => patch.insert(key.clone(), value.clone()),
            Some(previous) => match merge_diff(previous, value) {
                None => continue,
                Some(change) => patch.insert(key.clone(), change),
            },
        };
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target { resource: Resource::TaskRun, namespace: "ns".into(), name: "run".into() }
    }

    #[test]
    fn equal_statuses_need_no_patch() {
        assert_eq!(status_patch(target(), Some("1"), &json!({"a": [1]}), &json!({"a": [1]})), None);
    }

    #[test]
    fn a_patch_applied_gives_the_new_status() {
        let before = json!({"gone": 1, "kept": {"x": 1, "y": 2}, "list": [1, 2]});
        let after = json!({"kept": {"x": 1, "y": 3}, "list": [2], "new": {"z": true}});
        let Some(Write::Patch { patch, subresource, .. }) =
            status_patch(target(), Some("7"), &before, &after)
        else {
            panic!("a difference makes a patch");
        };
        assert_eq!(subresource, Some("status"));
        assert_eq!(
            patch,
            json!({
                "metadata": {"resourceVersion": "7"},
                "status": {"gone": null, "kept": {"y": 3}, "list": [2], "new": {"z": true}}
            })
        );
    }

    #[test]
    fn requests_go_to_the_resource() {
        let write = Write::Delete { target: target(), uid: Some("u".into()) };
        let request = write.request().expect("a request");
        assert_eq!(request.uri().path(), "/apis/tekton.dev/v1/namespaces/ns/taskruns/run");
        assert_eq!(request.method(), http::Method::DELETE);
        let body: Value = serde_json::from_slice(request.body()).expect("JSON");
        assert_eq!(body["preconditions"]["uid"], "u");
    }
}

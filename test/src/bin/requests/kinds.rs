//! The kinds that cases are made for, each with what a valid object of it looks like and a field that may change. No IO.
//!
//! Objects say everything that a server or a webhook would fill in, unless filling in is what a case is about: so the
//! answers depend on neither our webhook nor the cluster's controllers.

use serde_json::{Value, json};

/// One kind of object.
pub(crate) struct Kind {
    /// `v1`, or group and version.
    pub(crate) api: &'static str,
    /// For example `ConfigMap`.
    pub(crate) title: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) namespaced: bool,
    /// Whether it has a status subresource, and what may be written there.
    pub(crate) status: Option<fn(u64) -> Value>,
    /// Everything but `apiVersion`, `kind` and `metadata`.
    content: fn() -> Value,
    /// A field that may change: the parent's keys, the key, and its first, second and third value.
    pub(crate) change: (&'static [&'static str], &'static str, fn(u64) -> Value),
}

impl Kind {
    /// Whether our webhook judges it, which names get to see before the server does; not every cluster has it.
    pub(crate) fn ours(&self) -> bool {
        self.api.starts_with("tekton.dev/")
    }

    /// The path of the collection.
    pub(crate) fn list(&self) -> String {
        let root = if self.api.contains('/') { "apis" } else { "api" };
        let namespace = if self.namespaced { "namespaces/<ns>/" } else { "" };
        format!("/{root}/{}/{namespace}{}", self.api, self.plural)
    }

    /// The path of the collection of all namespaces.
    pub(crate) fn everywhere(&self) -> String {
        self.list().replace("namespaces/<ns>/", "")
    }

    /// The path of one object, with what follows it.
    pub(crate) fn path(&self, name: &str, rest: &str) -> String {
        format!("{}/{}{rest}", self.list(), self.name(name))
    }

    /// Objects outside of namespaces carry the namespace in their names, or cases would meet.
    pub(crate) fn name(&self, name: &str) -> String {
        if self.namespaced { name.to_owned() } else { format!("<ns>-{name}") }
    }

    /// A minimal object.
    pub(crate) fn object(&self, name: &str) -> Value {
        self.with(&json!({ "name": self.name(name), "labels": { "corpus": "<ns>" } }))
    }

    /// An object with this metadata.
    pub(crate) fn with(&self, metadata: &Value) -> Value {
        let mut object = (self.content)();
        object["apiVersion"] = json!(self.api);
        object["kind"] = json!(self.title);
        object["metadata"] = metadata.clone();
        object
    }

    /// An object with this name and these labels.
    pub(crate) fn labelled(&self, name: &str, labels: &Value) -> Value {
        self.with(&json!({ "name": self.name(name), "labels": labels }))
    }

    /// A merge patch that sets the field to its n-th value.
    pub(crate) fn merge(&self, n: u64) -> Value {
        let (parents, key, value) = self.change;
        let leaf = json!({ key: value(n) });
        parents.iter().rev().fold(leaf, |inside, parent| json!({ *parent: inside }))
    }

    /// Sets the field of an object to its n-th value.
    pub(crate) fn set(&self, object: &mut Value, n: u64) {
        let (parents, key, value) = self.change;
        let parent = parents.iter().fold(object, |value, key| &mut value[*key]);
        parent[key] = value(n);
    }

    /// The field's JSON pointer.
    pub(crate) fn pointer(&self) -> String {
        let (parents, key, _) = self.change;
        format!("/{}", parents.iter().copied().chain([key]).collect::<Vec<_>>().join("/"))
    }
}

fn text(n: u64) -> Value {
    json!(format!("v{n}"))
}

const ANNOTATION: (&[&str], &str, fn(u64) -> Value) =
    (&["metadata", "annotations"], "example.dev-note", text);

/// All of them.
pub(crate) static KINDS: &[Kind] = &[
    Kind {
        api: "v1",
        title: "ConfigMap",
        plural: "configmaps",
        namespaced: true,
        status: None,
        content: || json!({ "data": { "key": "v0", "other": "kept" } }),
        change: (&["data"], "key", text),
    },
    Kind {
        api: "v1",
        title: "Secret",
        plural: "secrets",
        namespaced: true,
        status: None,
        content: || json!({ "type": "Opaque", "data": { "key": "djA=", "other": "a2VwdA==" } }),
        change: (&["data"], "key", |n| {
            json!(["djA=", "djE=", "djI=", "djM="][usize::try_from(n % 4).unwrap_or(0)])
        }),
    },
    Kind {
        api: "v1",
        title: "Pod",
        plural: "pods",
        namespaced: true,
        status: Some(|n| json!({ "phase": "Running", "message": format!("v{n}") })),
        content: || {
            // A scheduler that nobody runs: the pod stays as it is.
            json!({ "spec": {
                "schedulerName": "nobody", "activeDeadlineSeconds": 1000, "automountServiceAccountToken": false,
                "containers": [{ "name": "main", "image": "example.dev/image:1" }],
            } })
        },
        change: (&["spec"], "activeDeadlineSeconds", |n| json!(1000 - n)),
    },
    Kind {
        api: "v1",
        title: "PersistentVolumeClaim",
        plural: "persistentvolumeclaims",
        namespaced: true,
        // A controller of the cluster writes it, too, whenever it likes.
        status: None,
        content: || {
            json!({ "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } },
                "storageClassName": "",
            } })
        },
        change: ANNOTATION,
    },
    Kind {
        api: "v1",
        title: "Event",
        plural: "events",
        namespaced: true,
        status: None,
        content: || {
            json!({
                "involvedObject": { "apiVersion": "v1", "kind": "Pod", "name": "p", "namespace": "<ns>" },
                "type": "Normal", "reason": "Tested", "message": "v0", "count": 1,
                "firstTimestamp": "2001-02-03T04:05:06Z", "lastTimestamp": "2001-02-03T04:05:06Z",
                "source": { "component": "corpus" },
            })
        },
        change: (&[], "message", text),
    },
    Kind {
        api: "coordination.k8s.io/v1",
        title: "Lease",
        plural: "leases",
        namespaced: true,
        status: None,
        content: || {
            json!({ "spec": {
                "holderIdentity": "v0", "leaseDurationSeconds": 12, "leaseTransitions": 1,
                "renewTime": "2001-02-03T04:05:06.000000Z", "acquireTime": "2001-02-03T04:05:06.000000Z",
            } })
        },
        change: (&["spec"], "holderIdentity", text),
    },
    Kind {
        api: "rbac.authorization.k8s.io/v1",
        title: "Role",
        plural: "roles",
        namespaced: true,
        status: None,
        content: || json!({ "rules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] }] }),
        change: (
            &[],
            "rules",
            |n| json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get", format!("v{n}")] }]),
        ),
    },
    Kind {
        api: "rbac.authorization.k8s.io/v1",
        title: "RoleBinding",
        plural: "rolebindings",
        namespaced: true,
        status: None,
        content: || {
            json!({
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader" },
                "subjects": [{ "kind": "ServiceAccount", "name": "default", "namespace": "<ns>" }],
            })
        },
        change: ANNOTATION,
    },
    Kind {
        api: "rbac.authorization.k8s.io/v1",
        title: "ClusterRole",
        plural: "clusterroles",
        namespaced: false,
        status: None,
        content: || json!({ "rules": [{ "nonResourceURLs": ["/example"], "verbs": ["get"] }] }),
        change: (&[], "rules", |n| json!([{ "nonResourceURLs": [format!("/v{n}")], "verbs": ["get"] }])),
    },
    Kind {
        api: "rbac.authorization.k8s.io/v1",
        title: "ClusterRoleBinding",
        plural: "clusterrolebindings",
        namespaced: false,
        status: None,
        content: || {
            json!({
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "example" },
                "subjects": [{ "kind": "User", "name": "someone", "apiGroup": "rbac.authorization.k8s.io" }],
            })
        },
        change: ANNOTATION,
    },
    Kind {
        api: "tekton.dev/v1",
        title: "Task",
        plural: "tasks",
        namespaced: true,
        status: None,
        content: || json!({ "spec": { "description": "v0", "steps": [{ "name": "s", "image": "example.dev/image:1", "script": "true" }] } }),
        change: (&["spec"], "description", text),
    },
    Kind {
        api: "tekton.dev/v1beta1",
        title: "CustomRun",
        plural: "customruns",
        namespaced: true,
        status: Some(|n| json!({ "extraFields": { "n": format!("v{n}") } })),
        content: || {
            json!({ "spec": {
                "customRef": { "apiVersion": "example.dev/v1", "kind": "Example", "name": "e" },
                "serviceAccountName": "default", "retries": 0,
            } })
        },
        change: (&["spec"], "retries", |n| json!(n)),
    },
];

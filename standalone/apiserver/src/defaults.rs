//! What Kubernetes fills in where its own kinds leave something open, and what its Go types always write. Pure.
//!
//! The values are those of the `SetDefaults_` functions of k8s.io/kubernetes 1.36, as a table by type, so that a pod and
//! a pod template are the same to it; what depends on other fields follows below it. As in Kubernetes, the one who wrote
//! the object owns what is filled in here, and nobody owns what admission adds later.

use serde_json::{Map, Value, json};

use crate::types::Shape;

/// What a field is when nobody says.
#[derive(Clone, Copy, Debug)]
enum Filler {
    /// This text; in Go an empty one is as good as none.
    Text(&'static str),
    /// This number, of a field in which Go's types tell 0 from nothing.
    Number(i64),
    /// This number, of a field in which 0 is nothing.
    Count(i64),
    Flag(bool),
    /// A struct with nothing in it yet.
    Struct,
    /// Written although there is nothing, as Go does with text that is not `omitempty`.
    Empty,
    /// Written although there is nothing, as Go does with times and some lists.
    Null,
}

use Filler::{Count, Empty, Flag, Null, Number, Struct, Text};

impl Filler {
    fn value(self) -> Value {
        match self {
            Text(text) => Value::from(text),
            Number(number) | Count(number) => Value::from(number),
            Flag(flag) => Value::from(flag),
            Struct => json!({}),
            Empty => Value::from(""),
            Null => Value::Null,
        }
    }

    /// Whether what is there counts as nothing.
    fn replaces(self, known: Option<&Value>) -> bool {
        match (self, known) {
            (_, None | Some(Value::Null)) => true,
            (Text(_), Some(Value::String(text))) => text.is_empty(),
            (Count(_), Some(Value::Number(number))) => number.as_i64() == Some(0),
            _ => false,
        }
    }
}

/// `0644`, for files of volumes.
const MODE: Filler = Number(0o644);

const RBAC: &str = "rbac.authorization.k8s.io";

/// By type and field. The types are in order: they are looked up in each object of each write.
static FIELDS: &[(&str, &[(&str, Filler)])] = &[
    ("ClusterRole", &[("rules", Null)]),
    ("ConfigMapVolumeSource", &[("defaultMode", MODE)]),
    ("Container", CONTAINER),
    ("ContainerPort", &[("protocol", Text("TCP"))]),
    ("ContainerStateRunning", &[("startedAt", Null)]),
    ("ContainerStateTerminated", &[("exitCode", Number(0)), ("finishedAt", Null), ("startedAt", Null)]),
    (
        "ContainerStatus",
        &[
            ("image", Empty),
            ("imageID", Empty),
            ("lastState", Struct),
            ("ready", Flag(false)),
            ("restartCount", Number(0)),
            ("state", Struct),
        ],
    ),
    ("DownwardAPIVolumeSource", &[("defaultMode", MODE)]),
    ("EphemeralContainer", CONTAINER),
    (
        // In either of its groups, which have other names for the same fields.
        "Event",
        &[
            ("deprecatedFirstTimestamp", Null),
            ("deprecatedLastTimestamp", Null),
            ("deprecatedSource", Struct),
            ("eventTime", Null),
            ("firstTimestamp", Null),
            ("involvedObject", Struct),
            ("lastTimestamp", Null),
            ("regarding", Struct),
            ("reportingComponent", Empty),
            ("reportingInstance", Empty),
            ("source", Struct),
        ],
    ),
    ("GRPCAction", &[("service", Empty)]),
    ("HTTPGetAction", &[("path", Text("/")), ("scheme", Text("HTTP"))]),
    ("HostPathVolumeSource", &[("type", Empty)]),
    ("Lease", &[("spec", Struct)]),
    ("LimitRange", &[("spec", Struct)]),
    ("NamespaceStatus", &[("phase", Text("Active"))]),
    ("ObjectFieldSelector", &[("apiVersion", Text("v1"))]),
    ("PersistentVolumeClaim", &[("status", Struct)]),
    ("PersistentVolumeClaimSpec", &[("resources", Struct), ("volumeMode", Text("Filesystem"))]),
    ("PersistentVolumeClaimStatus", &[("phase", Text("Pending"))]),
    ("Pod", &[("spec", Struct), ("status", Struct)]),
    ("PodCondition", &[("lastProbeTime", Null), ("lastTransitionTime", Null)]),
    (
        "PodSpec",
        &[
            ("dnsPolicy", Text("ClusterFirst")),
            ("restartPolicy", Text("Always")),
            ("schedulerName", Text("default-scheduler")),
            ("securityContext", Struct),
            ("terminationGracePeriodSeconds", Number(30)),
        ],
    ),
    (
        "Probe",
        &[
            ("failureThreshold", Count(3)),
            ("periodSeconds", Count(10)),
            ("successThreshold", Count(1)),
            ("timeoutSeconds", Count(1)),
        ],
    ),
    ("ProjectedVolumeSource", &[("defaultMode", MODE)]),
    ("ResourceFieldSelector", &[("divisor", Text("0"))]),
    ("ResourceQuota", &[("spec", Struct), ("status", Struct)]),
    ("Role", &[("rules", Null)]),
    ("RoleRef", &[("apiGroup", Text(RBAC))]),
    ("RollingUpdateStatefulSetStrategy", &[("partition", Number(0))]),
    ("Secret", &[("type", Text("Opaque"))]),
    ("SecretVolumeSource", &[("defaultMode", MODE)]),
    ("Service", &[("spec", Struct), ("status", Struct)]),
    ("ServiceAccountTokenProjection", &[("expirationSeconds", Number(3600))]),
    ("ServicePort", &[("protocol", Text("TCP"))]),
    ("ServiceSpec", &[("sessionAffinity", Text("None")), ("type", Text("ClusterIP"))]),
    ("ServiceStatus", &[("loadBalancer", Struct)]),
    ("StatefulSet", &[("spec", Struct), ("status", Struct)]),
    (
        "StatefulSetPersistentVolumeClaimRetentionPolicy",
        &[("whenDeleted", Text("Retain")), ("whenScaled", Text("Retain"))],
    ),
    (
        "StatefulSetSpec",
        &[
            ("persistentVolumeClaimRetentionPolicy", Struct),
            ("podManagementPolicy", Text("OrderedReady")),
            ("replicas", Number(1)),
            ("revisionHistoryLimit", Number(10)),
            ("updateStrategy", Struct),
        ],
    ),
    ("StatefulSetStatus", &[("availableReplicas", Number(0)), ("replicas", Number(0))]),
    ("StatefulSetUpdateStrategy", &[("type", Text("RollingUpdate"))]),
];

const CONTAINER: &[(&str, Filler)] = &[
    ("resources", Struct),
    ("terminationMessagePath", Text("/dev/termination-log")),
    ("terminationMessagePolicy", Text("File")),
];

/// Fills in what a built-in kind leaves open. Others are left alone: their schemas say what they are by default.
pub(crate) fn fill(object: &mut Value, shape: Shape<'_>) {
    if shape.is_core() {
        visit(object, shape);
    }
}

fn visit(value: &mut Value, shape: Shape<'_>) {
    match value {
        Value::Object(map) => {
            if let Ok(index) = FIELDS.binary_search_by_key(&shape.name(), |(name, _)| name) {
                for (field, filler) in FIELDS[index].1 {
                    if filler.replaces(map.get(*field)) && shape.field(field).is_some() {
                        map.insert((*field).to_owned(), filler.value());
                    }
                }
            }
            depending(map, shape.name());
            for (key, value) in map {
                // Nothing in metadata has a default, and much of it is `managedFields`.
                if (value.is_object() || value.is_array())
                    && key != "metadata"
                    && let Some(shape) = shape.field(key).filter(|shape| shape.is_known())
                {
                    visit(value, shape);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| visit(value, shape.items())),
        _ => {}
    }
}

/// What a struct's fields are by default where that depends on its other fields.
fn depending(map: &mut Map<String, Value>, name: &str) {
    match name {
        "Container" | "EphemeralContainer" => pull_policy(map, "imagePullPolicy", "image"),
        "ImageVolumeSource" => pull_policy(map, "pullPolicy", "reference"),
        "NodeStatus" => copy(map, "capacity", "allocatable"),
        "Pod" => pod(map),
        "PodSpec" => account_alias(map),
        "PodStatus" => addresses(map),
        "ServicePort" => copy(map, "port", "targetPort"),
        "ServiceSpec" => service(map),
        "StatefulSetUpdateStrategy" if map.get("type").is_some_and(|kind| kind == "RollingUpdate") => {
            absent(map, "rollingUpdate", || json!({}));
        }
        "Subject" => {
            let group = match map.get("kind").and_then(Value::as_str) {
                Some("User" | "Group") => RBAC,
                _ => return,
            };
            if Text(group).replaces(map.get("apiGroup")) {
                map.insert("apiGroup".into(), Value::from(group));
            }
        }
        // Whatever its source is, that is one more field than the name.
        "Volume" if map.len() == usize::from(map.contains_key("name")) => {
            map.insert("emptyDir".into(), json!({}));
        }
        _ => {}
    }
}

fn absent(map: &mut Map<String, Value>, field: &str, value: impl FnOnce() -> Value) {
    if map.get(field).is_none_or(Value::is_null) {
        map.insert(field.to_owned(), value());
    }
}

fn copy(map: &mut Map<String, Value>, from: &str, into: &str) {
    if let Some(value) = map.get(from).cloned() {
        absent(map, into, || value);
    }
}

/// Images that may be another tomorrow are asked for each time.
fn pull_policy(map: &mut Map<String, Value>, policy: &str, image: &str) {
    let image = map.get(image).and_then(Value::as_str).unwrap_or_default();
    let filler = Text(if is_latest(image) { "Always" } else { "IfNotPresent" });
    if filler.replaces(map.get(policy)) {
        map.insert(policy.to_owned(), filler.value());
    }
}

/// Whether a reference means the tag `latest`: by name, or by neither tag nor digest.
fn is_latest(image: &str) -> bool {
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    // Before the last slash, a colon is that of a registry's port.
    let last = name.rsplit('/').next().unwrap_or_default();
    last.split_once(':').map_or(!digest && !image.is_empty(), |(_, tag)| tag == "latest")
}

/// The name of the account has an older name, which follows it.
fn account_alias(spec: &mut Map<String, Value>) {
    let given =
        |key: &str| spec.get(key).and_then(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned);
    if let Some(name) = given("serviceAccountName").or_else(|| given("serviceAccount")) {
        for key in ["serviceAccountName", "serviceAccount"] {
            spec.insert(key.into(), Value::from(name.as_str()));
        }
    }
}

/// A pod's address is the first of its addresses.
fn addresses(status: &mut Map<String, Value>) {
    let address = status.get("podIP").and_then(Value::as_str).filter(|address| !address.is_empty());
    if let Some(address) = address.map(|address| json!([{ "ip": address }])) {
        absent(status, "podIPs", || address);
    }
}

/// What holds for pods and not for templates of pods.
fn pod(pod: &mut Map<String, Value>) {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    absent(spec, "enableServiceLinks", || Value::from(true));
    let on_host = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["containers", "initContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for container in containers.filter_map(Value::as_object_mut) {
            requests(container);
            let ports = container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten();
            for port in ports.filter_map(Value::as_object_mut).filter(|_| on_host) {
                if Count(0).replaces(port.get("hostPort")) {
                    port.remove("hostPort");
                    copy(port, "containerPort", "hostPort");
                }
            }
        }
    }
}

/// What a container may have of something is what it asks for.
fn requests(container: &mut Map<String, Value>) {
    let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) else { return };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    absent(resources, "requests", || json!({}));
    for (name, quantity) in limits {
        if let Some(requests) = resources["requests"].as_object_mut() {
            absent(requests, &name, || quantity);
        }
    }
}

fn service(spec: &mut Map<String, Value>) {
    let kind = spec.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        absent(spec, "internalTrafficPolicy", || Value::from("Cluster"));
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        absent(spec, "externalTrafficPolicy", || Value::from("Cluster"));
    }
    if kind == "LoadBalancer" {
        absent(spec, "allocateLoadBalancerNodePorts", || Value::from(true));
    }
    if spec.get("sessionAffinity").is_some_and(|affinity| affinity == "ClientIP") {
        // Three hours.
        absent(spec, "sessionAffinityConfig", || json!({ "clientIP": { "timeoutSeconds": 10800 } }));
    }
}

#[cfg(test)]
mod tests;

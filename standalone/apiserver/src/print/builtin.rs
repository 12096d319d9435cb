//! The columns of built-in kinds that no JSON path yields: counts, joined lists, what a pod is doing. Pure.
//!
//! Names, order and words are those of kube-apiserver's printers (k8s.io/kubernetes pkg/printers), as of 1.36.

use jiff::Timestamp;
use serde_json::Value;

use super::since;
use crate::object::{self, at, text};

/// How a kind is printed.
pub(super) struct Printer {
    /// Name, type, format and priority; above zero for `-o wide` only.
    pub(super) columns: &'static [(&'static str, &'static str, &'static str, u8)],
    /// The cells of one object.
    pub(super) cells: fn(&Value, Timestamp) -> Vec<Value>,
}

const NAME: (&str, &str, &str, u8) = ("Name", "string", "name", 0);
const AGE: (&str, &str, &str, u8) = ("Age", "string", "", 0);

const fn plain(name: &'static str) -> (&'static str, &'static str, &'static str, u8) {
    (name, "string", "", 0)
}

const fn wide(name: &'static str) -> (&'static str, &'static str, &'static str, u8) {
    (name, "string", "", 1)
}

/// The printer of a kind that has one of its own.
pub(super) fn printer(plural: &str) -> Option<Printer> {
    let printer = |columns, cells| Some(Printer { columns, cells });
    match plural {
        "clusterrolebindings" | "rolebindings" => printer(
            &const { [NAME, plain("Role"), AGE, wide("Users"), wide("Groups"), wide("ServiceAccounts")] },
            binding,
        ),
        "clusterroles" | "roles" => printer(&const { [NAME, ("Created At", "date", "", 0)] }, |role, _| {
            vec![name(role), field(role, "metadata.creationTimestamp")]
        }),
        "configmaps" => printer(&const { [NAME, plain("Data"), AGE] }, |map, now| {
            vec![name(map), Value::from(entries(map, "data") + entries(map, "binaryData")), age(map, now)]
        }),
        "events" => printer(
            &const {
                [
                    plain("Last Seen"),
                    plain("Type"),
                    plain("Reason"),
                    plain("Object"),
                    wide("Subobject"),
                    wide("Source"),
                    plain("Message"),
                    wide("First Seen"),
                    wide("Count"),
                    ("Name", "string", "name", 1),
                ]
            },
            event,
        ),
        "namespaces" => printer(&const { [NAME, plain("Status"), AGE] }, |namespace, now| {
            vec![name(namespace), field(namespace, "status.phase"), age(namespace, now)]
        }),
        "nodes" => printer(
            &const {
                [
                    NAME,
                    plain("Status"),
                    plain("Roles"),
                    AGE,
                    plain("Version"),
                    wide("Internal-IP"),
                    wide("External-IP"),
                    wide("OS-Image"),
                    wide("Kernel-Version"),
                    wide("Container-Runtime"),
                ]
            },
            node,
        ),
        "persistentvolumeclaims" => printer(
            &const {
                [
                    NAME,
                    plain("Status"),
                    plain("Volume"),
                    plain("Capacity"),
                    plain("Access Modes"),
                    plain("StorageClass"),
                    plain("VolumeAttributesClass"),
                    AGE,
                    wide("VolumeMode"),
                ]
            },
            claim,
        ),
        "pods" => printer(
            &const {
                [
                    NAME,
                    plain("Ready"),
                    plain("Status"),
                    plain("Restarts"),
                    AGE,
                    wide("IP"),
                    wide("Node"),
                    wide("Nominated Node"),
                    wide("Readiness Gates"),
                ]
            },
            pod,
        ),
        "secrets" => printer(&const { [NAME, plain("Type"), plain("Data"), AGE] }, |secret, now| {
            vec![name(secret), field(secret, "type"), Value::from(entries(secret, "data")), age(secret, now)]
        }),
        "serviceaccounts" => printer(&const { [NAME, plain("Secrets"), AGE] }, |account, now| {
            vec![name(account), Value::from(items(account, "secrets").count()), age(account, now)]
        }),
        _ => None,
    }
}

fn name(object: &Value) -> Value {
    Value::from(object::name(object))
}

fn field(object: &Value, path: &str) -> Value {
    Value::from(text(object, path))
}

fn age(object: &Value, now: Timestamp) -> Value {
    Value::from(since(text(object, "metadata.creationTimestamp"), now))
}

fn entries(object: &Value, path: &str) -> usize {
    at(object, path).and_then(Value::as_object).map_or(0, serde_json::Map::len)
}

fn items<'a>(
    object: &'a Value,
    path: &str,
) -> impl DoubleEndedIterator<Item = &'a Value> + ExactSizeIterator {
    at(object, path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default().iter()
}

fn number(object: &Value, path: &str) -> i64 {
    at(object, path).and_then(Value::as_i64).unwrap_or_default()
}

fn or_none(text: &str) -> Value {
    Value::from(if text.is_empty() { "<none>" } else { text })
}

fn is_true(object: &Value, conditions: &str, kind: &str) -> bool {
    items(object, conditions).any(|found| text(found, "type") == kind && text(found, "status") == "True")
}

fn binding(binding: &Value, now: Timestamp) -> Vec<Value> {
    let role = format!("{}/{}", text(binding, "roleRef.kind"), text(binding, "roleRef.name"));
    let subjects = |kind: &str| {
        let found = items(binding, "subjects").filter(|subject| text(subject, "kind") == kind);
        let names = found.map(|subject| match kind {
            "ServiceAccount" => format!("{}/{}", text(subject, "namespace"), text(subject, "name")),
            _ => text(subject, "name").to_owned(),
        });
        Value::from(names.collect::<Vec<_>>().join(", "))
    };
    let people = ["User", "Group", "ServiceAccount"].map(subjects);
    [name(binding), Value::from(role), age(binding, now)].into_iter().chain(people).collect()
}

/// In either of the two groups that events live in.
fn event(event: &Value, now: Timestamp) -> Vec<Value> {
    let either = |core: &str, other: &str| match text(event, core) {
        "" => text(event, other).to_owned(),
        found => found.to_owned(),
    };
    let time = |core: &str, other: &str| match either(core, other) {
        none if none.is_empty() => text(event, "eventTime").to_owned(),
        found => found,
    };
    let last = match text(event, "series.lastObservedTime") {
        "" => time("lastTimestamp", "deprecatedLastTimestamp"),
        last => last.to_owned(),
    };
    let kind = either("involvedObject.kind", "regarding.kind").to_lowercase();
    let component = match either("source.component", "deprecatedSource.component") {
        none if none.is_empty() => either("reportingComponent", "reportingController"),
        found => found,
    };
    let source = match either("source.host", "deprecatedSource.host") {
        none if none.is_empty() => component,
        host => format!("{component}, {host}"),
    };
    let count = [number(event, "count"), number(event, "deprecatedCount"), number(event, "series.count"), 1]
        .into_iter()
        .find(|count| *count > 0);
    vec![
        Value::from(since(&last, now)),
        field(event, "type"),
        field(event, "reason"),
        Value::from(format!("{kind}/{}", either("involvedObject.name", "regarding.name"))),
        Value::from(either("involvedObject.fieldPath", "regarding.fieldPath")),
        Value::from(source),
        Value::from(either("message", "note").trim()),
        Value::from(since(&time("firstTimestamp", "deprecatedFirstTimestamp"), now)),
        Value::from(count),
        name(event),
    ]
}

fn node(node: &Value, now: Timestamp) -> Vec<Value> {
    let mut status = match items(node, "status.conditions").find(|found| text(found, "type") == "Ready") {
        Some(ready) if text(ready, "status") == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if at(node, "spec.unschedulable") == Some(&Value::Bool(true)) {
        status += ",SchedulingDisabled";
    }
    let labels = at(node, "metadata.labels").and_then(Value::as_object);
    let roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"))
        .filter(|role| !role.is_empty())
        .collect();
    let address = |kind: &str| {
        let found = items(node, "status.addresses").find(|address| text(address, "type") == kind);
        or_none(found.map(|address| text(address, "address")).unwrap_or_default())
    };
    let info = |key: &str| match text(node, &format!("status.nodeInfo.{key}")) {
        "" => Value::from("<unknown>"),
        found => Value::from(found),
    };
    vec![
        name(node),
        Value::from(status),
        or_none(&roles.join(",")),
        age(node, now),
        field(node, "status.nodeInfo.kubeletVersion"),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn claim(claim: &Value, now: Timestamp) -> Vec<Value> {
    let status =
        if object::is_deleting(claim) { Value::from("Terminating") } else { field(claim, "status.phase") };
    let volume = text(claim, "spec.volumeName");
    let (mut capacity, mut modes) = ("", Vec::new());
    if !volume.is_empty() {
        capacity = text(claim, "status.capacity.storage");
        modes = items(claim, "status.accessModes").filter_map(Value::as_str).map(short_mode).collect();
    }
    let class = text(claim, "spec.storageClassName");
    vec![
        name(claim),
        status,
        Value::from(volume),
        Value::from(capacity),
        Value::from(modes.join(",")),
        Value::from(class),
        Value::from(match text(claim, "spec.volumeAttributesClassName") {
            "" => "<unset>",
            class => class,
        }),
        age(claim, now),
        Value::from(match text(claim, "spec.volumeMode") {
            "" => "<unset>",
            mode => mode,
        }),
    ]
}

fn short_mode(mode: &str) -> &'static str {
    match mode {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        _ => "",
    }
}

fn pod(pod: &Value, now: Timestamp) -> Vec<Value> {
    let Doing { reason, ready, total, restarts, last } = Doing::of(pod);
    let restarts = match last {
        Some(last) if restarts > 0 => format!("{restarts} ({} ago)", since(&last, now)),
        _ => restarts.to_string(),
    };
    let gates = items(pod, "spec.readinessGates");
    let gates = if gates.len() == 0 {
        Value::from("<none>")
    } else {
        let count = gates.len();
        let met = gates.filter(|gate| is_true(pod, "status.conditions", text(gate, "conditionType"))).count();
        Value::from(format!("{met}/{count}"))
    };
    vec![
        name(pod),
        Value::from(format!("{ready}/{total}")),
        Value::from(reason),
        Value::from(restarts),
        age(pod, now),
        or_none(text(pod, "status.podIP")),
        or_none(text(pod, "spec.nodeName")),
        or_none(text(pod, "status.nominatedNodeName")),
        gates,
    ]
}

/// What a pod is doing, in the words of `kubectl get`.
struct Doing {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    /// When a container last ended to be started again.
    last: Option<String>,
}

impl Doing {
    fn of(pod: &Value) -> Self {
        let sidecar = |name: &str| {
            items(pod, "spec.initContainers")
                .any(|found| text(found, "name") == name && text(found, "restartPolicy") == "Always")
        };
        let sidecars = items(pod, "spec.initContainers")
            .filter(|found| text(found, "restartPolicy") == "Always")
            .count();
        let mut doing = Self {
            reason: text(pod, "status.phase").to_owned(),
            ready: 0,
            total: items(pod, "spec.containers").len() + sidecars,
            restarts: 0,
            last: None,
        };
        if !text(pod, "status.reason").is_empty() {
            text(pod, "status.reason").clone_into(&mut doing.reason);
        }
        let gated = |found: &&Value| {
            text(found, "type") == "PodScheduled" && text(found, "reason") == "SchedulingGated"
        };
        if items(pod, "status.conditions").any(|found| gated(&found)) {
            "SchedulingGated".clone_into(&mut doing.reason);
        }
        let (mut initializing, mut of_sidecars) = (false, 0);
        for (index, status) in items(pod, "status.initContainerStatuses").enumerate() {
            doing.count(status);
            let is_sidecar = sidecar(text(status, "name"));
            if is_sidecar {
                of_sidecars += number(status, "restartCount");
            }
            let ended = at(status, "state.terminated");
            if ended.is_some_and(|ended| number(ended, "exitCode") == 0) {
                continue;
            }
            if is_sidecar && at(status, "started") == Some(&Value::Bool(true)) {
                doing.ready += usize::from(at(status, "ready") == Some(&Value::Bool(true)));
                continue;
            }
            initializing = true;
            let waits = text(status, "state.waiting.reason");
            doing.reason = match ended {
                Some(ended) => format!("Init:{}", end_of(ended)),
                None if !waits.is_empty() && waits != "PodInitializing" => format!("Init:{waits}"),
                None => format!("Init:{index}/{}", items(pod, "spec.initContainers").len()),
            };
            break;
        }
        if !initializing || is_true(pod, "status.conditions", "Initialized") {
            doing.restarts = of_sidecars;
            doing.add_containers(pod);
        }
        let phase = text(pod, "status.phase");
        if object::is_deleting(pod) && text(pod, "status.reason") == "NodeLost" {
            "Unknown".clone_into(&mut doing.reason);
        } else if object::is_deleting(pod) && !matches!(phase, "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut doing.reason);
        }
        doing
    }

    fn count(&mut self, status: &Value) {
        self.restarts += number(status, "restartCount");
        let ended = text(status, "lastState.terminated.finishedAt");
        if !ended.is_empty() && self.last.as_deref().is_none_or(|last| last < ended) {
            self.last = Some(ended.to_owned());
        }
    }

    fn add_containers(&mut self, pod: &Value) {
        let mut running = false;
        for status in items(pod, "status.containerStatuses").rev() {
            self.count(status);
            let waits = text(status, "state.waiting.reason");
            if !waits.is_empty() {
                waits.clone_into(&mut self.reason);
            } else if let Some(ended) = at(status, "state.terminated") {
                self.reason = end_of(ended);
            } else if at(status, "ready") == Some(&Value::Bool(true)) && at(status, "state.running").is_some()
            {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            let ready = is_true(pod, "status.conditions", "Ready");
            if ready { "Running" } else { "NotReady" }.clone_into(&mut self.reason);
        }
    }
}

/// How a container ended: its reason, or what is known without one.
fn end_of(ended: &Value) -> String {
    match (text(ended, "reason"), number(ended, "signal")) {
        ("", 0) => format!("ExitCode:{}", number(ended, "exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

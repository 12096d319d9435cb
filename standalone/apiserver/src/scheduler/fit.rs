//! Whether a pod fits on a node, and in kube-scheduler's words why not. Pure.
//!
//! The rules are those of its default profile, in its order: the first that is broken is told. Nobody is put out for
//! somebody more important.

mod affinity;

use std::{collections::BTreeMap, sync::Arc};

use ropewalk_quantity::Quantity;
use serde_json::Value;

use crate::{
    object,
    resources::{self, Resources, Side},
};

/// Looks up a namespace.
pub(super) type Namespaces<'a> = &'a dyn Fn(&str) -> Option<Arc<Value>>;

/// All nodes.
pub(super) struct Cluster {
    pub(super) nodes: Vec<Node>,
}

/// A node and the pods on it.
pub(super) struct Node {
    pub(super) name: String,
    object: Arc<Value>,
    allocatable: Resources,
    used: Resources,
    pods: Vec<Arc<Value>>,
}

/// Why a pod does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reason {
    text: String,
    /// Another pod's end could change it.
    passes: bool,
}

impl Reason {
    fn lasting(text: &str) -> Vec<Self> {
        vec![Self { text: text.to_owned(), passes: false }]
    }

    fn passing(text: &str) -> Vec<Self> {
        vec![Self { text: text.to_owned(), passes: true }]
    }
}

impl Cluster {
    /// Whether any node would take one more pod, however small.
    pub(super) fn has_places(&self) -> bool {
        self.nodes.iter().any(|node| node.free("pods") >= Quantity::ONE)
    }
}

impl Node {
    pub(super) fn new(object: &Arc<Value>) -> Self {
        Self {
            name: object::name(object).to_owned(),
            allocatable: resources::amounts(object::at(object, "status.allocatable")),
            object: Arc::clone(object),
            used: Resources::new(),
            pods: Vec::new(),
        }
    }

    /// Puts a pod on the node.
    pub(super) fn take(&mut self, pod: &Arc<Value>) {
        resources::add(&mut self.used, &resources::of_pod(pod, Side::Requests));
        resources::add(&mut self.used, &Resources::from([("pods".to_owned(), Quantity::ONE)]));
        self.pods.push(Arc::clone(pod));
    }

    fn allocatable(&self, name: &str) -> Quantity {
        self.allocatable.get(name).copied().unwrap_or(Quantity::ZERO)
    }

    fn free(&self, name: &str) -> Quantity {
        self.allocatable(name).minus(self.used.get(name).copied().unwrap_or(Quantity::ZERO))
    }
}

/// The node for a pod, of those that it fits on the one with the fewest pods; or why there is none.
pub(super) fn choose(cluster: &Cluster, pod: &Value, namespaces: Namespaces<'_>) -> Result<usize, String> {
    let reasons: Vec<Vec<Reason>> =
        cluster.nodes.iter().map(|node| obstacles(cluster, node, pod, namespaces)).collect();
    let fitting = reasons.iter().enumerate().filter(|(_, reasons)| reasons.is_empty());
    let best = fitting.map(|(index, _)| index).min_by_key(|index| cluster.nodes[*index].pods.len());
    best.ok_or_else(|| told(&reasons))
}

/// `0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims ...`
fn told(refused: &[Vec<Reason>]) -> String {
    let all = refused.len();
    let count = |texts: Vec<&str>| {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for text in texts {
            *counts.entry(text).or_default() += 1;
        }
        let mut parts: Vec<String> = counts.iter().map(|(text, count)| format!("{count} {text}")).collect();
        parts.sort_unstable();
        format!("0/{all} nodes are available: {}.", parts.join(", "))
    };
    let reasons = count(refused.iter().flatten().map(|reason| reason.text.as_str()).collect());
    let preemption = refused.iter().map(|reasons| {
        if reasons.iter().all(|reason| reason.passes) {
            "No preemption victims found for incoming pod"
        } else {
            "Preemption is not helpful for scheduling"
        }
    });
    format!("{reasons} preemption: {}", count(preemption.collect()))
}

/// Why the pod does not fit on the node; nothing if it does.
fn obstacles(cluster: &Cluster, node: &Node, pod: &Value, namespaces: Namespaces<'_>) -> Vec<Reason> {
    let rules: [fn(&Node, &Value) -> Vec<Reason>; 5] = [unschedulable, taints, selectors, ports, resources];
    let first = rules.into_iter().map(|rule| rule(node, pod)).find(|reasons| !reasons.is_empty());
    first.unwrap_or_else(|| affinity::obstacles(cluster, node, pod, namespaces))
}

fn list<'a>(object: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    object::at(object, path).and_then(Value::as_array).into_iter().flatten()
}

fn unschedulable(node: &Node, pod: &Value) -> Vec<Reason> {
    let cordoned = object::at(&node.object, "spec.unschedulable") == Some(&Value::Bool(true));
    let taint = serde_json::json!({ "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" });
    if cordoned && !tolerates(pod, &taint) {
        Reason::lasting("node(s) were unschedulable")
    } else {
        Vec::new()
    }
}

fn taints(node: &Node, pod: &Value) -> Vec<Reason> {
    let mut taints = list(&node.object, "spec.taints")
        .filter(|taint| matches!(object::text(taint, "effect"), "NoSchedule" | "NoExecute"));
    if taints.any(|taint| !tolerates(pod, taint)) {
        Reason::lasting("node(s) had untolerated taint(s)")
    } else {
        Vec::new()
    }
}

fn tolerates(pod: &Value, taint: &Value) -> bool {
    list(pod, "spec.tolerations").any(|toleration| {
        let of = |field| object::text(toleration, field);
        let same = |field| of(field) == object::text(taint, field);
        (of("effect").is_empty() || same("effect"))
            && (of("key").is_empty() && of("operator") == "Exists" || same("key"))
            && match of("operator") {
                "Exists" => true,
                "" | "Equal" => same("value"),
                _ => false,
            }
    })
}

fn selectors(node: &Node, pod: &Value) -> Vec<Reason> {
    let wanted = object::at(pod, "spec.nodeSelector").and_then(Value::as_object).into_iter().flatten();
    let mut wanted = wanted.map(|(key, value)| object::label(&node.object, key) == value.as_str());
    let required = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution";
    let fits = object::at(pod, required).is_none_or(|required| {
        list(required, "nodeSelectorTerms").any(|term| affinity::matches_node(term, &node.object))
    });
    if wanted.all(|matches| matches) && fits {
        Vec::new()
    } else {
        Reason::lasting("node(s) didn't match Pod's node affinity/selector")
    }
}

fn ports(node: &Node, pod: &Value) -> Vec<Reason> {
    let taken: Vec<_> = node.pods.iter().flat_map(|pod| host_ports(pod)).collect();
    let anywhere = |address: &str| matches!(address, "" | "0.0.0.0" | "::");
    let conflict = host_ports(pod).any(|(port, protocol, address)| {
        taken.iter().any(|(other_port, other_protocol, other)| {
            port == *other_port
                && protocol == *other_protocol
                && (address == *other || anywhere(address) || anywhere(other))
        })
    });
    if conflict {
        Reason::passing("node(s) didn't have free ports for the requested pod ports")
    } else {
        Vec::new()
    }
}

/// Port, protocol and address of everything a pod wants of the node's own ports.
fn host_ports(pod: &Value) -> impl Iterator<Item = (i64, &str, &str)> {
    let ports = list(pod, "spec.containers").flat_map(|container| list(container, "ports"));
    ports.filter_map(|port| {
        let number = port.get("hostPort")?.as_i64().filter(|number| *number != 0)?;
        let protocol = Some(object::text(port, "protocol")).filter(|text| !text.is_empty()).unwrap_or("TCP");
        Some((number, protocol, object::text(port, "hostIP")))
    })
}

fn resources(node: &Node, pod: &Value) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if node.free("pods") < Quantity::ONE {
        reasons.extend(Reason::passing("Too many pods"));
    }
    for (name, wanted) in resources::of_pod(pod, Side::Requests) {
        if wanted > node.free(&name) {
            let passes = wanted <= node.allocatable(&name);
            reasons.push(Reason { text: format!("Insufficient {name}"), passes });
        }
    }
    reasons
}

#[cfg(test)]
mod tests;

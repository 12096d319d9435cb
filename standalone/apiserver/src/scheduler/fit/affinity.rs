//! Affinity: to nodes by their labels, to and from other pods by theirs. Pure.

use std::sync::Arc;

use serde_json::Value;

use super::{Cluster, Namespaces, Node, Reason, list};
use crate::{object, selector::Selector};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// Whether a node is what a `nodeSelectorTerm` asks for; one that asks for nothing gets nothing.
pub(super) fn matches_node(term: &Value, node: &Value) -> bool {
    let expressions = term.get("matchExpressions").unwrap_or(&Value::Null);
    let mut fields = list(term, "matchFields").peekable();
    let empty = list(term, "matchExpressions").next().is_none() && fields.peek().is_none();
    !empty
        && Selector::of_expressions(expressions).matches(node)
        && fields.all(|field| matches_field(field, node))
}

/// The one field that can be asked for is the name.
fn matches_field(requirement: &Value, node: &Value) -> bool {
    let named = list(requirement, "values").any(|value| value.as_str() == Some(object::name(node)));
    match (object::text(requirement, "key"), object::text(requirement, "operator")) {
        ("metadata.name", "In") => named,
        ("metadata.name", "NotIn") => !named,
        _ => false,
    }
}

/// Why other pods keep the pod from the node: they are missing there, or they are there.
pub(super) fn obstacles(
    cluster: &Cluster,
    node: &Node,
    pod: &Value,
    namespaces: Namespaces<'_>,
) -> Vec<Reason> {
    let wanted = terms(pod, "podAffinity", namespaces);
    if !wanted.is_empty() && !has_company(cluster, node, pod, &wanted) {
        return Reason::lasting("node(s) didn't match pod affinity rules");
    }
    let unwanted = terms(pod, "podAntiAffinity", namespaces);
    if unwanted.iter().any(|term| near(cluster, node, term)) {
        return Reason::passing("node(s) didn't match pod anti-affinity rules");
    }
    let shunned = cluster.nodes.iter().any(|other| {
        other.pods.iter().any(|existing| {
            terms(existing, "podAntiAffinity", namespaces)
                .iter()
                .any(|term| term.matches(pod) && same_place(term.topology, node, other))
        })
    });
    if shunned {
        Reason::passing("node(s) didn't satisfy existing pods anti-affinity rules")
    } else {
        Vec::new()
    }
}

/// Whether for every term there is a pod in the node's place; or, since somebody has to be first, whether nobody
/// matches anywhere and the pod itself would.
fn has_company(cluster: &Cluster, node: &Node, pod: &Value, wanted: &[Term<'_>]) -> bool {
    if wanted.iter().any(|term| object::label(&node.object, term.topology).is_none()) {
        return false;
    }
    // A pod is company when it is what all terms ask for.
    let all = |other: &Value| wanted.iter().all(|term| term.matches(other));
    let anywhere = || cluster.nodes.iter().flat_map(|node| &node.pods).any(|other| all(other));
    wanted.iter().all(|term| {
        cluster.nodes.iter().any(|other| {
            same_place(term.topology, node, other) && other.pods.iter().any(|existing| all(existing))
        })
    }) || all(pod) && !anywhere()
}

/// Whether a pod that the term is about is in the node's place.
fn near(cluster: &Cluster, node: &Node, term: &Term<'_>) -> bool {
    let place = cluster.nodes.iter().filter(|other| same_place(term.topology, node, other));
    place.flat_map(|other| &other.pods).any(|existing| term.matches(existing))
}

fn same_place(topology: &str, a: &Node, b: &Node) -> bool {
    let place = object::label(&a.object, topology);
    place.is_some() && place == object::label(&b.object, topology)
}

/// A `podAffinityTerm` of a pod.
struct Term<'a> {
    owner: &'a Value,
    selector: Option<Selector>,
    names: Vec<&'a str>,
    namespaces: Option<Selector>,
    topology: &'a str,
    lookup: Namespaces<'a>,
}

fn terms<'a>(pod: &'a Value, kind: &str, lookup: Namespaces<'a>) -> Vec<Term<'a>> {
    let terms = list(pod, &format!("spec.affinity.{kind}.{REQUIRED}"));
    let all = terms.map(|term| Term {
        owner: pod,
        selector: term.get("labelSelector").map(Selector::of_labels),
        names: list(term, "namespaces").filter_map(Value::as_str).collect(),
        namespaces: term.get("namespaceSelector").map(Selector::of_labels),
        topology: object::text(term, "topologyKey"),
        lookup,
    });
    all.collect()
}

impl Term<'_> {
    /// Whether the term is about this pod.
    fn matches(&self, pod: &Value) -> bool {
        let namespace = object::namespace(pod);
        let selected = |selector: &Selector| {
            let found: Option<Arc<Value>> = (self.lookup)(namespace);
            found.is_some_and(|namespace| selector.matches(&namespace))
        };
        let in_reach = match &self.namespaces {
            None if self.names.is_empty() => namespace == object::namespace(self.owner),
            Some(selector) if selected(selector) => true,
            _ => self.names.contains(&namespace),
        };
        // A term without a selector is about no pod.
        in_reach && self.selector.as_ref().is_some_and(|selector| selector.matches(pod))
    }
}

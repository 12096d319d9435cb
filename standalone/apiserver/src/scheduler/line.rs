//! The line of pods that wait for a node. Pure.
//!
//! Within a namespace the first to come is the first to go; between namespaces it is the turn of the one with the fewest
//! pods on nodes, so that a thousand pods in one do not keep another waiting. A pod that does not fit lets the next one
//! pass, as in kube-scheduler.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::NAME;
use crate::{builtin, object, state::ObjectKey};

/// Every pod that has not ended: those without a node in line, the others by node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    /// Namespace, number in line, name.
    waiting: BTreeMap<String, BTreeMap<u64, String>>,
    numbers: BTreeMap<ObjectKey, u64>,
    placed: BTreeMap<String, BTreeSet<ObjectKey>>,
    nodes: BTreeMap<ObjectKey, String>,
    /// The last number given.
    last: u64,
}

impl Line {
    /// Takes note of a pod as it is now. One that still waits keeps its place.
    pub(crate) fn note(&mut self, key: &ObjectKey, pod: &Value) {
        let node = object::text(pod, "spec.nodeName");
        let waits = waits(pod);
        if waits && self.numbers.contains_key(key) {
            return;
        }
        self.forget(key);
        if waits {
            self.last += 1;
            self.numbers.insert(key.clone(), self.last);
            self.waiting.entry(key.namespace.clone()).or_default().insert(self.last, key.name.clone());
        } else if !node.is_empty() && !builtin::is_over(pod) {
            self.nodes.insert(key.clone(), node.to_owned());
            self.placed.entry(node.to_owned()).or_default().insert(key.clone());
        }
    }

    /// The pod is gone, or has ended.
    pub(crate) fn forget(&mut self, key: &ObjectKey) {
        if let Some(number) = self.numbers.remove(key)
            && let Some(line) = self.waiting.get_mut(&key.namespace)
        {
            line.remove(&number);
            if line.is_empty() {
                self.waiting.remove(&key.namespace);
            }
        }
        if let Some(node) = self.nodes.remove(key)
            && let Some(pods) = self.placed.get_mut(&node)
        {
            pods.remove(key);
            if pods.is_empty() {
                self.placed.remove(&node);
            }
        }
    }

    /// Whether the pod is in line.
    pub(super) fn is_waiting(&self, key: &ObjectKey) -> bool {
        self.numbers.contains_key(key)
    }

    /// The pods on a node that have not ended.
    pub(super) fn on(&self, node: &str) -> impl Iterator<Item = &ObjectKey> {
        self.placed.get(node).into_iter().flatten()
    }

    /// The order in which those in line are to be tried, as of now.
    pub(super) fn turns(&self) -> Turns {
        let mut shares: BTreeMap<String, usize> = BTreeMap::new();
        for key in self.nodes.keys() {
            *shares.entry(key.namespace.clone()).or_default() += 1;
        }
        let lines = self.waiting.iter().map(|(namespace, line)| {
            let line: Vec<(u64, String)> =
                line.iter().rev().map(|(number, name)| (*number, name.clone())).collect();
            (namespace.clone(), line)
        });
        let mut turns = Turns { lines: lines.collect(), shares, next: BTreeSet::new() };
        let namespaces: Vec<String> = turns.lines.keys().cloned().collect();
        for namespace in namespaces {
            turns.enqueue(namespace);
        }
        turns
    }
}

fn waits(pod: &Value) -> bool {
    let gated = object::at(pod, "spec.schedulingGates").and_then(Value::as_array);
    object::text(pod, "spec.nodeName").is_empty()
        && !builtin::is_over(pod)
        && !object::is_deleting(pod)
        && matches!(object::text(pod, "spec.schedulerName"), "" | NAME)
        && gated.is_none_or(Vec::is_empty)
}

/// Whose turn it is.
pub(super) struct Turns {
    /// By namespace, the first in line last.
    lines: BTreeMap<String, Vec<(u64, String)>>,
    /// Pods on nodes by namespace.
    shares: BTreeMap<String, usize>,
    /// Share and first number of every namespace with somebody left in line.
    next: BTreeSet<(usize, u64, String)>,
}

impl Turns {
    fn enqueue(&mut self, namespace: String) {
        if let Some((number, _)) = self.lines.get(&namespace).and_then(|line| line.last()) {
            let share = self.shares.get(&namespace).copied().unwrap_or_default();
            self.next.insert((share, *number, namespace));
        }
    }

    /// The next pod to try.
    pub(super) fn next(&mut self) -> Option<ObjectKey> {
        let (_, _, namespace) = self.next.pop_first()?;
        let (_, name) = self.lines.get_mut(&namespace)?.pop()?;
        let key = ObjectKey::new(&namespace, &name);
        self.enqueue(namespace);
        Some(key)
    }

    /// A pod of the namespace has got a node.
    pub(super) fn served(&mut self, namespace: &str) {
        let share = self.shares.entry(namespace.to_owned()).or_default();
        let before = *share;
        *share += 1;
        if let Some((number, _)) = self.lines.get(namespace).and_then(|line| line.last()) {
            self.next.remove(&(before, *number, namespace.to_owned()));
            self.enqueue(namespace.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(node: &str, phase: &str) -> Value {
        json!({ "spec": { "nodeName": node }, "status": { "phase": phase } })
    }

    fn line(pods: &[(&str, &str, &str)]) -> Line {
        let mut line = Line::default();
        for (namespace, name, node) in pods {
            line.note(&ObjectKey::new(namespace, name), &pod(node, "Pending"));
        }
        line
    }

    fn served(line: &Line, places: usize) -> Vec<String> {
        let mut turns = line.turns();
        let mut order = Vec::new();
        while order.len() < places {
            let Some(key) = turns.next() else { break };
            turns.served(&key.namespace);
            order.push(format!("{}/{}", key.namespace, key.name));
        }
        order
    }

    #[test]
    fn a_crowd_does_not_starve_others() {
        let crowd: Vec<String> = (0..1000).map(|number| format!("p{number:03}")).collect();
        let mut pods: Vec<(&str, &str, &str)> =
            crowd.iter().map(|name| ("crowd", name.as_str(), "")).collect();
        pods.push(("small", "a", ""));
        pods.push(("small", "b", ""));
        let line = line(&pods);
        assert_eq!(served(&line, 5), ["crowd/p000", "small/a", "crowd/p001", "small/b", "crowd/p002"]);
        assert_eq!(served(&line, 2000).len(), 1002);
    }

    #[test]
    fn who_has_least_comes_first() {
        let line = line(&[
            ("a", "runs", "n"),
            ("a", "runs-too", "n"),
            ("b", "runs", "n"),
            ("a", "1", ""),
            ("b", "1", ""),
            ("b", "2", ""),
            ("c", "1", ""),
        ]);
        assert_eq!(served(&line, 9), ["c/1", "b/1", "a/1", "b/2"]);
    }

    #[test]
    fn a_place_in_line_is_kept_until_the_pod_has_a_node() {
        let mut line = line(&[("a", "1", ""), ("a", "2", "")]);
        let first = ObjectKey::new("a", "1");
        line.note(&first, &pod("", "Pending"));
        assert_eq!(served(&line, 9), ["a/1", "a/2"]);
        line.note(&first, &pod("n", "Pending"));
        assert_eq!((served(&line, 9), line.on("n").count()), (vec!["a/2".to_owned()], 1));
        line.note(&first, &pod("n", "Succeeded"));
        assert_eq!(line.on("n").count(), 0);
        line.forget(&ObjectKey::new("a", "2"));
        assert!(served(&line, 9).is_empty());
    }

    #[test]
    fn some_are_not_for_us() {
        for (field, value) in [
            ("spec", json!({ "schedulerName": "mine" })),
            ("spec", json!({ "schedulingGates": [{ "name": "g" }] })),
            ("metadata", json!({ "deletionTimestamp": "2026-01-02T03:04:05Z" })),
            ("status", json!({ "phase": "Failed" })),
        ] {
            let mut pod = pod("", "Pending");
            pod[field] = value;
            assert!(!waits(&pod), "{pod}");
        }
        assert!(waits(&json!({ "spec": { "schedulerName": NAME } })));
    }
}

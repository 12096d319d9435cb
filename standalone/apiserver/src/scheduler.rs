//! Which pod runs on which node: as `gc`, part of the request that changed something, so that no copy of the state can
//! be stale and nothing has to be watched. Pure.
//!
//! Pods that find no node wait in line ([`Line`]) until a pod ends or a node changes, and say why ([`fit`]). A server
//! without nodes has nobody who would run pods, and leaves them as they are.

mod fit;
mod line;

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    builtin,
    object::{self, stamp},
    state::{Delta, DeltaKind, ObjectKey, State},
    table::{Behaviour, ResourceId},
};

use fit::{Cluster, Node};
pub(crate) use line::Line;

/// The name of this scheduler; pods that name another are left alone.
const NAME: &str = "default-scheduler";

/// Where the pods and the nodes are.
struct Ids {
    pods: ResourceId,
    nodes: ResourceId,
}

/// What the changes of a request mean for pods without a node.
#[derive(Default)]
struct News {
    /// There may be room, or another reason to try them all.
    chance: bool,
    /// Pods that were never tried.
    new: BTreeSet<ObjectKey>,
}

/// Gives nodes to the pods that may have one now, and tells the others why they have none.
pub(crate) fn settle(state: &mut State, now: Timestamp) {
    let pods = state.table().by_behaviour(Behaviour::Pod);
    let nodes = state.table().find("", "v1", "nodes").map(|(id, _)| id);
    let (Some(pods), Some(nodes)) = (pods, nodes) else { return };
    let ids = Ids { pods, nodes };
    let news = news(state, &ids);
    if !news.chance && news.new.is_empty() || state.objects(nodes, None).next().is_none() {
        return;
    }
    let mut cluster = survey(state, &ids);
    let mut placed = if news.chance { walk(state, &ids, &mut cluster, now, |_| true) } else { 0 };
    for key in &news.new {
        // Those that the walk has tried have a node or know why not.
        let untold = |pod: &Arc<Value>| condition(pod).is_none();
        if state.get(ids.pods, key).is_some_and(untold) && attempt(state, &ids, &mut cluster, key, now) {
            placed += 1;
        }
    }
    // Where one pod went may be where others want to be.
    while placed > 0 {
        placed = walk(state, &ids, &mut cluster, now, wants_company);
    }
}

fn news(state: &State, ids: &Ids) -> News {
    let mut news = News::default();
    let mut next = 0;
    while let Some(delta) = state.fresh_at(next) {
        next += 1;
        if delta.resource == ids.nodes {
            news.chance |=
                delta.previous.as_ref().is_none_or(|before| matters(before) != matters(&delta.object));
        } else if delta.resource == ids.pods {
            news.chance |= makes_room(&delta);
            if state.line().is_waiting(&delta.key) && condition(&delta.object).is_none() {
                news.new.insert(delta.key.clone());
            }
        }
    }
    news
}

/// What of a node decides which pods it takes.
fn matters(node: &Value) -> [Option<&Value>; 3] {
    ["metadata.labels", "spec", "status.allocatable"].map(|path| object::at(node, path))
}

/// Whether something that was in the way of others is not any more, or something came that draws them.
fn makes_room(delta: &Delta) -> bool {
    let Some(before) = &delta.previous else { return false };
    let held = !object::text(before, "spec.nodeName").is_empty() && !builtin::is_over(before);
    let labels = |pod: &Value| object::at(pod, "metadata.labels").cloned();
    held && (delta.kind == DeltaKind::Deleted
        || builtin::is_over(&delta.object)
        || labels(before) != labels(&delta.object))
}

/// The nodes and what is on them.
fn survey(state: &State, ids: &Ids) -> Cluster {
    let nodes = state.objects(ids.nodes, None).map(|(_, node)| Node::new(node)).collect();
    let mut cluster = Cluster { nodes };
    for node in &mut cluster.nodes {
        let keys: Vec<&ObjectKey> = state.line().on(&node.name).collect();
        keys.into_iter().filter_map(|key| state.get(ids.pods, key)).for_each(|pod| node.take(pod));
    }
    cluster
}

/// Tries the pods in line that pass, while there is a node with a place for any. The answer is how many got one.
fn walk(
    state: &mut State,
    ids: &Ids,
    cluster: &mut Cluster,
    now: Timestamp,
    passes: impl Fn(&Value) -> bool,
) -> usize {
    let mut placed = 0;
    let mut turns = state.line().turns();
    while cluster.has_places() {
        let Some(key) = turns.next() else { break };
        if state.get(ids.pods, &key).is_some_and(|pod| passes(pod)) && attempt(state, ids, cluster, &key, now)
        {
            turns.served(&key.namespace);
            placed += 1;
        }
    }
    placed
}

fn wants_company(pod: &Value) -> bool {
    object::at(pod, "spec.affinity.podAffinity").is_some()
}

/// Gives the pod a node, or tells why there is none.
fn attempt(state: &mut State, ids: &Ids, cluster: &mut Cluster, key: &ObjectKey, now: Timestamp) -> bool {
    let Some(pod) = state.get(ids.pods, key).cloned() else { return false };
    let found = {
        let namespaces = state.table().by_behaviour(Behaviour::Namespace);
        let namespace = |name: &str| state.get(namespaces?, &ObjectKey::new("", name)).cloned();
        fit::choose(cluster, &pod, &namespace)
    };
    match found {
        Ok(index) => {
            let node = cluster.nodes[index].name.clone();
            let bound = state.put(ids.pods, bound(&pod, &node, now));
            let message =
                format!("Successfully assigned {}/{} to {node}", object::namespace(&pod), object::name(&pod));
            tell(state, &pod, ["Normal", "Scheduled", "Binding", &message], now);
            cluster.nodes[index].take(&bound);
            true
        }
        Err(why) => {
            refuse(state, ids, &pod, &why, now);
            false
        }
    }
}

/// The pod on a node.
pub(crate) fn bound(pod: &Value, node: &str, now: Timestamp) -> Value {
    let mut pod = pod.clone();
    object::map_mut(&mut pod, "spec").insert("nodeName".into(), Value::from(node));
    set_condition(&mut pod, json!({ "type": "PodScheduled", "status": "True" }), now);
    pod
}

/// Says in the pod's status and in an event why it has no node; once, as long as the reason is the same.
fn refuse(state: &mut State, ids: &Ids, pod: &Arc<Value>, why: &str, now: Timestamp) {
    if condition(pod).is_some_and(|known| object::text(known, "message") == why) {
        return;
    }
    let mut refused = (**pod).clone();
    let condition =
        json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why });
    set_condition(&mut refused, condition, now);
    state.put(ids.pods, refused);
    tell(state, pod, ["Warning", "FailedScheduling", "Scheduling", why], now);
}

/// Makes an event about a pod, as kube-scheduler does: type, reason, action and message.
fn tell(state: &mut State, pod: &Value, [kind, reason, action, message]: [&str; 4], now: Timestamp) {
    let Some(events) = state.table().by_behaviour(Behaviour::Event) else { return };
    let (namespace, name) = (object::namespace(pod), object::name(pod));
    let event = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": { "name": state.names.generate(&format!("{name}.")), "namespace": namespace },
        "involvedObject": { "apiVersion": "v1", "kind": "Pod", "name": name, "namespace": namespace,
                            "uid": object::uid(pod), "resourceVersion": object::resource_version(pod) },
        "type": kind, "reason": reason, "message": message, "action": action,
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(), "source": {},
        "firstTimestamp": null, "lastTimestamp": null,
        "reportingComponent": NAME, "reportingInstance": NAME,
    });
    state.create(events, event, now);
}

fn condition(pod: &Value) -> Option<&Value> {
    let conditions = object::at(pod, "status.conditions").and_then(Value::as_array)?;
    conditions.iter().find(|condition| object::text(condition, "type") == "PodScheduled")
}

fn set_condition(pod: &mut Value, mut condition: Value, now: Timestamp) {
    let known = self::condition(pod).filter(|known| known["status"] == condition["status"]);
    let since = known.and_then(|known| known.get("lastTransitionTime")).cloned();
    condition["lastProbeTime"] = Value::Null;
    condition["lastTransitionTime"] = since.unwrap_or_else(|| Value::from(stamp(now)));
    let conditions = object::map_mut(pod, "status").entry("conditions").or_insert_with(|| json!([]));
    let Some(conditions) = conditions.as_array_mut() else { return };
    conditions.retain(|other| other["type"] != condition["type"]);
    conditions.push(condition);
}

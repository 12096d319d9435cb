//! Cluster roles that gather the rules of others by their labels. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use super::authorize::rules;
use crate::{
    object,
    selector::Selector,
    state::{ObjectKey, State},
    table::{Behaviour, ResourceId},
};

/// Brings aggregating roles up to date after a change of cluster roles, as a cluster's controller does. A role may gather
/// from one that gathers itself, so it goes round until nothing changes; rules only ever add up in a round, and there are
/// no more rounds than roles.
pub(crate) fn aggregate(state: &mut State) {
    let Some(id) = state.table().by_behaviour(Behaviour::ClusterRole) else { return };
    if !state.fresh_touches(id) {
        return;
    }
    let gathering: Vec<ObjectKey> = state
        .objects(id, None)
        .filter(|(_, role)| role.get("aggregationRule").is_some_and(Value::is_object))
        .map(|(key, _)| key.clone())
        .collect();
    for _ in 0..=gathering.len() {
        let changed: Vec<Value> = gathering.iter().filter_map(|key| gathered(state, id, key)).collect();
        if changed.is_empty() {
            return;
        }
        for role in changed {
            state.put(id, role);
        }
    }
}

/// The role with its rules as they should be, if they are not.
fn gathered(state: &State, id: ResourceId, key: &ObjectKey) -> Option<Value> {
    let role = state.get(id, key)?;
    let selectors = object::at(role, "aggregationRule.clusterRoleSelectors").and_then(Value::as_array);
    let selectors: Vec<Selector> = selectors.into_iter().flatten().map(Selector::of_labels).collect();
    let mut wanted: Vec<&Value> = Vec::new();
    let mut known = BTreeSet::new();
    for (other, found) in state.objects(id, None) {
        if other == key || !selectors.iter().any(|selector| selector.matches(found)) {
            continue;
        }
        wanted.extend(rules(found).iter().filter(|rule| known.insert(rule.to_string())));
    }
    if wanted.iter().copied().eq(rules(role).iter()) {
        return None;
    }
    let mut role = (**role).clone();
    let wanted = wanted.into_iter().cloned().collect();
    object::set_field(&mut role, "rules", Some(Value::Array(wanted)));
    Some(role)
}

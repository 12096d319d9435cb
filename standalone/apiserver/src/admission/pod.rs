//! What the plugins `Priority` and `DefaultTolerationSeconds` fill in. Pure.
//!
//! There are no priority classes here, and nobody takes pods from a node that is lost, as there is only one: both say
//! what they would on a cluster that has nothing set up, so that clients find the fields that they know.

use serde_json::{Value, json};

use crate::object::{self, map_mut, text};

/// How long a pod stays on a node that does not answer, in seconds.
const PATIENCE: i64 = 300;

/// What holds for a pod by priority, and is kept as it is when it changes.
const PRIORITY: [&str; 2] = ["priority", "preemptionPolicy"];

/// Fills in a pod; `old` is what it was before, where it was there.
pub(super) fn fill(old: Option<&Value>, pod: &mut Value) {
    let spec = map_mut(pod, "spec");
    for field in PRIORITY {
        let before = old.and_then(|old| object::at(old, "spec")).and_then(|spec| spec.get(field)).cloned();
        let fresh = match field {
            "priority" => json!(0),
            _ => json!("PreemptLowerPriority"),
        };
        if let Some(value) = if old.is_some() { before } else { Some(fresh) } {
            spec.entry(field).or_insert(value);
        }
    }
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    let Some(tolerations) = tolerations.as_array_mut() else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let is_tolerated = tolerations.iter().any(|toleration| {
            ["", key].contains(&text(toleration, "key"))
                && ["", "NoExecute"].contains(&text(toleration, "effect"))
        });
        if !is_tolerated {
            tolerations.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": PATIENCE,
            }));
        }
    }
}

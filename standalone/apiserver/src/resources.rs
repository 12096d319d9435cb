//! The resources of pods: amounts by name, and what a pod asks for or may use as a whole. Pure.

use std::collections::BTreeMap;

use ropewalk_quantity::Quantity;
use serde_json::Value;

/// Amounts by resource name, such as `cpu` or `requests.storage`.
pub(crate) type Resources = BTreeMap<String, Quantity>;

/// The amount in a field: a text or a number; `None` for anything else.
pub(crate) fn amount(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

/// The amounts in a map of names to quantities; what is no quantity is left out.
pub(crate) fn amounts(map: Option<&Value>) -> Resources {
    let entries = map.and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), amount(value)?))).collect()
}

/// Adds amounts to amounts, name by name.
pub(crate) fn add(total: &mut Resources, more: &Resources) {
    for (name, quantity) in more {
        let sum = total.get(name).map_or(*quantity, |before| before.plus(*quantity));
        total.insert(name.clone(), sum);
    }
}

/// `cpu=1,memory=2Gi`, as errors tell of amounts.
pub(crate) fn listed(resources: &Resources) -> String {
    let shown: Vec<String> = resources.iter().map(|(name, quantity)| format!("{name}={quantity}")).collect();
    shown.join(",")
}

/// Which of the amounts of a container: `requests` or `limits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Requests,
    Limits,
}

impl Side {
    pub(crate) fn of(self, container: &Value) -> Resources {
        let key = match self {
            Self::Requests => "requests",
            Self::Limits => "limits",
        };
        amounts(container.get("resources").and_then(|both| both.get(key)))
    }
}

/// What a pod asks for as a whole, or may use: its containers together with those that start first and stay, or the
/// greediest of those that run alone before them, whichever is more. What it says for itself counts instead.
pub(crate) fn of_pod(pod: &Value, side: Side) -> Resources {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let containers = |key: &str| spec.get(key).and_then(Value::as_array).into_iter().flatten();
    let mut total = Resources::new();
    containers("containers").for_each(|container| add(&mut total, &side.of(container)));
    let (mut staying, mut peak) = (Resources::new(), Resources::new());
    for container in containers("initContainers") {
        let own = side.of(container);
        let mut now = staying.clone();
        add(&mut now, &own);
        if container.get("restartPolicy").and_then(Value::as_str) == Some("Always") {
            add(&mut total, &own);
            staying.clone_from(&now);
        }
        raise(&mut peak, now);
    }
    raise(&mut total, peak);
    for (name, quantity) in side.of(spec) {
        if matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-") {
            total.insert(name, quantity);
        }
    }
    total
}

fn raise(total: &mut Resources, least: Resources) {
    for (name, quantity) in least {
        let more = total.get(&name).is_none_or(|known| *known < quantity);
        if more {
            total.insert(name, quantity);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_asks_for_its_containers_or_its_greediest_start() {
        let asks = |cpu: &str| json!({ "resources": { "requests": { "cpu": cpu } } });
        let stays = |cpu: &str| {
            let mut container = asks(cpu);
            container["restartPolicy"] = json!("Always");
            container
        };
        for (init, containers, own, expected) in [
            (vec![], vec![asks("1"), asks("500m")], json!({}), "1500m"),
            (vec![asks("2")], vec![asks("1"), asks("500m")], json!({}), "2"),
            (vec![asks("1"), asks("1")], vec![asks("500m")], json!({}), "1"),
            (vec![stays("1")], vec![asks("500m")], json!({}), "1500m"),
            (vec![stays("1"), asks("2")], vec![asks("500m")], json!({}), "3"),
            (vec![asks("2"), stays("1")], vec![asks("500m")], json!({}), "2"),
            (vec![], vec![asks("1")], json!({ "requests": { "cpu": "4" } }), "4"),
        ] {
            let spec = json!({ "initContainers": init, "containers": containers, "resources": own });
            let total = of_pod(&json!({ "spec": spec }), Side::Requests);
            assert_eq!(listed(&total), format!("cpu={expected}"), "{spec}");
        }
    }
}

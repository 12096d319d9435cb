//! How much of the node's disk a pod may take, and what is said when it took more: the rules and words by which a kubelet
//! evicts. No IO.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::fields;

const RESOURCE: &str = "ephemeral-storage";

/// Bytes on disk that a pod takes at a moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// By container that runs: what it wrote outside its volumes, and its log.
    pub containers: BTreeMap<String, u64>,
    /// By volume, of those that [`Bounds::volumes`] names.
    pub volumes: BTreeMap<String, u64>,
}

/// What a pod may take.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Bounds {
    /// Of single containers.
    containers: BTreeMap<String, Bound>,
    /// Of emptyDirs on disk.
    volumes: BTreeMap<String, Bound>,
    /// Those that count for the whole.
    counted: Vec<String>,
    /// Of all of it: what the limits of its containers come to, if any has one.
    pod: Option<u64>,
    /// What the node gives to a container that has no limit of its own, or a higher one.
    node: u64,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Bound {
    bytes: u64,
    /// As the pod has it.
    text: String,
}

impl Bounds {
    /// What the pod says, and the node, which gives each container `node` bytes. A quantity that cannot be read bounds nothing.
    pub fn of(pod: &Pod, node: u64) -> Self {
        let Some(spec) = &pod.spec else { return Self { node, ..Self::default() } };
        let limit = |container: &Container| {
            let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
            Some((container.name.clone(), bound(limits?.get(RESOURCE)?)?))
        };
        let regular: BTreeMap<_, _> = spec.containers.iter().filter_map(limit).collect();
        let pod = (!regular.is_empty())
            .then(|| regular.values().fold(0, |sum: u64, bound| sum.saturating_add(bound.bytes)));
        let init = spec.init_containers.iter().flatten().filter_map(limit);
        let on_disk = || {
            let volumes = spec.volumes.iter().flatten();
            let empty = volumes.filter_map(|volume| Some((&volume.name, volume.empty_dir.as_ref()?)));
            empty.filter(|(_, source)| source.medium.as_deref().is_none_or(str::is_empty))
        };
        let sized = on_disk().filter_map(|(name, source)| {
            let limit = bound(source.size_limit.as_ref()?)?;
            // As in Kubernetes, none at all.
            (limit.bytes > 0).then(|| (name.clone(), limit))
        });
        let counted = on_disk().filter(|_| pod.is_some()).map(|(name, _)| name.clone());
        Self {
            volumes: sized.collect(),
            counted: counted.collect(),
            containers: regular.into_iter().chain(init).collect(),
            pod,
            node,
        }
    }

    /// The volumes whose usage matters.
    pub fn volumes(&self) -> impl Iterator<Item = &str> {
        let others = self.counted.iter().filter(|name| !self.volumes.contains_key(*name));
        self.volumes.keys().chain(others).map(String::as_str)
    }

    /// Why the pod is to be evicted, if it is.
    pub fn exceeded(&self, used: &Usage) -> Option<String> {
        let volume = used.volumes.iter().find_map(|(name, used)| {
            let bound = self.volumes.get(name).filter(|bound| *used > bound.bytes)?;
            Some(format!("Usage of EmptyDir volume \"{name}\" exceeds the limit \"{}\". ", bound.text))
        });
        let counted = used.volumes.iter().filter(|(name, _)| self.counted.contains(name));
        let sum = used.containers.values().chain(counted.map(|(_, used)| used)).sum::<u64>();
        let pod = || {
            let limit = self.pod.filter(|limit| sum > *limit)?;
            Some(format!(
                "Pod ephemeral local storage usage exceeds the total limit of containers {}. ",
                canonical(limit)
            ))
        };
        let container = || {
            used.containers.iter().find_map(|(name, used)| {
                let bound = self.containers.get(name).filter(|bound| *used > bound.bytes)?;
                let text = &bound.text;
                Some(format!("Container {name} exceeded its local ephemeral storage limit \"{text}\". "))
            })
        };
        let node = || {
            let (name, _) = used.containers.iter().find(|(_, used)| **used > self.node)?;
            Some(format!(
                "Container {name} wrote more outside its volumes than this node gives to one, {}. ",
                canonical(self.node)
            ))
        };
        volume.or_else(pod).or_else(container).or_else(node)
    }
}

fn bound(quantity: &Quantity) -> Option<Bound> {
    let bytes = u64::try_from(fields::amount(quantity).ok()?.units()).ok()?;
    Some(Bound { bytes, text: quantity.0.clone() })
}

/// Bytes as a quantity: with the largest binary unit that leaves a whole number.
fn canonical(bytes: u64) -> String {
    let units = [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")];
    let unit = units.iter().find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    unit.map_or_else(|| bytes.to_string(), |(shift, name)| format!("{}{name}", bytes >> shift))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NODE: u64 = 8 << 30;

    fn pod(containers: &Value, volumes: &Value) -> Pod {
        let spec = json!({"containers": containers, "volumes": volumes});
        serde_json::from_value(json!({"spec": spec})).expect("a pod")
    }

    fn container(name: &str, limit: Option<&str>) -> Value {
        match limit {
            Some(limit) => {
                json!({"name": name, "resources": {"limits": {"ephemeral-storage": limit, "memory": "1Mi"}}})
            }
            None => json!({"name": name, "resources": {"limits": {"memory": "1Mi"}}}),
        }
    }

    fn used(containers: &[(&str, u64)], volumes: &[(&str, u64)]) -> Usage {
        let named =
            |list: &[(&str, u64)]| list.iter().map(|(name, used)| ((*name).to_owned(), *used)).collect();
        Usage { containers: named(containers), volumes: named(volumes) }
    }

    #[test]
    fn who_takes_more_than_it_may_is_named_in_the_words_of_the_kubelet() {
        let limited = json!([container("a", Some("2Mi")), container("b", Some("1M")), container("c", None)]);
        let volumes = json!([
            {"name": "sized", "emptyDir": {"sizeLimit": "1Mi"}}, {"name": "free", "emptyDir": {}},
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "zero", "emptyDir": {"sizeLimit": "0"}}, {"name": "claim", "configMap": {"name": "x"}}]);
        let bounds = Bounds::of(&pod(&limited, &volumes), NODE);
        assert_eq!(bounds.volumes().collect::<Vec<_>>(), ["sized", "free", "zero"]);
        for (used, expected) in [
            (used(&[("a", 2 << 20), ("b", 0)], &[("sized", 0)]), None),
            (
                used(&[("a", (2 << 20) + 1)], &[]),
                Some("Container a exceeded its local ephemeral storage limit \"2Mi\". "),
            ),
            (
                used(&[("b", 1_000_001)], &[]),
                Some("Container b exceeded its local ephemeral storage limit \"1M\". "),
            ),
            (used(&[], &[("sized", 1 << 20)]), None),
            (
                used(&[], &[("sized", (1 << 20) + 1)]),
                Some("Usage of EmptyDir volume \"sized\" exceeds the limit \"1Mi\". "),
            ),
            (
                used(&[("c", 2 << 20)], &[("free", 1 << 20), ("sized", 1)]),
                Some("Pod ephemeral local storage usage exceeds the total limit of containers 3097152. "),
            ),
        ] {
            assert_eq!(bounds.exceeded(&used).as_deref(), expected, "{used:?}");
        }
    }

    #[test]
    fn the_node_has_a_bound_for_whoever_names_none() {
        let volumes = json!([{"name": "free", "emptyDir": {}}]);
        let bounds = Bounds::of(&pod(&json!([container("a", None)]), &volumes), NODE);
        assert_eq!(bounds.volumes().count(), 0, "nobody has to look at what is free");
        assert_eq!(bounds.exceeded(&used(&[("a", NODE)], &[])), None);
        let text = "Container a wrote more outside its volumes than this node gives to one, 8Gi. ";
        assert_eq!(bounds.exceeded(&used(&[("a", NODE + 1)], &[])).as_deref(), Some(text));
    }
}

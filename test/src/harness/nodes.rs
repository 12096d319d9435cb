//! The labels of a world's nodes: they get those that the YAML of tests selects nodes by. Writes nodes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

/// What the nodes have been given so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels(Arc<Mutex<BTreeMap<String, String>>>);

impl Labels {
    /// Gives every node the labels that one of the objects selects by.
    pub(super) async fn provide(&self, client: &Client, objects: impl Iterator<Item = &Value>) -> Result<()> {
        let mut wanted = BTreeMap::new();
        for object in objects {
            collect(object, &mut wanted);
        }
        wanted.retain(|key, value| self.lock().get(key) != Some(value));
        if !wanted.is_empty() {
            label(client, &json!(wanted)).await?;
            self.lock().extend(wanted);
        }
        Ok(())
    }

    /// Takes them all back.
    pub(super) async fn take_back(&self, client: &Client) -> Result<()> {
        let none: BTreeMap<_, _> = self.lock().keys().map(|key| (key.clone(), Value::Null)).collect();
        if none.is_empty() { Ok(()) } else { label(client, &json!(none)).await }
    }

    /// Nodes can be selected by this label: they have it from here, or from Kubernetes.
    pub(super) fn has(&self, key: &str) -> bool {
        is_kubernetes_own(key) || self.lock().contains_key(key)
    }

    /// As if nodes had been given this one.
    #[cfg(test)]
    pub(super) fn of(key: &str, value: &str) -> Self {
        Self(Arc::new(Mutex::new([(key.to_owned(), value.to_owned())].into())))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn label(client: &Client, labels: &Value) -> Result<()> {
    let nodes = Api::<Node>::all(client.clone());
    let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
    for node in nodes.list_metadata(&ListParams::default()).await?.items {
        nodes.patch(&node.metadata.name.unwrap_or_default(), &PatchParams::default(), &patch).await?;
    }
    Ok(())
}

/// Every label of a `nodeSelector`, but what says what a node is, and what a run fills in: no node has two values.
fn collect(value: &Value, labels: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields.get("nodeSelector").and_then(Value::as_object).into_iter().flatten() {
                if let Some(value) = value.as_str()
                    && !is_kubernetes_own(key)
                    && !value.contains("$(")
                {
                    labels.insert(key.clone(), value.to_owned());
                }
            }
            fields.values().for_each(|value| collect(value, labels));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, labels)),
        _ => {}
    }
}

/// Takes the selectors away whose values a run fills in, as the webhook of a test cluster takes them from pods.
pub(super) fn drop_filled_in(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(selector) = fields.get_mut("nodeSelector").and_then(Value::as_object_mut) {
                selector.retain(|_, value| !value.as_str().is_some_and(|value| value.contains("$(")));
            }
            fields.values_mut().for_each(drop_filled_in);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_filled_in),
        _ => {}
    }
}

fn is_kubernetes_own(key: &str) -> bool {
    key.starts_with("kubernetes.io/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_anywhere_in_an_object() {
        let mut labels = BTreeMap::new();
        let selector = json!({ "disktype": "ssd", "kubernetes.io/os": "windows", "pool": "$(params.pool)" });
        collect(
            &json!({ "spec": { "taskRunSpecs": [{ "podTemplate": { "nodeSelector": selector } }] } }),
            &mut labels,
        );
        assert_eq!(labels, BTreeMap::from([("disktype".to_owned(), "ssd".to_owned())]));
    }

    #[test]
    fn what_runs_fill_in_is_taken_away() {
        let mut object =
            json!({ "spec": [{ "nodeSelector": { "disktype": "ssd", "pool": "$(params.pool)" } }] });
        drop_filled_in(&mut object);
        assert_eq!(object, json!({ "spec": [{ "nodeSelector": { "disktype": "ssd" } }] }));
    }
}

//! Plain writes, one after the other, each counted once it was acknowledged.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::watch;

use crate::server::PAUSE;

/// The object that is written again and again.
const COUNTER: &str = "counter";

/// What the server said it had written.
pub(crate) struct Written {
    names: BTreeSet<String>,
    counter: u64,
}

/// Writes until told to stop.
pub(crate) async fn keep_writing(client: Client, stopping: watch::Receiver<bool>) -> Result<Written> {
    let api = Api::<ConfigMap>::default_namespaced(client);
    let mut written = Written { names: BTreeSet::new(), counter: 0 };
    for number in 1u64.. {
        if *stopping.borrow() {
            break;
        }
        let name = format!("written-{number}");
        let object = serde_json::from_value(
            json!({"metadata": {"name": name}, "data": {"number": number.to_string()}}),
        )?;
        // One that was cut off may have been written or not; nobody was told.
        if api.create(&PostParams::default(), &object).await.is_ok() {
            written.names.insert(name);
        }
        let patch = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": COUNTER},
            "data": {"number": number.to_string()}});
        let applied = api.patch(COUNTER, &PatchParams::apply("soak").force(), &Patch::Apply(&patch)).await;
        if applied.is_ok() {
            written.counter = number;
        }
        // No wait for anything: runs are to have most of the server.
        tokio::time::sleep(PAUSE).await;
    }
    Ok(written)
}

impl Written {
    /// All of it is there.
    pub(crate) async fn check(&self, client: &Client) -> Result<String> {
        let all = Api::<ConfigMap>::default_namespaced(client.clone()).list(&ListParams::default()).await?;
        let number = |object: &ConfigMap| object.data.as_ref().and_then(|data| data.get("number").cloned());
        let right = |object: &&ConfigMap| {
            number(object).is_some_and(|number| object.name_any() == format!("written-{number}"))
        };
        let names: BTreeSet<_> = all.iter().filter(right).map(ResourceExt::name_any).collect();
        let lost: Vec<_> = self.names.difference(&names).collect();
        ensure!(lost.is_empty(), "acknowledged and not there: {lost:?}");
        let counter = all.iter().find(|object| object.name_any() == COUNTER).and_then(number);
        let counter: u64 = counter.context("the counter is not there")?.parse()?;
        ensure!(counter >= self.counter, "the counter is {counter}, and {} was acknowledged", self.counter);
        ensure!(!self.names.is_empty(), "nothing was acknowledged at all");
        Ok(format!("{} acknowledged objects there, a counter at {counter}", self.names.len()))
    }
}

//! Objects of every kind with two versions, written in either and read in both: one by one, listed and watched. Asks an API
//! server; what it writes stays in the namespace given.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{Stream, TryStreamExt};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Client, ResourceExt};
use ropewalk_api::kinds::{self, Kind};
use ropewalk_api::strict;
use serde_json::{Value, json};

use crate::objects::MANAGER;

/// How long a watch may take to tell what has happened: clusters answer at once, and their machines may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// The name of the object that is written in the version it is stored in, and of the one that is not.
const NAMES: [&str; 2] = ["stored", "other"];

/// A kind, and the same spec in the words of the version that is stored and of the other one.
fn specs() -> [(&'static str, [Value; 2]); 6] {
    let cpu = || json!({ "requests": { "cpu": "10m" } });
    let task = |resources: &str| json!({ "steps": [{ "name": "s", "image": "example.dev/image:1", resources: cpu() }] });
    let overrides = |resources: &str| json!([{ "name": "s", resources: cpu() }]);
    let pipeline = |resources: &str| json!({ "tasks": [{ "name": "a", "taskSpec": task(resources) }, { "name": "b", "taskRef": { "name": "t" } }] });
    let action =
        json!({ "image": "example.dev/image:1", "params": [{ "name": "p" }], "args": ["$(params.p)"] });
    [
        ("Task", [task("computeResources"), task("resources")]),
        (
            "TaskRun",
            [
                json!({ "taskSpec": task("computeResources"), "stepSpecs": overrides("computeResources"), "managedBy": MANAGER }),
                json!({ "taskSpec": task("resources"), "stepOverrides": overrides("resources"), "managedBy": MANAGER }),
            ],
        ),
        ("Pipeline", [pipeline("computeResources"), pipeline("resources")]),
        (
            "PipelineRun",
            [
                json!({
                    "pipelineSpec": pipeline("computeResources"),
                    "timeouts": { "pipeline": "5m" },
                    "taskRunTemplate": { "serviceAccountName": "builder", "podTemplate": { "enableServiceLinks": false } },
                    "taskRunSpecs": [{ "pipelineTaskName": "a", "serviceAccountName": "a", "stepSpecs": overrides("computeResources") }],
                    "managedBy": MANAGER,
                }),
                json!({
                    "pipelineSpec": pipeline("resources"),
                    "timeouts": { "pipeline": "5m" },
                    "serviceAccountName": "builder",
                    "podTemplate": { "enableServiceLinks": false },
                    "taskRunSpecs": [{ "pipelineTaskName": "a", "taskServiceAccountName": "a", "stepOverrides": overrides("resources") }],
                    "managedBy": MANAGER,
                }),
            ],
        ),
        ("StepAction", [action.clone(), action]),
        (
            "ResolutionRequest",
            [
                json!({ "params": [{ "name": "revision", "value": "main" }, { "name": "url", "value": "https://a" }] }),
                json!({ "params": { "revision": "main", "url": "https://a" } }),
            ],
        ),
    ]
}

/// Writes two objects of each kind, one in each version, and reads both in both.
///
/// # Errors
/// What is read in a version is not what was written, or not in its words.
pub async fn check(client: &Client, namespace: &str) -> Result<()> {
    for kind in kinds::ALL.iter().filter(|kind| !kind.also.is_empty()) {
        let (_, specs) =
            specs().into_iter().find(|(name, _)| *name == kind.kind).with_context(|| kind.kind.to_owned())?;
        let versions: Vec<_> = kind
            .versions()
            .zip(specs)
            .map(|(version, spec)| {
                let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(kind.group, version, kind.kind));
                Version {
                    kind,
                    name: version,
                    spec,
                    api: Api::namespaced_with(client.clone(), namespace, &resource),
                }
            })
            .collect();
        for (name, version) in NAMES.iter().zip(&versions) {
            version
                .create(name)
                .await
                .with_context(|| format!("create a {} in {}", kind.kind, version.name))?;
        }
        for version in &versions {
            version
                .check(&versions)
                .await
                .with_context(|| format!("{} in {}", version.kind.kind, version.name))?;
        }
    }
    Ok(())
}

struct Version {
    kind: &'static Kind,
    name: &'static str,
    spec: Value,
    api: Api<DynamicObject>,
}

impl Version {
    async fn create(&self, name: &str) -> Result<()> {
        let object = json!({
            "apiVersion": format!("{}/{}", self.kind.group, self.name), "kind": self.kind.kind,
            "metadata": { "name": name, "labels": { "resolution.tekton.dev/type": "git" } }, "spec": self.spec,
        });
        self.api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        Ok(())
    }

    async fn check(&self, versions: &[Self]) -> Result<()> {
        for name in NAMES {
            self.reads(&self.api.get(name).await?)?;
        }
        let list = self.api.list(&ListParams::default()).await?;
        let names: Vec<_> = list.items.iter().map(ResourceExt::name_any).collect();
        ensure!(names == ["other", "stored"], "the list has {names:?}");
        list.items.iter().try_for_each(|object| self.reads(object))?;

        let seen = tokio::time::timeout(PATIENCE, async {
            let mut events = Box::pin(self.api.watch(&WatchParams::default(), "0").await?);
            let mut seen = BTreeMap::new();
            while seen.len() < NAMES.len() {
                let object = next(&mut events).await?;
                seen.insert(object.name_any(), object);
            }
            anyhow::Ok(seen)
        });
        seen.await
            .context("the watch from the beginning")??
            .values()
            .try_for_each(|object| self.reads(object))?;

        let since = list.metadata.resource_version.context("a list without a version")?;
        let mut events = Box::pin(self.api.watch(&WatchParams::default(), &since).await?);
        for other in versions {
            let label = format!("{}-to-{}", other.name, self.name);
            let patch = json!({ "metadata": { "labels": { "changed": label } } });
            for name in NAMES {
                other.api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
                let told = tokio::time::timeout(PATIENCE, next(&mut events)).await;
                let object = told.with_context(|| format!("the watch is silent about \"{name}\""))??;
                ensure!(object.name_any() == name, "the watch tells of \"{}\"", object.name_any());
                ensure!(object.labels().get("changed") == Some(&label), "{:?}", object.labels());
                self.reads(&object)?;
            }
        }
        Ok(())
    }

    /// What was written in either version, with nothing but the words of this one. Defaults may be there besides.
    fn reads(&self, object: &DynamicObject) -> Result<()> {
        let read = serde_json::to_value(object)?;
        let expected = format!("{}/{}", self.kind.group, self.name);
        ensure!(read["apiVersion"] == expected, "read as {}", read["apiVersion"]);
        ensure!(holds(&read["spec"], &self.spec), "{} is not in {}", self.spec, read["spec"]);
        let findings = strict::check(self.kind.kind, &read);
        ensure!(findings.is_empty(), "{findings:?} in {read}");
        Ok(())
    }
}

async fn next(
    events: &mut (impl Stream<Item = kube::Result<WatchEvent<DynamicObject>>> + Unpin),
) -> Result<DynamicObject> {
    loop {
        match events.try_next().await?.context("the watch ended early")? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => return Ok(object),
            WatchEvent::Bookmark(_) => {}
            other => bail!("{other:?}"),
        }
    }
}

/// Everything that `part` says stands in `whole`, too.
fn holds(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(field, part)| whole.get(field).is_some_and(|whole| holds(whole, part)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| holds(whole, part))
        }
        (whole, part) => whole == part,
    }
}

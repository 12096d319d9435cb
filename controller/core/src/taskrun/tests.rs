//! Walks through the life of a run: a tiny world that applies plans, and a pod that tests move along.

mod crashes;
mod credentials;
mod failures;
mod lifecycle;
mod look_ups;
mod passes;
mod properties;
mod refusals;
mod results;
mod retries;
mod validation;
mod waits;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use ropewalk_api::conditions::{self, Condition};
use ropewalk_api::config::Config;
use ropewalk_api::{Task, TaskRun, TaskRunStatus};
use serde_json::{Value, json};

use super::{PodWarning, Snapshot, plan, wants_account, wants_task};
use crate::credentials::{Account, Answer};
use crate::images;
use crate::plan::{Plan, Resource, Write};
use crate::settings::Settings;
use crate::snapshot::{Lookup, Refusal};

/// An API server with one run in it.
struct World {
    now: Timestamp,
    config: Config,
    run: Value,
    task: Option<Value>,
    pods: Vec<Value>,
    claims: Vec<Value>,
    images: Option<BTreeMap<String, images::Lookup>>,
    account: Answer<Account>,
    refusals: Vec<Refusal>,
    events: Vec<String>,
    warnings: Vec<PodWarning>,
    /// Requests so far.
    writes: usize,
}

impl World {
    /// A run from YAML; metadata beyond the name is added.
    fn new(run: &str) -> Self {
        let mut run: Value = serde_saphyr::from_str(run).expect("YAML");
        let metadata = run["metadata"].as_object_mut().expect("metadata");
        metadata.insert("namespace".into(), "ns".into());
        metadata.insert("uid".into(), "run-uid".into());
        metadata.insert("resourceVersion".into(), "1".into());
        metadata.insert("generation".into(), 1.into());
        metadata.insert("creationTimestamp".into(), "2026-01-01T00:00:00Z".into());
        Self {
            now: "2026-01-01T00:00:01Z".parse().expect("time"),
            config: Config::default(),
            run,
            task: None,
            pods: Vec::new(),
            claims: Vec::new(),
            images: None,
            account: Answer::Found(Account::default()),
            refusals: Vec::new(),
            events: Vec::new(),
            warnings: Vec::new(),
            writes: 0,
        }
    }

    fn run(&self) -> TaskRun {
        serde_json::from_value(self.run.clone()).expect("a TaskRun")
    }

    fn status(&self) -> TaskRunStatus {
        self.run().status.expect("a status")
    }

    fn succeeded(&self) -> Condition {
        conditions::find(&self.status().conditions, "Succeeded").cloned().expect("a condition")
    }

    /// `status/reason: message` of the condition.
    fn said(&self) -> String {
        let condition = self.succeeded();
        format!("{}/{}: {}", condition.status, condition.reason, condition.message)
    }

    fn diagnosis(&self) -> Option<String> {
        conditions::find(&self.status().conditions, crate::diagnosis::TYPE).map(|c| c.message.clone())
    }

    fn snapshot(&self) -> Snapshot {
        let run = self.run();
        let task = match (wants_task(&run), &self.task) {
            (None, _) => Lookup::NotNeeded,
            (Some(_), None) => Lookup::Missing,
            (Some(_), Some(task)) => {
                Lookup::Found(Arc::new(serde_json::from_value::<Task>(task.clone()).expect("a Task")))
            }
        };
        let pods = self.pods.iter().map(|pod| serde_json::from_value::<Pod>(pod.clone()).expect("a pod"));
        let pods: Vec<_> = pods.map(Arc::new).collect();
        let account = wants_account(&run, &pods, &self.config, &Settings::default());
        Snapshot {
            now: self.now,
            config: Arc::new(self.config.clone()),
            settings: Arc::default(),
            run: Arc::new(run),
            task,
            account: account.map(|_| self.account.clone()),
            pods,
            warnings: self.warnings.clone(),
            images: self.images.clone(),
            refusals: self.refusals.clone(),
        }
    }

    fn plan(&self) -> Plan {
        plan(&self.snapshot())
    }

    /// Plans once and applies it.
    fn step(&mut self) -> Plan {
        let plan = self.plan();
        for write in plan.writes.iter().chain(&plan.status) {
            self.apply(write);
        }
        self.events.extend(plan.events.iter().map(|event| {
            let kind = if event.warning { "Warning" } else { "Normal" };
            format!("{kind} {}: {}", event.reason, event.message)
        }));
        plan
    }

    /// Plans until nothing changes. That a plan on an unchanged world is empty is what ends the loop.
    fn settle(&mut self) -> Plan {
        for _ in 0..10 {
            let plan = self.step();
            if plan.is_empty() {
                return plan;
            }
        }
        panic!("the world does not come to rest: {:?}", self.plan());
    }

    fn apply(&mut self, write: &Write) {
        self.writes += 1;
        let name = write.target().name.clone();
        assert_eq!(write.target().namespace, "ns");
        match write {
            Write::Create { target, object } => {
                let list = match target.resource {
                    Resource::Pod => &mut self.pods,
                    Resource::PersistentVolumeClaim => &mut self.claims,
                    other => panic!("unexpected child {other:?}"),
                };
                assert_eq!(object["metadata"]["name"], name);
                if list.iter().all(|existing| existing["metadata"]["name"] != *name) {
                    let mut object = object.clone();
                    object["metadata"]["creationTimestamp"] = json!(Time(self.now));
                    object["metadata"]["uid"] = json!(format!("{name}-uid"));
                    list.push(object);
                }
            }
            Write::Patch { target, subresource, patch } => {
                let object = match target.resource {
                    Resource::TaskRun => &mut self.run,
                    Resource::Pod => {
                        assert_eq!(*subresource, None);
                        self.pods.iter_mut().find(|pod| pod["metadata"]["name"] == name).expect("the pod")
                    }
                    other => panic!("unexpected patch of {other:?}"),
                };
                json_patch::merge(object, patch);
            }
            Write::Delete { uid, .. } => {
                self.pods.retain(|pod| {
                    pod["metadata"]["name"] != name
                        || Some(pod["metadata"]["uid"].as_str().unwrap_or("")) != uid.as_deref()
                });
            }
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// Sets the status of the newest pod, from YAML.
    fn pod_says(&mut self, status: &str) {
        let status: Value = serde_saphyr::from_str(status).expect("YAML");
        self.pods.last_mut().expect("a pod")["status"] = status;
    }

    /// The newest pod's steps end with these exit codes, in the phase that follows from them.
    fn steps_exit(&mut self, codes: &[i64]) {
        let pod = self.pods.last_mut().expect("a pod");
        let names: Vec<Value> = pod["spec"]["containers"]
            .as_array()
            .expect("containers")
            .iter()
            .map(|container| container["name"].clone())
            .collect();
        let statuses: Vec<Value> = names
            .iter()
            .zip(codes)
            .map(|(name, code)| {
                let reason = if *code == 0 { "Completed" } else { "Error" };
                let terminated = json!({
                    "exitCode": code, "reason": reason,
                    "startedAt": "2026-01-01T00:00:02Z", "finishedAt": "2026-01-01T00:00:03Z",
                });
                json!({
                    "name": name, "image": "i", "imageID": "i@sha256:1", "ready": false, "restartCount": 0,
                    "state": {"terminated": terminated},
                })
            })
            .collect();
        let phase = if codes.iter().all(|code| *code == 0) { "Succeeded" } else { "Failed" };
        pod["status"] = json!({"phase": phase, "containerStatuses": statuses});
    }

    /// The newest pod's containers all run.
    fn pod_runs(&mut self) {
        let pod = self.pods.last_mut().expect("a pod");
        let statuses: Vec<Value> = pod["spec"]["containers"]
            .as_array()
            .expect("containers")
            .iter()
            .map(|container| {
                json!({
                    "name": container["name"], "image": container["image"], "imageID": "", "ready": true,
                    "restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:00:02Z"}},
                })
            })
            .collect();
        pod["status"] = json!({"phase": "Running", "containerStatuses": statuses});
    }
}

const ONE_STEP: &str = "
metadata: {name: run}
spec:
  taskSpec:
    steps: [{name: a, image: i, script: echo}]
";

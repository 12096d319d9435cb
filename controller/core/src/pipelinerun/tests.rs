//! A small world: one run, its children as JSON, plans applied as an API server would.

mod lifecycle;
mod matrix;
mod refusals;
mod scheduling;
mod texts;
mod waits;
mod worlds;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use ropewalk_api::conditions::{self, ConditionStatus, SUCCEEDED};
use ropewalk_api::config::Config;
use ropewalk_api::{ParamValue, Pipeline, PipelineRun, PipelineRunStatus, Task, TaskRun, TaskRunResult};
use serde_json::{Value, json};

use super::{Snapshot, plan, wants_pipeline, wants_tasks};
use crate::plan::{Plan, Resource, Write};
use crate::settings::Settings;
use crate::snapshot::{Lookup, Refusal};

/// Everything a run can see, and the run itself.
pub(super) struct World {
    pub(super) run: Value,
    pub(super) pipelines: BTreeMap<String, Pipeline>,
    pub(super) tasks: BTreeMap<String, Task>,
    pub(super) children: BTreeMap<String, TaskRun>,
    /// Names of claims, in order of creation.
    pub(super) claims: Vec<String>,
    pub(super) config: Config,
    pub(super) now: Timestamp,
    pub(super) refusals: Vec<Refusal>,
    /// Names of children, in order of creation.
    pub(super) born: Vec<String>,
}

impl World {
    /// A world from YAML documents, one of them a PipelineRun.
    pub(super) fn new(yaml: &str) -> Self {
        let mut world = Self {
            run: Value::Null,
            pipelines: BTreeMap::new(),
            tasks: BTreeMap::new(),
            children: BTreeMap::new(),
            claims: Vec::new(),
            config: Config::default(),
            now: "2026-01-01T00:00:00Z".parse().expect("a time"),
            refusals: Vec::new(),
            born: Vec::new(),
        };
        for document in yaml.split("\n---\n") {
            let mut object: Value = serde_saphyr::from_str(document).expect("YAML");
            let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
            match object["kind"].as_str() {
                Some("Task") => {
                    world.tasks.insert(name, serde_json::from_value(object).expect("a Task"));
                }
                Some("Pipeline") => {
                    world.pipelines.insert(name, serde_json::from_value(object).expect("a Pipeline"));
                }
                _ => {
                    object["metadata"]["namespace"] = "ns".into();
                    object["metadata"]["uid"] = "run-uid".into();
                    object["metadata"]["resourceVersion"] = "1".into();
                    world.run = object;
                }
            }
        }
        world
    }

    /// A run named `x` with an embedded Pipeline.
    pub(super) fn embedded(pipeline_spec: &str) -> Self {
        Self::with_spec(pipeline_spec, "")
    }

    /// The same, with more fields of the run's spec.
    pub(super) fn with_spec(pipeline_spec: &str, spec: &str) -> Self {
        let indent = |text: &str, by: &str| {
            let lines: Vec<String> = text.lines().map(|line| format!("{by}{line}")).collect();
            lines.join("\n")
        };
        Self::new(&format!(
            "kind: PipelineRun\nmetadata:\n  name: x\nspec:\n{}\n  pipelineSpec:\n{}",
            indent(spec, "  "),
            indent(pipeline_spec, "    ")
        ))
    }

    pub(super) fn run(&self) -> PipelineRun {
        serde_json::from_value(self.run.clone()).expect("a PipelineRun")
    }

    pub(super) fn status(&self) -> PipelineRunStatus {
        self.run().status.unwrap_or_default()
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let run = self.run();
        let children: Vec<Arc<TaskRun>> = self.children.values().cloned().map(Arc::new).collect();
        let look_up = |name: Option<&str>| match name {
            None => Lookup::NotNeeded,
            Some(name) => match self.pipelines.get(name) {
                Some(pipeline) => Lookup::Found(Arc::new(pipeline.clone())),
                None => Lookup::Missing,
            },
        };
        let pipeline = look_up(wants_pipeline(&run));
        let tasks = wants_tasks(&run, pipeline.found(), &children).into_iter().map(|name| {
            let task = match self.tasks.get(&name) {
                Some(task) => Lookup::Found(Arc::new(task.clone())),
                None => Lookup::Missing,
            };
            (name, task)
        });
        Snapshot {
            now: self.now,
            config: Arc::new(self.config.clone()),
            settings: Arc::new(Settings::default()),
            tasks: tasks.collect(),
            run: Arc::new(run),
            pipeline,
            children,
            refusals: self.refusals.clone(),
        }
    }

    pub(super) fn plan(&self) -> Plan {
        plan(&self.snapshot())
    }

    pub(super) fn apply(&mut self, write: &Write) {
        match write {
            Write::Create { target, object } => match target.resource {
                Resource::TaskRun => {
                    assert!(!self.children.contains_key(&target.name), "\"{}\" is made twice", target.name);
                    let child = serde_json::from_value(object.clone()).expect("a TaskRun");
                    self.children.insert(target.name.clone(), child);
                    self.born.push(target.name.clone());
                }
                Resource::PersistentVolumeClaim => self.claims.push(target.name.clone()),
                other => panic!("nobody creates a {other:?}"),
            },
            Write::Patch { target, patch, .. } if target.resource == Resource::TaskRun => {
                let child = self.children.get_mut(&target.name).expect("the child");
                let mut object = serde_json::to_value(&*child).expect("JSON");
                json_patch::merge(&mut object, patch);
                *child = serde_json::from_value(object).expect("a TaskRun");
            }
            Write::Patch { patch, .. } => {
                let version = &self.run["metadata"]["resourceVersion"];
                let wanted = &patch["metadata"]["resourceVersion"];
                assert!(wanted.is_null() || wanted == version, "a stale patch: {wanted} on {version}");
                let next = version.as_str().expect("a version").parse::<u64>().expect("a number") + 1;
                json_patch::merge(&mut self.run, patch);
                self.run["metadata"]["resourceVersion"] = next.to_string().into();
            }
            Write::Delete { .. } => panic!("nothing is ever deleted"),
        }
    }

    /// Plans and applies until there is nothing to do, which takes at most a few rounds.
    pub(super) fn settle(&mut self) {
        for _ in 0..5 {
            let plan = self.plan();
            if plan.is_empty() {
                return;
            }
            for write in plan.writes.iter().chain(&plan.status) {
                self.apply(write);
            }
        }
        panic!("the plan never becomes empty: {:#?}", self.plan());
    }

    fn child(&mut self, task: &str) -> &mut TaskRun {
        self.children.get_mut(&format!("x-{task}")).unwrap_or_else(|| panic!("\"{task}\" has no child"))
    }

    fn conclude(&mut self, task: &str, status: ConditionStatus, reason: &str) {
        let now = Time(self.now);
        let child = self.child(task).status.get_or_insert_default();
        conditions::set(&mut child.conditions, SUCCEEDED, status, reason, "", &now);
    }

    /// The child of this task has succeeded; then everything settles.
    pub(super) fn succeed(&mut self, task: &str) {
        self.succeed_with(task, &[]);
    }

    /// The same, with results.
    pub(super) fn succeed_with(&mut self, task: &str, results: &[(&str, Value)]) {
        let results = results.iter().map(|(name, value)| TaskRunResult {
            name: (*name).to_owned(),
            result_type: None,
            value: ParamValue::from_json(value),
        });
        self.child(task).status.get_or_insert_default().results = results.collect();
        self.conclude(task, ConditionStatus::True, "Succeeded");
        self.settle();
    }

    /// The child of this task has failed; then everything settles.
    pub(super) fn fail(&mut self, task: &str) {
        self.conclude(task, ConditionStatus::False, "Failed");
        self.settle();
    }

    /// The children that were told to are cancelled; then everything settles.
    pub(super) fn cancel_told(&mut self) {
        let told: Vec<String> = self
            .children
            .values()
            .filter(|child| child.spec.status == "TaskRunCancelled")
            .filter(|child| {
                !child.status.as_ref().is_some_and(|status| conditions::is_done(&status.conditions))
            })
            .filter_map(|child| child.metadata.name.as_deref()?.strip_prefix("x-").map(str::to_owned))
            .collect();
        for task in told {
            self.conclude(&task, ConditionStatus::False, "TaskRunCancelled");
        }
        self.settle();
    }

    /// Time passes; then everything settles.
    pub(super) fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.settle();
    }

    /// Somebody sets `spec.status`; then everything settles.
    pub(super) fn ask(&mut self, status: &str) {
        self.run["spec"]["status"] = json!(status);
        self.settle();
    }

    /// `Succeeded` as `status/reason message`.
    pub(super) fn condition(&self) -> String {
        let status = self.status();
        let condition = conditions::find(&status.conditions, SUCCEEDED).expect("a condition");
        format!("{}/{} {}", condition.status, condition.reason, condition.message)
    }

    /// `name: reason` of each skipped task.
    pub(super) fn skipped(&self) -> Vec<String> {
        self.status().skipped_tasks.iter().map(|task| format!("{}: {}", task.name, task.reason)).collect()
    }

    /// Names of children, in order of creation.
    pub(super) fn born(&self) -> Vec<&str> {
        self.born.iter().map(|name| name.strip_prefix("x-").unwrap_or(name)).collect()
    }

    pub(super) fn params_of(&self, task: &str) -> Value {
        json!(self.children[&format!("x-{task}")].spec.params)
    }

    pub(super) fn script_of(&self, task: &str) -> String {
        let spec = self.children[&format!("x-{task}")].spec.task_spec.clone().expect("an embedded Task");
        spec.steps[0].script.clone()
    }
}

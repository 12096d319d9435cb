//! `ropewalk render`: the pods that runs become, without running anything. Deterministic: names that the API server
//! would draw are fixed, and the clock stands still.
//!
//! For a PipelineRun the real planner is asked round by round, and every task it starts is taken to succeed with the
//! text of the reference as the value of each result, so `$(tasks.a.results.r)` stays readable in the pods that use it.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use ropewalk_api::conditions::{self, ConditionStatus, SUCCEEDED};
use ropewalk_api::config::Config;
use ropewalk_api::{ParamType, ParamValue, Pipeline, PipelineRun, Task, TaskRun, TaskRunResult, labels};
use ropewalk_core::credentials::{Account, Answer, Secret};
use ropewalk_core::plan::{Resource, Write};
use ropewalk_core::settings::Settings;
use ropewalk_core::snapshot::Lookup;
use ropewalk_core::{pipelinerun, pod};
use ropewalk_webhook as webhook;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::args;
use crate::diagnostic::Diagnostic;
use crate::run::{self, Objects};

/// In place of what the API server draws at random.
const UID: &str = "00000000-0000-0000-0000-000000000000";
const SUFFIX: &str = "00000";

/// Runs the command: pods on standard output as YAML documents.
pub fn render(args: &args::Render) -> ExitCode {
    match attempt(args) {
        Ok(pods) => {
            // A pod is plain data; it always serializes.
            let documents = pods.iter().map(|pod| serde_saphyr::to_string(pod).unwrap_or_default());
            let text = documents.map(|pod| format!("---\n{}\n", pod.trim_end())).collect::<Vec<_>>().concat();
            match crate::print(&text) {
                Ok(()) => ExitCode::SUCCESS,
                Err(lost) => {
                    crate::report(&[lost], false);
                    ExitCode::from(run::REFUSED)
                }
            }
        }
        Err(diagnostics) => {
            crate::report(&diagnostics, false);
            ExitCode::from(run::REFUSED)
        }
    }
}

fn attempt(args: &args::Render) -> Result<Vec<Pod>, Vec<Diagnostic>> {
    let documents = run::read(&args.files)?;
    let additions = run::Additions { params: &[], workspaces: &[], namespace: &args.namespace };
    let objects = run::assemble(documents, &additions).map_err(|diagnostic| vec![diagnostic])?;
    let world = World::admit(&objects)?;
    let mut pods = Vec::new();
    for taskrun in &world.taskruns {
        pods.push(world.pod(taskrun)?);
    }
    for pipelinerun in &world.pipelineruns {
        for taskrun in world.children(pipelinerun)? {
            pods.push(world.pod(&taskrun)?);
        }
    }
    Ok(pods)
}

/// The objects of the files as the API server would have them.
#[derive(Default)]
struct World {
    config: Arc<Config>,
    settings: Arc<Settings>,
    tasks: BTreeMap<String, Arc<Task>>,
    pipelines: BTreeMap<String, Arc<Pipeline>>,
    accounts: BTreeMap<String, Account>,
    secrets: BTreeMap<String, Secret>,
    taskruns: Vec<TaskRun>,
    pipelineruns: Vec<PipelineRun>,
}

impl World {
    fn admit(objects: &Objects) -> Result<Self, Vec<Diagnostic>> {
        let mut world = Self::default();
        for object in objects.definitions.iter().chain(&objects.runs) {
            let refused = |message: String| {
                let message = format!("{} was refused: {message}", object.kind());
                vec![match &object.document {
                    Some(document) => document.error("", message),
                    None => Diagnostic::new(message),
                }]
            };
            let value = world.admitted(&object.value).map_err(&refused)?;
            match object.kind() {
                "Task" => {
                    let task: Task = typed(value).map_err(&refused)?;
                    world.tasks.insert(task.metadata.name.clone().unwrap_or_default(), Arc::new(task));
                }
                "Pipeline" => {
                    let pipeline: Pipeline = typed(value).map_err(&refused)?;
                    world
                        .pipelines
                        .insert(pipeline.metadata.name.clone().unwrap_or_default(), Arc::new(pipeline));
                }
                "ServiceAccount" => {
                    let account: ServiceAccount = typed(value).map_err(&refused)?;
                    let name = account.metadata.name.clone().unwrap_or_default();
                    world.accounts.insert(name, Account::new(&account));
                }
                "Secret" => {
                    let secret: core::v1::Secret = typed(value).map_err(&refused)?;
                    let name = secret.metadata.name.clone().unwrap_or_default();
                    world.secrets.insert(name, Secret::of_object(&secret));
                }
                "TaskRun" => world.taskruns.push(typed(value).map_err(&refused)?),
                "PipelineRun" => world.pipelineruns.push(typed(value).map_err(&refused)?),
                _ => {}
            }
        }
        Ok(world)
    }

    /// What defaulting, validation and creation make of an object.
    fn admitted(&self, object: &Value) -> Result<Value, String> {
        let kind = object["kind"].as_str().unwrap_or_default();
        let group = object["apiVersion"]
            .as_str()
            .and_then(|version| version.split_once('/'))
            .map_or("", |(group, _)| group);
        let request = webhook::Request {
            operation: webhook::Operation::Create,
            group,
            kind,
            subresource: None,
            object,
            old_object: None,
        };
        let settings = webhook::Settings { release: self.settings.release.clone() };
        let mut object = match webhook::admit(&request, &self.config, &settings) {
            webhook::Decision::Allow { object, .. } => object,
            webhook::Decision::Deny { message, .. } => return Err(message),
        };
        let metadata = &mut object["metadata"];
        if metadata["name"].as_str().is_none_or(str::is_empty) {
            metadata["name"] =
                format!("{}{SUFFIX}", metadata["generateName"].as_str().unwrap_or_default()).into();
        }
        metadata["uid"] = UID.into();
        Ok(object)
    }

    fn pod(&self, run: &TaskRun) -> Result<Pod, Vec<Diagnostic>> {
        let task = run.spec.task_ref.as_ref().and_then(|reference| self.tasks.get(&reference.name));
        let account = self.account(&run.spec.service_account_name);
        pod::render(run, task.map(AsRef::as_ref), &account, &self.config, &self.settings).map_err(|error| {
            let name = run.metadata.name.as_deref().unwrap_or_default();
            vec![Diagnostic::new(format!("TaskRun \"{name}\" becomes no pod: {error}"))]
        })
    }

    /// The service account, with those of its secrets that are in the files; one that is not there has none.
    fn account(&self, name: &str) -> Account {
        let mut account = self.accounts.get(name).cloned().unwrap_or_default();
        let answer =
            |secret: &String| self.secrets.get(secret).cloned().map_or(Answer::Missing, Answer::Found);
        account.secrets = account.wanted().iter().map(|secret| (secret.clone(), answer(secret))).collect();
        account
    }

    /// Every TaskRun a PipelineRun creates when all goes well, in the order of creation.
    fn children(&self, run: &PipelineRun) -> Result<Vec<TaskRun>, Vec<Diagnostic>> {
        let name = run.metadata.name.clone().unwrap_or_default();
        let failed = |message: String| vec![Diagnostic::new(format!("PipelineRun \"{name}\": {message}"))];
        let mut run = run.clone();
        let mut children: Vec<Arc<TaskRun>> = Vec::new();
        let mut created = Vec::new();
        loop {
            let plan = pipelinerun::plan(&self.snapshot(&run, &children));
            let (made, before) = (created.len(), run.clone());
            for write in plan.writes.iter().chain(&plan.status) {
                match write {
                    Write::Create { target, object } if target.resource == Resource::TaskRun => {
                        let child: TaskRun = self.admitted(object).and_then(typed).map_err(failed)?;
                        children.push(Arc::new(self.succeeded(child.clone())));
                        created.push(child);
                    }
                    Write::Patch { target, patch, .. } if target.resource == Resource::PipelineRun => {
                        let mut object =
                            serde_json::to_value(&run).map_err(|error| failed(error.to_string()))?;
                        json_patch::merge(&mut object, patch);
                        run = typed(object).map_err(failed)?;
                    }
                    _ => {}
                }
            }
            let conditions =
                run.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            if created.is_empty()
                && conditions::is_failed(conditions)
                && let Some(condition) = conditions::find(conditions, SUCCEEDED)
            {
                return Err(failed(condition.message.clone()));
            }
            // What does not change the world once will not change it the next time either.
            if conditions::is_done(conditions) || (created.len() == made && run == before) {
                return Ok(created);
            }
        }
    }

    fn snapshot(&self, run: &PipelineRun, children: &[Arc<TaskRun>]) -> pipelinerun::Snapshot {
        let pipeline = match pipelinerun::wants_pipeline(run) {
            None => Lookup::NotNeeded,
            Some(name) => {
                self.pipelines.get(name).map_or(Lookup::Missing, |found| Lookup::Found(Arc::clone(found)))
            }
        };
        let tasks = pipelinerun::wants_tasks(run, pipeline.found(), children)
            .into_iter()
            .map(|name| {
                let task =
                    self.tasks.get(&name).map_or(Lookup::Missing, |found| Lookup::Found(Arc::clone(found)));
                (name, task)
            })
            .collect();
        pipelinerun::Snapshot {
            now: Timestamp::UNIX_EPOCH,
            config: Arc::clone(&self.config),
            settings: Arc::clone(&self.settings),
            run: Arc::new(run.clone()),
            pipeline,
            tasks,
            children: children.to_vec(),
            refusals: Vec::new(),
        }
    }

    /// The child as it would be after success, each result holding the reference to it.
    fn succeeded(&self, mut child: TaskRun) -> TaskRun {
        let reference = child.spec.task_ref.as_ref().and_then(|reference| self.tasks.get(&reference.name));
        let spec = child.spec.task_spec.as_ref().or(reference.map(|task| &task.spec));
        let task = child.metadata.labels.as_ref().and_then(|all| all.get(labels::PIPELINE_TASK)).cloned();
        let task = task.unwrap_or_default();
        let results = spec.map(|spec| &spec.results).into_iter().flatten().map(|result| {
            let text = format!("$(tasks.{task}.results.{})", result.name);
            let value = match result.value_type() {
                ParamType::String => ParamValue::String(text),
                ParamType::Array => ParamValue::Array(vec![text]),
                ParamType::Object => ParamValue::Object(
                    result
                        .properties
                        .keys()
                        .map(|key| (key.clone(), text.replace(')', &format!(".{key})"))))
                        .collect(),
                ),
            };
            TaskRunResult { name: result.name.clone(), result_type: result.result_type.clone(), value }
        });
        let mut status = child.status.take().unwrap_or_default();
        status.results = results.collect();
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH);
        conditions::set(&mut status.conditions, SUCCEEDED, ConditionStatus::True, "Succeeded", "", &now);
        status.completion_time = Some(now);
        child.status = Some(status);
        child
    }
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::{Source, parse};

    #[test]
    fn a_pod_has_the_credentials_that_the_files_give_its_account() {
        let text = "
apiVersion: v1
kind: Secret
metadata: {name: bot, annotations: {tekton.dev/git-0: https://git.example}}
type: kubernetes.io/basic-auth
stringData: {username: robot, password: never-shown}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: default}
secrets: [{name: bot}, {name: elsewhere}]
---
apiVersion: tekton.dev/v1
kind: TaskRun
metadata: {name: clone}
spec: {taskSpec: {steps: [{image: i, script: git clone}]}}
";
        let documents = parse(Source::new("test.yaml", text)).expect("valid YAML");
        let additions = run::Additions { params: &[], workspaces: &[], namespace: "ns" };
        let world = World::admit(&run::assemble(documents, &additions).expect("a run")).expect("admitted");
        let pod = serde_json::to_value(world.pod(&world.taskruns[0]).expect("a pod")).expect("JSON");
        let args = pod["spec"]["containers"][0]["args"].as_array().expect("args");
        assert!(args.contains(&"-basic-git=bot=https://git.example".into()), "{args:?}");
        assert_eq!(pod["metadata"]["annotations"]["ropewalk.dev/missing-secrets"], "elsewhere");
        assert!(!pod.to_string().contains("never-shown"));
    }
}

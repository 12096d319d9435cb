//! What runs cost the API server: writes, events and admission calls, counted in its audit log; and what finished ones
//! cost, which is nothing.

use anyhow::{Context, Result, bail};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use ropewalk_test::harness::audit::{Audit, CONTROLLER, Request, WRITES};
use ropewalk_test::harness::installation::{self, Installation};
use ropewalk_test::harness::{Namespace, PATIENCE, RunKey, World, set, taskrun};
use serde_json::json;

/// The most that the engine writes for a TaskRun of one step: its pod, what it takes over from its Task, that it has
/// started, that it runs, and its end.
const TASK_RUN: usize = 5;

/// And for a PipelineRun of one such task, what is written for the TaskRun included.
const PIPELINE_RUN: usize = 11;

/// The most events about one of them.
const EVENTS: usize = 4;

/// Runs of each kind at once: some of them meet a busy node.
const RUNS: usize = 3;

/// The kinds that webhooks are asked about.
const ADMITTED: [&str; 4] = ["tasks", "taskruns", "pipelines", "pipelineruns"];

const DEFINITIONS: &str = r#"
apiVersion: tekton.dev/v1
kind: Task
metadata:
  name: one-step
  labels:
    made-by: them
spec:
  steps:
    - name: work
      image: bash
      script: "true"
---
apiVersion: tekton.dev/v1
kind: Pipeline
metadata:
  name: one-task
  labels:
    made-by: them
spec:
  tasks:
    - name: only
      taskRef:
        name: one-step
---
"#;

/// What is missing for counting requests, if anything.
pub(crate) fn lacks() -> Option<&'static str> {
    Audit::find()
        .is_none()
        .then_some("the audit log of a cluster that hack/cluster has started on this machine")
}

/// Runs of each kind, with their definitions inside and by reference, and one whose step fails.
fn documents() -> String {
    let mut yaml = DEFINITIONS.to_owned();
    let mut run = |kind: &str, name: &str, spec: &str| {
        let head = format!("apiVersion: tekton.dev/v1\nkind: {kind}\nmetadata:\n  name: {name}\n");
        yaml.extend([&head, "spec:\n  ", spec, "\n---\n"]);
    };
    let task = |script: &str| {
        format!("taskSpec: {{ steps: [{{ name: work, image: bash, script: \"{script}\" }}] }}")
    };
    for number in 0..RUNS {
        run("TaskRun", &format!("alone{number}"), &task("true"));
        run("TaskRun", &format!("alone-by-name{number}"), "taskRef: { name: one-step }");
        let embedded = format!("pipelineSpec: {{ tasks: [{{ name: only, {} }}] }}", task("true"));
        run("PipelineRun", &format!("parent{number}"), &embedded);
        run("PipelineRun", &format!("parent-by-name{number}"), "pipelineRef: { name: one-task }");
    }
    run("TaskRun", "fails", &task("exit 3"));
    yaml
}

/// A TaskRun that begins after all that came before, and has ended: nothing of that is still on its way.
async fn after_all(namespace: &Namespace<'_>, name: &str) -> Result<()> {
    let runs = namespace
        .apply(&format!(
            "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata:\n  name: {name}\nspec:\n  taskSpec:\n    steps:\n      \
             - name: work\n        image: bash\n        script: \"true\"\n"
        ))
        .await?;
    let ended = namespace.done(&runs[0], PATIENCE).await?;
    assert_eq!(ended.status(), "True", "{ended}");
    Ok(())
}

/// What our controller sent about a run: the resources and verbs of its writes, and how many events.
fn cost(requests: &[Request], run: &RunKey) -> (Vec<String>, usize) {
    let child = format!("{}-only", run.name);
    let pod = format!("{}-pod", if run.kind == "TaskRun" { &run.name } else { &child });
    let ours = requests.iter().filter(|request| request.user == CONTROLLER);
    let (mut writes, mut events) = (Vec::new(), 0);
    for Request { verb, resource, name, code, .. } in ours {
        if !WRITES.contains(&verb.as_str()) {
            continue;
        }
        // The name of an event is that of its run, a dot and a number.
        if resource == "events" {
            events += usize::from(name.rsplit_once('.').is_some_and(|(about, _)| about == run.name));
        } else if *name == run.name || *name == pod || (run.kind == "PipelineRun" && *name == child) {
            writes.push(format!("{verb} {resource} {code}"));
        }
    }
    (writes, events)
}

/// Few writes and events, and none of them passes a webhook but creations and what a run takes over from its definition.
#[expect(clippy::print_stdout, reason = "figures are to be seen, too")]
pub(crate) async fn few(world: &World) -> Result<()> {
    let audit = world.audit().context("there is no audit log to count in")?;
    let namespace = world.namespace("writes").await?;
    let runs = namespace.apply(&documents()).await?;
    for run in &runs {
        let ended = namespace.done(run, PATIENCE).await?;
        let (status, told) = if run.name == "fails" { ("False", "Failed") } else { ("True", "Succeeded") };
        assert_eq!(ended.status(), status, "{ended}");
        let (name, child) = (&run.name, format!("{}-only", run.name));
        let children = if run.kind == "TaskRun" {
            set([format!("Pod {name}-pod").as_str()])
        } else {
            set([&format!("TaskRun {child}"), &format!("Pod {child}-pod")])
        };
        assert_eq!(namespace.children(&ended).await?, children);
        namespace.event(run.kind, name, told, PATIENCE).await?;
    }
    after_all(&namespace, "after").await?;

    let requests = audit.requests(namespace.name())?;
    for run in &runs {
        let (writes, events) = cost(&requests, run);
        println!(
            "        {} {}: {} writes, {events} events: {}",
            run.kind,
            run.name,
            writes.len(),
            writes.join(", ")
        );
        let most = if run.kind == "TaskRun" { TASK_RUN } else { PIPELINE_RUN };
        // Those that came too late to change anything count, too.
        assert!(writes.len() <= most, "{} {}: {writes:?}", run.kind, run.name);
        assert!((2..=EVENTS).contains(&events), "{} {}: {events} events", run.kind, run.name);
        let is_update =
            |write: &&String| ADMITTED.iter().any(|kind| write.starts_with(&format!("patch {kind} ")));
        let updates = writes.iter().filter(is_update).count();
        // Labels of the definition go to the run; a condition spares those of the controller from Kubernetes 1.28 on.
        assert_eq!(
            updates,
            usize::from(run.name.contains("by-name")),
            "{} {}: {writes:?}",
            run.kind,
            run.name
        );
    }
    namespace.finish().await
}

/// Each webhook is asked once about each object that is created, and about nothing that happens to it later. The audit log
/// names those that mutate; the one that validates goes by the same rules.
pub(crate) async fn admission(world: &World) -> Result<()> {
    const MUTATING: &str = "webhook.pipeline.tekton.dev";
    const VALIDATING: &str = "validation.webhook.pipeline.tekton.dev";
    let mutating = Api::<MutatingWebhookConfiguration>::all(world.client()).get(MUTATING).await?;
    let validating = Api::<ValidatingWebhookConfiguration>::all(world.client()).get(VALIDATING).await?;
    let [mutates] = &mutating.webhooks.unwrap_or_default()[..] else {
        bail!("more than one webhook mutates")
    };
    let [validates] = &validating.webhooks.unwrap_or_default()[..] else { bail!("more than one validates") };
    assert_eq!(mutates.rules, validates.rules);
    assert_eq!(mutates.match_conditions, validates.match_conditions);
    assert_eq!(mutates.namespace_selector, validates.namespace_selector);
    assert_eq!(mutates.object_selector, validates.object_selector);

    let audit = world.audit().context("there is no audit log to count in")?;
    let namespace = world.namespace("admission").await?;
    let runs = namespace.apply(include_str!("../../../../examples/quickstart.yaml")).await?;
    let ended = namespace.done(&runs[0], PATIENCE).await?;
    assert_eq!(ended.reason(), "Completed", "{ended}");
    after_all(&namespace, "after").await?;
    let (mut created, mut changed) = (0, 0);
    for request in audit.requests(namespace.name())? {
        let (kind, part) = request.resource.split_once('/').unwrap_or((&request.resource, ""));
        if !ADMITTED.contains(&kind) || !WRITES.contains(&request.verb.as_str()) {
            continue;
        }
        if request.verb == "create" {
            assert_eq!(request.asked, [MUTATING], "{request:?}");
            created += 1;
        } else {
            assert_eq!((part, &request.asked[..]), ("status", &[][..]), "{request:?}");
            changed += 1;
        }
    }
    let children = namespace.children(&ended).await?;
    let children = children.iter().filter(|child| child.starts_with("TaskRun ")).count();
    // What was applied with the run, its children, and the run after it.
    assert!(created > runs.len() + children && changed > created, "{created} created, {changed} changed");
    namespace.finish().await
}

/// A controller that begins anew sees every finished run, and writes about none.
pub(crate) async fn resync(world: &World) -> Result<()> {
    let audit = world.audit().context("there is no audit log to count in")?;
    let namespace = world.namespace("resync").await?;
    let runs = namespace.apply(&documents()).await?;
    for run in &runs {
        namespace.done(run, PATIENCE).await?;
    }
    after_all(&namespace, "after").await?;
    let writes = || {
        let requests = audit.requests(namespace.name())?;
        let ours = |request: &&Request| {
            request.user == CONTROLLER
                && WRITES.contains(&request.verb.as_str())
                && !request.name.starts_with("again")
        };
        anyhow::Ok(requests.iter().filter(ours).count())
    };
    let before = writes()?;
    assert!(before >= 4 * runs.len(), "the audit log has only {before} writes");

    let installation = Installation::of(world);
    for pod in installation.pods(installation::CONTROLLER).await? {
        installation.delete(&pod).await?;
    }
    installation.renew(installation::CONTROLLER).await?;
    // The first lists were decided on before this one could begin; the second shows what the first has set off.
    for name in ["again", "again-later"] {
        after_all(&namespace, name).await?;
    }
    assert_eq!(writes()?, before, "writes about finished runs");
    namespace.finish().await
}

/// Nothing is written about a run that is done when its children go.
pub(crate) async fn vanishing(world: &World) -> Result<()> {
    let namespace = world.namespace("vanishing").await?;
    let runs = namespace
        .apply(
            "
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: gone
spec:
  pipelineSpec:
    tasks:
      - name: only
        taskSpec:
          results:
            - name: word
          steps:
            - name: say
              image: bash
              script: printf kept > $(results.word.path)
    results:
      - name: word
        value: $(tasks.only.results.word)
",
        )
        .await?;
    let ended = namespace.done(&runs[0], PATIENCE).await?;
    assert_eq!(ended.status(), "True", "{ended}");
    let task = taskrun(&runs[0], "gone-only");
    let task_ended = namespace.done(&task, PATIENCE).await?;
    after_all(&namespace, "before").await?;

    let pods = Api::<Pod>::namespaced(world.client(), namespace.name());
    pods.delete("gone-only-pod", &DeleteParams::default().grace_period(0)).await?;
    namespace.pod_gone("gone-only-pod", PATIENCE).await?;
    after_all(&namespace, "without-pod").await?;
    let now = namespace.done(&task, PATIENCE).await?;
    assert_eq!(now.value["metadata"]["resourceVersion"], task_ended.value["metadata"]["resourceVersion"]);

    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(ropewalk_api::GROUP, "v1", "TaskRun"));
    let taskruns = Api::<DynamicObject>::namespaced_with(world.client(), namespace.name(), &resource);
    taskruns.delete("gone-only", &DeleteParams::default()).await?;
    after_all(&namespace, "without-child").await?;
    assert!(taskruns.get_opt("gone-only").await?.is_none(), "a child was made again");
    let now = namespace.done(&runs[0], PATIENCE).await?;
    assert_eq!(now.value["metadata"]["resourceVersion"], ended.value["metadata"]["resourceVersion"]);
    assert_eq!(now.value["status"]["childReferences"][0]["name"], "gone-only");
    assert_eq!(now.value["status"]["results"], json!([{ "name": "word", "value": "kept" }]));
    assert_eq!(namespace.children(&now).await?, set([]));
    namespace.finish().await
}

//! Mistakes that other clients of these APIs have met, one test each. The numbers are kept in the tests' names.

use anyhow::{Result, bail};
use ropewalk_test::harness::{GONE, Kind, Namespace, PATIENCE, RunKey, State, World, set, taskrun};
use serde_json::{Value, json};

use crate::clients::{json_patch, put, refusal};
use crate::marked::is_running;

async fn runs_now(namespace: &Namespace<'_>, task: &RunKey) -> Result<State> {
    namespace.until(task, PATIENCE, is_running(0)).await
}

/// A typed PUT (Jenkins X), JSON Patch `replace` of a key that is not there (tkn, Dashboard) and `remove` (Dashboard), merge
/// patch of `""` and of `CancelledRunFinally` (Pipelines-as-Code).
pub(crate) async fn trap_1(world: &World) -> Result<()> {
    let namespace = world.namespace("trap-1").await?;
    let pipeline = |name: &str, status: &str, command: &str, finally: &str| {
        format!(
            "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata:\n  name: {name}\nspec:\n{status}  pipelineSpec:\n    \
             tasks:\n      - name: only\n        taskSpec:\n          steps:\n            - name: work\n              \
             image: bash\n              command: {command}\n{finally}---\n"
        )
    };
    let long = |name: &str| pipeline(name, "", "[sleep, \"1000\"]", "");
    let pending = |name: &str| pipeline(name, "  status: PipelineRunPending\n", "[\"true\"]", "");
    let finally = "    finally:\n      - name: last\n        taskSpec:\n          steps:\n            - name: tidy\n              \
                   image: bash\n              command: [\"true\"]\n";
    let lone = "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata:\n  name: lone\nspec:\n  taskSpec:\n    steps:\n      \
                - name: work\n        image: bash\n        command: [sleep, \"1000\"]\n";
    let yaml = [
        long("put"),
        long("replaced"),
        pipeline("gracefully", "", "[sleep, \"1000\"]", finally),
        pending("removed"),
        pending("emptied"),
        lone.to_owned(),
    ];
    let client = world.client();
    let runs = namespace.apply(&yaml.concat()).await?;
    let [ref put_run, ref replaced, ref gracefully, ref removed, ref emptied, ref lone] = runs[..] else {
        bail!("{runs:?}")
    };

    for run in [removed, emptied] {
        let waits = namespace.until(run, PATIENCE, |state| state.reason() == "PipelineRunPending").await?;
        assert_eq!(namespace.children(&waits).await?, set([]), "{waits}");
    }
    json_patch(&client, removed, json!([{ "op": "remove", "path": "/spec/status" }])).await?;
    namespace.patch(emptied, json!({ "spec": { "status": "" } })).await?;

    for name in ["put-only", "replaced-only", "gracefully-only"] {
        runs_now(&namespace, &taskrun(put_run, name)).await?;
    }
    runs_now(&namespace, lone).await?;
    let replace = |value: &str| json!([{ "op": "replace", "path": "/spec/status", "value": value }]);
    put(&client, put_run, |run| run["spec"]["status"] = "Cancelled".into()).await?;
    json_patch(&client, replaced, replace("Cancelled")).await?;
    json_patch(&client, lone, replace("TaskRunCancelled")).await?;
    namespace.patch(gracefully, json!({ "spec": { "status": "CancelledRunFinally" } })).await?;

    for (run, status, reason) in [
        (put_run, "False", "Cancelled"),
        (replaced, "False", "Cancelled"),
        (gracefully, "False", "Cancelled"),
        (removed, "True", "Succeeded"),
        (emptied, "True", "Succeeded"),
        (lone, "False", "TaskRunCancelled"),
    ] {
        let ended = namespace.done(run, PATIENCE).await?;
        assert_eq!((ended.status(), ended.reason()), (status, reason), "{} {ended}", run.name);
        let (task, pod) = (format!("TaskRun {}-only", run.name), format!("{}-only-pod", run.name));
        if status == "True" {
            assert_eq!(namespace.children(&ended).await?, set([&task, &format!("Pod {pod}")]));
        } else if run.kind == "TaskRun" {
            namespace.pod_gone("lone-pod", GONE).await?;
            assert_eq!(namespace.children(&ended).await?, set([]));
        } else {
            namespace.pod_gone(&pod, GONE).await?;
            let child = namespace.done(&taskrun(run, &format!("{}-only", run.name)), GONE).await?;
            assert_eq!(child.reason(), "TaskRunCancelled", "{child}");
            let mut children = set([&task]);
            if run == gracefully {
                children.extend(set(["TaskRun gracefully-last", "Pod gracefully-last-pod"]));
            }
            assert_eq!(namespace.children(&ended).await?, children);
        }
    }
    namespace.finish().await
}

/// Updates are compared as what they mean: zero values that a client in Go adds, and defaults that it leaves out, change
/// nothing.
pub(crate) async fn trap_2(world: &World) -> Result<()> {
    let namespace = world.namespace("trap-2").await?;
    let client = world.client();
    let runs = namespace
        .apply(
            r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: typed
spec:
  status: PipelineRunPending
  params:
    - name: word
      value: as it was
  workspaces:
    - name: scratch
      volumeClaimTemplate:
        spec:
          accessModes: [ReadWriteOnce]
          resources:
            requests:
              storage: 1Mi
  pipelineSpec:
    params:
      - name: word
    workspaces:
      - name: scratch
    tasks:
      - name: only
        workspaces:
          - name: scratch
        taskSpec:
          workspaces:
            - name: scratch
          steps:
            - name: work
              image: bash
              script: |
                echo "$(params.word)" > $(workspaces.scratch.path)/word
                sleep 10
"#,
        )
        .await?;
    let run = &runs[0];
    let label = |text: &'static str| move |run: &mut Value| run["metadata"]["labels"]["team"] = text.into();
    let other_param = |run: &mut Value| run["spec"]["params"][0]["value"] = "another".into();
    let without_defaults = |run: &mut Value| {
        let spec = run["spec"].as_object_mut().expect("a spec");
        spec.remove("timeouts");
        spec.remove("taskRunTemplate");
        run["metadata"]["annotations"]["seen"] = "true".into();
    };
    let started = "Once the PipelineRun has started, only status updates are allowed";
    let over = "Once the PipelineRun is complete, no updates are allowed";

    namespace.until(run, PATIENCE, |state| state.reason() == "PipelineRunPending").await?;
    put(&client, run, label("red")).await?;
    put(&client, run, without_defaults).await?;
    let refused = refusal(put(&client, run, other_param).await)?;
    assert!(refused.contains(started), "{refused}");
    let waits =
        namespace.until(run, PATIENCE, |state| state.value["metadata"]["labels"]["team"] == "red").await?;
    assert_eq!(waits.reason(), "PipelineRunPending", "a status that a client puts is nobody's");
    assert_eq!(waits.value["spec"]["timeouts"]["pipeline"], "1h0m0s", "defaults are there again");

    put(&client, run, |run| run["spec"]["status"] = "".into()).await?;
    let task = taskrun(run, "typed-only");
    runs_now(&namespace, &task).await?;
    put(&client, run, label("green")).await?;
    put(&client, &task, label("green")).await?;
    let refused = refusal(put(&client, run, other_param).await)?;
    assert!(refused.contains(started), "{refused}");
    let refused = refusal(put(&client, &task, |run| run["spec"]["retries"] = 3.into()).await)?;
    let task_started = "Once the TaskRun has started, only status and statusMessage updates are allowed";
    assert!(refused.contains(task_started), "{refused}");

    let ended = namespace.done(run, PATIENCE).await?;
    assert_eq!((ended.status(), ended.reason()), ("True", "Succeeded"), "{ended}");
    for run in [run, &task] {
        put(&client, run, label("blue")).await?;
    }
    put(&client, run, without_defaults).await?;
    let refused = refusal(put(&client, run, |run| run["spec"]["status"] = "Cancelled".into()).await)?;
    assert!(refused.contains(over), "{refused}");
    let refused =
        refusal(put(&client, &task, |run| run["spec"]["status"] = "TaskRunCancelled".into()).await)?;
    assert!(refused.contains("Once the TaskRun is complete, no updates are allowed"), "{refused}");

    let after = namespace.done(run, PATIENCE).await?;
    assert_eq!(after.value["status"], ended.value["status"]);
    assert_eq!(after.value["metadata"]["labels"]["team"], "blue");
    assert_eq!(namespace.children(&after).await?, set(["TaskRun typed-only", "Pod typed-only-pod"]));
    namespace.finish().await
}

/// In each version that has conditions `Succeeded` is the first; reasons pass through `Running` and end in these words.
pub(crate) async fn trap_3(world: &World) -> Result<()> {
    let namespace = world.namespace("trap-3").await?;
    let mut pipelines = namespace.history("PipelineRun").await?;
    let mut tasks = namespace.history("TaskRun").await?;
    let runs = namespace.apply(&ENDINGS.concat()).await?;
    for (name, child, last, of_child) in [
        ("good", "good-only", ("True", "Succeeded"), ("True", "Succeeded")),
        ("skips", "skips-only", ("True", "Completed"), ("True", "Succeeded")),
        ("bad", "bad-only", ("False", "Failed"), ("False", "StepFailed")),
        ("late", "late-only", ("False", "PipelineRunTimeout"), ("False", "TaskRunCancelled")),
        ("slow", "slow-only", ("False", "Failed"), ("False", "TaskRunTimeout")),
    ] {
        let versions = pipelines.until(name, PATIENCE, State::is_done).await?;
        assert_eq!(reasons(versions), ["Running", last.1], "{name}");
        let run = versions.last().expect("a version");
        assert_eq!((run.status(), run.reason()), last, "{run}");
        let versions = tasks.until(child, PATIENCE, State::is_done).await?;
        assert_eq!(reasons(versions), ["Started", "Running", of_child.1], "{child}");
        assert_eq!(versions.last().map(State::status), Some(of_child.0));
        let told = if last.0 == "True" { "Succeeded" } else { "Failed" };
        for reason in ["Started", told] {
            namespace.event("PipelineRun", name, reason, PATIENCE).await?;
            namespace.event("TaskRun", child, reason_of_child(reason, of_child.0), PATIENCE).await?;
        }
        let mut children = set([format!("TaskRun {child}").as_str()]);
        if of_child.1 == "TaskRunTimeout" || of_child.1 == "TaskRunCancelled" {
            namespace.pod_gone(&format!("{child}-pod"), GONE).await?;
        } else {
            children.extend(set([format!("Pod {child}-pod").as_str()]));
        }
        let run =
            namespace.done(runs.iter().find(|run| run.name == name).expect("the run"), PATIENCE).await?;
        assert_eq!(namespace.children(&run).await?, children);
    }
    namespace.finish().await
}

fn reason_of_child(reason: &'static str, status: &str) -> &'static str {
    match (reason, status) {
        ("Started", _) => "Started",
        (_, "True") => "Succeeded",
        _ => "Failed",
    }
}

/// Of the first condition, each once.
fn reasons(versions: &[State]) -> Vec<&str> {
    let mut reasons = Vec::new();
    for version in versions {
        let Some(first) = version.value["status"]["conditions"].get(0) else { continue };
        assert_eq!(first["type"], "Succeeded", "{version}");
        reasons.push(first["reason"].as_str().unwrap_or_default());
    }
    reasons.dedup();
    // An image that is new to the node may take more than a moment.
    reasons.retain(|reason| *reason != "Pending");
    reasons
}

/// Steps are long enough for a node to say that they run.
const ENDINGS: [&str; 5] = [
    "
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: good
spec:
  pipelineSpec:
    tasks:
      - name: only
        taskSpec: { steps: [{ name: work, image: bash, script: sleep 3 }] }
---
",
    r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: skips
spec:
  pipelineSpec:
    tasks:
      - name: only
        taskSpec: { steps: [{ name: work, image: bash, script: sleep 3 }] }
      - name: never
        when: [{ input: "a", operator: in, values: ["b"] }]
        taskSpec: { steps: [{ name: work, image: bash, script: "false" }] }
---
"#,
    "
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: bad
spec:
  pipelineSpec:
    tasks:
      - name: only
        taskSpec: { steps: [{ name: work, image: bash, script: sleep 3; exit 4 }] }
---
",
    r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: late
spec:
  timeouts: { pipeline: 15s }
  pipelineSpec:
    tasks:
      - name: only
        taskSpec: { steps: [{ name: work, image: bash, command: [sleep, "1000"] }] }
---
"#,
    r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: slow
spec:
  pipelineSpec:
    tasks:
      - name: only
        timeout: 15s
        taskSpec: { steps: [{ name: work, image: bash, command: [sleep, "1000"] }] }
---
"#,
];

/// A child is named in the status as soon as its PipelineRun runs, with all that says which one it is.
pub(crate) async fn trap_4(world: &World) -> Result<()> {
    let namespace = world.namespace("trap-4").await?;
    let mut history = namespace.history("PipelineRun").await?;
    let runs = namespace
        .apply(
            r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: refers
spec:
  pipelineSpec:
    tasks:
      - name: fan
        displayName: for each platform
        matrix:
          params:
            - name: platform
              value: [linux, mac]
        taskSpec:
          params:
            - name: platform
          steps:
            - name: work
              image: bash
              script: "true"
      - name: then
        runAfter: [fan]
        taskSpec:
          steps:
            - name: work
              image: bash
              script: "true"
    finally:
      - name: last
        taskSpec:
          steps:
            - name: work
              image: bash
              script: "true"
"#,
        )
        .await?;
    let reference = |name: &str, task: &str| json!({ "apiVersion": "tekton.dev/v1", "kind": "TaskRun", "name": name, "pipelineTaskName": task });
    let fan = |name: &str| {
        let mut reference = reference(name, "fan");
        reference["displayName"] = "for each platform".into();
        reference
    };
    let all = [
        fan("refers-fan-0"),
        fan("refers-fan-1"),
        reference("refers-then", "then"),
        reference("refers-last", "last"),
    ];
    let versions = history.until("refers", PATIENCE, State::is_done).await?;
    let mut known = 0;
    for version in versions.iter().filter(|version| !version.reason().is_empty()) {
        let references = version.value["status"]["childReferences"].as_array().cloned().unwrap_or_default();
        assert!(references.len() >= known && references.len() >= 2, "{version}: {references:?}");
        assert_eq!(references, all[..references.len()]);
        known = references.len();
    }
    assert_eq!(known, all.len());
    let ended = namespace.done(&runs[0], PATIENCE).await?;
    assert_eq!((ended.status(), ended.reason()), ("True", "Succeeded"), "{ended}");
    let mut children = set([]);
    for reference in &all {
        let name = reference["name"].as_str().unwrap_or_default();
        children.extend([format!("TaskRun {name}"), format!("Pod {name}-pod")]);
    }
    assert_eq!(namespace.children(&ended).await?, children);
    namespace.finish().await
}

/// Labels go from the Pipeline to its runs, their TaskRuns and their pods, whose parts have the names that tools look for.
pub(crate) async fn trap_5(world: &World) -> Result<()> {
    let namespace = world.namespace("trap-5").await?;
    let runs = namespace
        .apply(
            r#"
apiVersion: tekton.dev/v1
kind: Task
metadata:
  name: build
  labels:
    of-the-task: "yes"
spec:
  sidecars:
    - name: helper
      image: bash
      command: [sleep, "1000"]
  steps:
    - name: first
      image: bash
      script: "true"
    - image: bash
      workingDir: deeper
      script: "true"
---
apiVersion: tekton.dev/v1
kind: Pipeline
metadata:
  name: release
  labels:
    of-the-pipeline: "yes"
spec:
  tasks:
    - name: only
      taskRef:
        name: build
  finally:
    - name: last
      taskRef:
        name: build
---
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: labelled
  labels:
    lighthouse.jenkins-x.io/branch: main
spec:
  pipelineRef:
    name: release
"#,
        )
        .await?;
    let ended = namespace.done(&runs[0], PATIENCE).await?;
    assert_eq!((ended.status(), ended.reason()), ("True", "Succeeded"), "{ended}");
    assert_eq!(
        namespace.children(&ended).await?,
        set([
            "TaskRun labelled-only",
            "Pod labelled-only-pod",
            "TaskRun labelled-last",
            "Pod labelled-last-pod"
        ])
    );
    let mut labels = json!({
        "lighthouse.jenkins-x.io/branch": "main",
        "of-the-pipeline": "yes",
        "tekton.dev/pipeline": "release",
    });
    assert_eq!(ended.value["metadata"]["labels"], labels, "of the PipelineRun");
    for (task, member) in [("only", "tasks"), ("last", "finally")] {
        let name = format!("labelled-{task}");
        let run = namespace.done(&taskrun(&runs[0], &name), PATIENCE).await?;
        for (key, value) in [
            ("of-the-task", "yes"),
            ("app.kubernetes.io/managed-by", "tekton-pipelines"),
            ("tekton.dev/memberOf", member),
            ("tekton.dev/pipelineRun", "labelled"),
            ("tekton.dev/pipelineRunUID", ended.uid()),
            ("tekton.dev/pipelineTask", task),
            ("tekton.dev/task", "build"),
        ] {
            labels[key] = value.into();
        }
        assert_eq!(run.value["metadata"]["labels"], labels, "of the TaskRun");
        let pods = namespace.pods().await?;
        let pod = pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(&format!("{name}-pod")));
        let pod = serde_json::to_value(pod)?;
        let mut of_pod = labels.clone();
        of_pod["tekton.dev/taskRun"] = name.into();
        of_pod["tekton.dev/taskRunUID"] = run.uid().into();
        assert_eq!(pod["metadata"]["labels"], of_pod, "of the pod");
        let names = |list: &str| {
            let containers = pod["spec"][list].as_array().into_iter().flatten();
            containers.map(|container| container["name"].as_str().unwrap_or_default()).collect::<Vec<_>>()
        };
        assert_eq!(names("containers"), ["step-first", "step-unnamed-1", "sidecar-helper"]);
        // Where nodes mount images, as ours and those of Kubernetes 1.35 do, what it would do is done by the steps.
        let mounts =
            pod["spec"]["volumes"].as_array().into_iter().flatten().any(|it| it["image"].is_object());
        assert!(mounts || world.kind() == Kind::Cluster, "our node mounts images");
        let init: &[&str] = if mounts { &[] } else { &["prepare"] };
        assert_eq!(names("initContainers"), init);
    }
    namespace.finish().await
}

/// A run ends in one write, and nothing that happens later changes its status.
pub(crate) async fn trap_7(world: &World) -> Result<()> {
    let namespace = world.namespace("trap-7").await?;
    let mut pipelines = namespace.history("PipelineRun").await?;
    let mut tasks = namespace.history("TaskRun").await?;
    let task = "taskSpec: { steps: [{ name: work, image: bash, script:";
    let runs = namespace
        .apply(&format!(
            r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {{ name: good }}
spec: {{ pipelineSpec: {{ tasks: [{{ name: only, {task} "true" }}] }} }}] }} }}
---
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {{ name: bad }}
spec: {{ pipelineSpec: {{ tasks: [{{ name: only, {task} "false" }}] }} }}] }} }}
---
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {{ name: cancelled }}
spec: {{ pipelineSpec: {{ tasks: [{{ name: only, {task} "sleep 1000" }}] }} }}] }} }}
"#
        ))
        .await?;
    runs_now(&namespace, &taskrun(&runs[0], "cancelled-only")).await?;
    namespace.patch(&runs[2], json!({ "spec": { "status": "Cancelled" } })).await?;
    let label = |text: &str| json!({ "metadata": { "labels": { "seen": text } } });
    let pods = kube::Api::<k8s_openapi::api::core::v1::Pod>::namespaced(world.client(), namespace.name());
    for run in &runs {
        let child = taskrun(run, &format!("{}-only", run.name));
        for run in [run, &child] {
            namespace.done(run, PATIENCE).await?;
        }
        // Whatever is left of its pod goes, and somebody else writes on both.
        let pod = format!("{}-pod", child.name);
        match pods.delete(&pod, &kube::api::DeleteParams::default().grace_period(0)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            answer => drop(answer?),
        }
        namespace.pod_gone(&pod, GONE).await?;
        for run in [run, &child] {
            namespace.patch(run, label("once")).await?;
            namespace.patch(run, label("twice")).await?;
        }
    }
    // A run after all that ends last: the engine has looked at the others by then.
    let after = namespace
        .apply(&format!(
            "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {{ name: after }}\nspec: {{ {task} \"true\" }}] }} }}\n"
        ))
        .await?;
    namespace.done(&after[0], PATIENCE).await?;
    for run in &runs {
        namespace.patch(run, label("thrice")).await?;
        namespace.patch(&taskrun(run, &format!("{}-only", run.name)), label("thrice")).await?;
    }
    let seen = |state: &State| state.value["metadata"]["labels"]["seen"] == "thrice";
    for run in &runs {
        check_end(pipelines.until(&run.name, PATIENCE, seen).await?);
        check_end(tasks.until(&format!("{}-only", run.name), PATIENCE, seen).await?);
        let ended = namespace.done(run, PATIENCE).await?;
        assert_eq!(namespace.children(&ended).await?, set([format!("TaskRun {}-only", run.name).as_str()]));
    }
    namespace.finish().await
}

/// The time of the end comes with the end, and then all stays.
fn check_end(versions: &[State]) {
    let mut end: Option<&State> = None;
    for version in versions {
        assert_eq!(version.value["status"]["completionTime"].is_string(), version.is_done(), "{version}");
        if let Some(end) = end {
            assert_eq!(version.value["status"], end.value["status"], "changed after the end");
        } else if version.is_done() {
            end = Some(version);
        }
    }
    assert!(end.is_some(), "no end");
}

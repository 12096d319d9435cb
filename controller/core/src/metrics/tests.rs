//! Contract 9.3, row by row.

use ropewalk_api::{PipelineRun, TaskRun};
use rstest::rstest;
use serde_json::{Value, json};

use super::*;

const LATENCY_BUCKETS: [f64; 11] = [5., 10., 25., 50., 100., 250., 500., 1000., 2500., 5000., 10000.];
const BUCKETS: [f64; 12] = [10., 30., 60., 300., 900., 1800., 3600., 5400., 10800., 21600., 43200., 86400.];

fn status(condition: &str, reason: &str) -> Value {
    json!({
        "conditions": [{"type": "Succeeded", "status": condition, "reason": reason}],
        "startTime": "2026-01-01T00:00:00Z",
        "completionTime": "2026-01-01T00:01:30Z",
    })
}

fn task_run(metadata: &Value, spec: &Value) -> TaskRun {
    let mut run = json!({"metadata": {"name": "run", "namespace": "ns"}, "spec": spec});
    json_patch::merge(&mut run["metadata"], metadata);
    run["status"] = json!({"conditions": [{"type": "Succeeded", "status": "Unknown", "reason": "Running"}]});
    serde_json::from_value(run).expect("a TaskRun")
}

fn pipeline_run(metadata: &Value, spec: &Value) -> PipelineRun {
    let mut run = json!({"metadata": {"name": "run", "namespace": "ns"}, "spec": spec});
    json_patch::merge(&mut run["metadata"], metadata);
    serde_json::from_value(run).expect("a PipelineRun")
}

fn after<S: serde::de::DeserializeOwned>(condition: &str, reason: &str) -> S {
    serde_json::from_value(status(condition, reason)).expect("a status")
}

/// `name{label="value",…} value` of each measure.
fn text(measures: &[Measure]) -> Vec<String> {
    let line = |measure: &Measure| {
        let labels: Vec<String> =
            measure.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let name = measure.metric.name().trim_start_matches("tekton_pipelines_controller_");
        format!("{name}{{{}}} {}", labels.join(","), measure.value)
    };
    measures.iter().map(line).collect()
}

fn ended_task_run(run: &TaskRun, config: &Observability) -> Vec<String> {
    text(&taskrun(run, &after("True", "Succeeded"), None, config))
}

fn ended_pipeline_run(run: &PipelineRun, config: &Observability) -> Vec<String> {
    text(&pipelinerun(run, &after("True", "Succeeded"), config))
}

#[rstest]
#[case::reference(json!({}), json!({"taskRef": {"name": "build"}}), "build")]
#[case::embedded(json!({}), json!({"taskSpec": {"steps": []}}), "anonymous")]
#[case::embedded_in_a_pipeline(
    json!({"labels": {"tekton.dev/pipelineTask": "compile"}}), json!({"taskSpec": {"steps": []}}), "compile"
)]
#[case::resolver(
    json!({"labels": {"tekton.dev/task": "from-git"}}), json!({"taskRef": {"resolver": "git"}}), "from-git"
)]
fn the_task_of_a_task_run(#[case] metadata: Value, #[case] spec: Value, #[case] task: &str) {
    assert_eq!(
        ended_task_run(&task_run(&metadata, &spec), &Observability::default()),
        [
            format!("taskrun_duration_seconds{{namespace=ns,status=success,task={task}}} 90"),
            "taskrun_total{status=success} 1".to_owned(),
        ]
    );
}

#[rstest]
#[case::reference(json!({}), json!({"pipelineRef": {"name": "release"}}), "release")]
#[case::embedded(
    json!({"labels": {"tekton.dev/pipeline": "run"}}), json!({"pipelineSpec": {"tasks": []}}), "anonymous"
)]
#[case::generated(
    json!({"generateName": "ci-", "labels": {"tekton.dev/pipeline": "ci-x7"}}),
    json!({"pipelineSpec": {"tasks": []}}),
    "ci-x7"
)]
#[case::resolver(
    json!({"labels": {"tekton.dev/pipeline": "from-git"}}), json!({"pipelineRef": {"resolver": "git"}}), "from-git"
)]
fn the_pipeline_of_a_pipeline_run(#[case] metadata: Value, #[case] spec: Value, #[case] pipeline: &str) {
    assert_eq!(
        ended_pipeline_run(&pipeline_run(&metadata, &spec), &Observability::default()),
        [
            format!("pipelinerun_duration_seconds{{namespace=ns,pipeline={pipeline},status=success}} 90"),
            "pipelinerun_total{status=success} 1".to_owned(),
        ]
    );
}

#[rstest]
#[case("True", "Succeeded", "success")]
#[case("True", "Completed", "success")]
#[case("False", "Failed", "failed")]
#[case("False", "TaskRunTimeout", "failed")]
#[case("False", "TaskRunCancelled", "cancelled")]
#[case("False", "Cancelled", "cancelled")]
fn how_a_run_ended(#[case] condition: &str, #[case] reason: &str, #[case] expected: &str) {
    let config = Observability { reason: true, ..Observability::default() };
    let run = task_run(&json!({}), &json!({"taskRef": {"name": "build"}}));
    assert_eq!(
        text(&taskrun(&run, &after(condition, reason), None, &config)),
        [
            format!(
                "taskrun_duration_seconds{{namespace=ns,reason={reason},status={expected},task=build}} 90"
            ),
            format!("taskrun_total{{status={expected}}} 1"),
        ]
    );
    let run = pipeline_run(&json!({}), &json!({"pipelineRef": {"name": "ci"}}));
    assert_eq!(
        text(&pipelinerun(&run, &after(condition, reason), &config)),
        [
            format!(
                "pipelinerun_duration_seconds{{namespace=ns,pipeline=ci,reason={reason},status={expected}}} 90"
            ),
            format!("pipelinerun_total{{status={expected}}} 1"),
        ]
    );
}

#[rstest]
#[case(TaskRunLevel::Namespace, "namespace=ns,status=success")]
#[case(TaskRunLevel::Task, "namespace=ns,status=success,task=build")]
#[case(TaskRunLevel::TaskRun, "namespace=ns,status=success,task=build,taskrun=run")]
fn levels_of_task_runs(#[case] taskrun_level: TaskRunLevel, #[case] labels: &str) {
    let config = Observability { taskrun_level, ..Observability::default() };
    let run = task_run(&json!({}), &json!({"taskRef": {"name": "build"}}));
    assert_eq!(ended_task_run(&run, &config)[0], format!("taskrun_duration_seconds{{{labels}}} 90"));
}

#[rstest]
#[case(PipelineRunLevel::Namespace, "namespace=ns,status=success")]
#[case(PipelineRunLevel::Pipeline, "namespace=ns,pipeline=ci,status=success")]
#[case(PipelineRunLevel::PipelineRun, "namespace=ns,pipeline=ci,pipelinerun=run,status=success")]
fn levels_of_pipeline_runs(#[case] pipelinerun_level: PipelineRunLevel, #[case] labels: &str) {
    let config = Observability { pipelinerun_level, ..Observability::default() };
    let run = pipeline_run(&json!({}), &json!({"pipelineRef": {"name": "ci"}}));
    assert_eq!(ended_pipeline_run(&run, &config)[0], format!("pipelinerun_duration_seconds{{{labels}}} 90"));
}

#[rstest]
#[case::coarsest(
    "release",
    TaskRunLevel::Namespace,
    PipelineRunLevel::Namespace,
    "namespace=ns,status=success"
)]
#[case::default(
    "release",
    TaskRunLevel::Task,
    PipelineRunLevel::Pipeline,
    "namespace=ns,pipeline=release,status=success,task=build"
)]
#[case::finest(
    "release",
    TaskRunLevel::TaskRun,
    PipelineRunLevel::PipelineRun,
    "namespace=ns,pipeline=release,pipelinerun=parent,status=success,task=build,taskrun=run"
)]
#[case::named_after_the_run(
    "parent",
    TaskRunLevel::Task,
    PipelineRunLevel::Pipeline,
    "namespace=ns,pipeline=anonymous,status=success,task=build"
)]
fn a_child_is_recorded_with_its_pipeline_instead(
    #[case] pipeline: &str,
    #[case] taskrun_level: TaskRunLevel,
    #[case] pipelinerun_level: PipelineRunLevel,
    #[case] labels: &str,
) {
    let config = Observability { taskrun_level, pipelinerun_level, ..Observability::default() };
    let metadata = json!({
        "labels": {"tekton.dev/pipeline": pipeline, "tekton.dev/pipelineRun": "parent"}
    });
    let run = task_run(&metadata, &json!({"taskRef": {"name": "build"}}));
    assert_eq!(
        ended_task_run(&run, &config),
        [
            format!("pipelinerun_taskrun_duration_seconds{{{labels}}} 90"),
            "taskrun_total{status=success} 1".to_owned(),
        ]
    );
}

#[rstest]
#[case::buckets(DurationType::Histogram, TaskRunLevel::Task, PipelineRunLevel::Pipeline, true)]
#[case::asked_for(DurationType::LastValue, TaskRunLevel::Task, PipelineRunLevel::Pipeline, false)]
#[case::by_run(DurationType::Histogram, TaskRunLevel::TaskRun, PipelineRunLevel::PipelineRun, false)]
fn the_kind_of_a_duration(
    #[case] kind: DurationType,
    #[case] taskrun_level: TaskRunLevel,
    #[case] pipelinerun_level: PipelineRunLevel,
    #[case] buckets: bool,
) {
    let config = Observability {
        taskrun_level,
        pipelinerun_level,
        taskrun_duration: kind,
        pipelinerun_duration: kind,
        ..Observability::default()
    };
    let expected = if buckets { Instrument::Histogram(&BUCKETS) } else { Instrument::Gauge };
    let task_run = task_run(&json!({}), &json!({"taskRef": {"name": "build"}}));
    let pipeline_run = pipeline_run(&json!({}), &json!({"pipelineRef": {"name": "ci"}}));
    for measures in [
        taskrun(&task_run, &after("True", "Succeeded"), None, &config),
        pipelinerun(&pipeline_run, &after("True", "Succeeded"), &config),
    ] {
        assert_eq!(measures[0].instrument, expected);
        assert_eq!(measures[1].instrument, Instrument::Counter);
    }
}

#[test]
fn only_the_end_counts_and_only_once() {
    let config = Observability::default();
    let mut run = task_run(&json!({}), &json!({"taskRef": {"name": "build"}}));
    assert_eq!(taskrun(&run, &after("Unknown", "ToBeRetried"), None, &config), []);
    run.status = Some(after("True", "Succeeded"));
    assert_eq!(taskrun(&run, &after("True", "Succeeded"), None, &config), []);

    let mut run = pipeline_run(&json!({}), &json!({"pipelineRef": {"name": "ci"}}));
    assert_eq!(pipelinerun(&run, &after("Unknown", "Running"), &config), []);
    run.status = Some(after("False", "Failed"));
    assert_eq!(pipelinerun(&run, &after("False", "Failed"), &config), []);
}

#[test]
fn a_run_that_never_started_took_no_time() {
    let run = task_run(&json!({}), &json!({"taskRef": {"name": "build"}}));
    let mut ended: TaskRunStatus = after("False", "TaskRunValidationFailed");
    ended.start_time = None;
    assert!(taskrun(&run, &ended, None, &Observability::default())[0].value.abs() < f64::EPSILON);
}

#[test]
fn a_duration_is_that_between_the_times_written_down() {
    let run = pipeline_run(&json!({}), &json!({"pipelineRef": {"name": "ci"}}));
    let mut ended: PipelineRunStatus = after("True", "Completed");
    ended.completion_time = Some(Time("2026-01-01T00:01:30.9Z".parse().expect("a time")));
    let measures = pipelinerun(&run, &ended, &Observability::default());
    assert_eq!(
        text(&measures)[0],
        "pipelinerun_duration_seconds{namespace=ns,pipeline=ci,status=success} 90"
    );
}

fn scheduled_pod(at: &str) -> Pod {
    let pod = json!({
        "metadata": {"name": "run-pod", "creationTimestamp": "2026-01-01T00:00:10Z"},
        "status": {"conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": at}]},
    });
    serde_json::from_value(pod).expect("a pod")
}

fn with_step(state: &Value) -> TaskRunStatus {
    let mut step = json!({"name": "a", "container": "step-a"});
    json_patch::merge(&mut step, state);
    let status = json!({
        "podName": "run-pod",
        "steps": [step],
        "conditions": [{"type": "Succeeded", "status": "Unknown", "reason": "Running"}],
    });
    serde_json::from_value(status).expect("a status")
}

#[test]
fn a_pod_s_latency_counts_when_its_steps_start() {
    let config = Observability { taskrun_level: TaskRunLevel::TaskRun, ..Observability::default() };
    let mut run = task_run(&json!({}), &json!({"taskRef": {"name": "build"}}));
    let pod = scheduled_pod("2026-01-01T00:00:12Z");
    let waiting = with_step(&json!({"waiting": {"reason": "PodInitializing"}}));
    let running = with_step(&json!({"running": {"startedAt": "2026-01-01T00:00:13Z"}}));

    assert_eq!(taskrun(&run, &waiting, Some(&pod), &config), []);
    run.status = Some(waiting);
    let measures = taskrun(&run, &running, Some(&pod), &config);
    assert_eq!(
        text(&measures),
        ["taskruns_pod_latency_milliseconds{namespace=ns,task=build,taskrun=run} 2000"]
    );
    assert_eq!(measures[0].instrument, Instrument::Histogram(&LATENCY_BUCKETS));
    run.status = Some(running.clone());
    assert_eq!(taskrun(&run, &running, Some(&pod), &config), [], "once per pod");

    let early = scheduled_pod("2026-01-01T00:00:09Z");
    run.status = None;
    let latency = taskrun(&run, &running, Some(&early), &config)[0].value;
    assert!(latency.abs() < f64::EPSILON, "clocks that disagree make none negative: {latency}");
}

#[test]
fn a_retry_s_pod_counts_when_its_own_steps_start() {
    let config = Observability { taskrun_level: TaskRunLevel::Namespace, ..Observability::default() };
    let mut run = task_run(&json!({}), &json!({"taskRef": {"name": "build"}, "retries": 1}));
    let pod = scheduled_pod("2026-01-01T00:00:11Z");
    let failed = with_step(&json!({"terminated": {"exitCode": 1}}));
    let mut retried = failed.clone();
    retried.retries_status = vec![failed];
    assert_eq!(taskrun(&run, &retried, Some(&pod), &config), [], "the steps shown are the last attempt's");
    run.status = Some(retried.clone());
    let mut running = with_step(&json!({"running": {}}));
    running.retries_status = retried.retries_status;
    assert_eq!(
        text(&taskrun(&run, &running, Some(&pod), &config)),
        ["taskruns_pod_latency_milliseconds{namespace=ns} 1000"]
    );
}

fn going_on(namespace: &str, name: &str, condition: &str, reason: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"pipelineRef": {"name": "ci"}},
        "status": {"conditions": [{"type": "Succeeded", "status": condition, "reason": reason}]},
    })
}

#[rstest]
#[case::together(None, &[])]
#[case::by_namespace(Some(PipelineRunLevel::Namespace), &["{namespace=x} 1", "{namespace=y} 3"])]
#[case::by_pipeline(
    Some(PipelineRunLevel::Pipeline), &["{namespace=x,pipeline=ci} 1", "{namespace=y,pipeline=ci} 3"]
)]
#[case::by_run(
    Some(PipelineRunLevel::PipelineRun),
    &[
        "{namespace=x,pipeline=ci,pipelinerun=a} 1",
        "{namespace=y,pipeline=ci,pipelinerun=b} 1",
        "{namespace=y,pipeline=ci,pipelinerun=c} 1",
        "{namespace=y,pipeline=ci,pipelinerun=new} 1",
    ]
)]
fn running_pipeline_runs(#[case] level: Option<PipelineRunLevel>, #[case] series: &[&str]) {
    let config = Observability { running_pipelinerun_level: level, ..Observability::default() };
    let mut new = going_on("y", "new", "", "");
    new["status"] = Value::Null;
    let runs: Vec<PipelineRun> = [
        going_on("x", "a", "Unknown", "Running"),
        going_on("y", "b", "Unknown", "ResolvingPipelineRef"),
        going_on("y", "c", "Unknown", "ResolvingTaskRef"),
        going_on("y", "done", "True", "Completed"),
        going_on("z", "failed", "False", "ResolvingTaskRef"),
        new,
    ]
    .into_iter()
    .map(|run| serde_json::from_value(run).expect("a PipelineRun"))
    .collect();
    let mut expected = vec!["running_pipelineruns{} 4".to_owned()];
    expected.extend(series.iter().map(|series| format!("running_pipelineruns{series}")));
    expected.push("running_pipelineruns_waiting_on_pipeline_resolution{} 1".to_owned());
    expected.push("running_pipelineruns_waiting_on_task_resolution{} 1".to_owned());
    assert_eq!(text(&pipelineruns(runs.iter(), &config)), expected);
}

#[rstest]
#[case(
    false,
    &[
        "running_taskruns_throttled_by_quota{} 2",
        "running_taskruns_throttled_by_node{} 1",
        "running_taskruns{} 5",
        "running_taskruns_waiting_on_task_resolution_count{} 1",
    ]
)]
#[case(
    true,
    &[
        "running_taskruns_throttled_by_quota{namespace=x} 2",
        "running_taskruns_throttled_by_quota{namespace=y} 0",
        "running_taskruns_throttled_by_node{namespace=x} 0",
        "running_taskruns_throttled_by_node{namespace=y} 1",
        "running_taskruns{} 5",
        "running_taskruns_waiting_on_task_resolution_count{} 1",
    ]
)]
fn running_task_runs(#[case] throttle_namespace: bool, #[case] expected: &[&str]) {
    let config = Observability { throttle_namespace, ..Observability::default() };
    let runs: Vec<TaskRun> = [
        going_on("x", "a", "Unknown", "ExceededResourceQuota"),
        going_on("x", "b", "Unknown", "ExceededResourceQuota"),
        going_on("y", "c", "Unknown", "ExceededNodeResources"),
        going_on("y", "d", "Unknown", "ResolvingTaskRef"),
        going_on("y", "e", "Unknown", "Running"),
        going_on("z", "done", "False", "ExceededResourceQuota"),
    ]
    .into_iter()
    .map(|run| serde_json::from_value(run).expect("a TaskRun"))
    .collect();
    assert_eq!(text(&taskruns(runs.iter(), &config)), expected);
}

#[test]
fn nothing_going_on_is_zero() {
    let config = Observability::default();
    let mut gauges = pipelineruns(std::iter::empty::<PipelineRun>(), &config);
    gauges.extend(taskruns(std::iter::empty::<TaskRun>(), &config));
    let mut seen: Vec<Metric> = gauges.iter().map(|gauge| gauge.metric).collect();
    seen.sort();
    assert_eq!(seen, RUNNING);
    assert!(gauges.iter().all(|gauge| gauge.value.abs() < f64::EPSILON && gauge.labels.is_empty()));
}

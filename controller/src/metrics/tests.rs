//! The whole text of a scrape against the table of contract 9.3.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use http::Response;
use kube::client::Body;
use kube::runtime::reflector::{ObjectRef, store};
use kube::runtime::watcher::Event;
use kube::{Api, Client};
use prometheus::TextEncoder;
use ropewalk_api::config::{Observability, PipelineRunLevel};
use ropewalk_core::metrics as core;
use serde_json::{Value, json};

use super::*;

/// Name without prefix, type, label names without `otel_scope_name` in alphabetical order: the rows of the contract, at
/// the levels that `config-observability` has by default.
const OURS: [(&str, &str, &str); 13] = [
    ("pipelinerun_duration_seconds", "histogram", "namespace,pipeline,status"),
    ("pipelinerun_taskrun_duration_seconds", "histogram", "namespace,pipeline,status,task"),
    ("pipelinerun_total", "counter", "status"),
    ("running_pipelineruns", "gauge", ""),
    ("running_pipelineruns_waiting_on_pipeline_resolution", "gauge", ""),
    ("running_pipelineruns_waiting_on_task_resolution", "gauge", ""),
    ("running_taskruns", "gauge", ""),
    ("running_taskruns_throttled_by_node", "gauge", ""),
    ("running_taskruns_throttled_by_quota", "gauge", ""),
    ("running_taskruns_waiting_on_task_resolution_count", "gauge", ""),
    ("taskrun_duration_seconds", "histogram", "namespace,status,task"),
    ("taskrun_total", "counter", "status"),
    ("taskruns_pod_latency_milliseconds", "histogram", "namespace,task"),
];

/// The metrics beside those of runs.
const KNATIVE: [(&str, &str, &str); 8] = [
    ("http_client_request_duration_seconds", "histogram", "http_request_method,url_template"),
    (
        "kn_k8s_client_http_response_status_code_total",
        "counter",
        "http_request_method,http_response_status_code",
    ),
    ("kn_workqueue_adds_total", "counter", "name"),
    ("kn_workqueue_depth", "gauge", "name"),
    ("kn_workqueue_process_duration_seconds", "histogram", "name"),
    ("kn_workqueue_queue_duration_seconds", "histogram", "name"),
    ("kn_workqueue_retries_total", "counter", "name"),
    ("kn_workqueue_unfinished_work_seconds", "gauge", "name"),
];

const PREFIX: &str = "tekton_pipelines_controller_";

/// Names, types and sets of label names in a scrape, without the metrics that upstream has not; every series says its
/// scope.
fn shape(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut shape: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    let mut current = String::new();
    let theirs = |line: &&str| {
        !line.starts_with("# HELP") && !line.trim_start_matches("# TYPE ").starts_with("ropewalk_")
    };
    for line in text.lines().filter(theirs) {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').expect("a type");
            name.clone_into(&mut current);
            let new = shape.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
            assert!(new.is_none(), "{name} is declared twice");
            continue;
        }
        let (series, _) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = series.split_once('{').expect("labels");
        assert!(name.starts_with(&current), "{name} has no type");
        let labels: Vec<&str> = labels
            .trim_end_matches('}')
            .split("\",")
            .filter_map(|label| Some(label.split_once('=')?.0))
            .collect();
        assert!(labels.contains(&"otel_scope_name"), "{line}");
        let labels: BTreeSet<&str> =
            labels.into_iter().filter(|name| !["otel_scope_name", "le"].contains(name)).collect();
        let labels = labels.into_iter().collect::<Vec<_>>().join(",");
        shape.get_mut(&current).expect("declared").1.insert(labels);
    }
    shape
}

fn expected(
    rows: impl IntoIterator<Item = (String, &'static str, &'static str)>,
) -> BTreeMap<String, (String, BTreeSet<String>)> {
    rows.into_iter()
        .map(|(name, kind, labels)| (name, (kind.to_owned(), BTreeSet::from([labels.to_owned()]))))
        .collect()
}

fn scrape(registry: &Registry) -> String {
    TextEncoder::new().encode_to_string(&registry.gather()).expect("text")
}

fn run(spec: &Value, labels: &Value, reason: &str) -> Value {
    json!({
        "metadata": {"name": "run", "namespace": "ns", "labels": labels},
        "spec": spec,
        "status": {"conditions": [{"type": "Succeeded", "status": "Unknown", "reason": reason}]},
    })
}

fn ended() -> Value {
    json!({
        "podName": "run-pod",
        "steps": [{"name": "a", "container": "step-a", "terminated": {"exitCode": 0}}],
        "conditions": [{"type": "Succeeded", "status": "True", "reason": "Succeeded"}],
        "startTime": "2026-01-01T00:00:00Z",
        "completionTime": "2026-01-01T00:00:20Z",
    })
}

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}

/// One TaskRun of its own, one of a PipelineRun, and that PipelineRun, each to its end.
fn end_runs(metrics: &Metrics, config: &Observability) {
    let pod = parse(json!({
        "metadata": {"name": "run-pod", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:01Z"}
        ]},
    }));
    let spec = json!({"taskRef": {"name": "build"}});
    let single: TaskRun = parse(run(&spec, &json!({}), "Running"));
    metrics.record(&core::taskrun(&single, &parse(ended()), Some(&pod), config));
    let labels = json!({"tekton.dev/pipeline": "ci", "tekton.dev/pipelineRun": "parent"});
    let child: TaskRun = parse(run(&spec, &labels, "Running"));
    metrics.record(&core::taskrun(&child, &parse(ended()), Some(&pod), config));
    let parent: PipelineRun = parse(run(&json!({"pipelineRef": {"name": "ci"}}), &json!({}), "Running"));
    metrics.record(&core::pipelinerun(&parent, &parse(ended()), config));
}

/// An API server that knows of nothing.
fn nobody() -> Client {
    let answer =
        r#"{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}"#;
    let service = tower::service_fn(move |_| async move {
        Ok::<_, Infallible>(
            Response::builder().status(404).body(Body::from(answer.as_bytes().to_vec())).expect("an answer"),
        )
    });
    Client::new(service, "default")
}

#[tokio::test]
async fn a_scrape_has_what_the_contract_says_and_nothing_else() {
    let registry = Registry::new();
    let metrics = Metrics::new(&registry).expect("registered once");
    let (taskruns, mut writer) = store::<TaskRun>();
    let mut waiting: TaskRun = parse(run(&json!({}), &json!({}), "ExceededResourceQuota"));
    waiting.metadata.name = Some("waiting".to_owned());
    writer.apply_watcher_event(&Event::Apply(waiting));
    let (pipelineruns, mut pipelinerun_writer) = store::<PipelineRun>();
    let going_on: PipelineRun = parse(run(&json!({"pipelineRef": {"name": "ci"}}), &json!({}), "Running"));
    pipelinerun_writer.apply_watcher_event(&Event::Apply(going_on));
    let (sender, config) = watch::channel(Arc::new(Config::default()));
    metrics.count_runs(taskruns, pipelineruns, config);
    end_runs(&metrics, &Observability::default());
    let runs: Api<TaskRun> = Api::namespaced(metrics.counting(nobody()), "ns");
    assert!(runs.get_opt("run").await.expect("an answer").is_none());

    let text = scrape(&registry);
    let ours = OURS.map(|(name, kind, labels)| (format!("{PREFIX}{name}"), kind, labels));
    let knative = KNATIVE.map(|(name, kind, labels)| (name.to_owned(), kind, labels));
    assert_eq!(shape(&text), expected(ours.into_iter().chain(knative)));

    let scope = r#"otel_scope_name="tekton_pipelines_controller""#;
    for line in [
        format!("{PREFIX}taskrun_total{{{scope},status=\"success\"}} 2"),
        format!("{PREFIX}pipelinerun_total{{{scope},status=\"success\"}} 1"),
        format!("{PREFIX}running_taskruns{{{scope}}} 1"),
        format!("{PREFIX}running_taskruns_throttled_by_quota{{{scope}}} 1"),
        format!("{PREFIX}running_taskruns_throttled_by_node{{{scope}}} 0"),
        format!("{PREFIX}running_pipelineruns{{{scope}}} 1"),
        format!(
            "{PREFIX}taskrun_duration_seconds_bucket{{namespace=\"ns\",{scope},status=\"success\",task=\"build\",le=\"30\"}} 1"
        ),
        "kn_k8s_client_http_response_status_code_total{http_request_method=\"GET\",\
         http_response_status_code=\"404\",otel_scope_name=\"knative.dev/pkg/observability/metrics/k8s\"} 1"
            .to_owned(),
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\nis not in\n{text}");
    }

    // Levels follow the configuration while the process runs.
    let finer = Observability {
        running_pipelinerun_level: Some(PipelineRunLevel::Pipeline),
        ..Observability::default()
    };
    sender.send_replace(Arc::new(Config { observability: finer, ..Config::default() }));
    let (_, labels) = &shape(&scrape(&registry))[&format!("{PREFIX}running_pipelineruns")];
    assert_eq!(labels, &BTreeSet::from([String::new(), "namespace,pipeline".to_owned()]));
}

#[tokio::test]
async fn before_the_controllers_start_no_run_is_counted() {
    let registry = Registry::new();
    let _metrics = Metrics::new(&registry).expect("registered once");
    assert!(!scrape(&registry).contains(PREFIX));
}

#[test]
fn a_queue_tells_what_waits_and_what_is_worked_on() {
    let registry = Registry::new();
    let metrics = Metrics::new(&registry).expect("registered once");
    let (cache, mut writer) = store::<TaskRun>();
    let here: TaskRun = parse(run(&json!({}), &json!({}), "Running"));
    let reference = ObjectRef::from_obj(&here);
    let value = |name: &str| {
        let text = scrape(&registry);
        let labels = r#"{name="taskrun",otel_scope_name="knative.dev/pkg/observability/metrics/k8s"} "#;
        let start = format!("kn_workqueue_{name}{labels}");
        let line = text.lines().find_map(|line| line.strip_prefix(&start)).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{start} is not in {text}"))
    };
    let queue = &metrics.taskruns;

    queue.touch(&reference, &cache);
    assert_eq!(value("depth"), "0", "a run that is not there waits for nothing");
    writer.apply_watcher_event(&Event::Apply(here.clone()));
    queue.touch(&reference, &cache);
    queue.touch(&reference, &cache);
    assert_eq!((value("depth"), value("adds_total")), ("1".to_owned(), "1".to_owned()));

    let work = queue.take(&reference);
    assert_eq!(value("depth"), "0");
    assert_ne!(value("unfinished_work_seconds"), "0");
    drop(work);
    assert_eq!(value("unfinished_work_seconds"), "0");
    assert_eq!(value("process_duration_seconds_count"), "1");

    queue.retry();
    drop(queue.take(&reference));
    assert_eq!((value("retries_total"), value("adds_total")), ("1".to_owned(), "2".to_owned()));
    assert_eq!(value("queue_duration_seconds_count"), "2");

    queue.touch(&reference, &cache);
    writer.apply_watcher_event(&Event::Delete(here));
    queue.touch(&reference, &cache);
    assert_eq!(value("depth"), "0", "a run that is gone waits for nothing");
}

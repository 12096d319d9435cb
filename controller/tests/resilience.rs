//! The controllers on an API server in this process that errs, lags, or holds much that is finished.
//!
//! Time is tokio's and stands still while anything can be done, so that a pause of theirs takes none.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::Debug;
use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, Resource};
use prometheus::Registry;
use prometheus::proto::Metric;
use ropewalk_api::config::Config;
use ropewalk_api::{PipelineRun, TaskRun, conditions, crd};
use ropewalk_apiserver::{ResourceTable, State};
use ropewalk_controller::{Metrics, Options};
use ropewalk_core::settings::Settings;
use ropewalk_standalone::admission::Webhooks;
use ropewalk_standalone::server::{NoLogs, ResponseBody, Server};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tower::Service;

/// What no test should ever take, by the clock that only passes when nothing can be done.
const PATIENCE: Duration = Duration::from_hours(1);

/// What happens to a request on its way.
#[derive(Clone, Debug)]
enum Fault {
    /// It is answered with this code and message.
    Answer(u16, &'static str),
    /// Nobody listens.
    Refused,
    /// It is carried out, and the connection breaks before the answer.
    AnswerLost,
    /// No answer comes.
    Silence,
}

type Faults = Arc<dyn Fn(&http::request::Parts) -> Option<Fault> + Send + Sync>;

/// The way to the API server.
#[derive(Clone)]
struct Wire {
    server: Server,
    faults: Faults,
    /// Method, path and query of what came by.
    seen: Arc<Mutex<Vec<(Method, String)>>>,
}

impl Service<Request<Body>> for Wire {
    type Response = Response<ResponseBody>;
    type Error = tower::BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (head, body) = request.into_parts();
        let fault = (self.faults)(&head);
        self.seen.lock().expect("nobody panics").push((head.method.clone(), head.uri.to_string()));
        let mut server = self.server.clone();
        let broken = || io::Error::from(io::ErrorKind::ConnectionReset);
        Box::pin(async move {
            match fault {
                None => server.call(Request::from_parts(head, body)).await,
                Some(Fault::Answer(code, message)) => Ok(answer(code, message)),
                Some(Fault::Refused) => Err(io::Error::from(io::ErrorKind::ConnectionRefused).into()),
                Some(Fault::AnswerLost) => {
                    server.call(Request::from_parts(head, body)).await?;
                    Err(broken().into())
                }
                Some(Fault::Silence) => std::future::pending().await,
            }
        })
    }
}

fn answer(code: u16, message: &str) -> Response<ResponseBody> {
    let status = json!({
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "message": message,
        "reason": "InternalError",
        "code": code,
    });
    let body = Full::new(Bytes::from(status.to_string()));
    let body = body.map_err(|never: Infallible| match never {}).boxed_unsync();
    Response::builder().status(code).body(body).expect("a response")
}

/// An API server that has our kinds and webhooks.
struct World {
    server: Server,
    client: Client,
    config: watch::Receiver<Arc<Config>>,
}

/// What the API server has in namespaces.
trait Stored:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Serialize
    + Send
    + 'static
{
}

impl Stored for TaskRun {}
impl Stored for PipelineRun {}
impl Stored for Pod {}

/// Controllers at work in a world.
struct Engine {
    wire: Wire,
    registry: Registry,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<()>,
}

impl World {
    fn new() -> Self {
        let table = crd::all().iter().try_fold(ResourceTable::built_in(), ResourceTable::with_crd);
        let state = State::new(table.expect("our definitions fit"), 1, Timestamp::now());
        let config = Arc::new(Config::default());
        let webhooks = Webhooks::new(Arc::clone(&config), &Settings::default());
        let server = Server::new(state, Arc::new(webhooks), Arc::new(NoLogs));
        Self { client: server.client(), server, config: watch::channel(config).1 }
    }

    fn run(&self, faults: impl Fn(&http::request::Parts) -> Option<Fault> + Send + Sync + 'static) -> Engine {
        let wire = Wire { server: self.server.clone(), faults: Arc::new(faults), seen: Arc::default() };
        let registry = Registry::new();
        let options = Options {
            config: self.config.clone(),
            settings: watch::channel(Arc::new(Settings::default())).1,
            namespace: None,
            images: None,
            metrics: Metrics::new(&registry).expect("a registry of its own"),
        };
        let (stop, stopping) = oneshot::channel();
        let stopping = async move {
            // A sender that is gone stops them as well.
            let _ = stopping.await;
        };
        let client = Client::new(wire.clone(), "default");
        let ended = tokio::spawn(ropewalk_controller::run(client, options, stopping));
        Engine { wire, registry, stop, ended }
    }

    fn api<K: Stored>(&self) -> Api<K> {
        Api::default_namespaced(self.client.clone())
    }

    async fn create<K: Stored>(&self, object: Value) -> K {
        let object = serde_json::from_value(object).expect("an object");
        self.api::<K>().create(&PostParams::default(), &object).await.expect("it is created")
    }

    /// Waits until an object is as it should be.
    async fn until<K: Stored>(&self, name: &str, holds: impl Fn(&K) -> bool + Send) -> K {
        let holds = |object: Option<&K>| object.is_some_and(&holds);
        let waited = tokio::time::timeout(PATIENCE, await_condition(self.api(), name, holds)).await;
        waited.expect("it becomes as it should be").expect("a watch").expect("an object")
    }

    async fn names<K: Stored>(&self) -> Vec<String> {
        let list = self.api::<K>().list(&ListParams::default()).await.expect("a list");
        list.items.iter().filter_map(|object| object.meta().name.clone()).collect()
    }

    /// Does for a pod what a node would: every container ends well.
    async fn finish_pod(&self, name: &str) {
        let pod = self.until::<Pod>(name, |_| true).await;
        let containers = pod.spec.expect("a spec").containers;
        let ended = |name: &str| {
            let time = Timestamp::now().to_string();
            let terminated = json!({ "exitCode": 0, "startedAt": time, "finishedAt": time });
            json!({
                "name": name,
                "image": "i",
                "imageID": "i@sha256:0",
                "ready": false,
                "restartCount": 0,
                "state": { "terminated": terminated },
            })
        };
        let statuses: Vec<Value> = containers.iter().map(|container| ended(&container.name)).collect();
        let status = json!({ "status": { "phase": "Succeeded", "containerStatuses": statuses } });
        let pods = self.api::<Pod>();
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.expect("a status");
    }
}

impl Engine {
    async fn stop(self) {
        self.stop.send(()).expect("they are running");
        self.ended.await.expect("they end");
    }

    /// What came by that was neither a list nor a watch.
    fn requests(&self) -> Vec<(Method, String)> {
        let seen = self.wire.seen.lock().expect("nobody panics");
        let resources = ["pods", "taskruns", "pipelineruns", "tasks", "pipelines", "events"];
        let collective = |method: &Method, uri: &str| {
            let path = uri.split('?').next().unwrap_or_default();
            method == Method::GET && resources.contains(&path.rsplit('/').next().unwrap_or_default())
        };
        seen.iter().filter(|(method, uri)| !collective(method, uri)).cloned().collect()
    }

    /// How many reconciles there were.
    fn reconciles(&self) -> u64 {
        let metrics = self.metrics("kn_workqueue_process_duration_seconds");
        metrics.iter().map(|metric| metric.get_histogram().get_sample_count()).sum()
    }

    /// No run waits to be reconciled.
    fn is_idle(&self) -> bool {
        self.metrics("kn_workqueue_depth").iter().all(|metric| metric.get_gauge().get_value() < 1.0)
    }

    fn metrics(&self, name: &str) -> Vec<Metric> {
        let mut families = self.registry.gather().into_iter();
        let family = families.find(|family| family.name() == name);
        family.map(|mut family| family.take_metric()).unwrap_or_default()
    }
}

/// The first requests like this err.
fn first(
    times: usize,
    method: Method,
    resource: &'static str,
    fault: Fault,
) -> impl Fn(&http::request::Parts) -> Option<Fault> {
    let left = Mutex::new(times);
    move |head| {
        let meant = head.method == method && head.uri.path().trim_end_matches("/status").contains(resource);
        let mut left = left.lock().expect("nobody panics");
        if !meant || *left == 0 {
            return None;
        }
        *left -= 1;
        Some(fault.clone())
    }
}

fn task_spec() -> Value {
    json!({ "steps": [{ "name": "s", "image": "i", "command": ["true"] }] })
}

fn taskrun(name: &str) -> Value {
    json!({
        "apiVersion": "tekton.dev/v1",
        "kind": "TaskRun",
        "metadata": { "name": name },
        "spec": { "taskSpec": task_spec() },
    })
}

fn pipelinerun(name: &str, tasks: &[&str]) -> Value {
    let mut before: Vec<&str> = Vec::new();
    let tasks: Vec<Value> = tasks
        .iter()
        .map(|name| {
            let task = json!({ "name": name, "runAfter": before, "taskSpec": task_spec() });
            before = vec![name];
            task
        })
        .collect();
    json!({
        "apiVersion": "tekton.dev/v1",
        "kind": "PipelineRun",
        "metadata": { "name": name },
        "spec": { "pipelineSpec": { "tasks": tasks } },
    })
}

fn is_done(conditions: &[conditions::Condition]) -> bool {
    conditions::is_done(conditions)
}

fn succeeded(conditions: &[conditions::Condition]) -> Option<&str> {
    conditions::find(conditions, conditions::SUCCEEDED).map(|condition| condition.status.as_str())
}

fn taskrun_succeeded(run: &TaskRun) -> Option<&str> {
    succeeded(&run.status.as_ref()?.conditions)
}

fn pipelinerun_succeeded(run: &PipelineRun) -> Option<&str> {
    succeeded(&run.status.as_ref()?.conditions)
}

const WEBHOOK: &str = "Internal error occurred: failed calling webhook \"webhook.pipeline.tekton.dev\": \
                       failed to call webhook: Post \"https://tekton-pipelines-webhook\": connection refused";

#[rstest::rstest]
#[case::internal(Method::POST, "/pods", Fault::Answer(500, "etcdserver: leader changed"))]
#[case::unavailable(Method::POST, "/pods", Fault::Answer(503, "apiserver is shutting down"))]
#[case::too_many(Method::POST, "/pods", Fault::Answer(429, "too many requests"))]
#[case::expired_token(Method::POST, "/pods", Fault::Answer(401, "Unauthorized"))]
#[case::refused(Method::POST, "/pods", Fault::Refused)]
#[case::answer_lost(Method::POST, "/pods", Fault::AnswerLost)]
#[case::webhook(Method::POST, "/pods", Fault::Answer(500, WEBHOOK))]
#[case::status(Method::PATCH, "/taskruns", Fault::Answer(503, "apiserver is shutting down"))]
#[case::lost_status(Method::PATCH, "/taskruns", Fault::AnswerLost)]
#[tokio::test(start_paused = true)]
async fn an_api_server_in_trouble_fails_no_task_run(
    #[case] method: Method,
    #[case] resource: &'static str,
    #[case] fault: Fault,
) {
    let world = World::new();
    let engine = world.run(first(5, method, resource, fault));
    world.create::<TaskRun>(taskrun("run")).await;
    world.finish_pod("run-pod").await;
    let run =
        world.until::<TaskRun>("run", |run| matches!(taskrun_succeeded(run), Some("True" | "False"))).await;
    assert_eq!(taskrun_succeeded(&run), Some("True"), "{:?}", run.status);
    assert_eq!(world.names::<Pod>().await, ["run-pod"]);
    engine.stop().await;
}

#[rstest::rstest]
#[case::webhook(Method::POST, "/taskruns", Fault::Answer(500, WEBHOOK))]
#[case::answer_lost(Method::POST, "/taskruns", Fault::AnswerLost)]
#[case::refused(Method::POST, "/taskruns", Fault::Refused)]
#[case::status(Method::PATCH, "/pipelineruns", Fault::Answer(500, "etcdserver: request timed out"))]
#[tokio::test(start_paused = true)]
async fn an_api_server_in_trouble_fails_no_pipeline_run(
    #[case] method: Method,
    #[case] resource: &'static str,
    #[case] fault: Fault,
) {
    let world = World::new();
    let engine = world.run(first(5, method, resource, fault));
    world.create::<PipelineRun>(pipelinerun("run", &["a", "b"])).await;
    world.finish_pod("run-a-pod").await;
    world.finish_pod("run-b-pod").await;
    let done = |run: &PipelineRun| matches!(pipelinerun_succeeded(run), Some("True" | "False"));
    let run = world.until::<PipelineRun>("run", done).await;
    assert_eq!(pipelinerun_succeeded(&run), Some("True"), "{:?}", run.status);
    assert_eq!(world.names::<TaskRun>().await, ["run-a", "run-b"]);
    engine.stop().await;
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_while_an_outage_lasts() {
    let world = World::new();
    let began = tokio::time::Instant::now();
    let engine = world.run(first(5, Method::POST, "/pods", Fault::Answer(503, "down")));
    world.create::<TaskRun>(taskrun("run")).await;
    world.until::<Pod>("run-pod", |_| true).await;
    let took = began.elapsed().as_secs();
    assert!((31..34).contains(&took), "1 + 2 + 4 + 8 + 16 s, not {took} s");
    engine.stop().await;
}

/// No change of a TaskRun reaches the cache after its first list.
#[tokio::test(start_paused = true)]
async fn a_cache_that_lags_makes_no_child_twice_and_skips_none() {
    let world = World::new();
    let engine = world.run(|head| {
        let watches = head.uri.query().is_some_and(|query| query.contains("watch=true"));
        (watches && head.uri.path().ends_with("/taskruns")).then_some(Fault::Silence)
    });
    world.create::<PipelineRun>(pipelinerun("run", &["a", "b"])).await;
    world.until::<TaskRun>("run-a", |_| true).await;
    let ended = json!({ "status": {
        "conditions": [{ "type": "Succeeded", "status": "True", "reason": "Succeeded" }],
    } });
    let taskruns = world.api::<TaskRun>();
    taskruns.patch_status("run-a", &PatchParams::default(), &Patch::Merge(ended)).await.expect("a status");
    // The change of the child is not heard of; this one is.
    let label = json!({ "metadata": { "labels": { "look": "again" } } });
    let pipelineruns = world.api::<PipelineRun>();
    pipelineruns.patch("run", &PatchParams::default(), &Patch::Merge(label)).await.expect("a label");
    world.until::<TaskRun>("run-b", |_| true).await;
    let lists_both =
        |run: &PipelineRun| run.status.as_ref().is_some_and(|status| status.child_references.len() == 2);
    let run = world.until::<PipelineRun>("run", lists_both).await;
    assert_eq!(run.status.map(|status| status.skipped_tasks), Some(Vec::new()));
    let created: Vec<_> = engine
        .requests()
        .into_iter()
        .filter(|(method, uri)| method == Method::POST && uri.contains("/taskruns"))
        .collect();
    let distinct: BTreeSet<String> = world.names::<TaskRun>().await.into_iter().collect();
    assert_eq!((created.len(), distinct.len()), (2, 2), "{created:?}");
    engine.stop().await;
}

/// A finished PipelineRun, its TaskRun and its pod, many times over.
#[tokio::test(start_paused = true)]
async fn runs_that_are_done_cost_nothing_when_they_are_listed_again() {
    const COPIES: usize = 1000;
    let world = World::new();
    let engine = world.run(|_| None);
    world.create::<PipelineRun>(pipelinerun("run", &["a"])).await;
    world.finish_pod("run-a-pod").await;
    let done = |run: &PipelineRun| run.status.as_ref().is_some_and(|status| is_done(&status.conditions));
    let run = world.until::<PipelineRun>("run", done).await;
    let child = world.until::<TaskRun>("run-a", |_| true).await;
    let pod = world.until::<Pod>("run-a-pod", |_| true).await;
    engine.stop().await;
    for copy in 0..COPIES {
        let prefix = format!("run-{copy}");
        let run = copied(&world, &run, &prefix, None).await;
        let child = copied(&world, &child, &prefix, Some(&run)).await;
        // The pods of some have been removed meanwhile.
        if copy % 2 == 0 {
            copied(&world, &pod, &prefix, Some(&child)).await;
        }
    }

    let engine = world.run(|_| None);
    // Nothing happens any more when everything that was listed has been looked at.
    let looked_at = || engine.reconciles() >= 2 * COPIES as u64 && engine.is_idle();
    for _ in 0..PATIENCE.as_secs() {
        if looked_at() {
            break;
        }
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    assert!(looked_at(), "only {} reconciles", engine.reconciles());
    assert_eq!(engine.requests(), []);
    engine.stop().await;
}

/// The same object with another beginning of its name, status and all; answers its name and UID.
async fn copied<K: Stored>(
    world: &World,
    object: &K,
    prefix: &str,
    owner: Option<&(String, String)>,
) -> (String, String) {
    let text = serde_json::to_string(object).expect("JSON");
    let text = text.replace("\"run\"", &format!("\"{prefix}\"")).replace("\"run-", &format!("\"{prefix}-"));
    let mut copy: Value = serde_json::from_str(&text).expect("JSON");
    let status = json!({ "status": copy["status"] });
    let metadata = copy["metadata"].as_object_mut().expect("metadata");
    metadata.retain(|key, _| matches!(key.as_str(), "name" | "labels" | "annotations" | "ownerReferences"));
    if let Some((owner, uid)) = owner {
        copy["metadata"]["ownerReferences"][0]["name"] = owner.as_str().into();
        copy["metadata"]["ownerReferences"][0]["uid"] = uid.as_str().into();
    }
    let made = world.create::<K>(copy).await;
    let name = made.meta().name.clone().expect("a name");
    let request = kube::core::Request::new(K::url_path(&(), Some("default")));
    let request = request.patch_subresource("status", &name, &PatchParams::default(), &Patch::Merge(status));
    let patched: Value = world.client.request(request.expect("a request")).await.expect("it takes a status");
    assert!(patched["status"]["conditions"].is_array() || patched["status"]["phase"].is_string());
    (name, made.meta().uid.clone().expect("a UID"))
}

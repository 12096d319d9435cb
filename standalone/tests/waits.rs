//! Why a run waits, from what a node and the API server say to the conditions: the controllers on the API server, with
//! no node but the test itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::wait::{Condition, await_condition};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use ropewalk_api::{PipelineRun, TaskRun, conditions, crd};
use ropewalk_apiserver::{Admission, AdmissionDecision, AdmissionRequest, ResourceTable, State};
use ropewalk_controller::{Metrics, Options};
use ropewalk_core::diagnosis;
use ropewalk_core::settings::Settings;
use ropewalk_standalone::admission::Webhooks;
use ropewalk_standalone::server::{NoLogs, Server};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The counter of the controllers' writes.
const WRITES: &str = "ropewalk_controller_writes_total";

/// Every wait here ends in seconds; on a machine however busy it ends in these.
const PATIENCE: Duration = Duration::from_mins(1);

const MISSING: &str = "MountVolume.SetUp failed for volume \"cfg\" : configmap \" docker-config\" not found";
const QUOTA: &str =
    "pods \"run-pod\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1";

/// The webhooks, and a quota for pods.
struct Quota {
    webhooks: Webhooks,
    full: Arc<AtomicBool>,
}

impl Admission for Quota {
    fn admit(&self, request: &AdmissionRequest<'_>) -> AdmissionDecision {
        if request.kind == "Pod" && request.subresource.is_none() && self.full.load(Ordering::SeqCst) {
            return AdmissionDecision::Deny { code: 403, message: QUOTA.to_owned() };
        }
        self.webhooks.admit(request)
    }
}

struct World {
    client: Client,
    quota_is_full: Arc<AtomicBool>,
    registry: prometheus::Registry,
    /// Ends the controllers when dropped.
    controllers: JoinSet<()>,
}

impl World {
    fn start() -> Self {
        let table = crd::all().iter().try_fold(ResourceTable::built_in(), ResourceTable::with_crd);
        let state = State::new(table.expect("a table"), 1, Timestamp::now());
        let quota_is_full = Arc::new(AtomicBool::new(false));
        let webhooks = Webhooks::new(Arc::default(), &Settings::default());
        let admission = Quota { webhooks, full: Arc::clone(&quota_is_full) };
        let client = Server::new(state, Arc::new(admission), Arc::new(NoLogs)).client();
        let (registry, controllers) = controllers(&client);
        Self { client, quota_is_full, registry, controllers }
    }

    /// Kills the controllers and starts others.
    async fn restart(&mut self) {
        self.controllers.shutdown().await;
        (self.registry, self.controllers) = controllers(&self.client);
    }

    /// What the controllers have written so far.
    fn writes(&self) -> f64 {
        let families = self.registry.gather();
        let writes = families.iter().find(|family| family.name() == WRITES).expect("the counter");
        writes.get_metric().iter().map(|metric| metric.get_counter().get_value()).sum()
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::default_namespaced(self.client.clone())
    }

    async fn create<K>(&self, object: Value)
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + serde::Serialize
            + serde::de::DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(object).expect("an object");
        self.api::<K>().create(&PostParams::default(), &object).await.expect("created");
    }

    async fn wait<K>(&self, name: &str, condition: impl Condition<K>) -> K
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + serde::de::DeserializeOwned
            + Clone
            + std::fmt::Debug
            + Send
            + 'static,
    {
        let found = tokio::time::timeout(PATIENCE, await_condition(self.api(), name, condition)).await;
        found.expect("in time").expect("watched").expect("an object")
    }

    /// The pod of a run, once there is one.
    async fn pod(&self, name: &str) -> Pod {
        self.wait(name, |pod: Option<&Pod>| pod.is_some()).await
    }

    async fn pod_says(&self, name: &str, phase: &str, state: Value) {
        let container = json!({
            "name": "step-a", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state,
        });
        let status = json!({"status": {"phase": phase, "containerStatuses": [container]}});
        let pods = self.api::<Pod>();
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.expect("patched");
    }

    /// A node warns of a pod, as a kubelet does.
    async fn warn(&self, pod: &Pod, event: &str, message: &str) {
        let now = Timestamp::now();
        self.create::<Event>(json!({
            "metadata": ObjectMeta { name: Some(event.to_owned()), ..ObjectMeta::default() },
            "involvedObject": {
                "apiVersion": "v1", "kind": "Pod", "namespace": "default",
                "name": pod.name_any(), "uid": pod.metadata.uid,
            },
            "type": "Warning", "reason": "FailedMount", "message": message,
            "firstTimestamp": now, "lastTimestamp": now, "count": 1,
        }))
        .await;
    }
}

fn controllers(client: &Client) -> (prometheus::Registry, JoinSet<()>) {
    let registry = prometheus::Registry::new();
    let options = Options {
        config: watch::channel(Arc::default()).1,
        settings: watch::channel(Arc::default()).1,
        namespace: None,
        images: None,
        metrics: Metrics::new(&registry).expect("metrics"),
    };
    let mut controllers = JoinSet::new();
    controllers.spawn(ropewalk_controller::run(client.clone(), options, std::future::pending()));
    (registry, controllers)
}

fn task_spec() -> Value {
    json!({
        "steps": [{"name": "a", "image": "i", "script": "true"}],
        "volumes": [{"name": "cfg", "configMap": {"name": " docker-config"}}],
    })
}

fn run() -> Value {
    json!({"metadata": {"name": "run"}, "spec": {"taskSpec": task_spec()}})
}

fn diagnosis_of(conditions: &[conditions::Condition]) -> &str {
    conditions::find(conditions, diagnosis::TYPE).map(|c| c.message.as_str()).unwrap_or_default()
}

fn of_task(run: Option<&TaskRun>) -> &str {
    run.and_then(|run| run.status.as_ref()).map(|status| diagnosis_of(&status.conditions)).unwrap_or_default()
}

fn of_pipeline(run: Option<&PipelineRun>) -> &str {
    run.and_then(|run| run.status.as_ref()).map(|status| diagnosis_of(&status.conditions)).unwrap_or_default()
}

#[tokio::test]
async fn what_a_node_says_of_a_volume_reaches_both_runs_and_goes_once_the_pod_runs() {
    let world = World::start();
    world
        .create::<PipelineRun>(json!({
            "metadata": {"name": "run"},
            "spec": {"pipelineSpec": {"tasks": [{"name": "build", "taskSpec": task_spec()}]}},
        }))
        .await;
    let pod = world.pod("run-build-pod").await;
    world.pod_says("run-build-pod", "Pending", json!({"waiting": {"reason": "ContainerCreating"}})).await;
    world.warn(&pod, "first", MISSING).await;

    let says = |run: Option<&TaskRun>| of_task(run).contains(MISSING);
    let child = world.wait("run-build", says).await;
    let succeeded = &child.status.as_ref().expect("a status").conditions[0];
    assert_eq!((succeeded.type_.as_str(), succeeded.message.as_str()), ("Succeeded", "Pending"));
    let says = |run: Option<&PipelineRun>| of_pipeline(run).contains(MISSING);
    let parent = world.wait("run", says).await;
    let expected = "task \"build\" (TaskRun \"run-build\") waits: ";
    assert!(of_pipeline(Some(&parent)).starts_with(expected), "{}", of_pipeline(Some(&parent)));

    // Another volume shows that the controllers have heard what came before it.
    let writes = world.writes();
    let other = MISSING.replace("\"cfg\"", "\"other\"");
    world.warn(&pod, "again", MISSING).await;
    world.warn(&pod, "other", &other).await;
    world.wait("run", move |run: Option<&PipelineRun>| of_pipeline(run).contains(&other)).await;
    let more = world.writes() - writes;
    assert!((more - 2.).abs() < 0.5, "the same words again are no news, one write for each run: {more}");

    let told =
        world.api::<Event>().list(&ListParams::default().fields("type=Warning")).await.expect("events");
    let of = |kind: &str| {
        let about = told.iter().filter(|event| event.involved_object.kind.as_deref() == Some(kind));
        about.map(|event| event.reason.clone().unwrap_or_default()).collect::<Vec<_>>()
    };
    assert_eq!(
        (of("TaskRun"), of("PipelineRun")),
        (vec!["Diagnosed".to_owned()], vec!["Diagnosed".to_owned()])
    );

    let now = Timestamp::now();
    world.pod_says("run-build-pod", "Running", json!({"running": {"startedAt": now}})).await;
    world.wait("run-build", |run: Option<&TaskRun>| run.is_some() && of_task(run).is_empty()).await;
    world.wait("run", |run: Option<&PipelineRun>| run.is_some() && of_pipeline(run).is_empty()).await;
}

#[tokio::test]
async fn what_stands_stays_when_the_controllers_start_again() {
    let mut world = World::start();
    world.create::<TaskRun>(run()).await;
    let pod = world.pod("run-pod").await;
    world.pod_says("run-pod", "Pending", json!({"waiting": {"reason": "ContainerCreating"}})).await;
    world.warn(&pod, "first", MISSING).await;
    world.wait("run", |run: Option<&TaskRun>| of_task(run).contains(MISSING)).await;

    let config = watcher::Config::default().fields("metadata.name=run");
    let mut versions = watcher::watcher(world.api::<TaskRun>(), config).applied_objects().boxed();
    let mut said = async || {
        let next = tokio::time::timeout(PATIENCE, versions.next()).await.expect("in time");
        of_task(Some(&next.expect("a version").expect("watched"))).to_owned()
    };
    assert!(said().await.contains(MISSING));
    world.restart().await;
    // Another volume shows that the new controllers have decided.
    let other = MISSING.replace("\"cfg\"", "\"other\"");
    world.warn(&pod, "other", &other).await;
    loop {
        let said = said().await;
        assert!(said.contains(MISSING), "{said}");
        if said.contains(&other) {
            return;
        }
    }
}

#[tokio::test]
async fn a_run_goes_on_by_itself_when_a_quota_is_freed() {
    let world = World::start();
    world.quota_is_full.store(true, Ordering::SeqCst);
    world.create::<TaskRun>(run()).await;
    let waits = world.wait("run", |run: Option<&TaskRun>| !of_task(run).is_empty()).await;
    assert_eq!(
        of_task(Some(&waits)),
        format!("the API server refuses pod \"run-pod\": {QUOTA}; it is tried again until there is room")
    );
    assert_eq!(waits.status.expect("a status").conditions[0].reason, "ExceededResourceQuota");
    world.quota_is_full.store(false, Ordering::SeqCst);
    world.pod("run-pod").await;
    // Its ConfigMap is what there is to say next.
    world.wait("run", |run: Option<&TaskRun>| run.is_some() && !of_task(run).contains(QUOTA)).await;
}

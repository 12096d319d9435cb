//! The controllers with the rights that `config/` gives their service account, and no others: all they ask for is granted,
//! and all that is granted is asked for. RBAC is evaluated by an API server in this process.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::client::Body;
use kube::runtime::conditions::is_deleted;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt};
use prometheus::Registry;
use ropewalk_api::config::LeaderElection;
use ropewalk_api::{PipelineRun, TaskRun, crd};
use ropewalk_apiserver::{NoAdmission, ResourceTable, State};
use ropewalk_cluster::{config, config_maps};
use ropewalk_controller::lease::{Candidate, Lost, NAME};
use ropewalk_controller::{Metrics, Options, capabilities};
use ropewalk_core::settings::Settings;
use ropewalk_standalone::server::{NoLogs, ResponseBody, Server};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tower::Service;

/// Of the control plane.
const SYSTEM: &str = "tekton-pipelines";

/// Where the runs are; in the overlay for one namespace no others are served.
const RUNS: &str = "ci";

const ACCOUNT: &str = "system:serviceaccount:tekton-pipelines:tekton-pipelines-controller";

/// What no test should ever take, by the clock that only passes when nothing can be done.
const PATIENCE: Duration = Duration::from_mins(10);

/// One thing that is asked for or granted.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Right {
    /// Empty for all namespaces, and for what is in none.
    namespace: String,
    group: String,
    /// With its subresource.
    resource: String,
    /// Empty for any, and for lists of all.
    name: String,
    verb: String,
}

impl Right {
    /// None for what every client may ask, such as the server's version.
    fn of(request: &http::request::Parts) -> Option<Self> {
        let segments: Vec<&str> = request.uri.path().split('/').skip(1).collect();
        let (group, rest) = match segments[..] {
            ["api", "v1", ref rest @ ..] => ("", rest),
            ["apis", group, _, ref rest @ ..] => (group, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let (resource, name) = match rest {
            [resource] => ((*resource).to_owned(), None),
            [resource, name] => ((*resource).to_owned(), Some(*name)),
            [resource, name, subresource @ ..] => {
                (format!("{resource}/{}", subresource.join("/")), Some(*name))
            }
            [] => return None,
        };
        let query = request.uri.query().unwrap_or_default();
        let verb = match request.method {
            Method::GET if name.is_some() => "get",
            Method::GET if query.contains("watch=true") => "watch",
            Method::GET => "list",
            Method::POST => "create",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            ref other => other.as_str(),
        };
        // A list of one object, by its name, is a request for that name.
        let selected = query.split('&').find_map(|part| part.strip_prefix("fieldSelector=metadata.name%3D"));
        Some(Self {
            namespace: namespace.to_owned(),
            group: group.to_owned(),
            resource,
            name: name.or(selected).unwrap_or_default().to_owned(),
            verb: verb.to_owned(),
        })
    }

    fn covers(&self, asked: &Self) -> bool {
        (self.namespace.is_empty() || self.namespace == asked.namespace)
            && (self.name.is_empty() || self.name == asked.name)
            && (&self.group, &self.resource, &self.verb) == (&asked.group, &asked.resource, &asked.verb)
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, group, resource, name, verb } = self;
        write!(f, "{verb} {resource}.{group} \"{name}\" in \"{namespace}\"")
    }
}

/// The manifests of a file below `config/`.
fn manifests(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config").join(file);
    let text = std::fs::read_to_string(&path).expect("a file");
    serde_saphyr::from_multiple(&text).expect("YAML")
}

/// What the controller's roles grant, one by one.
fn granted(manifests: &[Value]) -> BTreeSet<Right> {
    let texts = |list: &Value| -> Vec<String> { serde_json::from_value(list.clone()).unwrap_or_default() };
    let mut granted = BTreeSet::new();
    let name = |role: &Value| role["metadata"]["name"].as_str().expect("a name").to_owned();
    for role in manifests.iter().filter(|role| name(role).starts_with("tekton-pipelines-controller")) {
        for rule in role["rules"].as_array().into_iter().flatten() {
            let mut names = texts(&rule["resourceNames"]);
            if names.is_empty() {
                names.push(String::new());
            }
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    for verb in texts(&rule["verbs"]) {
                        granted.extend(names.iter().map(|name| Right {
                            namespace: role["metadata"]["namespace"].as_str().unwrap_or_default().to_owned(),
                            group: group.clone(),
                            resource: resource.clone(),
                            name: name.clone(),
                            verb: verb.clone(),
                        }));
                    }
                }
            }
        }
    }
    granted
}

/// What was asked for, and whether that was forbidden.
type Asked = Arc<Mutex<BTreeSet<(Right, bool)>>>;

/// The way to the API server, on which every request becomes the service account's.
#[derive(Clone)]
struct Wire {
    server: Server,
    asked: Asked,
    /// The answer to the first claim that is created gets lost: whether it is ours has to be asked.
    claimed: Arc<AtomicBool>,
}

impl Service<Request<Body>> for Wire {
    type Response = Response<ResponseBody>;
    type Error = tower::BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        let right = Right::of(&head);
        head.headers.insert("Impersonate-User", HeaderValue::from_static(ACCOUNT));
        let is_claim = head.method == Method::POST && head.uri.path().ends_with("/persistentvolumeclaims");
        let lost = is_claim && !self.claimed.swap(true, Ordering::Relaxed);
        let (mut server, asked) = (self.server.clone(), Arc::clone(&self.asked));
        Box::pin(async move {
            let answer = server.call(Request::from_parts(head, body)).await?;
            if let Some(right) = right {
                asked.lock().expect("nobody panics").insert((right, answer.status() == 403));
            }
            if lost {
                return Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into());
            }
            Ok(answer)
        })
    }
}

/// An API server with roles, in which an administrator makes objects and the controllers are who they are.
struct World {
    administrator: Client,
    controller: Client,
    asked: Asked,
}

impl World {
    async fn with(manifests: &[Value]) -> Self {
        let table = crd::all().iter().try_fold(ResourceTable::built_in(), ResourceTable::with_crd);
        let now = Timestamp::now();
        let mut state = State::new(table.expect("our definitions fit"), 1, now);
        ropewalk_apiserver::install(&mut state, "", now);
        let server = Server::new(state, Arc::new(NoAdmission), Arc::new(NoLogs));
        let (administrator, asked) = (server.client(), Asked::default());
        let wire = Wire { server, asked: Arc::clone(&asked), claimed: Arc::default() };
        let world = Self { administrator, controller: Client::new(wire, "default"), asked };
        for namespace in [SYSTEM, RUNS] {
            world
                .post("/api/v1/namespaces", &json!({"kind": "Namespace", "metadata": {"name": namespace}}))
                .await;
        }
        world.post("/api/v1/nodes", &json!({"kind": "Node", "metadata": {"name": "node"}})).await;
        for manifest in manifests {
            let namespace = manifest["metadata"]["namespace"].as_str();
            let namespace = namespace.map(|name| format!("/namespaces/{name}")).unwrap_or_default();
            let plural = format!("{}s", manifest["kind"].as_str().expect("a kind").to_ascii_lowercase());
            world.post(&format!("/apis/rbac.authorization.k8s.io/v1{namespace}/{plural}"), manifest).await;
        }
        world
    }

    async fn post(&self, path: &str, object: &Value) {
        let request = Request::post(path).header("Content-Type", "application/json");
        let request = request.body(object.to_string().into_bytes()).expect("a request");
        self.administrator.request::<Value>(request).await.expect("it is created");
    }

    async fn in_runs(&self, plural: &str, object: &Value) {
        let group = if object["apiVersion"] == "v1" { "/api" } else { "/apis" };
        let version = object["apiVersion"].as_str().expect("a version");
        self.post(&format!("{group}/{version}/namespaces/{RUNS}/{plural}"), object).await;
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.administrator.clone(), RUNS)
    }

    /// Waits until an object is there and as wanted.
    async fn until<K>(&self, name: &str, wanted: impl Fn(&Value) -> bool + Send + Sync) -> K
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + fmt::Debug
            + serde::de::DeserializeOwned
            + serde::Serialize
            + Send
            + 'static,
    {
        let holds = |object: Option<&K>| {
            object.is_some_and(|object| wanted(&serde_json::to_value(object).expect("JSON")))
        };
        let waited = tokio::time::timeout(PATIENCE, await_condition(self.api::<K>(), name, holds)).await;
        waited.expect("it becomes as it should be").expect("a watch").expect("an object")
    }

    async fn patch<K>(&self, name: &str, patch: Value)
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + fmt::Debug
            + serde::de::DeserializeOwned,
    {
        self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("a patch");
    }

    /// What is granted and has not been asked for.
    fn unused(&self, granted: &BTreeSet<Right>) -> Vec<String> {
        let asked = self.asked.lock().expect("nobody panics");
        let unused = |right: &&Right| !asked.iter().any(|(asked, _)| right.covers(asked));
        granted.iter().filter(unused).map(Right::to_string).collect()
    }

    fn forbidden(&self) -> Vec<String> {
        let asked = self.asked.lock().expect("nobody panics");
        asked.iter().filter(|(_, forbidden)| *forbidden).map(|(right, _)| right.to_string()).collect()
    }
}

/// What the process reads before it works, and its lease, once lost and once released.
async fn begin(world: &World, registry: &Registry) -> Options {
    let client = &world.controller;
    config_maps::read(client, SYSTEM, "config-leader-election-controller").await.expect("it may be read");
    let mut certificates = config_maps::changes(client, SYSTEM, "config-registry-cert").boxed();
    certificates.next().await.expect("it may be followed");
    tokio::spawn(certificates.for_each(|_| std::future::ready(())));
    let candidate =
        || Candidate::new(client.clone(), SYSTEM, "candidate".to_owned(), LeaderElection::default());
    let mut held = candidate().acquire().await;
    let leases = Api::<Lease>::namespaced(world.administrator.clone(), SYSTEM);
    let taken = Patch::Merge(json!({"spec": {"holderIdentity": "other"}}));
    leases.patch(NAME, &PatchParams::default(), &taken).await.expect("taken");
    assert!(matches!(held.keep().await, Lost::Taken { .. }));
    candidate().acquire().await.release().await;
    Options {
        config: config::watch(client, SYSTEM, registry).await.expect("a registry of its own"),
        settings: capabilities::follow(client, SYSTEM, Settings::default()).await,
        namespace: None,
        images: None,
        metrics: Metrics::new(registry).expect("a registry of its own"),
    }
}

/// Runs that need everything the engine can do.
async fn objects(world: &World) {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/basic-auth",
        "metadata": {"name": "git", "annotations": {"tekton.dev/git-0": "https://git.example"}},
        "stringData": {"username": "u", "password": "p"},
    });
    world.in_runs("secrets", &secret).await;
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "builder"}, "secrets": [{"name": "git"}],
    });
    world.in_runs("serviceaccounts", &account).await;
    let container = |name: &str| json!({"name": name, "image": "i", "command": ["true"]});
    let task = json!({
        "apiVersion": "tekton.dev/v1", "kind": "Task",
        "metadata": {"name": "build", "labels": {"of": "the-task"}},
        "spec": {
            "workspaces": [{"name": "source"}],
            "steps": [container("work")],
            "sidecars": [container("helper")],
        },
    });
    world.in_runs("tasks", &task).await;
    let pipeline = json!({
        "apiVersion": "tekton.dev/v1", "kind": "Pipeline",
        "metadata": {"name": "release", "labels": {"of": "the-pipeline"}},
        "spec": {
            "workspaces": [{"name": "source"}],
            "tasks": [{"name": "only", "taskRef": {"name": "build"}, "workspaces": [{"name": "source"}]}],
        },
    });
    world.in_runs("pipelines", &pipeline).await;
    let run = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "tekton.dev/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    world.in_runs("taskruns", &run("TaskRun", "lost", json!({"taskRef": {"name": "nowhere"}}))).await;
    let lost = run("PipelineRun", "lost", json!({"pipelineRef": {"name": "nowhere"}}));
    world.in_runs("pipelineruns", &lost).await;
    let claim =
        json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let release = run(
        "PipelineRun",
        "release",
        json!({
            "pipelineRef": {"name": "release"},
            "taskRunTemplate": {"serviceAccountName": "builder"},
            "workspaces": [{"name": "source", "volumeClaimTemplate": claim}],
        }),
    );
    world.in_runs("pipelineruns", &release).await;
}

/// What users and the node do to the runs, so that the engine has to do the rest.
async fn events_of_life(world: &World) {
    let succeeded =
        |status: &'static str| move |run: &Value| run["status"]["conditions"][0]["status"] == status;
    world.until::<TaskRun>("lost", succeeded("False")).await;
    world.until::<PipelineRun>("lost", succeeded("False")).await;

    // The sidecar is ready, which the first step is told by an annotation.
    world.until::<Pod>("release-only-pod", |_| true).await;
    let running = |name: &str| {
        json!({
            "name": name, "image": "i", "imageID": "i@sha256:0", "ready": true, "restartCount": 0,
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        })
    };
    let status = json!({"status": {
        "phase": "Running", "containerStatuses": [running("step-work"), running("sidecar-helper")],
    }});
    let pods = world.api::<Pod>();
    pods.patch_status("release-only-pod", &PatchParams::default(), &Patch::Merge(status))
        .await
        .expect("a status");
    let ready = |pod: &Value| pod["metadata"]["annotations"]["tekton.dev/ready"] == "READY";
    world.until::<Pod>("release-only-pod", ready).await;
    let running = |run: &Value| run["status"]["conditions"][0]["reason"] == "Running";
    world.until::<TaskRun>("release-only", running).await;
    world
        .until::<PipelineRun>("release", |run| run["status"]["childReferences"][0]["name"] == "release-only")
        .await;

    // Cancelled with its parent, its pod goes.
    let pod = pods.get("release-only-pod").await.expect("a pod");
    world.patch::<PipelineRun>("release", json!({"spec": {"status": "Cancelled"}})).await;
    world.until::<PipelineRun>("release", succeeded("False")).await;
    let uid = pod.uid().expect("a UID");
    let gone = await_condition(pods, "release-only-pod", is_deleted(&uid));
    tokio::time::timeout(PATIENCE, gone).await.expect("the pod goes").expect("a watch");

    // What the status names and the caches lack is asked for.
    let task = json!({"steps": [{"name": "work", "image": "i", "command": ["true"]}]});
    let run = json!({
        "apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": {"name": "robbed"},
        "spec": {"pipelineSpec": {"tasks": [
            {"name": "child", "taskSpec": task}, {"name": "pod", "taskSpec": task},
        ]}},
    });
    world.in_runs("pipelineruns", &run).await;
    let children =
        |run: &Value| run["status"]["childReferences"].as_array().is_some_and(|all| all.len() == 2);
    world.until::<PipelineRun>("robbed", children).await;
    let named = |run: &Value| run["status"]["podName"] == "robbed-pod-pod";
    world.until::<TaskRun>("robbed-pod", named).await;
    let at_once = DeleteParams::default().grace_period(0);
    world.api::<Pod>().delete("robbed-pod-pod", &at_once).await.expect("deleted");
    world.api::<TaskRun>().delete("robbed-child", &at_once).await.expect("deleted");
}

/// A verb nobody uses is a right too many; the rights to finalizers are asked for by admission, not by us.
#[rstest::rstest]
#[case::on_a_cluster("rbac/controller.yaml", None, &[])]
#[case::in_one_namespace("overlays/single-namespace/rbac.yaml", Some(RUNS), &["list nodes. \"\" in \"\""])]
#[tokio::test(start_paused = true)]
async fn every_right_is_granted_and_used(
    #[case] file: &str,
    #[case] namespace: Option<&str>,
    #[case] forbidden: &[&str],
) {
    let manifests = manifests(file);
    let mut granted = granted(&manifests);
    let before = granted.len();
    granted.retain(|right| !right.resource.ends_with("/finalizers"));
    assert_eq!(before - granted.len(), 2, "of both kinds of runs");

    let world = World::with(&manifests).await;
    let registry = Registry::new();
    let options = begin(&world, &registry).await;
    let options = Options { namespace: namespace.map(str::to_owned), ..options };
    let (stop, stopping) = oneshot::channel::<()>();
    let stopping = async {
        let _ = stopping.await;
    };
    let engine = tokio::spawn(ropewalk_controller::run(world.controller.clone(), options, stopping));
    objects(&world).await;
    Box::pin(events_of_life(&world)).await;
    let begun = tokio::time::Instant::now();
    while !world.unused(&granted).is_empty() && begun.elapsed() < PATIENCE {
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    assert_eq!(world.unused(&granted), [""; 0], "granted for nothing");
    assert_eq!(world.forbidden(), forbidden);
    stop.send(()).expect("they are running");
    engine.await.expect("they end");
}

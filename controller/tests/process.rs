//! The process as it runs on a cluster: its probes, its metrics, and a lease that goes from one to the next. The API server
//! is in this process, on a socket.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::PostParams;
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ropewalk_api::config::LeaderElection;
use ropewalk_api::{TaskRun, crd};
use ropewalk_apiserver::{NoAdmission, ResourceTable, State};
use ropewalk_controller::lease::NAME;
use ropewalk_standalone::server::{NoLogs, Server};
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const SYSTEM: &str = "tekton-pipelines";

/// What no step of a test should ever take, on a machine however busy.
const PATIENCE: Duration = Duration::from_mins(2);

/// Upstream's names, those that stand from the beginning.
const METRICS: [&str; 8] = [
    "http_client_request_duration_seconds",
    "kn_k8s_client_http_response_status_code_total",
    "kn_workqueue_adds_total",
    "kn_workqueue_depth",
    "kn_workqueue_process_duration_seconds",
    "tekton_pipelines_controller_running_pipelineruns",
    "tekton_pipelines_controller_running_taskruns",
    "tekton_pipelines_controller_running_taskruns_throttled_by_quota",
];

struct Controller {
    process: tokio::process::Child,
    probes: u16,
    metrics: u16,
}

impl Controller {
    async fn start(kubeconfig: &NamedTempFile, name: &str) -> Self {
        let (probes, metrics) = (free_port().await, free_port().await);
        let mut command = Command::new(env!("CARGO_BIN_EXE_ropewalk-controller"));
        command
            .arg("--kubeconfig")
            .arg(kubeconfig.path())
            .env("SYSTEM_NAMESPACE", SYSTEM)
            .env("POD_NAME", name)
            .env("PROBES_PORT", probes.to_string())
            .env("METRICS_PROMETHEUS_PORT", metrics.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = tokio::process::Command::from(command).kill_on_drop(true).spawn().expect("a process");
        Self { process, probes, metrics }
    }

    /// Asks it to end, and waits until it has ended well.
    async fn stop(mut self) {
        let id = self.process.id().expect("it runs");
        kill(Pid::from_raw(id.try_into().expect("a process id")), Signal::SIGTERM).expect("a signal");
        let status = timeout(PATIENCE, self.process.wait()).await.expect("it ends").expect("a status");
        assert!(status.success(), "{status}");
    }
}

async fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    listener.local_addr().expect("an address").port()
}

/// The head and the body of an answer; nobody may listen yet.
async fn ask(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Asks, as a kubelet does, until the answer is yes.
async fn becomes_ready(port: u16) {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let ready = async {
        while !ask(port, "/readyz").await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 ")) {
            ticks.tick().await;
        }
    };
    timeout(PATIENCE, ready).await.expect("it becomes ready");
}

/// Waits until the lease is held by `holder`.
async fn held_by(client: &Client, holder: &str) {
    let leases = Api::<Lease>::namespaced(client.clone(), SYSTEM);
    let held = |lease: Option<&Lease>| {
        lease.and_then(|lease| lease.spec.as_ref()?.holder_identity.as_deref()) == Some(holder)
    };
    timeout(PATIENCE, await_condition(leases, NAME, held)).await.expect("it is held").expect("a watch");
}

/// A run gets its pod from whoever works.
async fn is_worked_on(client: &Client, name: &str) {
    let run = json!({
        "apiVersion": "tekton.dev/v1", "kind": "TaskRun", "metadata": {"name": name},
        "spec": {"taskSpec": {"steps": [{"name": "s", "image": "i", "command": ["true"]}]}},
    });
    let run: TaskRun = serde_json::from_value(run).expect("a run");
    let runs = Api::<TaskRun>::default_namespaced(client.clone());
    runs.create(&PostParams::default(), &run).await.expect("it is created");
    let pods = Api::<Pod>::default_namespaced(client.clone());
    let there = |pod: Option<&Pod>| pod.is_some();
    let pod = format!("{name}-pod");
    let made = await_condition(pods, &pod, there);
    timeout(PATIENCE, made).await.expect("a pod is made").expect("a watch");
}

#[tokio::test]
async fn a_process_that_ends_hands_over_to_the_one_that_waits() {
    let table = crd::all().iter().try_fold(ResourceTable::built_in(), ResourceTable::with_crd);
    let state = State::new(table.expect("our definitions fit"), 1, Timestamp::now());
    let server = Server::new(state, Arc::new(NoAdmission), Arc::new(NoLogs));
    let client = server.client();
    let namespace = serde_json::from_value(json!({"metadata": {"name": SYSTEM}})).expect("a namespace");
    Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await
        .expect("it is created");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(server.serve(listener, std::future::pending()));
    let mut kubeconfig = NamedTempFile::new().expect("a file");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    });
    kubeconfig.write_all(text.to_string().as_bytes()).expect("written");

    let first = Controller::start(&kubeconfig, "first").await;
    held_by(&client, "first").await;
    is_worked_on(&client, "one").await;
    for path in ["/livez", "/readyz", "/health", "/readiness"] {
        let answer = ask(first.probes, path).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    }
    let metrics = ask(first.metrics, "/metrics").await.expect("an answer");
    for name in METRICS {
        assert!(metrics.contains(&format!("# TYPE {name} ")), "no {name}: {metrics}");
    }

    // Whoever waits is ready, or no rollout would go on, and does not work.
    let second = Controller::start(&kubeconfig, "second").await;
    becomes_ready(second.probes).await;
    held_by(&client, "first").await;
    let begun = Instant::now();
    first.stop().await;
    held_by(&client, "second").await;
    let took = begun.elapsed();
    assert!(took < LeaderElection::default().lease_duration, "it was not released, but ended: {took:?}");
    is_worked_on(&client, "two").await;
    second.stop().await;
}

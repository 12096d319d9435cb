//! An API server and a node in a directory of their own.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::api::{LogParams, PostParams};
use kube::runtime::wait::{Condition, await_condition};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use nix::unistd::Pid;
use ropewalk_apiserver::{NoAdmission, ResourceTable, State};
use ropewalk_standalone::node::exec::Commands;
use ropewalk_standalone::node::logs::Logs;
use ropewalk_standalone::node::{self, Instance, NodeConfig, RootfsMode, RuntimeKind};
use ropewalk_standalone::server::Server;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What nothing here should ever take, on a machine however busy.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Several at once: each has its own directory, and containers come and go in any order.
pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) server: Server,
    pub(crate) instance: Option<Instance>,
    rootfs: RootfsMode,
    shutdown: watch::Sender<bool>,
    node: JoinHandle<()>,
    root: Option<tempfile::TempDir>,
}

pub(crate) fn test(body: impl AsyncFnOnce(&mut World)) {
    test_with(|_| {}, body);
}

pub(crate) fn test_with(edit: impl FnOnce(&mut NodeConfig), body: impl AsyncFnOnce(&mut World)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        let mut world = World::start(edit);
        tokio::time::timeout(PATIENCE, body(&mut world)).await.expect("in time");
        world.stop().await;
    });
}

pub(crate) fn config(data_dir: &Path) -> NodeConfig {
    // As the program does: the root of all instances is private, and with it this one.
    let private_dirs = data_dir.ancestors().nth(2).map(Path::to_owned).into_iter().collect();
    NodeConfig { rootfs: RootfsMode::Host, private_dirs, ..NodeConfig::new(data_dir, node::OWN_EXECUTABLE) }
}

pub(crate) fn server(data_dir: &Path) -> Server {
    let state = State::new(ResourceTable::built_in(), 1, Timestamp::now());
    let server = Server::new(state, Arc::new(NoAdmission), Arc::new(Logs::new(data_dir)));
    server.run_commands_with(Arc::new(Commands::new(data_dir, node::OWN_EXECUTABLE)));
    server
}

impl World {
    fn start(edit: impl FnOnce(&mut NodeConfig)) -> Self {
        // Not below /tmp, which is empty for containers anyway: where the program keeps its data by default.
        let root = tempfile::tempdir_in("/var/lib").expect("a directory");
        let mut world = Self::start_in(root.path(), edit);
        world.root = Some(root);
        world
    }

    pub(crate) fn start_in(root: &Path, edit: impl FnOnce(&mut NodeConfig)) -> Self {
        let instance = Instance::create(root).expect("an instance");
        let mut config = config(instance.data_dir());
        edit(&mut config);
        let server = server(instance.data_dir());
        let rootfs = config.rootfs;
        let (shutdown, node) = spawn(&server, config);
        Self { client: server.client(), server, instance: Some(instance), rootfs, shutdown, node, root: None }
    }

    /// Ends the node without its containers and starts another one on the same directory.
    pub(crate) async fn restart(&mut self) {
        self.leave().await;
        self.come_back();
    }

    /// Ends the node without its containers.
    pub(crate) async fn leave(&mut self) {
        self.shutdown.send(true).expect("the node runs");
        (&mut self.node).await.expect("the node ends");
    }

    /// Starts another node on the directory of one that left.
    pub(crate) fn come_back(&mut self) {
        let instance = self.instance.as_ref().expect("an instance");
        let config = NodeConfig { rootfs: self.rootfs, ..config(instance.data_dir()) };
        (self.shutdown, self.node) = spawn(&self.server, config);
    }

    /// As [`come_back`](Self::come_back), for one that is configured otherwise.
    pub(crate) fn come_back_with(&mut self, edit: impl FnOnce(&mut NodeConfig)) {
        let instance = self.instance.as_ref().expect("an instance");
        let mut config = config(instance.data_dir());
        edit(&mut config);
        (self.shutdown, self.node) = spawn(&self.server, config);
    }

    async fn stop(mut self) {
        self.shutdown.send(true).expect("the node runs");
        (&mut self.node).await.expect("the node ends");
        let instance = self.instance.take().expect("an instance");
        let left = Left::of(instance.data_dir());
        instance.remove().expect("removed");
        left.assert_nothing();
    }

    /// Where the node keeps things.
    pub(crate) fn data_dir(&self) -> &Path {
        self.instance.as_ref().expect("an instance").data_dir()
    }

    /// The directory of the first attempt of a container.
    pub(crate) fn attempt(&self, pod: &Pod, container: &str) -> PathBuf {
        let uid = pod.metadata.uid.as_deref().expect("a UID");
        self.data_dir().join("pods").join(uid).join("containers").join(container).join("0")
    }

    /// A process of the first attempt of a container: `shim` or `init`.
    pub(crate) fn process(&self, pod: &Pod, container: &str, which: &str) -> Pid {
        let started = std::fs::read(self.attempt(pod, container).join("started.json")).expect("read");
        let started: Value = serde_json::from_slice(&started).expect("JSON");
        Pid::from_raw(i32::try_from(started[which]["pid"].as_i64().expect("a pid")).expect("fits"))
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client.clone())
    }

    /// Creates a pod; every container without a command runs its `script` with sh.
    pub(crate) async fn create(&self, pod: Value) -> Pod {
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        self.pods().create(&PostParams::default(), &pod).await.expect("created")
    }

    pub(crate) async fn wait(&self, name: &str, condition: impl Condition<Pod>) -> Option<Pod> {
        await_condition(self.pods(), name, condition).await.expect("watched")
    }

    /// Waits until the pod has ended and returns it.
    pub(crate) async fn ended(&self, name: &str) -> Pod {
        self.wait(name, phase(&["Succeeded", "Failed"])).await.expect("the pod is there")
    }

    /// Waits for an event of the pod whose message begins with these words, and returns all of it.
    pub(crate) async fn event(&self, pod: &Pod, reason: &str, words: &str) -> String {
        let events: Api<Event> = Api::default_namespaced(self.client.clone());
        let mut changes = std::pin::pin!(watcher(events, watcher::Config::default()).applied_objects());
        while let Some(event) = changes.next().await {
            let Event { involved_object, reason: found, message: Some(message), .. } =
                event.expect("watched")
            else {
                continue;
            };
            if involved_object.uid == pod.metadata.uid
                && found.as_deref() == Some(reason)
                && message.starts_with(words)
            {
                return message;
            }
        }
        panic!("the watch has ended")
    }

    pub(crate) async fn log(&self, pod: &str, container: &str) -> String {
        let parameters = LogParams { container: Some(container.to_owned()), ..LogParams::default() };
        self.pods().logs(pod, &parameters).await.expect("a log")
    }
}

/// A failed test leaves nothing running either.
impl Drop for World {
    fn drop(&mut self) {
        self.node.abort();
        if let Some(instance) = self.instance.take() {
            let _ = instance.remove();
        }
    }
}

fn spawn(server: &Server, config: NodeConfig) -> (watch::Sender<bool>, JoinHandle<()>) {
    let (shutdown, stopping) = watch::channel(false);
    let node = node::run(server.client(), config, stopping);
    (shutdown, tokio::spawn(async { node.await.expect("the node runs") }))
}

pub(crate) fn phase(wanted: &'static [&'static str]) -> impl Condition<Pod> {
    move |pod: Option<&Pod>| {
        let phase = pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref());
        phase.is_some_and(|phase| wanted.contains(&phase))
    }
}

pub(crate) fn container<'a>(pod: &'a Pod, name: &str) -> &'a ContainerStatus {
    let status = pod.status.as_ref().expect("a status");
    let init = status.init_container_statuses.iter().flatten();
    let mut all = init.chain(status.container_statuses.iter().flatten());
    all.find(|status| status.name == name).expect("a container status")
}

/// Exit code, reason and message of an ended container.
pub(crate) fn outcome(pod: &Pod, name: &str) -> (i32, String, String) {
    let state = container(pod, name).state.clone().expect("a state");
    let ended =
        state.terminated.unwrap_or_else(|| panic!("\"{name}\" has not ended: {:?}", container(pod, name)));
    (ended.exit_code, ended.reason.unwrap_or_default(), ended.message.unwrap_or_default())
}

/// Reason and message of a waiting container.
pub(crate) fn waiting(pod: &Pod, name: &str) -> Option<(String, String)> {
    let waiting = container(pod, name).state.clone()?.waiting?;
    Some((waiting.reason.unwrap_or_default(), waiting.message.unwrap_or_default()))
}

/// A pod that is never restarted and has at most a second to stop.
pub(crate) fn pod(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["restartPolicy"] = "Never".into();
    serde_json::json!({"metadata": {"name": name}, "spec": spec})
}

/// A container that runs a script on the machine's root file system.
pub(crate) fn script(name: &str, script: &str) -> Value {
    serde_json::json!({"name": name, "image": "host", "command": ["sh", "-c", script]})
}

/// `base` with further fields.
pub(crate) fn with(base: Value, fields: Value) -> Value {
    let (Value::Object(mut base), Value::Object(fields)) = (base, fields) else { panic!("not objects") };
    base.extend(fields);
    Value::Object(base)
}

/// Where an instance may leave something behind.
pub(crate) struct Left {
    directory: PathBuf,
    cgroups: Vec<PathBuf>,
    /// What the addresses of pods with networks of their own begin with, if there are any.
    network: Option<[u8; 3]>,
}

impl Left {
    /// Must be called while the instance exists.
    pub(crate) fn of(directory: &Path) -> Self {
        let cgroups = std::fs::read(directory.join("cgroups.json")).unwrap_or_else(|_| b"[]".to_vec());
        let range = std::fs::read(directory.join("network/range.json")).ok();
        let network = range.map(|range| {
            let range: Value = serde_json::from_slice(&range).expect("a range");
            let first: Ipv4Addr = range["network"].as_str().expect("text").parse().expect("an address");
            let [a, b, c, _] = first.octets();
            [a, b, c]
        });
        Self {
            directory: directory.to_owned(),
            cgroups: serde_json::from_slice(&cgroups).expect("a list of cgroups"),
            network,
        }
    }

    /// For later: the addresses may be others' by then.
    pub(crate) fn without_network(self) -> Self {
        Self { network: None, ..self }
    }

    /// No process, mount, cgroup, link, address, route or directory of the instance is left.
    pub(crate) fn assert_nothing(&self) {
        assert!(!self.directory.exists(), "{} is left", self.directory.display());
        let path = self.directory.to_str().expect("text");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        assert!(!mounts.contains(path), "a mount is left: {mounts}");
        for entry in std::fs::read_dir("/proc").expect("processes").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let read =
                |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            assert!(!read("cmdline").contains(path), "process {pid} is left: {}", read("cmdline"));
            assert!(!read("mountinfo").contains(path), "process {pid} has mounts left: {}", read("cmdline"));
        }
        for cgroup in &self.cgroups {
            assert!(!cgroup.exists(), "cgroup {} is left", cgroup.display());
        }
        let Some([a, b, c]) = self.network else { return };
        let link = format!("rw{a:02x}{b:02x}{c:02x}");
        for device in std::fs::read_dir("/sys/class/net").expect("devices").flatten() {
            let name = device.file_name().to_string_lossy().into_owned();
            assert!(!name.starts_with(&link), "the link {name} is left");
        }
        // The addresses of this machine, and the routes of all tables: the leaves of the trie. Its inner nodes are what
        // several have in common, and look like addresses that nobody has.
        let routes = std::fs::read_to_string("/proc/net/fib_trie").expect("routes");
        let prefix = format!("{a}.{b}.{c}.");
        assert!(
            !routes.contains(&format!("|-- {prefix}")),
            "a route or an address in {prefix} is left: {routes}"
        );
    }
}

/// Everything a log stream has until it ends.
pub(crate) async fn follow(world: &World, pod: &str, container: &str) -> String {
    use futures::AsyncReadExt;
    let parameters =
        LogParams { container: Some(container.to_owned()), follow: true, ..LogParams::default() };
    let mut stream = Box::pin(world.pods().log_stream(pod, &parameters).await.expect("a stream"));
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("text");
    text
}

/// Waits until a container has written this line.
pub(crate) async fn await_line(world: &World, pod: &str, container: &str, line: &str) {
    use futures::{AsyncBufReadExt as _, StreamExt as _};
    let parameters =
        LogParams { container: Some(container.to_owned()), follow: true, ..LogParams::default() };
    let mut lines = Box::pin(world.pods().log_stream(pod, &parameters).await.expect("a stream")).lines();
    while let Some(written) = lines.next().await {
        if written.expect("text") == line {
            return;
        }
    }
    panic!("container \"{container}\" has ended without \"{line}\"")
}

/// Whether runc is there, on a line nobody overlooks if not.
pub(crate) fn has_runc() -> bool {
    let found = std::process::Command::new("runc").arg("--version").output().is_ok();
    if !found {
        assert!(std::env::var_os("ROPEWALK_REQUIRE_TOOLS").is_none(), "the gate needs runc");
        eprintln!("SKIPPED: no runc on this machine, so these tests were not run with it");
    }
    found
}

/// How a container is made.
pub(crate) fn runc(config: &mut NodeConfig) {
    config.runtime = RuntimeKind::Runc("runc".into());
}

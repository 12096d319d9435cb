//! The task of one pod: feeds its state machine with what happens and carries out what that says.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, SelectAll, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use ropewalk_api::errors::chain;
use ropewalk_kubelet::HostFacts;
use ropewalk_kubelet::machine::{Adoption, Command, Ending, Event, PodState, step};
use ropewalk_kubelet::{isolation, objects, status};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::container::{self, Attempt};
use super::{Node, hooks, instance, is_terminal, objects as reader, probe, report, usage, volumes};

/// The wait before volumes are made again after reading their objects failed.
const API_PAUSE: Duration = Duration::from_secs(1);

/// Runs one pod to its end. Returns when nothing is left to do for it: it is finished and its last status was
/// seen, or it is gone and nothing of it is left on the machine.
pub(super) async fn run(
    node: Arc<Node>,
    pod: Pod,
    mut events: mpsc::Receiver<Event>,
    sender: mpsc::WeakSender<Event>,
) {
    let (statuses, latest) = watch::channel(report::Latest::default());
    node.spawn_droppable(report::statuses(node.client.clone(), pod.clone(), latest));
    let mut task = Task {
        uid: pod.uid().unwrap_or_default(),
        namespace: pod.namespace().unwrap_or_default(),
        state: PodState::new(pod.clone()),
        permit: None,
        facts: node.facts_of(&pod),
        statuses,
        sender,
        ending: node.stopping.child_token(),
        is_measured: false,
        node,
    };
    let mut changes: Option<SelectAll<BoxStream<'static, ()>>> = None;
    task.adopt().await;
    // Deletion may have been asked for before this process saw the pod.
    task.handle(Event::PodChanged(Box::new(pod)));
    // As a rule there is room, and then nobody needs to read that the pod waits for some.
    if !task.state.is_finished()
        && let Ok(permit) = Arc::clone(&task.node.room).try_acquire_owned()
    {
        task.permit = Some(permit);
        task.handle(task.admit());
    }
    loop {
        while let Ok(event) = events.try_recv() {
            task.handle(event);
        }
        task.report();
        if task.is_over() {
            break;
        }
        // Watched from the first failure until all containers run. A new watch begins by telling what there is,
        // which leads to one more try: one per failure would lead to tries without end.
        if changes.is_none() && task.state.waits_for_objects() {
            let references = objects::references(task.state.pod());
            changes = Some(reader::changes(&task.node.client, &task.namespace, &references));
        } else if !task.state.is_starting() {
            changes = None;
        }
        let wake = task.state.next_wake().map(|at| {
            let left = at.duration_since(Timestamp::now());
            Duration::try_from(left).unwrap_or_default()
        });
        let wants_room = task.permit.is_none() && !task.state.is_finished();
        let room = Arc::clone(&task.node.room);
        tokio::select! {
            // Containers live on without this task.
            () = task.node.stopping.cancelled() => return,
            Some(event) = events.recv() => task.handle(event),
            permit = room.acquire_owned(), if wants_room => {
                task.permit = permit.ok();
                task.handle(task.admit());
            }
            () = tokio::time::sleep(wake.unwrap_or_default()), if wake.is_some() => task.handle(Event::Tick),
            Some(()) = next(&mut changes) => task.handle(Event::ObjectsChanged),
        }
    }
    if task.state.ending() == Some(Ending::Gone) {
        purge(&task.node, &task.uid).await;
    }
}

/// The next change; `None`, which no branch waits for, when nothing is watched.
async fn next(changes: &mut Option<SelectAll<BoxStream<'static, ()>>>) -> Option<()> {
    changes.as_mut()?.next().await
}

/// Removes everything a pod has on this machine, containers included.
pub(super) async fn purge(node: &Arc<Node>, uid: &str) {
    let shared = Arc::clone(node);
    let directory = node.pod_dir(uid);
    let prefix = format!("{uid}-");
    let removed = spawn_blocking(move || {
        if !directory.exists() {
            return;
        }
        instance::kill_below(&directory);
        for parent in &shared.known_cgroups {
            let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
            let own = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
            own.for_each(|entry| super::cgroup::remove_tree(&entry.path()));
        }
        instance::unmount_below(&directory);
        if let Err(error) = std::fs::remove_dir_all(&directory) {
            tracing::warn!(directory = %directory.display(), %error, "cannot remove what a pod left");
        }
    });
    // Fails only if the runtime is shutting down; the next start removes the directory then.
    let _ = removed.await;
    release_network(node, uid);
}

/// Removes the volumes and the network of a pod that has ended, if they are still there.
pub(super) fn tear_down(node: &Arc<Node>, uid: String) {
    release_network(node, &uid);
    if volumes::are_there(node, &uid) {
        let shared = Arc::clone(node);
        node.spawn(async move {
            if let Ok(Err(error)) = spawn_blocking(move || volumes::tear_down(&shared, &uid)).await {
                tracing::warn!(%error, "volumes could not be removed");
            }
        });
    }
}

struct Task {
    node: Arc<Node>,
    uid: String,
    namespace: String,
    state: PodState,
    /// The pod's place on the node, given back when its containers have ended.
    permit: Option<OwnedSemaphorePermit>,
    /// The machine as the pod finds it: its address stays known when it is given to others.
    facts: HostFacts,
    statuses: watch::Sender<report::Latest>,
    sender: mpsc::WeakSender<Event>,
    /// Cancelled when the pod is brought to an end, or the node.
    ending: CancellationToken,
    /// Whether somebody looks at what it takes of the disk.
    is_measured: bool,
}

impl Task {
    /// Takes over what an earlier process of this node started.
    async fn adopt(&mut self) {
        let names = self.state.records().iter().map(|record| record.name.clone());
        let attempts: Vec<_> = names.filter_map(|name| self.attempt(name, 0)).collect();
        // Nothing is found only if the runtime is shutting down, and then nothing is started either.
        let found = spawn_blocking(move || container::find(attempts.into_iter())).await.unwrap_or_default();
        for (name, number, adoption) in self.state.adopt(&found, Timestamp::now()) {
            let Some(attempt) = self.attempt(name, number) else { continue };
            match adoption {
                Adoption::Lost => self.node.spawn(async move { attempt.ended().await }),
                _ => self.node.spawn(attempt.adopt()),
            }
        }
    }

    fn attempt(&self, name: String, number: u32) -> Option<Attempt> {
        let events = self.sender.upgrade()?;
        let pod = Arc::new(self.state.pod().clone());
        let ending = self.ending.clone();
        Some(Attempt { node: Arc::clone(&self.node), pod, name, number, events, ending })
    }

    /// Whether the pod, for which there is room, is one to take on.
    fn admit(&self) -> Event {
        let pod = self.state.pod();
        match isolation::admit(pod, self.node.network_of(pod).is_some()) {
            Ok(()) => Event::Admitted,
            Err(message) => Event::Rejected { reason: isolation::SYSCTL_FORBIDDEN, message },
        }
    }

    fn handle(&mut self, event: Event) {
        if let Event::Started { name, attempt, .. } = &event {
            self.start_probe(name, *attempt);
            self.watch_usage();
        }
        if matches!(event, Event::VolumesReady) {
            self.facts = self.node.facts_of(self.state.pod());
        }
        for command in step(&mut self.state, event, Timestamp::now()) {
            if command == Command::Remove {
                self.report();
            }
            self.carry_out(command);
        }
        if self.state.is_finished() {
            self.permit = None;
        }
        if self.state.ending().is_some() {
            self.ending.cancel();
        }
    }

    fn carry_out(&self, command: Command) {
        let Some(sender) = self.sender.upgrade() else { return };
        let (node, uid, ending) = (Arc::clone(&self.node), self.uid.clone(), self.ending.clone());
        let pod = Arc::new(self.state.pod().clone());
        match command {
            Command::PrepareVolumes => self.node.spawn(async move {
                // Neither is given up for the other: it would go on behind the next try.
                let volumes = prepare_volumes(&node, &pod, &ending, &sender);
                let made = tokio::join!(volumes, prepare_network(&node, &pod));
                let event = match made {
                    (Ok(()), Ok(())) => Event::VolumesReady,
                    (Ok(()), Err(message)) => Event::NetworkFailed(message),
                    (Err(message), _) => Event::VolumesFailed(message),
                };
                // Fails only when the pod's task has ended.
                let _ = sender.send(event).await;
            }),
            Command::RefreshVolumes => self.node.spawn(async move {
                if let Err(message) = refresh_volumes(&node, &pod).await {
                    tracing::warn!(pod = pod.name_any(), message, "volumes could not be refreshed");
                }
            }),
            Command::Start { name, attempt } => {
                self.node.spawn(Attempt { node, pod, name, number: attempt, events: sender, ending }.run());
            }
            Command::Stop { name, attempt, grace_seconds } => {
                let attempt = Attempt { node, pod, name, number: attempt, events: sender, ending };
                self.node.spawn_droppable(async move { hooks::stop(&attempt, grace_seconds).await });
            }
            Command::TearDown => self.node.spawn(async move {
                release_network(&node, &uid);
                let torn_down = spawn_blocking(move || volumes::tear_down(&node, &uid)).await;
                if let Ok(Err(error)) = torn_down {
                    tracing::warn!(pod = pod.name_any(), %error, "volumes could not be removed");
                }
                // Fails only when the pod's task has ended.
                let _ = sender.send(Event::TornDown).await;
            }),
            Command::Remove => self.statuses.send_modify(|latest| latest.removable = true),
            Command::Announce { severity, reason, message } => self.node.spawn_droppable(async move {
                report::tell(&node.client, &pod, severity, reason, &message).await;
            }),
        }
    }

    fn start_probe(&self, name: &str, attempt: u32) {
        let container = self.state.container(name).cloned();
        let record = self.state.record(name);
        let (started, ready) = record.map_or((false, false), |record| (record.started_up, record.ready));
        if let (Some(container), Some(attempt)) = (container, self.attempt(name.to_owned(), attempt)) {
            self.node.spawn_droppable(async move {
                tokio::join!(hooks::started(&attempt), probe::watch(&attempt, container, started, ready));
            });
        }
    }

    fn watch_usage(&mut self) {
        if !std::mem::replace(&mut self.is_measured, true) {
            let pod = Arc::new(self.state.pod().clone());
            self.node.spawn_droppable(usage::watch(Arc::clone(&self.node), pod, self.sender.clone()));
        }
    }

    /// Hands the current status on if it says anything new.
    fn report(&mut self) {
        if self.state.is_unsettled() || self.state.ending() == Some(Ending::Gone) {
            return;
        }
        let now = status::status(&mut self.state, &self.facts, Timestamp::now());
        self.state.reported();
        self.statuses.send_if_modified(|latest| {
            let changed = latest.status.as_ref() != Some(&now);
            latest.status = Some(now);
            changed
        });
    }

    fn is_over(&self) -> bool {
        let released = self.state.is_finished() && self.state.is_torn_down();
        match self.state.ending() {
            Some(Ending::Gone) => released,
            // Waits for the API server to say that it is gone.
            Some(Ending::Deleted) => false,
            // An older version of the pod may still be on its way here; only one that shows the end proves that
            // none will come that would start it again.
            _ => released && is_terminal(self.state.pod()),
        }
    }
}

async fn prepare_volumes(
    node: &Arc<Node>,
    pod: &Arc<Pod>,
    ending: &CancellationToken,
    events: &mpsc::Sender<Event>,
) -> Result<(), String> {
    let found = read_objects(node, pod).await?;
    for claim in found.claims.values() {
        // A failure is tried again with the volumes, as any other of theirs.
        report::bind_claim(&node.client, claim).await.map_err(|error| error.to_string())?;
    }
    let images = ending.run_until_cancelled(volumes::images(node, pod, &found, events)).await;
    let images = images.ok_or("the pod is being ended")?.map_err(|error| error.to_string())?;
    let (node, pod) = (Arc::clone(node), Arc::clone(pod));
    let prepared = spawn_blocking(move || volumes::prepare(&node, &pod, &found, &images)).await;
    prepared.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// Gives the pod its network, if it has one of its own.
async fn prepare_network(node: &Arc<Node>, pod: &Pod) -> Result<(), String> {
    let Some(network) = node.network_of(pod).map(Arc::clone) else { return Ok(()) };
    let uid = pod.uid().unwrap_or_default();
    if network.address(&uid).is_none() {
        warn_of_host_ports(node, pod).await;
    }
    let made = spawn_blocking(move || network.prepare(&uid)).await;
    made.map_err(|error| error.to_string())?.map(drop).map_err(|error| chain(&error))
}

/// Nobody forwards a port of the machine to a pod; a pod that wants one has to be told.
async fn warn_of_host_ports(node: &Node, pod: &Pod) {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let asked: Vec<_> = ports.filter_map(|port| port.host_port).map(|port| port.to_string()).collect();
    if !asked.is_empty() {
        let message = format!(
            "hostPort {} is not opened on this machine: the pod is reached at its own address; set hostNetwork: true to \
             serve on the machine's",
            asked.join(", ")
        );
        report::warn(&node.client, pod, "HostPortNotSupported", &message).await;
    }
}

/// Takes a pod's network away, if it has one of its own, behind the pod's back: the kernel takes its time. As many wait for
/// that as there are addresses.
fn release_network(node: &Arc<Node>, uid: &str) {
    let Some(network) =
        node.config.network.own().filter(|network| network.address(uid).is_some()).map(Arc::clone)
    else {
        return;
    };
    let uid = uid.to_owned();
    node.spawn(async move {
        if let Ok(Err(error)) = spawn_blocking(move || network.release(&uid)).await {
            tracing::warn!(error = chain(&error), "the network of a pod could not be removed");
        }
    });
}

async fn refresh_volumes(node: &Arc<Node>, pod: &Arc<Pod>) -> Result<(), String> {
    let found = read_objects(node, pod).await?;
    let (node, pod) = (Arc::clone(node), Arc::clone(pod));
    let refreshed = spawn_blocking(move || volumes::refresh(&node, &pod, &found)).await;
    refreshed.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// Reads what the pod's volumes refer to, for as long as the API server takes to answer; fails when the node is
/// stopped before it does.
async fn read_objects(node: &Node, pod: &Pod) -> Result<ropewalk_kubelet::Objects, String> {
    let references = objects::volume_references(pod);
    let namespace = pod.namespace().unwrap_or_default();
    let read_all = || async {
        let mut found = reader::read(&node.client, &namespace, &references).await?;
        found.tokens = reader::tokens(&node.client, pod, objects::tokens(pod)).await?;
        Ok::<_, kube::Error>(found)
    };
    let read = async {
        loop {
            match read_all().await {
                Ok(found) => return found,
                Err(error) => {
                    tracing::warn!(pod = pod.name_any(), %error, "reading a pod's objects failed, trying again");
                    tokio::time::sleep(API_PAUSE).await;
                }
            }
        }
    };
    node.stopping.run_until_cancelled(read).await.ok_or_else(|| "the node is stopping".to_owned())
}

//! Starts, stops and adopts the shims of a pod's containers.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use nix::sys::signal::Signal;
use ropewalk_images::Image;
use ropewalk_kubelet::account::AccountError;
use ropewalk_kubelet::image::{ImageError, PullPolicy};
use ropewalk_kubelet::machine::{Event, Exit, ExitReason, Found};
use ropewalk_kubelet::oci::{Base, Layout, Limits};
use ropewalk_kubelet::{ConfigError, ENTRYPOINT_IMAGE, env, objects, oci, status, termination_message_limit};
use ropewalk_kubelet::{user, volume};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::files::{self, Ended, Failure, Process, ShimConfig, Started};
use super::watch::Watch;
use super::{Node, descriptor, devices, images, instance, logs, objects as reader, volumes};

/// The hidden subcommand of the executable that is the shim.
pub(super) const SHIM_COMMAND: &str = "__shim";

/// Bytes and lines of log that stand in for a termination message with `FallbackToLogsOnError`.
const FALLBACK_BYTES: usize = 2048;
const FALLBACK_LINES: u64 = 80;

/// The users where no image has some.
const BARE_PASSWD: &str = "root:x:0:0:root:/root:";

/// One attempt of a container of a pod.
#[derive(Clone)]
pub(super) struct Attempt {
    pub(super) node: Arc<Node>,
    pub(super) pod: Arc<Pod>,
    pub(super) name: String,
    pub(super) number: u32,
    pub(super) events: mpsc::Sender<Event>,
    /// Cancelled when the pod is brought to an end, or the node: nobody waits for an image then.
    pub(super) ending: CancellationToken,
}

/// Why a container was not started.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error("reading the objects the container refers to failed: {0}")]
    Api(#[from] kube::Error),
    #[error("cannot {what}: {source}")]
    Io { what: &'static str, source: io::Error },
    #[error("a supervisor that an earlier process started runs it")]
    Begun,
}

impl StartError {
    /// The waiting reason; `None` when the container is to count as ended.
    fn waiting_reason(&self) -> Option<&'static str> {
        match self {
            Self::Config(ConfigError::NoCommand { .. }) => Some("CreateContainerError"),
            Self::Config(_) | Self::Api(_) => Some("CreateContainerConfigError"),
            Self::Image(_) | Self::Account(_) | Self::Io { .. } | Self::Begun => None,
        }
    }
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::Io { what, source }
}

impl Attempt {
    fn uid(&self) -> String {
        self.pod.uid().unwrap_or_default()
    }

    pub(super) fn directory(&self) -> PathBuf {
        self.node.attempt_dir(&self.uid(), &self.name, self.number)
    }

    async fn send(&self, event: Event) {
        // Fails only when the pod's task has ended, and then nobody is interested.
        let _ = self.events.send(event).await;
    }

    async fn exited(&self, exit: Exit) {
        self.send(Event::Exited { name: self.name.clone(), attempt: self.number, exit }).await;
    }

    /// Starts the container and reports until it has ended.
    pub(super) async fn run(self) {
        match Box::pin(self.start()).await {
            // Not started because the node is stopping: nobody is to be told anything.
            Ok(None) => {}
            Ok(Some((mut child, watch))) => {
                let wait = async {
                    if let Err(error) = child.wait().await {
                        tracing::warn!(container = self.name, %error, "waiting for a shim failed");
                    }
                };
                self.follow(wait, Some(watch)).await;
            }
            Err(StartError::Begun) => self.adopt().await,
            Err(StartError::Image(error)) => {
                self.send(Event::NoImage { name: self.name.clone(), error }).await;
            }
            Err(error) => match error.waiting_reason() {
                Some(reason) => {
                    let message = error.to_string();
                    self.send(Event::Blocked { name: self.name.clone(), reason, message }).await;
                }
                None => self.exited(never_ran(ExitReason::ContainerCannotRun, error.to_string())).await,
            },
        }
    }

    /// Follows a container an earlier process started, from wherever it stands now.
    pub(super) async fn adopt(self) {
        let directory = self.directory();
        let started: Option<Started> = files::read_json(&directory.join(files::STARTED)).unwrap_or_default();
        let shim = started.map(|started| started.shim).or_else(|| instance::find_shim(&directory));
        let watch = self.node.watches.watch(&directory).ok();
        let gone = async {
            match shim.filter(|shim| shim.is_alive()).and_then(open_pidfd) {
                Some(pidfd) => {
                    let wait = async {
                        // A pidfd becomes readable when its process has ended.
                        let _ = pidfd.readable().await;
                    };
                    self.until_gone(wait, watch).await;
                }
                None => self.until_gone(std::future::ready(()), None).await,
            }
        };
        if self.node.stopping.run_until_cancelled(gone).await.is_none() {
            return;
        }
        if self.may_begin() {
            Box::pin(self.run()).await;
        } else {
            self.ended().await;
        }
    }

    /// Whether the attempt's supervisor was killed, perhaps together with the process before this one, before it had
    /// let the container's command go, and nobody asked it to stop.
    fn may_begin(&self) -> bool {
        let directory = self.directory();
        let over = [files::EXIT, files::STOP].iter().any(|file| directory.join(file).exists());
        !over && !self.ending.is_cancelled() && !files::is_begun(&directory)
    }

    /// What this attempt, the newest of its container, left on the machine.
    fn find(&self) -> io::Result<Option<Found>> {
        let directory = self.directory();
        let Some(config) = files::read_json::<ShimConfig>(&directory.join(files::SHIM))? else {
            return Ok(None);
        };
        let started: Option<Started> = files::read_json(&directory.join(files::STARTED))?;
        let exit = self.noted_exit()?;
        let supervised = exit.is_none()
            && (started.as_ref().is_some_and(|started| started.shim.is_alive())
                || instance::find_shim(&directory).is_some());
        // Asked last: what a supervisor that is gone by now has begun, it began before.
        let begun = files::is_begun(&directory);
        let last = self.number.checked_sub(1).map(|number| Self { number, ..self.clone() }.noted_exit());
        Ok(Some(Found {
            name: self.name.clone(),
            attempt: self.number,
            image: config.image,
            image_id: config.image_id,
            begun,
            started_at: started.map(|started| started.at),
            supervised,
            stopping: directory.join(files::STOP).exists(),
            exit: if supervised || exit.is_some() { exit } else { self.noted_exit()? },
            last: last.transpose()?.flatten(),
        }))
    }

    /// Reports the start when the shim says so, and the end when the shim is gone; until the node is stopped.
    async fn follow(&self, gone: impl Future<Output = ()>, watch: Option<Watch>) {
        if self.node.stopping.run_until_cancelled(self.until_gone(gone, watch)).await.is_some() {
            self.ended().await;
        }
    }

    async fn until_gone(&self, gone: impl Future<Output = ()>, watch: Option<Watch>) {
        let directory = self.directory();
        let mut gone = std::pin::pin!(gone);
        let Some(watch) = watch else { return gone.await };
        let mut reported = false;
        loop {
            if !reported
                && let Ok(Some(started)) = files::read_json::<Started>(&directory.join(files::STARTED))
            {
                let name = self.name.clone();
                self.send(Event::Started { name, attempt: self.number, at: started.at }).await;
                reported = true;
            }
            // The shim itself takes some more milliseconds to go: the kernel takes its mounts apart.
            if directory.join(files::EXIT).exists() {
                return;
            }
            tokio::select! {
                () = watch.changed() => {}
                () = &mut gone => return,
            }
        }
    }

    /// Reports the end of a container whose supervisor is gone.
    pub(super) async fn ended(&self) {
        let attempt = self.clone();
        let exit = tokio::task::spawn_blocking(move || attempt.read_exit()).await;
        let exit = exit.unwrap_or_else(|error| never_ran(ExitReason::Unknown, error.to_string()));
        self.exited(exit).await;
    }

    fn read_exit(&self) -> Exit {
        let directory = self.directory();
        // A file that cannot be read is as good as none.
        if let Ok(Some(exit)) = self.noted_exit() {
            return exit;
        }
        self.end_orphans();
        let said = fs::read_to_string(directory.join(files::SHIM_LOG)).unwrap_or_default();
        let message = format!("the container's supervisor ended without a word {}", said.trim());
        let ended = files::lost(message.trim());
        // For those who follow the log, and for a later process: this attempt is over.
        if let Err(error) = files::write_json(&directory.join(files::EXIT), &ended) {
            tracing::warn!(container = self.name, %error, "the end of a container cannot be noted");
        }
        self.exit_of(&directory, ended)
    }

    /// How the container ended, if somebody saw it.
    fn noted_exit(&self) -> io::Result<Option<Exit>> {
        let directory = self.directory();
        let ended: Option<Ended> = files::read_json(&directory.join(files::EXIT))?;
        Ok(ended.map(|ended| self.exit_of(&directory, ended)))
    }

    /// Ends what a shim that was killed would have ended.
    fn end_orphans(&self) {
        instance::kill_below(&self.directory());
        for parent in &self.node.known_cgroups {
            super::cgroup::remove_tree(&parent.join(self.id()));
        }
        files::remove_scratch(&self.directory());
    }

    fn exit_of(&self, directory: &Path, ended: Ended) -> Exit {
        let (reason, message) = match ended.failure {
            Some(Failure::Start(message)) => (ExitReason::StartError, message),
            Some(Failure::Create(message)) => (ExitReason::ContainerCannotRun, message),
            Some(Failure::Lost(message)) => (ExitReason::Unknown, message),
            None => {
                let reason = match ended.code {
                    _ if ended.oom => ExitReason::OomKilled,
                    0 => ExitReason::Completed,
                    _ => ExitReason::Error,
                };
                (reason, self.termination_message(directory, ended.code))
            }
        };
        Exit {
            code: ended.code,
            reason,
            started_at: ended.started_at,
            finished_at: ended.finished_at,
            message,
        }
    }

    fn termination_message(&self, directory: &Path, code: i32) -> String {
        let spec = self.pod.spec.clone().unwrap_or_default();
        let containers = spec.containers.len() + spec.init_containers.as_ref().map_or(0, Vec::len);
        let mut bytes = Vec::new();
        if let Ok(file) = File::open(directory.join(files::TERMINATION)) {
            // The file is the container's to fill, with holes of any size; no more is read than is kept. What cannot be
            // read is no message.
            let _ = file.take(termination_message_limit(containers) as u64).read_to_end(&mut bytes);
        }
        let message = String::from_utf8_lossy(&bytes).into_owned();
        let policy = self.spec().and_then(|container| container.termination_message_policy.clone());
        if message.is_empty() && code != 0 && policy.as_deref() == Some("FallbackToLogsOnError") {
            return logs::tail(&directory.join(files::LOG), FALLBACK_LINES, FALLBACK_BYTES);
        }
        message
    }

    /// Whether the container was started and has not ended.
    pub(super) fn is_running(&self) -> bool {
        !self.directory().join(files::EXIT).exists() && self.directory().join(files::STARTED).exists()
    }

    /// Returns once a container that was started has ended.
    pub(super) async fn over(&self) {
        // Its directory cannot be watched when it is gone.
        let Ok(watch) = self.node.watches.watch(&self.directory()) else { return };
        while self.is_running() {
            watch.changed().await;
        }
    }

    pub(super) async fn send_readiness(&self, ready: bool) {
        self.send(Event::Readiness { name: self.name.clone(), attempt: self.number, ready }).await;
    }

    pub(super) async fn send_started_up(&self) {
        self.send(Event::StartedUp { name: self.name.clone(), attempt: self.number }).await;
    }

    pub(super) fn spec(&self) -> Option<&k8s_openapi::api::core::v1::Container> {
        let spec = self.pod.spec.as_ref()?;
        let mut all = spec.init_containers.iter().flatten().chain(&spec.containers);
        all.find(|container| container.name == self.name)
    }

    fn id(&self) -> String {
        status::container_id(&self.uid(), &self.name, self.number)
    }

    async fn start(&self) -> Result<Option<(Child, Watch)>, StartError> {
        let container = self.spec().cloned().ok_or_else(|| StartError::Io {
            what: "find the container in the pod",
            source: io::ErrorKind::NotFound.into(),
        })?;
        let Some(image) = self.node.stopping.run_until_cancelled(self.image(&container)).await else {
            return Ok(None);
        };
        let image = image?;
        let namespace = self.pod.namespace().unwrap_or_default();
        let references = objects::environment_references(&container);
        let read = reader::read(&self.node.client, &namespace, &references);
        let Some(found) = self.node.stopping.run_until_cancelled(read).await else { return Ok(None) };
        let found = found?;
        let attempt = self.clone();
        let written =
            tokio::task::spawn_blocking(move || attempt.write_bundle(&container, image.as_ref(), &found));
        written.await.map_err(|error| io_error("write the bundle")(io::Error::other(error)))??;

        let directory = self.directory();
        let watch =
            self.node.watches.watch(&directory).map_err(io_error("watch the container's directory"))?;
        let complaints =
            File::create(directory.join(files::SHIM_LOG)).map_err(io_error("make the shim's log"))?;
        let child = Command::new(&self.node.config.shim_exe)
            .arg(SHIM_COMMAND)
            .arg(&directory)
            .current_dir("/")
            .env_clear()
            .env("PATH", env::DEFAULT_PATH)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(complaints)
            .kill_on_drop(false)
            .spawn()
            .map_err(io_error("start the shim"))?;
        Ok(Some((child, watch)))
    }

    /// The image to run from; none for the embedded one, or where the machine's own root stands for every image.
    async fn image(
        &self,
        container: &k8s_openapi::api::core::v1::Container,
    ) -> Result<Option<Image>, ImageError> {
        let reference = container.image.clone().unwrap_or_default();
        let images = self.node.images.as_ref().filter(|_| reference != ENTRYPOINT_IMAGE);
        let Some(images) = images else {
            let (name, id) = (self.name.clone(), format!("host-rootfs://{reference}"));
            self.send(Event::HasImage { name, id }).await;
            return Ok(None);
        };
        let policy = PullPolicy::of(container.image_pull_policy.as_deref(), &reference);
        let got =
            self.ending.run_until_cancelled(images.get(&self.pod, &reference, policy, &self.events)).await;
        let given_up = || ImageError::Pull { image: reference, detail: "the pod is being ended".to_owned() };
        let image = got.ok_or_else(given_up)??;
        self.send(Event::HasImage { name: self.name.clone(), id: image.pinned.clone() }).await;
        Ok(Some(image))
    }

    fn write_bundle(
        &self,
        container: &k8s_openapi::api::core::v1::Container,
        image: Option<&Image>,
        found: &ropewalk_kubelet::Objects,
    ) -> Result<(), StartError> {
        let (node, pod) = (&self.node, &self.pod);
        let (facts, network) = (&node.facts_of(pod), node.network_of(pod));
        let resolv_conf = network.map_or(node.resolv_conf.as_str(), |network| network.resolv_conf());
        let config = image.map(images::config);
        let image_user = config.as_ref().map_or("", |config| config.user.as_str());
        let identity = user::identity(pod, container, image_user, facts)?;
        let variables = env::environment(pod, container, found, facts)?;
        let uses = volume::uses(pod, container, &variables)?;
        let directory = self.directory();
        let is_rootless = ropewalk_images::is_in_user_namespace();
        let is_privileged = identity.privileged;
        let layout = Layout {
            rootfs: directory.join(files::ROOTFS),
            termination_log: directory.join(files::TERMINATION),
            network: network.map(|network| network.namespace(&self.uid())),
            volumes: volumes::paths(node, pod).map_err(io_error("find the pod's volumes"))?,
            sub_paths: directory.join(files::SUB_PATHS),
            image_volumes: directory.join(files::SCRATCH).join(files::IMAGE_VOLUMES),
            devices: if identity.privileged && !is_rootless { devices::all() } else { Vec::new() },
            in_user_namespace: is_rootless,
        };
        let mut bundle = oci::bundle(pod, container, config.as_ref(), &variables, &identity, &uses, &layout)?;
        let account = if image.is_some() {
            Some(identity.account)
        } else {
            // The machine's users are not those of the images that its root stands for.
            oci::run_as(&mut bundle.spec, &identity.account.find(BARE_PASSWD, "")?);
            None
        };
        let own: Vec<_> = node.config.private_dirs.iter().chain([&node.config.data_dir]).collect();
        let own: Vec<_> = own.into_iter().filter_map(|path| path.to_str()).collect();
        let embedded = node.entrypoint_image();
        let base = match image {
            Some(image) => Base::Image(&image.lowers),
            None if container.image.as_deref() == Some(ENTRYPOINT_IMAGE) => Base::Embedded(&embedded),
            None => Base::Host(&own),
        };
        let rootfs = oci::rootfs(pod, base, resolv_conf, facts);
        let id = self.id();
        let shim = ShimConfig {
            runtime: node.config.runtime.clone(),
            rootfs,
            read_only: bundle.spec.root().as_ref().is_some_and(|root| root.readonly() == Some(true)),
            scratch_bytes: node.config.scratch_bytes,
            sub_paths: bundle.sub_paths,
            image_volumes: bundle.image_volumes,
            working_dir: bundle.working_dir,
            cgroups: node.cgroups.iter().map(|parent| parent.join(&id)).collect(),
            closes_devices: facts.closes_devices && !is_privileged,
            limits: Limits { pids: Some(node.config.pids), ..bundle.limits },
            log_bytes: node.config.log_bytes,
            grace_seconds: grace(pod),
            image: container.image.clone().unwrap_or_default(),
            image_id: image.map(|image| image.pinned.clone()).unwrap_or_default(),
            account,
            stop_signal: config.map(|config| config.stop_signal).unwrap_or_default(),
            id,
        };

        // An attempt that was prepared but never begun leaves its directory behind, and perhaps a process that
        // waits to be let go.
        if directory.exists() {
            if !files::withdraw(&directory).map_err(io_error("take the attempt back"))? {
                return Err(StartError::Begun);
            }
            self.end_orphans();
            fs::remove_dir_all(&directory).map_err(io_error("clear the container's directory"))?;
        }
        let bundle_error = || io_error("write the bundle");
        let scratch = directory.join(files::SCRATCH);
        fs::create_dir_all(&scratch).map_err(bundle_error())?;
        if let (Some(images), Some(image)) = (&node.images, image) {
            images.hold(image, &scratch)?;
        }
        let termination = directory.join(files::TERMINATION);
        fs::write(&termination, "").map_err(bundle_error())?;
        // Any user the container runs as writes it.
        fs::set_permissions(&termination, fs::Permissions::from_mode(0o666)).map_err(bundle_error())?;
        File::create(directory.join(files::LOG)).map_err(bundle_error())?;
        files::write_json(&directory.join(files::CONFIG), &bundle.spec).map_err(bundle_error())?;
        files::write_json(&directory.join(files::SHIM), &shim).map_err(bundle_error())
    }

    /// Asks the shim to stop the container. Its end is reported by whoever follows it.
    pub(super) fn stop(&self, grace_seconds: u64) {
        let directory = self.directory();
        if let Err(error) = files::write_json(&directory.join(files::STOP), &grace_seconds) {
            tracing::warn!(container = self.name, %error, "the grace period could not be handed to the shim");
        }
        if let Ok(Some(started)) = files::read_json::<Started>(&directory.join(files::STARTED)) {
            started.shim.signal(Signal::SIGTERM);
        }
    }
}

pub(super) fn grace(pod: &Pod) -> u64 {
    let given = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    given.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(30)
}

fn never_ran(reason: ExitReason, message: String) -> Exit {
    Exit { code: 128, reason, started_at: None, finished_at: Timestamp::now(), message }
}

fn open_pidfd(process: Process) -> Option<AsyncFd<rustix::fd::OwnedFd>> {
    let pidfd = pidfd_open(Pid::from_raw(process.pid)?, PidfdFlags::NONBLOCK).ok()?;
    // It may have ended and its id been reused between the check and the opening.
    process.is_alive().then_some(())?;
    descriptor::register(pidfd).ok()
}

/// What containers of a pod left on the machine; of one that cannot be read, nothing.
pub(super) fn find(attempts: impl Iterator<Item = Attempt>) -> Vec<Found> {
    let newest = attempts.filter_map(|attempt| {
        let container = attempt.directory().parent()?.to_owned();
        let entries = fs::read_dir(container).ok()?.flatten();
        let prepared = entries.filter(|entry| entry.path().join(files::SHIM).exists());
        let number = prepared.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).max()?;
        Some(Attempt { number, ..attempt })
    });
    newest
        .filter_map(|attempt| {
            attempt.find().unwrap_or_else(|error| {
                let (pod, container) = (attempt.pod.name_any(), &attempt.name);
                tracing::warn!(pod, container, %error, "what a container left cannot be read");
                None
            })
        })
        .collect()
}

//! The life of one pod: `step(state, event, now) -> commands`. The shell turns what happens on the machine and
//! in the API into [`Event`]s and carries the [`Command`]s out; everything that is chosen is chosen here.
//! No IO, no clock.
//!
//! A container is known by its name and its attempt (0, 1, … as `restartCount`): an event of an earlier attempt
//! that arrives late changes nothing.

mod adopt;
mod announce;
mod images;
mod state;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

pub use self::adopt::{Adoption, Found, adoption};
pub use self::announce::Severity;
pub use self::images::Pull;
pub use self::state::{Ending, Phase, PodState, Record, Role};

use self::announce::{announce, warn};
use self::state::Volumes;
use crate::NOP_IMAGE;
use crate::image::ImageError;

/// Seconds before a container that failed is started again; doubled each time.
const FIRST_BACKOFF: i64 = 10;

/// The longest wait between two starts, in seconds: the kubelet's five minutes.
const LAST_BACKOFF: i64 = 300;

/// Why a container ended, as `state.terminated.reason` spells it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ExitReason {
    /// Exit code 0.
    Completed,
    /// Another exit code or a signal.
    Error,
    /// The kernel killed one of its processes for want of memory.
    OomKilled,
    /// The command could not be executed.
    StartError,
    /// The container could not be made.
    ContainerCannotRun,
    /// Nobody knows: its supervisor was killed as well.
    Unknown,
}

impl ExitReason {
    /// The API's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "Completed",
            Self::Error => "Error",
            Self::OomKilled => "OOMKilled",
            Self::StartError => "StartError",
            Self::ContainerCannotRun => "ContainerCannotRun",
            Self::Unknown => "ContainerStatusUnknown",
        }
    }

    /// The reason with this spelling; [`ExitReason::Unknown`] for any other.
    fn read(spelling: &str) -> Self {
        let known =
            [Self::Completed, Self::Error, Self::OomKilled, Self::StartError, Self::ContainerCannotRun];
        known.into_iter().find(|reason| reason.as_str() == spelling).unwrap_or(Self::Unknown)
    }
}

/// How one attempt of a container ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Exit {
    /// Exit code, 128 + signal for a signal.
    pub code: i32,
    /// Why.
    pub reason: ExitReason,
    /// When its process was started, if it ever was.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Its termination message, or why it could not start.
    pub message: String,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The API server shows this version of the pod.
    PodChanged(Box<Pod>),
    /// The pod is gone from the API server.
    PodGone,
    /// There is room for the pod on the node.
    Admitted,
    /// The pod is not one that this node takes, for this reason and in these words.
    Rejected {
        /// `status.reason`.
        reason: &'static str,
        /// Why.
        message: String,
    },
    /// All volumes exist.
    VolumesReady,
    /// A volume cannot be made yet; the message names it.
    VolumesFailed(String),
    /// The pod's network cannot be made yet, for this reason.
    NetworkFailed(String),
    /// A container cannot be made from what the API server holds.
    Blocked {
        /// Container name.
        name: String,
        /// `state.waiting.reason`.
        reason: &'static str,
        /// `state.waiting.message`.
        message: String,
    },
    /// A container's image cannot be had.
    NoImage {
        /// Container name.
        name: String,
        /// Why not.
        error: ImageError,
    },
    /// An image of the pod is being pulled, or was.
    Pull {
        /// As the pod names it.
        image: String,
        /// How far.
        pull: Pull,
    },
    /// The pod takes more of the node's disk than it may, for this reason.
    Evicted(String),
    /// A container is about to be started from this image.
    HasImage {
        /// Container name.
        name: String,
        /// `imageID` of its status.
        id: String,
    },
    /// A container runs.
    Started {
        /// Container name.
        name: String,
        /// Which attempt.
        attempt: u32,
        /// Since when.
        at: Timestamp,
    },
    /// A container ended or could not be started.
    Exited {
        /// Container name.
        name: String,
        /// Which attempt.
        attempt: u32,
        /// How.
        exit: Exit,
    },
    /// A container's startup probe, if it has one, has succeeded.
    StartedUp {
        /// Container name.
        name: String,
        /// Which attempt.
        attempt: u32,
    },
    /// A readiness probe changed its mind.
    Readiness {
        /// Container name.
        name: String,
        /// Which attempt.
        attempt: u32,
        /// Its verdict.
        ready: bool,
    },
    /// A ConfigMap, Secret or claim the pod refers to appeared or changed.
    ObjectsChanged,
    /// The time [`PodState::next_wake`] named has come.
    Tick,
    /// Volumes are unmounted and gone.
    TornDown,
}

/// What to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Command {
    /// Make all volumes and the pod's network, then say [`Event::VolumesReady`], or [`Event::VolumesFailed`] or
    /// [`Event::NetworkFailed`].
    PrepareVolumes,
    /// Write the files that follow the pod's metadata again.
    RefreshVolumes,
    /// Start an attempt of a container.
    Start {
        /// Container name.
        name: String,
        /// Which attempt.
        attempt: u32,
    },
    /// Ask a container to end, and kill it when `grace_seconds` have passed.
    Stop {
        /// Container name.
        name: String,
        /// Which attempt.
        attempt: u32,
        /// Time it gets, 0 kills at once.
        grace_seconds: u64,
    },
    /// Unmount and delete the volumes, keep the logs; then say [`Event::TornDown`].
    TearDown,
    /// Remove the pod from the API server: all its containers are gone.
    Remove,
    /// Tell the user by an Event object.
    Announce {
        /// Event type.
        severity: Severity,
        /// Event reason.
        reason: &'static str,
        /// Event message.
        message: String,
    },
}

/// Takes in one event and says what to do about it.
pub fn step(state: &mut PodState, event: Event, now: Timestamp) -> Vec<Command> {
    let mut commands = Vec::new();
    match event {
        Event::PodChanged(pod) => {
            let metadata = |pod: &Pod| (pod.metadata.labels.clone(), pod.metadata.annotations.clone());
            state.stale |= metadata(&pod) != metadata(&state.pod);
            refresh(state, &mut commands);
            if pod.metadata.deletion_timestamp.is_some() && state.ending != Some(Ending::Gone) {
                if state.ending != Some(Ending::Deleted) {
                    state.urgent = true;
                }
                state.ending = Some(Ending::Deleted);
            }
            state.pod = *pod;
        }
        Event::PodGone => state.ending = Some(Ending::Gone),
        Event::Admitted => {
            state.start_time.get_or_insert(now);
        }
        Event::VolumesReady if state.volumes == Volumes::Preparing => {
            state.volumes = Volumes::Ready;
            refresh(state, &mut commands);
        }
        Event::VolumesFailed(message) if state.volumes == Volumes::Preparing => {
            unprepared(state, "FailedMount", message, now, &mut commands);
        }
        Event::NetworkFailed(message) if state.volumes == Volumes::Preparing => {
            unprepared(state, "FailedCreatePodSandBox", message, now, &mut commands);
        }
        Event::Blocked { name, reason, message } => {
            warn(state, "Failed", format!("Error: {message}"), now, &mut commands);
            if let Some(record) = state.records.iter_mut().find(|record| record.name == name) {
                record.phase = Phase::Waiting(Some((reason, message)));
                state.urgent = true;
                try_again_later(state, now);
            }
        }
        Event::NoImage { name, error } => images::missing(state, &name, &error, now, &mut commands),
        Event::Pull { image, pull } => {
            let (reason, message) = pull.words(&image);
            announce(state, Severity::Normal, reason, message, now, &mut commands);
        }
        Event::Evicted(message) => {
            if state.ending.is_none() && !state.is_finished() {
                warn(state, "Evicted", message.clone(), now, &mut commands);
                state.ending = Some(Ending::Evicted);
                state.verdict = Some(("Evicted", message));
                state.urgent = true;
            }
        }
        Event::Rejected { reason, message } => {
            // What was taken on once goes on.
            if state.ending.is_none() && !state.is_admitted() {
                warn(state, reason, message.clone(), now, &mut commands);
                state.ending = Some(Ending::Rejected);
                state.verdict = Some((reason, format!("Pod was rejected: {message}")));
                state.urgent = true;
            }
        }
        Event::HasImage { name, id } => {
            if let Some(record) = state.records.iter_mut().find(|record| record.name == name) {
                record.image_id = id;
                record.pull_failures = 0;
            }
        }
        Event::Started { name, attempt, at } => {
            if let Some(record) =
                state.record_mut(&name, attempt).filter(|record| record.phase == Phase::Starting)
            {
                record.phase = Phase::Running(at);
            }
        }
        Event::Exited { name, attempt, exit } => exited(state, &name, attempt, exit, now),
        Event::StartedUp { name, attempt } => {
            let probed = state.container(&name).is_some_and(|container| container.readiness_probe.is_some());
            if let Some(record) = state.record_mut(&name, attempt).filter(|record| !record.started_up) {
                record.started_up = true;
                record.ready = !probed;
                state.urgent = true;
            }
        }
        Event::Readiness { name, attempt, ready } => {
            if let Some(record) = state.record_mut(&name, attempt).filter(|record| record.ready != ready) {
                record.ready = ready;
                state.urgent = true;
            }
        }
        Event::ObjectsChanged => try_again(state),
        Event::Tick if state.again_at.is_some_and(|again_at| again_at <= now) => try_again(state),
        Event::TornDown => {
            state.volumes = Volumes::Gone;
            if state.ending == Some(Ending::Deleted) {
                commands.push(Command::Remove);
            }
        }
        Event::Tick | Event::VolumesReady | Event::VolumesFailed(_) | Event::NetworkFailed(_) => {}
    }
    images::wait(state, now, &mut commands);
    if state.ending.is_none()
        && !state.is_finished()
        && state.deadline().is_some_and(|deadline| deadline <= now)
    {
        state.ending = Some(Ending::Deadline);
        state.urgent = true;
    }
    advance(state, now, &mut commands);
    commands
}

/// The files that follow the pod's metadata are written again if that may have changed since.
fn refresh(state: &mut PodState, commands: &mut Vec<Command>) {
    if state.volumes == Volumes::Ready && std::mem::take(&mut state.stale) {
        commands.push(Command::RefreshVolumes);
    }
}

/// Most of what is missing announces itself when it appears; a full disk or an API server that fails does not.
fn try_again_later(state: &mut PodState, now: Timestamp) {
    let delay = backoff(state.tries);
    state.tries += 1;
    state.again_at = now.checked_add(delay).ok();
}

fn try_again(state: &mut PodState) {
    state.again_at = None;
    if matches!(state.volumes, Volumes::Failed { .. }) {
        state.volumes = Volumes::None;
    }
    for record in &mut state.records {
        if matches!(record.phase, Phase::Waiting(Some(_))) && record.pull_at.is_none() {
            record.phase = Phase::Waiting(None);
        }
    }
}

/// What containers need before they start could not be made, and is tried again.
fn unprepared(
    state: &mut PodState,
    reason: &'static str,
    message: String,
    now: Timestamp,
    commands: &mut Vec<Command>,
) {
    warn(state, reason, message.clone(), now, commands);
    state.volumes = Volumes::Failed { reason, message };
    state.urgent = true;
    try_again_later(state, now);
}

fn backoff(times: u32) -> SignedDuration {
    // Shifted at most so far that the longest wait is reached.
    SignedDuration::from_secs((FIRST_BACKOFF << times.min(8)).min(LAST_BACKOFF))
}

fn exited(state: &mut PodState, name: &str, attempt: u32, exit: Exit, now: Timestamp) {
    let live = |record: &Record| record.name == name && record.attempt == attempt && record.is_live();
    let Some(at) = state.records.iter().position(live) else { return };
    if exit.reason == ExitReason::Unknown && !state.restarts(&state.records[at], &exit) {
        state.ending.get_or_insert(Ending::Lost);
    }
    let record = &mut state.records[at];
    // As a kubelet: what fails for the first time is started again at once.
    let pause = record.attempt.checked_sub(1).map_or(SignedDuration::ZERO, backoff);
    record.retry_at = now.checked_add(pause).ok();
    // A finished init container is followed by the next start at once; its end alone is no news.
    let news = record.role != Role::Init || exit.code != 0;
    record.ready = false;
    record.phase = Phase::Exited(exit);
    state.urgent |= news;
}

fn advance(state: &mut PodState, now: Timestamp, commands: &mut Vec<Command>) {
    if state.ending.is_some() {
        // As a kubelet: what is evicted for what it wrote writes no more.
        let at_once = matches!(state.ending, Some(Ending::Gone | Ending::Evicted));
        let grace = if at_once { 0 } else { state.grace_seconds() };
        stop(state, grace, commands, |_| true);
    } else if state.is_admitted() {
        match state.volumes {
            Volumes::None => {
                state.volumes = Volumes::Preparing;
                state.stale = false;
                commands.push(Command::PrepareVolumes);
            }
            Volumes::Ready => run(state, now, commands),
            _ => {}
        }
    }
    if state.is_finished() {
        match state.volumes {
            // Never taken on, so there is nothing to release.
            Volumes::None if !state.is_admitted() => {
                state.volumes = Volumes::Gone;
                if state.ending == Some(Ending::Deleted) {
                    commands.push(Command::Remove);
                }
            }
            Volumes::None | Volumes::Failed { .. } | Volumes::Ready => {
                state.volumes = Volumes::TearingDown;
                commands.push(Command::TearDown);
            }
            Volumes::Gone if state.ending == Some(Ending::Deleted) && commands.is_empty() => {
                commands.push(Command::Remove);
            }
            // While volumes are being made they cannot be taken down: that their making ended is an event too.
            _ => {}
        }
    }
}

/// Starts what is due: init containers one after the other, then all regular ones together.
fn run(state: &mut PodState, now: Timestamp, commands: &mut Vec<Command>) {
    replace_changed_images(state, now, commands);
    if state.init_failed() || state.regular_done() {
        let grace = state.grace_seconds();
        stop(state, grace, commands, |_| true);
        return;
    }
    for at in 0..state.records.len() {
        let record = &state.records[at];
        let role = record.role;
        let due = match &record.phase {
            Phase::Waiting(None) => true,
            Phase::Exited(exit) => {
                state.restarts(record, exit) && record.retry_at.is_none_or(|retry_at| retry_at <= now)
            }
            _ => false,
        };
        if due {
            start(state, at, now, commands);
        }
        let record = &state.records[at];
        let open = match role {
            Role::Init => record.exit().is_some_and(|exit| exit.code == 0),
            Role::Sidecar => {
                matches!(record.phase, Phase::Running(_)) && record.started_up || record.attempt > 0
            }
            Role::Regular => true,
        };
        if !open {
            return;
        }
    }
}

fn start(state: &mut PodState, at: usize, now: Timestamp, commands: &mut Vec<Command>) {
    let container = state.container(&state.records[at].name);
    let image = container.and_then(|container| container.image.clone());
    let started_up = container.is_none_or(|container| container.startup_probe.is_none());
    let ready = started_up && container.is_none_or(|container| container.readiness_probe.is_none());
    let record = &mut state.records[at];
    (record.started_up, record.ready) = (started_up, ready);
    if let Phase::Exited(exit) = &record.phase {
        record.last = Some(exit.clone());
        record.attempt += 1;
    }
    record.image = image.unwrap_or_default();
    record.stopping = false;
    record.retry_at = None;
    if record.image == NOP_IMAGE {
        record.phase = Phase::Exited(Exit {
            code: 0,
            reason: ExitReason::Completed,
            started_at: Some(now),
            finished_at: now,
            message: String::new(),
        });
        state.urgent = true;
        return;
    }
    record.phase = Phase::Starting;
    commands.push(Command::Start { name: record.name.clone(), attempt: record.attempt });
}

/// A running container whose image was changed is killed and started again from the new one, whatever the
/// restart policy says.
fn replace_changed_images(state: &mut PodState, now: Timestamp, commands: &mut Vec<Command>) {
    let grace_seconds = state.grace_seconds();
    for at in 0..state.records.len() {
        let record = &state.records[at];
        let image = state.container(&record.name).and_then(|container| container.image.as_deref());
        if record.role == Role::Init || image == Some(record.image.as_str()) {
            continue;
        }
        match record.phase {
            Phase::Running(_) if !record.stopping => {
                commands.push(Command::Stop {
                    name: record.name.clone(),
                    attempt: record.attempt,
                    grace_seconds,
                });
                state.records[at].stopping = true;
            }
            Phase::Exited(_) if record.stopping => start(state, at, now, commands),
            _ => {}
        }
    }
}

fn stop(state: &mut PodState, grace: u64, commands: &mut Vec<Command>, which: impl Fn(&Record) -> bool) {
    for record in &mut state.records {
        // One that is still starting is stopped once it runs: its supervisor cannot take the request earlier.
        if matches!(record.phase, Phase::Running(_)) && !record.stopping && which(record) {
            record.stopping = true;
            commands.push(Command::Stop {
                name: record.name.clone(),
                attempt: record.attempt,
                grace_seconds: grace,
            });
        }
    }
}

#[cfg(test)]
mod tests;

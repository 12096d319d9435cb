//! The life of one pod: `step(state, event, now) -> commands`. The shell turns what happens on the machine and
//! in the API into [`Event`]s and carries the [`Command`]s out; everything that is chosen is chosen here.
//! No IO, no clock.
//!
//! A container is known by its name and its attempt (0, 1, … as `restartCount`): an event of an earlier attempt
//! that arrives late changes nothing.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, PodCondition};

use crate::NOP_IMAGE;

/// Seconds a pod gets to stop when it names none, as the API server defaults it.
const DEFAULT_GRACE: i64 = 30;

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
    /// All volumes exist.
    VolumesReady,
    /// A volume cannot be made yet; the message names it.
    VolumesFailed(String),
    /// A container cannot be made from what the API server holds.
    Blocked {
        /// Container name.
        name: String,
        /// `state.waiting.reason`.
        reason: &'static str,
        /// `state.waiting.message`.
        message: String,
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
    /// Make all volumes, then say [`Event::VolumesReady`] or [`Event::VolumesFailed`].
    PrepareVolumes,
    /// Write the files that follow the pod's metadata again.
    RefreshVolumes,
    /// Note in the API server that the pod is this node's: from then on its deletion waits for its containers.
    Bind,
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
        /// Event reason.
        reason: &'static str,
        /// Event message.
        message: String,
    },
}

/// What part a container plays.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Runs to its end before anything after it starts.
    Init,
    /// An init container that keeps running beside the regular ones.
    Sidecar,
    /// A regular container.
    Regular,
}

/// Where an attempt stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Phase {
    /// Not started; with a reason and a message when something is missing.
    Waiting(Option<(&'static str, String)>),
    /// The shell was told to start it.
    Starting,
    /// Runs since then.
    Running(Timestamp),
    /// Ended.
    Exited(Exit),
}

/// One container and its current attempt.
#[derive(Clone, Debug)]
pub struct Record {
    /// Container name.
    pub name: String,
    /// Its part.
    pub role: Role,
    /// Image of the current attempt.
    pub image: String,
    /// Current attempt.
    pub attempt: u32,
    /// Where it stands.
    pub phase: Phase,
    /// How the attempt before ended.
    pub last: Option<Exit>,
    /// Whether its readiness probe, if any, is content.
    pub ready: bool,
    /// Whether it was told to stop.
    stopping: bool,
    /// Not to be started again before.
    retry_at: Option<Timestamp>,
}

impl Record {
    /// Whether a process may exist for it.
    pub fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Running(_))
    }

    /// How it ended, if it did.
    pub fn exit(&self) -> Option<&Exit> {
        match &self.phase {
            Phase::Exited(exit) => Some(exit),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Volumes {
    None,
    Preparing,
    Failed(String),
    Ready,
    TearingDown,
    Gone,
}

/// Why the pod is brought to an end before its containers end by themselves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// Its deletion was asked for.
    Deleted,
    /// It is no longer in the API server.
    Gone,
    /// `activeDeadlineSeconds` have passed.
    Deadline,
}

/// One pod on this node.
#[derive(Clone, Debug)]
pub struct PodState {
    pub(crate) pod: Pod,
    pub(crate) records: Vec<Record>,
    pub(crate) start_time: Option<Timestamp>,
    pub(crate) ending: Option<Ending>,
    pub(crate) conditions: Vec<PodCondition>,
    volumes: Volumes,
    urgent: bool,
    /// When to try again what failed, and how often that was.
    again_at: Option<Timestamp>,
    tries: u32,
    /// What was announced already; a retry that fails in the same way is no news.
    announced: BTreeSet<String>,
}

impl PodState {
    /// The state of a pod nothing was done for yet.
    pub fn new(pod: Pod) -> Self {
        let spec = pod.spec.clone().unwrap_or_default();
        let record = |container: &Container, role| Record {
            name: container.name.clone(),
            role,
            image: container.image.clone().unwrap_or_default(),
            attempt: 0,
            phase: Phase::Waiting(None),
            last: None,
            ready: container.readiness_probe.is_none(),
            stopping: false,
            retry_at: None,
        };
        let init = spec.init_containers.iter().flatten().map(|container| {
            let role = match container.restart_policy.as_deref() {
                Some("Always") => Role::Sidecar,
                _ => Role::Init,
            };
            record(container, role)
        });
        let regular = spec.containers.iter().map(|container| record(container, Role::Regular));
        let records = init.chain(regular).collect();
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        Self {
            pod,
            records,
            start_time: None,
            ending: None,
            conditions,
            volumes: Volumes::None,
            urgent: false,
            again_at: None,
            tries: 0,
            announced: BTreeSet::new(),
        }
    }

    /// Takes over an attempt an earlier process of this node prepared. If its command was `begun` its events
    /// follow; if not, it will be started as if it were new, so that no command runs twice and none is lost.
    pub fn adopt(&mut self, name: &str, attempt: u32, begun: bool) {
        if let Some(record) = self.records.iter_mut().find(|record| record.name == name) {
            record.attempt = attempt;
            record.phase = if begun { Phase::Starting } else { Phase::Waiting(None) };
        }
    }

    /// The pod as last seen in the API server.
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// The containers, init containers first.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// A container's record.
    pub fn record(&self, name: &str) -> Option<&Record> {
        self.records.iter().find(|record| record.name == name)
    }

    /// A container's spec in the pod as last seen.
    pub fn container(&self, name: &str) -> Option<&Container> {
        let spec = self.pod.spec.as_ref()?;
        spec.init_containers.iter().flatten().chain(&spec.containers).find(|container| container.name == name)
    }

    /// Why volumes cannot be made, if they cannot.
    pub fn volume_failure(&self) -> Option<&str> {
        match &self.volumes {
            Volumes::Failed(message) => Some(message),
            _ => None,
        }
    }

    /// Why the pod is being ended, if it is.
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Whether the node has taken the pod on.
    pub fn is_admitted(&self) -> bool {
        self.start_time.is_some()
    }

    /// Whether volumes have been made.
    pub fn has_volumes(&self) -> bool {
        matches!(self.volumes, Volumes::Ready | Volumes::TearingDown | Volumes::Gone)
    }

    /// Whether no container runs and none will.
    pub fn is_finished(&self) -> bool {
        if self.records.iter().any(Record::is_live) {
            return false;
        }
        self.ending.is_some() || self.init_failed() || self.regular_done()
    }

    /// Whether everything the pod held on this machine except its logs is released.
    pub fn is_torn_down(&self) -> bool {
        self.volumes == Volumes::Gone
    }

    /// Whether containers wait for something that may appear in the API server.
    pub fn waits_for_objects(&self) -> bool {
        let blocked = |record: &Record| matches!(record.phase, Phase::Waiting(Some(_)));
        self.ending.is_none() && (self.volume_failure().is_some() || self.records.iter().any(blocked))
    }

    /// Whether containers wait to be started or are being started.
    pub fn is_starting(&self) -> bool {
        let unstarted = |record: &Record| matches!(record.phase, Phase::Waiting(_) | Phase::Starting);
        !self.is_finished() && self.records.iter().any(unstarted)
    }

    /// Whether a status written now would be outdated within a moment: a start is under way and nobody waits
    /// for what happened since the last report. Keeps the writes of a pod to a handful.
    pub fn is_unsettled(&self) -> bool {
        let starting = self.records.iter().any(|record| record.phase == Phase::Starting);
        !self.urgent && (starting || self.volumes == Volumes::Preparing)
    }

    /// Notes that the current status was written.
    pub fn reported(&mut self) {
        self.urgent = false;
    }

    /// When to send [`Event::Tick`], if ever.
    pub fn next_wake(&self) -> Option<Timestamp> {
        let retries =
            self.records.iter().filter(|record| !record.is_live()).filter_map(|record| record.retry_at);
        if self.ending.is_some() || self.is_finished() {
            return None;
        }
        retries.chain(self.deadline()).chain(self.again_at).min()
    }

    fn deadline(&self) -> Option<Timestamp> {
        let seconds = self.pod.spec.as_ref()?.active_deadline_seconds?;
        self.start_time?.checked_add(SignedDuration::from_secs(seconds)).ok()
    }

    /// Seconds its containers get to stop.
    pub fn grace_seconds(&self) -> u64 {
        let own = self.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        let grace = self.pod.metadata.deletion_grace_period_seconds.or(own).unwrap_or(DEFAULT_GRACE);
        u64::try_from(grace).unwrap_or_default()
    }

    fn restart_policy(&self) -> &str {
        let given = self.pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        given.unwrap_or("Always")
    }

    fn restarts(&self, record: &Record, exit: &Exit) -> bool {
        match (record.role, self.restart_policy()) {
            (Role::Sidecar, _) => true,
            (Role::Regular, "Always") => true,
            (_, "Always" | "OnFailure") => exit.code != 0,
            _ => false,
        }
    }

    fn init_failed(&self) -> bool {
        let mut init = self.records.iter().filter(|record| record.role == Role::Init);
        init.any(|record| record.exit().is_some_and(|exit| exit.code != 0 && !self.restarts(record, exit)))
    }

    fn regular_done(&self) -> bool {
        let mut regular = self.records.iter().filter(|record| record.role == Role::Regular);
        regular.all(|record| record.exit().is_some_and(|exit| !self.restarts(record, exit)))
    }

    fn record_mut(&mut self, name: &str, attempt: u32) -> Option<&mut Record> {
        self.records.iter_mut().find(|record| record.name == name && record.attempt == attempt)
    }
}

/// Takes in one event and says what to do about it.
pub fn step(state: &mut PodState, event: Event, now: Timestamp) -> Vec<Command> {
    let mut commands = Vec::new();
    match event {
        Event::PodChanged(pod) => {
            let metadata = |pod: &Pod| (pod.metadata.labels.clone(), pod.metadata.annotations.clone());
            if metadata(&pod) != metadata(&state.pod) && state.volumes == Volumes::Ready {
                commands.push(Command::RefreshVolumes);
            }
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
            let node = state.pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            if node.is_none_or(str::is_empty) && state.ending.is_none() {
                commands.push(Command::Bind);
            }
        }
        Event::VolumesReady if state.volumes == Volumes::Preparing => state.volumes = Volumes::Ready,
        Event::VolumesFailed(message) if state.volumes == Volumes::Preparing => {
            announce(state, "FailedMount", message.clone(), &mut commands);
            state.volumes = Volumes::Failed(message);
            state.urgent = true;
            try_again_later(state, now);
        }
        Event::Blocked { name, reason, message } => {
            announce(state, "Failed", format!("Error: {message}"), &mut commands);
            if let Some(record) = state.records.iter_mut().find(|record| record.name == name) {
                record.phase = Phase::Waiting(Some((reason, message)));
                state.urgent = true;
                try_again_later(state, now);
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
        Event::Tick | Event::VolumesReady | Event::VolumesFailed(_) => {}
    }
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

/// Most of what is missing announces itself when it appears; a full disk or an API server that fails does not.
fn try_again_later(state: &mut PodState, now: Timestamp) {
    let delay = backoff(state.tries);
    state.tries += 1;
    state.again_at = now.checked_add(delay).ok();
}

fn try_again(state: &mut PodState) {
    state.again_at = None;
    if matches!(state.volumes, Volumes::Failed(_)) {
        state.volumes = Volumes::None;
    }
    for record in &mut state.records {
        if matches!(record.phase, Phase::Waiting(Some(_))) {
            record.phase = Phase::Waiting(None);
        }
    }
}

fn backoff(times: u32) -> SignedDuration {
    // Shifted at most so far that the longest wait is reached.
    SignedDuration::from_secs((FIRST_BACKOFF << times.min(8)).min(LAST_BACKOFF))
}

fn announce(state: &mut PodState, reason: &'static str, message: String, commands: &mut Vec<Command>) {
    if state.announced.insert(message.clone()) {
        commands.push(Command::Announce { reason, message });
    }
}

fn exited(state: &mut PodState, name: &str, attempt: u32, exit: Exit, now: Timestamp) {
    let Some(record) = state.record_mut(name, attempt).filter(|record| record.is_live()) else { return };
    record.retry_at = now.checked_add(backoff(record.attempt)).ok();
    // A finished init container is followed by the next start at once; its end alone is no news.
    let news = record.role != Role::Init || exit.code != 0;
    record.ready = false;
    record.phase = Phase::Exited(exit);
    state.urgent |= news;
}

fn advance(state: &mut PodState, now: Timestamp, commands: &mut Vec<Command>) {
    if state.ending.is_some() {
        let grace = if state.ending == Some(Ending::Gone) { 0 } else { state.grace_seconds() };
        stop(state, grace, commands, |_| true);
    } else if state.is_admitted() {
        match state.volumes {
            Volumes::None => {
                state.volumes = Volumes::Preparing;
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
            Volumes::None | Volumes::Failed(_) | Volumes::Ready => {
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
            Role::Sidecar => matches!(record.phase, Phase::Running(_)) || record.attempt > 0,
            Role::Regular => true,
        };
        if !open {
            return;
        }
    }
}

fn start(state: &mut PodState, at: usize, now: Timestamp, commands: &mut Vec<Command>) {
    let image = state.container(&state.records[at].name).and_then(|container| container.image.clone());
    let record = &mut state.records[at];
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

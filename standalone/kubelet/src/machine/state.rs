//! What is known about one pod and its containers, and the questions asked of it. No IO, no clock.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, PodCondition};

use super::Exit;
use super::announce::Allowance;

/// Seconds a pod gets to stop when it names none, as the API server defaults it.
const DEFAULT_GRACE: i64 = 30;

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
    /// Which image that turned out to be; empty until it is known.
    pub image_id: String,
    /// Current attempt.
    pub attempt: u32,
    /// Where it stands.
    pub phase: Phase,
    /// How the attempt before ended.
    pub last: Option<Exit>,
    /// Whether its startup probe, if any, has succeeded.
    pub started_up: bool,
    /// Whether its readiness probe, if any, is content.
    pub ready: bool,
    /// Whether it was told to stop.
    pub(super) stopping: bool,
    /// Not to be started again before.
    pub(super) retry_at: Option<Timestamp>,
    /// When its image is asked for again, if that was in vain, and how often it was in a row.
    pub(super) pull_at: Option<Timestamp>,
    pub(super) pull_failures: u32,
    /// How long the status says why.
    pub(super) shown_until: Option<Timestamp>,
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
pub(super) enum Volumes {
    None,
    Preparing,
    Failed { reason: &'static str, message: String },
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
    /// It took more of the disk than it may.
    Evicted,
    /// The node does not take it.
    Rejected,
    /// Nobody knows how one of its containers ended; others may wait for ever for what that one was to leave them.
    Lost,
}

/// One pod on this node.
#[derive(Clone, Debug)]
pub struct PodState {
    pub(crate) pod: Pod,
    pub(crate) records: Vec<Record>,
    pub(crate) start_time: Option<Timestamp>,
    pub(crate) ending: Option<Ending>,
    pub(crate) conditions: Vec<PodCondition>,
    pub(super) volumes: Volumes,
    /// Whether the metadata may have changed since the files that follow it were written.
    pub(super) stale: bool,
    pub(super) urgent: bool,
    /// When to try again what failed, and how often that was.
    pub(super) again_at: Option<Timestamp>,
    pub(super) tries: u32,
    /// What was announced already; a retry that fails in the same way is no news.
    pub(super) announced: BTreeSet<String>,
    pub(super) allowance: Allowance,
    /// Reason and message of the status of one that is evicted or rejected.
    pub(crate) verdict: Option<(&'static str, String)>,
}

impl PodState {
    /// The state of a pod nothing was done for yet.
    pub fn new(pod: Pod) -> Self {
        let spec = pod.spec.clone().unwrap_or_default();
        let record = |container: &Container, role| Record {
            name: container.name.clone(),
            role,
            image: container.image.clone().unwrap_or_default(),
            image_id: String::new(),
            attempt: 0,
            phase: Phase::Waiting(None),
            last: None,
            started_up: container.startup_probe.is_none(),
            ready: container.readiness_probe.is_none() && container.startup_probe.is_none(),
            stopping: false,
            retry_at: None,
            pull_at: None,
            pull_failures: 0,
            shown_until: None,
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
            stale: false,
            urgent: false,
            again_at: None,
            tries: 0,
            announced: BTreeSet::new(),
            allowance: Allowance::default(),
            verdict: None,
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

    /// Why volumes or the network cannot be made, if they cannot: a reason, as events have them, and a message.
    pub fn volume_failure(&self) -> Option<(&'static str, &str)> {
        match &self.volumes {
            Volumes::Failed { reason, message } => Some((reason, message)),
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
        let blocked =
            |record: &Record| matches!(record.phase, Phase::Waiting(Some(_))) && record.pull_at.is_none();
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
        // One that is not started again waits for nothing; its past time would wake the shell without end.
        let restarts = |record: &&Record| record.exit().is_some_and(|exit| self.restarts(record, exit));
        let retries = self.records.iter().filter(restarts).filter_map(|record| record.retry_at);
        if self.ending.is_some() || self.is_finished() {
            return None;
        }
        let images = self.records.iter().flat_map(|record| [record.pull_at, record.shown_until]).flatten();
        retries.chain(images).chain(self.deadline()).chain(self.again_at).min()
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let seconds = self.pod.spec.as_ref()?.active_deadline_seconds?;
        self.start_time?.checked_add(SignedDuration::from_secs(seconds)).ok()
    }

    /// Until when a container that ended waits to be started again, if it does.
    pub(crate) fn backs_off(&self, record: &Record, now: Timestamp) -> Option<Timestamp> {
        let exit = record.exit()?;
        record
            .retry_at
            .filter(|retry_at| *retry_at > now && self.ending.is_none() && self.restarts(record, exit))
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

    pub(super) fn restarts(&self, record: &Record, exit: &Exit) -> bool {
        match (record.role, self.restart_policy()) {
            (Role::Sidecar, _) => true,
            (Role::Regular, "Always") => true,
            (_, "Always" | "OnFailure") => exit.code != 0,
            _ => false,
        }
    }

    pub(super) fn init_failed(&self) -> bool {
        let mut init = self.records.iter().filter(|record| record.role == Role::Init);
        init.any(|record| record.exit().is_some_and(|exit| exit.code != 0 && !self.restarts(record, exit)))
    }

    pub(super) fn regular_done(&self) -> bool {
        let mut regular = self.records.iter().filter(|record| record.role == Role::Regular);
        regular.all(|record| record.exit().is_some_and(|exit| !self.restarts(record, exit)))
    }

    pub(super) fn record_mut(&mut self, name: &str, attempt: u32) -> Option<&mut Record> {
        self.records.iter_mut().find(|record| record.name == name && record.attempt == attempt)
    }
}

//! The controllers as one process: caches, a queue, and turns that are under way. No IO.
//!
//! It does what `ropewalk-controller` does over kube-runtime, one request at a time, so that anything may happen between
//! two requests of one reconcile. All of it is gone when the process dies.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::core::params::GetParams;
use ropewalk_api::config::Config;
use ropewalk_api::{Pipeline, PipelineRun, Task, TaskRun};
use ropewalk_apiserver::{Delta, ObjectKey};
use ropewalk_core::credentials::{Account, Answer};
use ropewalk_core::metrics::Measure;
use ropewalk_core::outcome::Outcome;
use ropewalk_core::plan::{Event, Plan, Resource, Target, Write};
use ropewalk_core::settings::Settings;
use ropewalk_core::snapshot::{Lookup, Refusal};
use ropewalk_core::{pipelinerun, taskrun};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::SimError;
use super::api::{Api, Watched};
use super::watch::{Watch, controller_uid, key_of, read};
use super::wire::{Lost, Wire};

/// As in the controller: how often one reconcile plans again after a refusal.
const ROUNDS: usize = 3;
/// As in the controller.
const AFTER_CONFLICT: Duration = Duration::from_millis(50);
/// As in the controller.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// A run that is reconciled.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Run {
    /// A TaskRun.
    TaskRun(ObjectKey),
    /// A PipelineRun.
    PipelineRun(ObjectKey),
}

/// Why a run is in the queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Why {
    /// It, or a child of it, has changed, or its plan asked for another look.
    News,
    /// The last reconcile failed.
    Backoff,
}

/// The object of a turn, as it was when the turn began.
#[derive(Clone)]
enum Subject {
    TaskRun(Arc<TaskRun>),
    PipelineRun(Arc<PipelineRun>),
}

/// One reconcile under way.
struct Turn {
    subject: Subject,
    refusals: Vec<Refusal>,
    writes: VecDeque<Write>,
    requeue: Option<Duration>,
    /// What to say and to record once everything is written.
    events: Vec<Event>,
    measures: Vec<Measure>,
}

/// Why a turn ends early.
enum Interruption {
    Lost,
    Defect(SimError),
}

impl From<Lost> for Interruption {
    fn from(_: Lost) -> Self {
        Self::Lost
    }
}

impl From<SimError> for Interruption {
    fn from(error: SimError) -> Self {
        Self::Defect(error)
    }
}

/// What the process was told at its start.
#[derive(Clone)]
pub(super) struct Options {
    pub(super) config: Arc<Config>,
    pub(super) settings: Arc<Settings>,
}

/// Both controllers.
pub(super) struct Process {
    options: Options,
    pods: Watch<Pod>,
    taskruns: Watch<TaskRun>,
    pipelineruns: Watch<PipelineRun>,
    tasks: Watch<Task>,
    pipelines: Watch<Pipeline>,
    queue: BTreeMap<Run, (Timestamp, Why)>,
    turns: BTreeMap<Run, Turn>,
    /// Children that were sent and that the cache may not show yet, by the UID of their controller.
    attempts: BTreeMap<String, BTreeSet<String>>,
    /// Runs of which there was news since they were last asked for.
    news: BTreeSet<Run>,
}

impl Process {
    /// A process that has just listed everything.
    pub(super) fn start(options: Options, api: &Api, now: Timestamp) -> Result<Self, SimError> {
        let mut process = Self {
            options,
            pods: Watch::list(api.objects(Watched::Pods))?,
            taskruns: Watch::list(api.objects(Watched::TaskRuns))?,
            pipelineruns: Watch::list(api.objects(Watched::PipelineRuns))?,
            tasks: Watch::list(api.objects(Watched::Tasks))?,
            pipelines: Watch::list(api.objects(Watched::Pipelines))?,
            queue: BTreeMap::new(),
            turns: BTreeMap::new(),
            attempts: BTreeMap::new(),
            news: BTreeSet::new(),
        };
        for watched in Watched::ALL {
            process.wake_all(watched, now);
        }
        Ok(process)
    }

    /// A change sets out to the cache.
    pub(super) fn tell(&mut self, watched: Watched, delta: Arc<Delta>) {
        match watched {
            Watched::Pods => self.pods.push(delta),
            Watched::TaskRuns => self.taskruns.push(delta),
            Watched::PipelineRuns => self.pipelineruns.push(delta),
            Watched::Tasks => self.tasks.push(delta),
            Watched::Pipelines => self.pipelines.push(delta),
        }
    }

    /// The caches that have not heard everything.
    pub(super) fn behind(&self) -> impl Iterator<Item = Watched> + '_ {
        Watched::ALL.into_iter().filter(|watched| match watched {
            Watched::Pods => self.pods.is_behind(),
            Watched::TaskRuns => self.taskruns.is_behind(),
            Watched::PipelineRuns => self.pipelineruns.is_behind(),
            Watched::Tasks => self.tasks.is_behind(),
            Watched::Pipelines => self.pipelines.is_behind(),
        })
    }

    /// Turns that have requests left to send.
    pub(super) fn turns(&self) -> impl Iterator<Item = &Run> {
        self.turns.keys()
    }

    /// Runs whose time has come, and that are not in a turn already.
    pub(super) fn due(&self, now: Timestamp) -> impl Iterator<Item = &Run> {
        self.queue
            .iter()
            .filter(move |(run, (at, _))| *at <= now && !self.turns.contains_key(run))
            .map(|(run, _)| run)
    }

    /// When the next run is due.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.queue.values().map(|(at, _)| *at).min()
    }

    /// The next change reaches a cache.
    pub(super) fn deliver(&mut self, watched: Watched, now: Timestamp) -> Result<(), SimError> {
        match watched {
            Watched::Pods => {
                if let Some(pod) = self.pods.advance()? {
                    self.wake_owner(pod.as_ref(), now);
                }
            }
            Watched::TaskRuns => {
                if let Some(run) = self.taskruns.advance()? {
                    self.wake(Run::TaskRun(key_of(run.as_ref())), now);
                    self.wake_owner(run.as_ref(), now);
                }
            }
            Watched::PipelineRuns => {
                if let Some(run) = self.pipelineruns.advance()? {
                    self.wake(Run::PipelineRun(key_of(run.as_ref())), now);
                }
            }
            Watched::Tasks => drop(self.tasks.advance()?),
            Watched::Pipelines => drop(self.pipelines.advance()?),
        }
        Ok(())
    }

    /// A watch has broken and begins again from a list.
    pub(super) fn relist(&mut self, watched: Watched, api: &Api, now: Timestamp) -> Result<(), SimError> {
        match watched {
            Watched::Pods => self.pods = Watch::list(api.objects(watched))?,
            Watched::TaskRuns => self.taskruns = Watch::list(api.objects(watched))?,
            Watched::PipelineRuns => self.pipelineruns = Watch::list(api.objects(watched))?,
            Watched::Tasks => self.tasks = Watch::list(api.objects(watched))?,
            Watched::Pipelines => self.pipelines = Watch::list(api.objects(watched))?,
        }
        self.wake_all(watched, now);
        Ok(())
    }

    fn wake_all(&mut self, watched: Watched, now: Timestamp) {
        match watched {
            Watched::Pods => {
                for pod in self.pods.iter().cloned().collect::<Vec<_>>() {
                    self.wake_owner(pod.as_ref(), now);
                }
            }
            Watched::TaskRuns => {
                for run in self.taskruns.iter().cloned().collect::<Vec<_>>() {
                    self.wake(Run::TaskRun(key_of(run.as_ref())), now);
                    self.wake_owner(run.as_ref(), now);
                }
            }
            Watched::PipelineRuns => {
                for run in self.pipelineruns.iter().cloned().collect::<Vec<_>>() {
                    self.wake(Run::PipelineRun(key_of(run.as_ref())), now);
                }
            }
            Watched::Tasks | Watched::Pipelines => {}
        }
    }

    fn wake(&mut self, run: Run, now: Timestamp) {
        self.news.insert(run.clone());
        self.queue(run, now, Why::News);
    }

    fn wake_owner<K: kube::Resource>(&mut self, child: &K, now: Timestamp) {
        let owners = child.meta().owner_references.as_deref().unwrap_or_default();
        let Some(owner) = owners.iter().find(|owner| owner.controller == Some(true)) else { return };
        let key = ObjectKey { name: owner.name.clone(), ..key_of(child) };
        match owner.kind.as_str() {
            "TaskRun" => self.wake(Run::TaskRun(key), now),
            "PipelineRun" => self.wake(Run::PipelineRun(key), now),
            _ => {}
        }
    }

    /// The earlier time counts, as in kube-runtime's scheduler.
    fn queue(&mut self, run: Run, at: Timestamp, why: Why) {
        let entry = self.queue.entry(run).or_insert((at, why));
        if at < entry.0 {
            *entry = (at, why);
        }
    }

    /// Observes a run and plans; its writes are for [`Process::proceed`].
    pub(super) fn begin(&mut self, run: &Run, wire: &mut Wire<'_>) -> Result<(), SimError> {
        self.queue.remove(run);
        let Some(subject) = self.subject(run) else { return Ok(()) };
        let turn = Turn {
            subject,
            refusals: Vec::new(),
            writes: VecDeque::new(),
            requeue: None,
            events: Vec::new(),
            measures: Vec::new(),
        };
        self.next_round(run, turn, wire)
    }

    fn subject(&self, run: &Run) -> Option<Subject> {
        match run {
            Run::TaskRun(key) => self.taskruns.get(key).cloned().map(Subject::TaskRun),
            Run::PipelineRun(key) => self.pipelineruns.get(key).cloned().map(Subject::PipelineRun),
        }
    }

    fn next_round(&mut self, run: &Run, mut turn: Turn, wire: &mut Wire<'_>) -> Result<(), SimError> {
        match self.plan(&turn.subject, turn.refusals.clone(), wire) {
            Ok(plan) => {
                turn.writes = plan.writes.into_iter().chain(plan.status).collect();
                turn.requeue = plan.requeue;
                (turn.events, turn.measures) = (plan.events, plan.measures);
                self.settle(run, turn, wire);
                Ok(())
            }
            Err(Interruption::Lost) => {
                self.back_off(run, wire.now, AFTER_FAILURE);
                Ok(())
            }
            Err(Interruption::Defect(error)) => Err(error),
        }
    }

    /// Keeps a turn that has writes left and ends one that has none.
    fn settle(&mut self, run: &Run, turn: Turn, wire: &mut Wire<'_>) {
        if !turn.writes.is_empty() {
            self.turns.insert(run.clone(), turn);
            return;
        }
        wire.traffic.tell(run, &turn.events, &turn.measures);
        if let Some(requeue) = turn.requeue {
            self.queue(run.clone(), after(wire.now, requeue), Why::News);
        }
    }

    fn back_off(&mut self, run: &Run, now: Timestamp, wait: Duration) {
        self.queue(run.clone(), after(now, wait), Why::Backoff);
    }

    /// Sends the next write of a turn.
    pub(super) fn proceed(&mut self, run: &Run, wire: &mut Wire<'_>) -> Result<(), SimError> {
        let Some(mut turn) = self.turns.remove(run) else { return Ok(()) };
        let Some(write) = turn.writes.pop_front() else { return Ok(()) };
        let request = write.request().map_err(SimError::Request)?;
        self.note(&write);
        let Ok(answer) = wire.write(&write, &request) else {
            self.back_off(run, wire.now, AFTER_FAILURE);
            return Ok(());
        };
        let refusal = Refusal {
            target: write.target().clone(),
            of_status: matches!(write, Write::Patch { subresource: Some(_), .. }),
            code: answer.code,
            reason: answer.text("reason").to_owned(),
            message: answer.text("message").to_owned(),
        };
        let mut outcome = Outcome::of(&write, answer.code, &refusal.reason, &refusal.message);
        if outcome == Outcome::CompareController {
            outcome = compare_controller(&write, wire)?;
        }
        match outcome {
            Outcome::Done => self.settle(run, turn, wire),
            Outcome::Stale => self.back_off(run, wire.now, AFTER_CONFLICT),
            Outcome::Transient => self.back_off(run, wire.now, AFTER_FAILURE),
            Outcome::Refused | Outcome::CompareController => {
                turn.refusals.push(refusal);
                if turn.refusals.len() == ROUNDS {
                    self.back_off(run, wire.now, AFTER_FAILURE);
                } else {
                    turn.writes.clear();
                    self.next_round(run, turn, wire)?;
                }
            }
        }
        Ok(())
    }

    fn attempts_of(&self, uid: &str) -> impl Iterator<Item = &str> {
        self.attempts.get(uid).into_iter().flatten().map(String::as_str)
    }

    /// A read by name costs nothing here, so that attempts are remembered for as long as the process lives.
    fn note(&mut self, write: &Write) {
        if let Write::Create { target, object } = write
            && matches!(target.resource, Resource::Pod | Resource::TaskRun)
            && let Some(uid) = object.pointer("/metadata/ownerReferences/0/uid").and_then(Value::as_str)
        {
            self.attempts.entry(uid.to_owned()).or_default().insert(target.name.clone());
        }
    }

    /// Every run it knows of.
    pub(super) fn runs(&self) -> Vec<Run> {
        let taskruns = self.taskruns.iter().map(|run| Run::TaskRun(key_of(run.as_ref())));
        let pipelineruns = self.pipelineruns.iter().map(|run| Run::PipelineRun(key_of(run.as_ref())));
        taskruns.chain(pipelineruns).collect()
    }

    /// The runs of which there was news since the last call.
    pub(super) fn take_news(&mut self) -> Vec<Run> {
        std::mem::take(&mut self.news).into_iter().collect()
    }

    /// What the process would do about these runs now, but for those that wait to be tried again.
    pub(super) fn plans(&self, runs: Vec<Run>, wire: &mut Wire<'_>) -> Result<Vec<(Run, Plan)>, SimError> {
        let mut plans = Vec::new();
        for run in runs {
            if matches!(self.queue.get(&run), Some((_, Why::Backoff))) {
                continue;
            }
            let Some(subject) = self.subject(&run) else { continue };
            match self.plan(&subject, Vec::new(), wire) {
                Ok(plan) => plans.push((run, plan)),
                Err(Interruption::Lost) => {}
                Err(Interruption::Defect(error)) => return Err(error),
            }
        }
        Ok(plans)
    }

    /// Observes as the controller does, and decides.
    fn plan(
        &self,
        subject: &Subject,
        refusals: Vec<Refusal>,
        wire: &mut Wire<'_>,
    ) -> Result<Plan, Interruption> {
        let (now, config, settings) =
            (wire.now, Arc::clone(&self.options.config), Arc::clone(&self.options.settings));
        match subject {
            Subject::TaskRun(run) => {
                let key = key_of(run.as_ref());
                let uid = run.metadata.uid.clone().unwrap_or_default();
                let named = run.status.iter().map(|status| status.pod_name.as_str());
                let named = named.chain(self.attempts_of(&uid));
                let pods = children(&self.pods, Resource::Pod, &key, &uid, named, wire)?;
                let task = look_up(&self.tasks, "tasks", &key, taskrun::wants_task(run), wire)?;
                let wanted = taskrun::wants_account(run, &pods, &config, &settings);
                let account = account(&key.namespace, wanted, wire)?;
                let run = Arc::clone(run);
                Ok(taskrun::plan(&taskrun::Snapshot {
                    now,
                    config,
                    settings,
                    run,
                    task,
                    account,
                    pods,
                    warnings: Vec::new(),
                    images: None,
                    refusals,
                }))
            }
            Subject::PipelineRun(run) => {
                let key = key_of(run.as_ref());
                let uid = run.metadata.uid.clone().unwrap_or_default();
                let references = run.status.iter().flat_map(|status| &status.child_references);
                let named = references.map(|child| child.name.as_str()).chain(self.attempts_of(&uid));
                let children = children(&self.taskruns, Resource::TaskRun, &key, &uid, named, wire)?;
                let wanted = pipelinerun::wants_pipeline(run);
                let pipeline = look_up(&self.pipelines, "pipelines", &key, wanted, wire)?;
                let mut tasks = BTreeMap::new();
                for name in pipelinerun::wants_tasks(run, pipeline.found(), &children) {
                    let task = look_up(&self.tasks, "tasks", &key, Some(&name), wire)?;
                    tasks.insert(name, task);
                }
                let run = Arc::clone(run);
                Ok(pipelinerun::plan(&pipelinerun::Snapshot {
                    now,
                    config,
                    settings,
                    run,
                    pipeline,
                    tasks,
                    children,
                    refusals,
                }))
            }
        }
    }
}

/// `wait` from now.
fn after(now: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait).ok().and_then(|wait| now.checked_add(wait).ok()).unwrap_or(Timestamp::MAX)
}

/// Whether the object that is there already has the controller that ours would have.
fn compare_controller(write: &Write, wire: &mut Wire<'_>) -> Result<Outcome, SimError> {
    let Write::Create { target, object } = write else { return Ok(Outcome::Refused) };
    let request = target.read().map_err(SimError::Request)?;
    let Ok(answer) = wire.read(&request) else { return Ok(Outcome::Transient) };
    if answer.code == 404 {
        return Ok(Outcome::Stale);
    }
    let owners = answer.body.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let controller = owners.into_iter().flatten().find(|owner| owner["controller"] == true);
    let ours = object.pointer("/metadata/ownerReferences/0/uid");
    let same = controller.is_some_and(|owner| Some(&owner["uid"]) == ours);
    Ok(if same { Outcome::Done } else { Outcome::Refused })
}

/// From the cache, or from the API server when the cache does not have it.
fn look_up<K: DeserializeOwned + kube::Resource>(
    watch: &Watch<K>,
    plural: &str,
    near: &ObjectKey,
    name: Option<&str>,
    wire: &mut Wire<'_>,
) -> Result<Lookup<K>, Interruption> {
    let Some(name) = name else { return Ok(Lookup::NotNeeded) };
    let key = ObjectKey { name: name.to_owned(), ..near.clone() };
    if let Some(object) = watch.get(&key) {
        return Ok(Lookup::Found(Arc::clone(object)));
    }
    let collection = format!("/apis/tekton.dev/v1/namespaces/{}/{plural}", key.namespace);
    let request = kube::core::Request::new(collection).get(name, &GetParams::default());
    Ok(match read_live(&request.map_err(SimError::Request)?, wire)? {
        Some(object) => Lookup::Found(Arc::new(object)),
        None => Lookup::Missing,
    })
}

/// The service account of a pod that is to be made; none names secrets here.
fn account(
    namespace: &str,
    name: Option<String>,
    wire: &mut Wire<'_>,
) -> Result<Option<Answer<Account>>, Interruption> {
    let Some(name) = name else { return Ok(None) };
    let collection = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
    let request = kube::core::Request::new(collection).get(&name, &GetParams::default());
    let found: Option<ServiceAccount> = read_live(&request.map_err(SimError::Request)?, wire)?;
    Ok(Some(found.map_or(Answer::Missing, |account| Answer::Found(Account::new(&account)))))
}

/// The objects that `uid` controls, as the cache has them, and those of `named` that it lacks, from the API server.
fn children<'a, K: DeserializeOwned + kube::Resource>(
    watch: &Watch<K>,
    resource: Resource,
    near: &ObjectKey,
    uid: &str,
    named: impl Iterator<Item = &'a str>,
    wire: &mut Wire<'_>,
) -> Result<Vec<Arc<K>>, Interruption> {
    let mut children = watch.children(uid);
    for name in named.filter(|name| !name.is_empty()) {
        let target = Target { resource, namespace: near.namespace.clone(), name: name.to_owned() };
        if !children.contains_key(name)
            && let Some(child) = read_live::<K>(&target.read().map_err(SimError::Request)?, wire)?
        {
            children.insert(name.to_owned(), Arc::new(child));
        }
    }
    children.retain(|_, child| controller_uid(child.as_ref()) == Some(uid));
    Ok(children.into_values().collect())
}

fn read_live<K: DeserializeOwned>(
    request: &Request<Vec<u8>>,
    wire: &mut Wire<'_>,
) -> Result<Option<K>, Interruption> {
    let answer = wire.read(request)?;
    Ok(if answer.code == 200 { Some(read(&answer.body)?) } else { None })
}

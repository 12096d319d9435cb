//! A whole world in one thread, on a clock of its own: the API server's kernel, the controllers' decisions, the kubelet's
//! kernel, and whatever may go wrong between them. No IO, no tokio; all chance follows from a seed.
//!
//! [`Sim::run`] picks one thing after the other that may happen next, until nothing may. After each it checks what
//! [`Violation`] lists, and at rest that nobody would do anything more.

mod api;
mod ending;
mod faults;
pub mod generate;
mod invariants;
mod node;
mod process;
mod script;
mod watch;
mod wire;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::core::params::{Patch, PatchParams, PostParams};
use ropewalk_api::{config::Config, kinds};
use ropewalk_core::settings::Settings;
use serde_json::Value;

pub use api::Tally;
pub use ending::Ending;
pub use faults::Odds;
pub use invariants::Violation;
pub use process::Run;
pub use script::Script;
pub use wire::{Told, Traffic};

use api::{Api, Watched};
use faults::Faults;
use invariants::Invariants;
use node::Node;
use process::{Options, Process};
use wire::Wire;

/// The namespace everything is in.
pub const NAMESPACE: &str = "default";

/// Things that may happen in one simulation: some hundreds are the rule, and what never ends is to be seen soon.
const STEPS: usize = 50_000;

/// Virtual time a simulation may take: less than the default timeout of a run, which would hide one that hangs.
const PATIENCE: SignedDuration = SignedDuration::from_mins(50);

/// What a failure shows of what led to it.
const REMEMBERED: usize = 40;

/// Why a simulation failed.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// Something that must always hold does not.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// An object in the API server that our types cannot read.
    #[error("cannot read the object {object}")]
    Unreadable {
        /// The object.
        object: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A request that cannot be built.
    #[error("cannot build a request")]
    Request(#[source] kube::core::request::Error),
    /// Our CRDs do not fit the API server.
    #[error("cannot serve the custom resources")]
    Table(#[from] &'static ropewalk_apiserver::TableError),
    /// A document of the world was refused.
    #[error("the API server refused a document: {0}")]
    Refused(String),
    /// It goes on and on.
    #[error("no end after {steps} steps and {seconds} virtual seconds")]
    Endless {
        /// What happened.
        steps: usize,
        /// For how long.
        seconds: i64,
    },
}

/// A failure and the last things that happened before it.
#[derive(Debug, thiserror::Error)]
#[error("{error}\nat {now}, after:\n{}", .trace.join("\n"))]
pub struct Failure {
    /// What is wrong.
    #[source]
    pub error: SimError,
    /// Virtual time.
    pub now: Timestamp,
    /// What happened, the latest last.
    pub trace: Vec<String>,
}

/// Something done to the world from outside, once.
#[derive(Clone, Debug)]
pub enum Disturbance {
    /// The controllers' process dies after this many writes, and starts again.
    Crash {
        /// How many writes the API server has seen then.
        after_writes: usize,
    },
    /// A user merges a patch into a PipelineRun after this many changes of any object.
    Patch {
        /// How many changes there were then.
        after_changes: usize,
        /// The name of the PipelineRun.
        name: String,
        /// A JSON merge patch.
        patch: Value,
    },
}

/// What a world is made of.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Where all chance comes from. Without one, everything happens as soon as it can.
    pub seed: Option<u64>,
    /// What goes wrong.
    pub odds: Odds,
    /// Something that is done on purpose.
    pub disturbance: Option<Disturbance>,
    /// What the containers do.
    pub script: Script,
    /// The ConfigMaps.
    pub config: Config,
}

/// How a world came to rest.
#[derive(Clone, Debug)]
pub struct Finished {
    /// What became of its runs.
    pub ending: Ending,
    /// What the controllers wrote.
    pub traffic: Traffic,
    /// How many changes of objects there were.
    pub changes: usize,
    /// How many faults there were.
    pub faults: usize,
    /// Virtual time it took.
    pub took: SignedDuration,
}

/// A world.
pub struct Sim {
    now: Timestamp,
    began: Timestamp,
    api: Api,
    process: Process,
    node: Node,
    options: Options,
    faults: Faults,
    seeded: bool,
    disturbance: Option<Disturbance>,
    invariants: Invariants,
    traffic: Traffic,
    changes: usize,
    trace: VecDeque<String>,
}

/// What may happen next.
#[derive(Clone, Debug)]
enum Action {
    Deliver(Watched),
    Begin(Run),
    Proceed(Run),
    TellNode,
    Work(String),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deliver(watched) => write!(f, "a change of {watched:?} reaches the cache"),
            Self::Begin(run) => write!(f, "observe and plan {run}"),
            Self::Proceed(run) => write!(f, "the next write for {run}"),
            Self::TellNode => f.write_str("a change reaches the node"),
            Self::Work(uid) => write!(f, "the node works on pod {uid}"),
        }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TaskRun(key) => write!(f, "TaskRun \"{}\"", key.name),
            Self::PipelineRun(key) => write!(f, "PipelineRun \"{}\"", key.name),
        }
    }
}

impl Sim {
    /// A world that holds these documents.
    pub fn new(setup: Setup, documents: &[Value]) -> Result<Self, SimError> {
        // Any moment does; a leap second away from round numbers.
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(490_000);
        let options = Options { config: Arc::new(setup.config), settings: Arc::new(Settings::default()) };
        let seed = setup.seed.unwrap_or_default();
        let mut api = Api::new(Arc::clone(&options.config), &options.settings, seed, now)?;
        for document in documents {
            submit(&mut api, document, now)?;
        }
        api.take_untold();
        let process = Process::start(options.clone(), &api, now)?;
        Ok(Self {
            now,
            began: now,
            process,
            api,
            node: Node::new(setup.script),
            options,
            faults: Faults::new(seed, setup.odds),
            seeded: setup.seed.is_some(),
            disturbance: setup.disturbance,
            invariants: Invariants::default(),
            traffic: Traffic::default(),
            changes: 0,
            trace: VecDeque::new(),
        })
    }

    /// Lets everything happen that may, until nothing does.
    pub fn run(mut self) -> Result<Finished, Box<Failure>> {
        match self.run_to_rest() {
            Ok(ending) => Ok(Finished {
                ending,
                traffic: self.traffic,
                changes: self.changes,
                faults: self.faults.happened(),
                took: self.now.duration_since(self.began),
            }),
            Err(error) => Err(Box::new(Failure { error, now: self.now, trace: self.trace.into() })),
        }
    }

    fn run_to_rest(&mut self) -> Result<Ending, SimError> {
        for _ in 0..STEPS {
            if !self.step()? {
                invariants::at_rest(&self.api)?;
                return ending::ending(&self.api);
            }
            if self.now.duration_since(self.began) > PATIENCE {
                break;
            }
        }
        let seconds = self.now.duration_since(self.began).as_secs();
        Err(SimError::Endless { steps: STEPS, seconds })
    }

    /// One thing happens; false when nothing may any more.
    fn step(&mut self) -> Result<bool, SimError> {
        let mut actions = self.actions();
        if actions.is_empty() {
            let next = self.process.next_due().into_iter().chain(self.node.next_event()).min();
            let news = self.process.take_news();
            // At rest nobody would do anything; before that it is enough to ask those that heard something.
            let asked = if next.is_some() { news } else { self.process.runs() };
            self.check_that_nothing_is_left_to_do(asked)?;
            let Some(next) = next else { return Ok(false) };
            self.now = self.now.max(next);
            return Ok(true);
        }
        let mut choice = 0;
        if self.seeded {
            // Time passes while things wait to happen.
            if self.faults.chance(60) {
                let millis = i64::try_from(self.faults.below(1500)).unwrap_or_default();
                self.now += SignedDuration::from_millis(millis);
            }
            choice = self.faults.below(actions.len());
        }
        let action = actions.swap_remove(choice);
        self.remember(&action.to_string());
        self.perform(&action)?;
        self.tell()?;
        self.disturb()?;
        Ok(true)
    }

    /// In the order in which a world without faults and delays would go.
    fn actions(&self) -> Vec<Action> {
        let mut actions: Vec<Action> = self.process.behind().map(Action::Deliver).collect();
        actions.extend(self.process.turns().cloned().map(Action::Proceed));
        actions.extend(self.process.due(self.now).cloned().map(Action::Begin));
        actions.extend(self.node.is_behind().then_some(Action::TellNode));
        actions.extend(self.node.busy(self.now).cloned().map(Action::Work));
        actions
    }

    fn perform(&mut self, action: &Action) -> Result<(), SimError> {
        let mut wire =
            Wire { api: &mut self.api, faults: &mut self.faults, now: self.now, traffic: &mut self.traffic };
        match action {
            Action::Deliver(watched) if wire.faults.broken_watch() => {
                self.process.relist(*watched, &self.api, self.now)
            }
            Action::Deliver(watched) => self.process.deliver(*watched, self.now),
            Action::Begin(run) => self.process.begin(run, &mut wire),
            Action::Proceed(run) => {
                let writes = wire.traffic.writes;
                self.process.proceed(run, &mut wire)?;
                if self.traffic.writes > writes && self.faults.crash() {
                    self.crash()?;
                }
                Ok(())
            }
            Action::TellNode => self.node.deliver(&mut self.api, &mut self.faults, self.now),
            Action::Work(uid) => self.node.work(uid, &mut self.api, self.now),
        }
    }

    /// Everything the process knew is gone. What it was not told yet it finds in its lists.
    fn crash(&mut self) -> Result<(), SimError> {
        self.remember("the controllers die and start again");
        // Changes made before the crash still reach the node, and are judged.
        self.tell()?;
        self.process = Process::start(self.options.clone(), &self.api, self.now)?;
        Ok(())
    }

    /// Changes set out to whom they concern, and are judged.
    fn tell(&mut self) -> Result<(), SimError> {
        for delta in self.api.take_untold() {
            let Some(watched) = self.api.watched(&delta) else { continue };
            self.changes += 1;
            let key = &delta.key;
            self.remember(&format!("  {watched:?} {} {:?}", key.name, delta.kind));
            self.invariants.check(&delta, watched, &self.api)?;
            if watched == Watched::Pods {
                self.node.tell(Arc::clone(&delta));
            }
            self.process.tell(watched, delta);
        }
        Ok(())
    }

    fn disturb(&mut self) -> Result<(), SimError> {
        match self.disturbance.take() {
            Some(Disturbance::Crash { after_writes }) if self.traffic.writes >= after_writes => self.crash(),
            Some(Disturbance::Patch { after_changes, name, patch }) if self.changes >= after_changes => {
                self.remember(&format!("a user patches \"{name}\""));
                let runs = format!("/apis/tekton.dev/v1/namespaces/{NAMESPACE}/pipelineruns");
                let request = kube::core::Request::new(runs);
                let request = request.patch(&name, &PatchParams::default(), &Patch::Merge(patch));
                // Refused when the run has ended, and that is as good an answer.
                self.api.send(&request.map_err(SimError::Request)?, self.now);
                self.tell()
            }
            later => {
                self.disturbance = later;
                Ok(())
            }
        }
    }

    /// Everybody has heard everything: an unchanged world yields an empty plan.
    fn check_that_nothing_is_left_to_do(&mut self, runs: Vec<Run>) -> Result<(), SimError> {
        let mut wire = Wire {
            api: &mut self.api,
            faults: &mut Faults::new(0, Odds::default()),
            now: self.now,
            traffic: &mut Traffic::default(),
        };
        for (run, plan) in self.process.plans(runs, &mut wire)? {
            if !plan.is_empty() {
                let why = format!("the plan for {run} is {plan:#?}");
                return Err(Violation::Unrest(why).into());
            }
        }
        Ok(())
    }

    fn remember(&mut self, what: &str) {
        if self.trace.len() == REMEMBERED {
            self.trace.pop_front();
        }
        self.trace.push_back(what.to_owned());
    }
}

/// Creates an object as a user would.
fn submit(api: &mut Api, document: &Value, now: Timestamp) -> Result<(), SimError> {
    let kind = document["kind"].as_str().unwrap_or_default();
    let collection = match kinds::find(kind) {
        Some(kind) => format!("/apis/{}/namespaces/{NAMESPACE}/{}", kind.api_version(), kind.plural),
        None => format!("/api/v1/namespaces/{NAMESPACE}/{}s", kind.to_lowercase()),
    };
    let request = kube::core::Request::new(collection);
    let request = request.create(&PostParams::default(), document.to_string().into_bytes());
    let answer = api.send(&request.map_err(SimError::Request)?, now);
    if answer.code == 201 { Ok(()) } else { Err(SimError::Refused(answer.text("message").to_owned())) }
}

//! PipelineRun: from a snapshot to a plan (contract 7). Pure.
//!
//! Every decision is worked out anew from the run, its children and the clock: `facts` says what is known
//! about each pipeline task, `schedule` what is to be done about it, `children` builds what is due, `stop`
//! tells who has to end, and `status` says what the run's condition becomes.

mod checks;
mod children;
mod diagnosis;
mod facts;
mod lifecycle;
mod matrix;
mod params;
mod resolve;
mod results;
mod runs;
mod schedule;
mod skip;
mod status;
mod stop;
mod substitute;
#[cfg(test)]
mod tests;
mod texts;
mod workspaces;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use ropewalk_api::config::Config;
use ropewalk_api::{
    Pipeline, PipelineRun, PipelineSpec, Task, TaskRun, WorkspaceBinding, conditions, pipelinerun_spec_status,
};

use self::checks::{Failure, Stop};
use self::children::Nursery;
use self::facts::{Facts, Node, Outcome};
use self::lifecycle::{Limits, Request, Timeouts};
use self::matrix::MatrixError;
use self::resolve::Origin;
use self::schedule::{Circumstances, Verdict};
use self::status::{Counts, Draft, Ending};
use crate::plan::{Plan, Resource, Waiting, Write};
use crate::settings::Settings;
use crate::snapshot::{Lookup, Refusal};
use crate::substitution::{Replacements, Scope};
use crate::taskrun;

/// Everything a decision about one PipelineRun depends on.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When it was taken.
    pub now: Timestamp,
    /// The ConfigMaps.
    pub config: Arc<Config>,
    /// The process's settings.
    pub settings: Arc<Settings>,
    /// The run as the API server has it.
    pub run: Arc<PipelineRun>,
    /// The referenced Pipeline; looked up only when [`wants_pipeline`] says so.
    pub pipeline: Lookup<Pipeline>,
    /// The Tasks that [`wants_tasks`] names.
    pub tasks: BTreeMap<String, Lookup<Task>>,
    /// Every TaskRun whose controller is this run, in order of name.
    pub children: Vec<Arc<TaskRun>>,
    /// Writes refused in earlier rounds of this reconcile.
    pub refusals: Vec<Refusal>,
}

/// The name of the Pipeline to look up before planning: a run by reference that has not stored its spec yet.
pub fn wants_pipeline(run: &PipelineRun) -> Option<&str> {
    resolve::wanted_pipeline(run).filter(|_| is_running(run))
}

/// The names of the Tasks to look up before planning: those of pipeline tasks that have no child yet.
pub fn wants_tasks(run: &PipelineRun, pipeline: Option<&Pipeline>, children: &[Arc<TaskRun>]) -> Vec<String> {
    if !is_running(run) {
        return Vec::new();
    }
    let lookup = pipeline.map_or(Lookup::NotNeeded, |pipeline| Lookup::Found(Arc::new(pipeline.clone())));
    // A run that fails a check needs no Task: planning will find the same failure.
    let Ok((origin, spec)) = resolve::pipeline(run, &lookup) else {
        return Vec::new();
    };
    let Ok(Prepared { mut facts, .. }) = prepare(&Config::default(), run, &origin, &spec, None, children)
    else {
        return Vec::new();
    };
    if facts.nodes.iter().any(|node| node.finally && resolve::needs_variables(node)) {
        // Only the verdicts on the graph say what such a name becomes; timeouts change none of these.
        let verdicts =
            schedule::graph(&facts, &Circumstances { request: Request::of(run), limits: Limits::NONE });
        fill_in_finally(&mut facts, &verdicts);
    }
    let names: BTreeSet<&str> = facts.nodes.iter().filter_map(resolve::wanted_task).collect();
    names.into_iter().map(str::to_owned).collect()
}

/// What to do about a PipelineRun now.
pub fn plan(snapshot: &Snapshot) -> Plan {
    let run = &*snapshot.run;
    let foreign = run
        .spec
        .managed_by
        .as_deref()
        .is_some_and(|manager| !manager.is_empty() && manager != snapshot.settings.managed_by);
    if foreign || run.metadata.deletion_timestamp.is_some() {
        return Plan::default();
    }
    if is_over(run) {
        return stop::leftovers(snapshot);
    }
    let name = run.metadata.name.as_deref().unwrap_or_default();
    let mut draft = Draft::new(snapshot);
    if is_pending(run) {
        draft.go_on("PipelineRunPending", &format!("PipelineRun \"{name}\" is pending"));
        return draft.finish();
    }
    if draft.status.start_time.is_none() {
        draft.status.start_time = Some(draft.now());
    }
    if run.spec.status == pipelinerun_spec_status::CANCELLED {
        stop::run(snapshot, &mut draft);
        return draft.finish();
    }
    if let Some(refusal) = Refusal::of_large_status(&snapshot.refusals) {
        stop::give_up(snapshot, &mut draft, refusal);
        return draft.finish();
    }
    match decide(snapshot, &mut draft) {
        Ok(()) => {}
        Err(Stop::Failed(Failure { reason, message })) => draft.end(false, reason, &message),
        Err(Stop::First(write)) => return Plan { writes: vec![write], ..Plan::default() },
        Err(Stop::Unseen(what)) => {
            let report = vec![Waiting {
                subject: name.to_owned(),
                reason: format!("waits for {what} to be looked up"),
            }];
            return Plan { report, ..Plan::default() };
        }
    }
    draft.finish()
}

fn is_over(run: &PipelineRun) -> bool {
    run.metadata.deletion_timestamp.is_some()
        || run.status.as_ref().is_some_and(|status| conditions::is_done(&status.conditions))
}

fn is_pending(run: &PipelineRun) -> bool {
    let started = run.status.as_ref().is_some_and(|status| status.start_time.is_some());
    run.spec.status == pipelinerun_spec_status::PENDING && !started
}

/// Neither done, nor held back, nor to be cancelled: its definition matters.
fn is_running(run: &PipelineRun) -> bool {
    !is_over(run) && !is_pending(run) && run.spec.status != pipelinerun_spec_status::CANCELLED
}

/// A run whose definition has passed the checks that need no Task.
struct Prepared<'a> {
    /// The Pipeline, substituted as far as the run itself allows.
    spec: PipelineSpec,
    facts: Facts<'a>,
}

fn prepare<'a>(
    config: &Config,
    run: &'a PipelineRun,
    origin: &Origin,
    spec: &PipelineSpec,
    found: Option<&Pipeline>,
    children: &'a [Arc<TaskRun>],
) -> Result<Prepared<'a>, Failure> {
    let dag = checks::graph(origin, spec)?;
    if let Some(pipeline) = found {
        checks::admitted(origin, config, pipeline)?;
    }
    checks::spec(origin, spec)?;
    checks::params(origin, &config.features, spec, &run.spec.params)?;
    let values = params::effective(&spec.params, &run.spec.params);
    checks::array_indices(origin, spec, values.as_deref().unwrap_or(&run.spec.params))?;
    checks::bindings(origin, run, spec)?;
    let values = values.map_err(|error| checks::defaults(origin, &error))?;
    let spec = substitute::pipeline(run, &origin.name, spec, &values);
    checks::substituted(origin, &spec)?;
    let facts = Facts::new(run, &spec, dag, children, config.defaults.max_matrix_combinations);
    Ok(Prepared { spec, facts })
}

fn decide(snapshot: &Snapshot, draft: &mut Draft<'_>) -> Result<(), Stop> {
    let run = &*snapshot.run;
    let config = &*snapshot.config;
    let name = run.metadata.name.as_deref().unwrap_or_default();

    let (origin, spec) = resolve::pipeline(run, &snapshot.pipeline)?;
    if let Some(write) = resolve::metadata_patch(run, &origin, &snapshot.refusals) {
        return Err(Stop::First(write));
    }
    draft.status.pipeline_spec = Some(spec.clone());
    if draft.status.provenance.is_none() {
        draft.status.provenance = taskrun::provenance(&config.features);
    }
    let Prepared { spec, mut facts } =
        prepare(config, run, &origin, &spec, snapshot.pipeline.found(), &snapshot.children)?;
    draft.status.pipeline_spec = Some(spec.clone());
    // Whatever fails from here on, children of earlier rounds stay listed.
    let written = std::mem::take(&mut draft.status.child_references);
    draft.status.child_references = status::child_references(&facts, &written, &BTreeSet::new());
    resolve::tasks(&mut facts, &origin, &snapshot.tasks)?;
    checks::task_params(name, &facts)?;
    if facts.is_before_first_child() {
        checks::before_first_child(name, &facts, &spec)?;
    }

    let instant = |time: &Option<Time>| time.as_ref().map(|time| time.0);
    let mut circumstances = Circumstances {
        request: Request::of(run),
        limits: Limits {
            timeouts: Timeouts::of(run, config.defaults.timeout),
            now: snapshot.now,
            start: instant(&draft.status.start_time),
            finally_start: instant(&draft.status.finally_start_time),
        },
    };
    let mut verdicts = schedule::graph(&facts, &circumstances);
    let graph_done = verdicts.iter().zip(&facts.nodes).all(|(verdict, node)| verdict.is_settled(node));
    if graph_done && !spec.finally.is_empty() {
        if draft.status.finally_start_time.is_none() {
            draft.status.finally_start_time = Some(draft.now());
            circumstances.limits.finally_start = Some(snapshot.now);
        }
        fill_in_finally(&mut facts, &verdicts);
        resolve::tasks(&mut facts, &origin, &snapshot.tasks)?;
    }
    verdicts.extend(schedule::finally(&facts, &circumstances, graph_done));

    let trouble = stop::overdue(snapshot, draft, &facts, &circumstances, graph_done);
    let born = if circumstances.limits.pipeline_over() {
        BTreeSet::new()
    } else {
        create_children(snapshot, draft, &origin, &facts, &verdicts, circumstances.limits.timeouts)?
    };

    draft.status.child_references = status::child_references(&facts, &written, &born);
    draft.status.skipped_tasks = status::skipped_tasks(&facts, &verdicts);
    draft.plan.report = report(&facts, &verdicts, &born);
    draft.plan.requeue = circumstances.limits.next();
    if let Some((reason, message)) = trouble {
        draft.go_on(reason, &message);
        draft.plan.requeue = Some(lifecycle::RETRY_CANCEL);
        return Ok(());
    }
    let counts = Counts::new(&facts, &verdicts);
    match status::ending(name, &counts, &circumstances.limits, circumstances.request) {
        Ending::Open(reason, message) => {
            draft.go_on(reason, &message);
            draft.diagnose(diagnosis::of(&facts).as_deref());
        }
        Ending::Closed(succeeded, reason, message) => {
            let (results, invalid) = results::of_run(&facts, &spec.results);
            draft.status.results = results;
            draft.end(succeeded, reason, &message);
            if !invalid.is_empty() {
                let message = format!(
                    "Failed to get PipelineResult from TaskRun Results for PipelineRun {name}: invalid \
                     pipelineresults {}, the referenced results don't exist",
                    params::go_list(&invalid)
                );
                draft.end(false, "CouldntGetPipelineResult", &message);
            }
            if !succeeded {
                draft.diagnose_failure(diagnosis::of(&facts).as_deref());
            }
        }
    }
    Ok(())
}

/// Makes the children that are due, and before the first of them the claims they need. Returns their names.
fn create_children(
    snapshot: &Snapshot,
    draft: &mut Draft<'_>,
    origin: &Origin,
    facts: &Facts<'_>,
    verdicts: &[Verdict],
    timeouts: Timeouts,
) -> Result<BTreeSet<String>, Failure> {
    let run = facts.run;
    let due: Vec<usize> = verdicts
        .iter()
        .enumerate()
        .filter(|(position, verdict)| **verdict == Verdict::Due && facts.nodes[*position].task_spec.is_some())
        .map(|(position, _)| position)
        .collect();
    // Nothing that could still fill in the name of such a Task is left.
    let mut nameless = verdicts.iter().zip(&facts.nodes).filter(|(verdict, _)| **verdict == Verdict::Due);
    if let Some((_, node)) = nameless.find(|(_, node)| resolve::needs_variables(node)) {
        return Err(resolve::no_such_task(origin, resolve::task_name(&node.task).unwrap_or_default()));
    }
    if due.is_empty() {
        return Ok(BTreeSet::new());
    }
    let claims = if facts.is_before_first_child() { workspaces::claims(run) } else { Vec::new() };
    for claim in claims.iter().map(Write::target) {
        if let Some(refusal) = Refusal::of(&snapshot.refusals, Resource::PersistentVolumeClaim, &claim.name) {
            let message = format!(
                "Failed to create PVC for PipelineRun {} correctly: PVC creation error for {}: {}",
                origin.run, claim.name, refusal.message
            );
            return Err(Failure { reason: "CouldntCreateWorkspacePVC", message });
        }
    }
    let bindings = workspace_bindings(facts, origin);
    let nursery = Nursery {
        run,
        config: &snapshot.config,
        release: &snapshot.settings.release,
        origin,
        timeouts,
        workspaces: &bindings,
    };
    let mut born = BTreeSet::new();
    let mut writes = claims;
    for position in due {
        let node = &facts.nodes[position];
        let failed = |message: String| Failure { reason: "CreateRunFailed", message };
        if let Some(error) = &node.matrix_error {
            let reason = match error {
                MatrixError::Type { .. } => "InvalidMatrixParameterTypes",
                MatrixError::TooMany { .. } => "PipelineValidationFailed",
            };
            return Err(Failure { reason, message: error.to_string() });
        }
        let task =
            resolve::wanted_task(node).and_then(|name| snapshot.tasks.get(name)).and_then(Lookup::found);
        for child in node.runs.iter().filter(|run| run.child.is_none()) {
            if let Some(refusal) = Refusal::of(&snapshot.refusals, Resource::TaskRun, &child.name) {
                return Err(failed(refusal.message.clone()));
            }
            writes.push(nursery.child(node, child, task).map_err(failed)?);
            born.insert(child.name.clone());
        }
    }
    draft.write(writes);
    Ok(born)
}

/// The run's bindings with their variables replaced: params it was given, contexts, results (contract 4.3).
fn workspace_bindings(facts: &Facts<'_>, origin: &Origin) -> Vec<WorkspaceBinding> {
    let run = facts.run;
    let mut given = Replacements::new();
    given.params(Scope::Pipeline, &run.spec.params);
    let contexts = substitute::contexts(run, &origin.name);
    let mut texts = Vec::new();
    texts::for_each(&run.spec.workspaces, |text| texts.push(text.to_owned()));
    let results = results::for_texts(facts, texts.iter().map(String::as_str));
    let passes = [&given, &contexts, &results];
    run.spec.workspaces.iter().map(|binding| workspaces::resolved(binding, &passes)).collect()
}

/// Replaces `tasks.T.status`, `tasks.T.reason` and `tasks.status` in `finally`, then the results (contract
/// 4.3).
fn fill_in_finally(facts: &mut Facts<'_>, verdicts: &[Verdict]) {
    let mut set = Replacements::new();
    let mut failed = false;
    let mut skipped = false;
    for (node, verdict) in facts.nodes.iter().filter(|node| !node.finally).zip(verdicts) {
        skipped |= matches!(verdict, Verdict::Skipped(_));
        let status = match node.outcome {
            Outcome::Succeeded => "Succeeded",
            Outcome::Failed | Outcome::Ignored | Outcome::Cancelled => "Failed",
            Outcome::NotStarted | Outcome::Running => "None",
        };
        failed |= status == "Failed";
        set.text(format!("tasks.{}.status", node.task.name), status);
        set.text(format!("tasks.{}.reason", node.task.name), reason(node));
    }
    let aggregate = match (failed, skipped) {
        (true, _) => "Failed",
        (false, true) => "Completed",
        (false, false) => "Succeeded",
    };
    set.text("tasks.status", aggregate);
    facts.fill_in_finally(&set);
}

/// The reason of the first child that is not successful, else of the first.
fn reason(node: &Node<'_>) -> String {
    let mut reasons = node.children().filter_map(|child| {
        let condition = conditions::find(&child.status.as_ref()?.conditions, conditions::SUCCEEDED)?;
        Some((condition.status == "True", condition.reason.clone()))
    });
    let first = reasons.next();
    match &first {
        Some((true, _)) => reasons.find(|(succeeded, _)| !succeeded).or(first),
        _ => first,
    }
    .map(|(_, reason)| reason)
    .unwrap_or_default()
}

fn report(facts: &Facts<'_>, verdicts: &[Verdict], born: &BTreeSet<String>) -> Vec<Waiting> {
    let reason = |position: usize, verdict: &Verdict| match verdict {
        Verdict::Waiting(parents) if parents.is_empty() => {
            Some("waits for all tasks of the graph to be done".to_owned())
        }
        Verdict::Waiting(parents) => {
            let names: Vec<String> =
                parents.iter().map(|parent| format!("\"{}\"", facts.nodes[*parent].task.name)).collect();
            Some(format!("waits for {}", names.join(", ")))
        }
        Verdict::Due if facts.nodes[position].runs.iter().all(|run| !born.contains(&run.name)) => {
            let name = resolve::wanted_task(&facts.nodes[position]).unwrap_or_default();
            Some(format!("waits for the Task \"{name}\" to be looked up"))
        }
        _ => None,
    };
    verdicts
        .iter()
        .enumerate()
        .filter_map(|(position, verdict)| {
            let reason = reason(position, verdict)?;
            Some(Waiting { subject: facts.nodes[position].task.name.clone(), reason })
        })
        .collect()
}

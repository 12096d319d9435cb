//! Who is told to stop when a run is cancelled, timed out, or over (contract 7.4 and 7.5). Pure.

use std::collections::BTreeMap;

use ropewalk_api::{PipelineRun, TaskRun, conditions, pipelinerun_spec_status};

use super::Snapshot;
use super::facts::Facts;
use super::lifecycle::{self, Request};
use super::schedule::Circumstances;
use super::status::{self, Draft};
use crate::plan::Plan;
use crate::snapshot::Refusal;

/// `spec.status` is `Cancelled`: the run ends at once, its children soon after (contract 7.5).
pub(super) fn run(snapshot: &Snapshot, draft: &mut Draft<'_>) {
    let run = &*snapshot.run;
    let name = run.metadata.name.as_deref().unwrap_or_default();
    let mut children: BTreeMap<&str, Option<&TaskRun>> = recorded(run).map(|name| (name, None)).collect();
    for child in &snapshot.children {
        children.insert(child.metadata.name.as_deref().unwrap_or_default(), Some(&**child));
    }
    let (writes, errors) =
        lifecycle::cancel(run, children.into_iter(), &snapshot.refusals, lifecycle::CANCELLED_MESSAGE);
    draft.write(writes);
    if errors.is_empty() {
        draft.end(false, "Cancelled", &status::cancelled_message(name));
    } else {
        draft.go_on(
            "PipelineRunCouldntCancel",
            &format!(
                "PipelineRun \"{name}\" was cancelled but had errors trying to cancel TaskRuns and/or Runs: \
                 {}",
                errors.join("\n")
            ),
        );
        draft.plan.requeue = Some(lifecycle::RETRY_CANCEL);
    }
}

/// The API server has no room for what there is to say of this run: it ends, in fewer words, as it would otherwise be
/// tried for ever and nobody told.
pub(super) fn give_up(snapshot: &Snapshot, draft: &mut Draft<'_>, refusal: &Refusal) {
    let run = &*snapshot.run;
    let children = snapshot.children.iter();
    let children = children.map(|child| (child.metadata.name.as_deref().unwrap_or_default(), Some(&**child)));
    let (writes, _) = lifecycle::cancel(run, children, &snapshot.refusals, lifecycle::CANCELLED_MESSAGE);
    draft.write(writes);
    draft.status.pipeline_spec = None;
    let message = format!(
        "the status of PipelineRun \"{}\", which repeats its Pipeline, is too large to be stored: {}; make the scripts \
         of its embedded Tasks or the params smaller",
        run.metadata.name.as_deref().unwrap_or_default(),
        crate::diagnosis::quoted(&refusal.message)
    );
    draft.end(false, "PipelineValidationFailed", &message);
}

/// The names of the TaskRuns that the status lists.
fn recorded(run: &PipelineRun) -> impl Iterator<Item = &str> {
    let references = run.status.iter().flat_map(|status| &status.child_references);
    references.filter(|child| child.kind == "TaskRun").map(|child| child.name.as_str())
}

/// Cancels the children that a timeout or a request ends; tells the reason and message of a failure to do so.
pub(super) fn overdue(
    snapshot: &Snapshot,
    draft: &mut Draft<'_>,
    facts: &Facts<'_>,
    circumstances: &Circumstances,
    graph_done: bool,
) -> Option<(&'static str, String)> {
    let Circumstances { request, limits } = circumstances;
    let name = facts.run.metadata.name.as_deref().unwrap_or_default();
    let all = |finally: Option<bool>| {
        let nodes =
            facts.nodes.iter().filter(move |node| finally.is_none_or(|finally| node.finally == finally));
        lifecycle::candidates(nodes)
    };
    let timed_out = if limits.pipeline_over() {
        Some(all(None))
    } else if limits.tasks_over() && !graph_done {
        Some(all(Some(false)))
    } else if limits.finally_over() {
        Some(all(Some(true)))
    } else {
        None
    };
    let is_timeout = timed_out.is_some();
    let (children, message) = match timed_out {
        Some(children) => (children, lifecycle::TIMED_OUT_MESSAGE),
        None if *request == Request::CancelRunFinally && !graph_done => {
            (all(Some(false)), lifecycle::CANCELLED_MESSAGE)
        }
        None => return None,
    };
    let (writes, errors) = lifecycle::cancel(facts.run, children, &snapshot.refusals, message);
    draft.write(writes);
    if errors.is_empty() {
        return None;
    }
    let errors = errors.join("\n");
    Some(if is_timeout {
        let text = format!(
            "PipelineRun \"{name}\" was timed out but had errors trying to time out TaskRuns and/or Runs: \
             {errors}"
        );
        ("PipelineRunCouldntTimeOut", text)
    } else {
        let text = format!(
            "PipelineRun \"{name}\" was cancelled but had errors trying to cancel TaskRuns and/or Runs: \
             {errors}"
        );
        ("PipelineRunCouldntCancel", text)
    })
}

/// What a run that was cancelled or timed out still has to say to its children after its end: one may have
/// been made from a sight of the run that was older than its end.
pub(super) fn leftovers(snapshot: &Snapshot) -> Plan {
    let run = &*snapshot.run;
    let condition =
        run.status.as_ref().and_then(|status| conditions::find(&status.conditions, conditions::SUCCEEDED));
    let message = match condition.map(|condition| condition.reason.as_str()) {
        Some("PipelineRunTimeout") => lifecycle::TIMED_OUT_MESSAGE,
        Some(_) if run.spec.status == pipelinerun_spec_status::CANCELLED => lifecycle::CANCELLED_MESSAGE,
        _ => return Plan::default(),
    };
    let children = snapshot.children.iter();
    let children = children.map(|child| (child.metadata.name.as_deref().unwrap_or_default(), Some(&**child)));
    let (writes, _) = lifecycle::cancel(run, children, &snapshot.refusals, message);
    Plan { writes, ..Plan::default() }
}

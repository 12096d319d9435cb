//! What always holds, checked at every change of the API server's state (ARCHITECTURE.md). No IO.
//!
//! Order is judged from the text of the Pipeline, not by the graph that the engine builds: a second opinion.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use ropewalk_api::conditions::{self, Condition, SUCCEEDED};
use ropewalk_api::{
    Pipeline, PipelineRun, PipelineSpec, PipelineTask, TaskRun, labels, pipelinerun_spec_status,
    taskrun_spec_status,
};
use ropewalk_apiserver::{Delta, DeltaKind};
use ropewalk_core::pod::STEP_PREFIX;

use super::SimError;
use super::api::{Api, Watched};
use super::watch::{controller_uid, read};

/// Pods of one attempt, the first included: a pod lost before its steps began is made again three times.
const PODS_PER_ATTEMPT: usize = 4;

/// An invariant that does not hold.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Violation {
    /// A second child for one pipeline task.
    #[error("pipeline task \"{task}\" got a second child \"{name}\"")]
    ChildTwice {
        /// The pipeline task.
        task: String,
        /// The second child.
        name: String,
    },
    /// A child was made although its run had ended, or its name is none of the Pipeline's.
    #[error("\"{name}\" was created: {why}")]
    Unwarranted {
        /// The child.
        name: String,
        /// What speaks against it.
        why: String,
    },
    /// A child was made before one that it has to wait for had ended.
    #[error("pipeline task \"{task}\" began before \"{before}\" had ended")]
    Order {
        /// The pipeline task.
        task: String,
        /// What it has to wait for.
        before: String,
    },
    /// A child of the graph was made when it was passed over already, or when finally had begun.
    #[error("pipeline task \"{task}\" began too late: {why}")]
    TooLate {
        /// The pipeline task.
        task: String,
        /// What had happened.
        why: &'static str,
    },
    /// A terminal state changed.
    #[error("\"{name}\" had ended and changed from {before} to {after}")]
    Terminal {
        /// The run.
        name: String,
        /// Its condition and completion time.
        before: String,
        /// The same afterwards.
        after: String,
    },
    /// Completion time and condition disagree.
    #[error("\"{name}\" is {condition} with completion time {completion}")]
    Completion {
        /// The run.
        name: String,
        /// Its condition.
        condition: String,
        /// Its completion time.
        completion: String,
    },
    /// A run ended before its children.
    #[error("\"{name}\" ended as {reason} while \"{child}\" was running")]
    Early {
        /// The run.
        name: String,
        /// How it ended.
        reason: String,
        /// The child.
        child: String,
    },
    /// A TaskRun has two pods at work.
    #[error("TaskRun \"{run}\" has pod \"{new}\" beside \"{old}\"")]
    PodTwice {
        /// The TaskRun.
        run: String,
        /// The pod it had.
        old: String,
        /// The pod it got.
        new: String,
    },
    /// Steps of an attempt that had begun run again.
    #[error("pod \"{name}\" was created again although its steps had begun")]
    StepsAgain {
        /// The pod.
        name: String,
    },
    /// Finished attempts were forgotten, or there are too many.
    #[error(
        "TaskRun \"{name}\" went from {before} to {after} finished attempts, with {allowed} retries allowed"
    )]
    Attempts {
        /// The TaskRun.
        name: String,
        /// How many were recorded.
        before: usize,
        /// How many are.
        after: usize,
        /// `spec.retries`.
        allowed: i64,
    },
    /// At rest there is something left to do.
    #[error("nothing happens any more, and yet {0}")]
    Unrest(String),
}

/// The memory of the checks.
#[derive(Debug, Default)]
pub(super) struct Invariants {
    /// Children ever made, by the UID of their PipelineRun and by pipeline task.
    children: BTreeMap<(String, String), String>,
    /// Pipeline tasks that had no child when one that waits for them began: they must be skipped.
    passed_over: BTreeSet<(String, String)>,
    /// PipelineRuns whose finally tasks have begun.
    finally: BTreeSet<String>,
    /// Pods ever made, by the UID of their TaskRun and by name.
    pods: BTreeMap<(String, String), PodsMade>,
}

#[derive(Debug, Default)]
struct PodsMade {
    count: usize,
    begun: bool,
}

impl Invariants {
    /// Judges one change, given the state after it.
    pub(super) fn check(&mut self, delta: &Delta, watched: Watched, api: &Api) -> Result<(), SimError> {
        match (watched, delta.kind) {
            (Watched::TaskRuns, DeltaKind::Added) => {
                self.child_made(&read(&delta.object)?, api)?;
            }
            (Watched::TaskRuns, DeltaKind::Modified) => taskrun_changed(delta)?,
            (Watched::PipelineRuns, DeltaKind::Modified) => pipelinerun_changed(delta, api)?,
            (Watched::Pods, DeltaKind::Added) => self.pod_made(&read(&delta.object)?, api)?,
            (Watched::Pods, DeltaKind::Modified) => self.pod_changed(&read(&delta.object)?),
            _ => {}
        }
        Ok(())
    }

    fn child_made(&mut self, child: &TaskRun, api: &Api) -> Result<(), SimError> {
        let Some(owner) = controller_uid(child) else { return Ok(()) };
        let name = name_of(child);
        let unwarranted = |why: &str| Violation::Unwarranted { name: name.clone(), why: why.to_owned() };
        let runs = all::<PipelineRun>(api, Watched::PipelineRuns)?;
        let Some(run) = runs.into_iter().find(|run| run.metadata.uid.as_deref() == Some(owner)) else {
            return Err(unwarranted("its PipelineRun does not exist").into());
        };
        if run.status.as_ref().is_some_and(|status| conditions::is_done(&status.conditions)) {
            return Err(unwarranted("its PipelineRun had ended").into());
        }
        let label = child.metadata.labels.as_ref().and_then(|labels| labels.get(labels::PIPELINE_TASK));
        let task = label.cloned().unwrap_or_default();
        let spec = spec_of(&run, api)?;
        let key = (owner.to_owned(), task.clone());
        if self.children.insert(key.clone(), name.clone()).is_some() {
            return Err(Violation::ChildTwice { task, name }.into());
        }
        if let Some(member) = spec.tasks.iter().find(|member| member.name == task) {
            if self.finally.contains(owner) {
                return Err(Violation::TooLate { task, why: "finally had begun" }.into());
            }
            if self.passed_over.contains(&key) {
                return Err(Violation::TooLate { task, why: "one that waits for it had begun" }.into());
            }
            for before in waits_for(member, &spec.tasks) {
                self.must_have_ended(owner, &task, before, api)?;
            }
        } else if spec.finally.iter().any(|member| member.name == task) {
            self.finally.insert(owner.to_owned());
            for before in &spec.tasks {
                self.must_have_ended(owner, &task, &before.name, api)?;
            }
        } else {
            return Err(unwarranted("its pipeline task is none of the Pipeline's").into());
        }
        Ok(())
    }

    fn must_have_ended(&mut self, owner: &str, task: &str, before: &str, api: &Api) -> Result<(), SimError> {
        let key = (owner.to_owned(), before.to_owned());
        let Some(name) = self.children.get(&key) else {
            self.passed_over.insert(key);
            return Ok(());
        };
        let runs = all::<TaskRun>(api, Watched::TaskRuns)?;
        let ended = runs.iter().find(|run| name_of(*run) == *name).is_none_or(is_done);
        if ended {
            Ok(())
        } else {
            Err(Violation::Order { task: task.to_owned(), before: before.to_owned() }.into())
        }
    }

    fn pod_made(&mut self, pod: &Pod, api: &Api) -> Result<(), SimError> {
        let Some(owner) = controller_uid(pod) else { return Ok(()) };
        let name = name_of(pod);
        let unwarranted = |why: &str| Violation::Unwarranted { name: name.clone(), why: why.to_owned() };
        let runs = all::<TaskRun>(api, Watched::TaskRuns)?;
        let Some(run) = runs.iter().find(|run| run.metadata.uid.as_deref() == Some(owner)) else {
            return Err(unwarranted("its TaskRun does not exist").into());
        };
        if is_done(run) {
            return Err(unwarranted("its TaskRun had ended").into());
        }
        let at_work = |other: &Pod| {
            controller_uid(other) == Some(owner)
                && other.metadata.uid != pod.metadata.uid
                && other.metadata.deletion_timestamp.is_none()
                && !is_over(other)
        };
        if let Some(old) = all::<Pod>(api, Watched::Pods)?.iter().find(|other| at_work(other)) {
            let (old, run) = (name_of(old), name_of(run));
            return Err(Violation::PodTwice { run, old, new: name }.into());
        }
        let made = self.pods.entry((owner.to_owned(), name.clone())).or_default();
        made.count += 1;
        if made.begun {
            return Err(Violation::StepsAgain { name }.into());
        }
        if made.count > PODS_PER_ATTEMPT {
            return Err(unwarranted("it was lost too often already").into());
        }
        Ok(())
    }

    fn pod_changed(&mut self, pod: &Pod) {
        let Some(owner) = controller_uid(pod) else { return };
        if has_begun(pod) {
            self.pods.entry((owner.to_owned(), name_of(pod))).or_default().begun = true;
        }
    }
}

/// Nothing may be left over when nothing happens any more.
pub(super) fn at_rest(api: &Api) -> Result<(), SimError> {
    let unrest = |why: String| SimError::from(Violation::Unrest(why));
    let mut cancelled = BTreeSet::new();
    for run in all::<TaskRun>(api, Watched::TaskRuns)? {
        if !is_done(&run) {
            return Err(unrest(format!("TaskRun \"{}\" has not ended", name_of(&run))));
        }
        if reason(&run) == Some(taskrun_spec_status::CANCELLED) {
            cancelled.extend(run.metadata.uid);
        }
    }
    for run in all::<PipelineRun>(api, Watched::PipelineRuns)? {
        if !run.status.as_ref().is_some_and(|status| conditions::is_done(&status.conditions)) {
            return Err(unrest(format!("PipelineRun \"{}\" has not ended", name_of(&run))));
        }
    }
    for pod in all::<Pod>(api, Watched::Pods)? {
        let name = name_of(&pod);
        if !is_over(&pod) {
            return Err(unrest(format!("pod \"{name}\" is at work")));
        }
        if controller_uid(&pod).is_some_and(|owner| cancelled.contains(owner)) && phase(&pod) == "Succeeded" {
            return Err(unrest(format!("pod \"{name}\" did its work although its run was cancelled")));
        }
    }
    Ok(())
}

fn taskrun_changed(delta: &Delta) -> Result<(), SimError> {
    let Some(previous) = &delta.previous else { return Ok(()) };
    let (before, after): (TaskRun, TaskRun) = (read(previous)?, read(&delta.object)?);
    let name = name_of(&after);
    let allowed = after.spec.retries;
    let (before, after) = (before.status.unwrap_or_default(), after.status.unwrap_or_default());
    let attempts = (before.retries_status.len(), after.retries_status.len());
    if attempts.1 < attempts.0 || i64::try_from(attempts.1).is_ok_and(|attempts| attempts > allowed) {
        return Err(Violation::Attempts { name, before: attempts.0, after: attempts.1, allowed }.into());
    }
    let ends = |status: &ropewalk_api::TaskRunStatus| {
        (status.conditions.clone(), status.completion_time.as_ref().map(|time| time.0.to_string()))
    };
    compare_ends(&name, &ends(&before), &ends(&after))
}

fn pipelinerun_changed(delta: &Delta, api: &Api) -> Result<(), SimError> {
    let Some(previous) = &delta.previous else { return Ok(()) };
    let (before, run): (PipelineRun, PipelineRun) = (read(previous)?, read(&delta.object)?);
    let (name, uid) = (name_of(&run), run.metadata.uid.clone());
    let (before, after) = (before.status.unwrap_or_default(), run.status.clone().unwrap_or_default());
    let ends = |status: &ropewalk_api::PipelineRunStatus| {
        (status.conditions.clone(), status.completion_time.as_ref().map(|time| time.0.to_string()))
    };
    compare_ends(&name, &ends(&before), &ends(&after))?;
    let (was_done, condition) =
        (conditions::is_done(&before.conditions), conditions::find(&after.conditions, SUCCEEDED));
    let Some(condition) = condition.filter(|_| !was_done && conditions::is_done(&after.conditions)) else {
        return Ok(());
    };
    for child in all::<TaskRun>(api, Watched::TaskRuns)? {
        if controller_uid(&child) != uid.as_deref() || is_done(&child) {
            continue;
        }
        // Who cancels, or runs out of time, does not wait for the children. At rest they have all ended.
        let abrupt =
            run.spec.status == pipelinerun_spec_status::CANCELLED || condition.reason == "PipelineRunTimeout";
        if !abrupt {
            let (reason, child) = (condition.reason.clone(), name_of(&child));
            return Err(Violation::Early { name, reason, child }.into());
        }
    }
    Ok(())
}

type Ends = (Vec<Condition>, Option<String>);

fn compare_ends(name: &str, before: &Ends, after: &Ends) -> Result<(), SimError> {
    let shown = |(conditions, completion): &Ends| {
        let condition = conditions::find(conditions, SUCCEEDED).cloned().unwrap_or_default();
        let Condition { status, reason, message, .. } = condition;
        format!("{status}/{reason}/{message}/{}", completion.as_deref().unwrap_or("-"))
    };
    if conditions::is_done(&before.0) && shown(before) != shown(after) {
        let (before, after) = (shown(before), shown(after));
        return Err(Violation::Terminal { name: name.to_owned(), before, after }.into());
    }
    if conditions::is_done(&after.0) != after.1.is_some() {
        return Err(Violation::Completion {
            name: name.to_owned(),
            condition: shown(after),
            completion: after.1.clone().unwrap_or_else(|| "none".to_owned()),
        }
        .into());
    }
    Ok(())
}

/// The tasks of the graph that this one names: after which it runs, or whose results it reads.
fn waits_for<'a>(task: &PipelineTask, all: &'a [PipelineTask]) -> impl Iterator<Item = &'a str> {
    let mut task = task.clone();
    let after = std::mem::take(&mut task.run_after);
    let text = serde_json::to_string(&task).unwrap_or_default();
    all.iter().map(|other| other.name.as_str()).filter(move |name| {
        after.iter().any(|after| after == name) || text.contains(&format!("$(tasks.{name}.results."))
    })
}

fn spec_of(run: &PipelineRun, api: &Api) -> Result<PipelineSpec, SimError> {
    if let Some(spec) = &run.spec.pipeline_spec {
        return Ok(spec.clone());
    }
    let name = run.spec.pipeline_ref.as_ref().map(|reference| reference.name.clone());
    let pipelines = all::<Pipeline>(api, Watched::Pipelines)?;
    let found = pipelines.into_iter().find(|pipeline| pipeline.metadata.name == name);
    Ok(found.map(|pipeline| pipeline.spec).unwrap_or_default())
}

fn all<K: serde::de::DeserializeOwned>(api: &Api, watched: Watched) -> Result<Vec<K>, SimError> {
    api.objects(watched).map(|object| read(object)).collect()
}

fn name_of<K: kube::Resource>(object: &K) -> String {
    object.meta().name.clone().unwrap_or_default()
}

fn is_done(run: &TaskRun) -> bool {
    run.status.as_ref().is_some_and(|status| conditions::is_done(&status.conditions))
}

fn reason(run: &TaskRun) -> Option<&str> {
    let conditions = &run.status.as_ref()?.conditions;
    conditions::find(conditions, SUCCEEDED).map(|condition| condition.reason.as_str())
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn is_over(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// A container of a step has been started, as far as the status tells.
fn has_begun(pod: &Pod) -> bool {
    let PodStatus { container_statuses, .. } = pod.status.clone().unwrap_or_default();
    container_statuses.iter().flatten().any(|container| {
        container.name.starts_with(STEP_PREFIX)
            && container
                .state
                .as_ref()
                .is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    })
}

#[cfg(test)]
mod tests;

//! The last words of `ropewalk run`: what became of every run, task by task. Pure.

use std::fmt::Write as _;

use ropewalk_api::conditions::{self, Condition, SUCCEEDED};
use ropewalk_api::{ParamValue, PipelineRun, TaskRun};

use super::follow::{Ended, RunKey, key};

/// The summary of all runs, and whether every one succeeded.
pub(super) fn summarize(runs: &[RunKey], ended: &Ended) -> (String, bool) {
    let mut text = String::new();
    let mut succeeded = true;
    for run in runs {
        let entry = key(run.kind, &run.namespace, &run.name);
        let took = took(ended, &entry);
        let conditions = match run.kind {
            "PipelineRun" => {
                ended.pipelineruns.get(&entry).map(|run| pipelinerun(&mut text, run, &took, ended))
            }
            _ => ended.taskruns.get(&entry).map(|run| taskrun(&mut text, run, &took)),
        };
        succeeded &= conditions.is_some_and(conditions::is_successful);
    }
    (text, succeeded)
}

fn pipelinerun<'a>(text: &mut String, run: &'a PipelineRun, took: &str, ended: &Ended) -> &'a [Condition] {
    let Some(status) = &run.status else { return &[] };
    let name = run.metadata.name.as_deref().unwrap_or_default();
    let namespace = run.metadata.namespace.as_deref().unwrap_or_default();
    headline(text, "PipelineRun", name, &status.conditions, took);
    let mut rows: Vec<[String; 4]> = Vec::new();
    for child in &status.child_references {
        let entry = key(&child.kind, namespace, &child.name);
        let Some(child_run) = ended.taskruns.get(&entry) else { continue };
        let Some(status) = &child_run.status else { continue };
        let condition = conditions::find(&status.conditions, SUCCEEDED);
        let failed = condition.filter(|condition| condition.status != "True");
        rows.push([
            child.pipeline_task_name.clone(),
            condition.map_or_else(|| "did not end".to_owned(), |condition| condition.reason.clone()),
            self::took(ended, &entry),
            failed.map(|condition| condition.message.clone()).unwrap_or_default(),
        ]);
    }
    for skipped in &status.skipped_tasks {
        rows.push([skipped.name.clone(), "Skipped".to_owned(), String::new(), skipped.reason.clone()]);
    }
    table(text, &rows);
    results(text, status.results.iter().map(|result| (result.name.as_str(), &result.value)));
    &status.conditions
}

fn taskrun<'a>(text: &mut String, run: &'a TaskRun, took: &str) -> &'a [Condition] {
    let Some(status) = &run.status else { return &[] };
    let name = run.metadata.name.as_deref().unwrap_or_default();
    headline(text, "TaskRun", name, &status.conditions, took);
    let rows: Vec<_> = status
        .steps
        .iter()
        .map(|step| {
            let ended = step.terminated.as_ref();
            let code = ended.map(|ended| ended.exit_code).filter(|code| *code != 0);
            [
                step.name.clone(),
                step.termination_reason.clone(),
                String::new(),
                code.map(|code| format!("exit code {code}")).unwrap_or_default(),
            ]
        })
        .collect();
    table(text, &rows);
    results(text, status.results.iter().map(|result| (result.name.as_str(), &result.value)));
    &status.conditions
}

fn headline(text: &mut String, kind: &str, name: &str, conditions: &[Condition], took: &str) {
    let took = if took.is_empty() { String::new() } else { format!(" in {took}") };
    // Writing to a String cannot fail, here and below.
    let _ = match conditions::find(conditions, SUCCEEDED) {
        Some(condition) if condition.status == "True" => {
            writeln!(text, "{kind} \"{name}\" succeeded{took}: {}", condition.message)
        }
        Some(condition) => {
            writeln!(text, "{kind} \"{name}\" failed{took} ({}): {}", condition.reason, condition.message)
        }
        None => writeln!(text, "{kind} \"{name}\" did not end"),
    };
    for condition in conditions.iter().filter(|condition| condition.type_ != SUCCEEDED) {
        let _ = writeln!(text, "  {}", condition.message);
    }
}

fn table(text: &mut String, rows: &[[String; 4]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let (first, second, third) = (width(0), width(1), width(2));
    for [name, outcome, took, why] in rows {
        let line = format!("  {name:first$}  {outcome:second$}  {took:>third$}  {why}");
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

fn results<'a>(text: &mut String, results: impl Iterator<Item = (&'a str, &'a ParamValue)>) {
    for (index, (name, value)) in results.enumerate() {
        if index == 0 {
            text.push_str("  results:\n");
        }
        let value = match value {
            ParamValue::String(value) => value.trim_end().to_owned(),
            other => serde_json::to_string(other).unwrap_or_default(),
        };
        let _ = writeln!(text, "    {name} = {value}");
    }
}

fn took(ended: &Ended, entry: &str) -> String {
    ended.took.get(entry).map(|took| format!("{:.1} s", took.as_secs_f64())).unwrap_or_default()
}

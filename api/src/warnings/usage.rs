//! Params, workspaces and results that are declared and then not used; names set twice. Pure.

use std::cell::Cell;
use std::collections::BTreeSet;

use serde_json::Value;

use super::{Doubts, Warning, items, text, texts};
use crate::strict::Hints;
use crate::variables;

/// How much text is searched for the directories of workspaces that nothing else mentions, in bytes: some milliseconds'
/// worth, and more than a thousand workspaces of an ordinary object need. What is left over is not doubted.
const SEARCHED: usize = 16 << 20;

/// What the texts of a spec mention.
#[derive(Default)]
pub(super) struct Uses<'a> {
    /// What follows `params`, dots included.
    params: BTreeSet<String>,
    workspaces: BTreeSet<String>,
    results: BTreeSet<String>,
    any_result: bool,
    texts: Vec<&'a str>,
    /// The length of all of them.
    size: usize,
    /// How much has been searched.
    searched: Cell<usize>,
    hints: Hints,
}

impl<'a> Uses<'a> {
    pub(super) fn of(spec: &'a Value) -> Self {
        let mut uses = Self::default();
        uses.walk(spec);
        uses
    }

    fn walk(&mut self, value: &'a Value) {
        match value {
            Value::String(text) => {
                self.texts.push(text);
                self.size += text.len();
                // A program may be told the directory alone.
                self.any_result |= text.contains("/tekton/results");
                for variable in variables::variables(text) {
                    let Some(reference) = variable.path() else {
                        // A shell puts the name together: `$(results.digest-${i}.path)`.
                        self.any_result |= variable.key.starts_with("results.");
                        continue;
                    };
                    let (set, name) = match reference.names().as_slice() {
                        ["params", name @ ..] | ["inputs", "params", name @ ..] => {
                            self.params.insert(name.join("."));
                            continue;
                        }
                        ["workspaces", name, ..] => (&mut self.workspaces, *name),
                        ["results", name, "path"] => (&mut self.results, *name),
                        _ => continue,
                    };
                    set.insert(name.to_owned());
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.walk(item)),
            Value::Object(fields) => fields.values().for_each(|value| self.walk(value)),
            _ => {}
        }
    }

    /// A dotted name can be written without quotes in some places: any beginning of what is used counts.
    fn has_param(&self, name: &str) -> bool {
        let dotted = format!("{name}.");
        let longer = self.params.range(dotted.clone()..).next();
        self.params.contains(name) || longer.is_some_and(|used| used.starts_with(&dotted))
    }

    /// Whether more texts than these mention it, as far as that can be found out within bounds.
    fn mentions(&self, part: &str, declared: usize) -> bool {
        let searched = self.searched.get() + self.size;
        if searched > SEARCHED {
            return true;
        }
        self.searched.set(searched);
        self.texts.iter().filter(|text| text.contains(part)).nth(declared).is_some()
    }
}

/// `uses` are those of everything around: a run's bindings use params of what is embedded in it.
pub(super) fn params(spec: &Value, path: &str, uses: &Uses<'_>, warnings: &mut Doubts) {
    for (path, param) in items(spec, "params", path) {
        let name = text(param, "name");
        if !name.is_empty() && !uses.has_param(name) {
            warnings.push(|| {
                let message = format!("nothing uses param \"{name}\"");
                Warning { path: format!("{}.name", path()), message, hint: String::new() }
            });
        }
    }
}

pub(super) fn task(spec: &Value, path: &str, uses: &Uses<'_>, warnings: &mut Doubts) {
    params(spec, path, uses, warnings);
    let containers = || items(spec, "steps", path).chain(items(spec, "sidecars", path));
    // A StepAction may use what is declared here.
    let referring = items(spec, "steps", path).any(|(_, step)| step.get("ref").is_some_and(|r| !r.is_null()));
    let taken: BTreeSet<&str> =
        containers().flat_map(|(_, container)| texts(container, "workspaces", "name")).collect();
    let declared: BTreeSet<&str> = texts(spec, "workspaces", "name").collect();
    for (at, workspace) in items(spec, "workspaces", path).filter(|_| !referring) {
        let name = text(workspace, "name");
        let mentioned = || match text(workspace, "mountPath") {
            "" => uses.mentions(&format!("/workspace/{name}"), 0),
            // The declaration itself mentions a mount path of its own.
            given => uses.mentions(given, 1),
        };
        if !(name.is_empty() || taken.contains(name) || uses.workspaces.contains(name) || mentioned()) {
            warnings.push(|| {
                let message = format!("nothing uses workspace \"{name}\"");
                let others = uses.workspaces.iter().map(String::as_str);
                let hint = match uses.hints.nearest(name, others.filter(|other| !declared.contains(other))) {
                    Some(other) => format!("\"{other}\" is used, and is declared nowhere"),
                    None => format!("its files are at $(workspaces.{name}.path)"),
                };
                Warning { path: format!("{}.name", at()), message, hint }
            });
        }
    }
    let anything = referring || uses.any_result;
    for (at, result) in items(spec, "results", path).filter(|_| !anything) {
        let name = text(result, "name");
        let taken = result.get("value").is_some_and(|value| !value.is_null());
        if !(name.is_empty() || taken || uses.results.contains(name)) {
            warnings.push(|| {
                let message = format!("no step writes result \"{name}\"");
                let hint = format!("its file is $(results.{name}.path)");
                Warning { path: format!("{}.name", at()), message, hint }
            });
        }
    }
    for (path, container) in containers().filter(|(_, container)| container.get("env").is_some()) {
        let (mut seen, path) = (BTreeSet::new(), path());
        for (at, env) in items(container, "env", &path) {
            let name = text(env, "name");
            if !seen.insert(name) {
                warnings.push(|| {
                    let message = format!("environment variable \"{name}\" is set twice here");
                    let hint = "the last one is taken".to_owned();
                    Warning { path: format!("{}.name", at()), message, hint }
                });
            }
        }
    }
}

pub(super) fn pipeline(spec: &Value, path: &str, uses: &Uses<'_>, warnings: &mut Doubts) {
    params(spec, path, uses, warnings);
    let tasks = || items(spec, "tasks", path).chain(items(spec, "finally", path));
    let mut bound = BTreeSet::new();
    for (_, task) in tasks() {
        bound.extend(items(task, "workspaces", "").filter_map(|(_, binding)| {
            [text(binding, "workspace"), text(binding, "name")].into_iter().find(|name| !name.is_empty())
        }));
        // Workspaces reach embedded tasks by their name alone.
        bound.extend(task.get("taskSpec").into_iter().flat_map(|spec| texts(spec, "workspaces", "name")));
    }
    for (at, workspace) in items(spec, "workspaces", path) {
        let name = text(workspace, "name");
        let mentioned = || uses.workspaces.contains(name) || uses.mentions(&format!("/workspace/{name}"), 0);
        if !(name.is_empty() || bound.contains(name) || mentioned()) {
            warnings.push(|| {
                let message = format!("no task uses workspace \"{name}\"");
                Warning { path: format!("{}.name", at()), message, hint: String::new() }
            });
        }
    }
    let outer: BTreeSet<&str> = texts(spec, "params", "name").collect();
    for (at, pipeline_task) in tasks() {
        let Some(embedded) = pipeline_task.get("taskSpec").filter(|embedded| !embedded.is_null()) else {
            continue;
        };
        let at = format!("{}.taskSpec", at());
        task(embedded, &at, uses, warnings);
        let given: BTreeSet<&str> = texts(pipeline_task, "params", "name").collect();
        for (path, param) in items(embedded, "params", &at) {
            let name = text(param, "name");
            let own_default = param.get("default").is_some_and(|default| !default.is_null());
            if own_default && !given.contains(name) && outer.contains(name) {
                warnings.push(|| {
                    let message = format!("the task's param \"{name}\" hides the pipeline's");
                    let hint = format!("pass it on: {{name: {name}, value: $(params.{name})}}");
                    Warning { path: format!("{}.name", path()), message, hint }
                });
            }
        }
    }
}

//! What the documents define, found by name, and what each definition asks of whoever refers to it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ropewalk_api::{
    GROUP, ParamSpec, ParamType, Pipeline, PipelineRef, PipelineSpec, PropertySpec, StepAction, Task,
    TaskRef, TaskSpec,
};

use super::{Report, did_you_mean, read};
use crate::diagnostic::Diagnostic;
use crate::documents::Document;

/// The definitions among the documents.
pub(super) struct Definitions<'a> {
    documents: &'a [Document],
    tasks: Vec<(&'a Document, Task)>,
    pipelines: Vec<(&'a Document, Pipeline)>,
    step_actions: Vec<(&'a Document, StepAction)>,
}

/// What somebody who refers to a definition has to know of it.
pub(super) struct Interface<'a> {
    /// In words: `Task "build"`.
    pub(super) what: String,
    /// Its params.
    pub(super) params: &'a [ParamSpec],
    /// Its workspaces, and whether each may stay unbound.
    workspaces: Vec<(&'a str, bool)>,
    /// Its results: their types, and the keys of objects.
    pub(super) results: BTreeMap<&'a str, (ParamType, &'a BTreeMap<String, PropertySpec>)>,
    /// Its steps; the tasks of a Pipeline.
    pub(super) steps: Vec<&'a str>,
    /// Its sidecars.
    pub(super) sidecars: Vec<&'a str>,
    /// It is embedded: params and workspaces from around reach it without being declared.
    pub(super) open: bool,
}

impl<'a> Interface<'a> {
    pub(super) fn of_task(what: String, spec: &'a TaskSpec, open: bool) -> Self {
        let results = spec.results.iter();
        Self {
            what,
            params: &spec.params,
            workspaces: spec.workspaces.iter().map(|w| (w.name.as_str(), w.optional)).collect(),
            results: results.map(|r| (r.name.as_str(), (r.value_type(), &r.properties))).collect(),
            steps: spec.steps.iter().map(|step| step.name.as_str()).collect(),
            sidecars: spec.sidecars.iter().map(|sidecar| sidecar.name.as_str()).collect(),
            open,
        }
    }

    pub(super) fn of_pipeline(what: String, spec: &'a PipelineSpec, open: bool) -> Self {
        Self {
            what,
            params: &spec.params,
            workspaces: spec.workspaces.iter().map(|w| (w.name.as_str(), w.optional)).collect(),
            results: BTreeMap::new(),
            steps: spec.tasks.iter().chain(&spec.finally).map(|task| task.name.as_str()).collect(),
            sidecars: Vec::new(),
            open,
        }
    }

    /// Every workspace that must be bound is, and nothing else.
    pub(super) fn check_workspaces(&self, bound: &[&str], base: &str, report: &mut Report<'_>) {
        for (name, _) in
            self.workspaces.iter().filter(|(name, optional)| !(*optional || bound.contains(name)))
        {
            report.error(
                &format!("{base}.workspaces"),
                "",
                format!("{} needs workspace \"{name}\", and nothing is bound to it", self.what),
                Some(format!("bind \"{name}\", or declare it optional")),
            );
        }
        let declared = || self.workspaces.iter().map(|(name, _)| *name);
        for (index, name) in bound.iter().enumerate() {
            if !self.open && !declared().any(|declared| declared == *name) {
                report.error(
                    &format!("{base}.workspaces[{index}].name"),
                    name,
                    format!("{} declares no workspace \"{name}\"", self.what),
                    did_you_mean(name, declared()),
                );
            }
        }
    }
}

impl<'a> Definitions<'a> {
    pub(super) fn new(documents: &'a [Document]) -> Self {
        let of = |kind: &'static str| {
            documents.iter().filter(move |document| {
                document.kind() == kind && document.api_version().starts_with(&format!("{GROUP}/"))
            })
        };
        Self {
            documents,
            tasks: of("Task").filter_map(|d| Some((d, read(d)?))).collect(),
            pipelines: of("Pipeline").filter_map(|d| Some((d, read(d)?))).collect(),
            step_actions: of("StepAction").filter_map(|d| Some((d, read(d)?))).collect(),
        }
    }

    /// The Task that this document is.
    pub(super) fn own_task(&self, document: &Document) -> Option<&Task> {
        own(&self.tasks, document)
    }

    /// The Pipeline that this document is.
    pub(super) fn own_pipeline(&self, document: &Document) -> Option<&Pipeline> {
        own(&self.pipelines, document)
    }

    /// Objects of one file of which only the last would be there after they are applied.
    pub(super) fn duplicates(&self) -> Vec<Diagnostic> {
        let mut seen = BTreeSet::new();
        let definitions = self.documents.iter().filter(|document| {
            document.api_version().starts_with(&format!("{GROUP}/"))
                && document.value["metadata"]["name"].is_string()
        });
        let twice =
            definitions.filter(|d| !seen.insert((Arc::as_ptr(&d.source), d.kind(), namespace(d), d.name())));
        twice
            .map(|document| {
                let message =
                    format!("{} \"{}\" is defined more than once", document.kind(), document.name());
                let place = document.locate_within("metadata.name", document.name());
                Diagnostic::new(message).at(Arc::clone(&document.source), place).as_warning()
            })
            .collect()
    }

    pub(super) fn task(
        &self,
        task_ref: &TaskRef,
        path: &str,
        report: &mut Report<'_>,
    ) -> Option<Interface<'_>> {
        let own_kind = task_ref.api_version.is_empty() && ["", "Task"].contains(&task_ref.kind.as_str());
        if !own_kind || !task_ref.resolver.is_empty() {
            return None;
        }
        let task = find(&self.tasks, "Task", &task_ref.name, path, report)?;
        Some(Interface::of_task(format!("Task \"{}\"", task_ref.name), &task.spec, false))
    }

    pub(super) fn pipeline(
        &self,
        pipeline_ref: &PipelineRef,
        path: &str,
        report: &mut Report<'_>,
    ) -> Option<Interface<'_>> {
        if !pipeline_ref.resolver.is_empty() {
            return None;
        }
        let pipeline = find(&self.pipelines, "Pipeline", &pipeline_ref.name, path, report)?;
        Some(Interface::of_pipeline(format!("Pipeline \"{}\"", pipeline_ref.name), &pipeline.spec, false))
    }

    pub(super) fn step_action(
        &self,
        name: &str,
        path: &str,
        report: &mut Report<'_>,
    ) -> Option<Interface<'_>> {
        let action = find(&self.step_actions, "StepAction", name, path, report)?;
        Some(Interface {
            what: format!("StepAction \"{name}\""),
            params: &action.spec.params,
            workspaces: Vec::new(),
            results: BTreeMap::new(),
            steps: Vec::new(),
            sidecars: Vec::new(),
            open: false,
        })
    }
}

fn own<'a, T>(all: &'a [(&Document, T)], document: &Document) -> Option<&'a T> {
    all.iter().find(|(own, _)| std::ptr::eq(*own, document)).map(|(_, object)| object)
}

/// The definition of this name in the same namespace, first in the same file; one without a namespace goes wherever it
/// is applied to.
///
/// A name close to a given one is taken for mistyped, unless only digits differ: versions are numbered.
fn find<'a, T>(
    all: &'a [(&Document, T)],
    kind: &str,
    name: &str,
    path: &str,
    report: &mut Report<'_>,
) -> Option<&'a T> {
    if name.is_empty() || name.contains("$(") || name.contains("://") {
        return None;
    }
    let here = namespace(report.document);
    let reachable = |document: &Document| {
        let there = namespace(document);
        here.is_empty() || there.is_empty() || here == there
    };
    let names =
        || all.iter().filter(|(document, _)| reachable(document)).map(|(document, _)| document.name());
    let of_name = || all.iter().filter(|(document, _)| reachable(document) && document.name() == name);
    if let Some((_, object)) = of_name().find(|(d, _)| Arc::ptr_eq(&d.source, &report.document.source)) {
        return Some(object);
    }
    let mut elsewhere = of_name();
    if let Some((_, object)) = elsewhere.next() {
        // Files that define the same are for different places; which of them is meant cannot be said.
        return elsewhere.next().is_none().then_some(object);
    }
    let letters = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    let hint = did_you_mean(name, names().filter(|known| letters(known) != letters(name)));
    let message = format!("there is no {kind} \"{name}\" among the files");
    let path = format!("{path}.name");
    if hint.is_some() {
        report.error(&path, name, message, hint);
    } else if names().next().is_some() {
        report.warning(&path, name, message, Some("it has to be in the cluster".to_owned()));
    }
    None
}

fn namespace(document: &Document) -> &str {
    document.value["metadata"]["namespace"].as_str().unwrap_or_default()
}

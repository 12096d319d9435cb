//! What the documents of `ropewalk run` amount to: objects to apply, and runs to start. Pure.

use std::path::Path;

use ropewalk_api::ParamValue;
use ropewalk_standalone::node::DIRECTORY_ANNOTATION;
use serde_json::{Value, json};

use crate::diagnostic::Diagnostic;
use crate::documents::Document;

/// Objects in the order they are to be created.
#[derive(Debug, Default)]
pub struct Objects {
    /// Everything that is not a run, in the order of the documents.
    pub definitions: Vec<Object>,
    /// The runs to start.
    pub runs: Vec<Object>,
}

/// One object, and the document it was written in if it was.
#[derive(Clone, Debug)]
pub struct Object {
    /// The object, with its namespace.
    pub value: Value,
    /// Where it came from.
    pub document: Option<Document>,
}

impl Object {
    /// The object's `kind`.
    pub fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap_or_default()
    }

    /// `metadata.namespace`.
    pub fn namespace(&self) -> &str {
        self.value["metadata"]["namespace"].as_str().unwrap_or_default()
    }
}

/// What the command line adds to the documents.
#[derive(Debug)]
pub struct Additions<'a> {
    /// `--param`
    pub params: &'a [(String, String)],
    /// `--workspace`, as absolute directories.
    pub workspaces: &'a [(String, String)],
    /// `--namespace`
    pub namespace: &'a str,
}

/// Sorts documents into definitions and runs. With no run among them, the lone Pipeline, or else the lone Task, is run.
pub fn assemble(documents: Vec<Document>, additions: &Additions<'_>) -> Result<Objects, Diagnostic> {
    let mut objects = Objects::default();
    for document in documents {
        let mut value = document.value.clone();
        // A namespace is not in one; the API server drops the field.
        if value["metadata"]["namespace"].as_str().is_none_or(str::is_empty) {
            value["metadata"]["namespace"] = additions.namespace.into();
        }
        let object = Object { value, document: Some(document) };
        if is_run(&object) { objects.runs.push(object) } else { objects.definitions.push(object) }
    }
    if objects.runs.is_empty() {
        let run = run_of_definition(&objects.definitions, additions)?;
        objects.runs.push(run);
    }
    for (name, directory) in additions.workspaces {
        let claim = claim(name, directory, additions.namespace);
        objects.definitions.push(Object { value: claim, document: None });
    }
    for run in &mut objects.runs {
        add(&mut run.value, additions);
    }
    Ok(objects)
}

fn is_run(object: &Object) -> bool {
    let ours = object.value["apiVersion"].as_str().is_some_and(|version| version.starts_with("tekton.dev/"));
    ours && matches!(object.kind(), "TaskRun" | "PipelineRun")
}

fn run_of_definition(definitions: &[Object], additions: &Additions<'_>) -> Result<Object, Diagnostic> {
    let of_kind = |kind: &str| definitions.iter().filter(|object| object.kind() == kind).collect::<Vec<_>>();
    let (definition, kind, reference) = match (of_kind("Pipeline").as_slice(), of_kind("Task").as_slice()) {
        (&[pipeline], _) => (pipeline, "PipelineRun", "pipelineRef"),
        (&[], &[task]) => (task, "TaskRun", "taskRef"),
        (&[], &[]) => {
            return Err(Diagnostic::new("there is nothing to run in the files")
                .hint("give a file with a PipelineRun, a TaskRun, or a single Pipeline or Task"));
        }
        _ => {
            return Err(Diagnostic::new("the files define several things that could be run, and no run")
                .hint("add a PipelineRun or a TaskRun that names one of them"));
        }
    };
    let name = definition.value["metadata"]["name"].as_str().unwrap_or_default();
    // A run may carry params nobody declared; on the command line that is a slip of the finger.
    let declared = |param: &str| {
        let params = definition.value["spec"]["params"].as_array();
        params.is_some_and(|params| params.iter().any(|declared| declared["name"] == param))
    };
    if let Some((param, _)) = additions.params.iter().find(|(param, _)| !declared(param)) {
        return Err(Diagnostic::new(format!(
            "{} \"{name}\" declares no param \"{param}\"",
            definition.kind()
        )));
    }
    let value = json!({
        "apiVersion": "tekton.dev/v1",
        "kind": kind,
        "metadata": { "generateName": format!("{name}-run-"), "namespace": definition.namespace() },
        "spec": { reference: { "name": name } },
    });
    Ok(Object { value, document: None })
}

/// A param given twice counts as given on the command line.
fn add(run: &mut Value, additions: &Additions<'_>) {
    for (name, text) in additions.params {
        // A JSON string stays the text it was typed as; only arrays and objects are decoded.
        let value = match ParamValue::decode(text) {
            ParamValue::String(_) => ParamValue::String(text.clone()),
            other => other,
        };
        set(&mut run["spec"]["params"], name, json!({ "name": name, "value": value }));
    }
    for (name, _) in additions.workspaces {
        let binding = json!({ "name": name, "persistentVolumeClaim": { "claimName": claim_name(name) } });
        set(&mut run["spec"]["workspaces"], name, binding);
    }
}

fn set(list: &mut Value, name: &str, item: Value) {
    if !list.is_array() {
        *list = json!([]);
    }
    if let Some(items) = list.as_array_mut() {
        items.retain(|old| old["name"] != name);
        items.push(item);
    }
}

fn claim_name(workspace: &str) -> String {
    format!("workspace-{}", workspace.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-"))
}

fn claim(workspace: &str, directory: &str, namespace: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": claim_name(workspace),
            "namespace": namespace,
            "annotations": { DIRECTORY_ANNOTATION: directory },
        },
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": { "requests": { "storage": "1Gi" } },
        },
    })
}

/// Makes the directories of `--workspace` absolute; each has to exist.
pub(super) fn directories(workspaces: &[(String, String)]) -> Result<Vec<(String, String)>, Diagnostic> {
    workspaces
        .iter()
        .map(|(name, directory)| {
            let path = Path::new(directory).canonicalize().map_err(|error| {
                Diagnostic::new(format!("cannot use \"{directory}\" as workspace \"{name}\": {error}"))
            })?;
            if !path.is_dir() {
                return Err(Diagnostic::new(format!(
                    "\"{directory}\" for workspace \"{name}\" is not a directory"
                )));
            }
            match path.to_str() {
                Some(path) => Ok((name.clone(), path.to_owned())),
                None => Err(Diagnostic::new(format!("the path of workspace \"{name}\" is not UTF-8"))),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::{Source, parse};

    fn assembled(text: &str, params: &[(&str, &str)]) -> Result<Objects, Diagnostic> {
        let documents = parse(Source::new("test.yaml", text)).expect("valid YAML");
        let params: Vec<_> = params.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let workspaces = [("source".to_owned(), "/src".to_owned())];
        assemble(documents, &Additions { params: &params, workspaces: &workspaces, namespace: "ns" })
    }

    const TASK: &str = "apiVersion: tekton.dev/v1\nkind: Task\nmetadata:\n  name: t\nspec:\n  params: [{name: a}, {name: b}, {name: c}]\n";

    #[test]
    fn a_lone_task_becomes_a_run() {
        let objects = assembled(TASK, &[("a", "1"), ("b", "[\"x\"]"), ("c", "\"q\"")]).expect("runs");
        let run = &objects.runs[0].value;
        assert_eq!(run["kind"], "TaskRun");
        assert_eq!(run["spec"]["taskRef"]["name"], "t");
        assert_eq!(run["metadata"]["namespace"], "ns");
        let value = |index: usize| &run["spec"]["params"][index]["value"];
        assert_eq!((value(0), value(1), value(2)), (&json!("1"), &json!(["x"]), &json!("\"q\"")));
        assert_eq!(run["spec"]["workspaces"][0]["persistentVolumeClaim"]["claimName"], "workspace-source");
        let claim = &objects.definitions[1].value;
        assert_eq!(claim["metadata"]["annotations"][DIRECTORY_ANNOTATION], "/src");
    }

    #[test]
    fn a_param_that_a_lone_task_does_not_declare_is_refused() {
        let error = assembled(TASK, &[("z", "1")]).expect_err("refused");
        assert_eq!(error.message(), "Task \"t\" declares no param \"z\"");
    }

    #[test]
    fn params_of_the_command_line_win() {
        let run = "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata:\n  name: r\nspec:\n  params:\n  - name: a\n    value: old\n";
        let objects = assembled(run, &[("a", "new")]).expect("runs");
        assert_eq!(objects.runs[0].value["spec"]["params"], json!([{"name": "a", "value": "new"}]));
    }

    #[test]
    fn what_to_run_must_be_clear() {
        let two = format!("{TASK}---\n{}", TASK.replace("name: t", "name: u"));
        assert!(assembled(&two, &[]).is_err());
        assert!(assembled("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\n", &[]).is_err());
    }
}

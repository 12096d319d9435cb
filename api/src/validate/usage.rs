//! The variables in a step's fields: declared, of a type the field can take, and in a place they are replaced in
//! (contract 2.2). Sidecars, volumes and the step template are not looked at, as upstream does not either.

use std::collections::{BTreeMap, BTreeSet};

use super::{FieldError, FieldErrors};
use crate::strict::Hints;
use crate::variables::{self, Reference, Subscript, Variable};
use crate::{Param, ParamSpec, ParamType, ParamValue, Step, TaskResult};

/// The params that steps may refer to.
pub(super) struct Pool<'a> {
    /// Types and keys of those the Task itself declares.
    declared: BTreeMap<&'a str, Declared<'a>>,
    /// Names given beside those, without a type.
    given: BTreeSet<&'a str>,
    /// Names from around an embedded Task; shared by all of a Pipeline.
    around: Around<'a>,
    hints: Hints,
}

/// What surrounds an embedded Task.
#[derive(Clone, Copy)]
pub(super) enum Around<'a> {
    /// It can be said which params there are: these; with the hints about all that is within.
    Known(&'a BTreeSet<&'a str>, &'a Hints),
    /// Nothing: the Task is on its own.
    Nothing,
    /// A run may bring any.
    Unknown,
}

struct Declared<'a> {
    kind: ParamType,
    /// The keys of an object, when they are known.
    keys: Option<BTreeSet<&'a str>>,
}

impl<'a> Pool<'a> {
    /// The declared params of a Task, Pipeline or StepAction, and those from around it.
    pub(super) fn new(params: &'a [ParamSpec], around: Around<'a>) -> Self {
        let declared = params
            .iter()
            .map(|param| (param.name.as_str(), Declared { kind: param.value_type(), keys: keys(param) }))
            .collect();
        Self { declared, given: BTreeSet::new(), around, hints: Hints::default() }
    }

    /// An object of which no key is known may have any.
    pub(super) fn with_open_objects(mut self) -> Self {
        for declared in self.declared.values_mut() {
            declared.keys = declared.keys.take().filter(|keys| !keys.is_empty());
        }
        self
    }

    /// What is given beside what is declared: more names, and more keys of objects.
    pub(super) fn given(mut self, given: &'a [Param]) -> Self {
        for param in given {
            self.given.insert(param.name.as_str());
            let declared = self.declared.get_mut(param.name.as_str()).and_then(|known| known.keys.as_mut());
            if let (Some(keys), ParamValue::Object(value)) = (declared, &param.value) {
                keys.extend(value.keys().map(String::as_str));
            }
        }
        self
    }

    fn knows(&self, name: &str) -> bool {
        self.declared.contains_key(name)
            || self.given.contains(name)
            || match self.around {
                Around::Known(names, _) => names.contains(name),
                Around::Nothing => false,
                Around::Unknown => true,
            }
    }

    /// What the author of a name that is not known may have meant.
    fn hint(&self, name: &str) -> String {
        let (around, hints) = match self.around {
            Around::Known(names, hints) => (Some(names), hints),
            Around::Nothing | Around::Unknown => (None, &self.hints),
        };
        let known = self.declared.keys().chain(&self.given).chain(around.into_iter().flatten());
        match hints.nearest(name, known.copied()) {
            Some(known) => format!("did you mean \"{known}\"?"),
            None => format!("no param \"{name}\" is declared"),
        }
    }
}

fn keys(param: &ParamSpec) -> Option<BTreeSet<&str>> {
    if param.value_type() != ParamType::Object {
        return None;
    }
    let mut keys: BTreeSet<&str> = param.properties.keys().map(String::as_str).collect();
    if let Some(ParamValue::Object(default)) = &param.default {
        keys.extend(default.keys().map(String::as_str));
    }
    Some(keys)
}

/// Keys of an object that a hint names: nobody reads more.
const SHOWN: usize = 20;

/// What a field does with an array.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Takes {
    /// Nothing: it is one string.
    OneString,
    /// Takes its elements in its own place, when it is the whole text.
    Elements,
    /// Takes the array or object itself, when it is the whole text.
    AnyValue,
}

/// The names of the results a Task declares.
pub(super) fn result_names(results: &[TaskResult]) -> BTreeSet<&str> {
    results.iter().map(|result| result.name.as_str()).collect()
}

/// The variables of one step, with paths from the step on. `task_results` are the names of the Task's.
pub(super) fn step_variables(step: &Step, pool: &Pool<'_>, task_results: &BTreeSet<&str>) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for (path, text, takes) in fields(step) {
        errors.also(params_in(text, &path, takes, pool));
        errors.also(contexts_in(text, &path));
    }
    let own = step_result_names(step);
    let results = Results { task: task_results, step: (!own.is_empty()).then_some(&own) };
    errors.also(results.unknown_in(&step.script, &pool.hints).into_iter().collect());
    let settings = settings(step);
    let script = [("script", step.script.as_str())];
    for (what, allowed, fields) in [
        ("stepResult", "env, command and args", settings.iter().chain(&script)),
        ("stepArtifact", "env, command, args and script", settings.iter().chain(&[])),
    ] {
        let holds = |text| {
            variables::variables(text).any(|variable| match what {
                "stepResult" => is_step_result(&variable),
                _ => is_step_artifact(&variable),
            })
        };
        let misplaced: BTreeSet<&str> =
            fields.filter(|(_, text)| holds(text)).map(|(field, _)| *field).collect();
        if !misplaced.is_empty() {
            let misplaced: Vec<&str> = misplaced.into_iter().collect();
            let text = format!("{what} substitutions are only allowed in {allowed}. Found usage in");
            errors.push(FieldError::new(text, &misplaced));
        }
    }
    errors
}

/// The texts of a step that are read before any step runs, as far as they may hold variables.
fn settings(step: &Step) -> Vec<(&'static str, &str)> {
    let mut settings = vec![
        ("name", step.name.as_str()),
        ("image", &step.image),
        ("imagePullPolicy", step.image_pull_policy.as_deref().unwrap_or_default()),
        ("workingDir", &step.working_dir),
    ];
    for from in &step.env_from {
        let config_map = from.config_map_ref.as_ref().map(|reference| reference.name.as_str());
        let secret = from.secret_ref.as_ref().map(|reference| reference.name.as_str());
        settings.push(("envFrom.prefix", from.prefix.as_deref().unwrap_or_default()));
        settings.push(("envFrom.configMapRef", config_map.unwrap_or_default()));
        settings.push(("envFrom.secretRef", secret.unwrap_or_default()));
    }
    for mount in &step.volume_mounts {
        settings.push(("volumeMounts.name", &mount.name));
        settings.push(("volumeMounts.mountPath", &mount.mount_path));
        settings.push(("volumeMounts.subPath", mount.sub_path.as_deref().unwrap_or_default()));
    }
    for device in &step.volume_devices {
        settings.push(("volumeDevices.name", &device.name));
        settings.push(("volumeDevices.devicePath", &device.device_path));
    }
    settings.retain(|(_, text)| may_hold_variables(text));
    settings
}

/// The variables of what a StepAction makes of a step, with paths from the step on. Upstream reads less of it than of a
/// Task's steps: contexts, and results of other steps, are as they are in the Task that refers to it.
pub(super) fn step_action_variables(step: &Step, pool: &Pool<'_>) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for (path, text, takes) in fields(step) {
        errors.also(params_in(text, &path, takes, pool));
    }
    let own = step_result_names(step);
    let results = Results { task: &own, step: Some(&own) };
    errors.also(results.unknown_in(&step.script, &pool.hints).into_iter().collect());
    errors
}

fn step_result_names(step: &Step) -> BTreeSet<&str> {
    step.results.iter().map(|result| result.name.as_str()).collect()
}

/// The results whose paths a script may ask for.
struct Results<'a> {
    task: &'a BTreeSet<&'a str>,
    /// `None` when nobody looks.
    step: Option<&'a BTreeSet<&'a str>>,
}

impl Results<'_> {
    /// The first path of a result in `script` that is none of these.
    fn unknown_in(&self, script: &str, hints: &Hints) -> Option<FieldError> {
        variables::variables(script).find_map(|variable| {
            let reference = variable.path()?;
            let (name, known) = match (reference.names().as_slice(), self.step) {
                (["results", name, "path"], _) => (*name, self.task),
                (["step", "results", name, "path"], Some(known)) => (*name, known),
                _ => return None,
            };
            (!known.contains(name)).then(|| {
                let hint = hints.nearest(name, known.iter().copied()).map_or_else(
                    || format!("no result \"{name}\" is declared"),
                    |known| format!("did you mean \"{known}\"?"),
                );
                non_existent(script, "script").culprit(variable.raw).hint(hint)
            })
        })
    }
}

/// The fields of a step in which variables are checked, as far as they may hold any: most hold none, and nobody pays for
/// their paths.
fn fields(step: &Step) -> Vec<(String, &str, Takes)> {
    let mut fields = Vec::new();
    for (field, text) in [
        ("name", &step.name),
        ("image", &step.image),
        ("workingDir", &step.working_dir),
        ("script", &step.script),
        ("onError", &step.on_error),
    ] {
        if may_hold_variables(text) {
            fields.push((field.to_owned(), text.as_str(), Takes::OneString));
        }
    }
    for (field, texts) in [("command", &step.command), ("args", &step.args)] {
        let elements = texts.iter().enumerate().filter(|(_, text)| may_hold_variables(text));
        fields.extend(elements.map(|(i, text)| (format!("{field}[{i}]"), text.as_str(), Takes::Elements)));
    }
    for env in &step.env {
        if let Some(value) = env.value.as_ref().filter(|value| may_hold_variables(value)) {
            fields.push((format!("env[{}]", env.name), value, Takes::OneString));
        }
    }
    for (index, mount) in step.volume_mounts.iter().enumerate() {
        let sub_path = mount.sub_path.as_deref().unwrap_or_default();
        for (field, text) in
            [("name", mount.name.as_str()), ("mountPath", &mount.mount_path), ("subPath", sub_path)]
        {
            if may_hold_variables(text) {
                fields.push((format!("volumeMounts[{index}].{field}"), text, Takes::OneString));
            }
        }
    }
    fields
}

/// Whether a variable may begin in a text.
pub(super) fn may_hold_variables(text: &str) -> bool {
    text.contains("$(")
}

/// What can be wrong with the params in a text. Each is reported once for a text, however often and of whichever param it
/// occurs there: the report quotes the whole text, and equal reports are merged.
enum Misuse<'a> {
    NonExistent { culprit: &'a str, why: Why<'a> },
    NotIsolated,
    TooDeep,
    WrongType { culprit: &'a str },
}

/// Why there is no such variable.
enum Why<'a> {
    /// There is no param of this name.
    Undeclared(&'a str),
    /// The param has other keys.
    Keys(&'a str, &'a BTreeSet<&'a str>),
}

impl Misuse<'_> {
    /// The order of reports.
    fn rank(&self) -> usize {
        match self {
            Self::NonExistent { .. } => 0,
            Self::NotIsolated => 1,
            Self::TooDeep => 2,
            Self::WrongType { .. } => 3,
        }
    }

    fn culprit(&self) -> &str {
        match self {
            Self::NonExistent { culprit, .. } | Self::WrongType { culprit } => culprit,
            Self::NotIsolated | Self::TooDeep => "",
        }
    }
}

/// The params in one text at `path`.
pub(super) fn params_in(text: &str, path: &str, takes: Takes, pool: &Pool<'_>) -> FieldErrors {
    let mut misuses: [Option<Misuse<'_>>; 4] = [const { None }; 4];
    for misuse in variables::variables(text).filter_map(|variable| misuse(&variable, text, takes, pool)) {
        let first = &mut misuses[misuse.rank()];
        if first.as_ref().is_none_or(|first| misuse.culprit() < first.culprit()) {
            *first = Some(misuse);
        }
    }
    misuses
        .into_iter()
        .flatten()
        .map(|misuse| match misuse {
            Misuse::NonExistent { culprit, why } => {
                non_existent(text, path).culprit(culprit).hint(match why {
                    Why::Undeclared(name) => pool.hint(name),
                    Why::Keys(_, keys) if keys.is_empty() => String::new(),
                    Why::Keys(name, keys) => {
                        let keys: Vec<_> =
                            keys.iter().take(SHOWN).map(|key| format!("\"{key}\"")).collect();
                        format!("the keys of \"{name}\" are {}", keys.join(", "))
                    }
                })
            }
            Misuse::NotIsolated => {
                FieldError::new(format!("variable is not properly isolated in \"{text}\""), &[path])
                    .hint("an array takes the place of a whole element: let it stand there alone")
            }
            Misuse::TooDeep => FieldError::new(
                format!(
                    "Invalid referencing of parameters in \"{text}\"! Only two dot-separated components after the \
                     prefix \"params\" are allowed."
                ),
                &[path],
            ),
            Misuse::WrongType { culprit } => {
                FieldError::new(format!("variable type invalid in \"{text}\""), &[path])
                    .culprit(culprit)
                    .hint("only one string fits here: take an element of the array or a key of the object")
            }
        })
        .collect()
}

/// `text` is all that stands in the field.
fn misuse<'a>(variable: &Variable<'a>, text: &str, takes: Takes, pool: &'a Pool<'_>) -> Option<Misuse<'a>> {
    let reference = param_reference(variable)?;
    let (culprit, alone) = (variable.raw, variable.raw == text);
    let ParamUse { name, key, deep } = &reference.used;
    if *deep {
        return Some(Misuse::TooDeep);
    }
    if !pool.knows(name) {
        return Some(Misuse::NonExistent { culprit, why: Why::Undeclared(name) });
    }
    let declared = pool.declared.get(name)?;
    let whole = key.is_none() && !matches!(reference.subscript, Some(Subscript::Index(_)));
    match declared.kind {
        ParamType::Array | ParamType::Object if whole && alone && takes == Takes::AnyValue => None,
        ParamType::Array if whole && takes != Takes::Elements => Some(Misuse::WrongType { culprit }),
        ParamType::Array if whole && !alone => Some(Misuse::NotIsolated),
        ParamType::Object if whole => Some(Misuse::WrongType { culprit }),
        ParamType::Object => match (key, &declared.keys) {
            (Some(key), Some(keys)) if !keys.contains(key) => {
                Some(Misuse::NonExistent { culprit, why: Why::Keys(name, keys) })
            }
            _ => None,
        },
        _ => None,
    }
}

/// A reference to a param, taken apart.
pub(super) struct ParamReference<'a> {
    pub(super) used: ParamUse<'a>,
    pub(super) subscript: Option<Subscript>,
}

/// What of a param is used.
pub(super) struct ParamUse<'a> {
    pub(super) name: &'a str,
    /// The key of an object.
    pub(super) key: Option<&'a str>,
    /// There are more parts than a key.
    pub(super) deep: bool,
}

/// Reads `params.N`, `params.N.key`, `params["N"]` and, at Task level, `inputs.params.N`; `None` for anything else.
pub(super) fn param_reference<'a>(variable: &Variable<'a>) -> Option<ParamReference<'a>> {
    let reference = variable.path()?;
    let key = variable.key.strip_prefix("inputs.").unwrap_or(variable.key);
    let rest = key.strip_prefix("params")?;
    // Borrowed from the text itself, which outlives the parsed parts.
    let used = if let Some(quoted) = rest.strip_prefix("[\"").or_else(|| rest.strip_prefix("['")) {
        let end = quoted.find(['"', '\''])?;
        ParamUse { name: &quoted[..end], key: None, deep: false }
    } else {
        let dotted = rest.strip_prefix('.')?;
        let dotted = dotted.split('[').next().unwrap_or(dotted);
        let mut parts = dotted.split('.');
        ParamUse { name: parts.next()?, key: parts.next(), deep: parts.next().is_some() }
    };
    Some(ParamReference { used, subscript: reference.subscript })
}

fn contexts_in(text: &str, path: &str) -> FieldErrors {
    let unknown = variables::variables(text).find_map(|variable| {
        let reference = variable.path()?;
        let (name, known): (&str, &[&str]) = match reference.names().as_slice() {
            ["context", "taskRun", name, ..] => (*name, &["name", "namespace", "uid"]),
            ["context", "task", name, ..] => (*name, &["name", "retry-count"]),
            _ => return None,
        };
        let error = || non_existent(text, path).culprit(variable.raw).hint(one_of(known));
        (!known.contains(&name)).then(error)
    });
    unknown.into_iter().collect()
}

/// What may stand in the place of a word that is not known.
pub(super) fn one_of(known: &[&str]) -> String {
    let known: Vec<_> = known.iter().map(|known| format!("\"{known}\"")).collect();
    format!("it is one of {}", known.join(", "))
}

/// `$(steps.<step>.results.<result>)`, which only the step itself can replace, when it starts.
fn is_step_result(variable: &Variable<'_>) -> bool {
    let reference = variable.path();
    matches!(
        reference.as_ref().map(Reference::names).as_deref(),
        Some(["steps", _, "results", _] | ["steps", _, "results", _, _])
    )
}

/// `$(step.artifacts.path)`, `$(steps.<step>.inputs|outputs.<artifact>)`, which only the step itself can replace as well.
fn is_step_artifact(variable: &Variable<'_>) -> bool {
    let reference = variable.path();
    matches!(
        reference.as_ref().map(Reference::names).as_deref(),
        Some(["step", "artifacts", "path"] | ["steps", _, "inputs" | "outputs", _])
    )
}

/// `$(tasks.<task>.inputs|outputs.<artifact>)`.
pub(super) fn is_task_artifact(variable: &Variable<'_>) -> bool {
    let reference = variable.path();
    let names = reference.as_ref().map(Reference::names);
    matches!(names.as_deref(), Some(["tasks", _, "inputs" | "outputs", _]))
}

/// A step uses artifacts: its own, or the Task's.
pub(super) fn uses_artifacts(step: &Step) -> bool {
    let texts = std::iter::once(&step.script)
        .chain(&step.command)
        .chain(&step.args)
        .chain(step.env.iter().filter_map(|env| env.value.as_ref()));
    let texts = texts.filter(|text| may_hold_variables(text));
    texts.flat_map(|text| variables::variables(text)).any(|variable| {
        let reference = variable.path();
        let names = reference.as_ref().map(Reference::names);
        is_step_artifact(&variable)
            || is_task_artifact(&variable)
            || matches!(names.as_deref(), Some(["artifacts", "path"]))
    })
}

pub(super) fn non_existent(text: &str, path: &str) -> FieldError {
    FieldError::new(format!("non-existent variable in \"{text}\""), &[path])
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn declared() -> Vec<ParamSpec> {
        serde_json::from_value(json!([
            {"name": "s"}, {"name": "d.t"},
            {"name": "a", "type": "array"},
            {"name": "o", "type": "object", "properties": {"k": {}}, "default": {"l": ""}},
        ]))
        .unwrap()
    }

    fn check(step: Value) -> String {
        let params = declared();
        let results: Vec<TaskResult> = serde_json::from_value(json!([{"name": "r"}])).unwrap();
        let step = serde_json::from_value(step).unwrap();
        step_variables(&step, &Pool::new(&params, Around::Nothing), &result_names(&results)).to_string()
    }

    #[rstest]
    #[case(json!({"script": "$(params.s) $(params[\"d.t\"]) $(inputs.params.s) $(params.a[0]) $(params.o.k) $(params.o.l)"}))]
    #[case(json!({"args": ["$(params.a[*])", "$(params.a)", "$(params['a'][*])", "x$(params.a[1])"]}))]
    #[case(json!({"script": "$(context.taskRun.uid) $(context.task.retry-count) $(context.pipelineRun.name)"}))]
    #[case(json!({"script": "$(results.r.path) $(step.results.any.path) $(workspaces.no.path) $(date +%s)"}))]
    #[case(json!({"env": [{"name": "E", "value": "$(steps.x.results.y)"}], "args": ["$(steps.x.results.y[0])"]}))]
    fn right(#[case] step: Value) {
        assert_eq!(check(step), "");
    }

    #[rstest]
    #[case(json!({"image": "a-$(params.no)"}), "non-existent variable in \"a-$(params.no)\": image")]
    #[case(json!({"script": "$(params.d.t)"}), "non-existent variable in \"$(params.d.t)\": script")]
    #[case(json!({"script": "$(params['no'])"}), "non-existent variable in \"$(params['no'])\": script")]
    #[case(json!({"script": "$(params.o.no)"}), "non-existent variable in \"$(params.o.no)\": script")]
    #[case(
        json!({"script": "$(params.o.k.x)"}),
        "Invalid referencing of parameters in \"$(params.o.k.x)\"! Only two dot-separated components after the prefix \
         \"params\" are allowed.: script"
    )]
    #[case(json!({"image": "$(params.a)"}), "variable type invalid in \"$(params.a)\": image")]
    #[case(json!({"script": "$(params.a[*])"}), "variable type invalid in \"$(params.a[*])\": script")]
    #[case(json!({"args": ["", "x$(params.a[*])"]}), "variable is not properly isolated in \"x$(params.a[*])\": args[1]")]
    #[case(json!({"args": ["$(params.o[*])"]}), "variable type invalid in \"$(params.o[*])\": args[0]")]
    #[case(json!({"env": [{"name": "E", "value": "$(params.no)"}]}), "non-existent variable in \"$(params.no)\": env[E]")]
    #[case(
        json!({"volumeMounts": [{"name": "v", "mountPath": "$(params.no)"}]}),
        "non-existent variable in \"$(params.no)\": volumeMounts[0].mountPath"
    )]
    #[case(json!({"onError": "$(params.no)"}), "non-existent variable in \"$(params.no)\": onError")]
    #[case(json!({"script": "$(context.taskRun.no)"}), "non-existent variable in \"$(context.taskRun.no)\": script")]
    #[case(json!({"script": "$(results.no.path)"}), "non-existent variable in \"$(results.no.path)\": script")]
    #[case(
        json!({"script": "$(step.results.no.path)", "results": [{"name": "x"}]}),
        "non-existent variable in \"$(step.results.no.path)\": script"
    )]
    #[case(
        json!({"image": "$(steps.x.results.y)", "script": "$(steps.x.results.y)"}),
        "stepResult substitutions are only allowed in env, command and args. Found usage in: image, script"
    )]
    fn wrong(#[case] step: Value, #[case] text: &str) {
        assert_eq!(check(step), text);
    }

    #[test]
    fn an_embedded_task_may_use_what_surrounds_it() {
        let step = serde_json::from_value(json!({"script": "$(params.outer) $(params.no)"})).unwrap();
        let (some, all) = (BTreeSet::from(["outer"]), BTreeSet::from(["outer", "no"]));
        let with = |around| step_variables(&step, &Pool::new(&[], around), &BTreeSet::new()).to_string();
        let text = "non-existent variable in \"$(params.outer) $(params.no)\": script";
        assert_eq!(with(Around::Nothing), text);
        let hints = Hints::default();
        assert_eq!(with(Around::Known(&some, &hints)), text);
        assert_eq!(with(Around::Known(&all, &hints)), "");
        assert_eq!(with(Around::Unknown), "");
    }
}

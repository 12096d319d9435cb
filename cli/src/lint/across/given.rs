//! The params given to a definition, held against those it declares. Pure.

use std::collections::{BTreeMap, BTreeSet};

use ropewalk_api::variables::{self, Subscript};
use ropewalk_api::{Matrix, Param, ParamSpec, ParamType, ParamValue};

use super::definitions::Interface;
use super::{Report, did_you_mean};

/// What is known of the variables in a place.
#[derive(Default)]
pub(super) struct Scope<'a> {
    /// Params and their types.
    pub(super) params: BTreeMap<&'a str, ParamType>,
    /// Results and their types, by pipeline task and name; those of a matrix are lists.
    pub(super) results: BTreeMap<(&'a str, &'a str), ParamType>,
    /// Names that reach embedded definitions although nobody passes them.
    pub(super) around: BTreeSet<&'a str>,
}

impl<'a> Scope<'a> {
    pub(super) fn of_params(params: &'a [ParamSpec]) -> Self {
        let params: BTreeMap<_, _> = params.iter().map(|p| (p.name.as_str(), p.value_type())).collect();
        Self { around: params.keys().copied().collect(), params, ..Self::default() }
    }

    /// The type a value will have; `None` when that shows only at run time.
    fn type_of(&self, value: &ParamValue) -> Option<ParamType> {
        let ParamValue::String(text) = value else { return Some(value.kind()) };
        let Some(variable) = variables::whole(text) else {
            return variables::variables(text).next().is_none().then_some(ParamType::String);
        };
        let reference = variable.path()?;
        if reference.quoted || matches!(reference.subscript, Some(Subscript::Index(_))) {
            return Some(ParamType::String);
        }
        match reference.names().as_slice() {
            ["params", name] => self.params.get(name).copied(),
            ["tasks", task, "results", result] => self.results.get(&(*task, *result)).copied(),
            _ => None,
        }
    }
}

/// Params on their way to a definition.
pub(super) struct Given<'a> {
    pub(super) params: &'a [Param],
    pub(super) matrix: Option<&'a Matrix>,
    /// The path of the object that holds `params` and `matrix`.
    pub(super) base: &'a str,
    /// The path of what is given to.
    pub(super) subject: &'a str,
}

impl Given<'_> {
    pub(super) fn check(&self, to: &Interface<'_>, scope: &Scope<'_>, report: &mut Report<'_>) {
        for (index, param) in self.params.iter().enumerate() {
            let path = format!("{}.params[{index}]", self.base);
            if let Some(declared) = declared(to, &param.name) {
                fits(&param.value, declared, to, scope, &path, report);
            } else {
                unknown(&param.name, to, &path, report);
            }
        }
        if let Some(matrix) = self.matrix {
            self.matrix(matrix, to, scope, report);
        }
        self.missing(to, scope, report);
    }

    fn names(&self) -> BTreeSet<&str> {
        let matrix = self.matrix.into_iter();
        let fanned =
            matrix.flat_map(|m| m.params.iter().chain(m.include.iter().flat_map(|include| &include.params)));
        self.params.iter().chain(fanned).map(|param| param.name.as_str()).collect()
    }

    fn missing(&self, to: &Interface<'_>, scope: &Scope<'_>, report: &mut Report<'_>) {
        let given = self.names();
        let wanted = to.params.iter().filter(|param| param.default.is_none());
        for ParamSpec { name, .. } in wanted.filter(|param| !given.contains(&*param.name)) {
            // What surrounds an embedded definition reaches it by name.
            if to.open && scope.around.contains(name.as_str()) {
                continue;
            }
            let path = if self.params.is_empty() {
                self.subject.to_owned()
            } else {
                format!("{}.params", self.base)
            };
            let hint = format!("give \"{name}\" a value here, or a default there");
            report.error(
                &path,
                "",
                format!("{} needs param \"{name}\", which has no default", to.what),
                Some(hint),
            );
        }
    }

    /// Each run of a matrix gets one string of each list.
    fn matrix(&self, matrix: &Matrix, to: &Interface<'_>, scope: &Scope<'_>, report: &mut Report<'_>) {
        let base = format!("{}.matrix", self.base);
        let listed = matrix.params.iter().enumerate().map(|(i, p)| (format!("{base}.params[{i}]"), p, true));
        let included = matrix.include.iter().enumerate().flat_map(|(at, include)| {
            let base = format!("{base}.include[{at}]");
            include.params.iter().enumerate().map(move |(i, p)| (format!("{base}.params[{i}]"), p, false))
        });
        for (path, Param { name, value }, list) in listed.chain(included) {
            let wanted = if list { ParamType::Array } else { ParamType::String };
            if scope.type_of(value).is_some_and(|found| found != wanted) {
                report.error(
                    &format!("{path}.value"),
                    "",
                    format!("param \"{name}\" of a matrix must be of type {wanted} here"),
                    None,
                );
            }
            match declared(to, name) {
                Some(param) if param.value_type() != ParamType::String => report.error(
                    &format!("{path}.name"),
                    name,
                    format!(
                        "{} wants param \"{name}\" of type {}, and a matrix gives it one string at a time",
                        to.what,
                        param.value_type()
                    ),
                    None,
                ),
                Some(_) => {}
                None => unknown(name, to, &path, report),
            }
        }
    }
}

fn declared<'a>(to: &Interface<'a>, name: &str) -> Option<&'a ParamSpec> {
    to.params.iter().find(|param| param.name == name)
}

/// Accepted and ignored by the engine; a run may bring params for several pipelines.
fn unknown(name: &str, to: &Interface<'_>, path: &str, report: &mut Report<'_>) {
    if to.open {
        return;
    }
    report.warning(
        &format!("{path}.name"),
        name,
        format!("{} declares no param \"{name}\"", to.what),
        did_you_mean(name, to.params.iter().map(|param| param.name.as_str())),
    );
}

fn fits(
    value: &ParamValue,
    declared: &ParamSpec,
    to: &Interface<'_>,
    scope: &Scope<'_>,
    path: &str,
    report: &mut Report<'_>,
) {
    let (name, wanted) = (&declared.name, declared.value_type());
    let path = format!("{path}.value");
    if let Some(found) = scope.type_of(value).filter(|found| *found != wanted) {
        let message = format!("{} wants param \"{name}\" of type {wanted}, not {found}", to.what);
        let hint = match (wanted, value) {
            (ParamType::Array, ParamValue::String(text)) if !text.contains("$(") => {
                Some("write a list: [\"…\"]".to_owned())
            }
            _ => None,
        };
        let culprit = value.as_str().unwrap_or_default();
        return report.error(&path, culprit, message, hint);
    }
    match value {
        ParamValue::Object(entries) => {
            let defaults = match &declared.default {
                Some(ParamValue::Object(defaults)) => Some(defaults),
                _ => None,
            };
            let missing = declared.properties.keys().filter(|key| {
                !entries.contains_key(*key) && defaults.is_none_or(|defaults| !defaults.contains_key(*key))
            });
            for key in missing {
                report.error(
                    &path,
                    "",
                    format!("{} needs the key \"{key}\" in param \"{name}\"", to.what),
                    None,
                );
            }
        }
        ParamValue::String(text)
            if !(text.is_empty()
                || text.contains("$(")
                || declared.allowed.is_empty()
                || declared.allowed.contains(text)) =>
        {
            let allowed: Vec<_> = declared.allowed.iter().map(|value| format!("\"{value}\"")).collect();
            report.error(
                &path,
                text,
                format!("{} does not allow \"{text}\" for param \"{name}\"", to.what),
                Some(format!("the values are {}", allowed.join(", "))),
            );
        }
        _ => {}
    }
}

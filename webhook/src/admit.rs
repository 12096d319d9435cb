//! One request in, one decision out. Pure.

use std::borrow::Cow;
use std::collections::BTreeSet;

use ropewalk_api::config::Config;
use ropewalk_api::defaults::{Defaulted, New};
use ropewalk_api::validate::{FieldError, FieldErrors, Validated, is_same_spec};
use ropewalk_api::{
    CustomRun, Pipeline, PipelineRun, ResolutionRequest, StepAction, Task, TaskRun, VerificationPolicy,
    conversion, kinds, strict, warnings,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use crate::merge::merge;

/// The name clients see when defaulting refuses an object.
pub const DEFAULTING_WEBHOOK: &str = "webhook.pipeline.tekton.dev";
/// The name clients see when validation refuses an object.
pub const VALIDATING_WEBHOOK: &str = "validation.webhook.pipeline.tekton.dev";

/// What is done to the object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A changed object.
    Update,
    /// A removal.
    Delete,
}

/// The part of Kubernetes' `AdmissionRequest` that decides anything here.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What is done.
    pub operation: Operation,
    /// The API group; other groups than ours pass unchanged.
    pub group: &'a str,
    /// The kind; unknown ones pass unchanged.
    pub kind: &'a str,
    /// The subresource; requests for one pass unchanged, as status is written by controllers only.
    pub subresource: Option<&'a str>,
    /// The object to judge.
    pub object: &'a Value,
    /// The object as it is now, at an update.
    pub old_object: Option<&'a Value>,
}

/// What the engine says of itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Settings {
    /// Written on new runs as `pipeline.tekton.dev/release`; nothing is written when empty.
    pub release: String,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Go on.
    Allow {
        /// The object to store: the one given, with defaults and nothing lost.
        object: Value,
        /// For the client's eyes.
        warnings: Vec<String>,
    },
    /// Refuse.
    Deny {
        /// The HTTP status.
        code: u16,
        /// The whole text, as the API server gives it to clients.
        message: String,
    },
}

/// A refusal by one of the webhooks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Denial {
    /// Which: [`DEFAULTING_WEBHOOK`], [`VALIDATING_WEBHOOK`] or [`crate::CONFIG_WEBHOOK`].
    pub webhook: &'static str,
    /// Why: `validation failed: …`. An API server puts the webhook's name in front.
    pub reason: String,
}

impl Denial {
    /// The text the API server makes of it.
    pub fn message(&self) -> String {
        format!("admission webhook \"{}\" denied the request: {}", self.webhook, self.reason)
    }
}

/// Calls a function for the type of a kind that is served.
macro_rules! with_type_of {
    ($kind:expr, $function:ident($($argument:expr),*)) => {
        match $kind {
            "Task" => $function::<Task>($($argument),*),
            "TaskRun" => $function::<TaskRun>($($argument),*),
            "Pipeline" => $function::<Pipeline>($($argument),*),
            "PipelineRun" => $function::<PipelineRun>($($argument),*),
            "StepAction" => $function::<StepAction>($($argument),*),
            "VerificationPolicy" => $function::<VerificationPolicy>($($argument),*),
            "ResolutionRequest" => $function::<ResolutionRequest>($($argument),*),
            _ => $function::<CustomRun>($($argument),*),
        }
    };
}

/// Both webhooks, one after the other, as the API server calls them; but the object is read once.
pub fn admit(request: &Request<'_>, config: &Config, settings: &Settings) -> Decision {
    let decided = if concerns(request) {
        with_type_of!(request.kind, admit_as(request, config, settings))
    } else {
        Ok(Mutated::unchanged(request))
    };
    match decided {
        Ok(Mutated { object, warnings }) => Decision::Allow { object, warnings },
        Err(denial) => Decision::Deny { code: 400, message: denial.message() },
    }
}

/// What the mutating webhook makes of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Mutated {
    /// The object given, with defaults and nothing lost.
    pub object: Value,
    /// For the client's eyes.
    pub warnings: Vec<String>,
}

impl Mutated {
    fn unchanged(request: &Request<'_>) -> Self {
        Self { object: request.object.clone(), warnings: Vec::new() }
    }
}

/// The mutating webhook: the object with defaults, with field names in their right case, and with the engine's labels
/// and annotations when it is new.
///
/// # Errors
/// Unknown fields, wrong JSON types, and values that cannot be read.
pub fn mutate(request: &Request<'_>, config: &Config, settings: &Settings) -> Result<Mutated, Denial> {
    if !concerns(request) {
        return Ok(Mutated::unchanged(request));
    }
    with_type_of!(request.kind, mutate_as(request, config, settings))
}

/// The object in the version it is stored in, which is the one everything is decided about.
fn stored(object: &Value) -> Result<Cow<'_, Value>, Denial> {
    let object = with_spec(Cow::Borrowed(object));
    let kind = object["kind"].as_str().and_then(kinds::find);
    let Some(kind) = kind.filter(|_| conversion::is_converted(&object)) else { return Ok(object) };
    let converted = conversion::convert(object.into_owned(), &kind.api_version());
    converted.map(Cow::Owned).map_err(|error| undecodable(&error.to_string()))
}

/// The object with a spec: one that has none has an empty one to upstream, which says of it what is missing, and lets in a
/// ResolutionRequest without.
fn with_spec(mut object: Cow<'_, Value>) -> Cow<'_, Value> {
    if object.is_object() && object["spec"].is_null() {
        object.to_mut()["spec"] = json!({});
    }
    object
}

/// The validating webhook, for an object that has its defaults.
///
/// # Errors
/// The rules of contract 2 and, at an update, 12.1.
pub fn validate(request: &Request<'_>, config: &Config) -> Result<(), Denial> {
    if !concerns(request) {
        return Ok(());
    }
    with_type_of!(request.kind, validate_given_as(request, config))
}

/// API servers cut the warnings of an answer off at 4 kB together; these are about as many.
const WARNING_LIMIT: usize = 20;

fn concerns(request: &Request<'_>) -> bool {
    request.operation != Operation::Delete
        && request.subresource.is_none_or(str::is_empty)
        && kinds::find(request.kind).is_some_and(|kind| kind.group == request.group)
}

/// An update of labels or finalizers must not fail over a spec that was accepted once, under whichever rules; nor must it
/// when today's defaults add to that spec, see [`validate_as`].
fn spec_is_unchanged(request: &Request<'_>) -> bool {
    request.operation == Operation::Update
        && request.old_object.is_some_and(|old| old.get("spec") == request.object.get("spec"))
}

/// The object before, when its spec is one that cannot be repaired: that of a run. What is wrong with it already, by a
/// flag that was on or a field of a newer release, must not keep the run from being cancelled.
fn frozen<'a>(request: &Request<'a>) -> Option<&'a Value> {
    kinds::find(request.kind).filter(|kind| kind.runs).and(request.old_object)
}

/// An object read into its type, with its defaults.
struct Reading<'a, T> {
    /// As it was given, with field names in their right case.
    given: Cow<'a, Value>,
    /// In the version it is stored in, where that is another one.
    stored: Option<Value>,
    typed: T,
    /// Without its defaults, as the type writes it.
    before: Box<RawValue>,
    warnings: Vec<String>,
}

impl<'a, T: Defaulted + DeserializeOwned + New + Serialize> Reading<'a, T> {
    fn new(request: &Request<'a>, config: &Config, settings: &Settings) -> Result<Self, Denial> {
        let (given, warnings) = well_formed(request)?;
        let given = with_spec(given);
        let stored = match stored(&given)? {
            Cow::Owned(stored) => Some(stored),
            Cow::Borrowed(_) => None,
        };
        let mut typed: T = strict::decode(stored.as_ref().unwrap_or(&given))
            .map_err(|error| undecodable(&error.to_string()))?;
        let before = to_text(&typed)?;
        typed.set_defaults(config);
        if request.operation == Operation::Create {
            typed.label_new(&settings.release);
        }
        Ok(Self { given, stored, typed, before, warnings })
    }

    /// The object to store.
    fn write(self, request: &Request<'_>) -> Result<Mutated, Denial> {
        let Self { given, stored, typed, before, mut warnings } = self;
        let version = given["apiVersion"].clone();
        let mut object = stored.unwrap_or_else(|| given.into_owned());
        let after = to_text(&typed)?;
        drop(typed);
        merge(&mut object, &before, &after).map_err(|error| undecodable(&error.to_string()))?;
        if !spec_is_unchanged(request) {
            let mut doubts =
                warnings::check_first(request.kind, &object, WARNING_LIMIT.saturating_sub(warnings.len()));
            if conversion::is_converted(request.object) {
                for doubt in &mut doubts.first {
                    doubt.path = conversion::path_in_v1beta1(request.kind, &doubt.path);
                }
            }
            let more = warnings.len().saturating_sub(WARNING_LIMIT) + doubts.more;
            warnings.truncate(WARNING_LIMIT);
            warnings.extend(doubts.first.iter().map(ToString::to_string));
            warnings.extend((more > 0).then(|| format!("and {more} more; `ropewalk lint` shows all")));
        }
        if let Some(version) = version.as_str().filter(|version| object["apiVersion"] != *version) {
            object = conversion::convert(object, version).map_err(|error| undecodable(&error.to_string()))?;
        }
        Ok(Mutated { object, warnings })
    }
}

/// The object given, with field names in their right case, and a warning for each that was not.
fn well_formed<'a>(request: &Request<'a>) -> Result<(Cow<'a, Value>, Vec<String>), Denial> {
    let mut object = Cow::Borrowed(request.object);
    if spec_is_unchanged(request) {
        return Ok((object, Vec::new()));
    }
    let mut findings = strict::check(request.kind, &object);
    // A name in the wrong case is one that is unknown.
    if findings.is_empty() {
        return Ok((object, Vec::new()));
    }
    let renamed = strict::correct_case(request.kind, object.to_mut());
    if !renamed.is_empty() {
        findings = strict::check(request.kind, &object);
    }
    let known: BTreeSet<strict::Finding> =
        frozen(request).into_iter().flat_map(|old| strict::check(request.kind, old)).collect();
    let findings: Vec<String> = findings
        .into_iter()
        // The API server keeps metadata in order, and who writes status is no user.
        .filter(|finding| !["metadata", "status"].iter().any(|part| finding.is_within(part)))
        .filter(|finding| !known.contains(finding))
        .map(|finding| finding.to_string())
        .collect();
    if !findings.is_empty() {
        return Err(undecodable(&findings.join("\n")));
    }
    Ok((object, renamed.iter().map(ToString::to_string).collect()))
}

fn mutate_as<T>(request: &Request<'_>, config: &Config, settings: &Settings) -> Result<Mutated, Denial>
where
    T: Defaulted + DeserializeOwned + New + Serialize,
{
    Reading::<T>::new(request, config, settings)?.write(request)
}

fn admit_as<T>(request: &Request<'_>, config: &Config, settings: &Settings) -> Result<Mutated, Denial>
where
    T: Clone + Defaulted + DeserializeOwned + New + Serialize + Validated,
{
    let reading = Reading::<T>::new(request, config, settings)?;
    // The object to store is what is read here: nobody writes it before it is known to be right.
    validate_as(&Request { object: &reading.given, ..*request }, &reading.typed, config)?;
    reading.write(request)
}

fn validate_given_as<T>(request: &Request<'_>, config: &Config) -> Result<(), Denial>
where
    T: Clone + Defaulted + DeserializeOwned + Serialize + Validated,
{
    let object = stored(request.object)?;
    let new: T = strict::decode(&object)
        .map_err(|error| refuse(VALIDATING_WEBHOOK, format!("validation failed: cannot decode: {error}")))?;
    validate_as(request, &new, config)
}

/// `new` is what the request's object is read as.
fn validate_as<T>(request: &Request<'_>, new: &T, config: &Config) -> Result<(), Denial>
where
    T: Clone + Defaulted + DeserializeOwned + Serialize + Validated,
{
    let old_object = request.old_object.map(stored).transpose()?;
    // An old object that cannot be read any more does not stand in the way of its repair.
    let old = old_object.and_then(|old| strict::decode::<T>(&old).ok());
    let mut errors = match old {
        Some(old) if is_same_spec(&spec_of(new)?, &spec_of(&defaulted(&old, config))?) => {
            new.validate_metadata()
        }
        Some(old) => {
            let mut errors = new.validate(config);
            if frozen(request).is_some() {
                errors = errors.without(&old.validate(config));
            }
            errors.also(new.validate_update(&old, config));
            errors
        }
        None => new.validate(config),
    };
    if conversion::is_converted(request.object) {
        let before = request.old_object.map(|old| conversion::refused(old, false)).unwrap_or_default();
        let refused = conversion::refused(request.object, request.operation == Operation::Create);
        errors = errors.map_paths(|path| conversion::path_in_v1beta1(request.kind, path));
        errors.also(refused.without(&before));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(refuse(VALIDATING_WEBHOOK, format!("validation failed: {errors}")))
}

fn defaulted<T: Clone + Defaulted>(object: &T, config: &Config) -> T {
    let mut defaulted = object.clone();
    defaulted.set_defaults(config);
    defaulted
}

fn spec_of<T: Serialize>(object: &T) -> Result<Value, Denial> {
    Ok(to_json(object)?["spec"].take())
}

/// One thing wrong with an object, for tools that show it beside the text it was read from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// Where, as paths from the root: `spec.steps[0].image`. Elements upstream names by key stand as `params[name]`; where
    /// upstream names something larger, these are more exact than the message.
    pub paths: Vec<String>,
    /// What, paths included.
    pub message: String,
    /// The part of the field's text that is at fault; empty for all of it.
    pub culprit: String,
    /// What would mend it; may be empty.
    pub hint: String,
}

impl Problem {
    fn at(path: String, message: String) -> Self {
        Self { paths: vec![path], message, culprit: String::new(), hint: String::new() }
    }
}

/// Everything wrong with an object, as far as it is told.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Problems {
    /// The first.
    pub first: Vec<Problem>,
    /// How many there are beside those.
    pub more: usize,
}

/// Everything wrong with an object that can be seen without a cluster: unknown fields and wrong types first, and the
/// rules only when there are none of those. Field names in the wrong case are none, as admission corrects them. Objects
/// of other kinds have no problems.
pub fn lint(object: &Value, config: &Config) -> Problems {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let Some(kind) = kinds::find_in(text("apiVersion"), text("kind")).map(|kind| kind.kind) else {
        return Problems::default();
    };
    let mut object = object.clone();
    strict::correct_case(kind, &mut object);
    let object = &object;
    let strict::Findings { first, more } = strict::check_all(kind, object);
    if !first.is_empty() {
        let problem = |finding: strict::Finding| {
            let message = finding.to_string();
            Problem::at(finding.path, message)
        };
        return Problems { first: first.into_iter().map(problem).collect(), more };
    }
    let Ok(converted) = stored(object) else { return Problems::default() };
    let errors = with_type_of!(kind, lint_as(&converted, config));
    match errors {
        Err(error) => {
            let message = error.to_string();
            Problems { first: vec![Problem::at(error.path, message)], more: 0 }
        }
        Ok(mut errors) => {
            if conversion::is_converted(object) {
                errors = errors.map_paths(|path| conversion::path_in_v1beta1(kind, path));
                errors.also(conversion::refused(object, true));
            }
            let problem = |error: &FieldError| Problem {
                message: error.to_string(),
                paths: if error.place.is_empty() { error.paths.clone() } else { vec![error.place.clone()] },
                culprit: error.culprit.clone(),
                hint: error.hint.clone(),
            };
            Problems { first: errors.distinct().map(problem).collect(), more: errors.more() }
        }
    }
}

fn lint_as<T>(object: &Value, config: &Config) -> Result<FieldErrors, strict::DecodeError>
where
    T: Defaulted + DeserializeOwned + Validated,
{
    let mut typed: T = strict::decode(object)?;
    typed.set_defaults(config);
    Ok(typed.validate(config))
}

fn to_json<T: Serialize>(typed: &T) -> Result<Value, Denial> {
    serde_json::to_value(typed).map_err(|error| undecodable(&error.to_string()))
}

fn to_text<T: Serialize>(typed: &T) -> Result<Box<RawValue>, Denial> {
    to_raw_value(typed).map_err(|error| undecodable(&error.to_string()))
}

fn undecodable(why: &str) -> Denial {
    refuse(DEFAULTING_WEBHOOK, format!("mutation failed: cannot decode incoming new object: {why}"))
}

/// The longest text given as a reason, in bytes. Upstream's texts quote whole fields, scripts included; nobody reads more
/// than this, and an answer must not be larger than what it answers.
const REASON_LIMIT: usize = 32 << 10;

pub(crate) fn refuse(webhook: &'static str, mut reason: String) -> Denial {
    if reason.len() > REASON_LIMIT {
        reason.truncate(reason.floor_char_boundary(REASON_LIMIT));
        reason.push_str(" (cut here: there is more)");
    }
    Denial { webhook, reason }
}

#[cfg(test)]
mod tests;

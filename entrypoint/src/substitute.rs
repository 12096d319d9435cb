//! Results of earlier steps, filled in right before the command starts (contract 5.5).

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use ropewalk_entrypoint_protocol::value::ParamValue;
use ropewalk_entrypoint_protocol::variables::{self, Reference, Segment, Subscript, Variable};
use ropewalk_entrypoint_protocol::when::WhenExpression;

/// Longest step result used, in bytes. Linux limits one argument to 128 KiB and all of them to a few
/// MiB, so nothing longer could reach a command anyway.
const MAX_RESULT_BYTES: u64 = 1 << 20;

/// Why a step result could not be filled in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubstituteError {
    #[error("reading {variable:?}")]
    Read { variable: String, source: io::Error },
    #[error("{variable:?} needs an array, but the result is of type {found:?}")]
    NotArray { variable: String, found: &'static str },
    #[error("{variable:?} needs an object, but the result is of type {found:?}")]
    NotObject { variable: String, found: &'static str },
    #[error("{variable:?} is out of range, the result has {length} elements")]
    OutOfRange { variable: String, length: usize },
    #[error("{variable:?} names a key the result does not have")]
    NoSuchKey { variable: String },
    #[error("{variable:?} must be a whole argument, it cannot stand inside {text:?}")]
    NotWhole { variable: String, text: String },
}

/// What the results go into.
pub(crate) struct Texts {
    /// Environment variables, name and value.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// Guards of the step.
    pub(crate) when: Vec<WhenExpression>,
    /// Command and arguments.
    pub(crate) argv: Vec<String>,
}

impl Texts {
    /// Fills in step results from below `steps_dir`, environment first, then guards, then command.
    ///
    /// The first error ends it: what was done before stays done, the rest stays literal.
    pub(crate) fn fill_in(&mut self, steps_dir: &Path) -> Result<(), SubstituteError> {
        for (_, value) in &mut self.env {
            // What is no UTF-8 cannot hold a reference and stays as it is.
            if let Some(text) = value.to_str() {
                *value = one(text, steps_dir)?.into();
            }
        }
        let mut when = self.when.clone();
        for guard in &mut when {
            guard.input = one(&guard.input, steps_dir)?;
            guard.cel = one(&guard.cel, steps_dir)?;
            guard.values = many(&guard.values, steps_dir)?;
        }
        self.when = when;
        self.argv = many(&self.argv, steps_dir)?;
        Ok(())
    }
}

/// Fills in a list, in which a whole element that asks for all of an array becomes its elements.
fn many(texts: &[String], steps_dir: &Path) -> Result<Vec<String>, SubstituteError> {
    let mut out = Vec::with_capacity(texts.len());
    for text in texts {
        let whole = variables::whole(text).and_then(|variable| Some((variable, StepResult::of(&variable)?)));
        match whole {
            Some((variable, result)) if result.subscript == Some(Subscript::All) => {
                out.extend(result.array(&variable, steps_dir)?);
            }
            _ => out.push(one(text, steps_dir)?),
        }
    }
    Ok(out)
}

fn one(text: &str, steps_dir: &Path) -> Result<String, SubstituteError> {
    let mut out = String::with_capacity(text.len());
    for segment in variables::parse(text) {
        match segment {
            Segment::Variable(variable) => match StepResult::of(&variable) {
                Some(result) => out.push_str(&result.string(&variable, text, steps_dir)?),
                None => out.push_str(variable.raw),
            },
            Segment::Literal(literal) => out.push_str(literal),
        }
    }
    Ok(out)
}

/// `steps.S.results.R`, with `[i]`, `[*]` or `.key`.
struct StepResult {
    step: String,
    result: String,
    key: Option<String>,
    subscript: Option<Subscript>,
}

impl StepResult {
    fn of(variable: &Variable<'_>) -> Option<Self> {
        let reference = variable.path().filter(|reference| !reference.quoted)?;
        let Reference { parts, subscript, .. } = reference;
        let mut parts = parts.into_iter();
        let (steps, step, results, result) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let key = parts.next();
        let known = steps == "steps" && results == "results" && parts.next().is_none();
        // A subscript on a key has no meaning.
        (known && !(key.is_some() && subscript.is_some())).then_some(StepResult {
            step,
            result,
            key,
            subscript,
        })
    }

    fn read(&self, variable: &Variable<'_>, steps_dir: &Path) -> Result<ParamValue, SubstituteError> {
        let path = steps_dir.join(format!("step-{}", self.step)).join("results").join(&self.result);
        let mut content = Vec::new();
        fs::File::open(path)
            .and_then(|file| file.take(MAX_RESULT_BYTES).read_to_end(&mut content))
            .map_err(|source| SubstituteError::Read { variable: variable.raw.to_owned(), source })?;
        Ok(ParamValue::decode(&String::from_utf8_lossy(&content)))
    }

    fn array(&self, variable: &Variable<'_>, steps_dir: &Path) -> Result<Vec<String>, SubstituteError> {
        match self.read(variable, steps_dir)? {
            ParamValue::Array(items) => Ok(items),
            other => Err(SubstituteError::NotArray {
                variable: variable.raw.to_owned(),
                found: other.kind().as_str(),
            }),
        }
    }

    fn string(
        &self,
        variable: &Variable<'_>,
        text: &str,
        steps_dir: &Path,
    ) -> Result<String, SubstituteError> {
        let raw = || variable.raw.to_owned();
        match (self.subscript, &self.key) {
            (Some(Subscript::All), _) => {
                Err(SubstituteError::NotWhole { variable: raw(), text: text.to_owned() })
            }
            (Some(Subscript::Index(index)), _) => {
                let items = self.array(variable, steps_dir)?;
                let length = items.len();
                items
                    .into_iter()
                    .nth(index)
                    .ok_or_else(|| SubstituteError::OutOfRange { variable: raw(), length })
            }
            (None, Some(key)) => match self.read(variable, steps_dir)? {
                ParamValue::Object(mut entries) => {
                    entries.remove(key).ok_or_else(|| SubstituteError::NoSuchKey { variable: raw() })
                }
                other => Err(SubstituteError::NotObject { variable: raw(), found: other.kind().as_str() }),
            },
            (None, None) => {
                Ok(self.read(variable, steps_dir)?.as_str().map(str::to_owned).unwrap_or_default())
            }
        }
    }
}

#[cfg(test)]
mod tests;

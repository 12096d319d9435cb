//! What can be said about documents before anything runs, with the place each finding stands at. Pure.

use ropewalk_api::kinds;
use ropewalk_api::strict::{self, Problem};

use crate::diagnostic::Diagnostic;
use crate::documents::Document;

/// Names fields as the API does where a document differs by case only, which upstream reads without a word; each is a
/// warning.
pub(crate) fn correct_case(document: &mut Document) -> Vec<Diagnostic> {
    let Some(kind) = kinds::find(document.kind()) else { return Vec::new() };
    if kind.version_of(document.api_version()).is_none() {
        return Vec::new();
    }
    let renamed = strict::correct_case(kind.kind, &mut document.value);
    renamed.iter().map(|renamed| document.error(&renamed.path, renamed.to_string()).as_warning()).collect()
}

/// Everything wrong with the form of a document of our own kinds: unknown fields, wrong types. What stands in them is
/// judged at admission.
pub(crate) fn check(document: &Document) -> Vec<Diagnostic> {
    let Some((group, version)) = document.api_version().split_once('/') else { return Vec::new() };
    if !kinds::is_group(group) {
        return Vec::new();
    }
    let Some(kind) = kinds::find(document.kind()) else {
        let known: Vec<_> =
            kinds::ALL.iter().filter(|kind| kind.group == group).map(|kind| kind.kind).collect();
        let error =
            document.error("kind", format!("unknown kind \"{}\" in group \"{group}\"", document.kind()));
        return vec![match strict::nearest(document.kind(), known.iter().copied()) {
            Some(name) => error.hint(format!("did you mean \"{name}\"?")),
            None => error.hint(format!("the kinds are {}", known.join(", "))),
        }];
    };
    if kind.version_of(document.api_version()).is_none() {
        let message = format!("version \"{version}\" of kind \"{}\" is not served", kind.kind);
        return vec![document.error("apiVersion", message).hint(format!("use \"{}\"", kind.api_version()))];
    }
    strict::check(kind.kind, &document.value)
        .into_iter()
        .map(|finding| {
            let field = finding.path.rsplit('.').next().unwrap_or_default();
            match &finding.problem {
                Problem::UnknownField { hint } => {
                    let error = document.error(&finding.path, format!("unknown field \"{}\"", finding.path));
                    match hint {
                        Some(strict::Hint::Similar(name)) => error.hint(format!("did you mean \"{name}\"?")),
                        Some(strict::Hint::Moved(place)) => {
                            error.hint(format!("\"{field}\" belongs in {place}"))
                        }
                        None => error,
                    }
                }
                Problem::WrongType { .. } => document.error(&finding.path, finding.to_string()),
            }
        })
        .collect()
}

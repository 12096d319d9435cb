//! What can be said about documents before anything runs, with the place each finding stands at. Pure.

use ropewalk_api::kinds::{self, Kind};
use ropewalk_api::strict::{self, Hint, Problem};

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
    let api_version = document.api_version();
    let kind = kinds::find(document.kind());
    let Some((group, version)) = api_version.split_once('/').filter(|(group, _)| kinds::is_group(group))
    else {
        return kind.and_then(|kind| wrong_group(document, kind)).into_iter().collect();
    };
    let Some(kind) = kind else {
        let known: Vec<_> =
            kinds::ALL.iter().filter(|kind| kind.group == group).map(|kind| kind.kind).collect();
        let error =
            document.error("kind", format!("unknown kind \"{}\" in group \"{group}\"", document.kind()));
        return vec![match strict::nearest(document.kind(), known.iter().copied()) {
            Some(name) => error.hint(format!("did you mean \"{name}\"?")),
            None => error.hint(format!("the kinds are {}", known.join(", "))),
        }];
    };
    if kind.version_of(api_version).is_none() {
        let message = format!("version \"{version}\" of kind \"{}\" is not served", kind.kind);
        return vec![document.error("apiVersion", message).hint(format!("use \"{}\"", kind.api_version()))];
    }
    let strict::Findings { first, more } = strict::check_all(kind.kind, &document.value);
    let shown = first.len();
    let told = first.into_iter().map(|finding| tell(document, &finding));
    told.chain(more_than_shown(document, shown, more)).collect()
}

/// One of our kinds in a group that cannot have it: without a version, or with a group that is ours but for a slip. Other
/// groups have kinds of the same names.
fn wrong_group(document: &Document, kind: &Kind) -> Option<Diagnostic> {
    let api_version = document.api_version();
    let is_meant = match api_version.split_once('/') {
        Some((group, _)) => strict::nearest(group, [kind.group].into_iter()).is_some(),
        // What has no group is Kubernetes' own.
        None => true,
    };
    is_meant.then(|| {
        let message = format!("there is no kind \"{}\" in \"{api_version}\"", kind.kind);
        document.error("apiVersion", message).hint(format!("use \"{}\"", kind.api_version()))
    })
}

fn tell(document: &Document, finding: &strict::Finding) -> Diagnostic {
    let field = finding.path.rsplit('.').next().unwrap_or_default();
    match &finding.problem {
        Problem::UnknownField { hint } => {
            let error = document.error(&finding.path, format!("unknown field \"{}\"", finding.path));
            match hint {
                Some(Hint::Similar(name)) => error.hint(format!("did you mean \"{name}\"?")),
                Some(Hint::Moved(place)) => error.hint(format!("\"{field}\" belongs in {place}")),
                Some(Hint::Within(outer)) => {
                    error.hint(format!("\"{field}\" belongs in {outer}: indent it further"))
                }
                None => error,
            }
        }
        Problem::WrongType { expected, found } => {
            let error = document.error(&finding.path, finding.to_string());
            // YAML takes more for these than one thinks: on, y, 0755, 1.10.
            let is_taken = matches!(found.as_str(), "a boolean" | "a number");
            let hint = "quotes around it make it a string";
            if *expected == "a string" && is_taken { error.hint(hint) } else { error }
        }
    }
}

/// What is said of errors in a document that are not told one by one, if there are any.
pub(crate) fn more_than_shown(document: &Document, shown: usize, more: usize) -> Option<Diagnostic> {
    (more > 0).then(|| {
        let (kind, name, all) = (document.kind(), document.name(), shown + more);
        let message = format!("{kind} \"{name}\" has {all} errors, of which the first {shown} are shown");
        document.error("kind", message).standing_for(more)
    })
}

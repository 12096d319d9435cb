//! `ropewalk lint`: what is wrong with files, each finding at its place, before anybody runs them.
//!
//! One document by itself is judged by the functions of admission; [`across`] sees whether documents agree. Reads
//! files and standard input, writes standard output.

mod across;
mod files;
mod report;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;

use ropewalk_api::config::Config;
use ropewalk_api::{kinds, warnings};
use ropewalk_webhook::Problems;

use crate::args::{self, LintOutput};
use crate::diagnostic::Diagnostic;
use crate::documents::{self, Document, Source};
use crate::run::{REFUSED, check};

/// What kind of thing is wrong, for programs.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Rule {
    /// A file cannot be read, or is no YAML.
    Unreadable,
    /// A field, kind or version that does not exist, or a value of the wrong JSON type.
    Form,
    /// A rule of admission.
    Admission,
    /// Documents that do not agree.
    Agreement,
    /// Accepted, and still hardly meant.
    Doubt,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 5] = [Self::Unreadable, Self::Form, Self::Admission, Self::Agreement, Self::Doubt];

    /// The word programs know it by.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Form => "form",
            Self::Admission => "admission",
            Self::Agreement => "agreement",
            Self::Doubt => "doubt",
        }
    }

    /// What it means, in a sentence.
    pub fn description(self) -> &'static str {
        match self {
            Self::Unreadable => "The file cannot be read or is not valid YAML.",
            Self::Form => "A field, kind or version does not exist, or a value has the wrong type.",
            Self::Admission => "Admission to a cluster would refuse the object.",
            Self::Agreement => "Objects that refer to each other do not agree.",
            Self::Doubt => "The object is accepted, but hardly meant as it stands.",
        }
    }
}

/// One thing found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What kind of thing.
    pub rule: Rule,
    /// What and where.
    pub diagnostic: Diagnostic,
}

impl Finding {
    fn new(rule: Rule, diagnostic: Diagnostic) -> Self {
        Self { rule, diagnostic }
    }
}

/// Runs the command.
pub fn lint(args: &args::Lint) -> ExitCode {
    let (sources, unread) = files::sources(&args.files);
    let mut findings: Vec<Finding> =
        unread.into_iter().map(|diagnostic| Finding::new(Rule::Unreadable, diagnostic)).collect();
    findings.extend(check_all(sources));
    let text = match args.output {
        LintOutput::Text => report::text(&findings, std::io::IsTerminal::is_terminal(&std::io::stdout())),
        LintOutput::Json => report::json(&findings),
        LintOutput::Sarif => report::sarif(&findings),
        LintOutput::Github => report::github(&findings),
    };
    if let Err(diagnostic) = crate::print(&text) {
        crate::report(&[diagnostic], false);
        return ExitCode::from(REFUSED);
    }
    if findings.iter().any(|finding| finding.rule == Rule::Unreadable) {
        ExitCode::from(REFUSED)
    } else if findings.iter().any(|finding| !finding.diagnostic.is_warning()) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Everything found in the sources: those of one file stand together, in the order of their lines.
pub fn check_all(sources: Vec<Source>) -> Vec<Finding> {
    let config = Config::default();
    let mut findings = Vec::new();
    let mut sound = Vec::new();
    for source in sources {
        let (documents, refused) = documents::parse_all(source);
        findings.extend(refused.into_iter().map(|diagnostic| Finding::new(Rule::Unreadable, diagnostic)));
        for mut document in documents {
            let found = check_one(&mut document, &config);
            // What has not even the form of its kind cannot be held against others.
            if found.iter().all(|finding| finding.rule != Rule::Form || finding.diagnostic.is_warning()) {
                sound.push(document);
            }
            findings.extend(found);
        }
    }
    findings.extend(
        across::check(&sound).into_iter().map(|diagnostic| Finding::new(Rule::Agreement, diagnostic)),
    );
    let mut seen = BTreeSet::new();
    findings.retain(|finding| {
        let place = finding.diagnostic.place();
        let place = place.map(|place| (place.path.to_owned(), place.start));
        seen.insert((place, finding.diagnostic.message().to_owned()))
    });
    // The sort is stable: findings without a place come first, and files stay in the order of their names.
    findings.sort_by_cached_key(|finding| finding.diagnostic.place().map(|p| (p.path.to_owned(), p.start)));
    findings
}

fn check_one(document: &mut Document, config: &Config) -> Vec<Finding> {
    let form = |diagnostic| Finding::new(Rule::Form, diagnostic);
    let mut findings: Vec<Finding> = check::correct_case(document).into_iter().map(form).collect();
    let wrong = check::check(document);
    if !wrong.is_empty() {
        findings.extend(wrong.into_iter().map(form));
        return findings;
    }
    // Other groups have kinds of the same names.
    if kinds::find_in(document.api_version(), document.kind()).is_none() {
        return findings;
    }
    let Problems { first, more } = ropewalk_webhook::lint(&document.value, config);
    let more = check::more_than_shown(document, first.len(), more);
    findings.extend(first.into_iter().map(|problem| {
        // Of fields that exclude each other, some are not there.
        let there = problem.paths.iter().find(|path| document.has(path));
        let path = there.or(problem.paths.first()).map(String::as_str).unwrap_or_default();
        let place = document.locate_within(path, &problem.culprit);
        let message = shortened(problem.message, &problem.culprit);
        let diagnostic = Diagnostic::new(message).at(Arc::clone(&document.source), place);
        let diagnostic = if problem.hint.is_empty() { diagnostic } else { diagnostic.hint(problem.hint) };
        Finding::new(Rule::Admission, diagnostic)
    }));
    findings.extend(more.map(|diagnostic| Finding::new(Rule::Admission, diagnostic)));
    // A mistake raises doubts of its own: a param that is misspelt where it is used seems unused.
    if !findings.is_empty() {
        return findings;
    }
    findings.extend(warnings::check(document.kind(), &document.value).into_iter().map(|warning| {
        let place = document.locate(&warning.path);
        let diagnostic =
            Diagnostic::new(warning.message).at(Arc::clone(&document.source), place).as_warning();
        let diagnostic = if warning.hint.is_empty() { diagnostic } else { diagnostic.hint(warning.hint) };
        Finding::new(Rule::Doubt, diagnostic)
    }));
    findings
}

/// Upstream's texts quote whole fields, scripts included; beside the source line the part at fault is enough.
fn shortened(message: String, culprit: &str) -> String {
    match (message.find('"'), message.rfind('"')) {
        (Some(open), Some(close)) if !culprit.is_empty() && message[open..close].contains(culprit) => {
            format!("{}{culprit}{}", &message[..=open], &message[close..])
        }
        _ => message,
    }
}

#[cfg(test)]
mod tests;

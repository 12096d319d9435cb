//! Seeded mistakes: each is found where its caret stands, nothing else is found, and the snapshot shows what the user
//! sees.

use std::collections::BTreeSet;
use std::time::Instant;

use super::*;

/// A section of `mistakes.yaml`: a title behind `####`, documents, and under each mistake a comment with a caret.
struct Mistake {
    title: String,
    text: String,
    /// Lines and columns, counted from 1, of the text without the carets.
    places: BTreeSet<(usize, usize)>,
}

fn mistakes() -> Vec<Mistake> {
    let mut mistakes: Vec<Mistake> = Vec::new();
    for line in include_str!("tests/mistakes.yaml").lines() {
        if let Some(title) = line.strip_prefix("#### ") {
            let (title, text) = (title.to_owned(), String::new());
            mistakes.push(Mistake { title, text, places: BTreeSet::new() });
            continue;
        }
        let mistake = mistakes.last_mut().expect("a title stands first");
        let carets = line.strip_prefix('#').filter(|rest| rest.trim_matches([' ', '^', '<']).is_empty());
        if let Some(carets) = carets.filter(|carets| carets.contains(['^', '<'])) {
            let above = mistake.text.lines().count();
            mistake.places.extend(carets.match_indices('^').map(|(at, _)| (above, at + 2)));
            // The comment sign covers the first column.
            mistake.places.extend(carets.contains('<').then_some((above, 1)));
        } else {
            mistake.text.push_str(line);
            mistake.text.push('\n');
        }
    }
    mistakes
}

fn source(path: &str, text: &str) -> Source {
    Source { path: path.into(), text: text.to_owned() }
}

#[test]
fn mistakes_are_found_where_they_are() {
    let mistakes = mistakes();
    assert!(mistakes.len() >= 50, "only {} mistakes", mistakes.len());
    let mut seen = String::new();
    let mut wrong = Vec::new();
    for mistake in &mistakes {
        let findings = check_all(vec![source("input.yaml", &mistake.text)]);
        let places: BTreeSet<_> = findings
            .iter()
            .filter_map(|finding| finding.diagnostic.place().map(|place| place.start))
            .collect();
        if places != mistake.places {
            wrong.push((&mistake.title, &mistake.places, report::text(&findings, false)));
        }
        seen.extend(["#### ", &mistake.title, "\n", &report::text(&findings, false), "\n"]);
    }
    let wrong: Vec<_> =
        wrong.iter().map(|(title, places, text)| format!("{title}, at {places:?}:\n{text}")).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    insta::assert_snapshot!("what_the_user_sees", seen);
}

#[test]
fn what_agrees_has_no_findings() {
    let text = include_str!("tests/agreeing.yaml");
    let findings = check_all(vec![source("input.yaml", text)]);
    assert!(findings.is_empty(), "{}", report::text(&findings, false));
}

#[test]
fn references_go_across_files() {
    let task = "apiVersion: tekton.dev/v1\nkind: Task\nmetadata: {name: build, namespace: ci}\nspec:\n  params: [{name: p}]\n  steps: [{image: 'i:1', script: echo $(params.p)}]\n";
    let run = |namespace: &str| {
        format!(
            "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {{name: r, namespace: {namespace}}}\nspec: {{taskRef: {{name: build}}}}\n"
        )
    };
    let messages = |namespace: &str| -> Vec<String> {
        let findings = check_all(vec![source("a.yaml", task), source("b.yaml", &run(namespace))]);
        findings.iter().map(|finding| finding.diagnostic.message().to_owned()).collect()
    };
    assert_eq!(messages("ci"), ["Task \"build\" needs param \"p\", which has no default"]);
    assert_eq!(messages("\"\""), ["Task \"build\" needs param \"p\", which has no default"]);
    assert_eq!(messages("other"), Vec::<String>::new());
}

/// A figure to look at, not a condition: a hundred files of some hundred lines and three documents each.
#[test]
fn a_hundred_files() {
    let sources = |count: usize| -> Vec<Source> {
        let text = include_str!("tests/agreeing.yaml");
        let of_its_own = |at| text.replace("name: build\n", &format!("name: build-{at}\n"));
        (0..count)
            .map(|at| {
                let text = of_its_own(at).replace("name: release\n", &format!("name: release-{at}\n"));
                source(&format!("{at}.yaml"), &text.replace(".build.", &format!(".build-{at}.")))
            })
            .collect()
    };
    // The schemas are made once in a process.
    check_all(sources(1));
    let start = Instant::now();
    let findings = check_all(sources(100));
    eprintln!("a hundred files: {:?}", start.elapsed());
    assert!(findings.is_empty(), "{}", report::text(&findings, false));
}

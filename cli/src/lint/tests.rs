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
    Source::new(path, text)
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

/// A Task of many steps, each with a field that does not exist: on lines of their own, and all on one line.
fn many_mistakes(count: usize, on_one_line: bool) -> Vec<Finding> {
    let (before, step, between, after) = if on_one_line {
        ("{steps: [", "{image: 'ä:1', imgae: b}", ", ", "]}")
    } else {
        ("\n  steps:\n", "  - image: 'ä:1'\n    imgae: b\n", "", "")
    };
    let steps = vec![step; count].join(between);
    let head = "apiVersion: tekton.dev/v1\nkind: Task\nmetadata: {name: many}\nspec: ";
    check_all(vec![source("input.yaml", &format!("{head}{before}{steps}{after}\n"))])
}

#[test]
fn each_of_many_findings_is_shown_at_its_place() {
    const COUNT: usize = 300;
    let findings = many_mistakes(COUNT, false);
    assert_eq!(findings.len(), COUNT);
    for (index, finding) in findings.iter().enumerate() {
        let line = 7 + 2 * index;
        assert_eq!(finding.diagnostic.place().map(|place| place.start), Some((line, 5)));
        let shown = finding.diagnostic.render(false);
        assert!(shown.contains(&format!("--> input.yaml:{line}:5\n")), "{shown}");
        assert!(shown.contains(&format!("\n{line} |     imgae: b\n")), "{shown}");
        assert!(!shown.contains("image:"), "{shown}");
    }
    let findings = many_mistakes(COUNT, true);
    assert_eq!(findings.len(), COUNT);
    for (index, finding) in findings.iter().enumerate() {
        let column = "spec: {steps: [{image: 'ä:1', ".chars().count() + 1 + 26 * index;
        assert_eq!(finding.diagnostic.place().map(|place| place.start), Some((4, column)));
        let shown = finding.diagnostic.render(false);
        assert!(shown.contains(&format!("--> input.yaml:4:{column}\n")), "{shown}");
        assert!(shown.contains("imgae: b") && shown.contains("^^^^^"), "{shown}");
        assert!(shown.len() < 2000, "{shown}");
    }
}

/// Figures to look at: each second one is ten times the first when the work is linear. Admission tells of no more than these.
#[test]
fn a_thousand_findings() {
    for on_one_line in [false, true] {
        for count in [100, 1000] {
            let start = Instant::now();
            let findings = many_mistakes(count, on_one_line);
            let checked = start.elapsed();
            let text = report::text(&findings, false);
            assert!(text.ends_with(&format!("{count} errors, 0 warnings\n")));
            eprintln!(
                "{count} findings, on one line: {on_one_line}: {checked:?}, with their text {:?}",
                start.elapsed()
            );
        }
    }
}

/// The errors of a step that has fields that do not exist, in one line, as programs write it.
fn an_object_of_mistakes(count: usize) -> (Source, Vec<Finding>) {
    let fields: Vec<_> =
        (0..count).map(|at| format!(r#""field{at:06}": "a value that is of no use""#)).collect();
    let text = format!(
        r#"{{"apiVersion": "tekton.dev/v1", "kind": "Task", "metadata": {{"name": "many"}}, "spec": {{"steps": [{{{}}}]}}}}"#,
        fields.join(", ")
    );
    (source("many.json", &text), check_all(vec![source("many.json", &text)]))
}

#[test]
fn a_large_file_of_mistakes_is_told_of_in_little() {
    let (source, findings) = an_object_of_mistakes(35_000);
    assert!(source.text.len() > 1_500_000, "{}", source.text.len());
    assert_eq!(findings.len(), 1001);
    let text = report::text(&findings, false);
    assert!(text.len() < 1001 * 1000, "{} bytes", text.len());
    assert!(text.ends_with("35000 errors, 0 warnings\n"), "{}", &text[text.len() - 100..]);
}

#[test]
fn how_many_findings_are_not_shown_is_said_in_every_format() {
    const SAID: &str = "has 1234 errors, of which the first 1000 are shown";
    let of_form = an_object_of_mistakes(1234).1;
    let steps: Vec<_> = (0..1234).map(|at| format!("  - {{image: 'a:1', name: 'No{at}'}}\n")).collect();
    let head = "apiVersion: tekton.dev/v1\nkind: Task\nmetadata: {name: many}\nspec:\n  steps:\n";
    let of_admission = check_all(vec![source("many.yaml", &format!("{head}{}", steps.concat()))]);
    for findings in [&of_form, &of_admission] {
        let text = report::text(findings, false);
        assert!(text.contains(&format!("error: Task \"many\" {SAID}\n")), "{}", &text[..1000]);
        assert!(text.ends_with("\n1234 errors, 0 warnings\n"));
        for report in [report::json(findings), report::sarif(findings)] {
            assert_eq!(report.matches(&format!("\"Task \\\"many\\\" {SAID}\"")).count(), 1);
        }
        assert_eq!(report::github(findings).matches(&format!("::Task \"many\" {SAID}\n")).count(), 1);
    }
}

#[test]
fn nothing_is_said_of_findings_that_are_all_shown() {
    let findings = an_object_of_mistakes(1000).1;
    assert_eq!(findings.len(), 1000);
    assert!(findings.iter().all(|finding| finding.diagnostic.message().starts_with("unknown field ")));
}

/// What editors on other systems write.
#[test]
fn marks_and_line_endings_do_not_shift_places() {
    let text = "apiVersion: tekton.dev/v1\nkind: Taks\nmetadata: {name: t}\n";
    for (text, place) in [
        (text.replace('\n', "\r\n"), (2, 1)),
        (format!("\u{feff}{text}"), (2, 1)),
        (format!("\u{feff}{}", text.replace("apiV", "apiv")), (1, 1)),
    ] {
        let findings = check_all(vec![source("input.yaml", &text)]);
        let places: Vec<_> =
            findings.iter().filter_map(|it| it.diagnostic.place().map(|it| it.start)).collect();
        assert_eq!(places, [place], "{text:?}");
        assert!(!report::text(&findings, false).contains(['\u{feff}', '\r']));
    }
}

#[test]
fn what_holds_no_objects_has_no_findings() {
    for text in [
        "",
        "---\n",
        "---\n---\n# a comment\n---\n",
        "# a comment\n",
        "\u{feff}",
        "apiVersion: v1\nkind: List\nitems: []\n",
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [task.yaml]\n",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {replicas: two}\n",
        "apiVersion: serving.knative.dev/v1\nkind: Task\nmetadata: {name: d}\n",
    ] {
        let findings = check_all(vec![source("input.yaml", text)]);
        assert!(findings.is_empty(), "{text:?}: {}", report::text(&findings, false));
    }
}

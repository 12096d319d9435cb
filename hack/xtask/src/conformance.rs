//! Whether `docs/conformance.md` names paths, tests, rules and end-to-end cases that are there. Reads files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What a document says there is, with the line that says so.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Claim {
    /// A file or a folder, from the repository's root.
    Path(String),
    /// A test function, and the modules around it: a file or a folder has the name of each but `tests`.
    Test { modules: Vec<String>, name: String },
    /// A rule of the table of objects or an end-to-end case; `…` stands for anything.
    Title(String),
}

fn claims(text: &str) -> Vec<(usize, Claim)> {
    let mut claims = Vec::new();
    let mut line = 1;
    for (index, part) in text.split('`').enumerate() {
        if index % 2 == 1 {
            claims.extend(expanded(part).iter().filter_map(|word| Some((line, coded(word)?))));
        } else {
            // What is bold names nothing, and single words are terms.
            let titles = part.replace("**", "");
            let titles = titles.split('*').skip(1).step_by(2).filter(|title| title.contains([' ', '\n']));
            claims.extend(titles.map(|title| (line, Claim::Title(title.replace('\n', " ")))));
        }
        line += part.matches('\n').count();
    }
    claims
}

/// `a{b, c}` as `ab` and `ac`.
fn expanded(word: &str) -> Vec<String> {
    let Some((before, rest)) = word.split_once('{') else { return vec![word.to_owned()] };
    let Some((choices, after)) = rest.split_once('}') else { return vec![word.to_owned()] };
    choices.split(',').flat_map(|choice| expanded(&[before, choice.trim(), after].concat())).collect()
}

fn coded(word: &str) -> Option<Claim> {
    if let Some((modules, name)) = word.rsplit_once("::") {
        let modules = modules.split("::").map(str::to_owned).collect();
        return Some(Claim::Test { modules, name: name.to_owned() });
    }
    // Paths of URLs begin with a slash, and API versions with a domain.
    let (first, _) = word.split_once('/')?;
    (!first.is_empty() && !first.contains('.')).then(|| Claim::Path(word.to_owned()))
}

/// The repository as far as claims are about it.
struct Tree {
    /// The texts of programs by their paths.
    programs: BTreeMap<String, String>,
    /// Of the table.
    rules: Vec<String>,
    /// End-to-end.
    cases: Vec<String>,
}

impl Tree {
    fn read(root: &Path) -> Self {
        let mut tree = Self { programs: BTreeMap::new(), rules: Vec::new(), cases: Vec::new() };
        tree.walk(root, "");
        for (path, text) in &tree.programs {
            if path.starts_with("test/src/bin/e2e/") {
                let cases = text.split("Case::new(").skip(1).filter_map(|case| case.split('"').nth(1));
                tree.cases.extend(cases.map(str::to_owned));
            }
        }
        tree
    }

    fn walk(&mut self, folder: &Path, path: &str) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("names are text");
            if name.starts_with('.') || path.is_empty() && name == "target" {
                continue;
            }
            let path = if path.is_empty() { name } else { format!("{path}/{name}") };
            if entry.file_type().expect("a type").is_dir() {
                self.walk(&entry.path(), &path);
            } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
                self.programs.insert(path, fs::read_to_string(entry.path()).expect("a program"));
            } else if path.starts_with("api/tests/objects/") && !path.ends_with("/README.md") {
                let text = fs::read_to_string(entry.path()).expect("a part of the table");
                let rules = text.lines().filter_map(|line| line.strip_prefix("rule: "));
                self.rules.extend(rules.map(|rule| rule.trim_matches('"').to_owned()));
            }
        }
    }

    fn has(&self, root: &Path, claim: &Claim) -> bool {
        match claim {
            Claim::Path(path) => root.join(path).exists(),
            Claim::Title(title) => self.rules.iter().chain(&self.cases).any(|there| matches(there, title)),
            Claim::Test { modules, name } => self.programs.iter().any(|(path, text)| {
                let mut named = modules.iter().filter(|module| *module != "tests");
                let parts: Vec<_> = path.trim_end_matches(".rs").split('/').collect();
                named.all(|module| parts.contains(&module.as_str())) && has_test(text, name)
            }),
        }
    }
}

fn matches(there: &str, title: &str) -> bool {
    match title.split_once('…') {
        Some((start, end)) => {
            there.len() >= start.len() + end.len() && there.starts_with(start) && there.ends_with(end)
        }
        None => there == title,
    }
}

/// Attributes and cases stand right before a function, without an empty line.
fn has_test(text: &str, name: &str) -> bool {
    text.match_indices(&format!("fn {name}(")).any(|(at, _)| {
        let before = text[..at].rsplit("\n\n").next().unwrap_or_default();
        ["#[test]", "#[rstest]", "#[rstest::rstest]", "#[tokio::test"]
            .iter()
            .any(|attribute| before.contains(attribute))
    })
}

fn document() -> (PathBuf, Vec<(usize, Claim)>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let claims = claims(&fs::read_to_string(root.join("docs/conformance.md")).expect("the document"));
    assert!(claims.len() > 200, "only {} claims", claims.len());
    (root, claims)
}

#[test]
fn what_the_document_names_is_there() {
    let (root, claims) = document();
    let tree = Tree::read(&root);
    let untrue: Vec<_> = claims.iter().filter(|(_, claim)| !tree.has(&root, claim)).collect();
    assert!(untrue.is_empty(), "docs/conformance.md, by line: {untrue:#?}");
}

/// Else a rule could hold without a line of the contract.
#[test]
fn the_document_names_every_rule_of_the_table() {
    let (root, claims) = document();
    let mut rules = Tree::read(&root).rules;
    rules.retain(|rule| {
        let named =
            |(_, claim): &(usize, Claim)| matches!(claim, Claim::Title(title) if matches(rule, title));
        !claims.iter().any(named)
    });
    assert_eq!(rules, Vec::<String>::new());
}

#[test]
fn claims_are_read_and_held_against_what_is_there() {
    let text = "**open** *a\nb…* in `api/{src,x}/y.rs` of `/url` and `tekton.dev/v1`:\n`a::tests::{f, g}`";
    let test = |name: &str| Claim::Test { modules: vec!["a".into(), "tests".into()], name: name.into() };
    assert_eq!(
        claims(text),
        [
            (1, Claim::Title("a b…".into())),
            (2, Claim::Path("api/src/y.rs".into())),
            (2, Claim::Path("api/x/y.rs".into())),
            (3, test("f")),
            (3, test("g")),
        ]
    );
    let program = "#[test]\nfn f() {}\n\nfn g() {}\n".to_owned();
    let tree = Tree {
        programs: [("x/src/a.rs".to_owned(), program)].into(),
        rules: vec!["a b c".into()],
        cases: Vec::new(),
    };
    let has = |claim: &Claim| tree.has(Path::new(env!("CARGO_MANIFEST_DIR")), claim);
    assert!(has(&test("f")) && has(&Claim::Title("a b…".into())) && has(&Claim::Path("src/main.rs".into())));
    assert!(!has(&test("g")), "it is no test");
    assert!(!has(&test("h")) && !has(&Claim::Title("b…".into())) && !has(&Claim::Path("src/x.rs".into())));
}

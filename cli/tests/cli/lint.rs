//! `ropewalk lint` as a user calls it: what is read, what is printed, and the exit codes.

use std::io::Write as _;
use std::path::Path;
use std::process::{Output, Stdio};

use crate::common::{example, printed, ropewalk};

const RIGHT: &str = "apiVersion: tekton.dev/v1\nkind: Task\nmetadata:\n  name: t\nspec:\n  steps:\n  - name: a\n    image: alpine:3\n    script: date\n";

fn lint(arguments: &[&str], path: &Path) -> Output {
    ropewalk().arg("lint").args(arguments).arg(path).output().expect("the command starts")
}

#[track_caller]
fn stdout(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", printed(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn what_is_right_prints_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("a.yaml");
    std::fs::write(&file, RIGHT).expect("written");
    assert_eq!(stdout(&lint(&[], &file), 0), "");
    assert_eq!(stdout(&lint(&["-o", "json"], directory.path()), 0), "[]\n");
}

#[test]
fn a_finding_in_every_format() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("a,b.yml");
    std::fs::write(&file, RIGHT.replace("image", "imgae")).expect("written");
    let path = file.display().to_string();

    let text = stdout(&lint(&[], directory.path()), 1);
    assert!(text.contains(&format!("{path}:8:5")), "{text}");
    assert!(text.contains("    imgae: alpine:3") && text.contains("did you mean \"image\"?"), "{text}");
    assert!(text.ends_with("1 error, 0 warnings\n"), "{text}");

    let json: serde_json::Value =
        serde_json::from_str(&stdout(&lint(&["--output", "json"], &file), 1)).expect("JSON");
    assert_eq!(
        json,
        serde_json::json!([{
            "level": "error", "rule": "form", "message": "unknown field \"spec.steps[0].imgae\"",
            "hint": "did you mean \"image\"?", "file": path, "line": 8, "column": 5, "endLine": 8, "endColumn": 10,
        }])
    );

    let sarif: serde_json::Value =
        serde_json::from_str(&stdout(&lint(&["-o", "sarif"], &file), 1)).expect("JSON");
    let result = &sarif["runs"][0]["results"][0];
    assert_eq!((&sarif["version"], &result["ruleId"]), (&"2.1.0".into(), &"form".into()));
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!((&place["region"]["startLine"], &place["region"]["startColumn"]), (&8.into(), &5.into()));
    assert!(place["artifactLocation"]["uri"].as_str().is_some_and(|uri| uri.ends_with("/a%2Cb.yml")));

    let github = stdout(&lint(&["-o", "github"], &file), 1);
    assert_eq!(
        github,
        format!(
            "::error file={},line=8,col=5,endColumn=10::unknown field \"spec.steps[0].imgae\"%0Ahelp: did you mean \
             \"image\"?\n",
            path.replace(',', "%2C")
        )
    );
}

#[test]
fn standard_input() {
    let mut child = ropewalk()
        .args(["lint", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let text = RIGHT.replace("name: t", "name: T");
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("it ends");
    assert!(stdout(&output, 1).contains("<stdin>:4:3"), "{}", printed(&output));
}

#[test]
fn what_cannot_be_read_is_told_apart() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    assert!(stdout(&lint(&[], &directory.path().join("none.yaml")), 2).contains("cannot read"));
    std::fs::write(directory.path().join("a.yaml"), "apiVersion: tekton.dev/v1\nkind: [\n").expect("written");
    std::fs::write(directory.path().join("b.yaml"), RIGHT.replace("image", "imgae")).expect("written");
    let text = stdout(&lint(&[], directory.path()), 2);
    assert!(text.contains("not valid YAML") && text.contains("imgae"), "{text}");
}

/// A repository holds YAML of all sorts; a loop of links does not hold up anybody.
#[test]
fn other_files_of_a_directory_are_left_alone() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let inner = directory.path().join("deploy");
    std::fs::create_dir(&inner).expect("made");
    std::fs::write(inner.join("values.yaml"), "a: {{ .Values.a }}\n").expect("written");
    std::fs::write(inner.join("notes.txt"), "tekton.dev: [").expect("written");
    std::os::unix::fs::symlink(directory.path(), inner.join("up")).expect("linked");
    assert_eq!(stdout(&lint(&[], directory.path()), 0), "");
}

/// What mentions us and is no object: values, patches and templates of charts, workflows of other systems.
#[test]
fn only_objects_of_a_directory_are_judged() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().expect("inside")).expect("made");
        std::fs::write(path, text).expect("written");
    };
    write("values.yaml", "annotations: {tekton.dev/platforms: linux/amd64}\n");
    write("patch.yaml", "- op: add\n  path: /metadata/labels/tekton.dev~1a\n  value: b\n");
    write("chart/Chart.yaml", "name: tekton\n");
    write("chart/templates/task.yaml", "apiVersion: tekton.dev/v1\nkind: Task\nname: {{ .Values.a }}\n");
    assert_eq!(stdout(&lint(&[], directory.path()), 0), "");

    // Whoever names a file means it.
    let text = stdout(&lint(&[], &directory.path().join("values.yaml")), 2);
    assert!(text.contains("values.yaml:1:1") && text.contains("has no \"apiVersion\""), "{text}");
    let text = stdout(&lint(&[], &directory.path().join("chart/templates/task.yaml")), 2);
    assert!(text.contains("helm template CHART | ropewalk lint -"), "{text}");

    // These were to be objects.
    write("a.yaml", &RIGHT.replace("apiVersion", "apiversion"));
    write("b/templates/b.yaml", &RIGHT.replace("image", "imgae"));
    let text = stdout(&lint(&[], directory.path()), 2);
    assert!(
        text.contains("did you mean \"apiVersion\"?") && text.contains("did you mean \"image\"?"),
        "{text}"
    );
    assert!(text.ends_with("2 errors, 0 warnings\n"), "{text}");
}

#[test]
fn what_is_not_utf_8_is_told_with_its_line() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("a.yaml");
    std::fs::write(&file, [RIGHT.as_bytes(), b"# \xe9\n"].concat()).expect("written");
    let text = stdout(&lint(&[], &file), 2);
    assert!(text.contains("it is not UTF-8 from line 10 on"), "{text}");
}

#[test]
fn the_examples_are_right() {
    for path in ["quickstart.yaml", "features", "build-and-deploy"] {
        assert_eq!(
            lint(&[], &example(path)).status.code(),
            Some(0),
            "{}",
            printed(&lint(&[], &example(path)))
        );
    }
}

//! Every example runs as its folder says it does.

use crate::common::{can_run_containers, example, printed, run_file};

fn yaml_files(folder: &str) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(example(folder))
        .expect("the folder is there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no examples in {folder}");
    files
}

#[test]
fn features_succeed() {
    if !can_run_containers() {
        return;
    }
    for file in yaml_files("features") {
        let output = run_file(&file);
        assert_eq!(output.status.code(), Some(0), "{}: {}", file.display(), printed(&output));
    }
}

#[test]
fn failing_ones_say_why() {
    if !can_run_containers() {
        return;
    }
    for (file, why) in [
        ("exit-code.yaml", "\"step-breaks\" exited with code 3"),
        ("timeout.yaml", "failed to finish within \"2s\""),
        ("missing-task.yaml", "\"no-such-task\""),
    ] {
        let output = run_file(&example("features/failing").join(file));
        assert_eq!(output.status.code(), Some(1), "{file}: {}", printed(&output));
        assert!(String::from_utf8_lossy(&output.stdout).contains(why), "{file}: {}", printed(&output));
    }
}

#[test]
fn the_quickstart() {
    if !can_run_containers() {
        return;
    }
    let output = run_file(&example("quickstart.yaml"));
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
    for expected in [
        "[measure : count] measuring \"a rope is laid from strands\"",
        "[report : say] \"a rope is laid from strands\" is 27 characters long",
        "[summary : say] the tasks ended as Completed",
        "length = 27",
        "When Expressions evaluated to false",
    ] {
        assert!(stdout.contains(expected), "no {expected:?} in {}", printed(&output));
    }
}

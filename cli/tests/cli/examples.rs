//! Every example runs as its folder says it does.

use crate::common::{can_run_containers, example, printed, ropewalk, run_file};

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

#[test]
fn params_and_workspaces_of_the_command_line() {
    if !can_run_containers() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("task.yaml");
    let task = "\
apiVersion: tekton.dev/v1
kind: Task
metadata:
  name: greet
spec:
  params:
  - name: whom
  workspaces:
  - name: out
  steps:
  - image: i
    script: printf '%s' 'hello $(params.whom)' > $(workspaces.out.path)/greeting
";
    std::fs::write(&file, task).expect("written");
    let out = directory.path().join("out");
    std::fs::create_dir(&out).expect("made");
    let workspace = format!("out={}", out.display());
    let output = ropewalk()
        .args([
            "run",
            "--rootfs",
            "host",
            "--param",
            "whom=rope",
            "--output",
            "json",
            "--workspace",
            &workspace,
        ])
        .arg(&file)
        .output()
        .expect("the command starts");
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
    assert_eq!(std::fs::read_to_string(out.join("greeting")).expect("written by the step"), "hello rope");
    let runs: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("JSON alone on standard output");
    assert_eq!(runs[0]["status"]["conditions"][0]["reason"], "Succeeded");
}

#[test]
fn rendering_is_the_same_every_time() {
    let render =
        || ropewalk().arg("render").arg(example("quickstart.yaml")).output().expect("the command starts");
    let (first, second) = (render(), render());
    assert_eq!(first.status.code(), Some(0), "{}", printed(&first));
    assert_eq!(first.stdout, second.stdout);
    let pods = String::from_utf8_lossy(&first.stdout).matches("kind: Pod").count();
    assert_eq!(pods, 3, "one for each task that runs: {}", printed(&first));
}

/// The labels of a Pipeline reach its run by a plan of their own, which creates nothing.
#[test]
fn rendering_comes_to_an_end_when_the_pipeline_has_labels() {
    let text = std::fs::read_to_string(example("quickstart.yaml")).expect("readable");
    let named = "kind: Pipeline\nmetadata:\n  name: quickstart\n";
    assert!(text.contains(named));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("labelled.yaml");
    std::fs::write(&file, text.replace(named, &format!("{named}  labels: {{team: ropes}}\n")))
        .expect("written");
    let mut render = ropewalk();
    render.arg("render").arg(&file).stdout(std::process::Stdio::piped());
    let child = render.spawn().expect("the command starts");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    let (ended, end) = std::sync::mpsc::channel();
    // A command that goes round in circles is stopped, so that the test fails instead of hanging.
    let guard = std::thread::spawn(move || {
        if end.recv_timeout(std::time::Duration::from_secs(30)).is_err() {
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("stopped");
        }
    });
    let output = child.wait_with_output().expect("it ends");
    // The guard has given up waiting if nobody listens any more.
    let _ = ended.send(());
    guard.join().expect("no panic");
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
    let pods = String::from_utf8_lossy(&output.stdout);
    assert_eq!((pods.matches("kind: Pod").count(), pods.matches("team: ropes").count()), (3, 3), "{pods}");
}

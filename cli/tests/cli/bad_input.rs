//! What users get wrong: one clear message each, with its place, and the exit code that belongs to it.

use std::process::Command;

use crate::common::{can_run_containers, example, printed, run_text};

/// Refused before anything runs: exit code 2, the message, and where it stands.
#[track_caller]
fn refused(text: &str, messages: &[&str]) {
    if !can_run_containers() {
        return;
    }
    let output = run_text(text);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    for message in messages {
        assert!(stderr.contains(message), "no {message:?} in {}", printed(&output));
    }
    assert!(!stderr.contains("panicked"), "{}", printed(&output));
}

/// A run that fails: exit code 1, and the reason in what is printed.
#[track_caller]
fn failed(text: &str, messages: &[&str]) {
    if !can_run_containers() {
        return;
    }
    let output = run_text(text);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    for message in messages {
        assert!(stdout.contains(message), "no {message:?} in {}", printed(&output));
    }
}

fn taskrun(spec: &str) -> String {
    format!("apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata:\n  name: bad\nspec:\n{spec}")
}

fn pipelinerun(tasks: &str) -> String {
    format!(
        "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata:\n  name: bad\nspec:\n  pipelineSpec:\n    tasks:\n{tasks}"
    )
}

#[test]
fn not_yaml() {
    refused(
        "apiVersion: tekton.dev/v1\nkind: [TaskRun\nmetadata: {}\n",
        &["not valid YAML", "input.yaml:3:"],
    );
}

#[test]
fn a_file_that_is_not_there() {
    if !can_run_containers() {
        return;
    }
    let output = crate::common::run_file(std::path::Path::new("no-such-file.yaml"));
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("\"no-such-file.yaml\""),
        "{}",
        printed(&output)
    );
}

#[test]
fn an_unknown_kind() {
    let text = taskrun("  taskSpec: {}\n").replace("kind: TaskRun", "kind: TaskRum");
    refused(&text, &["unknown kind \"TaskRum\"", "input.yaml:2:1", "\"TaskRun\""]);
}

#[test]
fn an_unknown_field() {
    let text = taskrun("  taskSpec:\n    steps:\n    - name: a\n      imge: debian\n");
    refused(
        &text,
        &["unknown field \"spec.taskSpec.steps[0].imge\"", "input.yaml:9:7", "did you mean \"image\"?"],
    );
}

#[test]
fn a_field_in_the_wrong_case_is_read_with_a_warning() {
    if !can_run_containers() {
        return;
    }
    let output =
        run_text(&taskrun("  taskSpec:\n    steps:\n    - name: a\n      Image: i\n      script: echo\n"));
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("warning") && stderr.contains("input.yaml:9:7"), "{}", printed(&output));
    assert!(stderr.contains("\"image\""), "{}", printed(&output));
}

#[test]
fn a_cycle() {
    let task = |name: &str, after: &str| {
        format!(
            "    - name: {name}\n      runAfter: [{after}]\n      taskSpec:\n        steps:\n        - image: i\n          script: true\n"
        )
        .replace("script: true", "script: echo")
    };
    let text = pipelinerun(&format!("{}{}{}", task("a", "c"), task("b", "a"), task("c", "b")));
    refused(&text, &["cycle detected", "\"a\"", "\"b\"", "\"c\"", "input.yaml:"]);
}

#[test]
fn a_missing_task() {
    failed(
        &pipelinerun("    - name: build\n      taskRef:\n        name: no-such-task\n"),
        &["CouldntGetTask", "\"no-such-task\""],
    );
}

#[test]
fn a_param_of_the_wrong_type() {
    let task = "apiVersion: tekton.dev/v1\nkind: Task\nmetadata:\n  name: t\nspec:\n  params:\n  - name: list\n    type: array\n  steps:\n  - image: i\n    command: [echo]\n    args: [\"$(params.list[*])\"]\n---\n";
    let run = taskrun("  taskRef:\n    name: t\n  params:\n  - name: list\n    value: text\n");
    failed(&format!("{task}{run}"), &["TaskRunValidationFailed", "list"]);
}

#[test]
fn a_config_map_name_with_a_blank() {
    let text = taskrun(
        "  timeout: 20s\n  taskSpec:\n    steps:\n    - name: a\n      image: i\n      script: echo\n      envFrom:\n      - configMapRef:\n          name: \" settings\"\n",
    );
    failed(&text, &["\" settings\""]);
}

#[test]
fn a_command_that_does_not_exist() {
    let text =
        taskrun("  taskSpec:\n    steps:\n    - name: a\n      image: i\n      command: [no-such-command]\n");
    failed(&text, &["\"step-a\" exited with code", "\"no-such-command\""]);
}

#[test]
fn nothing_to_run() {
    refused("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\n", &["there is nothing to run"]);
}

#[test]
fn an_image_with_a_bad_name() {
    if !can_run_containers() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("input.yaml");
    std::fs::write(&file, taskrun("  taskSpec:\n    steps:\n    - image: Debian:12\n      script: echo\n"))
        .expect("written");
    let output = crate::common::ropewalk().arg("run").arg(&file).output().expect("the command starts");
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("couldn't parse image name \"Debian:12\""), "{}", printed(&output));
}

#[test]
fn an_ordinary_user_without_a_home_is_told_to_choose_a_directory() {
    use std::os::unix::process::CommandExt;

    if !can_run_containers() {
        return;
    }
    // Copied alone to where everybody may read, as to another machine.
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("open");
    let (copy, file) = (directory.path().join("ropewalk"), directory.path().join("input.yaml"));
    std::fs::copy(env!("CARGO_BIN_EXE_ropewalk"), &copy).expect("copied");
    std::fs::write(&file, taskrun("  taskSpec:\n    steps:\n    - image: i\n      script: echo\n"))
        .expect("written");
    let output = std::process::Command::new(&copy)
        .args(["run", "--rootfs", "host"])
        .arg(&file)
        .env("HOME", "/root")
        .env_remove("XDG_DATA_HOME")
        .uid(65534)
        .gid(65534)
        .output()
        .expect("the command starts");
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr.trim().lines().count(), 1, "{}", printed(&output));
    assert!(
        stderr.contains("cannot make \"/root/.local/share/ropewalk\"; choose a directory")
            && stderr.contains("--data-dir"),
        "{}",
        printed(&output)
    );
}

#[test]
fn a_workspace_whose_config_map_is_missing() {
    failed(
        &taskrun(
            "  timeout: 8s\n  workspaces: [{name: c, configMap: {name: nosuch}}]\n  taskSpec:\n    workspaces: [{name: c}]\n    steps:\n    - image: i\n      script: echo\n",
        ),
        &["waits: ", "\"nosuch\""],
    );
}

#[test]
fn an_output_that_cannot_be_written() {
    if !can_run_containers() {
        return;
    }
    let file = crate::common::example("quickstart.yaml");
    for arguments in
        [&["render"][..], &["run", "--rootfs", "host"], &["run", "--rootfs", "host", "-o", "json"]]
    {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("there is one");
        let output = crate::common::ropewalk()
            .args(arguments)
            .arg(&file)
            .stdout(full)
            .stderr(std::process::Stdio::piped())
            .output()
            .expect("the command starts");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", printed(&output));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("cannot write to standard output"), "{}", printed(&output));
    }
}

/// Names and keys that would lead out of a volume's directory: nothing outside is read, written or removed.
#[test]
fn nothing_leads_out_of_a_volume() {
    if !can_run_containers() {
        return;
    }
    let outside = tempfile::tempdir().expect("a temporary directory");
    let path = outside.path().display().to_string();
    std::fs::write(outside.path().join("secret"), "kept").expect("written");
    let up = "../".repeat(12);
    let key = format!("{up}{}", path.trim_start_matches('/'));
    let volume = |name: &str, source: &str| {
        taskrun(&format!(
            "  timeout: 8s\n  taskSpec:\n    volumes: [{{name: \"{name}\", {source}}}]\n    steps:\n    - image: i\n      volumeMounts: [{{name: \"{name}\", mountPath: /v}}]\n      script: ls /v; touch /v/written\n"
        ))
    };
    let config = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata: {{\"{key}/written\": x}}\n---\n"
    );
    let sidecar = taskrun(&format!(
        "  taskSpec:\n    sidecars: [{{name: \"{key}\", image: i, script: sleep 60}}]\n    steps: [{{image: i, script: echo}}]\n"
    ));
    for text in [
        volume(&path, "emptyDir: {}"),
        volume(&key, "emptyDir: {}"),
        format!("{config}{}", volume("v", "configMap: {name: c}")),
        sidecar,
    ] {
        let output = run_text(&text);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{}", printed(&output));
        assert!(!String::from_utf8_lossy(&output.stdout).contains("] secret"), "{}", printed(&output));
        let left: Vec<_> = std::fs::read_dir(outside.path()).expect("readable").flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}: {}", printed(&output));
    }
}

/// Not the user's input, but as clear: what is run would wait for a node for ever.
#[test]
fn a_disk_that_is_full() {
    if !can_run_containers() {
        return;
    }
    let full = "mkdir -p /var/lib/ropewalk && mount -t tmpfs -o size=300k none /var/lib/ropewalk &&
        exec timeout 60 \"$@\"";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", full, "sh", env!("CARGO_BIN_EXE_ropewalk"), "run", "--rootfs", "host"])
        .arg(example("quickstart.yaml"))
        .output()
        .expect("unshare starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    assert!(stderr.contains("cannot write \"/var/lib/ropewalk/"), "{}", printed(&output));
    assert!(stderr.contains("No space left on device"), "{}", printed(&output));
}

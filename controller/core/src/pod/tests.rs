//! Pods from runs: whole ones as snapshots, rules as tables.

use k8s_openapi::api::core::v1::{Volume, VolumeMount};
use ropewalk_api::config::Config;
use ropewalk_api::{Task, TaskRun};
use ropewalk_entrypoint_protocol::flags::{self, Command, Credential, CredentialKind, StepFlags};
use rstest::rstest;
use serde_json::{Value, json};

use super::*;

fn run(spec: &str) -> TaskRun {
    let yaml = format!("metadata: {{name: run}}\nspec: {spec}");
    let mut run: TaskRun = serde_saphyr::from_str(&yaml).expect("a TaskRun");
    run.metadata.namespace = Some("ns".to_owned());
    run.metadata.uid = Some("run-uid".to_owned());
    run
}

fn pod_of(run: &TaskRun) -> Value {
    pod_with(run, &Config::default())
}

fn pod_with(run: &TaskRun, config: &Config) -> Value {
    rendered(run, config, &Settings::default())
}

/// The pod on a cluster whose nodes do not mount images.
fn prepared_pod_of(run: &TaskRun) -> Value {
    rendered(run, &Config::default(), &without_image_volumes())
}

fn without_image_volumes() -> Settings {
    Settings { image_volumes: false, ..Settings::default() }
}

fn rendered(run: &TaskRun, config: &Config, settings: &Settings) -> Value {
    serde_json::to_value(render(run, None, &Account::default(), config, settings).expect("a pod"))
        .expect("JSON")
}

fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let all = pod["spec"]["containers"].as_array().expect("containers");
    all.iter().find(|container| container["name"] == name).expect("the container")
}

fn mounts(container: &Value) -> Vec<String> {
    let all = container["volumeMounts"].as_array().into_iter().flatten();
    all.map(|mount| {
        let flags = if mount["readOnly"] == true { ":ro" } else { "" };
        let sub = mount["subPath"].as_str().map(|path| format!("[{path}]")).unwrap_or_default();
        format!(
            "{}{sub}@{}{flags}",
            mount["name"].as_str().expect("a name"),
            mount["mountPath"].as_str().expect("a path")
        )
    })
    .collect()
}

fn args(container: &Value) -> Vec<String> {
    serde_json::from_value(container["args"].clone()).expect("args")
}

fn step_flags(pod: &Value, name: &str) -> StepFlags {
    let Ok(Command::Run(step)) = flags::parse(&args(container(pod, name))) else {
        panic!("the step reads its flags");
    };
    step
}

const HELLO: &str = "{taskSpec: {steps: [{name: hello, image: alpine, script: echo hello}]}}";

#[test]
fn a_script_step() {
    insta::assert_yaml_snapshot!(prepared_pod_of(&run(HELLO)));
}

#[test]
fn a_script_step_by_image_volume() {
    insta::assert_yaml_snapshot!(pod_of(&run(HELLO)));
}

const BUILD: &str = "
  serviceAccountName: builder
  timeout: 10m
  workspaces: [{name: src, subPath: sub, persistentVolumeClaim: {claimName: disk}}]
  podTemplate: {nodeSelector: {disk: ssd}, hostNetwork: true, volumes: [{name: extra, emptyDir: {}}]}
  taskSpec:
    results: [{name: out}, {name: digest}]
    workspaces: [{name: src, readOnly: true}]
    volumes: [{name: cache, emptyDir: {}}]
    stepTemplate: {env: [{name: A, value: template}, {name: B, value: template}]}
    sidecars: [{name: db, image: postgres, script: \"#!/bin/bash\\nserve\\n\"}]
    steps:
    - name: build
      image: golang
      command: [go, build]
      args: [./..., $(workspaces.src.path)]
      workingDir: $(workspaces.src.path)/cmd
      env: [{name: B, value: step}]
      volumeMounts: [{name: cache, mountPath: /cache}]
      timeout: 90s
    - image: alpine
      script: |
        #!/usr/bin/env python3
        print('$(context.taskRun.name)')
      args: [x]
      onError: continue
      results: [{name: own}]
      when: [{input: a, operator: in, values: [a, b]}]
      stdoutConfig: {path: /tekton/results/out}
";

#[test]
fn two_steps_a_sidecar_and_a_workspace() {
    insta::assert_yaml_snapshot!(prepared_pod_of(&run(BUILD)));
}

#[test]
fn two_steps_a_sidecar_and_a_workspace_by_image_volume() {
    insta::assert_yaml_snapshot!(pod_of(&run(BUILD)));
}

#[test]
fn the_same_run_has_the_same_pod() {
    let run = run(HELLO);
    assert_eq!(pod_of(&run).to_string(), pod_of(&run).to_string());
}

#[test]
fn a_referenced_task_lends_its_labels() {
    let mut run = run("{taskRef: {name: build}}");
    run.metadata.labels = Some([("team".to_owned(), "mine".to_owned())].into());
    let task: Task = serde_saphyr::from_str(
        "{metadata: {name: build, labels: {team: theirs, app: x}}, spec: {steps: [{image: i, script: x}]}}",
    )
    .expect("a Task");
    let pod = render(&run, Some(&task), &Account::default(), &Config::default(), &Settings::default())
        .expect("a pod");
    let labels = pod.metadata.labels.expect("labels");
    assert_eq!(labels["team"], "mine");
    assert_eq!(labels["app"], "x");
    assert_eq!(labels["tekton.dev/task"], "build");
    assert_eq!(labels["tekton.dev/taskRun"], "run");
    assert_eq!(labels["app.kubernetes.io/managed-by"], "tekton-pipelines");
}

#[test]
fn annotations_that_are_not_for_pods_stay_behind() {
    let mut run = run(HELLO);
    let annotations = [
        ("app.kubernetes.io/managed-by", "x"),
        ("kubectl.kubernetes.io/last-applied-configuration", "{}"),
        ("results.tekton.dev/log", "kept"),
    ];
    run.metadata.annotations = Some(annotations.map(|(key, value)| (key.into(), value.into())).into());
    assert_eq!(
        pod_of(&run)["metadata"]["annotations"],
        json!({
            "pipeline.tekton.dev/release": env!("CARGO_PKG_VERSION"),
            "results.tekton.dev/log": "kept",
            "tekton.dev/ready": "READY",
        })
    );
}

#[rstest]
#[case("10m", 900)]
#[case("1s", 1)]
#[case("100ms", 1)]
#[case("0s", 2_147_483_647)]
#[case("3s", 4)]
fn the_pods_own_deadline(#[case] timeout: &str, #[case] seconds: i64) {
    let run = run(&format!("{{timeout: {timeout}, taskSpec: {{steps: [{{image: i, script: x}}]}}}}"));
    assert_eq!(pod_of(&run)["spec"]["activeDeadlineSeconds"], seconds);
}

#[test]
fn a_retry_has_a_pod_of_its_own() {
    let mut run = run(HELLO);
    let mut status = ropewalk_api::TaskRunStatus::default();
    status.retries_status.push(ropewalk_api::TaskRunStatus::default());
    run.status = Some(status);
    assert_eq!(pod_of(&run)["metadata"]["name"], "run-pod-retry1");
}

#[rstest]
#[case::no_shebang("echo hi", "#!/bin/sh\nset -e\necho hi")]
#[case::shebang("#!/bin/bash\necho hi", "#!/bin/bash\necho hi")]
#[case::blanks_first("\n  #!/bin/bash\necho hi", "#!/bin/bash\necho hi")]
fn scripts_are_files_written_by_prepare(#[case] script: &str, #[case] content: &str) {
    let mut run = run(HELLO);
    let spec = run.spec.task_spec.as_mut().expect("a spec");
    script.clone_into(&mut spec.steps[0].script);
    let pod = prepared_pod_of(&run);
    let prepare = args(&pod["spec"]["initContainers"][0]);
    let Ok(Command::Prepare(prepare)) = flags::parse(&prepare) else {
        panic!("prepare reads its flags");
    };
    let [script] = prepare.scripts.as_slice() else { panic!("one script") };
    assert_eq!(script.content, content);
    assert_eq!(prepare.steps, ["step-hello"]);
    assert_eq!(prepare.copy_to.as_deref(), Some("/tekton/bin/entrypoint"));
    let step = step_flags(&pod, "step-hello");
    assert_eq!(step.entrypoint.as_deref(), Some(script.path.as_str()));
    assert_eq!(step.script, None);
    assert!(script.path.starts_with("/tekton/scripts/script-0-"), "{}", script.path);
}

#[test]
fn a_step_writes_its_own_script_where_there_is_no_init_container() {
    let pod = pod_of(&run(HELLO));
    let prepared = prepared_pod_of(&run(HELLO));
    assert_eq!(pod["spec"].get("initContainers"), None);
    let own = step_flags(&pod, "step-hello");
    let script = own.script.expect("a script");
    assert_eq!(script.content, "#!/bin/sh\nset -e\necho hello");
    assert_eq!(own.entrypoint.as_deref(), Some(script.path.as_str()));
    assert_eq!(own.entrypoint, step_flags(&prepared, "step-hello").entrypoint, "users see the same path");
    assert_eq!(own.steps, ["step-hello"]);
}

#[test]
fn what_one_container_writes_no_other_mounts() {
    let pod = pod_of(&run("
  taskSpec:
    sidecars: [{name: s, image: i, script: x}, {name: t, image: i, script: x}, {name: u, image: i}]
    steps: [{name: a, image: i, script: x}, {name: b, image: i, script: x}, {name: c, image: i, command: [x]}]
"));
    let volumes = pod["spec"]["volumes"].as_array().expect("volumes");
    let containers = pod["spec"]["containers"].as_array().expect("containers");
    let mut found = 0;
    for volume in volumes.iter().filter_map(|volume| volume["name"].as_str()) {
        if !volume.starts_with("tekton-internal-s") {
            continue;
        }
        let mounted =
            containers.iter().flat_map(mounts).filter(|mount| mount.split('@').next() == Some(volume));
        assert_eq!(mounted.count(), 1, "{volume}");
        found += 1;
    }
    assert_eq!(found, 3 + 2 + 2, "links of each step, scripts of two steps and two sidecars");
}

#[test]
fn a_sidecars_script_is_written_by_the_entrypoint() {
    let spec = "
  taskSpec:
    sidecars: [{name: s, image: i, script: serve $(date), args: [x]}]
    steps: [{name: a, image: i, command: [x]}]
";
    let (pod, prepared) = (pod_of(&run(spec)), prepared_pod_of(&run(spec)));
    let sidecar = container(&pod, "sidecar-s");
    assert_eq!(sidecar["command"], json!(["/tekton/bin/entrypoint"]));
    let Ok(Command::Script(flags)) = flags::parse(&args(sidecar)) else { panic!("a script command") };
    assert_eq!(flags.script.content, "#!/bin/sh\nset -e\nserve $(date)");
    assert_eq!(flags.args, ["x"]);
    assert!(mounts(sidecar).contains(&"tekton-internal-bin@/tekton/bin:ro".to_owned()));
    let before = container(&prepared, "sidecar-s");
    assert_eq!(before["command"], json!([flags.script.path]));
    assert_eq!(args(before), ["x"]);
}

#[test]
fn the_first_step_waits_for_sidecars_only_if_there_are_any() {
    let with = "{taskSpec: {sidecars: [{name: s, image: i}], steps: [{image: i, script: x}]}}";
    let pod = pod_of(&run(with));
    assert_eq!(pod["metadata"]["annotations"].get("tekton.dev/ready"), None);
    let flags = args(container(&pod, "step-unnamed-0"));
    assert_eq!(flags[..3], ["-wait_file", "/tekton/downward/ready", "-wait_file_content"]);

    let mut config = Config::default();
    config.features.await_sidecar_readiness = false;
    let pod = pod_with(&run(with), &config);
    assert_eq!(pod["metadata"]["annotations"]["tekton.dev/ready"], "READY");
    assert_eq!(args(container(&pod, "step-unnamed-0"))[0], "-post_file");
}

const WORKING_DIRS: &str = "
  workspaces: [{name: src, emptyDir: {}}]
  taskSpec:
    workspaces: [{name: src}]
    volumes: [{name: v, emptyDir: {}}]
    stepTemplate: {workingDir: from/template}
    steps:
    - {name: a, image: i, script: x, workingDir: relative/./dir}
    - {name: b, image: i, script: x, workingDir: /workspace/b/../c}
    - {name: c, image: i, script: x, workingDir: /elsewhere}
    - {name: d, image: i, script: x, workingDir: $(workspaces.src.path)/sub}
    - {name: e, image: i, script: x, workingDir: src}
    - {name: f, image: i, script: x, workingDir: /workspace}
    - {name: g, image: i, script: x, workingDir: g, volumeMounts: [{name: v, mountPath: /workspace}]}
    - {name: h, image: i, script: x}
";

#[test]
fn prepare_makes_working_directories_under_workspace() {
    let pod = prepared_pod_of(&run(WORKING_DIRS));
    let Ok(Command::Prepare(prepare)) = flags::parse(&args(&pod["spec"]["initContainers"][0])) else {
        panic!("prepare reads its flags");
    };
    assert_eq!(
        prepare.working_dirs,
        ["c", "from/template", "g", "relative/dir", "src", "src/sub"].map(|dir| format!("/workspace/{dir}"))
    );
    assert!(
        mounts(&pod["spec"]["initContainers"][0]).contains(&"tekton-internal-workspace@/workspace".into())
    );
    assert_eq!(container(&pod, "step-a")["workingDir"], "/workspace/relative/dir");
    assert_eq!(container(&pod, "step-c")["workingDir"], "/elsewhere");
}

#[test]
fn dollars_in_working_directories_reach_the_entrypoint() {
    let of = |dir: &str| {
        let text = format!(
            "{{taskSpec: {{steps: [{{name: a, image: i, script: x}}, \
             {{name: b, image: i, script: x, workingDir: {dir}}}]}}}}"
        );
        let run = run(&text);
        let pod = pod_of(&run);
        (step_flags(&pod, "step-a").make_dirs, step_flags(&pod, "step-b").working_dir)
    };
    // As kubelets read them: two dollars are one, and nothing is left to be replaced.
    for (dir, written) in [("$(HOME)", "$$(HOME)"), ("$$(HOME)", "$$$$(HOME)"), ("a$b", "a$$b")] {
        let written = format!("/workspace/{written}");
        assert_eq!(of(dir), (vec![written.clone()], Some(written)), "{dir}");
    }
}

#[test]
fn the_first_step_makes_working_directories_that_lie_in_no_volume_of_the_users() {
    let pod = pod_of(&run(WORKING_DIRS));
    assert_eq!(
        step_flags(&pod, "step-a").make_dirs,
        ["c", "from/template", "g"].map(|dir| format!("/workspace/{dir}"))
    );
    // What the runtime enters, and what the entrypoint enters.
    for (step, runtime, entrypoint) in [
        ("a", "/workspace", Some("/workspace/relative/dir")),
        ("b", "/workspace", Some("/workspace/c")),
        ("c", "/elsewhere", None),
        ("d", "/workspace/src/sub", None),
        ("e", "/workspace/src", None),
        ("f", "/workspace", None),
        ("g", "/workspace/g", None),
        ("h", "/workspace", Some("/workspace/from/template")),
    ] {
        let name = format!("step-{step}");
        assert_eq!(container(&pod, &name)["workingDir"], runtime, "{step}");
        assert_eq!(step_flags(&pod, &name).working_dir.as_deref(), entrypoint, "{step}");
        assert!(step == "a" || step_flags(&pod, &name).make_dirs.is_empty(), "{step}");
    }
}

#[test]
fn the_results_flag_names_those_that_come_from_files() {
    for (results, expected) in [
        ("[]", None),
        ("[{name: a}, {name: b}]", Some("a,b")),
        ("[{name: a}, {name: b, value: $(steps.s.results.x)}]", Some("a")),
        ("[{name: b, value: $(steps.s.results.x)}]", Some("")),
    ] {
        let pod = pod_of(&run(&format!(
            "{{taskSpec: {{results: {results}, steps: [{{name: s, image: i, script: x}}]}}}}"
        )));
        let args = args(container(&pod, "step-s"));
        let at = args.iter().position(|arg| arg == "-results");
        assert_eq!(at.map(|at| args[at + 1].as_str()), expected, "{results}");
    }
}

#[test]
fn a_mount_of_the_steps_own_replaces_an_implicit_one() {
    let pod = pod_of(&run("
  taskSpec:
    volumes: [{name: mine, emptyDir: {}}]
    steps: [{name: a, image: i, command: [x], volumeMounts: [{name: mine, mountPath: /workspace/}]}]
"));
    assert_eq!(
        mounts(container(&pod, "step-a")),
        [
            "mine@/workspace/",
            "tekton-internal-downward@/tekton/downward:ro",
            "tekton-creds-init-home-0@/tekton/creds",
            "tekton-internal-run-0@/tekton/run/0",
            "tekton-internal-bin@/tekton/bin:ro",
            "tekton-internal-home@/tekton/home",
            "tekton-internal-results@/tekton/results",
            "tekton-internal-steps-0@/tekton/steps",
            "tekton-internal-artifacts@/tekton/artifacts",
        ]
    );
}

#[test]
fn a_workspace_listed_by_one_step_is_seen_by_no_other() {
    let pod = pod_of(&run("
  workspaces: [{name: secret, secret: {secretName: s}}, {name: all, emptyDir: {}}]
  taskSpec:
    workspaces: [{name: secret}, {name: all}]
    sidecars: [{name: side, image: i, volumeMounts: [{name: v, mountPath: /workspace/all}]}, {name: other, image: i}]
    volumes: [{name: v, emptyDir: {}}]
    steps:
    - {name: a, image: i, script: cat $(workspaces.secret.path), workspaces: [{name: secret, mountPath: /keys}]}
    - {name: b, image: i, script: cat $(workspaces.secret.path)}
"));
    let seen = |name: &str| -> Vec<String> {
        mounts(container(&pod, name)).into_iter().filter(|mount| mount.starts_with("ws-")).collect()
    };
    assert_eq!(seen("step-a").len(), 2);
    assert!(seen("step-a")[1].ends_with("@/keys"), "{:?}", seen("step-a"));
    assert_eq!(seen("step-b").len(), 1);
    assert!(seen("step-b")[0].ends_with("@/workspace/all"));
    assert!(seen("sidecar-side").is_empty(), "it has its own at that path");
    assert_eq!(seen("sidecar-other").len(), 1);
}

#[test]
fn a_claim_bound_twice_is_one_volume() {
    let pod = pod_of(&run("
  workspaces:
  - {name: a, subPath: one, persistentVolumeClaim: {claimName: disk}}
  - {name: b, subPath: two, persistentVolumeClaim: {claimName: disk}}
  taskSpec: {workspaces: [{name: a}, {name: b}], steps: [{name: s, image: i, script: x}]}
"));
    let volumes = pod["spec"]["volumes"].as_array().expect("volumes");
    assert_eq!(volumes.iter().filter(|volume| volume.get("persistentVolumeClaim").is_some()).count(), 1);
    let mounts = mounts(container(&pod, "step-s"));
    assert!(mounts[0].contains("[one]@/workspace/a"), "{mounts:?}");
    assert!(mounts[1].contains("[two]@/workspace/b"), "{mounts:?}");
}

#[test]
fn a_steps_own_fields_win_over_the_template() {
    let pod = pod_of(&run("
  podTemplate: {env: [{name: P, value: pod}, {name: DENIED, value: x}]}
  taskSpec:
    stepTemplate:
      image: base
      command: [base]
      args: [base]
      workingDir: /base
      imagePullPolicy: Always
      env: [{name: A, value: base}, {name: B, value: base}]
      computeResources: {requests: {cpu: 1, memory: 1Gi}}
      securityContext: {runAsUser: 1, capabilities: {add: [X], drop: [Y]}}
    steps:
    - {name: bare}
    - name: own
      image: mine
      command: [mine]
      env: [{name: B, valueFrom: {fieldRef: {fieldPath: metadata.name}}}, {name: C, value: own}]
      computeResources: {requests: {cpu: 2}}
      securityContext: {runAsUser: 2, capabilities: {add: [Z]}}
    - {name: scripted, script: x}
"));
    let bare = container(&pod, "step-bare");
    assert_eq!((&bare["image"], &bare["workingDir"]), (&json!("base"), &json!("/base")));
    assert_eq!(bare["imagePullPolicy"], "Always");
    let own = container(&pod, "step-own");
    assert_eq!(own["image"], "mine");
    assert!(args(own).ends_with(&["mine", "--", "base"].map(String::from)), "{:?}", args(own));
    let env: Vec<&str> =
        own["env"].as_array().expect("env").iter().map(|v| v["name"].as_str().expect("a name")).collect();
    assert_eq!(env, ["A", "B", "C", "P", "DENIED"]);
    assert_eq!(
        own["env"][1],
        json!({"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}})
    );
    assert_eq!(own["resources"]["requests"], json!({"cpu": "2", "memory": "1Gi"}));
    assert_eq!(
        own["securityContext"],
        json!({"runAsUser": 2, "capabilities": {"add": ["Z"], "drop": ["Y"]}})
    );
    let scripted = args(container(&pod, "step-scripted"));
    assert_eq!(scripted.last().map(String::as_str), Some("base"), "the template's args are the script's");
    assert!(!scripted[..scripted.len() - 1].contains(&"base".to_owned()), "its command is not");
}

#[test]
fn a_sidecar_without_a_name_gets_one() {
    let pod = pod_of(&run(
        "{taskSpec: {sidecars: [{image: i}, {name: s, image: i}], steps: [{image: i, script: x}]}}",
    ));
    let all = pod["spec"]["containers"].as_array().expect("containers");
    let names: Vec<&str> = all.iter().filter_map(|container| container["name"].as_str()).collect();
    assert_eq!(names, ["step-unnamed-0", "sidecar-unnamed-0", "sidecar-s"]);
}

#[test]
fn forbidden_variables_do_not_come_from_the_pod_template() {
    let mut config = Config::default();
    config.defaults.forbidden_env = vec!["DENIED".to_owned()];
    let run = run("
  podTemplate: {env: [{name: P, value: pod}, {name: DENIED, value: x}]}
  taskSpec: {steps: [{name: a, image: i, script: x}]}
");
    let pod = pod_with(&run, &config);
    assert_eq!(container(&pod, "step-a")["env"], json!([{"name": "P", "value": "pod"}]));
}

#[test]
fn resources_of_the_run() {
    let pod = pod_of(&run("
  computeResources: {requests: {cpu: 1}, limits: {cpu: 2, memory: 1Gi}}
  taskSpec:
    steps:
    - {name: a, image: i, script: x, computeResources: {requests: {cpu: 7}}}
    - {name: b, image: i, script: x}
"));
    let expected =
        json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "512Mi"}});
    assert_eq!(container(&pod, "step-a")["resources"], expected);
    assert_eq!(container(&pod, "step-b")["resources"], expected);

    let pod = pod_of(&run("
  stepSpecs: [{name: a, computeResources: {requests: {cpu: 3}}}]
  sidecarSpecs: [{name: s, computeResources: {limits: {cpu: 4}}}]
  taskSpec:
    sidecars: [{name: s, image: i}]
    steps: [{name: a, image: i, script: x, computeResources: {requests: {cpu: 7, memory: 1Gi}}}]
"));
    assert_eq!(container(&pod, "step-a")["resources"], json!({"requests": {"cpu": "3", "memory": "1Gi"}}));
    assert_eq!(container(&pod, "sidecar-s")["resources"], json!({"limits": {"cpu": "4"}}));
}

#[test]
fn the_security_context_of_injected_containers() {
    let mut config = Config::default();
    config.features.set_security_context = true;
    let pod = rendered(&run(HELLO), &config, &without_image_volumes());
    assert_eq!(
        pod["spec"]["initContainers"][0]["securityContext"],
        json!({
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": true,
            "seccompProfile": {"type": "RuntimeDefault"},
        })
    );
    assert_eq!(container(&pod, "step-hello").get("securityContext"), None);
}

#[test]
fn credentials_have_their_path_in_the_pod() {
    let pod = pod_of(&run(
        "{taskSpec: {steps: [{name: a, image: i, command: [ls], args: [$(credentials.path)]}]}}",
    ));
    assert_eq!(args(container(&pod, "step-a")).last().map(String::as_str), Some("/tekton/creds"));
}

#[test]
fn render_says_what_the_run_would_say() {
    let error = |spec: &str| {
        render(&run(spec), None, &Account::default(), &Config::default(), &Settings::default())
            .expect_err("no pod")
            .to_string()
    };
    assert_eq!(
        error("{taskSpec: {params: [{name: p}], steps: [{image: i, script: x}]}}"),
        "[User error] invalid input params for task run: missing values for these params which have no default \
         values: [p]"
    );
    assert_eq!(
        error("{taskSpec: {steps: [{name: s, image: i}]}}"),
        "step \"s\" has neither command nor script; set a command, as image entrypoints are not looked up"
    );
}

/// The pod of a run whose service account names two secrets.
fn pod_with_credentials(spec: &str, config: &Config, settings: &Settings) -> Value {
    let credential =
        |kind, secret: &str, url: &str| Credential { kind, secret: secret.into(), url: url.into() };
    let mount = |name: &str, secret: &str| VolumeMount {
        name: name.into(),
        mount_path: format!("/tekton/creds-secrets/{secret}"),
        ..VolumeMount::default()
    };
    let volume = |name: &str| Volume { name: name.into(), ..Volume::default() };
    let run = run(spec);
    let mut resolved = resolve::resolve(&run, None, config).expect("a Task");
    resolved.credentials = Credentials {
        flags: vec![
            credential(CredentialKind::DockerConfig, "pull", ""),
            credential(CredentialKind::BasicGit, "bot", "https://git.example/$(x)"),
        ],
        volumes: vec![volume("tekton-creds-1"), volume("tekton-creds-2")],
        mounts: vec![mount("tekton-creds-1", "pull"), mount("tekton-creds-2", "bot")],
        missing: vec!["gone".into()],
    };
    serde_json::to_value(build(&run, &resolved, config, settings).expect("a pod")).expect("JSON")
}

const TWO_STEPS: &str = "
  taskSpec:
    volumes: [{name: mine, emptyDir: {}}]
    sidecars: [{name: side, image: i}]
    steps:
    - {name: a, image: i, command: [x], volumeMounts: [{name: mine, mountPath: /tekton/creds-secrets/bot/}]}
    - {name: b, image: i, command: [x]}
";

fn volume_names_of(pod: &Value) -> Vec<&str> {
    let all = pod["spec"]["volumes"].as_array().into_iter().flatten();
    all.map(|volume| volume["name"].as_str().expect("a name")).collect()
}

#[rstest]
#[case(Settings::default(), &["tekton-internal-artifacts", "tekton-creds-1", "tekton-creds-2", "tekton-internal-bin"])]
#[case(without_image_volumes(), &["tekton-internal-artifacts", "tekton-creds-1", "tekton-creds-2", "tekton-internal-bin"])]
fn credentials_are_mounted_by_every_step_and_no_sidecar(#[case] settings: Settings, #[case] order: &[&str]) {
    let pod = pod_with_credentials(TWO_STEPS, &Config::default(), &settings);
    let names = volume_names_of(&pod);
    assert!(names.windows(order.len()).any(|some| some == order), "{names:?}");
    let of = |name: &str| -> Vec<String> {
        let all = mounts(container(&pod, name)).into_iter();
        all.filter(|mount| mount.contains("creds")).collect()
    };
    // Where a step has a mount of its own, it means it.
    assert_eq!(
        of("step-a"),
        [
            "mine@/tekton/creds-secrets/bot/",
            "tekton-creds-init-home-0@/tekton/creds",
            "tekton-creds-1@/tekton/creds-secrets/pull",
        ]
    );
    assert_eq!(
        of("step-b"),
        [
            "tekton-creds-init-home-1@/tekton/creds",
            "tekton-creds-1@/tekton/creds-secrets/pull",
            "tekton-creds-2@/tekton/creds-secrets/bot",
        ]
    );
    assert!(of("sidecar-side").is_empty());
    for step in ["step-a", "step-b"] {
        let args = args(container(&pod, step));
        let at = args.iter().position(|arg| arg == "-step_metadata_dir").expect("the flag") + 2;
        // The kubelet makes one dollar of two.
        assert_eq!(args[at..at + 2], ["-docker-config=pull", "-basic-git=bot=https://git.example/$$(x)"]);
    }
    assert_eq!(pod["metadata"]["annotations"]["ropewalk.dev/missing-secrets"], "gone");
}

#[test]
fn without_credentials_there_are_no_volumes_for_them() {
    let mut config = Config::default();
    config.features.disable_creds_init = true;
    let pod = pod_with_credentials(TWO_STEPS, &config, &Settings::default());
    assert!(volume_names_of(&pod).iter().all(|name| !name.contains("creds")));
    assert!(mounts(container(&pod, "step-b")).iter().all(|mount| !mount.contains("creds")));
    assert!(args(container(&pod, "step-b")).iter().all(|arg| !arg.contains("-basic-git")));
    assert_eq!(pod["metadata"]["annotations"]["ropewalk.dev/missing-secrets"], Value::Null);
}

#[test]
fn records_about_the_run_itself_stay_with_it() {
    let mut run = run(HELLO);
    let annotation = |key: &str| (key.to_owned(), "{}".to_owned());
    let all = [labels::LAST_APPLIED, "ropewalk.dev/v1beta1", "ropewalk.dev/other", "team"];
    run.metadata.annotations = Some(all.map(annotation).into());
    let pod = pod_of(&run);
    let there = |key: &str| pod["metadata"]["annotations"].get(key).is_some();
    assert_eq!(all.map(there), [false, false, true, true]);
}

#[test]
fn records_about_a_task_stay_with_it() {
    let mut task: Task =
        serde_saphyr::from_str("{metadata: {name: t}, spec: {steps: [{image: i, script: x}]}}")
            .expect("a Task");
    let annotation = |key: &str| (key.to_owned(), "{}".to_owned());
    task.metadata.annotations =
        Some(["ropewalk.dev/v1beta1", labels::LAST_APPLIED, "team"].map(annotation).into());
    let resolved =
        resolve::resolve(&run("{taskRef: {name: t}}"), Some(&task), &Config::default()).expect("a Task");
    assert_eq!(resolved.annotations, [annotation("team")]);
}

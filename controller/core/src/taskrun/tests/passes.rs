//! Substitution passes (contract 4.1, 4.2, 12.2 and 12.4).

use super::*;

fn stored(run: &str) -> ropewalk_api::TaskSpec {
    let mut world = World::new(run);
    world.settle();
    world.status().task_spec.expect("a stored spec")
}

#[test]
fn what_one_pass_inserts_only_later_passes_expand() {
    for (text, expected) in [
        ("$(params.a)", "t1"),
        ("$(params.b)", "$(params.a)"),
        ("$(params.c)", "/workspace/w"),
        ("$(params.d)", "/tekton/results/out"),
        ("$(params.e)", "$(steps.s1.results.x)"),
        ("$(context.taskRun.name)$(params.a)", "t1t1"),
        ("$$(params.a)", "$t1"),
        ("$(nosuch.thing)", "$(nosuch.thing)"),
        ("$(context.taskRun.namespace)/$(context.taskRun.uid)", "ns/run-uid"),
        ("$(context.task.name)-$(context.task.retry-count)", "t1-0"),
        ("$(results['out'].path)$(results[\"out\"].path)", "/tekton/results/out/tekton/results/out"),
        ("$(step.results.own.path)", "/tekton/steps/step-s1/results/own"),
        ("$(steps.step-s1.exitCode.path)", "/tekton/steps/step-s1/exitCode"),
        ("$(steps.step-unnamed-1.exitCode.path)", "/tekton/steps/step-unnamed-1/exitCode"),
        ("$(workspaces.w.bound)$(workspaces.opt.bound)", "truefalse"),
        ("[$(workspaces.opt.path)][$(workspaces.opt.claim)]", "[][$(workspaces.opt.claim)]"),
        ("[$(workspaces.w.claim)]", "[]"),
        ("$(workspaces.data.claim)", "disk"),
        ("$(params.later)", "$(params.none) x"),
    ] {
        let quoted = serde_json::to_string(text).expect("JSON");
        let spec = stored(&format!(
            "
metadata: {{name: t1}}
spec:
  workspaces: [{{name: w, emptyDir: {{}}}}, {{name: data, persistentVolumeClaim: {{claimName: disk}}}}]
  params:
  - {{name: a, value: $(context.taskRun.name)}}
  - {{name: b, value: $(params.a)}}
  - {{name: c, value: $(workspaces.w.path)}}
  - {{name: d, value: $(results.out.path)}}
  - {{name: e, value: $(steps.s1.results.x)}}
  taskSpec:
    params:
    - {{name: a}}
    - {{name: b}}
    - {{name: c}}
    - {{name: d}}
    - {{name: e}}
    - {{name: later, default: \"$(params.none) $(params.x)\"}}
    - {{name: x, default: x}}
    workspaces: [{{name: w}}, {{name: data}}, {{name: opt, optional: true}}]
    results: [{{name: out}}]
    steps:
    - name: s1
      image: i
      results: [{{name: own}}]
      script: {quoted}
    - {{image: i, script: x}}
"
        ));
        assert_eq!(spec.steps[0].script, expected, "{text}");
    }
}

#[test]
fn arrays_and_objects() {
    let spec = stored(
        "
metadata: {name: t}
spec:
  params:
  - {name: list, value: [one, two]}
  - {name: map, value: {k: given}}
  taskSpec:
    params:
    - {name: list, type: array}
    - {name: map, type: object, properties: {k: {}, other: {}}, default: {k: default, other: kept}}
    steps:
    - name: a
      image: i
      command: [run, '$(params.list[*])', '$(params.list)', '$(params.list[1])', 'x$(params.list[*])']
      args: ['$(params.map.k)', '$(params.map.other)']
      env: [{name: E, value: '$(params.list[0])'}]
      when: [{input: '$(params.map.k)', operator: in, values: ['$(params.list[*])']}]
",
    );
    let step = &spec.steps[0];
    assert_eq!(step.command, ["run", "one", "two", "one", "two", "two", "x$(params.list[*])"]);
    assert_eq!(step.args, ["given", "kept"]);
    assert_eq!(step.env[0].value.as_deref(), Some("one"));
    assert_eq!(step.when[0].input, "given");
    assert_eq!(step.when[0].values, ["one", "two"]);
}

#[test]
fn everything_the_contract_lists_is_substituted_and_nothing_else() {
    let spec = stored(
        "
metadata: {name: t}
spec:
  params: [{name: p, value: v}]
  workspaces: [{name: w, emptyDir: {}}]
  taskSpec:
    params: [{name: p}]
    workspaces: [{name: w, mountPath: /mnt/$(params.p)}]
    stepTemplate: {workingDir: /t/$(params.p), env: [{name: T, value: $(params.p)}]}
    volumes:
    - {name: $(params.p)-cm, configMap: {name: $(params.p), items: [{key: $(params.p), path: $(params.p)}]}}
    - {name: s, secret: {secretName: $(params.p)}}
    - {name: d, persistentVolumeClaim: {claimName: $(params.p)}}
    - {name: pr, projected: {sources: [{configMap: {name: $(params.p)}}, {secret: {name: $(params.p)}}]}}
    - {name: e, hostPath: {path: /$(params.p)}}
    sidecars: [{name: side, image: $(params.p), script: $(params.p), env: [{name: S, value: $(params.p)}]}]
    steps:
    - name: a
      displayName: $(params.p)
      image: $(params.p)
      imagePullPolicy: $(params.p)
      workingDir: $(workspaces.w.path)/$(params.p)
      onError: $(params.p)
      script: x
      envFrom: [{prefix: $(params.p), configMapRef: {name: $(params.p)}}]
      env: [{name: E, valueFrom: {secretKeyRef: {name: $(params.p), key: $(params.p)}}}]
      volumeMounts: [{name: $(params.p), mountPath: /$(params.p), subPath: $(params.p)}]
      stdoutConfig: {path: /$(params.p)}
",
    );
    let text = serde_json::to_value(&spec).expect("JSON");
    let left: Vec<String> = ["/steps/0/displayName", "/volumes/4/hostPath/path"]
        .into_iter()
        .filter(|at| text.pointer(at).and_then(Value::as_str).is_some_and(|v| v.contains("$(params.p)")))
        .map(str::to_owned)
        .collect();
    assert_eq!(left.len(), 2, "these two are not substituted: {text}");
    assert_eq!(text.to_string().matches("$(params.p)").count(), 2, "{text}");
    assert_eq!(spec.steps[0].working_dir, "/mnt/v/v");
}

#[test]
fn the_stored_spec_wins_for_a_referenced_task() {
    let mut world = World::new(
        "
metadata: {name: t}
spec:
  taskRef: {name: build}
  params: [{name: p, value: $(params.q)}, {name: q, value: hello}]
",
    );
    let task = json!({
        "metadata": {"name": "build", "labels": {"team": "x"}, "annotations": {"note": "y"}},
        "spec": {
            "params": [{"name": "p"}, {"name": "q"}],
            "steps": [{"name": "a", "image": "i", "script": "echo $(params.p) $(context.task.retry-count)"}],
        },
    });
    world.task = Some(task);
    world.settle();
    assert_eq!(world.run["metadata"]["labels"], json!({"team": "x", "tekton.dev/task": "build"}));
    assert_eq!(world.pods[0]["metadata"]["labels"]["team"], "x");
    assert_eq!(world.pods[0]["metadata"]["annotations"]["note"], "y");
    let script = |world: &World| world.status().task_spec.expect("a spec").steps[0].script.clone();
    assert_eq!(script(&world), "echo $(params.q) 0");

    // The Task is deleted and the pod lost: the next pod is made from the stored text, substituted once more.
    world.task = None;
    world.pods.clear();
    world.pass(10);
    world.settle();
    assert_eq!(world.pods.len(), 1);
    assert_eq!(script(&world), "echo hello 0");
}

#[test]
fn an_embedded_spec_is_read_from_the_run_every_time() {
    let mut world = World::new(
        "
metadata: {name: t}
spec:
  retries: 1
  taskSpec:
    steps: [{name: a, image: i, script: attempt $(context.task.retry-count)}]
",
    );
    world.settle();
    let script = |world: &World| world.status().task_spec.expect("a spec").steps[0].script.clone();
    assert_eq!(script(&world), "attempt 0");
    world.steps_exit(&[1]);
    world.settle();
    assert_eq!(script(&world), "attempt 1");
}

#[test]
fn bindings_and_the_pod_template_see_params() {
    let mut world = World::new(
        "
metadata: {name: t}
spec:
  params: [{name: p, value: v}]
  podTemplate:
    nodeSelector: {$(params.p): $(params.p)}
    env: [{name: POD, value: $(params.p)}]
  workspaces: [{name: w, subPath: $(params.p), persistentVolumeClaim: {claimName: $(params.p)}}]
  taskSpec:
    params: [{name: p}]
    workspaces: [{name: w}]
    steps: [{name: a, image: i, script: $(workspaces.w.claim)}]
",
    );
    world.settle();
    let pod = &world.pods[0];
    assert_eq!(pod["spec"]["nodeSelector"], json!({"v": "v"}));
    assert_eq!(pod["spec"]["containers"][0]["env"], json!([{"name": "POD", "value": "v"}]));
    assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["subPath"], "v");
    assert_eq!(world.status().task_spec.expect("a spec").steps[0].script, "v");
}

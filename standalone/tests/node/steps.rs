//! The pods of task runs in both of their forms: with an init container, and with the entrypoint as an image volume.

use ropewalk_api::TaskRun;
use ropewalk_api::config::Config;
use ropewalk_core::settings::Settings;
use ropewalk_entrypoint_protocol::flags::{Script, ScriptFlags};
use ropewalk_kubelet::{ENTRYPOINT_IMAGE, ENTRYPOINT_PATH};
use serde_json::json;

use crate::world::{World, outcome, pod, test};

pub(crate) fn all() -> Vec<(&'static str, fn())> {
    vec![
        ("steps_with_an_init_container", || {
            test(async |world: &mut World| Box::pin(steps(world, false)).await);
        }),
        ("our_image_ends_what_it_is_given_to", our_image_ends_what_it_is_given_to),
        ("steps_without_an_init_container", || {
            test(async |world: &mut World| Box::pin(steps(world, true)).await);
        }),
    ]
}

/// A cluster stops sidecars by exchanging their image for this one, and leaves their command as it was.
fn our_image_ends_what_it_is_given_to() {
    test(async |world: &mut World| {
        let script = Script { path: "/tekton/scripts/s".into(), content: "#!/bin/sh\nserve\n".into() };
        let flags = ScriptFlags { script, root: None, args: Vec::new() };
        let spec = json!({
        "volumes": [{"name": "bin", "image": {"reference": ENTRYPOINT_IMAGE}}, {"name": "scripts", "emptyDir": {}}],
        "containers": [
            {"name": "nop", "image": ENTRYPOINT_IMAGE, "command": [ENTRYPOINT_PATH, "nop"]},
            {"name": "script", "image": ENTRYPOINT_IMAGE, "command": ["/tekton/bin/entrypoint"],
                "args": flags.render(), "volumeMounts": [
                    {"name": "bin", "mountPath": "/tekton/bin", "readOnly": true},
                    {"name": "scripts", "mountPath": "/tekton/scripts"}]},
        ]});
        world.create(pod("p", spec)).await;
        let ended = world.ended("p").await;
        for name in ["nop", "script"] {
            assert_eq!(outcome(&ended, name), (0, "Completed".into(), String::new()));
            assert_eq!(world.log("p", name).await, "");
        }
    });
}

/// A script that is longer than the kernel takes arguments.
const LONG: usize = 300_000;

async fn steps(world: &World, image_volumes: bool) {
    let first = "id -u; pwd; touch mine; printf v > $(step.results.r.path)
        touch /x 2>/dev/null || echo read-only root
        touch /tekton/bin/x 2>/dev/null || echo read-only binary
        touch /tekton/run/1/x 2>/dev/null || echo read-only for others
        ls -d /workspace/later/*";
    let third = format!(
        "# {}\nls /tekton/steps; cat $(steps.step-first.exitCode.path); stat -c ' %a %n' $0; stat -c %u ../../src/mine",
        "#".repeat(LONG)
    );
    let run: TaskRun = serde_json::from_value(json!({
        "metadata": {"name": "run", "namespace": "default", "uid": "u"},
        "spec": {"taskSpec": {
            "steps": [
                {"name": "first", "image": "host", "script": first, "workingDir": "src", "results": [{"name": "r"}],
                    "securityContext": {"runAsUser": 1000, "readOnlyRootFilesystem": true}},
                {"name": "second", "image": "host", "script": "#!/bin/cat\n$(A) $$(A) $(date)\n",
                    "env": [{"name": "A", "value": "expanded"}], "securityContext": {"runAsUser": 2000}},
                {"name": "third", "image": "host", "script": third, "workingDir": "/workspace/later/./dir",
                    "command": [], "args": []},
                {"name": "fourth", "image": "host", "command": ["sh", "-c"],
                    "args": ["echo $(steps.first.results.r)"]},
            ],
            "sidecars": [{"name": "side", "image": "host", "script": "echo $0 $1", "args": ["x"],
                "securityContext": {"runAsUser": 3000, "readOnlyRootFilesystem": true}}],
        }},
    }))
    .expect("a run");
    let mut config = Config::default();
    config.features.await_sidecar_readiness = false;
    let settings = Settings { image_volumes, ..Settings::default() };
    let account = ropewalk_core::credentials::Account::default();
    let mut pod = ropewalk_core::pod::render(&run, None, &account, &config, &settings).expect("a pod");
    // There is no such run here, and what has no owner is collected.
    pod.metadata.owner_references = None;
    let init = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_ref()).map_or(0, Vec::len);
    assert_eq!(init, usize::from(!image_volumes));
    world.create(serde_json::to_value(&pod).expect("JSON")).await;
    let ended = world.ended("run-pod").await;
    for step in ["first", "second", "third", "fourth"] {
        let name = format!("step-{step}");
        assert_eq!(outcome(&ended, &name).0, 0, "{step}: {}", world.log("run-pod", &name).await);
    }
    assert_eq!(
        world.log("run-pod", "step-first").await,
        "1000\n/workspace/src\nread-only root\nread-only binary\nread-only for others\n/workspace/later/dir\n"
    );
    // What substitutes at the shell is not for the kubelet to touch.
    assert_eq!(world.log("run-pod", "step-second").await, "#!/bin/cat\n$(A) $$(A) $(date)\n");
    let third = world.log("run-pod", "step-third").await;
    let lines: Vec<_> = third.lines().collect();
    assert_eq!(
        lines[..8],
        ["0", "1", "2", "3", "step-first", "step-fourth", "step-second", "step-third"],
        "{third}"
    );
    assert!(lines[8].starts_with("0 755 /tekton/scripts/script-2-"), "{third}");
    assert_eq!(lines[9..], ["1000"]);
    assert_eq!(world.log("run-pod", "step-fourth").await, "v\n");
    let sidecar = world.log("run-pod", "sidecar-side").await;
    assert!(
        sidecar.starts_with("/tekton/scripts/sidecar-script-0-") && sidecar.ends_with(" x\n"),
        "{sidecar}"
    );
}

//! What the next process of a node makes of containers that were left: each command is executed once.

use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::wait::conditions;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ropewalk_kubelet::NOP_IMAGE;
use serde_json::{Value, json};

use crate::world::{World, container, outcome, phase, pod, script, test, with};

type Test = (&'static str, fn());

pub(crate) fn all() -> Vec<Test> {
    vec![
        ("containers_are_adopted_after_a_restart", containers_are_adopted_after_a_restart),
        ("what_ended_meanwhile_is_reported", what_ended_meanwhile_is_reported),
        ("what_nobody_saw_end_has_failed", what_nobody_saw_end_has_failed),
        ("what_never_began_starts", what_never_began_starts),
        ("what_its_supervisor_does_not_begin_starts", what_its_supervisor_does_not_begin_starts),
        ("a_pod_deleted_meanwhile_is_cleared_away", a_pod_deleted_meanwhile_is_cleared_away),
        (
            "metadata_that_changed_meanwhile_reaches_the_container",
            metadata_that_changed_meanwhile_reaches_the_container,
        ),
        ("volumes_of_an_ended_pod_are_removed", volumes_of_an_ended_pod_are_removed),
        ("a_sidecar_is_stopped_by_the_next_node", a_sidecar_is_stopped_by_the_next_node),
    ]
}

/// Waits for a file of a container.
fn appears(path: &Path) {
    while !path.exists() {
        std::thread::yield_now();
    }
}

fn shared() -> Value {
    json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]})
}

/// A pod of these containers, each with the volume `v` at `/v`.
fn sharing(containers: &[Value]) -> Value {
    let containers: Vec<_> = containers.iter().map(|container| with(container.clone(), shared())).collect();
    pod("p", json!({"volumes": [{"name": "v", "emptyDir": {}}], "containers": containers}))
}

fn containers_are_adopted_after_a_restart() {
    test(async |world: &mut World| {
        let waits = "echo once >> /v/runs; until [ -e /v/go ] && [ $(wc -l < /v/runs) -ge 2 ]; do sleep 0.05; done; \
                     cat /v/runs; exit 6";
        let ends = "echo once >> /v/runs; sleep 0.2; exit 5";
        world.create(sharing(&[script("ends", ends), script("stays", waits)])).await;
        let running = world.wait("p", phase(&["Running"])).await.expect("the pod");
        world.restart().await;
        let uid = running.metadata.uid.clone().unwrap_or_default();
        std::fs::write(world.data_dir().join("pods").join(uid).join("volumes/v/go"), "").expect("written");
        let ended = world.ended("p").await;
        assert_eq!((outcome(&ended, "ends").0, outcome(&ended, "stays").0), (5, 6));
        assert_eq!(world.log("p", "stays").await, "once\nonce\n");
        let started = |pod: &Pod| pod.status.as_ref().expect("a status").start_time.clone();
        assert_eq!(started(&ended), started(&running), "its deadline is what it was");
    });
}

fn what_ended_meanwhile_is_reported() {
    test(async |world: &mut World| {
        let says =
            "until [ -e /v/go ]; do sleep 0.01; done; echo out; printf said > /dev/termination-log; exit 4";
        world.create(sharing(&[script("c", says)])).await;
        let running = world.wait("p", phase(&["Running"])).await.expect("the pod");
        world.leave().await;
        let uid = running.metadata.uid.clone().unwrap_or_default();
        std::fs::write(world.data_dir().join("pods").join(uid).join("volumes/v/go"), "").expect("written");
        appears(&world.attempt(&running, "c").join("exit.json"));
        world.come_back();
        let ended = world.ended("p").await;
        assert_eq!(outcome(&ended, "c"), (4, "Error".into(), "said".into()));
        assert_eq!(world.log("p", "c").await, "out\n");
    });
}

fn what_nobody_saw_end_has_failed() {
    test(async |world: &mut World| {
        let once = "echo once >> /v/runs; sleep 1000";
        world.create(sharing(&[script("lost", once), script("waits", "sleep 1000")])).await;
        let running = world.wait("p", phase(&["Running"])).await.expect("the pod");
        world.leave().await;
        kill(world.process(&running, "lost", "shim"), Signal::SIGKILL).expect("killed");
        world.come_back();
        let ended = world.ended("p").await;
        let (code, reason, message) = outcome(&ended, "lost");
        assert_eq!((code, reason.as_str()), (137, "ContainerStatusUnknown"), "{message}");
        assert_eq!(container(&ended, "lost").restart_count, 0);
        // Steps wait for each other; what the lost one was to tell will never come.
        assert_eq!(outcome(&ended, "waits").0, 137);
        let process = format!("/proc/{}/cmdline", world.process(&running, "lost", "init"));
        assert!(std::fs::read(process).unwrap_or_default().is_empty(), "it still runs");
    });
}

fn what_never_began_starts() {
    test(async |world: &mut World| {
        let shim = as_if_only_prepared(world).await;
        kill(shim, Signal::SIGKILL).expect("killed");
        world.come_back();
        // The volume is the one it was.
        assert_eq!(outcome(&world.ended("p").await, "c").0, 0);
    });
}

fn what_its_supervisor_does_not_begin_starts() {
    test(async |world: &mut World| {
        let shim = as_if_only_prepared(world).await;
        kill(shim, Signal::SIGSTOP).expect("stopped");
        world.come_back();
        // The node, which is in this process, waits for the shim by a descriptor of it.
        while !has_descriptor_of(shim) {
            tokio::task::yield_now().await;
        }
        kill(shim, Signal::SIGKILL).expect("killed");
        assert_eq!(outcome(&world.ended("p").await, "c").0, 0);
    });
}

fn has_descriptor_of(process: Pid) -> bool {
    let line = format!("Pid:\t{process}\n");
    let descriptors = std::fs::read_dir("/proc/self/fdinfo").expect("descriptors").flatten();
    let mut infos = descriptors.map(|entry| std::fs::read_to_string(entry.path()).unwrap_or_default());
    infos.any(|info| info.contains(&line))
}

/// Leaves a pod whose container would end at its second start as a process would that was killed right after it had
/// prepared the first one. Returns the shim.
async fn as_if_only_prepared(world: &mut World) -> Pid {
    let twice = "echo once >> /v/runs; [ $(wc -l < /v/runs) -ge 2 ] || sleep 1000";
    world.create(sharing(&[script("c", twice)])).await;
    let running = world.wait("p", phase(&["Running"])).await.expect("the pod");
    let uid = running.metadata.uid.clone().unwrap_or_default();
    appears(&world.data_dir().join("pods").join(uid).join("volumes/v/runs"));
    world.leave().await;
    let shim = world.process(&running, "c", "shim");
    for file in ["begun", "started.json"] {
        std::fs::remove_file(world.attempt(&running, "c").join(file)).expect("removed");
    }
    let status = json!({"status": {"phase": "Pending", "containerStatuses": null}});
    let patch = Patch::Merge(&status);
    world.pods().patch_status("p", &PatchParams::default(), &patch).await.expect("patched");
    shim
}

fn a_pod_deleted_meanwhile_is_cleared_away() {
    test(async |world: &mut World| {
        world.create(sharing(&[script("c", "sleep 1000")])).await;
        let running = world.wait("p", phase(&["Running"])).await.expect("the pod");
        let init = world.process(&running, "c", "init");
        let directory = world.attempt(&running, "c").ancestors().nth(3).expect("the pod's").to_owned();
        world.leave().await;
        let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        world.pods().delete("p", &at_once).await.expect("deleted");
        world.wait("p", conditions::is_deleted(running.metadata.uid.as_deref().expect("a UID"))).await;
        world.come_back();
        while directory.exists() {
            tokio::task::yield_now().await;
        }
        let process = std::fs::read(format!("/proc/{init}/cmdline")).unwrap_or_default();
        assert!(process.is_empty(), "it still runs");
    });
}

fn metadata_that_changed_meanwhile_reaches_the_container() {
    test(async |world: &mut World| {
        // As steps wait for sidecars.
        let items = json!([{"path": "go", "fieldRef": {"fieldPath": "metadata.annotations['go']"}}]);
        let waits = with(
            script("c", "until [ \"$(cat /d/go)\" = now ]; do sleep 0.05; done"),
            json!({"volumeMounts": [{"name": "d", "mountPath": "/d"}]}),
        );
        let volumes = json!([{"name": "d", "downwardAPI": {"items": items}}]);
        world.create(pod("p", json!({"volumes": volumes, "containers": [waits]}))).await;
        world.wait("p", phase(&["Running"])).await;
        world.leave().await;
        let patch = Patch::Merge(json!({"metadata": {"annotations": {"go": "now"}}}));
        world.pods().patch("p", &PatchParams::default(), &patch).await.expect("patched");
        world.come_back();
        assert_eq!(outcome(&world.ended("p").await, "c").0, 0);
    });
}

fn volumes_of_an_ended_pod_are_removed() {
    test(async |world: &mut World| {
        world.create(sharing(&[script("c", "exit 0")])).await;
        let ended = world.ended("p").await;
        world.leave().await;
        let volumes = world.attempt(&ended, "c").ancestors().nth(3).expect("the pod's").join("volumes");
        // As if the process had been killed right after it had told of the end.
        std::fs::create_dir_all(volumes.join("v")).expect("made");
        world.come_back();
        while volumes.exists() {
            tokio::task::yield_now().await;
        }
    });
}

fn a_sidecar_is_stopped_by_the_next_node() {
    test(async |world: &mut World| {
        world.create(sharing(&[script("step", "exit 0"), script("side", "sleep 1000")])).await;
        world
            .wait("p", |pod: Option<&Pod>| {
                let over = |status: &k8s_openapi::api::core::v1::ContainerStatus| {
                    status.state.as_ref().is_some_and(|state| state.terminated.is_some())
                };
                let statuses = pod.and_then(|pod| pod.status.as_ref()?.container_statuses.clone());
                statuses.is_some_and(|statuses| statuses.iter().any(over))
            })
            .await;
        world.leave().await;
        let patch = json!({"spec": {"containers": [{"name": "side", "image": NOP_IMAGE}]}});
        world.pods().patch("p", &PatchParams::default(), &Patch::Strategic(patch)).await.expect("patched");
        world.come_back();
        let ended = world.ended("p").await;
        assert_eq!(outcome(&ended, "side"), (0, "Completed".into(), String::new()));
        assert_eq!(container(&ended, "side").restart_count, 1);
    });
}

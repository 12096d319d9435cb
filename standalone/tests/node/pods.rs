//! What pods can do.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Event, PersistentVolumeClaim, Pod, Secret};
use kube::Api;
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::runtime::conditions::is_deleted;
use ropewalk_kubelet::{ENTRYPOINT_IMAGE, NOP_IMAGE};
use ropewalk_standalone::node::RootfsMode;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::world::{
    World, container, follow, has_runc, outcome, phase, pod, runc, script, test, test_with, waiting, with,
};

type Test = (&'static str, fn());

pub(crate) fn all() -> Vec<Test> {
    let mut tests: Vec<Test> = vec![
        ("init_and_two_containers_share_a_volume", init_and_two_containers_share_a_volume),
        ("output_is_kept_byte_for_byte", output_is_kept_byte_for_byte),
        ("a_followed_log_arrives_while_the_container_runs", a_followed_log_arrives_while_the_container_runs),
        ("missing_objects_are_named_and_awaited", missing_objects_are_named_and_awaited),
        ("changed_annotations_reach_the_container", changed_annotations_reach_the_container),
        ("deletion_ends_the_whole_process_tree", deletion_ends_the_whole_process_tree),
        ("the_nop_image_stops_a_sidecar", the_nop_image_stops_a_sidecar),
        ("users_groups_and_privileges", users_groups_and_privileges),
        ("the_machines_root_hides_what_is_private", the_machines_root_hides_what_is_private),
        ("object_volumes_appear_as_files", object_volumes_appear_as_files),
        ("sub_paths_stay_inside_their_volume", sub_paths_stay_inside_their_volume),
        ("claims_outlive_their_pods", claims_outlive_their_pods),
        ("the_embedded_image_and_its_volume", the_embedded_image_and_its_volume),
        ("environment_and_working_directory", environment_and_working_directory),
        ("signals_and_umask_are_the_usual_ones", signals_and_umask_are_the_usual_ones),
        ("a_command_that_does_not_exist", a_command_that_does_not_exist),
        ("too_much_memory_is_told_apart", too_much_memory_is_told_apart),
        ("the_deadline_ends_a_pod", the_deadline_ends_a_pod),
        ("readiness_probes", readiness_probes),
        ("a_hook_over_https_fails", a_hook_over_https_fails),
        ("an_unanswered_hook_ends_with_its_container", an_unanswered_hook_ends_with_its_container),
        ("a_full_node_makes_pods_wait", a_full_node_makes_pods_wait),
        ("long_termination_messages_are_cut", long_termination_messages_are_cut),
        ("statuses_are_few", statuses_are_few),
    ];
    if has_runc() {
        tests.push(("runc_runs_the_same_pods", runc_runs_the_same_pods));
    }
    tests
}

fn phase_of(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn two_containers() -> Value {
    let shared = json!({"volumeMounts": [{"name": "v", "mountPath": "/workspace"}]});
    let mount = |container| with(container, shared.clone());
    let wait = "until [ -e /workspace/a ]; do sleep 0.01; done";
    pod(
        "p",
        json!({
            "volumes": [{"name": "v", "emptyDir": {}}],
            "initContainers": [mount(script("init", "echo made > /workspace/made"))],
            "containers": [
                mount(script("a", "cat /workspace/made; echo from a > /workspace/a; echo oops >&2")),
                mount(script(
                    "b",
                    &format!("{wait}; cat /workspace/a; printf '[]' > /dev/termination-log; exit 3"),
                )),
            ]
        }),
    )
}

async fn check_two_containers(world: &World) {
    world.create(two_containers()).await;
    let ended = world.ended("p").await;
    assert_eq!(outcome(&ended, "init"), (0, "Completed".into(), String::new()));
    assert_eq!(outcome(&ended, "a"), (0, "Completed".into(), String::new()));
    assert_eq!(outcome(&ended, "b"), (3, "Error".into(), "[]".into()));
    assert_eq!(phase_of(&ended), "Failed");
    // The streams are two pipes: which of them is read first is not determined.
    let log = world.log("p", "a").await;
    assert!(log == "made\noops\n" || log == "oops\nmade\n", "{log}");
    assert_eq!(world.log("p", "b").await, "from a\n");
    let id = container(&ended, "a").container_id.clone().unwrap_or_default();
    assert!(id.starts_with("ropewalk://"), "{id}");
}

fn init_and_two_containers_share_a_volume() {
    test(async |world: &mut World| check_two_containers(world).await);
}

fn runc_runs_the_same_pods() {
    test_with(runc, async |world: &mut World| check_two_containers(world).await);
}

fn output_is_kept_byte_for_byte() {
    test(async |world: &mut World| {
        let long = "head -c 100000 /dev/zero | tr '\\0' x; printf '\\n\\n \\tend'";
        world.create(pod("p", json!({"containers": [script("c", long)]}))).await;
        world.ended("p").await;
        assert_eq!(world.log("p", "c").await, format!("{}\n\n \tend", "x".repeat(100_000)));
        let parameters = LogParams { tail_lines: Some(1), timestamps: true, ..LogParams::default() };
        let last = world.pods().logs("p", &parameters).await.expect("a log");
        let (time, text) = last.split_once(' ').expect("a time");
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{time}");
        assert_eq!(text, " \tend");
    });
}

fn a_followed_log_arrives_while_the_container_runs() {
    test(async |world: &mut World| {
        let text = "echo one; until [ -e /v/go ]; do sleep 0.01; done; echo two";
        let mount = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
        world
            .create(pod(
                "p",
                json!({"volumes": [{"name": "v", "emptyDir": {}}], "containers": [
                    with(script("c", text), mount.clone()),
                    with(script("d", "sleep 0.3; touch /v/go"), mount)]}),
            ))
            .await;
        world.wait("p", phase(&["Running", "Succeeded"])).await;
        assert_eq!(follow(world, "p", "c").await, "one\ntwo\n");
    });
}

fn missing_objects_are_named_and_awaited() {
    test(async |world: &mut World| {
        let from = json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                          "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
        world
            .create(pod(
                "p",
                json!({"volumes": [{"name": "v", "configMap": {"name": "cm"}}],
                       "containers": [with(script("c", "echo $A; cat /v/k"), from)]}),
            ))
            .await;
        let message = "MountVolume.SetUp failed for volume \"v\" : configmap \"cm\" not found";
        let failed = move |pod: Option<&Pod>| {
            let conditions = pod.and_then(|pod| pod.status.as_ref()?.conditions.clone());
            conditions.into_iter().flatten().any(|condition| condition.message.as_deref() == Some(message))
        };
        let pending = world.wait("p", failed).await.expect("the pod");
        assert_eq!(phase_of(&pending), "Pending");
        let events: Api<Event> = Api::default_namespaced(world.client.clone());
        // It is written beside the status, not before.
        let found = loop {
            let events = events.list(&ListParams::default()).await.expect("events").items;
            match events.into_iter().find(|event| event.message.as_deref() == Some(message)) {
                Some(event) => break event,
                None => tokio::task::yield_now().await,
            }
        };
        assert_eq!(found.reason.as_deref(), Some("FailedMount"));

        let config_maps: Api<ConfigMap> = Api::default_namespaced(world.client.clone());
        let config_map = json!({"metadata": {"name": "cm"}, "data": {"k": "from config"}});
        let config_map = serde_json::from_value(config_map).expect("a ConfigMap");
        config_maps.create(&PostParams::default(), &config_map).await.expect("created");
        let blocked = |pod: Option<&Pod>| {
            pod.filter(|pod| pod.status.as_ref().is_some_and(|status| status.container_statuses.is_some()))
                .and_then(|pod| waiting(pod, "c"))
                .is_some_and(|(reason, _)| reason == "CreateContainerConfigError")
        };
        let pending = world.wait("p", blocked).await.expect("the pod");
        assert_eq!(waiting(&pending, "c").map(|(_, message)| message), Some("secret \"s\" not found".into()));

        let secrets: Api<Secret> = Api::default_namespaced(world.client.clone());
        let secret = json!({"metadata": {"name": "s"}, "data": {"k": "aGlkZGVu"}});
        let secret = serde_json::from_value(secret).expect("a Secret");
        secrets.create(&PostParams::default(), &secret).await.expect("created");
        assert_eq!(phase_of(&world.ended("p").await), "Succeeded");
        assert_eq!(world.log("p", "c").await, "hidden\nfrom config");
    });
}

fn changed_annotations_reach_the_container() {
    test(async |world: &mut World| {
        let item = json!({"path": "ready", "fieldRef": {"fieldPath": "metadata.annotations['go']"}});
        let mount = json!({"volumeMounts": [{"name": "d", "mountPath": "/d", "readOnly": true}]});
        let text = "until [ -s /d/ready ]; do sleep 0.01; done; cat /d/ready";
        world
            .create(pod(
                "p",
                json!({"volumes": [{"name": "d", "downwardAPI": {"items": [item]}}],
                       "containers": [with(script("c", text), mount)]}),
            ))
            .await;
        world.wait("p", phase(&["Running"])).await;
        let patch = Patch::Merge(json!({"metadata": {"annotations": {"go": "READY"}}}));
        world.pods().patch("p", &PatchParams::default(), &patch).await.expect("patched");
        world.ended("p").await;
        assert_eq!(world.log("p", "c").await, "READY");
    });
}

fn processes_with(marker: &str) -> usize {
    let processes = std::fs::read_dir("/proc").expect("processes").flatten();
    let commands = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    commands.filter(|command| command.split('\0').any(|word| word == marker)).count()
}

fn deletion_ends_the_whole_process_tree() {
    test(async |world: &mut World| {
        let marker = format!("98765.{}", std::process::id());
        // One that heeds TERM, one that ignores it, one that cannot handle it; all with children that try to
        // stay behind.
        let stray = format!("setsid sleep {marker} & ");
        let spec = json!({"terminationGracePeriodSeconds": 1, "containers": [
            script("heeds", &format!("trap 'exit 7' TERM; {stray} echo up; wait")),
            script("ignores", &format!("trap '' TERM; {stray} echo up; while :; do sleep {marker}; done")),
            {"name": "cannot", "image": "host", "command": ["sleep", marker]}]});
        world.create(pod("p", spec)).await;
        world.wait("p", phase(&["Running"])).await;
        for name in ["heeds", "ignores"] {
            while world.log("p", name).await.is_empty() {
                tokio::task::yield_now().await;
            }
        }
        // The background processes may not have got as far as their exec yet.
        while processes_with(&marker) < 3 {
            tokio::task::yield_now().await;
        }
        let begun = Instant::now();
        world.pods().delete("p", &DeleteParams::default()).await.expect("deleted");
        world.wait("p", |pod: Option<&Pod>| pod.is_none()).await;
        assert_eq!(processes_with(&marker), 0);
        assert!(begun.elapsed() < Duration::from_secs(20), "the grace period of one second counts");
    });
}

fn the_nop_image_stops_a_sidecar() {
    test(async |world: &mut World| {
        let spec = json!({"containers": [
            script("step", "exit 0"), {"name": "side", "image": "host", "command": ["sleep", "1000"]}]});
        world.create(pod("p", spec)).await;
        let done = |pod: Option<&Pod>| {
            let status = pod.and_then(|pod| pod.status.as_ref());
            let statuses = status.and_then(|status| status.container_statuses.as_ref());
            statuses.is_some_and(|statuses| {
                let ended = |name| {
                    let state = statuses.iter().find(|status| status.name == name)?.state.as_ref()?;
                    state.terminated.as_ref()
                };
                ended("step").is_some() && ended("side").is_none()
            })
        };
        world.wait("p", done).await;
        let patch = json!([{"op": "replace", "path": "/spec/containers/1/image", "value": NOP_IMAGE}]);
        let patch = Patch::<()>::Json(serde_json::from_value(patch).expect("a patch"));
        world.pods().patch("p", &PatchParams::default(), &patch).await.expect("patched");
        let ended = world.ended("p").await;
        assert_eq!(phase_of(&ended), "Succeeded");
        assert_eq!(outcome(&ended, "side"), (0, "Completed".into(), String::new()));
        assert_eq!(container(&ended, "side").restart_count, 1);
    });
}

fn users_groups_and_privileges() {
    test(async |world: &mut World| {
        let shown = "id -u; id -g; id -G; touch /v/made && stat -c %g /v/made; \
                     grep -E 'NoNewPrivs|CapEff' /proc/self/status | tr -d '\\t'";
        let volumes = json!([{"name": "v", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory"}}]);
        let mounts = json!([{"name": "v", "mountPath": "/v"}, {"name": "m", "mountPath": "/m"}]);
        let limited = json!({"volumeMounts": mounts, "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}});
        let root = json!({"securityContext": {"runAsUser": 0, "readOnlyRootFilesystem": true}});
        let privileged = json!({"securityContext": {"privileged": true, "runAsUser": 0}});
        let spec = json!({
        "securityContext": {"runAsUser": 1234, "runAsGroup": 2345, "fsGroup": 3456, "supplementalGroups": [77]},
        "volumes": volumes,
        "containers": [
            with(script("all", "mount -t tmpfs x /mnt && echo mounted"), privileged),
            with(script("user", shown), limited),
            with(script("root", "touch /x 2>/dev/null || echo read-only; id -u; mknod /dev/sda b 8 0 2>/dev/null; head -c 1 /dev/sda 2>/dev/null || echo no device"), root),
        ]});
        world.create(pod("p", spec)).await;
        world.ended("p").await;
        assert_eq!(world.log("p", "all").await, "mounted\n");
        let log = world.log("p", "user").await;
        let lines: Vec<_> = log.lines().collect();
        assert_eq!(lines[..2], ["1234", "2345"]);
        let mut groups: Vec<_> = lines[2].split(' ').collect();
        groups.sort_unstable();
        assert_eq!(groups, ["2345", "3456", "77"]);
        assert_eq!(lines[3..], ["3456", "CapEff:0000000000000000", "NoNewPrivs:1"]);
        let log = world.log("p", "root").await;
        assert_eq!(log, "read-only\n0\nno device\n");
    });
}

fn the_machines_root_hides_what_is_private() {
    test(async |world: &mut World| {
        let data = world.instance.as_ref().expect("an instance").data_dir().display().to_string();
        let text = format!(
            "exec 2>/dev/null; cat /etc/shadow && echo BAD; ls -A /root /home /run /tmp; ls {data} && echo BAD; \
             echo x > /etc/made-by-a-step && rm /etc/passwd && echo wrote; cat /proc/1/comm; hostname; \
             ls /sys/fs/cgroup/*/ropewalk; mount -t tmpfs x /mnt 2>/dev/null && echo BAD; ls /dev | tr '\\n' ' '"
        );
        world.create(pod("p", json!({"containers": [script("c", &text)]}))).await;
        world.ended("p").await;
        let log = world.log("p", "c").await;
        let output: Vec<_> = log.lines().collect();
        assert_eq!(output.len(), 12, "{log}");
        assert_eq!(output[..8], ["/home:", "", "/root:", "", "/run:", ".containerenv", "", "/tmp:"], "{log}");
        assert_eq!(output[8..11], ["wrote", "sh", "p"], "{log}");
        assert!(!log.contains("BAD"), "{log}");
        assert!(!output[11].contains("sda") && output[11].contains("null"), "{log}");
        assert!(!std::path::Path::new("/etc/made-by-a-step").exists());
        assert!(std::path::Path::new("/etc/passwd").exists());
    });
}

fn object_volumes_appear_as_files() {
    test(async |world: &mut World| {
        let config_maps: Api<ConfigMap> = Api::default_namespaced(world.client.clone());
        let config_map = json!({"metadata": {"name": "cm"}, "data": {"a": "1", "b": "2"}});
        let config_map = serde_json::from_value(config_map).expect("a ConfigMap");
        config_maps.create(&PostParams::default(), &config_map).await.expect("created");
        let volumes = json!([
            {"name": "all", "configMap": {"name": "cm", "defaultMode": 256}},
            {"name": "some", "projected": {"sources": [
                {"configMap": {"name": "cm", "items": [{"key": "b", "path": "deep/er"}]}},
                {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}},
            {"name": "host", "hostPath": {"path": "/etc/debian_version", "type": "File"}}]);
        let mounts = json!({"volumeMounts": [
            {"name": "all", "mountPath": "/all", "readOnly": true}, {"name": "some", "mountPath": "/some"},
            {"name": "all", "mountPath": "/one", "subPath": "a"}, {"name": "host", "mountPath": "/version"}]});
        let text = "cat /all/a /all/b /some/deep/er /some/name /one; stat -c ' %a' /all/a; \
                    touch /all/x 2>/dev/null || echo read-only; cmp /version /etc/debian_version && echo same";
        world
            .create(pod("p", json!({"volumes": volumes, "containers": [with(script("c", text), mounts)]})))
            .await;
        world.ended("p").await;
        assert_eq!(world.log("p", "c").await, "122p1 400\nread-only\nsame\n");
    });
}

fn sub_paths_stay_inside_their_volume() {
    test(async |world: &mut World| {
        let spec = json!({
            "volumes": [{"name": "v", "emptyDir": {}}],
            "initContainers": [with(script("init", "ln -s /etc /v/link; ln -s ../../../../../../../../etc /v/up"),
                                    json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}))],
            "containers": [with(script("c", "ls -A /a /b; echo made > /c/x"), json!({"volumeMounts": [
                {"name": "v", "mountPath": "/a", "subPath": "link"},
                {"name": "v", "mountPath": "/b", "subPath": "up"},
                {"name": "v", "mountPath": "/c", "subPath": "new/dir"}]}))]});
        world.create(pod("p", spec)).await;
        let ended = world.ended("p").await;
        let (_, _, message) = outcome(&ended, "c");
        let log = world.log("p", "c").await;
        // Either refused or resolved inside the volume, never the machine's /etc.
        assert!(!log.contains("passwd") && !log.contains("hostname"), "{log} {message}");
    });
}

fn claims_outlive_their_pods() {
    test(async |world: &mut World| {
        let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(world.client.clone());
        let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
                           "resources": {"requests": {"storage": "1Gi"}}}});
        let claim = serde_json::from_value(claim).expect("a claim");
        claims.create(&PostParams::default(), &claim).await.expect("created");
        let spec = |text| {
            json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}],
                   "containers": [with(script("c", text), json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}))]})
        };
        world.create(pod("first", spec("echo kept > /v/x"))).await;
        assert_eq!(phase_of(&world.ended("first").await), "Succeeded");
        world.pods().delete("first", &DeleteParams::default()).await.expect("deleted");
        world.create(pod("second", spec("cat /v/x"))).await;
        world.ended("second").await;
        assert_eq!(world.log("second", "c").await, "kept\n");
        let bound = claims.get("data").await.expect("the claim").status.and_then(|status| status.phase);
        assert_eq!(bound.as_deref(), Some("Bound"));
    });
}

fn the_embedded_image_and_its_volume() {
    test_with(
        |config| config.rootfs = RootfsMode::Host,
        async |world: &mut World| {
            let spec = json!({
                "volumes": [{"name": "bin", "image": {"reference": ENTRYPOINT_IMAGE}}],
                "initContainers": [{"name": "init", "image": ENTRYPOINT_IMAGE,
                    "command": ["/entrypoint", "--no-such-command"],
                    "securityContext": {"runAsNonRoot": true}}],
                "containers": [with(script("c", "exit 0"), json!({}))]});
            world.create(pod("p", spec)).await;
            let ended = world.ended("p").await;
            let (code, reason, message) = outcome(&ended, "init");
            assert_eq!(reason, "Error", "the binary ran and refused its arguments: {code} {message}");
            let spec = json!({
                "volumes": [{"name": "bin", "image": {"reference": ENTRYPOINT_IMAGE}}],
                "containers": [with(script("c", "ls -l /bin2; touch /bin2/x || echo read-only"),
                    json!({"volumeMounts": [{"name": "bin", "mountPath": "/bin2"}]}))]});
            world.create(pod("q", spec)).await;
            world.ended("q").await;
            let log = world.log("q", "c").await;
            assert!(
                log.contains("-rwxr-xr-x") && log.contains("entrypoint") && log.contains("read-only"),
                "{log}"
            );
        },
    );
}

fn environment_and_working_directory() {
    test(async |world: &mut World| {
        let extra = json!({"workingDir": "/made/for/me", "env": [
            {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)2"},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]});
        let text = "pwd; echo $A $B $NODE $HOME $HOSTNAME; echo $(B) '$$(B)'; cat /etc/hostname";
        world.create(pod("p", json!({"containers": [with(script("c", text), extra)]}))).await;
        world.ended("p").await;
        assert_eq!(world.log("p", "c").await, "/made/for/me\n1 12 ropewalk /root p\n12 $(B)\np\n");
    });
}

fn signals_and_umask_are_the_usual_ones() {
    test(async |world: &mut World| {
        let text = "umask; \
                    grep -E 'Sig(Blk|Ign)' /proc/self/status | tr -d '\\t'";
        world.create(pod("p", json!({"containers": [script("c", text)]}))).await;
        world.ended("p").await;
        let log = world.log("p", "c").await;
        let ignored = log.strip_prefix("0022\nSigBlk:0000000000000000\nSigIgn:").expect("three lines");
        let ignored = u64::from_str_radix(ignored.trim(), 16).expect("a mask");
        // Beyond bit 30 are the C library's own and the real-time signals, which are the caller's business.
        assert_eq!(ignored & 0x7fff_ffff, 0, "{log}");
    });
}

fn a_command_that_does_not_exist() {
    test(async |world: &mut World| {
        let spec = json!({"containers": [{"name": "c", "image": "host", "command": ["no-such-command"]}]});
        world.create(pod("p", spec)).await;
        let (code, reason, message) = outcome(&world.ended("p").await, "c");
        assert_eq!((code, reason.as_str()), (128, "StartError"));
        assert!(message.contains("no-such-command"), "{message}");
    });
}

fn too_much_memory_is_told_apart() {
    test(async |world: &mut World| {
        let limits = json!({"resources": {"limits": {"memory": "32Mi"}}});
        let text = "head -c 100000000 /dev/zero | tail -c 100000000 | wc -c";
        world.create(pod("p", json!({"containers": [with(script("c", text), limits)]}))).await;
        let (_, reason, _) = outcome(&world.ended("p").await, "c");
        assert_eq!(reason, "OOMKilled");
    });
}

fn the_deadline_ends_a_pod() {
    test(async |world: &mut World| {
        let spec = json!({"activeDeadlineSeconds": 1, "containers": [
            {"name": "c", "image": "host", "command": ["sleep", "1000"]}]});
        world.create(pod("p", spec)).await;
        let ended = world.ended("p").await;
        assert_eq!(ended.status.and_then(|status| status.reason).as_deref(), Some("DeadlineExceeded"));
    });
}

fn readiness_probes() {
    test(async |world: &mut World| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let mounted = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
        let probed = |text: &str, probe: Value| {
            with(with(script("x", text), mounted.clone()), json!({"readinessProbe": probe}))
        };
        let named = |name: &str, base: Value| with(base, json!({"name": name}));
        let spec = json!({"volumes": [{"name": "v", "emptyDir": {}}], "terminationGracePeriodSeconds": 0, "containers": [
            named("exec", probed("sleep 1.5; touch /v/up; sleep 1000",
                json!({"exec": {"command": ["test", "-e", "/v/up"]}, "periodSeconds": 1}))),
            named("tcp", probed("sleep 1000",
                json!({"tcpSocket": {"host": "127.0.0.1", "port": port}, "periodSeconds": 1})))]});
        world.create(pod("p", spec)).await;
        let ready = |wanted: &'static str| {
            move |pod: Option<&Pod>| {
                let conditions = pod.and_then(|pod| pod.status.as_ref()?.conditions.clone());
                let found = conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready");
                pod.is_some_and(|pod| phase_of(pod) == "Running")
                    && found.is_some_and(|found| found.status == wanted)
            }
        };
        let before = world.wait("p", ready("False")).await.expect("the pod");
        assert!(!container(&before, "exec").ready);
        let after = world.wait("p", ready("True")).await.expect("the pod");
        assert!(container(&after, "exec").ready && container(&after, "tcp").ready);
        world.pods().delete("p", &DeleteParams::default()).await.expect("deleted");
        let uid = after.metadata.uid.clone().unwrap_or_default();
        world.wait("p", is_deleted(&uid)).await;
        drop(listener);
    });
}

/// It cannot be done, and is not said to have been.
fn a_hook_over_https_fails() {
    test(async |world: &mut World| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let get = json!({"host": "127.0.0.1", "port": port, "scheme": "HTTPS"});
        let hooked = with(script("c", "sleep 1000"), json!({"lifecycle": {"postStart": {"httpGet": get}}}));
        let spec = json!({"terminationGracePeriodSeconds": 1, "containers": [hooked]});
        let made = world.create(pod("p", spec)).await;
        world
            .event(&made, "FailedPostStartHook", "PostStartHook failed: this node speaks no \"HTTPS\"")
            .await;
        assert_eq!(phase_of(&world.ended("p").await), "Failed");
    });
}

fn an_unanswered_hook_ends_with_its_container() {
    test(async |world: &mut World| {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let get = json!({"host": "127.0.0.1", "port": port});
        let hooked = with(script("c", "sleep 1000"), json!({"lifecycle": {"postStart": {"httpGet": get}}}));
        let spec = json!({"terminationGracePeriodSeconds": 1, "containers": [hooked]});
        world.create(pod("p", spec)).await;
        let (mut stream, _) = listener.accept().await.expect("asked");
        world.pods().delete("p", &DeleteParams::default()).await.expect("deleted");
        let mut asked = String::new();
        // Reads on until the node closes it.
        stream.read_to_string(&mut asked).await.expect("closed");
        assert!(asked.starts_with("GET / HTTP/1.1\r\n"), "{asked}");
    });
}

fn a_full_node_makes_pods_wait() {
    test_with(
        |config| config.max_pods = 1,
        async |world: &mut World| {
            let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [
                {"name": "c", "image": "host", "command": ["sleep", "1000"]}]});
            world.create(pod("first", spec)).await;
            world.wait("first", phase(&["Running"])).await;
            world.create(pod("second", json!({"containers": [script("c", "exit 0")]}))).await;
            let unscheduled = |pod: Option<&Pod>| {
                let conditions = pod.and_then(|pod| pod.status.as_ref()?.conditions.clone());
                let mut conditions = conditions.into_iter().flatten();
                conditions.any(|condition| condition.reason.as_deref() == Some("Unschedulable"))
            };
            world.wait("second", unscheduled).await;
            world.pods().delete("first", &DeleteParams::default()).await.expect("deleted");
            assert_eq!(phase_of(&world.ended("second").await), "Succeeded");
        },
    );
}

fn long_termination_messages_are_cut() {
    test(async |world: &mut World| {
        let text = "head -c 10000 /dev/zero | tr '\\0' y > /tekton/termination";
        let path = json!({"terminationMessagePath": "/tekton/termination"});
        let fallback = json!({"terminationMessagePolicy": "FallbackToLogsOnError"});
        let spec = json!({"containers": [
            with(script("long", text), path), with(script("log", "echo last words; exit 1"), fallback)]});
        world.create(pod("p", spec)).await;
        let ended = world.ended("p").await;
        assert_eq!(outcome(&ended, "long").2, "y".repeat(4096));
        assert_eq!(outcome(&ended, "log").2, "last words\n");
    });
}

fn statuses_are_few() {
    test(async |world: &mut World| {
        use futures::StreamExt;
        let changes = kube::runtime::watcher(world.pods(), kube::runtime::watcher::Config::default());
        let mut changes = std::pin::pin!(changes);
        world
            .create(pod(
                "p",
                json!({"initContainers": [script("init", "exit 0")],
                       "containers": [script("a", "sleep 0.2"), script("b", "sleep 0.2"), script("c", "sleep 0.2")]}),
            ))
            .await;
        let mut statuses = Vec::new();
        while let Some(Ok(event)) = changes.next().await {
            use kube::runtime::watcher::Event;
            if let Event::Apply(pod) | Event::InitApply(pod) = event {
                let ended = phase_of(&pod) == "Succeeded";
                // What else changes before is the scheduler's.
                statuses.extend(pod.status.filter(|status| status.container_statuses.is_some()));
                statuses.dedup();
                if ended {
                    break;
                }
            }
        }
        // Initialising, running, and the ends of three containers.
        assert!((2..=5).contains(&statuses.len()), "{} writes: {statuses:#?}", statuses.len());
    });
}

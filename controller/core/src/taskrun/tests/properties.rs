//! Whatever a run says and whatever becomes of its pod: a plan is made, the world comes to rest, the end is the end.

use proptest::prelude::*;

use super::*;

fn state() -> impl Strategy<Value = Value> {
    let reason = prop::sample::select(vec![
        "ContainerCreating",
        "PodInitializing",
        "ErrImagePull",
        "ImagePullBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
    ]);
    let message = prop::sample::select(vec![
        "",
        "words",
        "failed to create subPath directory",
        r#"[{"key":"r","value":"[1]","type":1},{"key":"Reason","value":"Skipped","type":3}]"#,
        r#"[{"key":"r","value":"[\"x\"]","type":1},{"key":"ExitCode","value":"x","type":3}]"#,
        r#"[{"key":"StartedAt","value":"not a time","type":3}]"#,
    ]);
    let ended = prop::sample::select(vec!["", "Completed", "Error", "OOMKilled", "ContainerStatusUnknown"]);
    prop_oneof![
        (reason, message.clone()).prop_map(|(r, m)| json!({"waiting": {"reason": r, "message": m}})),
        Just(json!({"running": {"startedAt": "2026-01-01T00:00:02Z"}})),
        (0..3_i32, ended, message, any::<bool>()).prop_map(|(code, reason, message, started)| {
            let mut terminated = json!({"exitCode": code, "reason": reason, "message": message});
            if started {
                terminated["startedAt"] = json!("2026-01-01T00:00:02Z");
            }
            json!({ "terminated": terminated })
        }),
        Just(json!({})),
    ]
}

/// What happens next: to the newest pod, or to the run.
#[derive(Clone, Debug)]
enum Turn {
    Status(Value),
    Gone,
    Cancel,
    Time(u64),
    Refused(u16, &'static str, &'static str),
    Accepted,
}

fn turn() -> impl Strategy<Value = Turn> {
    let names = ["prepare", "step-a", "step-b", "sidecar-s", "stranger"];
    let phase = prop::sample::select(vec!["", "Pending", "Running", "Succeeded", "Failed", "Unknown"]);
    let reason = prop::sample::select(vec!["", "Evicted", "NodeLost", "DeadlineExceeded"]);
    let status = (phase, reason, prop::collection::vec((state(), any::<bool>()), names.len())).prop_map(
        move |(phase, reason, states)| {
            let all: Vec<Value> = names
                .iter()
                .zip(states)
                .map(|(name, (state, ready))| {
                    json!({
                        "name": name, "image": "i", "imageID": "", "ready": ready, "restartCount": 0,
                        "state": state,
                    })
                })
                .collect();
            Turn::Status(json!({
                "phase": phase, "reason": reason,
                "initContainerStatuses": all[..1], "containerStatuses": all[1..],
            }))
        },
    );
    prop_oneof![
        6 => status,
        1 => Just(Turn::Gone),
        1 => Just(Turn::Cancel),
        2 => (0..4000_u64).prop_map(Turn::Time),
        1 => Just(Turn::Refused(403, "Forbidden", "exceeded quota: q")),
        1 => Just(Turn::Refused(409, "Conflict", "cannot be fulfilled on resourcequotas \"q\"")),
        1 => Just(Turn::Refused(409, "AlreadyExists", "pods exist")),
        1 => Just(Turn::Refused(422, "Invalid", "bad")),
        2 => Just(Turn::Accepted),
    ]
}

fn spec() -> impl Strategy<Value = Value> {
    let text = prop::sample::select(vec![
        "",
        "x",
        "$(params.p)",
        "$(params.a[9])",
        "$(workspaces.w.path)",
        "$($(",
        "#!win",
    ]);
    let kind = prop::sample::select(vec!["string", "array", "object", "", "nonsense"]);
    (text.clone(), text, kind, 0..3_i64, any::<bool>(), any::<bool>()).prop_map(
        |(script, value, kind, retries, bound, sidecar)| {
            json!({
                "retries": retries,
                "params": [{"name": "p", "value": value}, {"name": "a", "value": ["x"]}],
                "workspaces": if bound { json!([{"name": "w", "emptyDir": {}}]) } else { json!([]) },
                "taskSpec": {
                    "params": [{"name": "p", "type": kind, "default": value}, {"name": "a", "type": "array"}],
                    "results": [{"name": "r", "type": kind}],
                    "sidecars": if sidecar { json!([{"name": "s", "image": "i"}]) } else { json!([]) },
                    "steps": [
                        {"name": "a", "image": value, "script": script, "onError": value},
                        {"name": "b", "command": ["x", value]},
                    ],
                },
            })
        },
    )
}

fn refusal(world: &World, code: u16, reason: &str, message: &str) -> Vec<Refusal> {
    let name = crate::pod::name("run", world.run().status.map_or(0, |status| status.retries_status.len()));
    let target = crate::plan::Target { resource: Resource::Pod, namespace: "ns".into(), name };
    vec![Refusal { target, of_status: false, code, reason: reason.into(), message: message.into() }]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_world_comes_to_rest_and_stays_there(
        spec in spec(),
        turns in prop::collection::vec(turn(), 0..12),
    ) {
        let mut world = World::new("{metadata: {name: run}, spec: {}}");
        world.run["spec"] = spec;
        world.settle();
        let mut end: Option<(String, Option<Time>)> = None;
        for turn in turns {
            match turn {
                Turn::Status(status) => {
                    if let Some(pod) = world.pods.last_mut() {
                        pod["status"] = status;
                    }
                }
                Turn::Gone => {
                    world.pods.pop();
                }
                Turn::Cancel => world.run["spec"]["status"] = json!("TaskRunCancelled"),
                Turn::Time(seconds) => world.pass(seconds),
                Turn::Refused(code, reason, message) => {
                    world.refusals = refusal(&world, code, reason, message);
                }
                Turn::Accepted => world.refusals.clear(),
            }
            world.settle();
            let status = world.status();
            if let Some((said, at)) = &end {
                prop_assert_eq!(&world.said(), said, "an end is an end");
                prop_assert_eq!(&status.completion_time, at);
            } else if conditions::is_done(&status.conditions) {
                prop_assert!(status.completion_time.is_some() && status.start_time.is_some());
                end = Some((world.said(), status.completion_time));
            } else {
                prop_assert!(world.plan().requeue.is_some(), "a run with a timeout always wakes up again");
            }
            prop_assert!(status.retries_status.len() <= 2);
            let names: std::collections::BTreeSet<_> =
                world.pods.iter().map(|pod| pod["metadata"]["name"].to_string()).collect();
            prop_assert_eq!(names.len(), world.pods.len(), "no pod twice");
        }
    }
}

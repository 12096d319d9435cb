//! A crash after any write: the run ends as it would have, with the same children.

use super::*;

const RUN: &str = "
metadata: {name: t}
spec:
  retries: 1
  taskRef: {name: build}
  workspaces: [{name: w, volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce]}}}]
";

fn task() -> Value {
    json!({
        "metadata": {"name": "build", "labels": {"team": "x"}},
        "spec": {
            "workspaces": [{"name": "w"}],
            "results": [{"name": "r"}],
            "sidecars": [{"name": "s", "image": "i", "command": ["serve"]}],
            "steps": [{"name": "a", "image": "i", "script": "x"}],
        },
    })
}

/// Moves every pod on: it starts; once released its step ends, badly in the first attempt.
fn kubelet(world: &mut World) {
    for at in 0..world.pods.len() {
        let pod = &world.pods[at];
        let first = pod["metadata"]["name"] == "t-pod";
        if pod.get("status").is_none() {
            let last = world.pods.remove(at);
            world.pods.push(last);
            world.pod_runs();
            world.pods.sort_by_key(|pod| pod["metadata"]["name"].as_str().map(str::len));
        } else if pod["metadata"]["annotations"]["tekton.dev/ready"] == "READY" {
            let code = i64::from(first);
            let message = json!([{"key": "r", "value": "v", "type": 1}]).to_string();
            world.pods[at]["status"]["containerStatuses"][0]["state"] = json!({"terminated": {
                "exitCode": code, "reason": if first { "Error" } else { "Completed" }, "message": message,
                "startedAt": "2026-01-01T00:00:02Z", "finishedAt": "2026-01-01T00:00:03Z",
            }});
        }
    }
}

/// Plays the run; the process dies after this many writes, once, and comes back.
fn play(crash_after: Option<usize>) -> World {
    let mut world = World::new(RUN);
    world.task = Some(task());
    for _ in 0..40 {
        let plan = world.plan();
        for write in plan.writes.iter().chain(&plan.status) {
            if crash_after == Some(world.writes) {
                world.writes += 1;
                break;
            }
            world.apply(write);
        }
        kubelet(&mut world);
        world.pass(1);
    }
    assert!(world.plan().is_empty(), "at rest, nothing is left to do");
    world
}

/// What must not depend on a crash: everything but times.
fn outcome(world: &World) -> Value {
    fn without_times(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|key, _| {
                    !key.ends_with("Time") && !key.ends_with("edAt") && !key.ends_with("Timestamp")
                });
                fields.values_mut().for_each(without_times);
            }
            Value::Array(items) => items.iter_mut().for_each(without_times),
            _ => {}
        }
    }
    let mut all = json!({"run": world.run, "pods": world.pods, "claims": world.claims});
    without_times(&mut all);
    all
}

#[test]
fn a_crash_after_any_write_changes_nothing() {
    let undisturbed = play(None);
    assert_eq!(undisturbed.said(), "True/Succeeded: All Steps have completed executing");
    assert_eq!(undisturbed.pods.len(), 2);
    assert_eq!(undisturbed.claims.len(), 1);
    let expected = outcome(&undisturbed);
    assert!(undisturbed.writes > 8);
    for n in 0..undisturbed.writes {
        assert_eq!(outcome(&play(Some(n))), expected, "crash after write {n}");
    }
}

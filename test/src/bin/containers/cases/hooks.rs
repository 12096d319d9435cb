//! Hooks and probes.

use serde_json::json;

use crate::case::{Case, script, status};

pub(crate) fn cases() -> Vec<Case> {
    let asks = |command: &str| json!({ "exec": { "command": ["sh", "-c", command] } });
    vec![
        script("postStart runs in the container", "until [ -e /v/hook ]; do sleep 0.05; done; cat /v/hook")
            .container(json!({ "lifecycle": { "postStart": asks("echo from $HOSTNAME > /v/hook") } }))
            .metadata(json!({ "name": "hooked" }))
            .sharing()
            .says("from hooked\n"),
        script("postStart that fails ends the container", "trap 'exit 3' TERM; touch /v/up; sleep 1000 & wait")
            .container(json!({ "lifecycle": { "postStart": asks("until [ -e /v/up ]; do sleep 0.05; done; exit 1") } }))
            .spec(json!({ "terminationGracePeriodSeconds": 30 }))
            .sharing()
            .exits(3, "Error"),
        script("preStop runs before the signal", "trap 'cat /v/hook; exit 5' TERM; echo ready; sleep 1000 & wait; wait")
            .container(json!({ "lifecycle": { "preStop": asks("echo hook > /v/hook") } }))
            .spec(json!({ "terminationGracePeriodSeconds": 30 }))
            .sharing()
            .deleted_after("ready")
            .exits(5, "Error")
            .writes("c", "ready\nhook\n"),
        script("preStop that takes too long does not keep the container", "trap 'exit 6' TERM; echo ready; sleep 1000 & wait; wait")
            .container(json!({ "lifecycle": { "preStop": asks("sleep 1000") } }))
            .spec(json!({ "terminationGracePeriodSeconds": 1 }))
            .deleted_after("ready")
            .also(|seen| {
                // Whether the signal still reaches it is a matter of luck.
                let (code, _) = seen.ended("c")?;
                anyhow::ensure!([6, 137, 143].contains(&code), "it ended with {code}");
                Ok(())
            }),
        script("a readiness probe decides on readiness", "sleep 1; touch /v/up; sleep 1000")
            .container(json!({ "readinessProbe": { "exec": { "command": ["test", "-e", "/v/up"] }, "periodSeconds": 1 } }))
            .sharing()
            .until(|pod| status(pod, "c").is_some_and(|status| status.ready))
            .restarts(0),
        script("a liveness probe that fails starts the container again",
            "echo x >> /v/runs; [ $(wc -l < /v/runs) -gt 1 ] && exit 0; trap 'exit 4' TERM; sleep 1000 & wait")
            .container(json!({ "livenessProbe": { "exec": { "command": ["false"] }, "periodSeconds": 1, "failureThreshold": 1 } }))
            .spec(json!({ "restartPolicy": "OnFailure", "terminationGracePeriodSeconds": 30 }))
            .sharing()
            .exits(0, "Completed")
            .restarts(1)
            .also(|seen| {
                let last = seen.status("c")?.last_state.as_ref().and_then(|state| state.terminated.as_ref());
                let code = last.map(|last| last.exit_code);
                anyhow::ensure!(code == Some(4), "before, it ended with {code:?}");
                Ok(())
            }),
        script("a startup probe holds back the others", "sleep 1; touch /v/up; sleep 1000")
            .container(json!({
                "startupProbe": { "exec": { "command": ["test", "-e", "/v/up"] }, "periodSeconds": 1, "failureThreshold": 30 },
                "livenessProbe": { "exec": { "command": ["test", "-e", "/v/up"] }, "periodSeconds": 1, "failureThreshold": 1 } }))
            .spec(json!({ "restartPolicy": "Always" }))
            .sharing()
            .until(|pod| status(pod, "c").is_some_and(|status| status.started == Some(true) && status.ready))
            .restarts(0),
    ]
}

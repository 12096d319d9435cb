//! Containers that are started again.

use anyhow::ensure;
use serde_json::json;

use crate::case::{Case, script, status};

const COUNTS: &str = "echo x >> /v/runs; echo run $(wc -l < /v/runs); [ $(wc -l < /v/runs) -gt 1 ]";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        script("a failure is started again", COUNTS)
            .spec(json!({ "restartPolicy": "OnFailure" }))
            .sharing()
            .says("run 2\n")
            .restarts(1)
            .also(|seen| {
                let last = seen.status("c")?.last_state.as_ref().and_then(|state| state.terminated.as_ref());
                let code = last.map(|last| last.exit_code);
                ensure!(code == Some(1), "before, it ended with {code:?}");
                Ok(())
            }),
        script("a success is not started again on failure", "exit 0")
            .spec(json!({ "restartPolicy": "OnFailure" }))
            .exits(0, "Completed")
            .restarts(0),
        script("a success is started again always", "exit 0")
            .spec(json!({ "restartPolicy": "Always" }))
            .until(|pod| status(pod, "c").is_some_and(|status| status.restart_count >= 1))
            .also(|seen| {
                let phase = crate::case::phase(&seen.pod);
                ensure!(phase == "Running", "the pod is {phase}");
                Ok(())
            }),
        script("failures again and again are waited for", "exit 1")
            .spec(json!({ "restartPolicy": "Always" }))
            .until(|pod| {
                let state = status(pod, "c").and_then(|status| status.state.as_ref()?.waiting.as_ref());
                state.is_some_and(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff"))
            })
            .restarts(1),
    ]
}

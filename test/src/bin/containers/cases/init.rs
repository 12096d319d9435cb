//! Init containers, and those that keep running.

use ropewalk_test::harness::Kind;
use serde_json::json;

use crate::case::{Case, container, phase, pod, status, with};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        pod("init containers run one after the other", json!({
            "initContainers": [container("a", "sleep 0.2; echo a >> /v/order"), container("b", "echo b >> /v/order")],
            "containers": [container("c", "cat /v/order")] }))
            .sharing()
            .says("a\nb\n"),
        pod("a failed init container ends its pod", json!({
            "initContainers": [container("a", "exit 3"), container("b", "exit 0")],
            "containers": [container("c", "exit 0")] }))
            .ends("a", 3, "Error")
            .also(|seen| {
                anyhow::ensure!(phase(&seen.pod) == "Failed", "the pod is {}", phase(&seen.pod));
                for name in ["b", "c"] {
                    let started = status(&seen.pod, name).is_some_and(|status| status.container_id.is_some());
                    anyhow::ensure!(!started, "\"{name}\" was started");
                }
                Ok(())
            }),
        // Kubernetes has them since 1.28.
        pod("an init container that keeps running ends after the others", json!({
            "terminationGracePeriodSeconds": 30,
            "initContainers": [with(
                container("side", "trap 'cat /v/last; exit 0' TERM; touch /v/up; while :; do sleep 0.05; done"),
                json!({ "restartPolicy": "Always" }))],
            "containers": [container("c", "until [ -e /v/up ]; do sleep 0.05; done; echo last > /v/last")] }))
            .sharing()
            .only(Kind::Standalone)
            .exits(0, "Completed")
            .writes("side", "last\n"),
    ]
}

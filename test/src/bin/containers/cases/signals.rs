//! Deleted pods.

use serde_json::json;

use crate::case::{Case, script};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        script(
            "a pod that is deleted is told by TERM",
            "trap 'echo told; exit 7' TERM; echo ready; sleep 1000 & wait",
        )
        .spec(json!({ "terminationGracePeriodSeconds": 30 }))
        .deleted_after("ready")
        .exits(7, "Error")
        .writes("c", "ready\ntold\n"),
        script("one that does not listen is killed", "trap '' TERM; echo ready; while :; do sleep 1; done")
            .spec(json!({ "terminationGracePeriodSeconds": 1 }))
            .deleted_after("ready")
            .exits(137, "Error"),
        script("one that cannot listen is killed", "echo ready; exec sleep 1000")
            .spec(json!({ "terminationGracePeriodSeconds": 1 }))
            .deleted_after("ready")
            .exits(137, "Error"),
        script(
            "only the first process is told",
            "(trap 'echo child' TERM; sleep 1000 & wait) & \
                trap 'echo first; exit 143' TERM; echo ready; wait",
        )
        .spec(json!({ "terminationGracePeriodSeconds": 30 }))
        .deleted_after("ready")
        .exits(143, "Error")
        .writes("c", "ready\nfirst\n"),
    ]
}

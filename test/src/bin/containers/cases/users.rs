//! Users and groups.

use serde_json::json;

use crate::case::{Case, container, pod, script, with};

pub(crate) fn cases() -> Vec<Case> {
    const IDS: &str = "id -u; id -g; id -G | tr ' ' '\\n' | sort -n | xargs";
    vec![
        script("the user of the pod", IDS)
            .spec(json!({ "securityContext": { "runAsUser": 1234, "runAsGroup": 2345 } }))
            .says("1234\n2345\n2345\n"),
        script("the user of the container", IDS)
            .spec(json!({ "securityContext": { "runAsUser": 1234, "runAsGroup": 2345 } }))
            .container(json!({ "securityContext": { "runAsUser": 77 } }))
            .says("77\n2345\n2345\n"),
        script("a user without a group is in root's", IDS)
            .container(json!({ "securityContext": { "runAsUser": 1234 } }))
            .says("1234\n0\n0\n"),
        script("further groups", IDS)
            .spec(json!({ "securityContext": { "runAsUser": 1, "runAsGroup": 2, "supplementalGroups": [9, 8] } }))
            .says("1\n2\n2 8 9\n"),
        script("the group of volumes", "touch /v/x; stat -c '%g %u' /v/x; stat -c %g /v; id -G | grep -ow 3456")
            .volume(json!({ "emptyDir": {} }))
            .spec(json!({ "securityContext": { "runAsUser": 1234, "runAsGroup": 2345, "fsGroup": 3456 } }))
            .says("3456 1234\n3456\n3456\n"),
        pod("files of others are closed", json!({
            "initContainers": [container("first", "echo x > /v/x; chmod 600 /v/x")],
            "containers": [with(container("c", "cat /v/x 2>&1 | grep -o denied"),
                json!({ "securityContext": { "runAsUser": 1234 } }))] }))
            .sharing()
            .says("denied\n"),
        script("root where it must not be", "exit 0")
            .container(json!({ "securityContext": { "runAsNonRoot": true, "runAsUser": 0 } }))
            .refused("CreateContainerConfigError", &["non-root"]),
        script("an image of root where it must not be", "exit 0")
            .spec(json!({ "securityContext": { "runAsNonRoot": true } }))
            .refused("CreateContainerConfigError", &["runAsNonRoot"]),
        script("not root, as it must be", "id -u")
            .spec(json!({ "securityContext": { "runAsNonRoot": true, "runAsUser": 5 } }))
            .says("5\n"),
        script("a home for every user", "echo $HOME").container(json!({ "securityContext": { "runAsUser": 54321 } })).says("/\n"),
    ]
}

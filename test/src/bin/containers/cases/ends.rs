//! How commands end.

use serde_json::json;

use crate::case::{Case, container, pod, script};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        script("exit code 0", "exit 0").exits(0, "Completed"),
        script("exit code 1", "exit 1").exits(1, "Error"),
        script("exit code 255", "exit 255").exits(255, "Error"),
        script("a child killed by a signal is told by its shell", "sh -c 'kill -SEGV $$$$'; exit $?")
            .exits(139, "Error"),
        script("a child killed by KILL is no want of memory", "sh -c 'kill -KILL $$$$'; exit $?")
            .container(json!({ "resources": { "limits": { "memory": "64Mi" } } }))
            .exits(137, "Error"),
        pod(
            "a command that is not there",
            json!({ "containers": [{ "name": "c", "image": crate::world::IMAGE, "command": ["no-such-command"] }] }),
        )
        .exits(128, "StartError")
        .also(|seen| {
            let message = seen.message("c")?;
            anyhow::ensure!(message.contains("no-such-command"), "it is not named: {message}");
            Ok(())
        }),
        pod(
            "a command that cannot be executed",
            json!({ "containers": [{ "name": "c", "image": crate::world::IMAGE, "command": ["/etc/hostname"] }] }),
        )
        .exits(128, "StartError"),
        pod(
            "one of two containers fails",
            json!({ "containers": [container("good", "exit 0"), container("bad", "exit 7")] }),
        )
        .ends("good", 0, "Completed")
        .ends("bad", 7, "Error")
        .also(|seen| {
            let phase = crate::case::phase(&seen.pod);
            anyhow::ensure!(phase == "Failed", "the pod is {phase}");
            Ok(())
        }),
        script("the deadline ends a pod", "trap 'exit 9' TERM; sleep 1000 & wait")
            .spec(json!({ "activeDeadlineSeconds": 1, "terminationGracePeriodSeconds": 5 }))
            .also(|seen| {
                let reason = seen.pod.status.as_ref().and_then(|status| status.reason.as_deref());
                anyhow::ensure!(reason == Some("DeadlineExceeded"), "the reason is {reason:?}");
                Ok(())
            }),
    ]
}

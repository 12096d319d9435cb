//! What pods can do.

use serde_json::json;

use crate::world::{World, container, outcome, pod, script, test, with};

type Test = (&'static str, fn());

pub(crate) fn all() -> Vec<Test> {
    vec![("init_and_two_containers_share_a_volume", init_and_two_containers_share_a_volume)]
}

fn init_and_two_containers_share_a_volume() {
    test(async |world: &mut World| {
        let shared = json!({"volumeMounts": [{"name": "v", "mountPath": "/workspace"}]});
        let mount = |container| with(container, shared.clone());
        let begun = std::time::Instant::now();
        world
            .create(pod(
                "p",
                json!({
                    "volumes": [{"name": "v", "emptyDir": {}}],
                    "initContainers": [mount(script("init", "echo made > /workspace/made"))],
                    "containers": [
                        mount(script("a", "cat /workspace/made; echo from a > /workspace/a; echo oops >&2")),
                        mount(script("b", "until [ -e /workspace/a ]; do sleep 0.01; done; cat /workspace/a; printf '[]' > /dev/termination-log; exit 3")),
                    ]
                }),
            ))
            .await;
        let ended = world.ended("p").await;
        eprintln!("pod took {:?}", begun.elapsed());
        assert_eq!(ended.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Failed"));
        assert_eq!(outcome(&ended, "init"), (0, "Completed".into(), String::new()));
        assert_eq!(outcome(&ended, "a"), (0, "Completed".into(), String::new()));
        assert_eq!(outcome(&ended, "b"), (3, "Error".into(), "[]".into()));
        assert_eq!(world.log("p", "a").await, "made\noops\n");
        assert_eq!(world.log("p", "b").await, "from a\n");
        assert!(
            container(&ended, "a").container_id.as_deref().is_some_and(|id| id.starts_with("ropewalk://"))
        );
    });
}

//! What `kubectl get` shows of pods.

use http::{Request, header};
use serde_json::{Value, json};

use super::{PODS, World};

fn row(world: &mut World, name: &str) -> Value {
    let request = Request::get(format!("{PODS}/{name}?includeObject=None"))
        .header(header::ACCEPT, "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new());
    let handled = world.request(&request.unwrap());
    let (code, table) = world.answer(handled);
    assert_eq!((code, &table["rows"][0]["object"]), (200, &Value::Null));
    table["rows"][0]["cells"].clone()
}

#[test]
fn a_pods_row_tells_what_it_is_doing() {
    let init = |state: Value| json!({ "initContainerStatuses": [{ "name": "i", "state": state }] });
    let main = |state: Value, ready: bool| json!({ "name": "c", "ready": ready, "state": state });
    let table = [
        (json!({ "phase": "Pending" }), ["0/1", "Pending", "0"]),
        (init(json!({ "waiting": { "reason": "PodInitializing" } })), ["0/1", "Init:0/1", "0"]),
        (init(json!({ "waiting": { "reason": "ErrImagePull" } })), ["0/1", "Init:ErrImagePull", "0"]),
        (init(json!({ "terminated": { "exitCode": 2 } })), ["0/1", "Init:ExitCode:2", "0"]),
        (init(json!({ "terminated": { "exitCode": 2, "reason": "Error" } })), ["0/1", "Init:Error", "0"]),
        (
            json!({ "phase": "Running", "containerStatuses": [main(json!({ "running": {} }), true)] }),
            ["1/1", "Running", "0"],
        ),
        (
            json!({ "containerStatuses": [main(json!({ "waiting": { "reason": "ErrImagePull" } }), false)] }),
            ["0/1", "ErrImagePull", "0"],
        ),
        (
            json!({ "containerStatuses": [main(json!({ "terminated": { "signal": 9 } }), false)] }),
            ["0/1", "Signal:9", "0"],
        ),
        (
            json!({ "containerStatuses": [{
                "name": "c", "ready": false, "restartCount": 3, "state": { "waiting": { "reason": "CrashLoopBackOff" } },
                "lastState": { "terminated": { "finishedAt": "2026-01-02T03:03:05Z" } },
            }] }),
            ["0/1", "CrashLoopBackOff", "3 (60s ago)"],
        ),
        (json!({ "phase": "Failed", "reason": "Evicted" }), ["0/1", "Evicted", "0"]),
    ];
    for (index, (status, expected)) in table.into_iter().enumerate() {
        let mut world = World::new();
        let name = format!("p{index}");
        world.make(PODS, &json!({
            "metadata": { "name": name },
            "spec": { "initContainers": [{ "name": "i", "image": "i" }], "containers": [{ "name": "c", "image": "c" }] },
        }));
        assert_eq!(world.merge(&format!("{PODS}/{name}/status"), &json!({ "status": status })).0, 200);
        let cells = row(&mut world, &name);
        assert_eq!(json!([cells[1], cells[2], cells[3]]), json!(expected), "{status}");
    }
}

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{MAPS, WIDGETS, World};
use crate::{Admission, AdmissionDecision, AdmissionRequest, Operation};

/// Writes down what it is asked, adds a label, refuses what is called `evil`.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

impl Admission for Recorder {
    fn admit(&self, request: &AdmissionRequest<'_>) -> AdmissionDecision {
        let seen = format!(
            "{:?} {}/{} {} {} {}{}",
            request.operation,
            request.group,
            request.version,
            request.resource,
            request.name,
            request.old_object.is_some(),
            if request.dry_run { " dry" } else { "" },
        );
        self.0.lock().unwrap().push(seen);
        assert!(!request.object["metadata"]["uid"].is_null(), "system fields are set before admission");
        if request.object["spec"]["image"] == "evil" {
            let message = "admission webhook \"w\" denied the request: evil".into();
            return AdmissionDecision::Deny { code: 400, message };
        }
        if request.operation == Operation::Delete || request.group.is_empty() {
            return AdmissionDecision::allow();
        }
        let mut object = request.object.clone();
        object["metadata"]["labels"]["seen"] = json!("yes");
        object["metadata"]["uid"] = json!("forged");
        object["spec"]["unknown"] = json!(true);
        object["spec"]["params"] = json!([{ "name": "added" }]);
        AdmissionDecision::Allow { object: Some(object), warnings: vec!["look out".into()] }
    }
}

#[test]
fn writes_are_judged_and_changed() {
    let mut world = World::new();
    let recorder = Recorder::default();
    world.admission = Box::new(recorder.clone());
    let (code, made) = world.post(WIDGETS, &json!({ "metadata": { "name": "a" }, "spec": { "image": "x" } }));
    assert_eq!((code, &made["metadata"]["labels"]), (201, &json!({ "seen": "yes" })));
    assert_eq!(world.warnings, ["299 - \"look out\""]);
    // What it returns is pruned and defaulted like what a client sends, and cannot forge system fields.
    assert_eq!(made["spec"]["params"], json!([{ "name": "added", "type": "string" }]));
    assert_eq!(made["spec"].get("unknown"), None);
    assert_ne!(made["metadata"]["uid"], "forged");
    let url = format!("{WIDGETS}/a");
    let (_, changed) = world.merge(&url, &json!({ "spec": { "count": 2 } }));
    assert_eq!(changed["metadata"]["uid"], made["metadata"]["uid"]);
    world.merge(&format!("{url}/status"), &json!({ "status": { "phase": "Done" } }));
    world.get(&url);
    world.post(
        &format!("{WIDGETS}?dryRun=All"),
        &json!({ "metadata": { "name": "b" }, "spec": { "image": "x" } }),
    );
    world.post(WIDGETS, &json!({ "metadata": { "generateName": "g-" }, "spec": { "image": "x" } }));
    world.delete(&url, &Value::Null);
    world.make_map("m");
    world.delete(MAPS, &Value::Null);
    assert_eq!(
        *recorder.0.lock().unwrap(),
        [
            "Create example.dev/v1 widgets a false",
            "Update example.dev/v1 widgets a true",
            "Create example.dev/v1 widgets b false dry",
            "Create example.dev/v1 widgets  false",
            "Delete example.dev/v1 widgets a true",
            "Create /v1 configmaps m false",
            "Delete /v1 configmaps m true",
        ]
    );
}

#[test]
fn a_denial_is_told_to_the_letter_and_changes_nothing() {
    let mut world = World::new();
    world.admission = Box::new(Recorder::default());
    let (code, status) =
        world.post(WIDGETS, &json!({ "metadata": { "name": "a" }, "spec": { "image": "evil" } }));
    assert_eq!((code, &status["reason"]), (400, &json!("BadRequest")));
    assert_eq!(status["message"], "admission webhook \"w\" denied the request: evil");
    assert!(world.deltas.is_empty());
}

#[test]
fn a_mutation_that_breaks_the_schema_is_refused() {
    struct Breaker;
    impl Admission for Breaker {
        fn admit(&self, request: &AdmissionRequest<'_>) -> AdmissionDecision {
            let mut object = request.object.clone();
            object["spec"]["image"] = json!(5);
            AdmissionDecision::Allow { object: Some(object), warnings: Vec::new() }
        }
    }
    let mut world = World::new();
    world.admission = Box::new(Breaker);
    assert_eq!(world.post(WIDGETS, &json!({ "metadata": { "name": "a" }, "spec": { "image": "x" } })).0, 422);
}

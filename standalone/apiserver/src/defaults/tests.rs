use super::*;
use crate::types;

fn filled(group: &str, kind: &str, mut object: Value) -> Value {
    fill(&mut object, Shape::of(None, group, "v1", kind));
    object
}

#[test]
fn the_table_is_in_order_and_about_fields_that_there_are() {
    assert!(FIELDS.is_sorted_by_key(|(name, _)| *name));
    let known = types::described();
    for (name, fields) in FIELDS {
        for (field, _) in *fields {
            let named = known.iter().filter(|(full, _)| full.rsplit('.').next() == Some(*name));
            let has_it = |schema: &Value| schema["properties"].get(*field).is_some();
            assert!(named.into_iter().any(|(_, schema)| has_it(schema)), "{name}.{field}");
        }
    }
}

#[test]
fn a_pod_says_what_it_leaves_open() {
    let pod = filled(
        "",
        "Pod",
        json!({ "spec": {
            "containers": [{
                "name": "a", "image": "a:1", "terminationMessagePath": "", "ports": [{ "containerPort": 80 }],
                "livenessProbe": { "httpGet": { "port": 80 }, "periodSeconds": 0 },
            }],
            "hostNetwork": true,
            "restartPolicy": "Never",
            "volumes": [{ "name": "v" }, { "name": "s", "secret": { "secretName": "s", "defaultMode": 0 } }],
        } }),
    );
    // As the API reference of Kubernetes describes the fields.
    let expected = json!({ "status": {}, "spec": {
        "containers": [{
            "name": "a", "image": "a:1", "imagePullPolicy": "IfNotPresent", "resources": {},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            "ports": [{ "containerPort": 80, "hostPort": 80, "protocol": "TCP" }],
            "livenessProbe": {
                "httpGet": { "path": "/", "port": 80, "scheme": "HTTP" },
                "periodSeconds": 10, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3,
            },
        }],
        "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "hostNetwork": true, "restartPolicy": "Never",
        "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30,
        "volumes": [
            { "name": "v", "emptyDir": {} },
            { "name": "s", "secret": { "secretName": "s", "defaultMode": 0 } },
        ],
    } });
    assert_eq!(pod, expected);
    assert_eq!(filled("", "Pod", expected.clone()), expected, "what is filled in stays");
}

#[test]
fn templates_of_pods_leave_to_pods_what_is_theirs() {
    let made = filled(
        "apps",
        "StatefulSet",
        json!({ "spec": { "template": { "spec": {
        "containers": [{ "name": "a", "image": "a", "resources": { "limits": { "cpu": "1" } } }],
    } } } }),
    );
    let spec = &made["spec"]["template"]["spec"];
    assert_eq!((&spec["dnsPolicy"], &spec["enableServiceLinks"]), (&json!("ClusterFirst"), &Value::Null));
    assert_eq!(spec["containers"][0]["resources"], json!({ "limits": { "cpu": "1" } }));
    assert_eq!(
        made["spec"]["updateStrategy"],
        json!({ "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } })
    );
}

#[test]
fn images_without_a_fixed_name_are_pulled_always() {
    for (image, latest) in [
        ("busybox", true),
        ("busybox:latest", true),
        ("example.dev:5000/busybox", true),
        ("example.dev:5000/busybox:1", false),
        ("busybox:1.36", false),
        ("busybox@sha256:0000", false),
        ("busybox:latest@sha256:0000", true),
        ("", false),
    ] {
        assert_eq!(is_latest(image), latest, "{image}");
    }
}

#[test]
fn small_kinds_say_what_they_leave_open() {
    let rbac = "rbac.authorization.k8s.io";
    for (group, kind, given, pointer, expected) in [
        ("", "Secret", json!({}), "/type", json!("Opaque")),
        ("", "PersistentVolumeClaim", json!({ "spec": {} }), "/spec/volumeMode", json!("Filesystem")),
        ("", "PersistentVolumeClaim", json!({}), "/status/phase", json!("Pending")),
        ("", "Service", json!({}), "/spec/internalTrafficPolicy", json!("Cluster")),
        (
            "",
            "Service",
            json!({ "spec": { "ports": [{ "port": 80 }] } }),
            "/spec/ports/0",
            json!({ "port": 80, "protocol": "TCP", "targetPort": 80 }),
        ),
        (
            "",
            "Node",
            json!({ "status": { "capacity": { "cpu": "1" } } }),
            "/status/allocatable/cpu",
            json!("1"),
        ),
        ("", "Event", json!({}), "/reportingComponent", json!("")),
        (
            rbac,
            "RoleBinding",
            json!({ "subjects": [{ "kind": "User", "name": "u" }, { "kind": "ServiceAccount", "name": "a" }] }),
            "/subjects",
            json!([
                { "kind": "User", "name": "u", "apiGroup": rbac }, { "kind": "ServiceAccount", "name": "a" },
            ]),
        ),
        (
            "",
            "Pod",
            json!({ "status": { "podIP": "10.1.2.3" } }),
            "/status/podIPs",
            json!([{ "ip": "10.1.2.3" }]),
        ),
        ("", "Pod", json!({ "spec": { "serviceAccount": "a" } }), "/spec/serviceAccountName", json!("a")),
    ] {
        assert_eq!(filled(group, kind, given).pointer(pointer), Some(&expected), "{kind}{pointer}");
    }
    // An event of the newer group has other fields.
    assert_eq!(filled("events.k8s.io", "Event", json!({})).get("involvedObject"), None);
}

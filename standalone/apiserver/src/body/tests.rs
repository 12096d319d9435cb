use http::{HeaderMap, HeaderValue, header};
use serde_json::{Value, json};

use super::{decode, duplicates};

/// A field of bytes.
fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
    assert!(number < 16 && content.len() < 128, "one byte each");
    [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
}

fn varint(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let kinds = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), bytes(1, &kinds), bytes(2, raw), bytes(3, b""), bytes(4, b"")].concat()
}

fn read(body: &[u8]) -> (u16, Value) {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/vnd.kubernetes.protobuf"));
    match decode(&headers, body) {
        Ok(value) => (200, value),
        Err(failure) => (failure.code, Value::from(failure.message)),
    }
}

#[test]
fn protobuf_of_built_in_kinds_is_read() {
    // The numbers are those of k8s.io/api's generated.proto.
    let label = [bytes(1, b"a"), bytes(2, b"b")].concat();
    let meta = [bytes(1, b"n"), bytes(3, b""), bytes(8, b""), bytes(11, &label)].concat();
    for (api_version, kind, raw, expected) in [
        (
            "v1",
            "Namespace",
            [bytes(1, &meta), bytes(2, b""), bytes(3, &bytes(1, b""))].concat(),
            json!({ "metadata": { "name": "n", "labels": { "a": "b" } }, "spec": {}, "status": {} }),
        ),
        (
            "v1",
            "Secret",
            [
                bytes(1, &meta),
                bytes(2, &[bytes(1, b"k"), bytes(2, b"\xff")].concat()),
                bytes(3, b"Opaque"),
                varint(5, 1),
            ]
            .concat(),
            json!({ "metadata": { "name": "n", "labels": { "a": "b" } }, "data": { "k": "/w==" }, "type": "Opaque",
                    "immutable": true }),
        ),
        (
            "rbac.authorization.k8s.io/v1",
            "Role",
            bytes(2, &[bytes(1, b"get"), bytes(1, b"list"), bytes(3, b"pods")].concat()),
            json!({ "rules": [{ "verbs": ["get", "list"], "resources": ["pods"] }] }),
        ),
        (
            "v1",
            "ResourceQuota",
            bytes(2, &bytes(1, &[bytes(1, b"pods"), bytes(2, &bytes(1, b"3"))].concat())),
            json!({ "spec": { "hard": { "pods": "3" } } }),
        ),
        (
            "v1",
            "Pod",
            // A volume's source and a probe's handler stand in the fields of their own in JSON; a port is both.
            bytes(
                2,
                &[
                    bytes(1, &[bytes(1, b"v"), bytes(2, &bytes(2, b""))].concat()),
                    bytes(
                        2,
                        &[
                            bytes(1, b"c"),
                            bytes(
                                10,
                                &bytes(1, &bytes(2, &bytes(2, &[varint(1, 0), varint(2, 80)].concat()))),
                            ),
                        ]
                        .concat(),
                    ),
                ]
                .concat(),
            ),
            json!({ "spec": {
                "volumes": [{ "name": "v", "emptyDir": {} }],
                "containers": [{ "name": "c", "livenessProbe": { "httpGet": { "port": 80 } } }],
            } }),
        ),
        (
            "events.k8s.io/v1",
            "Event",
            [bytes(2, &[varint(1, 1), varint(2, 0)].concat()), bytes(10, b"a note")].concat(),
            json!({ "eventTime": "1970-01-01T00:00:01.000000Z", "note": "a note" }),
        ),
        ("v1", "DeleteOptions", varint(1, 0), json!({ "gracePeriodSeconds": 0 })),
    ] {
        let mut expected = expected;
        expected["apiVersion"] = json!(api_version);
        expected["kind"] = json!(kind);
        assert_eq!(read(&envelope(api_version, kind, &raw)), (200, expected));
    }
}

#[test]
fn protobuf_that_is_none_is_refused() {
    let mut deep = Vec::new();
    // Messages cannot hold themselves but through lists of schemas; an early end is the way to go wrong.
    deep.extend(envelope("v1", "Namespace", &[0x0a, 0x7f]));
    for (body, code) in [
        (b"{}".to_vec(), 400),
        (b"k8s\0\x0a".to_vec(), 400),
        (b"k8s\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(), 400),
        (deep, 400),
        (envelope("v1", "Namespace", &[0x0b]), 400),
        (envelope("v1", "Namespace", &bytes(1, &bytes(1, b"\xff"))), 400),
        (envelope("v1", "Namespace", &varint(1, 1)), 200),
        (envelope("batch/v1", "Job", b""), 415),
        (envelope("tekton.dev/v1", "TaskRun", b""), 415),
    ] {
        let (found, answer) = read(&body);
        assert_eq!(found, code, "{body:?}: {answer}");
    }
}

#[test]
fn fields_that_stand_twice_are_found() {
    let json = br#"{"a":1,"b":[{"c":1,"d":{"e":1,"e":[]}},{"c":2,"c":null}],"a":2.5,"a":"x"}"#;
    assert_eq!(duplicates(json), ["b[0].d.e", "b[1].c", "a", "a"]);
    assert!(duplicates(br#"{"a":{"b":1},"c":{"b":1}}"#).is_empty());
    assert!(duplicates(b"a: 1\na: 2\n").is_empty());
}

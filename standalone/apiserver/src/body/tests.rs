use http::{HeaderMap, HeaderValue, Method, Request, header};
use serde_json::{Value, json};

use super::{BODY_LIMIT, Body, YAML, decode, duplicates, patch};

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

/// Why a body is refused, if it is: on the stack that a thread of the server has, in the build that takes most of it.
fn refused(method: &Method, media_type: &str, text: String) -> Option<String> {
    let request = Request::builder().method(method).uri("/").header(header::CONTENT_TYPE, media_type);
    let request = request.body(text).unwrap();
    let read = move || Body::of(&request).object().err().map(|failure| failure.message);
    std::thread::Builder::new().stack_size(2 << 20).spawn(read).unwrap().join().unwrap()
}

#[test]
fn yaml_that_is_made_to_cost_more_than_it_is_long_is_refused() {
    let nested =
        |open: &str, close: &str, depth| format!("a: {}1{}", open.repeat(depth), close.repeat(depth));
    let mut aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let below = vec![format!("*a{}", level - 1); 10].join(", ");
        aliases.extend([format!("a{level}: &a{level} [{below}]\n")]);
    }
    let indented: Vec<_> = (0..2000).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    for (method, media_type) in [(Method::POST, YAML), (Method::PATCH, patch::APPLY)] {
        let refused = |text| refused(&method, media_type, text);
        for (open, close) in [("[", "]"), ("{a: ", "}"), ("{\"a\":", "}"), ("&a [", "]")] {
            assert_eq!(refused(nested(open, close, 40)), None);
            // The deepest that are taken, and those around them.
            let depths = (44..140).step_by(4).map(|depth| refused(nested(open, close, depth)).is_some());
            assert!(depths.is_sorted(), "{open}");
            let error = refused(nested(open, close, 10_000)).unwrap();
            assert!(error.starts_with("error decoding YAML: "), "{error}");
        }
        for text in [indented.concat(), aliases.clone()] {
            let error = refused(text).unwrap();
            assert!(error.starts_with("error decoding YAML: "), "{error}");
            assert!(error.lines().count() == 1 && error.len() < 300, "{error}");
        }
        let error = refused(format!("a: {}", "x".repeat(BODY_LIMIT - 3))).unwrap();
        assert!(error.contains("too large"), "{error}");
    }
}

/// The bytes are not so much as looked at: whatever holds them, and whatever they were.
#[test]
fn a_body_beyond_the_limit_is_not_read() {
    let request = Request::post("/").header(header::CONTENT_TYPE, "application/yaml");
    let body = Body::of(&request.body(vec![b'x'; 100 << 20]).unwrap());
    assert!(body.is_too_large());
    assert_eq!(body.object().unwrap(), Value::Null);
}

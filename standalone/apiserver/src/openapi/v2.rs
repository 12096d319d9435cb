//! `/openapi/v2`, in the one form in which clients ask for it: the `Document` message of gnostic's `OpenAPIv2.proto`. Pure.
//!
//! kubectl before 1.27, and Helm, validate by this what they apply, and merge by it. They read definitions, and of paths the
//! kinds and query parameters of patches; nothing else is written. It is made from the documents of version 3.

use http::{HeaderMap, HeaderValue, Response, header};
use serde_json::{Map, Value};

use super::document;
use crate::{
    status::{Failure, Result},
    table::ResourceTable,
    types,
};

/// The media type, as clients ask for it.
const ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// And as kube-apiserver calls what it answers.
const ANSWERED: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The document of all groups and versions.
pub(crate) fn answer(table: &ResourceTable, headers: &HeaderMap) -> Result<Response<Vec<u8>>> {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut accepted = accepted.flat_map(|value| value.split(','));
    let known = |range: &str| matches!(range.split(';').next().unwrap_or_default().trim(), ASKED | ANSWERED);
    if !accepted.any(known) {
        return Err(Failure::only_acceptable(ASKED));
    }
    let mut response = Response::new(whole(table).0);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(ANSWERED));
    Ok(response)
}

/// The bytes of a message.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    /// A field of bytes: a text or a message.
    fn bytes(mut self, number: u64, content: &[u8]) -> Self {
        self.varint(number << 3 | 2);
        self.varint(content.len() as u64);
        self.0.extend_from_slice(content);
        self
    }

    fn text(self, number: u64, text: &str) -> Self {
        if text.is_empty() { self } else { self.bytes(number, text.as_bytes()) }
    }

    fn message(self, number: u64, message: &Self) -> Self {
        self.bytes(number, &message.0)
    }

    /// One of several with names, which is how gnostic writes maps.
    fn named(self, number: u64, name: &str, value: &Self) -> Self {
        self.message(number, &Self::default().text(1, name).message(2, value))
    }

    /// What a schema or an operation has besides what OpenAPI knows, as YAML, of which JSON is a part.
    fn extensions(self, number: u64, of: &Map<String, Value>) -> Self {
        let extensions = of.iter().filter(|(key, _)| key.starts_with("x-kubernetes-"));
        extensions.fold(self, |message, (key, value)| {
            message.named(number, key, &Self::default().text(2, &value.to_string()))
        })
    }
}

fn whole(table: &ResourceTable) -> Message {
    let described = types::described();
    let mut places: Vec<(&str, &str)> = table.routes().map(|(group, version, ..)| (group, version)).collect();
    places.dedup();
    let (mut paths, mut definitions) = (Message::default(), Map::new());
    for (group, version) in places {
        let Some(mut document) = document(table, group, version, &described) else { continue };
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            if let Some(patch) = item.get("patch").and_then(Value::as_object) {
                paths = paths.named(2, path, &Message::default().message(8, &operation(patch)));
            }
        }
        if let Value::Object(schemas) = document["components"]["schemas"].take() {
            definitions.extend(schemas);
        }
    }
    let definitions = definitions
        .iter()
        .fold(Message::default(), |message, (name, value)| message.named(1, name, &schema(value)));
    let info = Message::default().text(1, "Kubernetes").text(2, "v1.36.0");
    Message::default().text(1, "2.0").message(2, &info).message(8, &paths).message(9, &definitions)
}

/// An operation with the names of its query parameters.
fn operation(operation: &Map<String, Value>) -> Message {
    let parameters = operation.get("parameters").and_then(Value::as_array).into_iter().flatten();
    let names = parameters.filter_map(|parameter| parameter.get("name")?.as_str());
    let message = names.fold(Message::default(), |message, name| {
        let query = Message::default().text(2, "query").text(4, name).text(6, "string");
        // A parameter, not a reference; not of the body; of the query.
        let parameter =
            [3, 2, 1].into_iter().fold(query, |inner, number| Message::default().message(number, &inner));
        message.message(8, &parameter)
    });
    message.extensions(13, operation)
}

fn schema(value: &Value) -> Message {
    let Some(map) = value.as_object() else { return Message::default() };
    let text = |key: &str| map.get(key).and_then(Value::as_str).unwrap_or_default();
    let list = |key: &str| map.get(key).and_then(Value::as_array).into_iter().flatten();
    // A reference that has a description of its own stands in an `allOf`, which readers of this version do not know.
    let reference = list("allOf").find_map(|part| part.get("$ref")?.as_str()).unwrap_or(text("$ref"));
    let reference = reference.rsplit('/').next().filter(|name| !name.is_empty());
    let mut message = Message::default();
    if let Some(name) = reference {
        message = message.text(1, &format!("#/definitions/{name}"));
    }
    message = message.text(2, text("format")).text(4, text("description"));
    for name in list("required").filter_map(Value::as_str) {
        message = message.text(19, name);
    }
    if let Some(values) = map.get("additionalProperties").filter(|values| values.is_object()) {
        message = message.message(21, &Message::default().message(1, &schema(values)));
    }
    if !text("type").is_empty() {
        message = message.message(22, &Message::default().text(1, text("type")));
    }
    if let Some(items) = map.get("items") {
        message = message.message(23, &Message::default().message(1, &schema(items)));
    }
    if let Some(properties) = map.get("properties").and_then(Value::as_object) {
        let all = properties.iter();
        let all = all.fold(Message::default(), |all, (name, value)| all.named(1, name, &schema(value)));
        message = message.message(25, &all);
    }
    message.extensions(31, map)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The fields of a message, of which all are bytes.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let end = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap();
            let (taken, rest) = bytes.split_at(end + 1);
            *bytes = rest;
            taken.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
        }
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            assert_eq!(tag & 7, 2);
            let length = usize::try_from(varint(&mut bytes)).unwrap();
            let (content, rest) = bytes.split_at(length);
            found.push((tag >> 3, content.to_vec()));
            bytes = rest;
        }
        found
    }

    fn field(bytes: &[u8], path: &[u64]) -> Vec<u8> {
        path.iter().fold(bytes.to_vec(), |bytes, number| {
            fields(&bytes).into_iter().find(|(found, _)| found == number).unwrap().1
        })
    }

    fn named(bytes: &[u8], number: u64, name: &str) -> Vec<u8> {
        let all = fields(bytes).into_iter().filter(|(found, _)| *found == number);
        let mut all = all.filter(|(_, entry)| field(entry, &[1]) == name.as_bytes());
        field(&all.next().unwrap().1, &[2])
    }

    #[test]
    fn a_schema_is_written_as_gnostic_reads_it() {
        let long = "d".repeat(300);
        let value = json!({
            "type": "object", "description": long, "required": ["a", "b"],
            "properties": {
                "a": { "allOf": [{ "$ref": "#/components/schemas/x.A" }], "description": "an A" },
                "b": { "type": "array", "items": { "type": "string", "format": "byte" } },
                "c": { "type": "object", "additionalProperties": { "$ref": "#/components/schemas/x.A" } },
            },
            "x-kubernetes-patch-merge-key": "name",
        });
        let bytes = schema(&value).0;
        assert_eq!(field(&bytes, &[4]), long.as_bytes());
        assert_eq!(field(&bytes, &[22, 1]), b"object");
        let required = fields(&bytes).into_iter().filter(|(number, _)| *number == 19);
        assert_eq!(required.map(|(_, name)| name).collect::<Vec<_>>(), [b"a", b"b"]);
        let properties = field(&bytes, &[25]);
        assert_eq!(field(&named(&properties, 1, "a"), &[1]), b"#/definitions/x.A");
        assert_eq!(field(&named(&properties, 1, "b"), &[23, 1, 2]), b"byte");
        assert_eq!(field(&named(&properties, 1, "c"), &[21, 1, 1]), b"#/definitions/x.A");
        assert_eq!(field(&named(&bytes, 31, "x-kubernetes-patch-merge-key"), &[2]), b"\"name\"");
    }

    #[test]
    fn patches_say_what_they_take_and_every_reference_is_there() {
        let bytes = whole(&ResourceTable::built_in()).0;
        assert_eq!(field(&bytes, &[1]), b"2.0");
        let patch =
            field(&named(&field(&bytes, &[8]), 2, "/api/v1/namespaces/{namespace}/pods/{name}"), &[8]);
        let names = fields(&patch).into_iter().filter(|(number, _)| *number == 8);
        let names: Vec<_> = names.map(|(_, parameter)| field(&parameter, &[1, 2, 3, 4])).collect();
        assert!(names.contains(&b"fieldValidation".to_vec()) && names.contains(&b"dryRun".to_vec()));
        let kind = field(&named(&patch, 13, "x-kubernetes-group-version-kind"), &[2]);
        let kind: Value = serde_json::from_slice(&kind).unwrap();
        assert_eq!(kind, json!({ "group": "", "version": "v1", "kind": "Pod" }));
        let definitions = field(&bytes, &[9]);
        let pod = named(&definitions, 1, "io.k8s.api.core.v1.Pod");
        let spec = field(&named(&field(&pod, &[25]), 1, "spec"), &[1]);
        assert_eq!(spec, b"#/definitions/io.k8s.api.core.v1.PodSpec");
        named(&definitions, 1, "io.k8s.api.core.v1.PodSpec");
    }
}

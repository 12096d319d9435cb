//! Volumes made of objects.

use serde_json::{Value, json};

use crate::case::{Case, script};

fn config_map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name },
        "data": { "a": "1", "b": "2" }, "binaryData": { "raw": "AAEC" } })
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        script("a ConfigMap as files", "cat /v/a /v/b; od -An -tx1 /v/raw; ls /v | xargs")
            .volume(json!({ "configMap": { "name": "files" } }))
            .object(config_map("files"))
            .says("12 00 01 02\na b raw\n"),
        script("chosen keys under other names, with modes", "cat /v/deep/er; stat -L -c ' %a' /v/deep/er; ls /v")
            .volume(json!({ "configMap": { "name": "chosen",
                "items": [{ "key": "b", "path": "deep/er", "mode": 0o440 }] } }))
            .object(config_map("chosen"))
            .says("2 440\ndeep\n"),
        script("files of objects cannot be changed", "{ echo x > /v/a; } 2>&1 | grep -o 'Read-only file system'")
            .volume(json!({ "configMap": { "name": "fixed" } }))
            .object(config_map("fixed"))
            .says("Read-only file system\n"),
        script("an optional ConfigMap that is missing leaves no files", "ls -A /v | grep -v '^\\.\\.'; echo empty")
            .volume(json!({ "configMap": { "name": "none", "optional": true } }))
            .says("empty\n"),
        script("a Secret, for its user only, in memory", "cat /v/k; stat -L -c ' %a' /v/k; stat -f -c %T /v")
            .volume(json!({ "secret": { "secretName": "private", "defaultMode": 0o400 } }))
            .object(json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "private" },
                "data": { "k": "aGlkZGVu" } }))
            .says("hidden 400\ntmpfs\n"),
        script("one file of a ConfigMap among others", "cat /etc/added; test -e /etc/passwd && echo beside")
            .spec(json!({ "volumes": [{ "name": "v", "configMap": { "name": "single" } }] }))
            .container(json!({ "volumeMounts": [{ "name": "v", "mountPath": "/etc/added", "subPath": "a" }] }))
            .object(config_map("single"))
            .says("1beside\n"),
        script("several sources in one volume", "cat /v/of/map /v/name; stat -L -c ' %a' /v/name")
            .metadata(json!({ "name": "projects" }))
            .volume(json!({ "projected": { "defaultMode": 0o444, "sources": [
                { "configMap": { "name": "part", "items": [{ "key": "a", "path": "of/map" }] } },
                { "downwardAPI": { "items": [{ "path": "name", "fieldRef": { "fieldPath": "metadata.name" } }] } }] } }))
            .object(config_map("part"))
            .says("1projects 444\n"),
        script("labels as a file", "cat /v/labels")
            .metadata(json!({ "labels": { "a": "1", "b": "say" } }))
            .volume(json!({ "downwardAPI": { "items": [
                { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } }] } }))
            .says("a=\"1\"\nb=\"say\""),
    ]
}

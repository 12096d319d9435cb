//! Variables, and what is expanded from them.

use serde_json::json;

use crate::case::{Case, script};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        script("variables use earlier ones", "echo $A $B $C").container(json!({ "env": [
            { "name": "A", "value": "1" }, { "name": "B", "value": "$(A)2" }, { "name": "C", "value": "$(D)" },
            { "name": "D", "value": "late" } ] }))
            .says("1 12 $(D)\n"),
        script("arguments are expanded, a doubled dollar is not", "echo '$(A) $$(A) $(NONE) $A'")
            .container(json!({ "env": [{ "name": "A", "value": "1" }] }))
            .says("1 $(A) $(NONE) $A\n"),
        script("arguments arrive byte for byte", "").container(json!({
            "command": ["printf", "%s|"], "args": ["", " a  b ", "*", "\"'", "ä\n", "-n"] }))
            .says("| a  b |*|\"'|ä\n|-n|"),
        script("all of a ConfigMap, prefixed, and a variable over it", "echo $P_A $P_B")
            .container(json!({ "envFrom": [{ "prefix": "P_", "configMapRef": { "name": "all" } }],
                "env": [{ "name": "P_B", "value": "own" }] }))
            .object(json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "all" },
                "data": { "A": "a", "B": "b" } }))
            .says("a own\n"),
        script("a key of a Secret", "echo $A").container(json!({ "env": [
            { "name": "A", "valueFrom": { "secretKeyRef": { "name": "key", "key": "k" } } }] }))
            .object(json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "key" },
                "data": { "k": "aGlkZGVu" } }))
            .says("hidden\n"),
        script("an optional key that is missing leaves no variable", "echo ${A-unset}").container(json!({ "env": [
            { "name": "A", "valueFrom": { "configMapKeyRef": { "name": "none", "key": "k", "optional": true } } }] }))
            .says("unset\n"),
        script("a Secret that is missing is named", "exit 0").container(json!({ "env": [
            { "name": "A", "valueFrom": { "secretKeyRef": { "name": "absent", "key": "k" } } }] }))
            .refused("CreateContainerConfigError", &["\"absent\"", "not found"]),
        script("fields of the pod", "echo $NAME $LABEL $ACCOUNT; test -n \"$IP\" && test -n \"$NODE\" && echo more")
            .metadata(json!({ "name": "fields", "labels": { "l": "value" } }))
            .container(json!({ "env": [
                { "name": "NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                { "name": "LABEL", "valueFrom": { "fieldRef": { "fieldPath": "metadata.labels['l']" } } },
                { "name": "ACCOUNT", "valueFrom": { "fieldRef": { "fieldPath": "spec.serviceAccountName" } } },
                { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
                { "name": "NODE", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } }] }))
            .says("fields value default\nmore\n"),
        script("resources of the container", "echo $CPU $MEMORY $ASKED").container(json!({
            "resources": { "limits": { "cpu": "250m", "memory": "64Mi" }, "requests": { "cpu": "100m" } },
            "env": [
                { "name": "CPU", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu", "divisor": "1m" } } },
                { "name": "MEMORY", "valueFrom": { "resourceFieldRef": { "resource": "limits.memory" } } },
                { "name": "ASKED", "valueFrom": { "resourceFieldRef": { "resource": "requests.cpu" } } }] }))
            .says("250 67108864 1\n"),
        script("nothing of the node's own environment", "env | cut -d= -f1 | grep -vE '^(KUBERNETES_|A$|SHLVL$)' | sort | xargs")
            .container(json!({ "env": [{ "name": "A", "value": "1" }] }))
            .says("HOME HOSTNAME PATH PWD\n"),
    ]
}

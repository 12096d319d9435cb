use serde_json::{Value, json};

use super::*;

fn policy(level: &str, version: &str) -> Policy {
    Policy { level: parse_level(level).unwrap(), minor: parse_version(version).unwrap() }
}

fn pod(spec: &Value) -> Value {
    json!({ "metadata": { "name": "p" }, "spec": spec })
}

fn container(name: &str, context: &Value) -> Value {
    json!({ "name": name, "image": "i", "securityContext": context })
}

fn one(context: &Value) -> Value {
    pod(&json!({ "containers": [container("c", context)] }))
}

/// As the restricted level wants it.
fn modest() -> Value {
    json!({ "allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": { "drop": ["ALL"] },
            "seccompProfile": { "type": "RuntimeDefault" } })
}

#[test]
fn a_plain_pod_is_told_all_that_it_lacks() {
    let spec = json!({ "initContainers": [{ "name": "prepare" }], "containers": [{ "name": "a" }] });
    assert_eq!(
        policy("restricted", "latest").check(&pod(&spec)).unwrap_err(),
        "violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (containers \"prepare\", \"a\" \
         must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (containers \"prepare\", \
         \"a\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or containers \
         \"prepare\", \"a\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or containers \"prepare\", \
         \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
    assert_eq!(policy("baseline", "latest").check(&pod(&spec)), Ok(()));
    assert_eq!(policy("restricted", "latest").check(&one(&modest())), Ok(()));
    // Older releases asked for less.
    let first = policy("restricted", "v1.0").violations(&pod(&spec));
    assert_eq!(first.iter().map(|it| it.reason.as_str()).collect::<Vec<_>>(), ["runAsNonRoot != true"]);
}

#[test]
fn the_baseline_forbids_what_reaches_the_machine() {
    let spec = |field: &str, value: Value| {
        let mut pod = pod(&json!({ "containers": [{ "name": "c" }] }));
        pod["spec"][field] = value;
        pod
    };
    let mut annotated = one(&json!({}));
    annotated["metadata"]["annotations"] = json!({
        "container.apparmor.security.beta.kubernetes.io/c": "unconfined", "other": "unconfined",
    });
    for (pod, expected) in [
        (
            one(&json!({ "privileged": true })),
            "privileged (container \"c\" must not set securityContext.privileged=true)",
        ),
        (spec("hostNetwork", json!(true)), "host namespaces (hostNetwork=true)"),
        (
            pod(&json!({ "containers": [{ "name": "a", "ports": [{ "hostPort": 80 }, { "hostPort": 9 }] },
                                       { "name": "b", "ports": [{ "containerPort": 1 }] }] })),
            "hostPort (container \"a\" uses hostPorts 9, 80)",
        ),
        (
            spec(
                "volumes",
                json!([{ "name": "v", "hostPath": { "path": "/" } }, { "name": "w", "emptyDir": {} }]),
            ),
            "hostPath volumes (volume \"v\")",
        ),
        (
            one(&json!({ "capabilities": { "add": ["SYS_ADMIN", "CHOWN", "NET_RAW"] } })),
            "non-default capabilities (container \"c\" must not include \"NET_RAW\", \"SYS_ADMIN\" in \
             securityContext.capabilities.add)",
        ),
        (
            spec("securityContext", json!({ "seccompProfile": { "type": "Unconfined" } })),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            one(&json!({ "procMount": "Unmasked" })),
            "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            one(&json!({ "seLinuxOptions": { "type": "spc_t", "user": "u" } })),
            "seLinuxOptions (container \"c\" set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may \
             not be set)",
        ),
        (
            spec(
                "securityContext",
                json!({ "sysctls": [{ "name": "kernel.msgmax" }, { "name": "net.ipv4.tcp_rmem" }] }),
            ),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            spec("securityContext", json!({ "windowsOptions": { "hostProcess": true } })),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            pod(
                &json!({ "containers": [{ "name": "c", "livenessProbe": { "httpGet": { "host": "10.0.0.1" } } }] }),
            ),
            "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"10.0.0.1\")",
        ),
        (
            one(&json!({ "appArmorProfile": { "type": "Unconfined" } })),
            "forbidden AppArmor profile (container \"c\" must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            annotated,
            "forbidden AppArmor profile (annotation must not set AppArmor profile type to \
             \"container.apparmor.security.beta.kubernetes.io/c=\"unconfined\"\")",
        ),
    ] {
        let expected = format!("violate PodSecurity \"baseline:latest\": {expected}");
        assert_eq!(policy("baseline", "latest").check(&pod).unwrap_err(), expected);
        assert_eq!(policy("privileged", "latest").check(&pod), Ok(()));
    }
}

#[test]
fn the_restricted_level_forbids_more() {
    let with = |field: &str, value: Value| {
        let mut context = modest();
        context[field] = value;
        one(&context)
    };
    let volumes =
        json!([{ "name": "n", "nfs": {} }, { "name": "h", "hostPath": {} }, { "name": "i", "image": {} }]);
    let mut mounting = one(&modest());
    mounting["spec"]["volumes"] = volumes;
    for (pod, expected) in [
        (
            with("runAsNonRoot", json!(false)),
            "runAsNonRoot != true (container \"c\" must not set securityContext.runAsNonRoot=false)",
        ),
        (with("runAsUser", json!(0)), "runAsUser=0 (container \"c\" must not set runAsUser=0)"),
        (
            with("capabilities", json!({ "drop": ["ALL"], "add": ["CHOWN", "NET_BIND_SERVICE"] })),
            "unrestricted capabilities (container \"c\" must not include \"CHOWN\" in \
             securityContext.capabilities.add)",
        ),
        (
            mounting,
            "restricted volume types (volumes \"n\", \"h\" use restricted volume types \"hostPath\", \"nfs\")",
        ),
    ] {
        let expected = format!("violate PodSecurity \"restricted:latest\": {expected}");
        assert_eq!(policy("restricted", "latest").check(&pod).unwrap_err(), expected);
    }
    let mut apart = with("runAsUser", json!(0));
    apart["spec"]["hostUsers"] = json!(false);
    assert_eq!(policy("restricted", "latest").check(&apart), Ok(()));
    assert!(policy("restricted", "v1.34").check(&apart).is_err(), "the rule is of 1.35");
}

#[test]
fn labels_that_say_nothing_are_the_strictest_where_they_are_enforced() {
    let namespace = |labels: Value| json!({ "metadata": { "labels": labels } });
    let odd = namespace(json!({
        "pod-security.kubernetes.io/enforce": "strict", "pod-security.kubernetes.io/enforce-version": "1.30",
        "pod-security.kubernetes.io/warn": "strict",
    }));
    assert_eq!(Policy::of(&odd, "enforce"), policy("restricted", "latest"));
    assert_eq!(Policy::of(&odd, "warn"), policy("privileged", "latest"));
    assert_eq!(Policy::of(&namespace(json!({})), "enforce"), policy("privileged", "latest"));
    let dated = namespace(json!({
        "pod-security.kubernetes.io/warn": "baseline", "pod-security.kubernetes.io/warn-version": "v1.30",
    }));
    assert_eq!(Policy::of(&dated, "warn").to_string(), "baseline:v1.30");
    for text in ["v1", "v1.", "v1.x", "v1.01", "v1.+1", "v2.0", "Latest"] {
        assert_eq!(parse_version(text), Err("must be \"latest\" or \"v1.x\""), "{text}");
    }
}

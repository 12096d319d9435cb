//! What `config/` promises, checked on what `kubectl kustomize` makes of it.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use ropewalk_api::config::Config;
use ropewalk_api::kinds;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::images;

const CLUSTER: &str = ".";
const OLD: &str = "overlays/kubernetes-1.20";
const SINGLE: &str = "overlays/single-namespace";
const ALL: [&str; 3] = [CLUSTER, OLD, SINGLE];

fn config() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config")
}

/// The objects a folder stands for; `None` when there is no kubectl to ask.
fn build(folder: &Path) -> Option<Vec<Value>> {
    let output = match Command::new("kubectl").arg("kustomize").arg(folder).output() {
        Ok(output) => output,
        Err(error) => {
            assert!(env::var_os("ROPEWALK_REQUIRE_TOOLS").is_none(), "kubectl: {error}");
            eprintln!("SKIPPED: no kubectl to build {}: {error}", folder.display());
            return None;
        }
    };
    assert!(output.status.success(), "{}: {}", folder.display(), String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    Some(serde_saphyr::from_multiple(&text).expect("YAML"))
}

fn built(folder: &str) -> Option<Vec<Value>> {
    build(&config().join(folder))
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().expect("a name")
}

fn named<'a>(objects: &'a [Value], kind: &str, wanted: &str) -> &'a Value {
    let found = of_kind(objects, kind).into_iter().find(|object| name(object) == wanted);
    found.unwrap_or_else(|| panic!("no {kind} \"{wanted}\""))
}

fn containers(deployment: &Value) -> &Vec<Value> {
    deployment["spec"]["template"]["spec"]["containers"].as_array().expect("containers")
}

/// The value of a variable of the controller.
fn variable<'a>(objects: &'a [Value], name: &str) -> Option<&'a str> {
    let controller = named(objects, "Deployment", "tekton-pipelines-controller");
    let variables = containers(controller)[0]["env"].as_array().expect("variables");
    variables.iter().find(|variable| variable["name"] == name)?["value"].as_str()
}

#[test]
fn what_other_tools_look_for_has_its_name() {
    for folder in ALL {
        let Some(objects) = built(folder) else { return };
        for (kind, wanted) in [
            ("Namespace", &["tekton-pipelines"][..]),
            ("Deployment", &["tekton-pipelines-controller", "tekton-pipelines-webhook"]),
            ("Service", &["tekton-pipelines-controller", "tekton-pipelines-webhook"]),
            ("ServiceAccount", &["tekton-pipelines-controller", "tekton-pipelines-webhook"]),
            ("PodDisruptionBudget", &["tekton-pipelines-controller", "tekton-pipelines-webhook"]),
            (
                "ConfigMap",
                &[
                    "config-defaults",
                    "config-events",
                    "config-leader-election-controller",
                    "config-observability",
                    "config-registry-cert",
                    "config-tracing",
                    "feature-flags",
                    "pipelines-info",
                ],
            ),
            ("ClusterRole", &["tekton-aggregate-edit", "tekton-aggregate-view"]),
            ("MutatingWebhookConfiguration", &["webhook.pipeline.tekton.dev"]),
            (
                "ValidatingWebhookConfiguration",
                &["validation.webhook.pipeline.tekton.dev", "config.webhook.pipeline.tekton.dev"],
            ),
        ] {
            for wanted in wanted {
                named(&objects, kind, wanted);
            }
        }
        assert_eq!(of_kind(&objects, "CustomResourceDefinition").len(), kinds::ALL.len());

        let controller = named(&objects, "Deployment", "tekton-pipelines-controller");
        assert_eq!(containers(controller)[0]["name"], "tekton-pipelines-controller");
        // tkn finds the version by these, or in pipelines-info.
        let labels = &controller["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/part-of"], "tekton-pipelines");
        assert_eq!(labels["app.kubernetes.io/component"], "controller");
        assert_eq!(labels["app.kubernetes.io/name"], "controller");
        let version = &named(&objects, "ConfigMap", "pipelines-info")["data"]["version"];
        assert_eq!(
            &controller["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/version"],
            version
        );
        assert_eq!(&labels["pipeline.tekton.dev/release"], version);
    }
}

#[test]
fn every_object_has_its_namespace_and_the_label_the_config_webhook_looks_for() {
    for folder in ALL {
        let Some(objects) = built(folder) else { return };
        for object in &objects {
            let kind = object["kind"].as_str().expect("a kind");
            if kind != "CustomResourceDefinition" {
                let labels = &object["metadata"]["labels"];
                assert_eq!(
                    labels["app.kubernetes.io/part-of"],
                    "tekton-pipelines",
                    "{kind} {}",
                    name(object)
                );
            }
            let namespace = object["metadata"]["namespace"].as_str();
            let expected = match kind {
                "CustomResourceDefinition"
                | "ClusterRole"
                | "ClusterRoleBinding"
                | "MutatingWebhookConfiguration"
                | "Namespace"
                | "ValidatingWebhookConfiguration" => None,
                "Role" | "RoleBinding" if name(object).ends_with("-tenant-access") => Some("ci"),
                _ => Some("tekton-pipelines"),
            };
            assert_eq!(namespace, expected, "{kind} {}", name(object));
        }
    }
}

/// What Kubernetes' own types make of an object: fields they do not know are gone.
fn read<K: DeserializeOwned + Serialize>(object: &Value) -> Value {
    let typed: K = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object}"));
    serde_json::to_value(typed).expect("JSON")
}

/// No cluster of a current version is at hand in tests; its types are.
#[test]
fn kubernetes_knows_every_field() {
    for folder in [CLUSTER, SINGLE] {
        let Some(objects) = built(folder) else { return };
        for object in &objects {
            let known = match object["kind"].as_str().expect("a kind") {
                "ClusterRole" => read::<ClusterRole>(object),
                "ClusterRoleBinding" => read::<ClusterRoleBinding>(object),
                "ConfigMap" => read::<ConfigMap>(object),
                // These are generated, and checked where they are.
                "CustomResourceDefinition" => continue,
                "Deployment" => read::<Deployment>(object),
                "MutatingWebhookConfiguration" => read::<MutatingWebhookConfiguration>(object),
                "Namespace" => read::<Namespace>(object),
                "PodDisruptionBudget" => read::<PodDisruptionBudget>(object),
                "Role" => read::<Role>(object),
                "RoleBinding" => read::<RoleBinding>(object),
                "Service" => read::<Service>(object),
                "ServiceAccount" => read::<ServiceAccount>(object),
                "ValidatingWebhookConfiguration" => read::<ValidatingWebhookConfiguration>(object),
                other => panic!("no type for {other}"),
            };
            assert_eq!(&known, object);
        }
    }
}

/// The pod security standard `restricted`, control by control.
#[test]
fn pods_meet_the_restricted_standard() {
    for folder in ALL {
        let Some(objects) = built(folder) else { return };
        for deployment in of_kind(&objects, "Deployment") {
            let pod = &deployment["spec"]["template"]["spec"];
            for forbidden in ["hostNetwork", "hostPID", "hostIPC", "volumes", "initContainers"] {
                assert!(pod.get(forbidden).is_none(), "{forbidden}");
            }
            assert_eq!(
                pod["securityContext"],
                json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}})
            );
            for container in containers(deployment) {
                assert_eq!(
                    container["securityContext"],
                    json!({
                        "allowPrivilegeEscalation": false,
                        "capabilities": {"drop": ["ALL"]},
                        "readOnlyRootFilesystem": true,
                    })
                );
                for port in container["ports"].as_array().expect("ports") {
                    assert!(port.get("hostPort").is_none());
                }
                assert!(container["resources"]["requests"]["memory"].is_string());
                assert!(container["livenessProbe"].is_object() && container["readinessProbe"].is_object());
            }
        }
        let labels = &named(&objects, "Namespace", "tekton-pipelines")["metadata"]["labels"];
        assert_eq!(labels["pod-security.kubernetes.io/enforce"], "restricted");
    }
}

#[test]
fn services_and_budgets_choose_the_pods_and_name_their_ports() {
    for folder in ALL {
        let Some(objects) = built(folder) else { return };
        for deployment in of_kind(&objects, "Deployment") {
            let pods = deployment["spec"]["template"]["metadata"]["labels"].as_object().expect("labels");
            let chosen = |selector: &Value| {
                let selector = selector.as_object().expect("labels");
                !selector.is_empty() && selector.iter().all(|(key, value)| pods.get(key) == Some(value))
            };
            assert!(chosen(&deployment["spec"]["selector"]["matchLabels"]));
            let budget = named(&objects, "PodDisruptionBudget", name(deployment));
            assert!(chosen(&budget["spec"]["selector"]["matchLabels"]));
            let service = named(&objects, "Service", name(deployment));
            assert!(chosen(&service["spec"]["selector"]));
            let ports = containers(deployment)[0]["ports"].as_array().expect("ports");
            for port in service["spec"]["ports"].as_array().expect("ports") {
                assert!(ports.iter().any(|there| there["name"] == port["targetPort"]), "{port}");
            }
            let account = &deployment["spec"]["template"]["spec"]["serviceAccountName"];
            named(&objects, "ServiceAccount", account.as_str().expect("an account"));
        }
    }
}

#[test]
fn images_are_those_that_the_images_task_writes() {
    for folder in ALL {
        let Some(objects) = built(folder) else { return };
        for (deployment, image) in
            [("tekton-pipelines-controller", "controller"), ("tekton-pipelines-webhook", "webhook")]
        {
            let containers = containers(named(&objects, "Deployment", deployment));
            let used: Vec<_> = containers.iter().map(|container| &container["image"]).collect();
            assert_eq!(used, [&json!(images::reference(image))]);
        }
        assert_eq!(variable(&objects, "ENTRYPOINT_IMAGE"), Some(&*images::reference("entrypoint")));
        let version = concat!("v", env!("CARGO_PKG_VERSION"));
        assert_eq!(named(&objects, "ConfigMap", "pipelines-info")["data"]["ropewalk"], version);
    }
}

#[test]
fn one_entry_changes_an_image_wherever_it_stands() {
    let copy = tempfile::tempdir().expect("a directory");
    let status = Command::new("cp").arg("-r").arg(config()).arg(copy.path()).status().expect("cp");
    assert!(status.success());
    let path = copy.path().join("config/base/kustomization.yaml");
    let text = fs::read_to_string(&path).expect("a kustomization");
    let entry = |name: &str| format!("- name: ropewalk.dev/{name}\n");
    let changed = ["controller", "entrypoint", "webhook"].iter().fold(text, |text, name| {
        let place = format!("{}  newName: example.com/{name}\n  newTag: v9\n", entry(name));
        assert_eq!(text.matches(&entry(name)).count(), 1);
        text.replace(&entry(name), &place)
    });
    fs::write(&path, changed).expect("written");

    let Some(objects) = build(&copy.path().join("config")) else { return };
    assert_eq!(variable(&objects, "ENTRYPOINT_IMAGE"), Some("example.com/entrypoint:v9"));
    let rest = serde_json::to_string(&objects).expect("JSON");
    assert!(!rest.contains(&format!("{}/", images::PREFIX)), "an image of ours is left");
    assert_eq!(rest.matches("example.com/").count(), 3);
}

#[test]
fn config_maps_say_what_holds_without_them() {
    let Some(objects) = built(CLUSTER) else { return };
    let data = |name: &str| -> BTreeMap<String, String> {
        serde_json::from_value(named(&objects, "ConfigMap", name)["data"].clone()).expect("text values")
    };
    let config = Config::from_config_maps(
        &data("config-defaults"),
        &data("feature-flags"),
        &data("config-observability"),
    );
    assert_eq!(config, Ok(Config::default()));
}

#[test]
fn admission_is_asked_about_every_kind_but_never_about_a_status() {
    for folder in ALL {
        let Some(objects) = built(folder) else { return };
        for (kind, name, path) in [
            ("MutatingWebhookConfiguration", "webhook.pipeline.tekton.dev", "/defaulting"),
            (
                "ValidatingWebhookConfiguration",
                "validation.webhook.pipeline.tekton.dev",
                "/resource-validation",
            ),
        ] {
            let webhook = &named(&objects, kind, name)["webhooks"][0];
            assert_eq!(webhook["name"], name);
            assert_eq!(webhook["clientConfig"]["service"]["path"], path);
            assert_eq!(webhook["failurePolicy"], "Fail");
            let rules = webhook["rules"].as_array().expect("rules");
            let mut asked: Vec<(String, String, String)> = Vec::new();
            for rule in rules {
                assert_eq!(rule["operations"], json!(["CREATE", "UPDATE"]));
                let list = |key: &str| -> Vec<String> {
                    serde_json::from_value(rule[key].clone()).expect("a list of names")
                };
                let groups = list("apiGroups");
                let [group] = groups.as_slice() else { panic!("{groups:?}") };
                for version in list("apiVersions") {
                    let resources = list("resources").into_iter();
                    asked.extend(resources.map(|plural| (group.clone(), plural, version.clone())));
                }
            }
            let mut served: Vec<_> = kinds::ALL
                .iter()
                .flat_map(|kind| {
                    let versions = kind.versions();
                    versions.map(|name| (kind.group.to_owned(), kind.plural.to_owned(), name.to_owned()))
                })
                .collect();
            asked.sort();
            served.sort();
            assert_eq!(asked, served);

            let spared = webhook["matchConditions"][0]["expression"].as_str();
            let account = "'system:serviceaccount:tekton-pipelines:tekton-pipelines-controller'";
            assert_eq!(spared.is_some_and(|expression| expression.contains(account)), folder != OLD);
        }
        let maps = named(&objects, "ValidatingWebhookConfiguration", "config.webhook.pipeline.tekton.dev");
        assert_eq!(maps["webhooks"][0]["clientConfig"]["service"]["path"], "/config-validation");
    }
}

#[test]
fn what_an_old_server_lacks_is_not_in_its_overlay() {
    let Some(objects) = built(OLD) else { return };
    for budget in of_kind(&objects, "PodDisruptionBudget") {
        assert_eq!(budget["apiVersion"], "policy/v1beta1");
    }
    let text = serde_json::to_string(&objects).expect("JSON");
    assert!(!text.contains("matchConditions"));
}

#[test]
fn in_one_namespace_no_process_has_a_cluster_role() {
    let Some(objects) = built(SINGLE) else { return };
    assert_eq!(of_kind(&objects, "ClusterRoleBinding"), Vec::<&Value>::new());
    let people = of_kind(&objects, "ClusterRole");
    assert!(people.iter().all(|role| name(role).starts_with("tekton-aggregate-")), "{people:?}");
    assert!(of_kind(&objects, "ConfigMap").iter().all(|map| name(map) != "served"));
}

#[test]
fn the_one_namespace_is_named_in_one_place() {
    let copy = tempfile::tempdir().expect("a directory");
    let status = Command::new("cp").arg("-r").arg(config()).arg(copy.path()).status().expect("cp");
    assert!(status.success());
    let overlay = copy.path().join("config").join(SINGLE);
    let path = overlay.join("served.yaml");
    let text = fs::read_to_string(&path).expect("a ConfigMap");
    fs::write(&path, text.replace("namespace: ci\n", "namespace: builds\n")).expect("written");

    let Some(objects) = build(&overlay) else { return };
    assert_eq!(variable(&objects, "SERVED_NAMESPACE"), Some("builds"));
    let kept: Vec<&Value> = objects.iter().filter(|object| object["metadata"]["namespace"] == "ci").collect();
    assert_eq!(kept, Vec::<&Value>::new());
    for (kind, name) in [
        ("MutatingWebhookConfiguration", "webhook.pipeline.tekton.dev"),
        ("ValidatingWebhookConfiguration", "validation.webhook.pipeline.tekton.dev"),
    ] {
        let selector = &named(&objects, kind, name)["webhooks"][0]["namespaceSelector"];
        assert_eq!(selector["matchExpressions"][0]["values"], json!(["builds"]));
    }
}

/// Where the webhook may not do it itself.
#[test]
fn whoever_installs_for_one_namespace_lets_every_caller_trust_the_webhook() {
    let Some(objects) = built(SINGLE) else { return };
    let script = fs::read_to_string(config().join(SINGLE).join("trust")).expect("a script");
    let mut named: Vec<&str> = script
        .split_whitespace()
        .map(|word| word.trim_end_matches(';'))
        .filter_map(|word| match word.split_once('/') {
            Some(("mutatingwebhookconfiguration" | "validatingwebhookconfiguration", name)) => Some(name),
            _ => word.ends_with(".tekton.dev").then_some(word),
        })
        .collect();
    let mut callers: Vec<&str> = objects
        .iter()
        .filter(|object| match object["kind"].as_str().expect("a kind") {
            "CustomResourceDefinition" => object["spec"]["conversion"]["strategy"] == "Webhook",
            kind => kind.ends_with("WebhookConfiguration"),
        })
        .map(name)
        .collect();
    named.sort_unstable();
    callers.sort_unstable();
    assert_eq!(named, callers);
}

#[test]
fn every_binding_gives_a_role_that_is_there_to_an_account_that_is_there() {
    for folder in ALL {
        let Some(objects) = built(folder) else { return };
        for kind in ["RoleBinding", "ClusterRoleBinding"] {
            for binding in of_kind(&objects, kind) {
                let role = &binding["roleRef"];
                let wanted = (role["kind"].as_str().expect("a kind"), role["name"].as_str().expect("a name"));
                let role = named(&objects, wanted.0, wanted.1);
                assert_eq!(role["metadata"]["namespace"], binding["metadata"]["namespace"]);
                for subject in binding["subjects"].as_array().expect("subjects") {
                    if subject["kind"] == "ServiceAccount" {
                        named(&objects, "ServiceAccount", subject["name"].as_str().expect("a name"));
                    }
                }
            }
        }
        for kind in ["Role", "ClusterRole"] {
            for role in of_kind(&objects, kind) {
                assert!(!role["rules"].to_string().contains('*'), "{} has a wildcard", name(role));
            }
        }
    }
}

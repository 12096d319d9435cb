//! kubectl over HTTP: what a newcomer types first must work.

use std::{path::Path, process::Stdio, sync::Arc};

use jiff::Timestamp;
use ropewalk_apiserver::{NoAdmission, ResourceTable, State};
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, process::Command};

use super::{NoLogs, Server, http_listener::Listening};

mod session;

fn server() -> Server {
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "widgets.example.dev" },
        "spec": {
            "group": "example.dev", "scope": "Namespaced",
            "names": { "kind": "Widget", "plural": "widgets", "shortNames": ["wd"] },
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": { "status": {} },
                "schema": { "openAPIV3Schema": { "type": "object", "properties": {
                    "spec": { "type": "object", "properties": { "image": { "type": "string" } } },
                    "status": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
                } } },
                "additionalPrinterColumns": [{ "name": "Image", "type": "string", "jsonPath": ".spec.image" }],
            }],
        },
    });
    let table = ResourceTable::built_in().with_crd(&definition).unwrap();
    Server::new(State::new(table, 1, Timestamp::UNIX_EPOCH), Arc::new(NoAdmission), Arc::new(NoLogs))
}

/// Whether kubectl is there, on a line nobody overlooks if not.
async fn has_kubectl() -> bool {
    let found = Command::new("kubectl").args(["version", "--client"]).stdout(Stdio::null()).status().await;
    let found = found.is_ok_and(|status| status.success());
    if !found {
        let required = std::env::var_os("ROPEWALK_REQUIRE_TOOLS").is_some();
        assert!(!required, "kubectl is required, and not on this machine");
        eprintln!("SKIPPED: no kubectl on this machine, so the API server was not tried with it");
    }
    found
}

struct Kubectl<'a> {
    server: String,
    home: &'a Path,
}

impl Kubectl<'_> {
    /// Runs one command line; the answer is whether it worked, and all it printed.
    async fn run(&self, line: &str, stdin: &str) -> (bool, String) {
        let mut child = Command::new("kubectl")
            .args([&format!("--server={}", self.server), "--kubeconfig=/dev/null", "--request-timeout=30s"])
            .arg(format!("--cache-dir={}", self.home.display()))
            .args(line.split_whitespace())
            .env("HOME", self.home)
            .env("KUBE_EDITOR", "sed -i s/patched/edited/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).await.unwrap();
        let output = child.wait_with_output().await.unwrap();
        let printed = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (output.status.success(), printed)
    }

    async fn expect(&self, line: &str, stdin: &str, part: &str) {
        let (worked, printed) = self.run(line, stdin).await;
        assert!(worked && printed.contains(part), "kubectl {line}: {printed}");
    }
}

const WIDGET: &str = "apiVersion: example.dev/v1\nkind: Widget\nmetadata: {name: w}\nspec: {image: one}\n";
const POD: &str =
    "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: one}]}\n";

#[tokio::test]
async fn the_first_commands_work() {
    if !has_kubectl().await {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let listening = Listening::start(server()).await;
    let kubectl = Kubectl { server: format!("http://{}", listening.address), home: home.path() };
    kubectl.expect("api-resources", "", "widgets").await;
    kubectl.expect("apply -f -", WIDGET, "widget.example.dev/w created").await;
    kubectl.expect("apply -f -", WIDGET, "widget.example.dev/w unchanged").await;
    kubectl.expect("apply -f -", &WIDGET.replace("one", "two"), "widget.example.dev/w configured").await;
    kubectl.expect("get wd", "", "w      two").await;
    kubectl.expect("get widgets -A -o name", "", "widget.example.dev/w").await;
    kubectl.expect("label widget w tier=one", "", "labeled").await;
    kubectl.expect("get wd -l tier=one -o jsonpath={.items[0].metadata.name}", "", "w").await;
    let patch = r#"--patch={"status":{"conditions":[{"type":"Ready","status":"True"}]}}"#;
    kubectl.expect(&format!("patch wd w --subresource=status --type=merge {patch}"), "", "patched").await;
    kubectl.expect("wait wd/w --for=condition=Ready --timeout=30s", "", "condition met").await;
    kubectl.expect("apply -f -", POD, "pod/p created").await;
    kubectl.expect("apply -f -", &POD.replace("one", "two"), "pod/p configured").await;
    kubectl.expect("get pod p", "", "Pending").await;
    kubectl.expect("create service clusterip s --tcp=80", "", "service/s created").await;
    kubectl.expect("get all", "", "service/s").await;
    kubectl.expect("explain widget.spec", "", "image").await;
    kubectl.expect("get crd", "", "widgets.example.dev").await;
    kubectl.expect("delete pod/p wd/w", "", "widget.example.dev \"w\" deleted").await;
    listening.stop().await;
}

#[tokio::test]
async fn a_node_is_drained_by_evictions() {
    if !has_kubectl().await {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let listening = Listening::start(server()).await;
    let kubectl = Kubectl { server: format!("http://{}", listening.address), home: home.path() };
    let pod = POD.replace("containers", "nodeName: one, containers");
    kubectl
        .expect("create -f -", "apiVersion: v1\nkind: Node\nmetadata: {name: one}\n", "node/one created")
        .await;
    kubectl.expect("create -f -", &pod, "pod/p created").await;
    let drain = "drain one --force --dry-run=server";
    kubectl.expect(drain, "", "evicting pod default/p (server dry run)").await;
    kubectl.expect("get pod p -o jsonpath={.metadata.deletionTimestamp}.", "", ".").await;
    listening.stop().await;
}

#[tokio::test]
async fn mistakes_are_told_by_their_name() {
    if !has_kubectl().await {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let listening = Listening::start(server()).await;
    let kubectl = Kubectl { server: format!("http://{}", listening.address), home: home.path() };
    for (line, stdin, part) in [
        ("get widget nope", String::new(), "widgets.example.dev \"nope\" not found"),
        ("apply -f -", WIDGET.replace("image", "imagee"), "unknown field \"spec.imagee\""),
        ("apply -f -", WIDGET.replace("name: w", "name: W_"), "metadata.name: Invalid value: \"W_\""),
        ("apply -f -", WIDGET.replace("image: one", "image: 5"), "must be of type string: \"integer\""),
        ("apply -n nowhere -f -", WIDGET.to_owned(), "namespaces \"nowhere\" not found"),
    ] {
        let (worked, printed) = kubectl.run(line, &stdin).await;
        assert!(!worked && printed.contains(part), "kubectl {line}: {printed}");
    }
    listening.stop().await;
}

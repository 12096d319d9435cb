//! A mutating webhook that exists in tests only, and fits pods of test namespaces to the node there is: they pull only
//! images that are not there, as there may be no registry to ask, and need only labels that nodes can be given. Served by
//! this process on loopback, where the API server of `hack/cluster` reaches it.

use std::sync::Arc;

use anyhow::{Context, Result};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::nodes::Labels;

/// On the configurations, and on the namespaces they are for: the process that serves them.
pub(super) const LABEL: &str = "test.ropewalk.dev/process";

/// The webhook, until it is [stopped](Self::stop).
pub(super) struct Fitting {
    name: String,
    serving: JoinHandle<()>,
}

impl Fitting {
    /// Serves, and tells the API server. What dead processes have left there is removed.
    pub(super) async fn start(client: &Client, labels: &Labels) -> Result<Self> {
        let process = std::process::id();
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
        let config =
            ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert.der().clone()], key)?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on loopback")?;
        let url = format!("https://{}/", listener.local_addr()?);
        let serving = tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), labels.clone()));

        let api = Api::<MutatingWebhookConfiguration>::all(client.clone());
        for stale in api.list(&ListParams::default().labels(LABEL)).await?.items {
            let labels = stale.metadata.labels.unwrap_or_default();
            let owner = labels.get(LABEL).map_or("", String::as_str);
            if !std::path::Path::new("/proc").join(owner).exists() {
                api.delete(&stale.metadata.name.unwrap_or_default(), &DeleteParams::default()).await?;
            }
        }
        let name = format!("fitting-{process}.test.ropewalk.dev");
        let configuration = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { LABEL: process.to_string() } },
            "webhooks": [{
                "name": name,
                "clientConfig": { "url": url, "caBundle": STANDARD.encode(cert.pem()) },
                "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"] }],
                "namespaceSelector": { "matchLabels": { LABEL: process.to_string() } },
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "timeoutSeconds": 5,
            }],
        }))?;
        api.create(&PostParams::default(), &configuration)
            .await
            .context("cannot register the webhook that fits pods")?;
        Ok(Self { name, serving })
    }

    /// Takes it back.
    pub(super) async fn stop(self, client: &Client) -> Result<()> {
        let api = Api::<MutatingWebhookConfiguration>::all(client.clone());
        api.delete(&self.name, &DeleteParams::default()).await?;
        self.serving.abort();
        Ok(())
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, labels: Labels) {
    let answer = async move |Json(review): Json<Value>| Json(answer(&review, &labels));
    let router = Router::new().route("/", post(answer));
    loop {
        let Ok((connection, _)) = listener.accept().await else { continue };
        let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(router.clone()));
        tokio::spawn(async move {
            // A client that goes away in between is its own affair; the API server reports what it misses.
            if let Ok(connection) = acceptor.accept(connection).await {
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(connection), service)
                    .await;
            }
        });
    }
}

/// The review's answer: allowed, as it fits.
fn answer(review: &Value, labels: &Labels) -> Value {
    let spec = &review["request"]["object"]["spec"];
    let mut patch = Vec::new();
    for list in ["initContainers", "containers"] {
        for index in 0..spec[list].as_array().map_or(0, Vec::len) {
            let path = format!("/spec/{list}/{index}/imagePullPolicy");
            patch.push(json!({ "op": "add", "path": path, "value": "IfNotPresent" }));
        }
    }
    for label in spec["nodeSelector"].as_object().into_iter().flat_map(|labels| labels.keys()) {
        if !labels.has(label) {
            let path = format!("/spec/nodeSelector/{}", label.replace('~', "~0").replace('/', "~1"));
            patch.push(json!({ "op": "remove", "path": path }));
        }
    }
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {
            "uid": review["request"]["uid"],
            "allowed": true,
            "patchType": "JSONPatch",
            "patch": STANDARD.encode(Value::from(patch).to_string()),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_fit_the_node() {
        let review = json!({ "request": { "uid": "u", "object": { "spec": {
            "initContainers": [{ "name": "a" }],
            "containers": [{ "name": "b", "imagePullPolicy": "Always" }, { "name": "c" }],
            "nodeSelector": { "kubernetes.io/os": "windows", "example.com/disk": "ssd", "pool": "two" },
        } } } });
        let labels = Labels::of("example.com/disk", "ssd");
        let response = &answer(&review, &labels)["response"];
        assert_eq!((&response["uid"], &response["allowed"]), (&json!("u"), &json!(true)));
        let patch = STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
        let mut pod = review["request"]["object"].clone();
        json_patch::patch(&mut pod, &serde_json::from_slice::<json_patch::Patch>(&patch).unwrap()).unwrap();
        assert_eq!(
            pod["spec"],
            json!({
                "initContainers": [{ "name": "a", "imagePullPolicy": "IfNotPresent" }],
                "containers": [
                    { "name": "b", "imagePullPolicy": "IfNotPresent" },
                    { "name": "c", "imagePullPolicy": "IfNotPresent" },
                ],
                "nodeSelector": { "kubernetes.io/os": "windows", "example.com/disk": "ssd" },
            })
        );
    }
}

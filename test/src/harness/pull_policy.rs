//! A mutating webhook that exists in tests only: nodes have the images that tests name, and there may be no registry to
//! ask, so pods of test namespaces pull only what is not there. Served by this process on loopback, where the API server
//! of `hack/cluster` reaches it.

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

/// On the configurations, and on the namespaces they are for: the process that serves them.
pub(super) const LABEL: &str = "test.ropewalk.dev/process";

/// The webhook, until it is [stopped](Self::stop).
pub(super) struct PullPolicy {
    name: String,
    serving: JoinHandle<()>,
}

impl PullPolicy {
    /// Serves, and tells the API server. What dead processes have left there is removed.
    pub(super) async fn start(client: &Client) -> Result<Self> {
        let process = std::process::id();
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
        let config =
            ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert.der().clone()], key)?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on loopback")?;
        let url = format!("https://{}/", listener.local_addr()?);
        let serving = tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config))));

        let api = Api::<MutatingWebhookConfiguration>::all(client.clone());
        for stale in api.list(&ListParams::default().labels(LABEL)).await?.items {
            let labels = stale.metadata.labels.unwrap_or_default();
            let owner = labels.get(LABEL).map_or("", String::as_str);
            if !std::path::Path::new("/proc").join(owner).exists() {
                api.delete(&stale.metadata.name.unwrap_or_default(), &DeleteParams::default()).await?;
            }
        }
        let name = format!("pull-policy-{process}.test.ropewalk.dev");
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
            .context("cannot register the webhook for pull policies")?;
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

async fn serve(listener: TcpListener, acceptor: TlsAcceptor) {
    let router = Router::new().route("/", post(async |Json(review): Json<Value>| Json(answer(&review))));
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

/// The review's answer: allowed, with every container's pull policy set.
fn answer(review: &Value) -> Value {
    let spec = &review["request"]["object"]["spec"];
    let mut patch = Vec::new();
    for list in ["initContainers", "containers"] {
        for index in 0..spec[list].as_array().map_or(0, Vec::len) {
            let path = format!("/spec/{list}/{index}/imagePullPolicy");
            patch.push(json!({ "op": "add", "path": path, "value": "IfNotPresent" }));
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
    fn every_container_pulls_only_what_is_missing() {
        let review = json!({ "request": { "uid": "u", "object": { "spec": {
            "initContainers": [{ "name": "a" }],
            "containers": [{ "name": "b", "imagePullPolicy": "Always" }, { "name": "c" }],
        } } } });
        let response = &answer(&review)["response"];
        assert_eq!(response["uid"], "u");
        let patch = STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
        let patch: Vec<Value> = serde_json::from_slice(&patch).unwrap();
        let paths: Vec<_> = patch.iter().map(|operation| operation["path"].as_str().unwrap()).collect();
        assert_eq!(
            paths,
            [
                "/spec/initContainers/0/imagePullPolicy",
                "/spec/containers/0/imagePullPolicy",
                "/spec/containers/1/imagePullPolicy"
            ]
        );
        assert!(patch.iter().all(|operation| operation["value"] == "IfNotPresent"));
    }
}

//! Against the API server of the one-process engine, whose writes conflict and whose watches tell as a cluster's do.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use axum::http::StatusCode;
use http_body_util::BodyExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::DeleteParams;
use kube::runtime::wait::await_condition;
use ropewalk_apiserver::{NoAdmission, Resource as Kind, ResourceTable, State as Kernel};
use ropewalk_standalone::server::{NoLogs, Server};
use ropewalk_webhook::{CONFIG_WEBHOOK, DEFAULTING_WEBHOOK, Metrics, Settings, VALIDATING_WEBHOOK, router};
use rustls::version::TLS13;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;
use crate::certificates::stored::{CA_CERT, Data, SERVER_CERT};
use crate::serve::tests::{connect, request};
use crate::serve::{serve, tls};

/// What no test should ever take, on a machine however busy.
const PATIENCE: Duration = Duration::from_mins(1);

fn service() -> Service {
    Service { name: "tekton-pipelines-webhook".to_owned(), namespace: "tekton-pipelines".to_owned() }
}

/// A cluster on which everything is installed but the certificates.
struct Cluster {
    client: Client,
    secrets: Api<Secret>,
    mutating: Api<MutatingWebhookConfiguration>,
    validating: Api<ValidatingWebhookConfiguration>,
}

impl Cluster {
    async fn new() -> Self {
        let mut table = ResourceTable::built_in();
        for (kind, plural) in [
            ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations"),
            ("ValidatingWebhookConfiguration", "validatingwebhookconfigurations"),
        ] {
            let mut kind = Kind::new("admissionregistration.k8s.io", "v1", kind, plural);
            kind.namespaced = false;
            table.add(kind).unwrap();
        }
        let kernel = Kernel::new(table, 1, Timestamp::UNIX_EPOCH);
        let client = Server::new(kernel, Arc::new(NoAdmission), Arc::new(NoLogs)).client();
        let cluster = Self {
            secrets: Api::namespaced(client.clone(), &service().namespace),
            mutating: Api::all(client.clone()),
            validating: Api::all(client.clone()),
            client,
        };
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(service().namespace);
        Api::all(cluster.client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        let installed = [DEFAULTING_WEBHOOK, VALIDATING_WEBHOOK, CONFIG_WEBHOOK];
        let [defaulting, validation, config] = installed.map(configuration);
        let params = PostParams::default();
        cluster.mutating.create(&params, &serde_json::from_value(defaulting).unwrap()).await.unwrap();
        cluster.validating.create(&params, &serde_json::from_value(validation).unwrap()).await.unwrap();
        cluster.validating.create(&params, &serde_json::from_value(config).unwrap()).await.unwrap();
        cluster
    }

    fn start(&self) -> Presented {
        start(&self.client, service(), &Registry::new()).unwrap()
    }

    async fn data(&self) -> Data {
        self.secrets.get(SECRET).await.unwrap().data.unwrap()
    }

    /// All texts that tell API servers whom to trust.
    async fn bundles(&self) -> BTreeSet<Vec<u8>> {
        let mutating = self.mutating.get(DEFAULTING_WEBHOOK).await.unwrap();
        let mut bundles = bundles_of(&mutating);
        for name in [VALIDATING_WEBHOOK, CONFIG_WEBHOOK] {
            bundles.extend(bundles_of(&self.validating.get(name).await.unwrap()));
        }
        bundles
    }

    /// Waits until the Secret is so.
    async fn secret(&self, condition: impl Fn(&Data) -> bool + Send) {
        let condition =
            |secret: Option<&Secret>| secret.and_then(|secret| secret.data.as_ref()).is_some_and(&condition);
        timeout(PATIENCE, await_condition(self.secrets.clone(), SECRET, condition)).await.unwrap().unwrap();
    }
}

fn bundles_of<K: Configures>(configuration: &K) -> BTreeSet<Vec<u8>> {
    let called = configuration.called();
    called.iter().map(|called| called.ca_bundle.cloned().map_or(Vec::new(), |bundle| bundle.0)).collect()
}

/// As `config/` has it: nobody is trusted yet.
fn configuration(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "webhooks": [{
            "name": name,
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "clientConfig": {"service": {"name": service().name, "namespace": service().namespace}},
        }],
    })
}

async fn is_ready(presented: &Presented) {
    let mut states = presented.0.clone();
    timeout(PATIENCE, states.wait_for(|state| state.waiting.is_none())).await.unwrap().unwrap();
}

/// Waits until this leaf, in PEM, is presented.
async fn presents(presented: &Presented, leaf: &ByteString) {
    let expected = stored_leaf(leaf);
    let mut states = presented.0.clone();
    let is_presented = |state: &State| {
        state.certified.as_ref().is_some_and(|certified| certified.cert[0].as_ref() == expected)
    };
    timeout(PATIENCE, states.wait_for(is_presented)).await.unwrap().unwrap();
}

fn stored_leaf(leaf: &ByteString) -> Vec<u8> {
    crate::certificates::stored::certificates(&leaf.0)[0].der.to_vec()
}

#[tokio::test]
async fn two_replicas_agree_on_one_authority() {
    let cluster = Cluster::new().await;
    let replicas = [cluster.start(), cluster.start()];
    for replica in &replicas {
        is_ready(replica).await;
    }
    let data = cluster.data().await;
    assert_eq!(cluster.bundles().await, BTreeSet::from([data[CA_CERT].0.clone()]));
    for replica in &replicas {
        presents(replica, &data[SERVER_CERT]).await;
    }
    assert_eq!(crate::certificates::stored::certificates(&data[CA_CERT].0).len(), 1, "one made it");
}

#[tokio::test]
async fn a_configuration_applied_again_is_told_at_once() {
    let cluster = Cluster::new().await;
    is_ready(&cluster.start()).await;
    let bundle = cluster.data().await[CA_CERT].clone();
    let empty = Patch::Merge(configuration(CONFIG_WEBHOOK));
    cluster.validating.patch(CONFIG_WEBHOOK, &PatchParams::default(), &empty).await.unwrap();
    let told = |found: Option<&ValidatingWebhookConfiguration>| {
        found.is_some_and(|found| bundles_of(found) == BTreeSet::from([bundle.0.clone()]))
    };
    let told = await_condition(cluster.validating.clone(), CONFIG_WEBHOOK, told);
    timeout(PATIENCE, told).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_secret_spoilt_by_hand_heals() {
    let cluster = Cluster::new().await;
    let presented = cluster.start();
    is_ready(&presented).await;
    let good = cluster.data().await;
    let garbage = json!({"data": {SERVER_CERT: ByteString(b"garbage".to_vec())}});
    cluster.secrets.patch(SECRET, &PatchParams::default(), &Patch::Merge(garbage)).await.unwrap();
    cluster
        .secret(|data| {
            data[SERVER_CERT].0.starts_with(b"-----BEGIN") && data[SERVER_CERT] != good[SERVER_CERT]
        })
        .await;
    let healed = cluster.data().await;
    assert_eq!(healed[CA_CERT], good[CA_CERT], "the authority was good");
    presents(&presented, &healed[SERVER_CERT]).await;
}

#[tokio::test]
async fn a_rotation_refuses_no_request() {
    let cluster = Cluster::new().await;
    let replicas = [cluster.start(), cluster.start()];
    let (_draining, drains) = watch::channel(false);
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for replica in &replicas {
        is_ready(replica).await;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        addresses.push(listener.local_addr().unwrap());
        let tls = tls(Arc::new(replica.clone())).unwrap();
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let router = router(Arc::new(Arc::default), Settings::default(), metrics);
        tokio::spawn(serve(listener, tls, router, drains.clone(), std::future::pending()));
    }
    let before = cluster.data().await;
    cluster.secrets.delete(SECRET, &DeleteParams::default()).await.unwrap();
    cluster.secret(|data| data[SERVER_CERT] != before[SERVER_CERT]).await;
    let after = cluster.data().await;
    let trusted = crate::certificates::stored::certificates(&after[CA_CERT].0);
    assert_eq!(trusted.len(), 2, "the former authority stays trusted for a while");

    let (old, new) = (stored_leaf(&before[SERVER_CERT]), stored_leaf(&after[SERVER_CERT]));
    let presented = |replica: &Presented| replica.0.borrow().certified.as_ref().unwrap().cert[0].to_vec();
    let mut seen = BTreeSet::new();
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u", "operation": "CREATE", "userInfo": {},
        "kind": {"group": "tekton.dev", "version": "v1", "kind": "Task"},
        "resource": {"group": "tekton.dev", "version": "v1", "resource": "tasks"},
        "object": {"apiVersion": "tekton.dev/v1", "kind": "Task", "metadata": {"name": "t"},
            "spec": {"steps": [{"name": "s", "image": "i"}]}},
    }});
    let flow = async {
        while replicas.iter().any(|replica| presented(replica) != new) {
            for (replica, address) in replicas.iter().zip(&addresses) {
                seen.insert(presented(replica));
                // As an API server does: it trusts what the configuration says now.
                let bundles = cluster.bundles().await;
                let bundle = bundles.iter().next().unwrap();
                let mut sender = connect(*address, bundle, &TLS13).await.unwrap();
                let response = sender.send_request(request("/defaulting", &review)).await.unwrap();
                assert_eq!(response.status(), StatusCode::OK);
                let body = response.into_body().collect().await.unwrap().to_bytes();
                let answer: Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(answer["response"]["allowed"], true);
            }
        }
    };
    timeout(PATIENCE, flow).await.unwrap();
    assert!(seen.contains(&old), "the old leaf was presented until API servers knew the new authority");
}

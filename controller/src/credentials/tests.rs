//! Against the API server in this process, with an ear on the wire.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret as Object;
use kube::api::PostParams;
use kube::client::Body;
use ropewalk_apiserver::{NoAdmission, ResourceTable, State};
use ropewalk_core::credentials::Credentials;
use ropewalk_standalone::server::{NoLogs, Server};
use serde_json::json;

use super::*;

const PASSWORD: &str = "never-to-be-seen";

/// An API server, and everything it answered.
struct World {
    client: Client,
    heard: Arc<Mutex<Vec<String>>>,
}

impl World {
    /// Asks of `forbidden` in its path are refused as a kube-apiserver does.
    fn start(forbidden: &'static str) -> Self {
        let state = State::new(ResourceTable::built_in(), 1, Timestamp::now());
        let server = Server::new(state, Arc::new(NoAdmission), Arc::new(NoLogs)).client();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ear = Arc::clone(&heard);
        let service = tower::service_fn(move |request: Request<Body>| {
            let (server, ear) = (server.clone(), Arc::clone(&ear));
            async move {
                if !forbidden.is_empty() && request.uri().path().ends_with(forbidden) {
                    return Ok::<_, kube::Error>(refusal(forbidden));
                }
                let (head, body) = server.send(request).await?.into_parts();
                let body =
                    body.collect().await.map_err(|error| kube::Error::Service(error.into()))?.to_bytes();
                ear.lock().expect("unpoisoned").push(String::from_utf8_lossy(&body).into_owned());
                Ok(Response::from_parts(head, Body::from(body)))
            }
        });
        Self { client: Client::new(service, "default"), heard }
    }

    async fn account(&self, secrets: &[&str]) {
        let names: Vec<_> = secrets.iter().map(|name| json!({ "name": name })).collect();
        let account = json!({ "metadata": { "name": "builder" }, "secrets": names });
        let account: ServiceAccount = serde_json::from_value(account).expect("a service account");
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), "default");
        api.create(&PostParams::default(), &account).await.expect("it is taken");
    }

    async fn secret(&self, name: &str, type_: &str, keys: &[&str]) {
        let data: BTreeMap<_, _> = keys.iter().map(|key| (*key, STANDARD.encode(PASSWORD))).collect();
        let secret = json!({
            "metadata": { "name": name, "annotations": { "tekton.dev/git-0": "https://git.example" } },
            "type": type_, "data": data,
        });
        let secret: Object = serde_json::from_value(secret).expect("a secret");
        let api: Api<Object> = Api::namespaced(self.client.clone(), "default");
        api.create(&PostParams::default(), &secret).await.expect("it is taken");
        // What it answered to that is not what the controller heard.
        self.heard.lock().expect("unpoisoned").clear();
    }

    async fn look_up(&self, features: &FeatureFlags) -> Answer<Account> {
        let found = look_up(&self.client, "default", Some("builder".to_owned()), features).await;
        found.expect("the server answers").expect("it was asked")
    }

    async fn credentials(&self, features: &FeatureFlags) -> Result<Credentials, String> {
        Credentials::of_answer("builder", &self.look_up(features).await).map_err(|error| error.to_string())
    }

    fn heard(&self, text: &str) -> bool {
        self.heard.lock().expect("unpoisoned").iter().any(|body| body.contains(text))
    }
}

fn refusal(path: &str) -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403,
        "message": format!("{path} is forbidden"),
    });
    let mut response = Response::new(Body::from(status.to_string().into_bytes()));
    *response.status_mut() = StatusCode::FORBIDDEN;
    response
}

fn strict() -> FeatureFlags {
    FeatureFlags { require_git_ssh_secret_known_hosts: true, ..FeatureFlags::default() }
}

#[tokio::test]
async fn types_and_annotations_are_read_and_contents_are_not() {
    let world = World::start("");
    world.account(&["bot", "gone", "key"]).await;
    world.secret("bot", "kubernetes.io/basic-auth", &["username", "password"]).await;
    world.secret("key", "kubernetes.io/ssh-auth", &["ssh-privatekey", "known_hosts"]).await;
    let found = format!("{:?}", world.credentials(&FeatureFlags::default()).await.expect("credentials"));
    for word in ["BasicGit", "SshGit", "https://git.example", "missing: [\"gone\"]"] {
        assert!(found.contains(word), "{found}");
    }
    assert!(world.heard("kubernetes.io/basic-auth"), "the test listens");
    assert!(!world.heard(&STANDARD.encode(PASSWORD)));
}

#[tokio::test]
async fn keys_are_read_where_they_matter() {
    let world = World::start("");
    world.account(&["bot", "key"]).await;
    world.secret("bot", "kubernetes.io/basic-auth", &["username", "password"]).await;
    world.secret("key", "kubernetes.io/ssh-auth", &["ssh-privatekey"]).await;
    let refused = world.credentials(&strict()).await.expect_err("no known_hosts");
    assert!(refused.starts_with("TaskRun validation failed. Git SSH Secret must have"), "{refused}");
    assert!(world.credentials(&FeatureFlags::default()).await.is_ok());

    let world = World::start("");
    world.account(&["key"]).await;
    world.secret("key", "kubernetes.io/ssh-auth", &["ssh-privatekey", "known_hosts"]).await;
    assert!(world.credentials(&strict()).await.is_ok());
}

#[tokio::test]
async fn what_is_missing_or_forbidden_is_no_outage() {
    let world = World::start("");
    assert_eq!(world.look_up(&FeatureFlags::default()).await, Answer::Missing);

    let world = World::start("/serviceaccounts/builder");
    let refused = Answer::Refused("/serviceaccounts/builder is forbidden".to_owned());
    assert_eq!(world.look_up(&FeatureFlags::default()).await, refused);

    let world = World::start("/secrets/bot");
    world.account(&["bot"]).await;
    let refused = world.credentials(&FeatureFlags::default()).await;
    assert_eq!(refused, Err("/secrets/bot is forbidden".to_owned()));
}

#[tokio::test]
async fn nobody_is_asked_where_nothing_is_wanted() {
    let world = World::start("");
    let found = look_up(&world.client, "default", None, &FeatureFlags::default()).await.expect("no request");
    assert_eq!(found, None);
    assert!(world.heard.lock().expect("unpoisoned").is_empty());
}

//! Runs on an API server in this process whose images are at registries in this process.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use ropewalk_api::{TaskRun, conditions, crd};
use ropewalk_apiserver::{NoAdmission, ResourceTable, State};
use ropewalk_core::settings::Settings;
use ropewalk_standalone::server::{NoLogs, Server};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::super::look_ups::AT_ONCE_PER_REGISTRY;
use super::*;
use crate::{ImageOptions, Metrics, Options};

/// Far beyond what any of this takes.
const PATIENCE: Duration = Duration::from_mins(1);

struct World {
    client: Client,
    controllers: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.controllers.abort();
    }
}

impl World {
    fn start() -> Self {
        let table = crd::all().iter().try_fold(ResourceTable::built_in(), ResourceTable::with_crd);
        let state = State::new(table.expect("our resources"), 1, Timestamp::now());
        let client = Server::new(state, Arc::new(NoAdmission), Arc::new(NoLogs)).client();
        let options = Options {
            config: watch::channel(Arc::default()).1,
            settings: watch::channel(Arc::new(Settings::default())).1,
            namespace: None,
            images: Some(ImageOptions {
                extra_roots: watch::channel(String::new()).1,
                registries: None,
                local: None,
            }),
            metrics: Metrics::new(&prometheus::Registry::new()).expect("metrics"),
        };
        let controllers = tokio::spawn(crate::run(client.clone(), options, std::future::pending()));
        Self { client, controllers }
    }

    async fn create<K>(&self, object: Value)
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + serde::de::DeserializeOwned
            + serde::Serialize
            + Clone
            + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(object).expect("an object");
        let api: Api<K> = Api::namespaced(self.client.clone(), "default");
        api.create(&PostParams::default(), &object).await.expect("it is taken");
    }

    async fn task_run(&self, name: &str, step: Value) {
        let spec = json!({ "serviceAccountName": "builder", "taskSpec": { "steps": [step] } });
        let run = json!({ "apiVersion": "tekton.dev/v1", "kind": "TaskRun", "metadata": { "name": name }, "spec": spec });
        self.create::<TaskRun>(run).await;
    }

    /// Waits for an object of this name of which `is_right` holds.
    async fn wait<K>(&self, name: &str, is_right: impl Fn(&K) -> bool) -> K
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + serde::de::DeserializeOwned
            + Clone
            + std::fmt::Debug
            + Send
            + 'static,
    {
        use futures::StreamExt;
        let api: Api<K> = Api::namespaced(self.client.clone(), "default");
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut objects = watcher::watcher(api, config).applied_objects().boxed();
        let wait = async {
            loop {
                match objects.next().await {
                    Some(Ok(object)) if is_right(&object) => return object,
                    Some(_) => {}
                    None => panic!("the watch has ended"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("it comes about")
    }

    async fn pod(&self, name: &str) -> Value {
        serde_json::to_value(self.wait::<Pod>(name, |_| true).await).expect("JSON")
    }

    async fn failure(&self, name: &str) -> String {
        let run = self
            .wait::<TaskRun>(name, |run| {
                run.status.as_ref().is_some_and(|status| conditions::is_done(&status.conditions))
            })
            .await;
        let status = run.status.expect("a status");
        let condition = conditions::find(&status.conditions, "Succeeded").expect("a condition");
        format!("{}: {}", condition.reason, condition.message)
    }
}

#[tokio::test]
async fn a_registry_that_does_not_answer_holds_up_nobody_else() {
    let silent = Fake::start(Auth::None, Tls::No).await;
    let fake = Fake::start(Auth::Basic { user: "robot$ci", password: PASSWORD }, Tls::No).await;
    let digest = fake.image("app", "v1", "linux/amd64", &["/e"], &["--help"]);
    let world = World::start();
    let auths = json!({ "auths": { &fake.host: { "username": "robot$ci", "password": PASSWORD } } });
    world
        .create::<Secret>(json!({
            "metadata": { "name": "registry" }, "type": "kubernetes.io/dockerconfigjson",
            "data": { ".dockerconfigjson": ByteString(auths.to_string().into_bytes()) },
        }))
        .await;
    world
        .create::<ServiceAccount>(
            json!({ "metadata": { "name": "builder" }, "secrets": [{ "name": "registry" }] }),
        )
        .await;

    // More than reconciles at once, and more images than look-ups at once. Two runs want the same.
    for index in 0..40 {
        let repository = format!("app-{}", index / 2);
        silent.odd(&format!("HEAD /v2/{repository}/manifests/v1"), Odd::Silence);
        let image = format!("{}/{repository}:v1", silent.host);
        world.task_run(&format!("stuck-{index}"), json!({ "image": image })).await;
    }
    world.task_run("plain", json!({ "image": "i", "script": "echo" })).await;
    world.pod("plain-pod").await;
    world.task_run("looked-up", json!({ "image": format!("{}/app:v1", fake.host), "args": ["a b"] })).await;
    let pod = world.pod("looked-up-pod").await;
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["image"], format!("{}/app@{digest}", fake.host));
    let commands = json!([{ "name": "TEKTON_PLATFORM_COMMANDS", "value": r#"{"linux/amd64":["/e"]}"# }]);
    assert_eq!(container["env"], commands);

    let pods: Api<Pod> = Api::namespaced(world.client.clone(), "default");
    assert!(pods.get_opt("stuck-0-pod").await.expect("an answer").is_none());
    let asked = silent.requests();
    assert!((1..=AT_ONCE_PER_REGISTRY).contains(&asked.len()), "{asked:?}");

    // A digest that is known is not asked for again.
    fake.requests();
    world.task_run("again", json!({ "image": format!("{}/app:other@{digest}", fake.host) })).await;
    let pod = world.pod("again-pod").await;
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["image"], format!("{}/app@{digest}", fake.host));
    let commands =
        json!([{ "name": "TEKTON_PLATFORM_COMMANDS", "value": r#"{"linux/amd64":["/e","--help"]}"# }]);
    assert_eq!(container["env"], commands);
    assert_eq!(fake.requests(), [""; 0]);
}

#[tokio::test]
async fn a_refusal_names_the_image_and_the_secrets() {
    let fake = Fake::start(Auth::Basic { user: "u", password: PASSWORD }, Tls::No).await;
    fake.image("app", "v1", "linux/amd64", &["/e"], &[]);
    let world = World::start();
    world
        .create::<ServiceAccount>(
            json!({ "metadata": { "name": "builder" }, "imagePullSecrets": [{ "name": "gone" }] }),
        )
        .await;
    let image = format!("{}/app:v1", fake.host);
    world.task_run("run", json!({ "name": "build", "image": image })).await;
    assert_eq!(
        world.failure("run").await,
        format!(
            "PodCreationFailed: failed to create task run pod \"run\": translating TaskSpec to Pod: step \"build\" has \
             neither command nor script, and the entrypoint of image \"{image}\" cannot be looked up: registry \"{}\" \
             refuses access (401 Unauthorized): there are no credentials; link a secret of type \
             \"kubernetes.io/dockerconfigjson\" to service account \"builder\" or name it in imagePullSecrets; secret \
             \"gone\" does not exist. Maybe invalid TaskSpec",
            fake.host
        )
    );
}

#[tokio::test]
async fn an_outage_is_waited_for() {
    let fake = Fake::start(Auth::None, Tls::No).await;
    let digest = fake.image("app", "v1", "linux/amd64", &["/e"], &[]);
    let digest_path = format!("GET /v2/app/manifests/{digest}");
    fake.odd(&digest_path, Odd::Status(StatusCode::SERVICE_UNAVAILABLE));
    let world = World::start();
    world.create::<ServiceAccount>(json!({ "metadata": { "name": "builder" } })).await;
    world.task_run("run", json!({ "image": format!("{}/app:v1", fake.host) })).await;
    // It has failed once when it is asked for the digest; what comes next finds it well.
    tokio::time::timeout(PATIENCE, async {
        while !fake.requests().contains(&digest_path) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it is asked");
    fake.mend(&digest_path);
    let pod = world.pod("run-pod").await;
    assert_eq!(pod["spec"]["containers"][0]["image"], format!("{}/app@{digest}", fake.host));
}

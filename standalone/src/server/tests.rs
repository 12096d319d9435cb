//! The service under the clients it is made for: kube's `Api`, its watcher in both modes, a `Controller`, and HTTP.

mod bodies;
mod durable;
mod exec;
mod http_listener;
mod https;
mod kubectl;
mod websockets;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, LogParams, ObjectMeta, Patch, PatchParams, PostParams},
    runtime::{Controller, controller::Action, watcher},
};
use ropewalk_apiserver::{LogRequest, NoAdmission, ResourceTable, State};
use serde_json::json;

use super::{LogSource, NoLogs, Server};

/// What no test should ever take, on a machine however busy.
const PATIENCE: Duration = Duration::from_mins(1);

fn server() -> Server {
    let state = State::new(ResourceTable::built_in(), 1, Timestamp::UNIX_EPOCH);
    Server::new(state, Arc::new(NoAdmission), Arc::new(NoLogs))
}

fn config_maps(client: &Client) -> Api<ConfigMap> {
    Api::default_namespaced(client.clone())
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
        data: Some(BTreeMap::from([("key".into(), value.into())])),
        ..ConfigMap::default()
    }
}

fn api_error(error: &kube::Error) -> (u16, String) {
    match error {
        kube::Error::Api(status) => (status.code, status.reason.clone()),
        other => panic!("not an API error: {other:?}"),
    }
}

#[tokio::test]
async fn objects_live_through_the_typed_client() {
    let api = config_maps(&server().client());
    let made = api.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    assert!(made.uid().is_some());
    let mut changed = api.get("a").await.unwrap();
    changed.data.as_mut().unwrap().insert("more".into(), "2".into());
    let changed = api.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert_ne!(changed.resource_version(), made.resource_version());
    let stale = api.replace("a", &PostParams::default(), &made).await.unwrap_err();
    assert_eq!(api_error(&stale), (409, "Conflict".into()));
    let patch = Patch::Merge(json!({ "data": { "key": null } }));
    let patched = api.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(patched.data.unwrap(), BTreeMap::from([("more".into(), "2".into())]));
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 1);
    assert!(api.delete("a", &DeleteParams::default()).await.unwrap().is_right());
    let gone = api.get("a").await.unwrap_err();
    assert_eq!(api_error(&gone), (404, "NotFound".into()));
}

#[tokio::test]
async fn discovery_finds_kinds() {
    let client = server().client();
    let each = kube::Discovery::new(client.clone()).run().await.unwrap();
    let at_once = kube::Discovery::new(client).run_aggregated().await.unwrap();
    let [each, at_once] = [each, at_once].map(|discovery| {
        let resources = discovery.groups().flat_map(kube::discovery::ApiGroup::recommended_resources);
        let mut kinds: Vec<String> =
            resources.map(|(resource, _)| resource.api_version + "/" + &resource.kind).collect();
        kinds.sort_unstable();
        kinds
    });
    for kind in ["v1/Pod", "v1/ConfigMap", "apps/v1/StatefulSet", "coordination.k8s.io/v1/Lease"] {
        assert!(each.iter().any(|known| known == kind), "{kind} is not in {each:?}");
    }
    assert_eq!(each, at_once);
}

async fn watched(config: watcher::Config) {
    let api = config_maps(&server().client());
    api.create(&PostParams::default(), &config_map("before", "")).await.unwrap();
    let mut events = watcher(api.clone(), config).boxed();
    let mut seen = Vec::new();
    let mut next = async |until: &str| {
        while let Some(event) = events.try_next().await.unwrap() {
            let line = match event {
                watcher::Event::Init => "init".into(),
                watcher::Event::InitApply(object) => format!("init {}", object.name_any()),
                watcher::Event::InitDone => "done".into(),
                watcher::Event::Apply(object) => format!("apply {}", object.name_any()),
                watcher::Event::Delete(object) => format!("delete {}", object.name_any()),
            };
            seen.push(line.clone());
            if line == until {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, async {
        next("done").await;
        api.create(&PostParams::default(), &config_map("after", "")).await.unwrap();
        next("apply after").await;
        api.delete("before", &DeleteParams::default()).await.unwrap();
        next("delete before").await;
    })
    .await
    .unwrap();
    assert_eq!(seen, ["init", "init before", "done", "apply after", "delete before"]);
}

#[tokio::test]
async fn a_watcher_follows_after_a_list() {
    watched(watcher::Config::default()).await;
}

#[tokio::test]
async fn a_watcher_follows_a_streaming_list() {
    watched(watcher::Config::default().streaming_lists()).await;
}

#[derive(Debug, thiserror::Error)]
#[error("reconciliation failed")]
struct Failed(#[from] kube::Error);

#[tokio::test]
async fn a_controller_brings_about_its_children() {
    let client = server().client();
    let owners = config_maps(&client);
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let reconcile = async |owner: Arc<ConfigMap>, pods: Arc<Api<Pod>>| {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {
                "name": owner.name_any(),
                "ownerReferences": [{
                    "apiVersion": "v1", "kind": "ConfigMap", "name": owner.name_any(), "uid": owner.uid(),
                    "controller": true,
                }],
            },
            "spec": { "containers": [{ "name": "only" }] },
        }))
        .unwrap();
        match pods.create(&PostParams::default(), &pod).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            other => {
                other?;
            }
        }
        Ok::<_, Failed>(Action::await_change())
    };
    let controller = Controller::new(owners.clone(), watcher::Config::default())
        .owns(pods.clone(), watcher::Config::default())
        .run(
            move |owner, pods| Box::pin(reconcile(owner, pods)),
            |_, _, _| Action::requeue(Duration::from_secs(1)),
            Arc::new(pods.clone()),
        );
    let controller = tokio::spawn(controller.for_each(|_| std::future::ready(())));
    let mut made = watcher(pods.clone(), watcher::Config::default()).boxed();
    for name in ["one", "two", "three"] {
        owners.create(&PostParams::default(), &config_map(name, "")).await.unwrap();
    }
    let count = tokio::time::timeout(PATIENCE, async {
        let mut count = 0;
        while count < 3 {
            match made.try_next().await.unwrap().unwrap() {
                watcher::Event::Apply(_) | watcher::Event::InitApply(_) => count += 1,
                _ => {}
            }
        }
        count
    });
    assert_eq!(count.await.unwrap(), 3);
    controller.abort();
    // With its owner the pod goes, too, in the same request.
    owners.delete("one", &DeleteParams::default()).await.unwrap();
    assert!(pods.get_opt("one").await.unwrap().is_none());
}

struct Echo;

impl LogSource for Echo {
    fn open(
        &self,
        request: LogRequest,
    ) -> futures::stream::BoxStream<'static, std::io::Result<bytes::Bytes>> {
        let line =
            format!("{}/{}/{} {}\n", request.namespace, request.pod, request.container, request.follow);
        futures::stream::iter([Ok(line.into())]).boxed()
    }
}

#[tokio::test]
async fn logs_come_from_the_source() {
    let state = State::new(ResourceTable::built_in(), 1, Timestamp::UNIX_EPOCH);
    let client = Server::new(state, Arc::new(NoAdmission), Arc::new(Echo)).client();
    let pods: Api<Pod> = Api::default_namespaced(client);
    let pod = json!({
        "metadata": { "name": "p" },
        "spec": { "nodeName": "n", "containers": [{ "name": "a" }, { "name": "b" }] },
    });
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let running = json!({ "status": { "containerStatuses": [{ "name": "b", "state": { "running": {} } }] } });
    pods.patch_status("p", &PatchParams::default(), &Patch::Merge(&running)).await.unwrap();
    let params = LogParams { container: Some("b".into()), follow: true, ..LogParams::default() };
    assert_eq!(pods.logs("p", &params).await.unwrap(), "default/p/b true\n");
    let unclear = pods.logs("p", &LogParams::default()).await.unwrap_err();
    assert_eq!(api_error(&unclear).0, 400);
    assert!(
        unclear.to_string().contains("a container name must be specified for pod p, choose one of: [a b]")
    );
}

#[tokio::test]
async fn a_watch_that_lags_is_told_to_list_again() {
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    let server = server();
    let request =
        http::Request::get("/api/v1/configmaps?watch=true").body(kube::client::Body::empty()).unwrap();
    let response = server.clone().oneshot(request).await.unwrap();
    let api = config_maps(&server.client());
    for index in 0..1100 {
        api.create(&PostParams::default(), &config_map(&format!("c{index}"), "")).await.unwrap();
    }
    let body = tokio::time::timeout(PATIENCE, response.into_body().collect()).await.unwrap().unwrap();
    let body = String::from_utf8(body.to_bytes().to_vec()).unwrap();
    let last: serde_json::Value = serde_json::from_str(body.lines().last().unwrap()).unwrap();
    assert_eq!((&last["type"], &last["object"]["code"]), (&json!("ERROR"), &json!(410)));
    // What was queued before is still told, in order.
    let first: serde_json::Value = serde_json::from_str(body.lines().next().unwrap()).unwrap();
    assert_eq!(first["object"]["metadata"]["name"], "c0");
}

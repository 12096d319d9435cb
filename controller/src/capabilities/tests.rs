//! Verdicts as tables, and the questions against an API server that answers from a list.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Method, Request, Response};
use kube::client::Body;
use rstest::rstest;
use serde_json::Value;

use super::*;

#[rstest]
#[case("v1.33.4", Some((1, 33)))]
#[case("v1.36.0-gke.1100", Some((1, 36)))]
#[case("1.35+", Some((1, 35)))]
#[case("2.1.0-rc.1", Some((2, 1)))]
#[case("v1.33", Some((1, 33)))]
#[case("1", None)]
#[case("v1.", None)]
#[case("", None)]
#[case("main", None)]
fn versions(#[case] text: &str, #[case] expected: Option<(u32, u32)>) {
    assert_eq!(version(text), expected);
}

const KUBELET: &str = "which does not mount images unless told to";
const RUNTIME: &str = "which is not known to mount images";

/// API server, kubelet, runtime, and what the verdict says.
#[rstest]
#[case::current("1.36", "v1.36.2", "containerd://2.1.5", Ok(true))]
#[case::crio("1.36", "v1.35.0", "cri-o://1.31.0", Ok(true))]
#[case::prerelease("1.36+", "v1.36.0-eks-1", "containerd://2.1.0-rc.1", Ok(true))]
#[case::later_major("1.36", "v1.36.0", "containerd://3.0.0", Ok(true))]
#[case::switched_on("1.33", "v1.33.0", "containerd://2.1.0", Ok(true))]
#[case::behind_its_server("1.35", "v1.34.0", "containerd://2.1.0", Err(KUBELET))]
#[case::server_unknown("", "v1.34.0", "containerd://2.1.0", Err(KUBELET))]
#[case::no_such_feature("1.33", "v1.32.9", "containerd://2.1.0", Err(KUBELET))]
#[case::garbage("1.36", "latest", "containerd://2.1.0", Err(KUBELET))]
#[case::old_containerd("1.36", "v1.36.0", "containerd://2.0.9", Err(RUNTIME))]
#[case::older_containerd("1.36", "v1.36.0", "containerd://1.7.27", Err(RUNTIME))]
#[case::old_crio("1.36", "v1.36.0", "cri-o://1.30.4", Err(RUNTIME))]
#[case::unknown_runtime("1.36", "v1.36.0", "docker://28.0.0", Err(RUNTIME))]
#[case::no_runtime("1.36", "v1.36.0", "", Err(RUNTIME))]
#[case::says_nothing("1.36", "", "", Ok(false))]
fn nodes(
    #[case] server: &str,
    #[case] kubelet: &str,
    #[case] runtime: &str,
    #[case] expected: Result<bool, &str>,
) {
    let info = NodeSystemInfo {
        kubelet_version: kubelet.to_owned(),
        container_runtime_version: runtime.to_owned(),
        operating_system: "linux".to_owned(),
        ..NodeSystemInfo::default()
    };
    let verdict = mounts_images("n", &info, version(server)).map_err(|obstacle| obstacle.to_string());
    match (verdict, expected) {
        (Ok(found), Ok(expected)) => assert_eq!(found, expected),
        (Err(found), Err(expected)) => {
            assert!(found.contains(expected) && found.contains("\"n\""), "{found}");
        }
        (found, expected) => panic!("{found:?} is not {expected:?}"),
    }
}

#[test]
fn windows_runs_no_steps() {
    let info = NodeSystemInfo {
        kubelet_version: "v1.30.0".to_owned(),
        operating_system: "windows".to_owned(),
        ..NodeSystemInfo::default()
    };
    assert_eq!(mounts_images("n", &info, version("1.36")), Ok(false));
}

/// An API server of which a test says how it answers.
#[derive(Clone)]
struct Server {
    /// What becomes of the pod that is tried.
    create: fn(Value) -> (u16, Value),
    /// The answers to the lists of nodes, last first.
    nodes: Arc<Mutex<Vec<(u16, Value)>>>,
}

impl Server {
    fn new(create: fn(Value) -> (u16, Value), mut nodes: Vec<(u16, Value)>) -> Self {
        nodes.reverse();
        Self { create, nodes: Arc::new(Mutex::new(nodes)) }
    }

    async fn answer(self, request: Request<Body>) -> (u16, Value) {
        let (parts, body) = request.into_parts();
        match (parts.method, parts.uri.path()) {
            (Method::GET, "/version") => (
                200,
                json!({
                "major": "1", "minor": "36", "gitVersion": "", "gitCommit": "", "gitTreeState": "",
                "buildDate": "", "goVersion": "", "compiler": "", "platform": ""}),
            ),
            (Method::POST, "/api/v1/namespaces/system/pods") => {
                assert_eq!(parts.uri.query(), Some("&dryRun=All"), "nothing may be stored");
                let pod = body.collect_bytes().await.expect("a body");
                (self.create)(serde_json::from_slice(&pod).expect("a pod"))
            }
            (Method::GET, "/api/v1/nodes") => {
                self.nodes.lock().expect("no panic").pop().expect("no further page was announced")
            }
            other => panic!("{other:?} was not expected"),
        }
    }

    async fn verdict(self) -> Result<(), String> {
        let server = self;
        let service = tower::service_fn(move |request| {
            let server = server.clone();
            async move {
                let (code, body) = server.answer(request).await;
                let body = Body::from(serde_json::to_vec(&body)?);
                Ok::<_, tower::BoxError>(Response::builder().status(code).body(body)?)
            }
        });
        let client = Client::new(service, "default");
        let (_, verdict) =
            ask(&client, "system", "registry/entrypoint:v1").await.map_err(|error| error.to_string())?;
        verdict.map_err(|obstacle| obstacle.to_string())
    }
}

fn kept(pod: Value) -> (u16, Value) {
    assert_eq!(pod["spec"]["volumes"][0]["image"]["reference"], "registry/entrypoint:v1");
    (201, pod)
}

fn pruned(mut pod: Value) -> (u16, Value) {
    // As servers of before the field default a volume without a source.
    pod["spec"]["volumes"] = json!([{"name": VOLUME, "emptyDir": {}}]);
    (201, pod)
}

fn failure(code: u16) -> (u16, Value) {
    let reason = if code == 403 { "Forbidden" } else { "Invalid" };
    (code, json!({"kind": "Status", "status": "Failure", "reason": reason, "message": "no", "code": code}))
}

fn page(token: &str, kubelets: &[&str]) -> (u16, Value) {
    let items: Vec<Value> = kubelets
        .iter()
        .enumerate()
        .map(|(index, kubelet)| {
            json!({
                "metadata": {"name": format!("node-{index}")},
                "status": {"nodeInfo": {
                    "kubeletVersion": kubelet, "containerRuntimeVersion": "containerd://2.1.0",
                    "operatingSystem": "linux", "architecture": "", "bootID": "", "kernelVersion": "",
                    "kubeProxyVersion": "", "machineID": "", "osImage": "", "systemUUID": ""}},
            })
        })
        .collect();
    (200, json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {"continue": token}, "items": items}))
}

#[tokio::test]
async fn a_cluster_that_can() {
    let pages = vec![page("more", &["v1.36.0", ""]), page("", &["v1.35.1"])];
    assert_eq!(Server::new(kept, pages).verdict().await, Ok(()));
}

#[rstest]
#[case::pruned(Server::new(pruned, vec![]), "the API server does not keep the field")]
#[case::switched_off(Server::new(|_| failure(422), vec![]), "the API server does not keep the field")]
#[case::pods_forbidden(Server::new(|_| failure(403), vec![]), "cannot try to create a pod with an image volume")]
#[case::nodes_forbidden(Server::new(kept, vec![failure(403)]), "cannot list the nodes")]
#[case::no_nodes(Server::new(kept, vec![page("", &[])]), "no node says what it runs")]
#[case::silent_nodes(Server::new(kept, vec![page("", &["", ""])]), "no node says what it runs")]
#[case::one_of_many(
    Server::new(kept, vec![page("more", &["v1.36.0"]), page("", &["v1.36.0", "v1.33.0"])]),
    "node \"node-1\" has kubelet \"v1.33.0\", which does not mount images unless told to"
)]
#[case::endless(
    Server::new(kept, vec![page("more", &["v1.36.0"; 1_000]); 5]),
    "more than 5000 nodes"
)]
#[tokio::test]
async fn a_cluster_that_cannot(#[case] server: Server, #[case] expected: &str) {
    assert_eq!(server.verdict().await, Err(expected.to_owned()));
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_fails_means_no_and_is_asked_again() {
    let tries = Arc::new(AtomicUsize::new(0));
    let service = tower::service_fn({
        let tries = Arc::clone(&tries);
        move |_| {
            tries.fetch_add(1, Ordering::Relaxed);
            async { Err::<Response<Body>, tower::BoxError>("cut off".into()) }
        }
    });
    let settings = follow(&Client::new(service, "default"), "system", Settings::default()).await;
    assert!(!settings.borrow().image_volumes);
    assert!(tries.load(Ordering::Relaxed) > 1);
}

fn node(name: &str, kubelet: &str) -> Node {
    let (_, mut list) = page("", &[kubelet]);
    list["items"][0]["metadata"]["name"] = json!(name);
    serde_json::from_value(list["items"][0].take()).expect("a node")
}

#[tokio::test]
async fn nodes_that_come_and_go_change_what_new_pods_are() {
    let (sender, receiver) =
        watch::channel(Arc::new(Settings { image_volumes: false, ..Settings::default() }));
    let (old, new) = ("v1.30.0", "v1.36.0");
    let steps = vec![
        (Event::Init, false),
        (Event::InitApply(node("a", new)), false),
        (Event::InitDone, true),
        (Event::Apply(node("b", old)), false),
        (Event::Apply(node("b", new)), true),
        (Event::Apply(node("c", old)), false),
        (Event::Delete(node("c", old)), true),
        // A list that begins again has no say before it is complete.
        (Event::Init, true),
        (Event::InitApply(node("d", old)), true),
        (Event::InitDone, false),
        (Event::Delete(node("d", old)), false),
    ];
    let seen = std::cell::RefCell::new(Vec::new());
    let expected: Vec<bool> = steps.iter().map(|(_, expected)| *expected).collect();
    let events = futures::stream::iter(steps.into_iter().map(|(event, _)| event)).inspect(|_| {
        // What the event before has led to.
        seen.borrow_mut().push(receiver.borrow().image_volumes);
    });
    Box::pin(watch_nodes(events, version("1.36"), &sender)).await;
    let mut seen = seen.into_inner();
    seen.push(receiver.borrow().image_volumes);
    assert_eq!(seen[1..], expected);
}

//! Steps without a command: the registry that this process serves tells what their image runs, to those only who know its
//! password.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use ropewalk_core::images::reference::Digest;
use ropewalk_test::harness::images::hack;
use ropewalk_test::harness::installation::Installation;
use ropewalk_test::harness::{Kind, Namespace, PATIENCE, RunKey, World, set};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinSet;

/// Robots of Harbor have such names.
const USER: &str = "robot$ci";
const PASSWORD: &str = "pass:word";

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What the image runs: it takes its arguments down, each in brackets.
const ENTRYPOINT: [&str; 4] = ["/bin/bash", "-c", "printf '[%s]' \"$@\" >/tekton/results/argv", "argv"];

/// The image `argv:1` for two platforms: that of tests under another entrypoint, so that its layer is on the node already.
struct Image {
    /// By the last part of their path: media types, and contents.
    contents: BTreeMap<String, (&'static str, Vec<u8>)>,
    /// The archive that the layer is in, and the layer's digest.
    layer: (String, String),
}

impl Image {
    async fn build() -> Result<Self> {
        let archive = hack("test-image", &[]).await?.trim().to_owned();
        let config: Value = serde_json::from_slice(&tar(&["-xOf", &archive, "config.json"]).await?)?;
        let diff_id =
            config["rootfs"]["diff_ids"][0].as_str().context("an image without a layer")?.to_owned();
        let listed = String::from_utf8(tar(&["--dereference", "-tvf", &archive, "layer.tar"]).await?)?;
        let size: u64 = listed.split_whitespace().nth(2).context("a layer without a size")?.parse()?;
        let mut image = Self { contents: BTreeMap::new(), layer: (archive, diff_id.clone()) };
        let layer = json!({ "mediaType": LAYER, "digest": diff_id, "size": size });
        let mut platforms = Vec::new();
        for (architecture, entrypoint) in [("amd64", &ENTRYPOINT[..]), ("arm64", &["/other"][..])] {
            let config = image.add(
                CONFIG,
                &json!({
                    "architecture": architecture,
                    "os": "linux",
                    "config": { "Entrypoint": entrypoint, "Cmd": ["not used"], "Env": ["PATH=/usr/bin:/bin"] },
                    "rootfs": { "type": "layers", "diff_ids": [diff_id] },
                }),
            );
            let manifest =
                json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
            let mut platform = image.add(MANIFEST, &manifest);
            platform["platform"] = json!({ "architecture": architecture, "os": "linux" });
            platforms.push(platform);
        }
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": platforms });
        let index = image.add(INDEX, &index);
        let digest = index["digest"].as_str().unwrap_or_default();
        if let Some(content) = image.contents.get(digest).cloned() {
            image.contents.insert("1".to_owned(), content);
        }
        Ok(image)
    }

    /// Adds some content; its descriptor.
    fn add(&mut self, media: &'static str, content: &Value) -> Value {
        let content = content.to_string().into_bytes();
        let digest = Digest::of(&content).to_string();
        let descriptor = json!({ "mediaType": media, "digest": digest, "size": content.len() });
        self.contents.insert(digest, (media, content));
        descriptor
    }
}

async fn tar(arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new("tar").args(arguments).output().await.context("cannot run tar")?;
    if !output.status.success() {
        bail!("tar {arguments:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

async fn answer(
    State(image): State<Arc<Image>>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Result<Response, StatusCode> {
    let expected = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    if headers.get(header::AUTHORIZATION).is_none_or(|given| given.as_bytes() != expected.as_bytes()) {
        let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"test\"")];
        return Ok((StatusCode::UNAUTHORIZED, challenge).into_response());
    }
    let name = path.rsplit('/').next().unwrap_or_default();
    let (archive, layer) = &image.layer;
    if name == layer {
        let content =
            tar(&["-xOf", archive, "layer.tar"]).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        return Ok(Body::from(content).into_response());
    }
    let (media, content) = image.contents.get(name).ok_or(StatusCode::NOT_FOUND)?;
    let digest = Digest::of(content).to_string();
    let headers = [(header::CONTENT_TYPE.as_str(), (*media).to_owned()), ("docker-content-digest", digest)];
    Ok((headers, content.clone()).into_response())
}

/// A registry with the image, until it is dropped.
struct Registry {
    address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Registry {
    /// Where the pods and the node of a cluster on this machine reach it, or the world in this process.
    async fn start(world: &World) -> Result<Self> {
        let address = match world.kind() {
            Kind::Cluster => Installation::of(world).api_server().await?,
            Kind::Standalone => Ipv4Addr::LOCALHOST.into(),
        };
        let listener = TcpListener::bind((address, 0)).await.context("cannot listen where pods can reach")?;
        let address = listener.local_addr()?;
        if world.kind() == Kind::Cluster {
            hack("cluster", &["registry", &address.to_string()]).await?;
        }
        let router = Router::new()
            .route("/v2/", any(async || StatusCode::OK))
            .route("/v2/{*path}", any(answer))
            .with_state(Arc::new(Image::build().await?));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            loop {
                let Ok((connection, _)) = listener.accept().await else { continue };
                let service = TowerToHyperService::new(router.clone());
                tokio::spawn(async move {
                    // Clients try TLS first; what comes of that is their affair.
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(connection), service).await;
                });
            }
        });
        Ok(Self { address, _serving: serving })
    }
}

/// Creates the TaskRun as it stands: the harness would put an image of its own under the name.
async fn create(world: &World, namespace: &Namespace<'_>, run: Value) -> Result<RunKey> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(ropewalk_api::GROUP, "v1", "TaskRun"));
    let api = Api::<DynamicObject>::namespaced_with(world.client(), namespace.name(), &resource);
    let run = api.create(&PostParams::default(), &serde_json::from_value(run)?).await?;
    let name = run.metadata.name.unwrap_or_default();
    Ok(RunKey { kind: "TaskRun", namespace: namespace.name().to_owned(), name })
}

/// In a world of its own: in that of the other tests every image is the machine's root file system, and none is looked up.
pub(crate) async fn trap_8_in_one_process() -> Result<()> {
    let directory = tempfile::tempdir_in("/var/lib")?;
    let world = World::with_images(directory.path())?;
    let test = trap_8(&world).await;
    world.stop().await?;
    test
}

/// Plain HTTP at a private address, an index of two platforms, and a service account's secret; every argument arrives as it
/// was written.
pub(crate) async fn trap_8(world: &World) -> Result<()> {
    let namespace = world.namespace("trap-8").await?;
    let registry = Registry::start(world).await?;
    let host = registry.address.to_string();
    let login = json!({ "auths": { host.as_str(): { "username": USER, "password": PASSWORD } } });
    let secret = json!({
        "metadata": { "name": "login" },
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": { ".dockerconfigjson": login.to_string() },
    });
    let account = json!({ "metadata": { "name": "builder" }, "imagePullSecrets": [{ "name": "login" }] });
    Api::<Secret>::namespaced(world.client(), namespace.name())
        .create(&PostParams::default(), &serde_json::from_value(secret)?)
        .await?;
    Api::<ServiceAccount>::namespaced(world.client(), namespace.name())
        .create(&PostParams::default(), &serde_json::from_value(account)?)
        .await?;
    let run = |name: &str, account: &str| {
        json!({
            "apiVersion": "tekton.dev/v1",
            "kind": "TaskRun",
            "metadata": { "name": name },
            "spec": {
                "serviceAccountName": account,
                "params": [{ "name": "list", "value": ["one", "two words", ""] }],
                "taskSpec": {
                    "params": [{ "name": "list", "type": "array" }],
                    "results": [{ "name": "argv" }],
                    "steps": [{
                        "name": "only-args",
                        "image": format!("{host}/tools/argv:1"),
                        "args": [
                            "--destination=a b", "", "tab\there", "$HOME", "é\"'\\", "$(params.list[*])", "line\nline",
                        ],
                    }],
                },
            },
        })
    };

    let refused = create(world, &namespace, run("refused", "default")).await?;
    let refused = namespace.done(&refused, PATIENCE).await?;
    assert_eq!(refused.status(), "False", "{refused}");
    let words = refused.to_string();
    for word in [&format!("\"{host}/tools/argv:1\""), &format!("registry \"{host}\" refuses access (401")] {
        assert!(words.contains(word.as_str()), "{refused}");
    }
    assert!(!words.contains(PASSWORD), "{refused}");
    assert_eq!(namespace.children(&refused).await?, set([]));

    let told = create(world, &namespace, run("told", "builder")).await?;
    let told = namespace.done(&told, PATIENCE).await?;
    assert_eq!((told.status(), told.reason()), ("True", "Succeeded"), "{told}");
    let mut expected = String::new();
    for argument in
        ["--destination=a b", "", "tab\there", "$HOME", "é\"'\\", "one", "two words", "", "line\nline"]
    {
        write!(expected, "[{argument}]")?;
    }
    assert_eq!(told.value["status"]["results"][0]["value"], expected);
    assert_eq!(namespace.children(&told).await?, set(["Pod told-pod"]));
    namespace.finish().await
}

//! Containers from images.

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::{DeleteParams, LogParams, Patch, PatchParams, PostParams};
use kube::runtime::conditions::is_deleted;
use kube::runtime::wait::await_condition;
use ropewalk_api::TaskRun;
use ropewalk_images::{Digest, Image, Limits, Store, StoreError};
use ropewalk_pull::Progress;
use ropewalk_registry::fake::{Auth, Fake, Odd, Tls};
use ropewalk_standalone::Standalone;
use ropewalk_standalone::node::{NodeConfig, Pulls, RootfsMode};
use serde_json::{Value, json};

use crate::image::{self, Layer};
use crate::world::{
    PATIENCE, World, await_line, container, has_runc, outcome, phase, pod, runc, test_with, waiting, with,
};

type Test = (&'static str, fn());

pub(crate) fn all() -> Vec<Test> {
    let mut tests: Vec<Test> = vec![
        ("an_image_says_what_its_container_runs", || test_images(an_image_says_what_its_container_runs)),
        ("users_are_found_in_their_image", || test_images(users_are_found_in_their_image)),
        ("what_layers_leave_out_is_not_there", || test_images(what_layers_leave_out_is_not_there)),
        ("links_of_an_image_stay_in_it", || test_images(links_of_an_image_stay_in_it)),
        ("an_image_that_is_not_here", || test_images(an_image_that_is_not_here)),
        ("an_image_comes_while_its_pod_waits", || test_images(an_image_comes_while_its_pod_waits)),
        ("an_image_is_pulled_once_it_may_be", || test_images(an_image_is_pulled_once_it_may_be)),
        ("a_loud_registry_is_quoted", || test_images(a_loud_registry_is_quoted)),
        ("a_tag_that_moves_is_followed", || test_images(a_tag_that_moves_is_followed)),
        ("a_pull_holds_up_nobody_else", || test_images(a_pull_holds_up_nobody_else)),
        ("a_pull_makes_room", a_pull_makes_room),
        ("an_image_is_a_volume", || test_images(an_image_is_a_volume)),
        ("a_step_without_a_command_takes_its_images", a_step_without_a_command_takes_its_images),
        ("an_image_gets_its_volumes", || test_images(an_image_gets_its_volumes)),
        ("who_writes_too_much_is_evicted", who_writes_too_much_is_evicted),
        ("pulls_are_told", pulls_are_told),
        ("images_in_use_stay", || test_images(images_in_use_stay)),
        ("the_image_says_how_to_stop", || test_images(the_image_says_how_to_stop)),
        ("containers_from_images_are_adopted", || test_images(containers_from_images_are_adopted)),
        ("many_layers_are_one_root", || test_images(many_layers_are_one_root)),
    ];
    if has_runc() {
        tests.push(("runc_runs_images", runc_runs_images));
    }
    tests
}

fn runc_runs_images() {
    let edit = |config: &mut NodeConfig| {
        runc(config);
        config.rootfs = RootfsMode::Images;
    };
    test_with(edit, async |world: &mut World| {
        an_image_says_what_its_container_runs(world).await;
        users_are_found_in_their_image(world).await;
        an_image_gets_its_volumes(world).await;
    });
}

fn test_images(body: impl AsyncFnOnce(&mut World)) {
    test_with(|config| config.rootfs = RootfsMode::Images, body);
}

fn add(world: &World, name: &str, layers: Vec<Layer>, config: &Value) -> Image {
    image::add(&world.data_dir().join("images"), name, layers, config)
}

/// A container of an image that runs a script.
fn from(image: &str, name: &str, script: &str) -> Value {
    json!({"name": name, "image": image, "command": ["/bin/sh", "-c", script]})
}

const ACCOUNTS: &str = "root:x:0:0:root:/root:/bin/sh\nbuild:x:1000:1001:Builder:/home/build:/bin/sh\n";
const GROUPS: &str = "root:x:0:\nbuild:x:1001:\ndocker:x:999:build,other\n";

/// Users in a file that a link leads to, which another layer has.
fn accounts() -> Vec<Layer> {
    vec![
        Layer::new().directory("etc", 0o755).link("etc/passwd", "/usr/lib/accounts/passwd"),
        Layer::new()
            .file("usr/lib/accounts/passwd", 0o644, ACCOUNTS.as_bytes())
            .link("etc/group", "../../../usr/lib/accounts/group")
            .file("usr/lib/accounts/group", 0o644, GROUPS.as_bytes()),
    ]
}

async fn an_image_says_what_its_container_runs(world: &mut World) {
    let config = json!({
        "Env": ["A=image", "B=image", "PATH=/bin:/opt/bin"], "Entrypoint": ["/bin/sh", "-c", "echo $0 \"$@\""],
        "Cmd": ["from", "cmd"], "WorkingDir": "/srv/app"
    });
    let image = add(world, "r.example/team/app:1", accounts(), &config);
    let say = "echo $A $B $C $PATH $HOME $PWD $(cat /etc/hostname)";
    let env = json!([{"name": "B", "value": "pod"}, {"name": "C", "value": "$(A)"}]);
    let named = |name: &str| json!({"name": name, "image": "r.example/team/app:1"});
    world
        .create(pod(
            "said",
            json!({"containers": [
                named("plain"),
                with(named("args"), json!({"args": ["pod", "$(C)"], "env": env})),
                with(from("r.example/team/app:1", "command", say), json!({"env": env})),
                with(from("r.example/team/app:1", "dir", "pwd; touch x; ls -d /w/deep/x"), json!({"workingDir": "/w/deep"})),
            ]}),
        ))
        .await;
    let ended = world.ended("said").await;
    assert_eq!(world.log("said", "plain").await, "from cmd\n");
    assert_eq!(world.log("said", "args").await, "pod $(A)\n");
    assert_eq!(world.log("said", "command").await, "image pod $(A) /bin:/opt/bin /root /srv/app said\n");
    assert_eq!(world.log("said", "dir").await, "/w/deep\n/w/deep/x\n");
    let status = container(&ended, "plain");
    assert_eq!(status.image, "r.example/team/app:1");
    assert_eq!(status.image_id, image.pinned);
    assert!(status.image_id.starts_with("r.example/team/app@sha256:"), "{}", status.image_id);
}

async fn users_are_found_in_their_image(world: &mut World) {
    for (name, user) in [
        ("root", ""),
        ("named", "build"),
        ("grouped", "build:docker"),
        ("numbered", "1000"),
        ("unknown", "ghost"),
    ] {
        add(
            world,
            &format!("r.example/{name}:1"),
            accounts(),
            &json!({"User": user, "Entrypoint": ["/bin/sh"]}),
        );
    }
    let show = "id -u; id -g; id -G; echo $HOME";
    let of = |name: &str| from(&format!("r.example/{name}:1"), name, show);
    let security = |name: &str, context: Value| with(of(name), json!({"securityContext": context}));
    let given = with(security("root", json!({"runAsUser": 1000})), json!({"name": "given"}));
    let stranger = with(security("named", json!({"runAsUser": 4711})), json!({"name": "stranger"}));
    let home = with(of("named"), json!({"name": "home", "env": [{"name": "HOME", "value": "/h"}]}));
    let containers =
        json!([of("root"), of("named"), of("grouped"), of("numbered"), of("unknown"), given, stranger, home]);
    let spec = json!({"securityContext": {"supplementalGroups": [77]}, "containers": containers});
    world.create(pod("users", spec)).await;
    let ended = world.ended("users").await;
    for (name, expected) in [
        ("root", "0\n0\n0 77\n/root\n"),
        ("named", "1000\n1001\n1001 77 999\n/home/build\n"),
        ("grouped", "1000\n999\n999 77\n/home/build\n"),
        ("numbered", "1000\n1001\n1001 77 999\n/home/build\n"),
        ("given", "1000\n1001\n1001 77 999\n/home/build\n"),
        ("stranger", "4711\n0\n0 77\n/\n"),
        ("home", "1000\n1001\n1001 77 999\n/h\n"),
    ] {
        assert_eq!(world.log("users", name).await, expected, "{name}");
    }
    let unknown = (
        128,
        "ContainerCannotRun".into(),
        "unable to find user ghost: no matching entries in passwd file".into(),
    );
    assert_eq!(outcome(&ended, "unknown"), unknown);

    let context = json!({"runAsNonRoot": true});
    let refused =
        json!({"securityContext": context, "containers": [of("root"), of("named"), of("numbered")]});
    world.create(pod("careful", refused)).await;
    let both = |pod: Option<&Pod>| {
        let of = |pod: &Pod, name: &str| waiting(pod, name).filter(|(_, message)| !message.is_empty());
        pod.is_some_and(|pod| has_statuses(pod) && of(pod, "root").is_some() && of(pod, "named").is_some())
    };
    let pending = world.wait("careful", both).await.expect("the pod");
    let (reason, message) = waiting(&pending, "root").expect("waits");
    assert_eq!(reason, "CreateContainerConfigError");
    assert!(
        message.starts_with("container has runAsNonRoot and image will run as root (pod: \"careful_"),
        "{message}"
    );
    let (reason, message) = waiting(&pending, "named").expect("waits");
    assert_eq!(reason, "CreateContainerConfigError");
    let text = "container has runAsNonRoot and image has non-numeric user (build), cannot verify user is non-root (pod: ";
    assert!(message.starts_with(text), "{message}");
    world.pods().delete("careful", &DeleteParams::default()).await.expect("deleted");
}

fn has_statuses(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.container_statuses.is_some())
}

async fn what_layers_leave_out_is_not_there(world: &mut World) {
    let below = Layer::new()
        .file("data/kept", 0o644, b"kept")
        .file("data/gone", 0o644, b"gone")
        .file("cover/old", 0o644, b"old")
        .file("changed", 0o644, b"old");
    let above = Layer::new()
        .file("data/.wh.gone", 0o644, b"")
        .directory("cover", 0o755)
        .file("cover/.wh..wh..opq", 0o644, b"")
        .file("cover/new", 0o644, b"new")
        .file("changed", 0o644, b"new");
    add(world, "r.example/layers:1", vec![below, above], &json!({}));
    let look = "ls /data /cover; cat /changed";
    world.create(pod("first", json!({"containers": [from("r.example/layers:1", "c", look)]}))).await;
    world.ended("first").await;
    assert_eq!(world.log("first", "c").await, "/cover:\nnew\n\n/data:\nkept\nnew");

    // Two pods of the same layers, at the same time: neither sees what the other writes.
    let write = "echo mine > /data/mine; rm /data/kept; until [ -e /v/go ]; do sleep 0.01; done; ls /data; cat /changed";
    let wait = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let volume = json!([{"name": "v", "emptyDir": {}}]);
    let writer = with(from("r.example/layers:1", "c", write), wait.clone());
    world.create(pod("writes", json!({"volumes": volume, "containers": [writer]}))).await;
    let running = world.wait("writes", phase(&["Running"])).await.expect("the pod");
    world.create(pod("reads", json!({"containers": [from("r.example/layers:1", "c", "ls /data")]}))).await;
    world.ended("reads").await;
    assert_eq!(world.log("reads", "c").await, "kept\n");
    let uid = running.metadata.uid.as_deref().expect("a UID");
    std::fs::write(world.data_dir().join("pods").join(uid).join("volumes/v/go"), "").expect("written");
    let ended = world.ended("writes").await;
    assert_eq!(world.log("writes", "c").await, "mine\nnew");
    let image = image::store(&world.data_dir().join("images")).find("r.example/layers:1");
    let lowers = image.expect("read").expect("here").lowers;
    assert_eq!(std::fs::read(lowers[1].join("data/kept")).expect("still there"), b"kept");
    await_no_scratch(world, &ended).await;
}

/// What a container wrote goes when it has ended, soon after that was told.
async fn await_no_scratch(world: &World, ended: &Pod) {
    let scratch = world.attempt(ended, "c").join("scratch");
    while scratch.exists() {
        // Nothing tells of it; the test's own patience bounds the wait.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

async fn links_of_an_image_stay_in_it(world: &mut World) {
    let outside = tempfile::tempdir_in("/var/lib").expect("a directory");
    let path = outside.path().join("file");
    std::fs::write(&path, "the machine's own").expect("written");
    let shown = path.to_str().expect("text");
    let up = format!("../../../../../../../../../..{shown}");
    let layer = Layer::new()
        .directory("etc", 0o755)
        .link("etc/hosts", shown)
        .link("etc/resolv.conf", &up)
        .link("etc/hostname", "/proc/self/root/etc/hostname")
        .link("etc/passwd", &up)
        .link("run", outside.path().to_str().expect("text"))
        .directory("data", 0o755)
        .link("srv", "../../../data");
    add(world, "r.example/links:1", vec![layer], &json!({"User": "0"}));
    let look = "cat /etc/hostname; [ -L /etc/hosts ] || echo a file; ls -d /data/sub; touch /etc/passwd 2>/dev/null; id -u";
    let container = with(from("r.example/links:1", "c", look), json!({"workingDir": "/srv/sub"}));
    world.create(pod("p", json!({"containers": [container]}))).await;
    let ended = world.ended("p").await;
    assert_eq!(outcome(&ended, "c"), (0, "Completed".into(), String::new()));
    assert_eq!(world.log("p", "c").await, "p\na file\n/data/sub\n0\n");
    assert_eq!(std::fs::read_to_string(&path).expect("read"), "the machine's own");
    let names: Vec<_> =
        std::fs::read_dir(outside.path()).expect("listed").flatten().map(|it| it.file_name()).collect();
    assert_eq!(names, ["file"], "nothing was made outside");
}

async fn an_image_that_is_not_here(world: &mut World) {
    let of = |name: &str, image: &str, policy: &str| json!({"name": name, "image": image, "imagePullPolicy": policy, "command": ["true"]});
    let spec = json!({"containers": [of("never", "r.example/none:1", "Never"), of("bad", "R.example/None", "Always")]});
    world.create(pod("p", spec)).await;
    let both = |pod: Option<&Pod>| {
        pod.is_some_and(|pod| {
            has_statuses(pod)
                && ["never", "bad"]
                    .iter()
                    .all(|name| waiting(pod, name).is_some_and(|(_, text)| !text.is_empty()))
        })
    };
    let pending = world.wait("p", both).await.expect("the pod");
    assert_eq!(
        waiting(&pending, "never").expect("waits"),
        (
            "ErrImageNeverPull".into(),
            "Container image \"r.example/none:1\" is not present with pull policy of Never".into()
        )
    );
    let (reason, message) = waiting(&pending, "bad").expect("waits");
    assert_eq!(reason, "InvalidImageName");
    let text = "Failed to apply default image tag \"R.example/None\": couldn't parse image name \"R.example/None\": ";
    assert!(message.starts_with(text), "{message}");
    assert_eq!(container(&pending, "never").image_id, "");
    world.pods().delete("p", &DeleteParams::default()).await.expect("deleted");
    world.wait("p", is_deleted(pending.metadata.uid.as_deref().expect("a UID"))).await;
}

/// Nobody has to make the pod again when its image is loaded at last.
async fn an_image_comes_while_its_pod_waits(world: &mut World) {
    let container = with(from("r.example/late:1", "c", "echo here"), json!({"imagePullPolicy": "Never"}));
    world.create(pod("p", json!({"containers": [container]}))).await;
    let waits = |pod: Option<&Pod>| {
        pod.is_some_and(|pod| {
            has_statuses(pod) && waiting(pod, "c").is_some_and(|(reason, _)| reason == "ErrImageNeverPull")
        })
    };
    world.wait("p", waits).await.expect("the pod");
    add(world, "r.example/late:1", Vec::new(), &json!({}));
    world.ended("p").await;
    assert_eq!(world.log("p", "c").await, "here\n");
}

/// A registry starts to ask for a password, and a Secret is all that changes.
async fn an_image_is_pulled_once_it_may_be(world: &mut World) {
    let registry = Fake::start(Auth::Basic { user: "ci", password: "hidden" }, Tls::No).await;
    image::publish(
        &registry,
        "app",
        "1",
        Vec::new(),
        &json!({"Entrypoint": ["/bin/sh", "-c", "echo pulled"]}),
    );
    let image = format!("{}/app:1", registry.host);
    let spec = json!({"imagePullSecrets": [{"name": "pull"}], "containers": [{"name": "c", "image": image}]});
    world.create(pod("p", spec)).await;
    let waits = |wanted: &'static str| {
        move |pod: Option<&Pod>| {
            pod.is_some_and(|pod| {
                has_statuses(pod) && waiting(pod, "c").is_some_and(|(reason, _)| reason == wanted)
            })
        }
    };
    let refused = world.wait("p", waits("ErrImagePull")).await.expect("the pod");
    let (_, why) = waiting(&refused, "c").expect("waits");
    let text = format!("image \"{image}\" cannot be pulled: registry \"{}\" refuses access", registry.host);
    assert!(why.starts_with(&text) && why.contains("secret \"pull\" does not exist"), "{why}");
    let paused = world.wait("p", waits("ImagePullBackOff")).await.expect("the pod");
    let (_, message) = waiting(&paused, "c").expect("waits");
    assert_eq!(message, format!("Back-off pulling image \"{image}\": ErrImagePull: {why}"));

    let auths = json!({"auths": {&registry.host: {"username": "ci", "password": "hidden"}}}).to_string();
    let secret = json!({"metadata": {"name": "pull"}, "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": auths}});
    let secrets: Api<Secret> = Api::default_namespaced(world.client.clone());
    let secret: Secret = serde_json::from_value(secret).expect("a secret");
    secrets.create(&PostParams::default(), &secret).await.expect("created");
    let ended = world.ended("p").await;
    assert_eq!(world.log("p", "c").await, "pulled\n");
    let id = &container(&ended, "c").image_id;
    assert!(id.starts_with(&format!("{}/app@sha256:", registry.host)), "{id}");
}

/// What a registry says is not the whole of a status, nor does it paint anybody's screen.
async fn a_loud_registry_is_quoted(world: &mut World) {
    let registry = Fake::start(Auth::None, Tls::No).await;
    let loud =
        json!({"mediaType": "\u{1b}[31m".repeat(100_000), "digest": Digest::of(b"").to_string(), "size": 1});
    registry.tag("app", "1", &json!({"schemaVersion": 2, "config": loud, "layers": [loud]}));
    let image = format!("{}/app:1", registry.host);
    world.create(pod("p", json!({"containers": [{"name": "c", "image": image}]}))).await;
    let waits = |pod: Option<&Pod>| {
        pod.is_some_and(|pod| {
            has_statuses(pod) && waiting(pod, "c").is_some_and(|(reason, _)| reason == "ErrImagePull")
        })
    };
    let refused = world.wait("p", waits).await.expect("the pod");
    let (_, why) = waiting(&refused, "c").expect("waits");
    assert!(why.contains("a layer of type"), "{why:.2000}");
    assert!(why.len() < 2000 && !why.contains('\u{1b}'), "{why:.2000}");
    world.pods().delete("p", &DeleteParams::default()).await.expect("deleted");
}

async fn a_tag_that_moves_is_followed(world: &mut World) {
    let registry = Fake::start(Auth::None, Tls::No).await;
    let publish = |repository: &str, says: &str| {
        let config = json!({"Entrypoint": ["/bin/sh", "-c", format!("echo {says}")]});
        image::publish(&registry, repository, "latest", Vec::new(), &config);
    };
    let image = |repository: &str| format!("{}/{repository}", registry.host);
    let run = async |name: &str, policy: Value| {
        let of = |container: &str| json!({"name": container, "image": image(container), "imagePullPolicy": policy});
        world.create(pod(name, json!({"containers": [of("moves"), of("loaded")]}))).await;
        world.ended(name).await;
        [world.log(name, "moves").await, world.log(name, "loaded").await]
    };
    publish("moves", "first");
    publish("loaded", "elsewhere");
    let by_hand = json!({"Entrypoint": ["/bin/sh", "-c", "echo by hand"]});
    add(world, &image("loaded"), Vec::new(), &by_hand);
    assert_eq!(run("one", Value::Null).await, ["first\n", "by hand\n"]);
    publish("moves", "second");
    registry.requests();
    assert_eq!(run("two", "IfNotPresent".into()).await, ["first\n", "by hand\n"]);
    assert_eq!(registry.requests(), [""; 0]);
    assert_eq!(run("three", Value::Null).await, ["second\n", "by hand\n"]);
    assert!(
        registry.requests().iter().all(|request| !request.contains("loaded")),
        "nobody asks for what was loaded"
    );
}

async fn a_pull_holds_up_nobody_else(world: &mut World) {
    let registry = Fake::start(Auth::None, Tls::No).await;
    registry.odd("HEAD /v2/slow/manifests/1", Odd::Silence);
    let slow = format!("{}/slow:1", registry.host);
    let waits = world.create(pod("waits", json!({"containers": [{"name": "c", "image": slow}]}))).await;
    let volume = json!([{"name": "v", "image": {"reference": slow}}]);
    let mounts = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    add(world, "r.example/app:1", Vec::new(), &json!({}));
    let mounted = with(from("r.example/app:1", "c", "true"), mounts);
    let mounts = world.create(pod("mounts", json!({"volumes": volume, "containers": [mounted]}))).await;
    world.create(pod("other", json!({"containers": [from("r.example/app:1", "c", "echo ran")]}))).await;
    world.ended("other").await;
    assert_eq!(world.log("other", "c").await, "ran\n");
    // Nor a pod that is deleted.
    for pod in [waits, mounts] {
        let (name, uid) = (pod.metadata.name.expect("a name"), pod.metadata.uid.expect("a UID"));
        world.pods().delete(&name, &DeleteParams::default()).await.expect("deleted");
        world.wait(&name, is_deleted(&uid)).await;
    }
}

fn a_pull_makes_room() {
    let edit = |config: &mut NodeConfig| {
        config.rootfs = RootfsMode::Images;
        config.image_bytes = 0;
    };
    test_with(edit, async |world: &mut World| {
        let registry = Fake::start(Auth::None, Tls::No).await;
        let image = |repository: &str| format!("{}/{repository}:1", registry.host);
        for repository in ["first", "in-use", "last"] {
            let layer = Layer::new().file("name", 0o644, repository.as_bytes());
            image::publish(&registry, repository, "1", vec![layer], &json!({}));
        }
        add(world, "r.example/loaded:1", Vec::new(), &json!({}));
        let run = async |repository: &str, script: &str| {
            world
                .create(pod(repository, json!({"containers": [from(&image(repository), "c", script)]})))
                .await
        };
        let first = run("first", "true").await;
        world.ended("first").await;
        world.pods().delete("first", &DeleteParams::default()).await.expect("deleted");
        world.wait("first", is_deleted(first.metadata.uid.as_deref().expect("a UID"))).await;
        run("in-use", "sleep 1000").await;
        world.wait("in-use", phase(&["Running"])).await;
        run("last", "cat /name").await;
        world.ended("last").await;
        assert_eq!(world.log("last", "c").await, "last");
        let store = Store::open(&world.data_dir().join("images"), Limits::default()).expect("a store");
        let listed = store.list().expect("readable");
        let mut tags: Vec<_> = listed.iter().flat_map(|image| &image.references).collect();
        tags.retain(|name| !name.contains('@'));
        assert_eq!(tags, [&image("in-use"), &image("last"), "r.example/loaded:1"]);
    });
}

async fn an_image_is_a_volume(world: &mut World) {
    let tools = Layer::new().file("tools/version", 0o644, b"7\n");
    add(world, "r.example/tools:1", vec![tools], &json!({}));
    add(world, "r.example/app:1", Vec::new(), &json!({}));
    let look = "cat /t/tools/version; touch /t/x 2>/dev/null || echo read-only; /t/bin/cat /one";
    let mounts = json!({"volumeMounts": [
        {"name": "t", "mountPath": "/t"}, {"name": "t", "mountPath": "/one", "subPath": "tools/version"}]});
    let volumes = json!([{"name": "t", "image": {"reference": "r.example/tools:1"}}]);
    let spec = json!({"volumes": volumes, "containers": [with(from("r.example/app:1", "c", look), mounts)]});
    world.create(pod("p", spec)).await;
    world.ended("p").await;
    assert_eq!(world.log("p", "c").await, "7\nread-only\n7\n");
}

async fn an_image_gets_its_volumes(world: &mut World) {
    let layer = Layer::new()
        .directory("data", 0o1777)
        .file("data/given", 0o640, b"given\n")
        .link("linked", "/data")
        .file("srv/kept", 0o644, b"kept\n");
    let config =
        json!({"Volumes": {"/data": {}, "/linked/../new/deep": {}, "/srv": {}}, "WorkingDir": "/data/sub"});
    add(world, "r.example/volumes:1", vec![layer], &config);
    let script = "pwd; cat /data/given; stat -c '%a %u' /data/given /data /new/deep; touch /x 2>/dev/null || echo sealed; \
                  echo mine > /data/mine; echo mine > /new/deep/mine; ls /data /srv; stat -f -c %T /data /srv /";
    let sealed = json!({"securityContext": {"readOnlyRootFilesystem": true},
        "volumeMounts": [{"name": "v", "mountPath": "/srv/"}]});
    let spec = json!({"volumes": [{"name": "v", "emptyDir": {}}], "containers": [
        with(from("r.example/volumes:1", "c", script), sealed)]});
    world.create(pod("volumes", spec)).await;
    let ended = world.ended("volumes").await;
    assert_eq!(outcome(&ended, "c"), (0, "Completed".into(), String::new()));
    let log = world.log("volumes", "c").await;
    let (text, kinds) = log.split_at(log.find("\n\n/srv:\n").expect("a listing") + "\n\n/srv:\n".len());
    let expected = "/data/sub\ngiven\n640 0\n1777 0\n755 0\nsealed\n/data:\ngiven\nmine\nsub\n\n/srv:\n";
    assert_eq!(text, expected);
    let kinds: Vec<_> = kinds.lines().collect();
    assert!(matches!(kinds[..], [data, srv, "overlayfs"] if data == srv && data != "overlayfs"), "{kinds:?}");

    // What one container writes is gone with it.
    world
        .create(pod("next", json!({"containers": [from("r.example/volumes:1", "c", "ls /data /srv")]})))
        .await;
    world.ended("next").await;
    assert_eq!(world.log("next", "c").await, "/data:\ngiven\nsub\n\n/srv:\nkept\n");
    await_no_scratch(world, &ended).await;
    for name in ["volumes", "next"] {
        world.pods().delete(name, &DeleteParams::default()).await.expect("deleted");
    }
}

fn who_writes_too_much_is_evicted() {
    let edit = |config: &mut NodeConfig| {
        config.rootfs = RootfsMode::Images;
        config.layer_bytes = 48 << 20;
    };
    test_with(edit, async |world: &mut World| {
        add(world, "r.example/app:1", Vec::new(), &json!({"Volumes": {"/data": {}}}));
        let fill = |name: &str, at: &str| {
            from("r.example/app:1", name, &format!("while :; do cat /bin/cat >> {at}; sleep 0.001; done"))
        };
        let limits = json!({"resources": {"limits": {"ephemeral-storage": "2Mi"}}});
        let good = |name: &str| from("r.example/app:1", name, "exec sleep 1000");
        for (name, containers, message) in [
            (
                "layer",
                json!([good("good"), with(fill("bad", "/x"), limits)]),
                "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. ",
            ),
            (
                "volume",
                json!([fill("bad", "/data/x"), good("good")]),
                "Container bad wrote more outside its volumes than this node gives to one, 48Mi. ",
            ),
        ] {
            let spec = json!({"terminationGracePeriodSeconds": 600, "containers": containers});
            let made = world.create(pod(name, spec)).await;
            let ended = |pod: Option<&Pod>| {
                let status = |pod: &Pod, name: &str| container(pod, name).state.clone();
                pod.filter(|pod| has_statuses(pod)).is_some_and(|pod| {
                    ["bad", "good"]
                        .iter()
                        .all(|name| status(pod, name).is_some_and(|it| it.terminated.is_some()))
                })
            };
            let ended = world.wait(name, ended).await.expect("the pod");
            let status = ended.status.clone().expect("a status");
            assert_eq!(
                (status.phase.as_deref(), status.reason.as_deref(), status.message.as_deref()),
                (Some("Failed"), Some("Evicted"), Some(message))
            );
            assert_eq!((outcome(&ended, "bad").0, outcome(&ended, "good").0), (137, 137));
            world.event(&made, "Evicted", message).await;
        }
    });
}

/// By events, to whoever looks at the pod, and by how far they are, to whoever shows it.
fn pulls_are_told() {
    let pulls = tokio::sync::watch::Sender::default();
    let mut told = pulls.subscribe();
    let edit = |config: &mut NodeConfig| {
        config.rootfs = RootfsMode::Images;
        config.pulls = pulls;
    };
    test_with(edit, async |world: &mut World| {
        let registry = Fake::start(Auth::None, Tls::No).await;
        let layer = Layer::new().file("large", 0o644, &vec![7; 3 << 20]);
        let image::Made { manifest, .. } = image::make(vec![layer], &json!({}));
        let layer = Layer::new().file("large", 0o644, &vec![7; 3 << 20]);
        image::publish(&registry, "app", "1", vec![layer], &json!({}));
        let size = |layer: usize| manifest["layers"][layer]["size"].as_u64().expect("a size");
        let digest = manifest["layers"][1]["digest"].as_str().expect("a digest");
        let blob = format!("GET /v2/app/blobs/{digest}");
        registry.odd(&blob, Odd::Silence);
        let image = format!("{}/app:1", registry.host);
        let made = world.create(pod("p", json!({"containers": [from(&image, "c", "true")]}))).await;
        let one_is_here =
            |pulls: &Pulls| pulls.get(&image) == Some(&Progress { done: size(0), total: size(0) + size(1) });
        told.wait_for(one_is_here).await.expect("it is told");
        world.event(&made, "Pulling", &format!("Pulling image \"{image}\"")).await;
        world.pods().delete("p", &DeleteParams::default()).await.expect("deleted");
        told.wait_for(Pulls::is_empty).await.expect("it is told");

        registry.mend(&blob);
        let made = world.create(pod("again", json!({"containers": [from(&image, "c", "true")]}))).await;
        world.ended("again").await;
        let message =
            world.event(&made, "Pulled", &format!("Successfully pulled image \"{image}\" in ")).await;
        assert!(message.contains("s including waiting). Image size: "), "{message}");
        assert!(told.borrow().is_empty());

        let made = world.create(pod("third", json!({"containers": [from(&image, "c", "true")]}))).await;
        let words = format!("Container image \"{image}\" already present on machine");
        world.event(&made, "Pulled", &words).await;

        let none = format!("{}/none:1", registry.host);
        let made = world.create(pod("none", json!({"containers": [from(&none, "c", "true")]}))).await;
        for (reason, words) in [
            ("Failed", format!("Failed to pull image \"{none}\": ")),
            ("Failed", "Error: ErrImagePull".to_owned()),
            ("BackOff", format!("Back-off pulling image \"{none}\"")),
            ("Failed", "Error: ImagePullBackOff".to_owned()),
        ] {
            world.event(&made, reason, &words).await;
        }
    });
}

/// The controllers ask no registry for what is here: none of this name exists.
fn a_step_without_a_command_takes_its_images() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, Box::pin(bare_step())).await }).expect("in time");
}

async fn bare_step() {
    let root = tempfile::tempdir_in("/var/lib").expect("a directory");
    let config = json!({"Entrypoint": ["/bin/sh", "-c", "echo $0 $(id -u) $(pwd) \"$@\""], "Cmd": ["cmd"],
        "User": "build", "WorkingDir": "/srv/app"});
    image::add(&root.path().join("images"), "r.invalid/team/app:1", accounts(), &config);
    let config = ropewalk_standalone::Config { data_root: root.path().to_owned(), ..Default::default() };
    let standalone = Standalone::start(config).expect("started");
    let client = standalone.client();
    let runs: Api<TaskRun> = Api::default_namespaced(client.clone());
    let step = |name: &str, args: Value| json!({"name": name, "image": "r.invalid/team/app:1", "args": args});
    let run = json!({"apiVersion": "tekton.dev/v1", "kind": "TaskRun", "metadata": {"name": "bare"},
        "spec": {"taskSpec": {"steps": [step("plain", json!([])), step("args", json!(["$HOME", "a b"]))]}}});
    let run: TaskRun = serde_json::from_value(run).expect("a run");
    runs.create(&PostParams::default(), &run).await.expect("created");
    let ended = |run: Option<&TaskRun>| {
        let status = run.and_then(|run| serde_json::to_value(&run.status).ok());
        status.is_some_and(|status| status["completionTime"].is_string())
    };
    let ended = await_condition(runs, "bare", ended).await.expect("watched").expect("the run");
    let status = serde_json::to_value(&ended.status).expect("a status");
    assert_eq!(status["conditions"][0]["status"], "True", "{status:#}");
    let pods: Api<Pod> = Api::default_namespaced(client);
    let log = async |step: &str| {
        let parameters = LogParams { container: Some(format!("step-{step}")), ..LogParams::default() };
        pods.logs("bare-pod", &parameters).await.expect("a log")
    };
    assert_eq!(log("plain").await, "cmd 1000 /srv/app\n");
    assert_eq!(log("args").await, "$HOME 1000 /srv/app a b\n");
    let id = status["steps"][0]["imageID"].as_str().expect("an id");
    assert!(id.starts_with("r.invalid/team/app@sha256:"), "{id}");
    standalone.stop().await.expect("stopped");
}

async fn images_in_use_stay(world: &mut World) {
    add(world, "r.example/app:1", Vec::new(), &json!({}));
    let store = image::store(&world.data_dir().join("images"));
    world.create(pod("p", json!({"containers": [from("r.example/app:1", "c", "exec sleep 1000")]}))).await;
    world.wait("p", phase(&["Running"])).await.expect("the pod");
    assert_eq!(store.prune(0).expect("pruned").images, [""; 0]);
    let refused = store.remove("r.example/app:1").expect_err("it is in use");
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
    let ending = json!({"spec": {"activeDeadlineSeconds": 1}});
    world.pods().patch("p", &PatchParams::default(), &Patch::Merge(&ending)).await.expect("patched");
    let ended = world.ended("p").await;
    await_no_scratch(world, &ended).await;
    // The pod is still there, its container is not.
    assert_eq!(store.prune(0).expect("pruned").images.len(), 1);
}

async fn the_image_says_how_to_stop(world: &mut World) {
    add(world, "r.example/quits:1", Vec::new(), &json!({"StopSignal": "SIGQUIT"}));
    let script =
        "trap 'echo asked; exit 5' QUIT; trap 'echo wrong' TERM; echo up; while :; do sleep 0.01; done";
    let spec = json!({"activeDeadlineSeconds": 3600, "terminationGracePeriodSeconds": 600,
        "containers": [from("r.example/quits:1", "c", script)]});
    world.create(pod("p", spec)).await;
    world.wait("p", phase(&["Running"])).await.expect("the pod");
    await_line(world, "p", "c", "up").await;
    let ending = json!({"spec": {"activeDeadlineSeconds": 1}});
    world.pods().patch("p", &PatchParams::default(), &Patch::Merge(&ending)).await.expect("patched");
    // The pod has failed before its container has ended.
    let ended = |pod: Option<&Pod>| {
        let status = pod.filter(|pod| has_statuses(pod)).map(|pod| container(pod, "c"));
        status.is_some_and(|status| status.state.as_ref().is_some_and(|state| state.terminated.is_some()))
    };
    let ended = world.wait("p", ended).await.expect("the pod");
    assert_eq!(outcome(&ended, "c").0, 5);
    assert_eq!(world.log("p", "c").await, "up\nasked\n");
}

async fn containers_from_images_are_adopted(world: &mut World) {
    let image = add(world, "r.example/app:1", Vec::new(), &json!({}));
    let script = "until [ -e /v/go ]; do sleep 0.01; done; cat /v/go; exit 4";
    let spec = json!({"volumes": [{"name": "v", "emptyDir": {}}], "containers": [
        with(from("r.example/app:1", "c", script), json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}))]});
    let made = world.create(pod("p", spec)).await;
    world.wait("p", phase(&["Running"])).await.expect("the pod");
    world.leave().await;
    let store = image::store(&world.data_dir().join("images"));
    assert_eq!(store.prune(0).expect("pruned").images, [""; 0], "no node runs, the container does");
    world.come_back();
    let uid = made.metadata.uid.as_deref().expect("a UID");
    std::fs::write(world.data_dir().join("pods").join(uid).join("volumes/v/go"), "on\n").expect("written");
    let ended = world.ended("p").await;
    assert_eq!(outcome(&ended, "c").0, 4);
    assert_eq!(container(&ended, "c").image_id, image.pinned);
    assert_eq!(world.log("p", "c").await, "on\n");
}

/// As many as Docker allows; their paths together are longer than what the kernel takes.
async fn many_layers_are_one_root(world: &mut World) {
    let layers = (0..126).map(|n| Layer::new().file(&format!("layer-{n}"), 0o644, n.to_string().as_bytes()));
    add(world, "r.example/deep:1", layers.collect(), &json!({}));
    let look = "cat /layer-0 /layer-63 /layer-125; set -- /layer-*; echo \" $#\"";
    let volumes = json!([{"name": "t", "image": {"reference": "r.example/deep:1"}}]);
    let mounted = with(
        from("r.example/deep:1", "c", &format!("{look}; cat /t/layer-125")),
        json!({"volumeMounts": [{"name": "t", "mountPath": "/t"}]}),
    );
    world.create(pod("p", json!({"volumes": volumes, "containers": [mounted]}))).await;
    world.ended("p").await;
    assert_eq!(world.log("p", "c").await, "063125 126\n125");
}

//! Pods with networks of their own: what serves in them is reached, by probes too; the next process finds them; nothing
//! is left. That packets get where they should, and nowhere else, is tried in `ropewalk-network`.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use kube::runtime::wait::await_condition;
use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;
use ropewalk_standalone::node::{NetworkChoice, NodeConfig, PodNetwork};
use serde_json::{Value, json};

use crate::world::{World, container, outcome, phase, pod, script, test, test_with, with};

type Test = (&'static str, fn());

const PORT: u16 = 8080;

/// As many as make a median steady.
const MEASURED: usize = 20;

pub(crate) fn all() -> Vec<Test> {
    vec![
        ("pods_serve_on_one_port_and_are_probed", pods_serve_on_one_port_and_are_probed),
        ("containers_of_a_pod_share_its_network", containers_of_a_pod_share_its_network),
        ("a_pod_sets_what_is_safe_of_its_own_network", a_pod_sets_what_is_safe_of_its_own_network),
        ("a_pod_knows_its_address", a_pod_knows_its_address),
        ("a_pod_may_ask_for_the_machines_network", a_pod_may_ask_for_the_machines_network),
        ("a_port_of_the_machine_is_refused_with_a_word", a_port_of_the_machine_is_refused_with_a_word),
        ("networks_are_adopted_and_end_with_their_pods", networks_are_adopted_and_end_with_their_pods),
        ("what_runs_keeps_its_network", what_runs_keeps_its_network),
        ("the_node_says_which_network_pods_have", the_node_says_which_network_pods_have),
        ("the_time_pods_take_with_networks_of_their_own", the_time_pods_take_with_networks_of_their_own),
    ]
}

pub(crate) fn own(config: &mut NodeConfig) {
    adopted(config, 0);
}

fn adopted(config: &mut NodeConfig, running: usize) {
    let network = PodNetwork::open(&config.data_dir, Some(NetworkChoice::Own), running);
    config.network = network.expect("a network");
}

fn address(pod: &Pod) -> Ipv4Addr {
    let status = pod.status.as_ref().expect("a status");
    let ip = status.pod_ip.clone().expect("an address");
    assert_eq!(status.pod_ips.as_ref().expect("addresses")[0].ip, ip);
    ip.parse().expect("IPv4")
}

/// Serves in the network that a container's first process is in.
fn listen(process: Pid) -> TcpListener {
    let namespace = File::open(format!("/proc/{process}/ns/net")).expect("opened");
    std::thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).expect("entered");
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).expect("listens")
    })
    .join()
    .expect("done")
}

/// Answers everybody until the test ends.
fn serve(listener: TcpListener, text: &'static str) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // A probe is gone before it has heard everything.
            let _ = stream.and_then(|mut stream| stream.write_all(text.as_bytes()));
        }
    });
}

fn hear(address: Ipv4Addr) -> String {
    let mut text = String::new();
    let mut stream = TcpStream::connect((address, PORT)).expect("connected");
    stream.read_to_string(&mut text).expect("heard");
    text
}

/// A pod whose container runs until it is stopped, and is ready when somebody serves in it.
fn probed(name: &str) -> Value {
    let probe = json!({"readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1}});
    pod(name, json!({"containers": [with(script("c", "sleep 1000"), probe)]}))
}

fn pods_serve_on_one_port_and_are_probed() {
    test_with(own, async |world: &mut World| {
        for name in ["one", "two"] {
            world.create(probed(name)).await;
        }
        let one = world.wait("one", phase(&["Running"])).await.expect("the pod");
        let two = world.wait("two", phase(&["Running"])).await.expect("the pod");
        assert_ne!(address(&one), address(&two));
        serve(listen(world.process(&one, "c", "init")), "one");
        let ready = world.wait("one", is_ready).await.expect("the pod");
        assert!(container(&ready, "c").ready);
        assert!(
            !container(&world.pods().get("two").await.expect("read"), "c").ready,
            "nobody serves in it yet"
        );
        serve(listen(world.process(&two, "c", "init")), "two");
        world.wait("two", is_ready).await;
        assert_eq!((hear(address(&one)), hear(address(&two))), ("one".into(), "two".into()));
        let asks =
            format!("cat < /dev/tcp/{}/{PORT}; cat < /dev/tcp/{}/{PORT}", address(&one), address(&two));
        let client = json!({"name": "c", "image": "host", "command": ["bash", "-c", asks]});
        world.create(pod("client", json!({"containers": [client]}))).await;
        assert_eq!(outcome(&world.ended("client").await, "c").0, 0);
        assert_eq!(world.log("client", "c").await, "onetwo");
    });
}

fn is_ready(pod: Option<&Pod>) -> bool {
    let conditions = pod.and_then(|pod| pod.status.as_ref()?.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|said| said.type_ == "Ready" && said.status == "True"))
}

/// Says which network namespace it is in.
const WHERE: &str = "readlink /proc/self/ns/net";

fn here() -> String {
    std::fs::read_link("/proc/self/ns/net").expect("read").display().to_string()
}

fn containers_of_a_pod_share_its_network() {
    test_with(own, async |world: &mut World| {
        // A further command is where its container is, too.
        let same = "[ \"$(readlink /proc/self/ns/net)\" = \"$(readlink /proc/1/ns/net)\" ]";
        let probe = json!({"readinessProbe": {"exec": {"command": ["sh", "-c", same]}, "periodSeconds": 1}});
        let waits = format!("{WHERE}; sleep 1000");
        let containers = json!([script("a", WHERE), with(script("b", &waits), probe)]);
        let init = json!([script("init", WHERE)]);
        world.create(pod("p", json!({"initContainers": init, "containers": containers}))).await;
        world
            .wait("p", |pod: Option<&Pod>| pod.is_some_and(|pod| has(pod) && container(pod, "b").ready))
            .await;
        let (init, a) = (world.log("p", "init").await, world.log("p", "a").await);
        assert!(a.starts_with("net:["), "{a}");
        assert_eq!((init.as_str(), world.log("p", "b").await.as_str()), (a.as_str(), a.as_str()));
        assert_ne!(a.trim(), here());
    });
}

fn a_pod_sets_what_is_safe_of_its_own_network() {
    test_with(own, async |world: &mut World| {
        let here = || std::fs::read_to_string("/proc/sys/net/ipv4/tcp_fin_timeout").expect("read");
        let before = here();
        let pod_with = |name: &str, more: Value| {
            let context = json!({"sysctls": [{"name": "net.ipv4.tcp_fin_timeout", "value": "17"}]});
            let containers = json!([script("c", "cat /proc/sys/net/ipv4/tcp_fin_timeout")]);
            pod(name, with(json!({"securityContext": context, "containers": containers}), more))
        };
        world.create(pod_with("own", json!({}))).await;
        world.ended("own").await;
        assert_eq!(world.log("own", "c").await, "17\n");
        let made = world.create(pod_with("shared", json!({"hostNetwork": true}))).await;
        let status = world.ended("shared").await.status.expect("a status");
        let words = "forbidden sysctl: \"net.ipv4.tcp_fin_timeout\" not allowed with host Net enabled";
        assert_eq!(
            (status.phase.as_deref(), status.reason.as_deref(), status.message),
            (Some("Failed"), Some("SysctlForbidden"), Some(format!("Pod was rejected: {words}")))
        );
        world.event(&made, "SysctlForbidden", words).await;
        assert_eq!(here(), before, "the machine's own stays");
    });
}

/// Whether there are statuses of its containers.
fn has(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.container_statuses.is_some())
}

fn a_pod_knows_its_address() {
    test_with(own, async |world: &mut World| {
        let field =
            |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
        let env = json!({"env": [field("POD", "status.podIP"), field("HOST", "status.hostIP")]});
        let says = script("c", "echo $POD $HOST; grep -w p /etc/hosts");
        world.create(pod("p", json!({"hostname": "p", "containers": [with(says, env)]}))).await;
        let ended = world.ended("p").await;
        let (own, host) =
            (address(&ended), ended.status.as_ref().expect("a status").host_ip.clone().expect("an address"));
        assert_ne!(own.to_string(), host);
        assert_eq!(world.log("p", "c").await, format!("{own} {host}\n{own}\tp\n"));
        // Its end was told, and still it is known by the address that is free by now.
        let network = namespace(world, &ended);
        while network.exists() {
            tokio::task::yield_now().await;
        }
        assert_eq!(address(&world.pods().get("p").await.expect("read")), own);
    });
}

/// What a pod's network namespace is mounted on.
fn namespace(world: &World, pod: &Pod) -> PathBuf {
    let uid = pod.metadata.uid.as_deref().expect("a UID");
    world.data_dir().join("network").join(uid).join("netns")
}

fn a_pod_may_ask_for_the_machines_network() {
    test_with(own, async |world: &mut World| {
        world.create(pod("p", json!({"hostNetwork": true, "containers": [script("c", WHERE)]}))).await;
        let ended = world.ended("p").await;
        assert_eq!(world.log("p", "c").await.trim(), here());
        assert_eq!(Some(address(&ended).to_string()), ended.status.expect("a status").host_ip);
    });
}

fn a_port_of_the_machine_is_refused_with_a_word() {
    test_with(own, async |world: &mut World| {
        let ports = json!({"ports": [{"containerPort": 80, "hostPort": 18080}, {"containerPort": 81}]});
        world.create(pod("p", json!({"containers": [with(script("c", "exit 0"), ports)]}))).await;
        assert_eq!(outcome(&world.ended("p").await, "c").0, 0);
        let events: Api<Event> = Api::default_namespaced(world.client.clone());
        let events = events.list(&ListParams::default()).await.expect("listed");
        let said: Vec<_> = events
            .items
            .into_iter()
            .filter(|event| event.reason.as_deref() == Some("HostPortNotSupported"))
            .collect();
        assert_eq!(said.len(), 1, "once");
        assert!(
            said[0].message.as_ref().expect("a message").starts_with("hostPort 18080 is not opened"),
            "{said:?}"
        );
    });
}

fn networks_are_adopted_and_end_with_their_pods() {
    test_with(own, async |world: &mut World| {
        world.create(probed("p")).await;
        let running = world.wait("p", phase(&["Running"])).await.expect("the pod");
        let network = namespace(world, &running);
        serve(listen(world.process(&running, "c", "init")), "served");
        world.wait("p", is_ready).await;
        world.leave().await;
        assert_eq!(hear(address(&running)), "served", "without anybody");
        world.come_back_with(|config| adopted(config, 1));
        // Another one has another address.
        world.create(pod("q", json!({"containers": [script("c", "exit 0")]}))).await;
        assert_ne!(address(&world.ended("q").await), address(&running));
        let adopted = world.pods().get("p").await.expect("read");
        assert_eq!(address(&adopted), address(&running));
        assert_eq!(hear(address(&running)), "served");
        let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        world.pods().delete("p", &at_once).await.expect("deleted");
        while network.exists() {
            tokio::task::yield_now().await;
        }
    });
}

fn what_runs_keeps_its_network() {
    test_with(own, async |world: &mut World| {
        let open = |wish, running| PodNetwork::open(world.data_dir(), wish, running);
        let refused = open(Some(NetworkChoice::Host), 2).expect_err("refused").to_string();
        assert!(
            refused.contains("2 containers of an earlier process run with --pod-network own"),
            "{refused}"
        );
        assert!(matches!(open(None, 2), Ok(PodNetwork::Own(_))));
        let shared = tempfile::tempdir().expect("a directory");
        let open = |wish| PodNetwork::open(shared.path(), wish, 1);
        assert!(matches!(open(None), Ok(PodNetwork::Host { .. })));
        let refused = open(Some(NetworkChoice::Own)).expect_err("refused").to_string();
        assert!(refused.contains("run with --pod-network host"), "{refused}");
    });
}

async fn said(world: &World) -> String {
    let nodes: Api<Node> = Api::all(world.client.clone());
    let registered = |node: Option<&Node>| node.is_some();
    let node = await_condition(nodes, "ropewalk", registered).await.expect("watched").expect("the node");
    let conditions = node.status.and_then(|status| status.conditions).expect("conditions");
    let network =
        conditions.into_iter().find(|said| said.type_ == "NetworkUnavailable").expect("one of the network");
    assert_eq!(network.status, "False");
    network.message.expect("a message")
}

fn the_node_says_which_network_pods_have() {
    test_with(own, async |world: &mut World| {
        let said = said(world).await;
        let range =
            said.split_once("addresses in ").expect("the range").1.split_once('/').expect("its bits").0;
        assert!(range.parse::<IpAddr>().is_ok(), "{said}");
    });
    test(async |world: &mut World| {
        assert!(said(world).await.starts_with("pods share the network of this machine"));
    });
}

fn the_time_pods_take_with_networks_of_their_own() {
    async fn median(world: &mut World) -> Duration {
        let mut times = Vec::new();
        for number in 0..MEASURED {
            let name = format!("p{number}");
            let start = Instant::now();
            world.create(pod(&name, json!({"containers": [script("c", "exit 0")]}))).await;
            assert_eq!(outcome(&world.ended(&name).await, "c").0, 0);
            times.push(start.elapsed());
        }
        times.sort_unstable();
        times[MEASURED / 2]
    }
    let (mut with_own, mut with_host) = (Duration::ZERO, Duration::ZERO);
    test_with(own, async |world: &mut World| with_own = median(world).await);
    test(async |world: &mut World| with_host = median(world).await);
    println!(
        "figures: a pod of one container takes {with_own:?} with a network of its own, {with_host:?} with the machine's (medians of {MEASURED}, one after another)"
    );
}

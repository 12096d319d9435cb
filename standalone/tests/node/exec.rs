//! Commands in running containers, as the real kubectl and a bare WebSocket ask for them.

use std::net::SocketAddr;
use std::process::{Output, Stdio};

use futures::{SinkExt, StreamExt};
use ropewalk_standalone::node::OWN_EXECUTABLE;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::world::{PATIENCE, World, has_runc, outcome, phase, pod, runc, script, test, test_with, with};

pub(crate) fn all() -> Vec<(&'static str, fn())> {
    let mut tests = vec![
        ("kubectl_runs_commands", kubectl_runs_commands as fn()),
        ("a_command_is_contained_as_its_container_is", a_command_is_contained_as_its_container_is),
        ("a_terminal_has_the_size_of_the_window", a_terminal_has_the_size_of_the_window),
        ("a_command_ends_with_its_client", a_command_ends_with_its_client),
        ("a_command_ends_with_the_process_that_ran_it", a_command_ends_with_the_process_that_ran_it),
        ("only_the_protocols_that_are_spoken", only_the_protocols_that_are_spoken),
    ];
    if has_runc() {
        tests.push(("kubectl_runs_commands_with_runc", kubectl_runs_commands_with_runc));
        tests.push(("a_terminal_with_runc", a_terminal_with_runc));
    }
    tests
}

/// The world's API on a socket.
async fn serve(world: &World) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(world.server.clone().serve(listener, std::future::pending()));
    address
}

/// Whether kubectl is there, on a line nobody overlooks if not.
async fn has_kubectl() -> bool {
    let found = Command::new("kubectl").args(["version", "--client"]).stdout(Stdio::null()).status().await;
    let found = found.is_ok_and(|status| status.success());
    if !found {
        let required = std::env::var_os("ROPEWALK_REQUIRE_TOOLS").is_some();
        assert!(!required, "kubectl is required, and not on this machine");
        eprintln!("SKIPPED: no kubectl on this machine, so commands in containers were not tried with it");
    }
    found
}

async fn kubectl(address: SocketAddr, arguments: &[&str], stdin: &str) -> Output {
    let home = tempfile::tempdir().expect("a directory");
    let mut child = Command::new("kubectl")
        .args([&format!("--server=http://{address}"), "--kubeconfig=/dev/null"])
        .args(arguments)
        .env("HOME", home.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl");
    let mut pipe = child.stdin.take().expect("a pipe");
    pipe.write_all(stdin.as_bytes()).await.expect("written");
    drop(pipe);
    tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("in time").expect("an end")
}

/// A pod whose container `c` runs until it is deleted, and whose container `done` has ended.
async fn running(world: &World) {
    let spec = json!({ "terminationGracePeriodSeconds": 1, "containers": [
        with(script("c", "echo up; sleep 1000"), json!({ "env": [{ "name": "A", "value": "1 2" }] })),
        script("done", "true"),
    ] });
    world.create(pod("p", spec)).await;
    let done = |pod: Option<&k8s_openapi::api::core::v1::Pod>| {
        let statuses = pod.and_then(|pod| pod.status.as_ref()?.container_statuses.as_ref());
        statuses.is_some_and(|statuses| {
            let state = |index: usize| statuses.get(index).and_then(|status| status.state.as_ref());
            state(0).is_some_and(|state| state.running.is_some())
                && state(1).is_some_and(|state| state.terminated.is_some())
        })
    };
    world.wait("p", done).await;
}

async fn try_kubectl(world: &World) {
    if !has_kubectl().await {
        return;
    }
    running(world).await;
    let address = serve(world).await;
    let many = "x".repeat(300_000);
    for (arguments, stdin, code, printed, complained) in [
        (
            vec!["exec", "p", "-c", "c", "--", "sh", "-c", "echo out; echo err >&2; exit 3"],
            "",
            3,
            "out\n",
            "err\n",
        ),
        (vec!["exec", "p", "-c", "c", "--", "sh", "-c", "echo $A"], "", 0, "1 2\n", ""),
        // The end of the input is the end of the command.
        (vec!["exec", "-i", "p", "-c", "c", "--", "cat"], many.as_str(), 0, many.as_str(), ""),
        // Without -i there is none.
        (vec!["exec", "p", "-c", "c", "--", "cat"], "lost", 0, "", ""),
        (vec!["exec", "p", "-c", "c", "--", "sh", "-c", "kill -9 $$"], "", 137, "", "exit code 137"),
        (vec!["exec", "p", "-c", "c", "--", "no-such-command"], "", 1, "", "no-such-command"),
        (vec!["exec", "p", "-c", "nope", "--", "true"], "", 1, "", "container nope is not valid for pod p"),
        (vec!["exec", "p", "-c", "done", "--", "true"], "", 1, "", "container not found (\"done\")"),
        (vec!["exec", "nope", "--", "true"], "", 1, "", "pods \"nope\" not found"),
    ] {
        let output = kubectl(address, &arguments, stdin).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), printed, "{arguments:?}: {error}");
        assert!(error.contains(complained), "{arguments:?}: {error}");
    }
}

fn kubectl_runs_commands() {
    test(async |world: &mut World| try_kubectl(world).await);
}

fn kubectl_runs_commands_with_runc() {
    test_with(runc, async |world: &mut World| try_kubectl(world).await);
}

async fn connect(
    address: SocketAddr,
    query: &str,
    protocol: Option<&'static str>,
) -> Result<WebSocketStream<TcpStream>, Error> {
    let url = format!("ws://{address}/api/v1/namespaces/default/pods/p/exec?container=c&{query}");
    let mut request = url.into_client_request()?;
    if let Some(protocol) = protocol {
        request.headers_mut().insert("sec-websocket-protocol", protocol.parse().expect("a header"));
    }
    let stream = TcpStream::connect(address).await.expect("connected");
    client_async(request, stream).await.map(|(socket, _)| socket)
}

async fn open(address: SocketAddr, query: &str) -> WebSocketStream<TcpStream> {
    connect(address, query, Some("v4.channel.k8s.io, v5.channel.k8s.io")).await.expect("a WebSocket")
}

/// What comes on a channel until it says something that ends with `end`, or the server closes.
async fn hear(socket: &mut WebSocketStream<TcpStream>, channel: u8, end: &str) -> String {
    let mut heard = Vec::new();
    while let Some(message) = tokio::time::timeout(PATIENCE, socket.next()).await.expect("in time") {
        let Ok(Message::Binary(bytes)) = message else { break };
        if bytes.first() == Some(&channel) {
            heard.extend_from_slice(&bytes[1..]);
            if !end.is_empty() && heard.ends_with(end.as_bytes()) {
                break;
            }
        }
    }
    String::from_utf8(heard).expect("text")
}

async fn say(socket: &mut WebSocketStream<TcpStream>, channel: u8, text: &str) {
    let message = [&[channel], text.as_bytes()].concat();
    socket.send(Message::Binary(message.into())).await.expect("sent");
}

fn a_command_is_contained_as_its_container_is() {
    test(async |world: &mut World| {
        // Its own user, groups, rights, limits and place, seen from inside; of a cgroup's line only the path tells.
        let look = "id; pwd; hostname; grep -E 'Cap|NoNewPrivs|SigIgn' /proc/self/status; cat /proc/self/cgroup; \
                    for n in mnt pid ipc uts net; do readlink /proc/self/ns/$n; done; ls /proc | grep -c '^1$'";
        let limited = json!({
            "workingDir": "/tmp", "resources": { "limits": { "memory": "64Mi" } },
            "securityContext": { "runAsUser": 1234, "runAsGroup": 99, "allowPrivilegeEscalation": false,
                                 "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] } },
        });
        let text = format!("{{ {look}; }}; sleep 1000");
        let spec =
            json!({ "terminationGracePeriodSeconds": 1, "containers": [with(script("c", &text), limited)] });
        world.create(pod("p", spec)).await;
        world.wait("p", phase(&["Running"])).await;
        let address = serve(world).await;
        let query = format!("stdout=true&stderr=true&command=sh&command=-c&command={}", encoded(look));
        let inside = hear(&mut open(address, &query).await, 1, "").await;
        assert!(inside.contains("uid=1234") && inside.lines().count() > 10, "{inside}");
        // The container has said all of it before it sleeps, which is when its log is complete.
        let mut own = world.log("p", "c").await;
        while own.lines().count() < inside.lines().count() {
            own = world.log("p", "c").await;
        }
        assert_eq!(inside, own);
    });
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat()
}

async fn try_terminal(world: &World) {
    running(world).await;
    let address = serve(world).await;
    let script = "test -t 0 && test -t 2 && echo $TERM; read line; stty size; exit 5";
    let query = format!("stdin=1&stdout=1&stderr=1&tty=1&command=sh&command=-c&command={}", encoded(script));
    let mut socket = open(address, &query).await;
    assert_eq!(hear(&mut socket, 1, "\n").await, "xterm\r\n");
    say(&mut socket, 4, r#"{"Width":123,"Height":45}"#).await;
    say(&mut socket, 0, "go\n").await;
    // A terminal shows what is typed.
    assert_eq!(hear(&mut socket, 1, "123\r\n").await, "go\r\n45 123\r\n");
    let status: Value = serde_json::from_str(&hear(&mut socket, 3, "").await).expect("a status");
    assert_eq!(status["details"]["causes"], json!([{ "reason": "ExitCode", "message": "5" }]));
}

fn a_terminal_has_the_size_of_the_window() {
    test(async |world: &mut World| try_terminal(world).await);
}

fn a_terminal_with_runc() {
    test_with(runc, async |world: &mut World| try_terminal(world).await);
}

fn a_command_ends_with_its_client() {
    test(async |world: &mut World| {
        // The container sees its command, as both are in one namespace of processes.
        world.create(pod("p", json!({ "containers": [script("c", UNTIL_GONE)] }))).await;
        world.wait("p", phase(&["Running"])).await;
        let address = serve(world).await;
        let script = encoded("echo $$ >/tmp/pid; echo begun; exec sleep 1000");
        let mut socket = open(address, &format!("stdout=1&command=sh&command=-c&command={script}")).await;
        assert_eq!(hear(&mut socket, 1, "\n").await, "begun\n");
        drop(socket);
        assert_eq!(outcome(&world.ended("p").await, "c").0, 7);
    });
}

/// A container that ends with code 7 when the process whose id is in its `/tmp/pid` does.
const UNTIL_GONE: &str = "until [ -s /tmp/pid ]; do sleep 0.01; done; echo seen; \
                          while kill -0 $(cat /tmp/pid); do sleep 0.01; done; exit 7";

fn a_command_ends_with_the_process_that_ran_it() {
    test(async |world: &mut World| {
        let made = world.create(pod("p", json!({ "containers": [script("c", UNTIL_GONE)] }))).await;
        world.wait("p", phase(&["Running"])).await;
        // As a process would have left it that was killed and had the id 1.
        let data_dir = world.instance.as_ref().expect("an instance").data_dir().to_owned();
        let uid = made.metadata.uid.expect("a uid");
        let directory = data_dir.join("pods").join(uid).join("containers/c/0/exec/1-0");
        std::fs::create_dir_all(&directory).expect("made");
        let command = json!(["sh", "-c", "echo $$ >/tmp/pid; exec sleep 1000"]);
        let wanted = json!({ "command": command, "tty": false }).to_string();
        std::fs::write(directory.join("wanted.json"), wanted).expect("written");
        let mut shim = Command::new(OWN_EXECUTABLE);
        let mut shim = shim.args(["__shim", "command"]).arg(&directory).spawn().expect("started");
        while !world.log("p", "c").await.contains("seen") {}
        world.restart().await;
        assert_eq!(outcome(&world.ended("p").await, "c").0, 7);
        shim.wait().await.expect("ended");
    });
}

fn only_the_protocols_that_are_spoken() {
    test(async |world: &mut World| {
        running(world).await;
        let address = serve(world).await;
        let refused =
            async |protocol: Option<&'static str>| match connect(address, "stdout=1&command=true", protocol)
                .await
            {
                Err(Error::Http(response)) => (
                    response.status().as_u16(),
                    String::from_utf8(response.into_body().unwrap_or_default()).expect("text"),
                ),
                other => panic!("not refused: {other:?}"),
            };
        for protocol in [None, Some("channel.k8s.io")] {
            let (code, said) = refused(protocol).await;
            assert!(code == 400 && said.contains("v5.channel.k8s.io"), "{code} {said}");
        }
        let mut old = connect(address, "stdout=1&command=true", Some("v4.channel.k8s.io")).await.expect("v4");
        assert!(hear(&mut old, 3, "").await.contains("Success"));
        // What kubectl falls back to.
        let mut stream = TcpStream::connect(address).await.expect("connected");
        let head = "POST /api/v1/namespaces/default/pods/p/exec?container=c&stdout=1&command=true HTTP/1.1\r\n\
                    Host: localhost\r\nConnection: close, Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut said = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut said).await.expect("text");
        assert!(said.starts_with("HTTP/1.1 400") && said.contains("SPDY is not served"), "{said}");
    });
}

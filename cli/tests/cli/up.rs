//! `ropewalk up` as kubectl, pods and strangers meet it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{can_run_containers, printed, ropewalk};

/// A server in a directory of its own, on a port that was free.
struct Server {
    process: Child,
    address: String,
    kubeconfig: PathBuf,
    directory: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        Self::start_as(command)
    }

    fn start_as(command: impl FnOnce(&Path) -> Command) -> Self {
        // Not below /tmp, which is empty for containers anyway: where the program keeps its data by default.
        let directory = tempfile::tempdir_in("/var/lib").expect("a directory");
        let mut process = command(directory.path()).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let mut after = |prefix: &str| {
            let line = lines.next().expect("a line").expect("text");
            line.strip_prefix(prefix).expect("what it serves").to_owned()
        };
        let address = after("serving at https://");
        let kubeconfig = PathBuf::from(after("export KUBECONFIG="));
        Self { process, address, kubeconfig, directory }
    }

    fn kubectl(&self, line: &str, stdin: &str) -> Output {
        let mut child = Command::new("kubectl")
            .args(["--request-timeout=60s", "--cache-dir"])
            .arg(self.directory.path().join("cache"))
            .args(line.split_whitespace())
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        child.stdin.take().expect("piped").write_all(stdin.as_bytes()).expect("written");
        child.wait_with_output().expect("kubectl ends")
    }

    /// What kubectl printed, where it worked.
    fn works(&self, line: &str, stdin: &str) -> String {
        let output = self.kubectl(line, stdin);
        assert!(output.status.success(), "kubectl {line}: {}", printed(&output));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    /// What kubectl complained about, where it did not.
    fn fails(&self, line: &str) -> String {
        let output = self.kubectl(line, "");
        assert!(!output.status.success(), "kubectl {line}: {}", printed(&output));
        String::from_utf8(output.stderr).expect("text") + &String::from_utf8_lossy(&output.stdout)
    }

    /// Ends it as a service manager does.
    fn end(&mut self) -> ExitStatus {
        // One that has ended gets no signal.
        let _ = kill(Pid::from_raw(self.process.id().try_into().expect("fits")), Signal::SIGTERM);
        self.process.wait().expect("it ends")
    }

    fn stop(mut self) {
        let status = self.end();
        assert!(status.success(), "{status}");
    }
}

/// A test that fails leaves no server behind.
impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.process.try_wait() {
            self.end();
        }
        // A run may not have ended.
        let _ = ropewalk().args(["down", "--data-dir"]).arg(self.directory.path()).output();
    }
}

fn command(directory: &Path) -> Command {
    let mut command = ropewalk();
    command.args(["up", "--rootfs", "host", "--listen", "127.0.0.1:0", "--data-dir"]).arg(directory);
    command
}

#[expect(clippy::print_stderr, reason = "a skipped test says so loudly")]
pub(crate) fn has_kubectl() -> bool {
    let found = Command::new("kubectl").args(["version", "--client"]).output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        assert!(std::env::var_os("ROPEWALK_REQUIRE_TOOLS").is_none(), "the gate needs kubectl");
        eprintln!("SKIPPED: no kubectl on this machine, so `ropewalk up` was not tried with it");
    }
    found
}

const RUN: &str = "\
apiVersion: tekton.dev/v1
kind: TaskRun
metadata: {name: greeting}
spec:
  taskSpec:
    steps:
    - image: i
      script: echo hello
";

/// Says where the API server is, and waits.
const WAITS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: waits}
spec:
  containers:
  - {name: c, image: i, command: [sh, -c, "echo $KUBERNETES_SERVICE_HOST; sleep 1000"]}
"#;

/// Looks at the API as pods do, with what they find in themselves; bash speaks no TLS, so a tool of the machine does.
const LOOK: &str = r#"
apiVersion: tekton.dev/v1
kind: TaskRun
metadata: {name: look}
spec:
  serviceAccountName: builder
  taskSpec:
    steps:
    - image: i
      script: |
        #!/bin/sh
        here=/var/run/secrets/kubernetes.io/serviceaccount
        echo "namespace $(cat $here/namespace)"
        look() {
          kubectl --kubeconfig=/dev/null --cache-dir=/tmp/cache --certificate-authority=$here/ca.crt \
            --server=https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT --token="$(cat $here/token)" "$@" 2>&1
        }
        look get configmaps -o name
        look get secrets
        look get configmaps -n kube-system
        ls /root /var/lib/ropewalk* 2>&1
        exit 0
"#;

#[test]
fn kubectl_works_and_accounts_get_what_is_theirs() {
    if !can_run_containers() || !has_kubectl() {
        return;
    }
    let server = Server::start();
    let mode = fs::metadata(&server.kubeconfig).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    assert_eq!(server.works("auth can-i * *", ""), "yes");
    assert!(server.works("auth whoami", "").contains("kubernetes-admin"));
    server.works("create -f -", RUN);
    server.works("wait taskrun/greeting --for=condition=Succeeded --timeout=60s", "");
    assert_eq!(server.works("logs greeting-pod", ""), "hello");

    // An account and what it may do.
    server.works("create serviceaccount builder", "");
    server.works("create role reader --verb=get,list --resource=configmaps", "");
    server.works("create rolebinding reader --role=reader --serviceaccount=default:builder", "");
    let builder = "--as=system:serviceaccount:default:builder";
    assert_eq!(server.works(&format!("auth can-i list configmaps {builder}"), ""), "yes");
    assert_eq!(server.fails(&format!("auth can-i list secrets {builder}")).trim(), "no");

    // Its token, from afar.
    let token = server.works("create token builder --duration=10m", "");
    let known = format!("--kubeconfig=/dev/null --server=https://{} --token={token}", server.address);
    let authority = server.works("get configmap kube-root-ca.crt -o jsonpath={.data.ca\\.crt}", "");
    let file = server.directory.path().join("ca.crt");
    fs::write(&file, authority).expect("written");
    let known = format!("{known} --certificate-authority={}", file.display());
    assert!(
        server.works(&format!("get configmaps -o name {known}"), "").contains("configmap/kube-root-ca.crt")
    );
    let refused = server.fails(&format!("get secrets {known}"));
    let words = r#"Error from server (Forbidden): secrets is forbidden: User "system:serviceaccount:default:builder" cannot list resource "secrets" in API group "" in the namespace "default""#;
    assert!(refused.contains(words), "{refused}");
    let escalated =
        server.fails(&format!("create rolebinding more --clusterrole=cluster-admin --user=x {known}"));
    assert!(escalated.contains("cannot create resource \"rolebindings\""), "{escalated}");
    let wrong = server.fails(&format!("get configmaps {}", known.replace(&token, &token.replace('.', ".x"))));
    assert!(wrong.contains("Unauthorized") || wrong.contains("logged in"), "{wrong}");

    // The same from within a pod, with what stands there.
    server.works("create -f -", LOOK);
    server.works("wait taskrun/look --for=condition=Succeeded --timeout=60s", "");
    let seen = server.works("logs look-pod", "");
    assert!(seen.contains("namespace default"), "{seen}");
    assert!(seen.contains("configmap/kube-root-ca.crt"), "{seen}");
    assert!(seen.contains(words), "{seen}");
    assert!(seen.contains("in the namespace \"kube-system\""), "{seen}");
    let admin = fs::read_to_string(&server.kubeconfig).expect("read");
    let admin: serde_json::Value = serde_json::from_str(&admin).expect("JSON");
    let admin = admin["users"][0]["user"]["token"].as_str().expect("a token");
    let everything = server.works("get pods,taskruns,configmaps,secrets,serviceaccounts -A -o json", "");
    assert!(
        !everything.contains(admin) && !seen.contains(admin),
        "the administrator's token is in an object"
    );
    server.stop();
}

#[test]
fn pods_have_networks_of_their_own_until_nothing_runs() {
    if !can_run_containers() || !has_kubectl() {
        return;
    }
    let mut server = Server::start();
    let node = server.works("describe node ropewalk", "");
    assert!(
        node.contains("NetworkUnavailable") && node.contains("pods have networks of their own"),
        "{node}"
    );
    server.works("create -f -", WAITS);
    server.works("wait pod/waits --for=condition=Ready --timeout=60s", "");
    let address = server.works("get pod waits -o jsonpath={.status.podIP}", "");
    let machine = server.works("get pod waits -o jsonpath={.status.hostIP}", "");
    assert_ne!(address, machine);
    let hosts = server.works("exec waits -- cat /etc/hosts", "");
    assert!(hosts.contains(&format!("{address}\twaits")), "{hosts}");
    let range = address.rsplit_once('.').expect("IPv4").0.to_owned() + ".";
    assert_eq!(server.works("logs waits", ""), format!("{range}1"), "the API server is at the gateway");

    // It runs on, reached at its address, when nobody serves; the next one must not change that.
    assert!(server.end().success());
    // Leaves of the trie: its inner nodes are what several routes have in common.
    let here = |prefix: &str| {
        let routes = fs::read_to_string("/proc/net/fib_trie").expect("routes");
        routes.matches(&format!("|-- {prefix}")).count()
    };
    assert!(here(&address) > 0);
    let mut other = command(server.directory.path());
    let refused = other.args(["--pod-network", "host"]).output().expect("it starts");
    assert_eq!(refused.status.code(), Some(2), "{}", printed(&refused));
    let said = String::from_utf8(refused.stderr).expect("text");
    assert!(said.contains("1 containers of an earlier process run with --pod-network own"), "{said}");
    let ended =
        ropewalk().args(["down", "--data-dir"]).arg(server.directory.path()).output().expect("it starts");
    assert!(ended.status.success(), "{}", printed(&ended));
    assert_eq!(here(&range), 0);

    // Without a pod that runs, it takes its network along.
    let mut again = command(server.directory.path()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(again.stdout.take().expect("piped")).lines();
    let third = lines.nth(2).expect("a line").expect("text");
    assert!(third.starts_with("pods have networks of their own, with addresses in "), "{third}");
    assert!(here(&range) > 0, "a directory has the same range again");
    kill(Pid::from_raw(again.id().try_into().expect("fits")), Signal::SIGTERM).expect("told");
    assert!(again.wait().expect("it ends").success());
    assert_eq!(here(&range), 0);
}

#[test]
fn without_the_right_to_make_networks_pods_share_the_machines() {
    if !can_run_containers() || !has_kubectl() {
        return;
    }
    let server = Server::start_as(|directory| {
        let mut weaker = Command::new("setpriv");
        weaker.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin"]);
        weaker.arg(ropewalk().get_program()).args(command(directory).get_args());
        weaker
    });
    let node = server.works("describe node ropewalk", "");
    let why =
        "pods share the network of this machine: cannot claim a range of addresses: Operation not permitted";
    assert!(node.contains("NetworkUnavailable") && node.contains(why), "{node}");
    server.works("create -f -", WAITS);
    server.works("wait pod/waits --for=condition=Ready --timeout=60s", "");
    let addresses = server.works("get pod waits -o jsonpath={.status.podIP},{.status.hostIP}", "");
    let (own, machine) = addresses.split_once(',').expect("two");
    assert_eq!(own, machine);
    assert_eq!(server.works("logs waits", ""), "127.0.0.1");
    server.stop();
}

#[test]
fn a_second_one_on_a_directory_is_refused() {
    if !can_run_containers() {
        return;
    }
    let server = Server::start();
    let output = command(server.directory.path()).output().expect("it starts");
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    let said = String::from_utf8(output.stderr).expect("text");
    let pid = server.process.id().to_string();
    assert!(said.contains(&format!("another \"ropewalk up\" (process {pid}) uses")), "{said}");
    assert!(said.contains("--data-dir"), "{said}");
    // Nor are its containers ended under it.
    let down =
        || ropewalk().args(["down", "--data-dir"]).arg(server.directory.path()).output().expect("it starts");
    let said = String::from_utf8(down().stderr).expect("text");
    assert!(said.contains(&format!("another \"ropewalk up\" (process {pid}) uses")), "{said}");
    server.stop();
}

#[test]
fn strangers_get_no_further_than_the_door() {
    if !can_run_containers() {
        return;
    }
    let server = Server::start();
    // No TLS at all.
    let mut stream = TcpStream::connect(&server.address).expect("connected");
    stream.write_all(b"GET /api/v1/secrets HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("written");
    let mut answer = Vec::new();
    // A reset says as much as an end.
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    if !has_kubectl() {
        return server.stop();
    }
    // Whose authority is not known is not talked to; who shows a token that nobody issued is told nothing.
    let bare = format!("--kubeconfig=/dev/null --server=https://{} --token=x", server.address);
    let said = server.fails(&format!("get --raw /version {bare}"));
    assert!(said.contains("certificate signed by unknown authority"), "{said}");
    let bare = format!("{bare} --insecure-skip-tls-verify");
    for path in ["/livez", "/version", "/api", "/api/v1/namespaces"] {
        let said = server.fails(&format!("get --raw {path} {bare}"));
        assert!(said.contains("Unauthorized") || said.contains("logged in"), "{path}: {said}");
    }
    server.stop();
}

/// A server without a node would take runs and never run them.
#[test]
fn it_ends_when_the_node_cannot_start() {
    if !can_run_containers() {
        return;
    }
    let directory = tempfile::tempdir_in("/var/lib").expect("a directory");
    let node = directory.path().join("node");
    fs::create_dir(&node).expect("made");
    fs::write(node.join("entrypoint"), "in the way").expect("written");
    let wanted = command(directory.path());
    // One that serves on is ended, and its exit code is timeout's.
    let ended = Command::new("timeout").arg("60").arg(wanted.get_program()).args(wanted.get_args()).output();
    let ended = ended.expect("it starts");
    let (code, said) = (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned());
    assert_eq!(code, Some(2), "{}", printed(&ended));
    assert!(
        said.contains(&format!("cannot make \"{}/node/entrypoint\"", directory.path().display())),
        "{said}"
    );
    assert!(said.contains("File exists"), "{said}");
}

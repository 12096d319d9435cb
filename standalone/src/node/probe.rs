//! Probes: `exec` in the container's namespaces, `httpGet` and `tcpSocket` from the machine.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ExecAction, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{interval, sleep, timeout};

use super::container::{Attempt, SHIM_COMMAND, grace};
use super::{hooks, report, shim};

/// Probes a container until its supervisor is gone. Nothing but the startup probe is asked before that has succeeded. A
/// startup or liveness probe that fails for good ends the container; of readiness each change of verdict is told. A probe
/// that has not succeeded yet counts as not ready; of an adopted container the verdicts so far hold.
pub(super) async fn watch(attempt: &Attempt, container: Container, mut started: bool, ready: bool) {
    if let Some(probe) = container.startup_probe.filter(|_| !started) {
        started = verdict(attempt, &probe, Asked::ForSuccess).await;
        if !started && attempt.is_running() {
            end(attempt, &probe, "startup").await;
            return;
        }
    } else {
        started = true;
    }
    if started {
        attempt.send_started_up().await;
    }
    let liveness = async {
        let Some(probe) = &container.liveness_probe else { return };
        if !verdict(attempt, probe, Asked::ForFailure).await && attempt.is_running() {
            end(attempt, probe, "liveness").await;
        }
    };
    let readiness = async {
        if let Some(probe) = &container.readiness_probe {
            follow_readiness(attempt, probe, ready).await;
        }
    };
    tokio::join!(liveness, readiness);
}

/// What a probe is asked for.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Asked {
    /// Until it has succeeded.
    ForSuccess,
    /// As long as it does not fail for good.
    ForFailure,
}

/// How often and how long a probe is asked, with Kubernetes' defaults.
struct Pace {
    delay: Duration,
    period: Duration,
    limit: Duration,
    successes: u32,
    failures: u32,
}

impl Pace {
    fn of(probe: &Probe) -> Self {
        let seconds = |given: Option<i32>, default: u64| {
            Duration::from_secs(given.and_then(|given| u64::try_from(given).ok()).unwrap_or(default))
        };
        let times = |given: Option<i32>, default| u32::try_from(given.unwrap_or(default)).unwrap_or(1).max(1);
        Self {
            delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10).max(Duration::from_secs(1)),
            limit: seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1)),
            successes: times(probe.success_threshold, 1),
            failures: times(probe.failure_threshold, 3),
        }
    }
}

/// Whether a probe succeeded, or failed for good, of a container that runs; as long as neither is known it is asked.
async fn verdict(attempt: &Attempt, probe: &Probe, asked: Asked) -> bool {
    let pace = Pace::of(probe);
    sleep(pace.delay).await;
    let mut ticks = interval(pace.period);
    let mut failures = 0;
    while attempt.is_running() {
        ticks.tick().await;
        if timeout(pace.limit, check(attempt, probe)).await.unwrap_or(false) {
            failures = 0;
            if asked == Asked::ForSuccess {
                return true;
            }
        } else {
            failures += 1;
            if failures >= pace.failures {
                return false;
            }
        }
    }
    false
}

async fn end(attempt: &Attempt, probe: &Probe, which: &str) {
    let message = format!("Container {} failed {which} probe, will be restarted", attempt.name);
    report::warn(&attempt.node.client, &attempt.pod, "Killing", &message).await;
    let own = probe.termination_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    hooks::stop(attempt, own.unwrap_or_else(|| grace(&attempt.pod))).await;
}

/// Tells each change of verdict.
async fn follow_readiness(attempt: &Attempt, probe: &Probe, mut ready: bool) {
    let pace = Pace::of(probe);
    sleep(pace.delay).await;
    let mut ticks = interval(pace.period);
    let (mut successes, mut failures) = (0, 0);
    while attempt.is_running() {
        ticks.tick().await;
        if timeout(pace.limit, check(attempt, probe)).await.unwrap_or(false) {
            (successes, failures) = (successes + 1, 0);
        } else {
            (successes, failures) = (0, failures + 1);
        }
        let verdict = if ready { failures < pace.failures } else { successes >= pace.successes };
        if verdict != ready {
            ready = verdict;
            attempt.send_readiness(ready).await;
        }
    }
}

async fn check(attempt: &Attempt, probe: &Probe) -> bool {
    if let Some(exec) = &probe.exec {
        return execute(attempt, exec).await.is_ok_and(|status| status.success());
    }
    if let Some(get) = &probe.http_get {
        return http_get(attempt, get).await.unwrap_or(false);
    }
    if let Some(socket) = &probe.tcp_socket {
        let (own, port) = (address(attempt), port(attempt, &socket.port));
        let host = socket.host.as_deref().or(own.as_deref());
        let (Some(host), Some(port)) = (host, port) else { return false };
        return TcpStream::connect((host, port)).await.is_ok();
    }
    // Pods with others are refused; without a probe a running container is ready.
    true
}

/// Runs a command in the container; it ends when this is dropped, as far as this process can see to it.
pub(super) async fn execute(attempt: &Attempt, exec: &ExecAction) -> std::io::Result<ExitStatus> {
    Command::new(&attempt.node.config.shim_exe)
        .args([SHIM_COMMAND, shim::EXEC])
        .arg(attempt.directory())
        .args(exec.command.iter().flatten())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
}

fn address(attempt: &Attempt) -> Option<String> {
    attempt.node.facts_of(&attempt.pod).pod_ip
}

fn port(attempt: &Attempt, port: &IntOrString) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            let container = attempt.spec()?;
            let named = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            named.and_then(|port| u16::try_from(port.container_port).ok()).or_else(|| name.parse().ok())
        }
    }
}

/// A GET whose status is from 200 to 399. With `scheme: HTTPS` an open port is taken for an answer: kubelets do
/// not verify the certificate either, and no other part of a node needs TLS.
pub(super) async fn http_get(attempt: &Attempt, get: &HTTPGetAction) -> std::io::Result<bool> {
    let (own, port) = (address(attempt), port(attempt, &get.port));
    let host = get.host.as_deref().or(own.as_deref());
    let (Some(host), Some(port)) = (host, port) else { return Ok(false) };
    let mut stream = TcpStream::connect((host, port)).await?;
    if get.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) {
        return Ok(true);
    }
    let path = get.path.as_deref().filter(|path| path.starts_with('/')).unwrap_or("/");
    let mut request = format!("GET {path} HTTP/1.1\r\nUser-Agent: kube-probe/ropewalk\r\nAccept: */*\r\n");
    let mut named_host = false;
    for header in get.http_headers.iter().flatten() {
        named_host |= header.name.eq_ignore_ascii_case("host");
        request.extend([&header.name, ": ", &header.value, "\r\n"]);
    }
    if !named_host {
        request.extend(["Host: ", host, ":", &port.to_string(), "\r\n"]);
    }
    request.push_str("Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await?;
    let status = std::str::from_utf8(&answer[9..]).ok().and_then(|status| status.parse::<u16>().ok());
    Ok(answer.starts_with(b"HTTP/1.") && status.is_some_and(|status| (200..400).contains(&status)))
}

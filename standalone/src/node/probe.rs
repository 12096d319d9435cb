//! Readiness probes: `exec` in the container's namespaces, `httpGet` and `tcpSocket` from the machine.

use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::core::v1::{HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{interval, sleep, timeout};

use super::container::{Attempt, SHIM_COMMAND};
use super::shim;

/// Probes until the container's supervisor is gone; reports each change of verdict. A probe that has not
/// succeeded yet counts as not ready; of an adopted container the verdict so far holds.
pub(super) async fn watch(attempt: Attempt, probe: Probe, mut ready: bool) {
    let seconds = |given: Option<i32>, default: u64| {
        Duration::from_secs(given.and_then(|given| u64::try_from(given).ok()).unwrap_or(default))
    };
    let wanted = u32::try_from(probe.success_threshold.unwrap_or(1)).unwrap_or(1).max(1);
    let tolerated = u32::try_from(probe.failure_threshold.unwrap_or(3)).unwrap_or(3).max(1);
    let limit = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
    sleep(seconds(probe.initial_delay_seconds, 0)).await;
    let mut ticks = interval(seconds(probe.period_seconds, 10).max(Duration::from_secs(1)));
    let (mut successes, mut failures) = (0, 0);
    while attempt.is_running() {
        ticks.tick().await;
        if timeout(limit, check(&attempt, &probe)).await.unwrap_or(false) {
            (successes, failures) = (successes + 1, 0);
        } else {
            (successes, failures) = (0, failures + 1);
        }
        let verdict = if ready { failures < tolerated } else { successes >= wanted };
        if verdict != ready {
            ready = verdict;
            attempt.send_readiness(ready).await;
        }
    }
}

async fn check(attempt: &Attempt, probe: &Probe) -> bool {
    if let Some(exec) = &probe.exec {
        let status = Command::new(&attempt.node.config.shim_exe)
            .args([SHIM_COMMAND, shim::EXEC])
            .arg(attempt.directory())
            .args(exec.command.iter().flatten())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .status();
        return status.await.is_ok_and(|status| status.success());
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
    // gRPC health checks are not spoken; without a probe a running container is ready.
    true
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
async fn http_get(attempt: &Attempt, get: &HTTPGetAction) -> std::io::Result<bool> {
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

//! The processes behind containers, where the cluster is the one that `hack/cluster` started on this machine: killed,
//! stopped and cut off from the API server as no API allows it. Sends signals, runs `nsenter` and `nft`; needs root.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
pub use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// There while that cluster is.
const READY: &str = "/var/lib/ropewalk-cluster/ready";

/// The table of rules in a pod's network that cuts it off.
const TABLE: &str = "ropewalk_test";

/// What is missing for tests that break processes, if anything.
pub fn lacks() -> Option<&'static str> {
    (!Path::new(READY).exists()).then_some("the cluster that hack/cluster starts on this machine")
}

/// The first process of a container.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
}

impl Process {
    /// That of the pod's only running container.
    pub fn of(pod: &Pod) -> Result<Self> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref());
        let id = statuses.unwrap_or_default().first().and_then(|status| status.container_id.as_deref());
        let id = id.and_then(|id| id.strip_prefix("containerd://"));
        let id = id.with_context(|| format!("pod \"{name}\" has no container of containerd's"))?;
        // One hierarchy in all, or one for each controller.
        let procs = ["/sys/fs/cgroup", "/sys/fs/cgroup/pids"]
            .map(|root| Path::new(root).join("k8s.io").join(id).join("cgroup.procs"))
            .into_iter()
            .find_map(|path| fs::read_to_string(path).ok());
        let pid = procs.as_deref().and_then(|procs| procs.lines().next()?.parse().ok());
        let pid = pid.with_context(|| format!("pod \"{name}\" has no process on this machine"))?;
        Ok(Self { pid: Pid::from_raw(pid) })
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid, signal).with_context(|| format!("cannot send {signal} to process {}", self.pid))
    }

    /// Drops every packet between its pod and this address, in both directions and without a word, until the value is
    /// dropped.
    pub fn cut(&self, address: IpAddr) -> Result<Cut> {
        let path = format!("/proc/{}/ns/net", self.pid);
        let cut = Cut { network: File::open(&path).with_context(|| format!("cannot open \"{path}\""))? };
        let family = if address.is_ipv4() { "ip" } else { "ip6" };
        cut.nft(&format!(
            "table inet {TABLE} {{
                chain out {{ type filter hook output priority 0; {family} daddr {address} drop; }}
                chain in {{ type filter hook input priority 0; {family} saddr {address} drop; }}
            }}"
        ))?;
        Ok(cut)
    }
}

/// A pod cut off from an address.
#[derive(Debug)]
pub struct Cut {
    /// The pod's network; it outlives the process through which it was found.
    network: File,
}

impl Cut {
    fn nft(&self, rules: &str) -> Result<()> {
        let network = format!("--net=/proc/{}/fd/{}", std::process::id(), self.network.as_raw_fd());
        let mut nft = Command::new("nsenter")
            .args([&network, "nft", "--file", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run nsenter")?;
        if let Some(mut input) = nft.stdin.take() {
            input.write_all(rules.as_bytes())?;
        }
        let output = nft.wait_with_output()?;
        if !output.status.success() {
            bail!("nft failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        // A pod that is gone has taken its rules along.
        let _ = self.nft(&format!("delete table inet {TABLE}"));
    }
}

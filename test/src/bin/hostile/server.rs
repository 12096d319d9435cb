//! The server that is attacked, a process of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::client::Client;

/// A `ropewalk up`, and those who know it.
pub(crate) struct Server {
    process: Child,
    id: i32,
    /// Shows no token.
    pub(crate) stranger: Client,
    /// May edit the namespace `mine`.
    pub(crate) attacker: Client,
    /// May edit the namespace `theirs`.
    pub(crate) honest: Client,
    _directory: TempDir,
}

impl Server {
    pub(crate) async fn start(program: &Path) -> Result<Self> {
        let directory = tempfile::tempdir_in("/var/lib")?;
        let mut process = Command::new(program)
            .args(["up", "--rootfs", "host", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(directory.path())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start \"{}\"", program.display()))?;
        let mut lines = BufReader::new(process.stdout.take().context("no output")?).lines();
        let mut kubeconfig = None;
        while let Some(line) = lines.next_line().await? {
            if let Some(path) = line.strip_prefix("export KUBECONFIG=") {
                kubeconfig = Some(PathBuf::from(path));
                break;
            }
        }
        let kubeconfig = std::fs::read_to_string(kubeconfig.context("it ended before it served")?)?;
        let config: Value = serde_json::from_str(&kubeconfig)?;
        let cluster = &config["clusters"][0]["cluster"];
        let text = |value: &Value| value.as_str().context("a text in the kubeconfig").map(str::to_owned);
        let address = text(&cluster["server"])?;
        let address = address.strip_prefix("https://").context("an address")?.parse()?;
        let authority = STANDARD.decode(text(&cluster["certificate-authority-data"])?)?;
        let stranger = Client::new(address, &authority, None)?;
        let admin = stranger.with_token(Some(&text(&config["users"][0]["user"]["token"])?));
        let (attacker, honest) = (account(&admin, "mine").await?, account(&admin, "theirs").await?);
        let known = json!({ "metadata": { "name": "known" }, "data": { "a": "b" } });
        honest.make("POST /api/v1/namespaces/theirs/configmaps", &known).await?;
        let id = process.id().context("it has ended")?.try_into()?;
        Ok(Self { process, id, stranger, attacker, honest, _directory: directory })
    }

    /// A line of what the kernel tells of its memory, in MiB.
    pub(crate) fn memory(&self, line: &str) -> Result<u64> {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.id)).context("the server has ended")?;
        let value = status.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':'));
        let kib: u64 =
            value.and_then(|value| value.trim().strip_suffix(" kB")?.parse().ok()).context("no such line")?;
        Ok(kib / 1024)
    }

    /// Ends it as a service manager does.
    pub(crate) async fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(self.id), Signal::SIGTERM)?;
        let status = self.process.wait().await?;
        ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }
}

/// A service account that may edit a namespace of its own, runs and their definitions included.
async fn account(admin: &Client, namespace: &str) -> Result<Client> {
    let name = json!({ "metadata": { "name": namespace } });
    admin.make("POST /api/v1/namespaces", &name).await?;
    let rbac = "rbac.authorization.k8s.io";
    let url = format!("POST /apis/{rbac}/v1/namespaces/{namespace}");
    let rules = json!([{ "apiGroups": ["tekton.dev"], "resources": ["*"], "verbs": ["*"] }]);
    admin.make(&format!("{url}/roles"), &json!({ "metadata": { "name": "runs" }, "rules": rules })).await?;
    for (kind, role) in [("ClusterRole", "edit"), ("Role", "runs")] {
        let binding = json!({
            "metadata": { "name": role },
            "subjects": [{ "kind": "ServiceAccount", "name": "default", "namespace": namespace }],
            "roleRef": { "apiGroup": rbac, "kind": kind, "name": role },
        });
        admin.make(&format!("{url}/rolebindings"), &binding).await?;
    }
    let tokens = format!("POST /api/v1/namespaces/{namespace}/serviceaccounts/default/token");
    let token = admin.make(&tokens, &json!({})).await?;
    Ok(admin.with_token(Some(token["status"]["token"].as_str().context("a token")?)))
}

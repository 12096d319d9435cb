//! The process that is killed.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long the first start may take, and how long a clean stop.
const PATIENCE: Duration = Duration::from_mins(1);

/// The pause before something that is not there yet is looked for again.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// `ropewalk up` on a directory and a port that stay the same.
pub(crate) struct Server {
    directory: PathBuf,
    port: u16,
    process: Child,
}

impl Server {
    pub(crate) fn start(directory: &Path) -> Result<Self> {
        // Free now, and nobody else asks for it in between: the kernel hands them out in turn.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Self { directory: directory.to_owned(), port, process: up(directory, port)? })
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.directory
    }

    /// A client as the first process lets it in; later ones know it too.
    pub(crate) async fn client(&mut self) -> Result<Client> {
        let kubeconfig = self.directory.join("kubeconfig");
        let begun = Instant::now();
        while !kubeconfig.exists() {
            ensure!(begun.elapsed() < PATIENCE, "the server did not start");
            ensure!(self.process.try_wait()?.is_none(), "the server ended at once");
            tokio::time::sleep(PAUSE).await;
        }
        let client = ropewalk_cluster::client::connect(Some(&kubeconfig)).await?;
        Api::<ConfigMap>::default_namespaced(client.clone()).list(&kube::api::ListParams::default()).await?;
        Ok(client)
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        if let Some(status) = self.process.try_wait()? {
            anyhow::bail!("the server ended by itself: {status}");
        }
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    pub(crate) fn restart(self) -> Result<Self> {
        let process = up(&self.directory, self.port)?;
        Ok(Self { process, ..self })
    }

    /// Ends it as a service manager does.
    pub(crate) fn stop(&mut self) -> Result<()> {
        kill(Pid::from_raw(self.process.id().try_into()?), Signal::SIGTERM)?;
        let status = self.process.wait()?;
        ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }

    pub(crate) fn down(&self) -> Result<()> {
        let status = Command::new(std::env::current_exe()?)
            .args(["down", "--data-dir"])
            .arg(&self.directory)
            .stdout(Stdio::null())
            .status()?;
        ensure!(status.success(), "\"ropewalk down\" ended with {status}");
        Ok(())
    }
}

fn up(directory: &Path, port: u16) -> Result<Child> {
    let log = directory.with_extension("log");
    let log = File::options().create(true).append(true).open(&log).context("cannot open the server's log")?;
    Command::new(std::env::current_exe()?)
        .args(["up", "--rootfs", "host", "--listen", &format!("127.0.0.1:{port}"), "--data-dir"])
        .arg(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .context("cannot start the server")
}

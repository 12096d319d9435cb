//! The floor: a process that reads a request and answers bytes that it has been given, over TLS. Nobody who answers can
//! do less.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ropewalk_bench::processes::{self, Usage};
use rustls::ServerConfig;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::Child;
use tokio_rustls::TlsAcceptor;

use crate::asking::pair;
use crate::cluster::{Data, on_its_core};

/// What this program is called with to be the floor; a directory follows.
pub(crate) const ARGUMENT: &str = "__floor";

const CERTIFICATE: &str = "server-cert.pem";
const KEY: &str = "server-key.pem";

/// The process, until it is dropped.
pub(crate) struct Floor {
    process: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Floor {
    /// On the webhook's core, under its certificate, with these answers.
    pub(crate) async fn start(secret: &Data, answers: &[(&'static str, Bytes)]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        for name in [CERTIFICATE, KEY] {
            std::fs::write(directory.path().join(name), secret.get(name).context(name)?)?;
        }
        for (path, answer) in answers {
            std::fs::write(directory.path().join(path.trim_start_matches('/')), answer)?;
        }
        let mut process = on_its_core(&std::env::current_exe()?)
            .arg(ARGUMENT)
            .arg(directory.path())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the floor")?;
        let mut lines = BufReader::new(process.stdout.take().context("no output")?).lines();
        let address = lines.next_line().await?.context("the floor has ended")?.parse()?;
        Ok(Self { process, address, _directory: directory })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        processes::of(self.process.id().context("the floor has ended")?.try_into()?)
    }
}

/// Is the floor.
pub(crate) fn serve(mut arguments: impl Iterator<Item = OsString>) -> Result<ExitCode> {
    let directory = PathBuf::from(arguments.next().context("a directory")?);
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(answer(&directory))
}

async fn answer(directory: &Path) -> Result<ExitCode> {
    let read = |name: &str| std::fs::read(directory.join(name)).with_context(|| format!("\"{name}\""));
    let (certificates, key) = pair(&read(CERTIFICATE)?, &read(KEY)?)?;
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let [defaulting, validation] =
        ["defaulting", "resource-validation"].map(|name| read(name).map(Bytes::from));
    let (defaulting, validation) = (defaulting?, validation?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (acceptor, defaulting, validation) = (acceptor.clone(), defaulting.clone(), validation.clone());
        tokio::spawn(async move {
            let stream = acceptor.accept(stream).await?;
            let answer = service_fn(move |request: Request<Incoming>| {
                let answer = if request.uri().path() == "/defaulting" { &defaulting } else { &validation };
                let answer = answer.clone();
                async move {
                    request.into_body().collect().await?;
                    let json = Response::builder().header("content-type", "application/json");
                    anyhow::Ok(json.body(Full::new(answer))?)
                }
            });
            // What a client does to its connection is its own affair.
            http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await?;
            anyhow::Ok(())
        });
    }
}

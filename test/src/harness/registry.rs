//! Debian's `docker-registry`, and the images that tests name as their authors publish them: each says itself what it runs. IO.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, anyhow, bail, ensure};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use ropewalk_core::images::reference::Digest;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use super::images::{each, full_name, hack};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Bytes of an answer to what is pushed: errors are short.
const MAX_ANSWER: usize = 64 << 10;

/// What is missing to start one here, if anything.
pub fn lacks() -> Option<&'static str> {
    let there = std::process::Command::new("docker-registry").arg("--version").output().is_ok();
    (!there).then_some("docker-registry, as in: apt-get install docker-registry")
}

/// A registry without TLS and passwords, until it is dropped.
pub struct Registry {
    host: String,
    client: Client<HttpConnector, Full<Bytes>>,
    _process: Child,
}

impl Registry {
    /// Starts one at a free port of this address; what is pushed is kept in the directory.
    pub async fn start(address: IpAddr, directory: &Path) -> Result<Self> {
        // It takes the port itself, and tells which one.
        let configuration = json!({
            "version": 0.1,
            "log": { "level": "info", "formatter": "json" },
            "storage": { "filesystem": { "rootdirectory": directory.join("content") } },
            "http": { "addr": SocketAddr::new(address, 0).to_string(), "relativeurls": true },
        });
        let file = directory.join("config.yml");
        std::fs::write(&file, configuration.to_string())?;
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start docker-registry")?;
        let mut log = BufReader::new(process.stderr.take().context("no log")?).lines();
        let host = loop {
            let line = log.next_line().await?.context("docker-registry has ended")?;
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.chars().take_while(|letter| !matches!(letter, '"' | ',')).collect();
            }
        };
        // It would not write on. Ends with the process.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        let client = Client::builder(TokioExecutor::new()).build_http();
        Ok(Self { host, client, _process: process })
    }

    /// `address:port`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Pushes some content into a repository; its descriptor.
    pub async fn push(&self, repository: &str, media_type: &str, content: Bytes) -> Result<Value> {
        let digest = Digest::of(&content).to_string();
        let described = json!({ "mediaType": media_type, "digest": digest, "size": content.len() });
        let uploads = format!("/v2/{repository}/blobs/uploads/");
        let begun = self.ask(Method::POST, &uploads, "", Bytes::new()).await?;
        let place = begun.headers().get(header::LOCATION).context("no place to upload to")?.to_str()?;
        let and = if place.contains('?') { '&' } else { '?' };
        let place = format!("{place}{and}digest={digest}");
        self.ask(Method::PUT, &place, "application/octet-stream", content).await?;
        Ok(described)
    }

    /// Makes what one repository has part of another.
    async fn mount(&self, repository: &str, from: &str, described: &Value) -> Result<()> {
        let digest = described["digest"].as_str().unwrap_or_default();
        let path = format!("/v2/{repository}/blobs/uploads/?mount={digest}&from={from}");
        let answer = self.ask(Method::POST, &path, "", Bytes::new()).await?;
        ensure!(answer.status() == StatusCode::CREATED, "\"{from}\" does not have {digest}");
        Ok(())
    }

    /// Pushes a manifest or an index, under a tag if there is one; its descriptor.
    pub async fn push_manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        manifest: &Value,
    ) -> Result<Value> {
        let content = Bytes::from(manifest.to_string());
        let digest = Digest::of(&content).to_string();
        let media_type = manifest["mediaType"].as_str().context("a manifest says what it is")?;
        let described = json!({ "mediaType": media_type, "digest": digest, "size": content.len() });
        let path = format!("/v2/{repository}/manifests/{}", tag.unwrap_or(&digest));
        self.ask(Method::PUT, &path, media_type, content).await?;
        Ok(described)
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        media_type: &str,
        content: Bytes,
    ) -> Result<Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.host))
            .header(header::CONTENT_TYPE, media_type)
            .body(Full::new(content))?;
        let answer = self.client.request(request).await.context("docker-registry does not answer")?;
        if !answer.status().is_success() {
            let status = answer.status();
            let said = Limited::new(answer.into_body(), MAX_ANSWER)
                .collect()
                .await
                .map_err(|error| anyhow!(error))?;
            bail!("docker-registry answers {status}: {}", String::from_utf8_lossy(&said.to_bytes()));
        }
        Ok(answer)
    }
}

/// A program that an image has and that of tests does not.
struct Program {
    path: &'static str,
    script: &'static str,
}

const PROGRAMS: [Program; 3] = [
    // Without a command of its own it is a shell.
    Program {
        path: "usr/local/bin/docker-entrypoint.sh",
        script: "#!/bin/sh\ncase ${1--} in -*) exec bash \"$@\" ;; *) exec \"$@\" ;; esac\n",
    },
    Program { path: "ko-app/nop", script: "#!/bin/sh\nexit 0\n" },
    // It knows one of the subcommands, and no registry.
    Program {
        path: "ko-app/crane",
        script: "#!/bin/sh\nif [ \"$1\" = digest ]; then printf %s \"$2\" | sha256sum | sed 's/^/sha256:/; s/ .*//'\n\
                 else echo \"unknown command \\\"$1\\\"\" >&2; exit 1; fi\n",
    },
];

/// What the published images run: the last part of their name begins so; entrypoint and command.
const COMMANDS: [(&str, &[&str], &[&str]); 5] = [
    ("bash", &["docker-entrypoint.sh"], &["bash"]),
    ("busybox", &[], &["sh"]),
    ("crane", &["/ko-app/crane"], &[]),
    ("nop", &["/ko-app/nop"], &[]),
    ("ubuntu", &[], &["/bin/bash"]),
];

/// What all others run: nothing that could be taken for a step.
const NO_COMMAND: &[&str] = &["/bin/false"];

/// The repository that has the layers of all.
const BASE: &str = "ropewalk.test/base";

/// A registry with every image that tests name: that of `hack/test-image` with programs that the named one has, running what
/// the named one runs, for two platforms.
pub struct Published {
    registry: Registry,
    /// Their descriptors.
    layers: Vec<Value>,
    /// By the names that nodes look images up by: what they are called here.
    images: Mutex<BTreeMap<String, String>>,
}

impl Published {
    /// Starts it at an address, keeping all in the directory.
    pub async fn start(address: IpAddr, directory: &Path) -> Result<Self> {
        let registry = Registry::start(address, directory).await?;
        let archive = hack("test-image", &[]).await?;
        let base =
            Command::new("tar").args(["--dereference", "-xOf", archive.trim(), "layer.tar"]).output().await?;
        ensure!(base.status.success(), "\"{}\" has no layer", archive.trim());
        let mut layers = Vec::new();
        for content in [base.stdout, programs()?] {
            layers.push(registry.push(BASE, LAYER, content.into()).await?);
        }
        Ok(Self { registry, layers, images: Mutex::default() })
    }

    /// Where it is.
    pub fn host(&self) -> &str {
        self.registry.host()
    }

    /// Lets every image that the object names come from here, by tag or by digest as it says; the digest is that of what is
    /// here.
    pub async fn provide(&self, object: &mut Value) -> Result<()> {
        let mut wanted = Vec::new();
        each(object, &mut |image| wanted.extend(full_name(image)));
        let mut images = self.images.lock().await;
        for name in wanted {
            if let Entry::Vacant(place) = images.entry(name) {
                let here = self.publish(place.key()).await;
                let here = here.with_context(|| format!("cannot push \"{}\"", place.key()))?;
                place.insert(here);
            }
        }
        each(object, &mut |image| {
            if let Some(here) = full_name(image).and_then(|name| images.get(&name)) {
                image.clone_from(here);
            }
        });
        Ok(())
    }

    /// Pushes an index for this name; what it is called here.
    async fn publish(&self, name: &str) -> Result<String> {
        let (repository, tag) = match name.split_once('@') {
            Some((repository, _)) => (repository, None),
            None => {
                name.rsplit_once(':').map(|(repository, tag)| (repository, Some(tag))).context("no tag")?
            }
        };
        for layer in &self.layers {
            self.registry.mount(repository, BASE, layer).await?;
        }
        let mut platforms = Vec::new();
        // What is taken for the wrong platform fails.
        for (architecture, run) in
            [("amd64", run(repository)), ("arm64", json!({ "Entrypoint": ["/other"] }))]
        {
            let diff_ids: Vec<_> = self.layers.iter().map(|layer| &layer["digest"]).collect();
            let config = json!({
                "architecture": architecture, "os": "linux", "config": run,
                "rootfs": { "type": "layers", "diff_ids": diff_ids },
            });
            let config = self.registry.push(repository, CONFIG, config.to_string().into()).await?;
            let manifest =
                json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": self.layers });
            let mut platform = self.registry.push_manifest(repository, None, &manifest).await?;
            platform["platform"] = json!({ "architecture": architecture, "os": "linux" });
            platforms.push(platform);
        }
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": platforms });
        let index = self.registry.push_manifest(repository, tag, &index).await?;
        let host = self.host();
        Ok(match tag {
            Some(tag) => format!("{host}/{repository}:{tag}"),
            None => format!("{host}/{repository}@{}", index["digest"].as_str().unwrap_or_default()),
        })
    }
}

/// What an image of this name says that it runs.
fn run(repository: &str) -> Value {
    let name = repository.rsplit('/').next().unwrap_or_default();
    let named = COMMANDS.iter().find(|(beginning, ..)| name.starts_with(beginning));
    let (entrypoint, cmd) = named.map_or((NO_COMMAND, &[][..]), |(_, entrypoint, cmd)| (*entrypoint, *cmd));
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    json!({ "Entrypoint": entrypoint, "Cmd": cmd, "Env": [path] })
}

/// A layer with the programs.
fn programs() -> Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    for Program { path, script } in PROGRAMS {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o755);
        header.set_size(script.len() as u64);
        layer.append_data(&mut header, path, script.as_bytes())?;
    }
    Ok(layer.into_inner()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_run_what_the_published_ones_run() {
        let of = |repository| {
            let run = run(repository);
            (run["Entrypoint"].clone(), run["Cmd"].clone())
        };
        assert_eq!(of("mirror.gcr.io/busybox"), (json!([]), json!(["sh"])));
        assert_eq!(of("ghcr.io/tektoncd/pipeline/nop-8eac"), (json!(["/ko-app/nop"]), json!([])));
        assert_eq!(of("docker.io/library/alpine"), (json!(["/bin/false"]), json!([])));
    }
}

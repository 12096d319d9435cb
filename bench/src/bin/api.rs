//! What the API server of `ropewalk up` does: `cargo run --release -p ropewalk-bench --bin api -- target/release/ropewalk`.
//!
//! Requests go over HTTPS to a process of its own, as those of any client; the floor is a request for the version, which
//! costs nothing but its way. Watches are counted without sockets, of which one client gets fewer than a thousand.

#![expect(clippy::print_stdout, reason = "figures are this program's output")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use futures::{StreamExt, TryStreamExt, stream};
use http::Request;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{
    Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt as _};
use ropewalk_api::TaskRun;
use ropewalk_api::conditions::is_done;
use ropewalk_bench::figures::{median, ms, per, quantile, rate};
use ropewalk_bench::objects;
use ropewalk_bench::processes;
use ropewalk_bench::world::World;
use ropewalk_standalone::node::shim;
use ropewalk_test::harness::Kind;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Requests at a time: a few clients, so that the server never waits for one.
const AT_ONCE: usize = 8;

/// Objects of the lists that are read.
const LISTED: usize = 500;

/// Changes that the watches are told of.
const CHANGES: usize = 100;

/// Creations of runs at a time.
const CREATED_AT_ONCE: usize = 32;

/// For each run, on a machine used for work.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Parser)]
#[command(
    about = "Prints what the API server of \"ropewalk up\" does in a second, what it holds and how long it takes"
)]
struct Args {
    /// The program
    ropewalk: PathBuf,

    /// Requests of each verb
    #[arg(long, default_value_t = 2000)]
    requests: usize,

    /// Watches of one change
    #[arg(long, default_value_t = 1000)]
    watches: usize,

    /// Runs that have ended
    #[arg(long, default_value_t = 10_000)]
    runs: usize,
}

fn main() -> Result<ExitCode> {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "__shim") {
        return Ok(shim::main(std::env::args_os().skip(2)));
    }
    let args = Args::parse();
    if let Some(lacking) = Kind::Standalone.lacks() {
        println!("SKIPPED: figures of the API server, which need {lacking}");
        let required = std::env::var_os("ROPEWALK_REQUIRE_TOOLS").is_some();
        return Ok(if required { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    tokio::runtime::Runtime::new()?.block_on(run(&args))?;
    Ok(ExitCode::SUCCESS)
}

async fn run(args: &Args) -> Result<()> {
    let directory = tempfile::tempdir_in("/var/lib")?;
    let up = Up::start(&args.ropewalk, directory.path()).await?;
    println!("start-up: {:.0} ms; RSS idle: {:.1} MiB", ms(up.took), up.rss()?);
    verbs(&up.client, args.requests).await?;
    decisions(&up.client, args.requests).await?;
    finished(&up, args.runs).await?;
    up.stop().await?;
    let up = Up::start(&args.ropewalk, directory.path()).await?;
    let kept = Api::<TaskRun>::default_namespaced(up.client.clone());
    let kept = kept.list_metadata(&ListParams::default()).await?.items.len();
    println!("start-up with {kept} runs: {:.0} ms; RSS then: {:.1} MiB", ms(up.took), up.rss()?);
    up.stop().await?;
    watches(args.watches).await
}

/// A `ropewalk up` of this program's own.
struct Up {
    process: Child,
    client: Client,
    /// From the start of the process until it serves.
    took: Duration,
}

impl Up {
    async fn start(program: &Path, directory: &Path) -> Result<Self> {
        let begun = Instant::now();
        let mut process = Command::new(program)
            .args(["up", "--rootfs", "host", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(directory)
            // None of the runs that are to be measured is to be pruned.
            .args(["--keep-runs", "1000000"])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start \"{}\"", program.display()))?;
        let mut lines = BufReader::new(process.stdout.take().context("no output")?).lines();
        let kubeconfig = loop {
            let line = lines.next_line().await?.context("it ended before it served")?;
            if let Some(path) = line.strip_prefix("export KUBECONFIG=") {
                break PathBuf::from(path);
            }
        };
        let took = begun.elapsed();
        let client = ropewalk_cluster::client::connect(Some(&kubeconfig)).await?;
        client.apiserver_version().await?;
        Ok(Self { process, client, took })
    }

    fn rss(&self) -> Result<f64> {
        let id = self.process.id().context("it has ended")?;
        Ok(processes::of(id.try_into()?)?.rss)
    }

    async fn stop(mut self) -> Result<()> {
        let id = self.process.id().context("it has ended")?;
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(id.try_into()?),
            nix::sys::signal::Signal::SIGTERM,
        )?;
        let status = self.process.wait().await?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}

fn map(index: usize) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(format!("map-{index}")), ..ObjectMeta::default() },
        data: Some(BTreeMap::from([("key".to_owned(), "value".repeat(100))])),
        ..ConfigMap::default()
    }
}

/// So many requests, some at a time; how many were answered in a second.
async fn timed<F>(count: usize, request: impl Fn(usize) -> F) -> Result<f64>
where
    F: Future<Output = kube::Result<()>>,
{
    let begun = Instant::now();
    stream::iter((0..count).map(Ok)).try_for_each_concurrent(AT_ONCE, request).await?;
    Ok(rate(count, begun.elapsed()))
}

async fn verbs(client: &Client, count: usize) -> Result<()> {
    let api = &Api::<ConfigMap>::default_namespaced(client.clone());
    let (create, params) = (&PostParams::default(), &PatchParams::default());
    let version = timed(count, async |_| client.apiserver_version().await.map(drop)).await?;
    println!("\n{AT_ONCE} clients, ConfigMaps of 500 bytes: requests a second, of the floor's {version:.0}");
    let print = |verb: &str, found: f64| println!("{verb:<28} {found:>8.0} {:>6.2}", per(found, version));
    print("create", timed(count, async |index| api.create(create, &map(index)).await.map(drop)).await?);
    let name = |index: usize| format!("map-{index}");
    print("get", timed(count, async |index| api.get(&name(index)).await.map(drop)).await?);
    print(
        "replace",
        timed(count, async |index| api.replace(&name(index), create, &map(index)).await.map(drop)).await?,
    );
    let merge = &Patch::Merge(json!({ "data": { "more": "text" } }));
    print(
        "patch (merge)",
        timed(count, async |index| api.patch(&name(index), params, merge).await.map(drop)).await?,
    );
    let apply = &json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": { "applied": "text" } });
    let applying = &PatchParams::apply("bench");
    let apply =
        timed(count, async |index| api.patch(&name(index), applying, &Patch::Apply(apply)).await.map(drop));
    print("patch (apply)", apply.await?);
    let page = &ListParams::default().limit(u32::try_from(LISTED)?);
    print(
        &format!("list of {}", LISTED.min(count)),
        timed(count.div_ceil(20), async |_| api.list(page).await.map(drop)).await?,
    );
    let delete = &DeleteParams::default();
    print("delete", timed(count, async |index| api.delete(&name(index), delete).await.map(drop)).await?);
    println!();
    Ok(())
}

/// Whether somebody may do something, which follows from the bindings there are; as many are of others.
async fn decisions(client: &Client, count: usize) -> Result<()> {
    let bindings = Api::<RoleBinding>::default_namespaced(client.clone());
    let create = &PostParams::default();
    let bind = |index: usize| -> Result<RoleBinding> {
        Ok(serde_json::from_value(json!({
            "metadata": { "name": format!("user-{index}") },
            "subjects": [{ "kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": format!("user-{index}") }],
            "roleRef": { "kind": "ClusterRole", "apiGroup": "rbac.authorization.k8s.io", "name": "view" },
        }))?)
    };
    let review = json!({ "spec": { "resourceAttributes": { "verb": "get", "resource": "secrets", "namespace": "default" } } });
    let review = review.to_string().into_bytes();
    let mut so_far = 0;
    for bound in [1, count] {
        for index in so_far..bound {
            bindings.create(create, &bind(index)?).await?;
        }
        so_far = bound;
        let asked = timed(count, async |_| {
            let request = Request::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
                .header("Content-Type", "application/json")
                .header("Impersonate-User", "user-0");
            let request = request.body(review.clone()).map_err(kube::Error::HttpError)?;
            client.request::<Value>(request).await.map(drop)
        });
        println!("access reviews with {bound} bindings: {:.0} a second", asked.await?);
    }
    println!();
    Ok(())
}

/// Runs that were cancelled before they began: each is written as often as it must, and has no pod.
async fn finished(up: &Up, count: usize) -> Result<()> {
    let api = Api::<TaskRun>::default_namespaced(up.client.clone());
    let begun = Instant::now();
    let steps: Vec<_> = (0..5)
        .map(|step| json!({ "name": format!("s{step}"), "image": "none:1", "script": "true\n".repeat(50) }))
        .collect();
    stream::iter((0..count).map(Ok))
        .try_for_each_concurrent(CREATED_AT_ONCE, |index| {
            let (api, steps) = (&api, &steps);
            async move {
                let mut run = objects::task_run(&format!("run-{index}"), &json!({ "steps": steps }))?;
                "TaskRunCancelled".clone_into(&mut run.spec.status);
                api.create(&PostParams::default(), &run).await?;
                anyhow::Ok(())
            }
        })
        .await?;
    let ended = async {
        let (mut ended, mut events) =
            (BTreeSet::new(), pin!(watcher(api.clone(), watcher::Config::default())));
        while ended.len() < count {
            let event = events.try_next().await?.context("the watch has ended")?;
            if let Event::Apply(run) | Event::InitApply(run) = event
                && run.status.as_ref().is_some_and(|status| is_done(&status.conditions))
            {
                ended.insert(run.name_any());
            }
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE * u32::try_from(count)?, ended).await.context("not every run has ended")??;
    let rate = rate(count, begun.elapsed());
    println!("{count} cancelled TaskRuns of five steps: {rate:.0} a second; RSS then: {:.1} MiB", up.rss()?);
    Ok(())
}

/// From a change until each of so many watches has been told.
async fn watches(count: usize) -> Result<()> {
    let world = World::start(Kind::Standalone).await?;
    let namespace = world.namespace("watches").await?;
    let api = Api::<ConfigMap>::namespaced(world.client().clone(), &namespace);
    println!("\nfrom a change until its watches are told, ms: median, 99th percentile");
    for count in [1, count] {
        let name = format!("watched-by-{count}");
        let mut object = map(0);
        object.metadata.name = Some(name.clone());
        let made = api.create(&PostParams::default(), &object).await?;
        let version = made.metadata.resource_version.context("a version")?;
        let params = WatchParams::default().fields(&format!("metadata.name={name}")).disable_bookmarks();
        let (told, mut hears) = mpsc::channel::<Duration>(count);
        let begun = Instant::now();
        let mut following = tokio::task::JoinSet::new();
        for _ in 0..count {
            let mut events = api.watch(&params, &version).await?.boxed();
            let told = told.clone();
            following.spawn(async move {
                while let Some(Ok(WatchEvent::Modified(_))) = events.next().await {
                    if told.send(begun.elapsed()).await.is_err() {
                        return;
                    }
                }
            });
        }
        let (mut first, mut last) = (Vec::new(), Vec::new());
        for change in 0..CHANGES {
            let patch = Patch::Merge(json!({ "data": { "change": change.to_string() } }));
            let changed = begun.elapsed();
            api.patch(&name, &PatchParams::default(), &patch).await?;
            let mut at = Vec::with_capacity(count);
            for _ in 0..count {
                at.push(hears.recv().await.context("a watch has ended")?.saturating_sub(changed));
            }
            first.push(median(at.iter().copied()));
            last.extend(at.iter().max().copied());
        }
        let print = |what: &str, times: Vec<Duration>| {
            println!(
                "{count:>5} watches, {what}: {:.2} {:.2}",
                ms(median(times.iter().copied())),
                ms(quantile(times, 99))
            );
        };
        print("half of them", first);
        print("all of them", last);
        following.shutdown().await;
    }
    world.stop().await
}

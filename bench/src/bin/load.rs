//! How many runs end in a second when their pods take no time: `cargo run --release -p ropewalk-bench --bin load`.
//!
//! A node of the program's own says of each pod it is given that it runs, and then that it has succeeded. Bare pods on
//! the same node are the floor; batches of the two take turns, so that what drifts hits both alike.

#![expect(clippy::print_stdout, reason = "figures are this program's output")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use futures::{TryStreamExt, stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use ropewalk_api::TaskRun;
use ropewalk_bench::fake_node::FakeNode;
use ropewalk_bench::figures::{number, per, rate};
use ropewalk_bench::objects;
use ropewalk_bench::processes::{CONTROLLER, Processes, WEBHOOK};
use ropewalk_bench::requests::Counting;
use ropewalk_bench::timeline::{Kind as Object, Timeline};
use ropewalk_bench::world::World;
use ropewalk_test::harness::Kind as WorldKind;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Batches of pods, and as many of runs.
const BATCHES: usize = 4;

/// Creations at once: enough that the API server is never without one.
const AT_ONCE: usize = 32;

/// For each object of a batch: many times what one takes on a machine used for work.
const PATIENCE: Duration = Duration::from_millis(500);

/// On the pods that are the floor.
const BARE: &str = "bench.ropewalk.dev/bare";

/// The fake node pulls nothing.
const IMAGE: &str = "none";

/// Of a process, milliseconds for each task less than this are not printed.
const LITTLE: f64 = 0.2;

#[derive(Parser)]
#[command(
    about = "Prints how many one-step TaskRuns end in a second on a node that ends pods at once, beside bare pods"
)]
struct Args {
    /// TaskRuns, and as many bare pods
    #[arg(long, default_value_t = 2000)]
    runs: usize,
}

/// What all batches of one kind took.
#[derive(Default)]
struct Total {
    count: usize,
    time: Duration,
    cpu: BTreeMap<String, f64>,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let world = WorldKind::Cluster;
    if let Some(lacking) = world.lacks() {
        println!("SKIPPED: figures of the world {world}, which needs {lacking}");
        let required = std::env::var_os("ROPEWALK_REQUIRE_TOOLS").is_some();
        return Ok(if required { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    tokio::runtime::Runtime::new()?.block_on(run(&args))?;
    Ok(ExitCode::SUCCESS)
}

async fn run(args: &Args) -> Result<()> {
    let world = World::start(WorldKind::Cluster).await?;
    let client = world.client();
    let namespace = world.namespace("load").await?;
    let node = FakeNode::start(client, &namespace).await?;
    let placement = node.placement();
    let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
    let runs = Api::<TaskRun>::namespaced(client.clone(), &namespace);
    let known = Api::<TaskRun>::all(client.clone()).list(&ListParams::default()).await?.items.len();
    let counting = match world.audit() {
        Some(audit) => Some(Counting::start(client, audit, &namespace).await?),
        None => None,
    };
    let idle = Processes::now()?;

    let (mut of_pods, mut of_runs) = (Total::default(), Total::default());
    let each = args.runs.div_ceil(BATCHES);
    for batch in 0..BATCHES {
        let timeline = Timeline::start(client, &namespace, &[Object::Pod]).await?;
        of_pods.batch(&pods, &timeline, each, |number| bare_pod(batch, number, &placement)).await?;
        drop(timeline);
        // Runs keep their pods; those of the floor would only make every list longer.
        pods.delete_collection(&DeleteParams::default(), &ListParams::default().labels(BARE)).await?;
        let timeline = Timeline::start(client, &namespace, &[Object::TaskRun]).await?;
        of_runs.batch(&runs, &timeline, each, |number| task_run(batch, number, &placement)).await?;
    }
    let after = Processes::now()?;
    print_rates(&of_pods, &of_runs);
    for (what, name) in [("controller", CONTROLLER), ("webhook", WEBHOOK)] {
        let (idle, after) = (mib(&idle.rss(name)), mib(&after.rss(name)));
        let more = of_runs.count;
        println!(
            "{what}: RSS {idle} MiB with {known} runs in the cluster, {after} MiB after {more} more have ended"
        );
    }
    if let Some(counting) = counting {
        let (writes, events) = counting.end().await?.writes(of_runs.count);
        println!("for each TaskRun the engine writes {writes:.2} times and records {events:.2} events");
    }
    world.remove(&namespace).await?;
    node.stop().await
}

impl Total {
    /// Creates so many objects as fast as the API server takes them and waits for their ends.
    async fn batch<K>(
        &mut self,
        api: &Api<K>,
        timeline: &Timeline,
        count: usize,
        make: impl Fn(usize) -> Result<K>,
    ) -> Result<()>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Serialize
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let objects = (0..count).map(make).collect::<Result<Vec<_>>>()?;
        let (before, begun) = (Processes::now()?, Instant::now());
        let earlier = timeline.succeeded();
        stream::iter(objects.iter().map(Ok))
            .try_for_each_concurrent(AT_ONCE, |object| async {
                api.create(&PostParams::default(), object).await.map(drop)
            })
            .await?;
        let patience = PATIENCE * u32::try_from(count)?;
        timeline.all_ended(earlier + count, patience).await?;
        self.time += begun.elapsed();
        self.count += count;
        for (name, cpu) in Processes::now()?.cpu_since(&before) {
            *self.cpu.entry(name).or_default() += cpu;
        }
        Ok(())
    }

    /// Milliseconds of CPU for each object.
    fn cpu(&self, name: &str) -> f64 {
        per(self.cpu.get(name).copied().unwrap_or_default() * 1e3, number(self.count))
    }
}

fn print_rates(of_pods: &Total, of_runs: &Total) {
    let (floor, rate) = (rate(of_pods.count, of_pods.time), rate(of_runs.count, of_runs.time));
    println!("{} one-step TaskRuns: {rate:.1} a second", of_runs.count);
    println!("floor, as many bare pods: {floor:.1} a second; ratio {:.2}\n", per(rate, floor));
    println!("{:<16} {:>16} {:>16}", "CPU ms for each", "TaskRun", "bare pod");
    let mut names: Vec<_> = of_runs.cpu.keys().filter(|name| of_runs.cpu(name) >= LITTLE).collect();
    names.sort_by(|a, b| of_runs.cpu(b).total_cmp(&of_runs.cpu(a)));
    for name in names {
        println!("{name:<16} {:>16.1} {:>16.1}", of_runs.cpu(name), of_pods.cpu(name));
    }
    println!();
}

fn mib(rss: &[f64]) -> String {
    if rss.is_empty() {
        return "(not on this machine)".to_owned();
    }
    rss.iter().map(|rss| format!("{rss:.0}")).collect::<Vec<_>>().join(" and ")
}

fn bare_pod(batch: usize, number: usize, placement: &Value) -> Result<Pod> {
    let mut pod = objects::bare_pod(&format!("bare-{batch}-{number}"), IMAGE)?;
    pod.metadata.labels = Some(BTreeMap::from([(BARE.to_owned(), String::new())]));
    let mut value = serde_json::to_value(&pod)?;
    place(&mut value["spec"], placement);
    Ok(serde_json::from_value(value)?)
}

fn task_run(batch: usize, number: usize, placement: &Value) -> Result<TaskRun> {
    let run = objects::task_run(&format!("run-{batch}-{number}"), &objects::one_step(IMAGE))?;
    let mut value = serde_json::to_value(&run)?;
    value["spec"]["podTemplate"] = placement.clone();
    Ok(serde_json::from_value(value)?)
}

fn place(spec: &mut Value, placement: &Value) {
    for (field, value) in placement.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
}

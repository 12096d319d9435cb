//! How many runs end in a second when their pods take no time: `cargo run --release -p ropewalk-bench --bin load`.
//!
//! A node of the program's own says of each pod it is given that it runs, and then that it has succeeded. Bare pods on
//! the same node are the floor; pods of the TaskRuns' shape tell how much of the way up from it is the shape's. Batches of
//! the three take turns, so that what drifts hits all alike.

#![expect(clippy::print_stdout, reason = "figures are this program's output")]

use std::collections::BTreeMap;
use std::num::NonZero;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use futures::{TryStreamExt, stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::runtime::wait::await_condition;
use ropewalk_api::TaskRun;
use ropewalk_api::conditions::is_done;
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

/// Batches of each kind.
const BATCHES: usize = 4;

/// Creations at once: enough that the API server is never without one.
const AT_ONCE: usize = 32;

/// For each object of a batch: many times what one takes on a machine used for work.
const PATIENCE: Duration = Duration::from_millis(500);

/// On the pods that are the floor.
const BARE: &str = "bench.ropewalk.dev/bare";

/// The fake node pulls nothing.
const IMAGE: &str = "none";

/// Who takes part, by the names of processes; what all others use tells how busy the machine was beside.
const PARTS: [&str; 8] = [
    "kube-apiserver",
    "etcd",
    "kube-scheduler",
    // The kernel cuts names.
    "kube-controller",
    "kubelet",
    CONTROLLER,
    WEBHOOK,
    "load",
];

#[derive(Parser)]
#[command(
    about = "Prints how many one-step TaskRuns end in a second on a node that ends pods at once, beside bare pods"
)]
struct Args {
    /// TaskRuns, and as many pods of each kind
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
    let namespace = world.namespace("load").await?;
    let node = FakeNode::start(world.client(), &namespace).await?;
    let measured = Box::pin(measure(args, &world, &namespace, &node.placement())).await;
    // The node ends what the namespace holds.
    world.remove(&namespace).await?;
    node.stop().await?;
    measured
}

async fn measure(args: &Args, world: &World, namespace: &str, placement: &Value) -> Result<()> {
    let client = world.client();
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let runs = Api::<TaskRun>::namespaced(client.clone(), namespace);
    let known = Api::<TaskRun>::all(client.clone()).list(&ListParams::default()).await?.items.len();
    let counting = match world.audit() {
        Some(audit) => Some(Counting::start(client, audit, namespace).await?),
        None => None,
    };
    let idle = Processes::now()?;

    let shape = shape(&runs, &pods, placement).await?;
    let (mut of_pods, mut of_shapes, mut of_runs) = (Total::default(), Total::default(), Total::default());
    let each = args.runs.div_ceil(BATCHES);
    for batch in 0..BATCHES {
        let timeline = Timeline::start(client, namespace, &[Object::Pod]).await?;
        of_pods.batch(&pods, &timeline, each, |number| bare_pod(batch, number, placement)).await?;
        of_shapes.batch(&pods, &timeline, each, |number| Ok(shaped_pod(batch, number, &shape))).await?;
        drop(timeline);
        // Runs keep their pods; those of the floor would only make every list longer.
        pods.delete_collection(&DeleteParams::default(), &ListParams::default().labels(BARE)).await?;
        let timeline = Timeline::start(client, namespace, &[Object::TaskRun]).await?;
        of_runs
            .batch(&runs, &timeline, each, |number| task_run(&format!("run-{batch}-{number}"), placement))
            .await?;
    }
    let after = Processes::now()?;
    print_rates(&of_pods, &of_shapes, &of_runs);
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
    Ok(())
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

    /// Milliseconds of CPU for each object, of the processes that are chosen.
    fn cpu(&self, chosen: impl Fn(&str) -> bool) -> f64 {
        let seconds: f64 = self.cpu.iter().filter(|(name, _)| chosen(name)).map(|(_, cpu)| cpu).sum();
        per(seconds * 1e3, number(self.count))
    }

    fn rate(&self) -> f64 {
        rate(self.count, self.time)
    }
}

fn print_rates(of_pods: &Total, of_shapes: &Total, of_runs: &Total) {
    let ratio = |floor: &Total| per(of_runs.rate(), floor.rate());
    println!("{} one-step TaskRuns: {:.1} a second", of_runs.count, of_runs.rate());
    println!("floor, as many bare pods: {:.1} a second, ratio {:.2}", of_pods.rate(), ratio(of_pods));
    println!("bare pods of their shape: {:.1} a second, ratio {:.2}\n", of_shapes.rate(), ratio(of_shapes));
    println!("{:<20} {:>10} {:>10} {:>10}", "CPU ms for each", "TaskRun", "shape", "bare pod");
    let row = |what: &str, chosen: &dyn Fn(&str) -> bool| {
        let [run, shape, pod] = [of_runs, of_shapes, of_pods].map(|total| total.cpu(chosen));
        println!("{what:<20} {run:>10.1} {shape:>10.1} {pod:>10.1}");
    };
    for part in PARTS {
        row(part, &|name| name == part);
    }
    row("all of these", &|name| PARTS.contains(&name));
    row("the machine's rest", &|name| !PARTS.contains(&name));
    println!();
    print_reason(of_pods, of_runs);
}

/// What keeps TaskRuns from ending as fast as bare pods, as far as CPU tells.
fn print_reason(of_pods: &Total, of_runs: &Total) {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let busy = of_runs.cpu(|_| true) / 1e3 * of_runs.rate();
    let ours = of_runs.cpu(|name| [CONTROLLER, WEBHOOK].contains(&name));
    let [all, floor] = [of_runs, of_pods].map(|total| total.cpu(|name| PARTS.contains(&name)));
    println!(
        "reason for the gap: TaskRuns keep {busy:.1} of {cores} cores busy; one costs {all:.1} ms of CPU, a bare pod {floor:.1}; \
         the engine's part is {ours:.1}, the rest is what the cluster takes for a bigger pod, the TaskRun and its events"
    );
}

fn mib(rss: &[f64]) -> String {
    if rss.is_empty() {
        return "(not on this machine)".to_owned();
    }
    rss.iter().map(|rss| format!("{rss:.0}")).collect::<Vec<_>>().join(" and ")
}

fn bare_pod(batch: usize, number: usize, placement: &Value) -> Result<Pod> {
    let mut pod = objects::bare_pod(&format!("bare-{batch}-{number}"), IMAGE)?;
    mark(&mut pod);
    let mut value = serde_json::to_value(&pod)?;
    for (field, placed) in placement.as_object().into_iter().flatten() {
        value["spec"][field] = placed.clone();
    }
    Ok(serde_json::from_value(value)?)
}

/// The pod that a TaskRun becomes here.
async fn shape(runs: &Api<TaskRun>, pods: &Api<Pod>, placement: &Value) -> Result<Pod> {
    runs.create(&PostParams::default(), &task_run("shape", placement)?).await?;
    let ended = await_condition(runs.clone(), "shape", |run: Option<&TaskRun>| {
        run.and_then(|run| run.status.as_ref()).is_some_and(|status| is_done(&status.conditions))
    });
    tokio::time::timeout(ropewalk_bench::PATIENCE, ended)
        .await
        .context("the first TaskRun does not end")??;
    Ok(pods.get("shape-pod").await?)
}

fn shaped_pod(batch: usize, number: usize, shape: &Pod) -> Pod {
    let mut pod = objects::of_shape(&format!("shape-{batch}-{number}"), shape);
    mark(&mut pod);
    pod
}

fn mark(pod: &mut Pod) {
    pod.metadata.labels = Some(BTreeMap::from([(BARE.to_owned(), String::new())]));
}

fn task_run(name: &str, placement: &Value) -> Result<TaskRun> {
    let mut value = serde_json::to_value(objects::task_run(name, &objects::one_step(IMAGE))?)?;
    value["spec"]["podTemplate"] = placement.clone();
    Ok(serde_json::from_value(value)?)
}

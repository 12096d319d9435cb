//! How long pods and runs take in one world, and what one run asks of the API server:
//! `cargo run --release -p ropewalk-bench --bin latency -- --world cluster`.
//!
//! Every round creates each kind once, one after the other, beginning with another one each time, so that what drifts
//! hits all alike. The floor of a figure is measured in the same rounds.

#![expect(clippy::print_stdout, reason = "figures are this program's output")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use futures::future::try_join_all;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::api::{Api, DeleteParams, PostParams};
use ropewalk_api::{ParamValue, PipelineRun, TaskRun, TaskRunResult};
use ropewalk_bench::figures::{mean, median, ms, number, per, quantile, rate, ratio};
use ropewalk_bench::objects;
use ropewalk_bench::processes::{self, CONTROLLER, Processes, WEBHOOK};
use ropewalk_bench::requests::Counting;
use ropewalk_bench::timeline::{Kind as Object, Sample, Timeline};
use ropewalk_bench::world::World;
use ropewalk_entrypoint_protocol::termination::Termination;
use ropewalk_test::harness::{self, Kind as WorldKind};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What five stands for in the names of kinds.
const FIVE: usize = 5;

/// Runs whose requests are counted.
const COUNTED: usize = 5;

/// Objects created at once in the world of one process.
const BURST: usize = 100;

#[derive(Parser)]
#[command(
    about = "Prints how long pods and runs take, each beside its floor, and what one run asks of the API server"
)]
struct Args {
    /// Where to measure; a cluster is the one that KUBECONFIG leads to, with Ropewalk in it
    #[arg(long, value_enum)]
    world: WorldKind,

    /// How often each kind is created; the figures are medians
    #[arg(long, default_value_t = 20)]
    rounds: usize,
}

/// What is created, and timed to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Bare,
    BareWithInit,
    StepPod,
    StepPods,
    StepsPod,
    OneStep,
    FiveSteps,
    OneTask,
    FiveTasks,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Bare,
        Self::BareWithInit,
        Self::StepPod,
        Self::StepPods,
        Self::StepsPod,
        Self::OneStep,
        Self::FiveSteps,
        Self::OneTask,
        Self::FiveTasks,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Bare => "bare pod",
            Self::BareWithInit => "bare pod with an init container",
            Self::StepPod => "bare pod of a one-step TaskRun's shape",
            Self::StepPods => "five of these in turn",
            Self::StepsPod => "bare pod of a five-step TaskRun's shape",
            Self::OneStep => "one-step TaskRun",
            Self::FiveSteps => "five-step TaskRun",
            Self::OneTask => "one-task PipelineRun",
            Self::FiveTasks => "five-task PipelineRun",
        }
    }

    /// The beginning of its objects' names.
    fn prefix(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::BareWithInit => "init",
            Self::StepPod => "step-pod",
            Self::StepPods => "step-pods",
            Self::StepsPod => "steps-pod",
            Self::OneStep => "one-step",
            Self::FiveSteps => "five-steps",
            Self::OneTask => "one-task",
            Self::FiveTasks => "five-tasks",
        }
    }

    /// What it is compared to.
    fn floor(self) -> Option<Self> {
        match self {
            Self::Bare | Self::StepPods => None,
            Self::BareWithInit | Self::StepsPod => Some(Self::Bare),
            Self::StepPod => Some(Self::BareWithInit),
            Self::OneStep | Self::OneTask => Some(Self::StepPod),
            Self::FiveSteps => Some(Self::StepsPod),
            Self::FiveTasks => Some(Self::StepPods),
        }
    }
}

fn main() -> Result<ExitCode> {
    if let Some(ended) = harness::begin() {
        return Ok(ended);
    }
    let args = Args::parse();
    if let Some(lacking) = args.world.lacks() {
        println!("SKIPPED: figures of the world {}, which needs {lacking}", args.world);
        let required = std::env::var_os("ROPEWALK_REQUIRE_TOOLS").is_some();
        return Ok(if required { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    tokio::runtime::Runtime::new()?.block_on(run(&args))?;
    Ok(ExitCode::SUCCESS)
}

async fn run(args: &Args) -> Result<()> {
    let world = World::start(args.world).await?;
    if world.is_standalone() {
        println!("RSS idle: {:.0} MiB", processes::own()?.rss);
    }
    let measured = measure(args, &world).await;
    world.stop().await?;
    measured
}

async fn measure(args: &Args, world: &World) -> Result<()> {
    within(world, "latency", async |bench| {
        let before = Processes::now()?;
        let rounds = bench.rounds(args.rounds).await?;
        rounds.print(args);
        if world.is_standalone() { bench.burst().await } else { usage(&before, args.rounds) }
    })
    .await?;
    requests(world).await
}

/// With a namespace for it that is removed in any case.
async fn within(world: &World, name: &str, what: impl AsyncFnOnce(Bench<'_>) -> Result<()>) -> Result<()> {
    let namespace = world.namespace(name).await?;
    let done = Box::pin(async { what(Bench::start(world, &namespace).await?).await }).await;
    world.remove(&namespace).await?;
    done
}

/// One namespace to measure in, and what pods of runs look like here.
struct Bench<'a> {
    world: &'a World,
    namespace: &'a str,
    image: &'static str,
    timeline: Timeline,
    step_pod: Pod,
    steps_pod: Pod,
}

/// Before the creation of this turn: any part of a second, each as often as any other. What follows the end of a pod
/// would always come at the same moment of the kubelet's rounds.
fn pause(turn: usize) -> Duration {
    // Multiples of the golden ratio fall into the gaps between those before.
    Duration::from_secs_f64((number(turn) * 0.618_033_988_75).fract())
}

/// The samples of every kind, in the order of [`Kind::ALL`], and of the wait between steps.
struct Rounds {
    samples: Vec<Vec<Sample>>,
    hand_overs: Vec<HandOver>,
}

/// From the end of a step to the start of the next step's command.
#[derive(Clone, Copy, Debug)]
struct HandOver {
    total: Duration,
    /// Of it, what passed when the next step's container was there to be told.
    ready: Duration,
}

impl<'a> Bench<'a> {
    /// Runs what the shapes are taken from; after that everything is warm.
    async fn start(world: &'a World, namespace: &'a str) -> Result<Self> {
        let image = world.image().await?;
        let kinds = [Object::Pod, Object::TaskRun, Object::PipelineRun];
        let timeline = Timeline::start(world.client(), namespace, &kinds).await?;
        let mut bench =
            Self { world, namespace, image, timeline, step_pod: Pod::default(), steps_pod: Pod::default() };
        for kind in [Kind::OneStep, Kind::FiveSteps] {
            let name = format!("{}-shape", kind.prefix());
            bench.create(kind, &name).await?;
            let pod = bench.api::<Pod>().get(&format!("{name}-pod")).await?;
            *if kind == Kind::OneStep { &mut bench.step_pod } else { &mut bench.steps_pod } = pod;
        }
        bench.clear().await?;
        Ok(bench)
    }

    async fn rounds(&self, rounds: usize) -> Result<Rounds> {
        ensure!(rounds > 0, "there are no figures of no round");
        let mut all = Rounds { samples: vec![Vec::new(); Kind::ALL.len()], hand_overs: Vec::new() };
        for round in 0..rounds {
            for number in (0..Kind::ALL.len()).map(|turn| (turn + round) % Kind::ALL.len()) {
                let kind = Kind::ALL[number];
                let name = format!("{}-{round}", kind.prefix());
                if !self.world.is_standalone() {
                    tokio::time::sleep(pause(round * Kind::ALL.len() + number)).await;
                }
                let begun = Instant::now();
                let ended = self.create(kind, &name).await?;
                all.samples[number].push(self.timeline.sample(&name, begun, ended).await?);
                if kind == Kind::FiveSteps {
                    all.hand_overs.extend(self.hand_overs(&name).await?);
                }
            }
            self.clear().await?;
        }
        Ok(all)
    }

    /// Creates one and waits for its end; when that was seen.
    async fn create(&self, kind: Kind, name: &str) -> Result<Instant> {
        let image = self.image;
        match kind {
            Kind::Bare => self.end_of(Object::Pod, name, &objects::bare_pod(name, image)?).await,
            Kind::BareWithInit => {
                self.end_of(Object::Pod, name, &objects::bare_pod_with_init(name, image)?).await
            }
            Kind::StepPod => self.end_of(Object::Pod, name, &objects::of_shape(name, &self.step_pod)).await,
            Kind::StepsPod => self.end_of(Object::Pod, name, &objects::of_shape(name, &self.steps_pod)).await,
            Kind::StepPods => {
                let mut ended = Instant::now();
                for number in 0..FIVE {
                    let name = format!("{name}-{number}");
                    ended =
                        self.end_of(Object::Pod, &name, &objects::of_shape(&name, &self.step_pod)).await?;
                }
                Ok(ended)
            }
            Kind::OneStep => {
                self.end_of(Object::TaskRun, name, &objects::task_run(name, &objects::one_step(image))?).await
            }
            Kind::FiveSteps => {
                self.end_of(Object::TaskRun, name, &objects::task_run(name, &objects::steps(FIVE, image))?)
                    .await
            }
            Kind::OneTask | Kind::FiveTasks => {
                let tasks = if kind == Kind::OneTask { 1 } else { FIVE };
                self.end_of(Object::PipelineRun, name, &objects::pipeline_run(name, tasks, image)?).await
            }
        }
    }

    async fn end_of<K>(&self, kind: Object, name: &str, object: &K) -> Result<Instant>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Serialize
            + DeserializeOwned
            + std::fmt::Debug,
    {
        self.api::<K>().create(&PostParams::default(), object).await?;
        self.timeline.ended(kind, name).await
    }

    /// How the entrypoints saw each turn pass from one step to the next: the times of files that they made, and of the
    /// command's start in the termination message, cut to milliseconds.
    async fn hand_overs(&self, name: &str) -> Result<Vec<HandOver>> {
        let status = self.api::<TaskRun>().get(name).await?.status.unwrap_or_default();
        let times = |wanted: &str| match status.results.iter().find(|result| result.name == wanted) {
            Some(TaskRunResult { value: ParamValue::String(times), .. }) => {
                Ok(times.split_whitespace().map(str::parse::<f64>).collect::<Result<Vec<_>, _>>()?)
            }
            _ => bail!("TaskRun \"{name}\" has no result \"{wanted}\""),
        };
        let (posted, waited) = (times(objects::POSTED)?, times(objects::WAITED)?);
        let pod = self.api::<Pod>().get(&status.pod_name).await?;
        let mut started = Vec::new();
        for container in
            pod.status.into_iter().flat_map(|status| status.container_statuses.unwrap_or_default())
        {
            let message = container.state.and_then(|state| state.terminated?.message).unwrap_or_default();
            let at = Termination::parse(&message)?.started_at.context("a step without a start")?;
            started.push((container.name, at.parse::<Timestamp>()?.as_duration().as_secs_f64()));
        }
        // Fewer than ten steps: their names sort as they run.
        started.sort_by(|a, b| a.0.cmp(&b.0));
        ensure!(
            posted.len() + 1 == started.len() && waited.len() == posted.len(),
            "TaskRun \"{name}\" lacks times"
        );
        let seconds = |seconds: f64| Duration::from_secs_f64(seconds.max(0.0));
        let turns = posted.iter().zip(&waited).zip(started.iter().skip(1));
        let hand_over = |((posted, waited), (_, started)): ((&f64, &f64), &(String, f64))| HandOver {
            total: seconds(started - posted),
            ready: seconds(started - posted.max(*waited)),
        };
        Ok(turns.map(hand_over).collect())
    }

    /// So many TaskRuns at once, and as many pods of their shape.
    async fn burst(&self) -> Result<()> {
        let cpu = processes::own()?.cpu;
        let (image, step_pod) = (self.image, &self.step_pod);
        let pods = self
            .at_once("burst-pod", Object::Pod, |name| Ok(objects::of_shape(name, step_pod)))
            .await
            .context("a burst of pods")?;
        let between = processes::own()?.cpu;
        let runs = self
            .at_once("burst", Object::TaskRun, |name| objects::task_run(name, &objects::one_step(image)))
            .await
            .context("a burst of TaskRuns")?;
        let usage = processes::own()?;
        println!(
            "{BURST} one-step TaskRuns at once: {:.1} a second; floor: bare pods of their shape {:.1} a second, ratio {:.2}",
            rate(BURST, runs),
            rate(BURST, pods),
            ratio(pods, runs)
        );
        let each = |cpu: f64| per(cpu * 1e3, number(BURST));
        println!(
            "CPU for each, all of it but the steps: {:.1} ms; floor {:.1} ms. RSS after them {:.0} MiB",
            each(usage.cpu - between),
            each(between - cpu),
            usage.rss
        );
        Ok(())
    }

    async fn at_once<K>(
        &self,
        prefix: &str,
        kind: Object,
        make: impl Fn(&str) -> Result<K>,
    ) -> Result<Duration>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Serialize
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let all = (0..BURST).map(|number| {
            let name = format!("{prefix}-{number}");
            make(&name).map(|object| (name, object))
        });
        let all = all.collect::<Result<Vec<_>>>()?;
        let begun = Instant::now();
        try_join_all(all.iter().map(|(name, object)| self.end_of(kind, name, object))).await?;
        let took = begun.elapsed();
        self.clear().await?;
        Ok(took)
    }

    /// Removes everything, so that no round pays for those before it.
    async fn clear(&self) -> Result<()> {
        let gone = DeleteParams::default();
        stream::iter(self.timeline.present())
            .for_each_concurrent(8, |(kind, name)| {
                let gone = &gone;
                async move {
                    // What is gone with its owner is gone; what stays is waited for below in vain.
                    match kind {
                        Object::Pod => drop(self.api::<Pod>().delete(&name, gone).await),
                        Object::TaskRun => drop(self.api::<TaskRun>().delete(&name, gone).await),
                        Object::PipelineRun => drop(self.api::<PipelineRun>().delete(&name, gone).await),
                    }
                }
            })
            .await;
        self.timeline.empty().await
    }

    fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.world.client().clone(), self.namespace)
    }
}

impl Rounds {
    fn print(&self, args: &Args) {
        println!("World {}, milliseconds from creation to end, of {} rounds.", args.world, args.rounds);
        println!(
            "Ratios are to the floor. Of the time, the last four columns: until the first pod appeared, while there"
        );
        println!("was a pod, from a pod's end to the next pod, from the last pod's end; medians.");
        if args.world == WorldKind::Cluster {
            println!(
                "A kubelet looks at its containers once a second: what ends is seen then, and a pod takes a second or"
            );
            println!("less for each container after another. Runs are created at any moment of that second.");
        }
        println!(
            "\n{:<40} {:>7} {:>6} {:>7} {:>6}  {:<39} {:>6} {:>6} {:>7} {:>6}",
            "", "median", "ratio", "mean", "ratio", "floor", "before", "pods", "between", "after"
        );
        let place = |kind: Kind| Kind::ALL.iter().position(|other| *other == kind).unwrap_or_default();
        let all = |kind: Kind, part: fn(&Sample) -> Duration| self.samples[place(kind)].iter().map(part);
        for kind in Kind::ALL {
            let middle = |part| ms(median(all(kind, part)));
            println!(
                "{:<40} {:>7.0} {:>6} {:>7.0} {:>6}  {:<39} {:>6.0} {:>6.0} {:>7.0} {:>6.0}",
                kind.label(),
                middle(|sample| sample.total),
                against(&|kind| median(all(kind, |sample| sample.total)), kind),
                ms(mean(all(kind, |sample| sample.total))),
                against(&|kind| mean(all(kind, |sample| sample.total)), kind),
                kind.floor().map_or("", Kind::label),
                middle(|sample| sample.before),
                middle(|sample| sample.pods),
                middle(|sample| sample.between),
                middle(|sample| sample.after),
            );
        }
        let waits = |part: fn(&HandOver) -> Duration| {
            let all = || self.hand_overs.iter().map(part);
            format!("median {:.1} ms, p99 {:.1} ms", ms(median(all())), ms(quantile(all(), 99)))
        };
        println!("\nwait between steps, of {}: {}", self.hand_overs.len(), waits(|wait| wait.total));
        println!(
            "without the start of the next step's container, which the node may still be at: {}",
            waits(|wait| wait.ready)
        );
    }
}

/// How many times its floor, if it has one.
fn against(figure: &dyn Fn(Kind) -> Duration, kind: Kind) -> String {
    kind.floor().map_or_else(String::new, |floor| format!("{:.2}", ratio(figure(kind), figure(floor))))
}

/// Of the installed processes over all rounds.
fn usage(before: &Processes, rounds: usize) -> Result<()> {
    let now = Processes::now()?;
    let cpu = now.cpu_since(before);
    for (what, name) in [("controller", CONTROLLER), ("webhook", WEBHOOK)] {
        let rss = now.rss(name);
        if rss.is_empty() {
            println!("{what}: not on this machine, no figures of CPU and RSS");
            continue;
        }
        let rss: Vec<_> = rss.iter().map(|rss| format!("{rss:.0}")).collect();
        let cpu = cpu.iter().find(|(of, _)| of == name).map_or(0.0, |(_, cpu)| *cpu);
        println!(
            "{what}: RSS {} MiB; CPU {:.0} ms a round, which has 12 pods from 8 TaskRuns and 2 PipelineRuns, all replicas",
            rss.join(" and "),
            per(cpu * 1e3, number(rounds))
        );
    }
    Ok(())
}

/// What one run asks of the API server, if that can be told.
async fn requests(world: &World) -> Result<()> {
    let Some(audit) = world.audit() else { return Ok(()) };
    for kind in [Kind::OneStep, Kind::OneTask] {
        within(world, &format!("latency-{}", kind.prefix()), async |bench| {
            let counting = Counting::start(world.client(), audit.clone(), bench.namespace).await?;
            for number in 0..COUNTED {
                bench.create(kind, &format!("{}-{number}", kind.prefix())).await?;
            }
            let counts = counting.end().await?;
            let (writes, events) = counts.writes(COUNTED);
            println!(
                "\n{}: the engine writes {writes:.1} times and records {events:.1} events",
                kind.label()
            );
            println!("requests for each:");
            for line in counts.lines(COUNTED) {
                println!("{line}");
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

//! Measures a world of this process and prints figures, each beside its floor: `cargo run --release -p ropewalk-test
//! --bin bench`. Asserts nothing; compare ratios to the floor of the same run, never times of two machines.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, PostParams};
use kube::runtime::wait::{await_condition, conditions::is_deleted};
use kube::{Client, ResourceExt};
use ropewalk_api::conditions::{is_done, is_successful};
use ropewalk_api::{ParamValue, PipelineRun, TaskRun};
use ropewalk_standalone::node::RootfsMode;
use ropewalk_standalone::{Config, Standalone};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Longer than any of these takes on any machine that is used for work.
const PATIENCE: Duration = Duration::from_mins(2);

/// Repetitions of what is measured one after the other.
const ROUNDS: usize = 20;

/// Steps of a TaskRun for the hand-over; a pod has a mount for each pair of steps.
const STEPS: usize = 21;

/// TaskRuns for the hand-over: 200 hand-overs with the steps above.
const CHAINS: usize = 10;

/// TaskRuns created at once.
const BURST: usize = 100;

fn main() -> Result<ExitCode> {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "__shim") {
        return Ok(ropewalk_standalone::node::shim::main(std::env::args_os().skip(2)));
    }
    tokio::runtime::Runtime::new()?.block_on(measure())?;
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "figures are this program's output")]
async fn measure() -> Result<()> {
    let config = Config { rootfs: RootfsMode::Host, ..Config::default() };
    let world = Standalone::start(config).context("cannot start the world")?;
    let client = world.client();
    println!("RSS idle: {} MiB", rss()?);

    let pod = median(ROUNDS, async |round| bare_pod(&client, round).await).await?;
    println!("bare pod, create to done: {} (median of {ROUNDS})", ms(pod));
    let task = median(ROUNDS, async |round| one_step(&client, round).await).await?;
    println!(
        "one-step TaskRun, create to done: {} (bare pod {}, ratio {:.2})",
        ms(task),
        ms(pod),
        ratio(task, pod)
    );
    let chain = median(5, async |round| five_tasks(&client, round).await).await?;
    let floor = pod * 5;
    println!(
        "chain of five tasks: {} (five bare pods {}, ratio {:.2})",
        ms(chain),
        ms(floor),
        ratio(chain, floor)
    );

    let mut gaps = Vec::new();
    for round in 0..CHAINS {
        gaps.extend(hand_overs(&client, round).await?);
    }
    gaps.sort_by(f64::total_cmp);
    let at = |share: usize| gaps[(gaps.len() - 1) * share / 100];
    println!("hand-over between steps: median {:.1} ms, p99 {:.1} ms, of {}", at(50), at(99), gaps.len());

    let begun = Instant::now();
    let runs = futures::future::try_join_all(
        (0..BURST).map(|number| create_one_step(&client, format!("burst-{number}"))),
    );
    for name in runs.await? {
        done(&client, &name).await?;
    }
    let each = f64::from(u32::try_from(BURST)?) / begun.elapsed().as_secs_f64();
    println!("tasks a second, {BURST} at once: {each:.1}; RSS after {} MiB", rss()?);
    world.stop().await.context("cannot stop the world")?;
    Ok(())
}

async fn median(rounds: usize, once: impl AsyncFn(usize) -> Result<Duration>) -> Result<Duration> {
    let mut times = Vec::new();
    for round in 0..rounds {
        times.push(once(round).await?);
    }
    times.sort();
    Ok(times[times.len() / 2])
}

/// The floor: a pod with the same image and nothing of ours in it.
async fn bare_pod(client: &Client, round: usize) -> Result<Duration> {
    let name = format!("bare-{round}");
    let pod = typed::<Pod>(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": { "restartPolicy": "Never", "containers": [{ "name": "main", "image": "host", "command": ["true"] }] },
    }))?;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let begun = Instant::now();
    pods.create(&PostParams::default(), &pod).await?;
    let ended = await_condition(pods.clone(), &name, |pod: Option<&Pod>| {
        pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref()).is_some_and(|phase| phase == "Succeeded")
    });
    tokio::time::timeout(PATIENCE, ended).await.context("the pod does not end")??;
    let took = begun.elapsed();
    let uid = pods.get(&name).await?.uid().unwrap_or_default();
    pods.delete(&name, &DeleteParams::default()).await?;
    tokio::time::timeout(PATIENCE, await_condition(pods, &name, is_deleted(&uid)))
        .await
        .context("the pod stays")??;
    Ok(took)
}

async fn one_step(client: &Client, round: usize) -> Result<Duration> {
    let begun = Instant::now();
    let name = create_one_step(client, format!("one-{round}")).await?;
    done(client, &name).await?;
    Ok(begun.elapsed())
}

async fn create_one_step(client: &Client, name: String) -> Result<String> {
    let step = json!([{ "name": "main", "image": "host", "command": ["true"] }]);
    create_taskrun(client, &name, &json!({ "steps": step })).await?;
    Ok(name)
}

async fn create_taskrun(client: &Client, name: &str, spec: &Value) -> Result<()> {
    let run = typed::<TaskRun>(json!({
        "apiVersion": "tekton.dev/v1", "kind": "TaskRun", "metadata": { "name": name }, "spec": { "taskSpec": spec },
    }))?;
    Api::default_namespaced(client.clone()).create(&PostParams::default(), &run).await?;
    Ok(())
}

async fn done(client: &Client, name: &str) -> Result<TaskRun> {
    let api: Api<TaskRun> = Api::default_namespaced(client.clone());
    let done = await_condition(api, name, |run: Option<&TaskRun>| {
        run.and_then(|run| run.status.as_ref()).is_some_and(|status| is_done(&status.conditions))
    });
    let run = tokio::time::timeout(PATIENCE, done).await.context("the run does not end")??;
    match run {
        Some(run) if run.status.as_ref().is_some_and(|status| is_successful(&status.conditions)) => Ok(run),
        other => bail!(
            "the run did not succeed: {:?}",
            other.and_then(|run| run.status).map(|status| status.conditions)
        ),
    }
}

async fn five_tasks(client: &Client, round: usize) -> Result<Duration> {
    let name = format!("chain-{round}");
    let task = |number: usize| {
        let after = if number == 0 { json!([]) } else { json!([format!("t{}", number - 1)]) };
        let steps = json!([{ "image": "host", "command": ["true"] }]);
        json!({ "name": format!("t{number}"), "runAfter": after, "taskSpec": { "steps": steps } })
    };
    let run = typed::<PipelineRun>(json!({
        "apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": { "name": name },
        "spec": { "pipelineSpec": { "tasks": (0..5).map(task).collect::<Vec<_>>() } },
    }))?;
    let api: Api<PipelineRun> = Api::default_namespaced(client.clone());
    let begun = Instant::now();
    api.create(&PostParams::default(), &run).await?;
    let done = await_condition(api, &name, |run: Option<&PipelineRun>| {
        run.and_then(|run| run.status.as_ref()).is_some_and(|status| is_successful(&status.conditions))
    });
    tokio::time::timeout(PATIENCE, done).await.context("the chain does not succeed")??;
    Ok(begun.elapsed())
}

/// Milliseconds from a step's post file to the start of the next step's command, as the entrypoints saw them: the
/// file's time, and `StartedAt` of the termination message. Steps take between nothing and 60 ms.
async fn hand_overs(client: &Client, round: usize) -> Result<Vec<f64>> {
    let name = format!("steps-{round}");
    let step = |number: usize| {
        let work = format!("sleep 0.0{}", number * 5 % 7);
        // The last step sees the post files of all others.
        let files = "for i in $(seq 0 19); do stat -c %.9Y /tekton/run/$i/out; done | tr '\\n' ' ' > /tekton/results/times";
        json!({ "image": "host", "script": if number == STEPS - 1 { files } else { work.as_str() } })
    };
    let spec = json!({ "results": [{ "name": "times" }], "steps": (0..STEPS).map(step).collect::<Vec<_>>() });
    create_taskrun(client, &name, &spec).await?;
    let status = done(client, &name).await?.status.unwrap_or_default();
    let times = match status.results.first().map(|result| &result.value) {
        Some(ParamValue::String(times)) => times.clone(),
        other => bail!("no times in {other:?}"),
    };
    let posted: Vec<f64> = times.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let pod = Api::<Pod>::default_namespaced(client.clone()).get(&status.pod_name).await?;
    let mut started = std::collections::BTreeMap::new();
    for container in pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten()) {
        let ended = container.state.as_ref().and_then(|state| state.terminated.as_ref());
        let message = ended.and_then(|ended| ended.message.as_deref()).unwrap_or("[]");
        let entries: Vec<Value> = serde_json::from_str(message)?;
        let entry =
            entries.iter().find(|entry| entry["key"] == "StartedAt").context("a step without StartedAt")?;
        let at: Timestamp = entry["value"].as_str().unwrap_or_default().parse()?;
        let number: usize = container.name.trim_start_matches("step-unnamed-").parse()?;
        started.insert(number, at.as_duration().as_secs_f64());
    }
    Ok(posted
        .iter()
        .enumerate()
        .filter_map(|(number, posted)| Some((started.get(&(number + 1))? - posted) * 1e3))
        .collect())
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T> {
    Ok(serde_json::from_value(value)?)
}

fn ms(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

fn ratio(time: Duration, floor: Duration) -> f64 {
    time.as_secs_f64() / floor.as_secs_f64()
}

/// Resident memory of this process, in MiB.
fn rss() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.split_whitespace().nth(1).context("no figure")?.parse()?;
    Ok(kib / 1024)
}

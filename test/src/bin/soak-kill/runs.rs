//! Runs that are meant to succeed or to fail, and whose steps each leave a line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use kube::api::{DeleteParams, PostParams};
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use rand::RngExt;
use rand::rngs::SmallRng;
use ropewalk_api::PipelineRun;
use ropewalk_api::conditions;
use serde_json::json;
use tokio::sync::watch;

use crate::server::PAUSE;

/// The steps of every run: each is executed, whichever way the run ends.
const STEPS: [&str; 4] = ["first-a", "first-b", "second-a", "last-a"];

/// The longest a step takes beside what it does, in hundredths of a second.
const LONGEST: u64 = 120;

/// The runs that ended.
pub(crate) struct Tally {
    lines: PathBuf,
    ended: AtomicUsize,
    /// Those that were not deleted, and whether they were meant to succeed.
    kept: Mutex<BTreeMap<String, bool>>,
}

impl Tally {
    pub(crate) fn new(lines: &Path) -> Self {
        Self { lines: lines.to_owned(), ended: AtomicUsize::new(0), kept: Mutex::default() }
    }

    pub(crate) fn ended(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }

    /// Those that ended are as they ended, and no step was executed since.
    pub(crate) async fn check(&self, client: &Client) -> Result<String> {
        let api = Api::<PipelineRun>::default_namespaced(client.clone());
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (name, succeeds) in &kept {
            let run = api.get(name).await.with_context(|| format!("run \"{name}\""))?;
            ensure!(outcome(&run) == Some(*succeeds), "run \"{name}\" has changed: {:?}", run.status);
        }
        let mut lines = 0;
        for entry in std::fs::read_dir(&self.lines)? {
            let path = entry?.path();
            let text = std::fs::read_to_string(&path)?;
            ensure!(text.lines().count() == 1, "\"{}\" was executed more than once: {text}", path.display());
            lines += 1;
        }
        let (ended, steps) = (self.ended(), self.ended() * STEPS.len());
        ensure!(lines == steps, "{steps} steps were to be executed, {lines} were");
        ensure!(ended > 0, "no run ended at all");
        Ok(format!("{ended} runs ended as meant; {lines} steps executed, each once"))
    }

    fn count(&self, name: &str) -> Vec<usize> {
        let lines = |step: &&str| {
            let text = std::fs::read_to_string(self.lines.join(format!("{name}-{step}"))).unwrap_or_default();
            text.lines().count()
        };
        STEPS.iter().map(lines).collect()
    }
}

/// One run after the other until told to stop.
pub(crate) async fn keep_running(
    client: Client,
    tally: std::sync::Arc<Tally>,
    slot: u64,
    mut random: SmallRng,
    stopping: watch::Receiver<bool>,
) -> Result<()> {
    let api = Api::<PipelineRun>::default_namespaced(client);
    for number in 0u64.. {
        if *stopping.borrow() {
            break;
        }
        let name = format!("run-{slot}-{number}");
        let succeeds = random.random_range(0..4) != 0;
        let run = pipeline_run(&name, succeeds, &tally.lines, &mut random)?;
        create(&api, &name, &run).await?;
        let ended = ended(&api, &name).await?;
        ensure!(outcome(&ended) == Some(succeeds), "run \"{name}\" ended otherwise: {:?}", ended.status);
        let executed = tally.count(&name);
        ensure!(executed == [1; STEPS.len()], "run \"{name}\" executed {STEPS:?} {executed:?} times");
        tally.ended.fetch_add(1, Ordering::Relaxed);
        if random.random_range(0..2) == 0 {
            tally.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(name, succeeds);
        } else {
            delete(&api, &name).await;
        }
    }
    Ok(())
}

/// Until the server, which may be away for a moment, has acknowledged it.
async fn create(api: &Api<PipelineRun>, name: &str, run: &PipelineRun) -> Result<()> {
    loop {
        match api.create(&PostParams::default(), run).await {
            Ok(_) => return Ok(()),
            // An earlier try was cut off after it had been written.
            Err(kube::Error::Api(status)) if status.code == 409 => return Ok(()),
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
                anyhow::bail!("run \"{name}\" was refused: {}", status.message)
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn delete(api: &Api<PipelineRun>, name: &str) {
    loop {
        match api.delete(name, &DeleteParams::background()).await {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if status.code == 404 => return,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn ended(api: &Api<PipelineRun>, name: &str) -> Result<PipelineRun> {
    let mut states = pin!(watch_object(api.clone(), name));
    let mut seen = false;
    while let Some(state) = states.next().await {
        match state {
            Ok(Some(run)) if outcome(&run).is_some() => return Ok(run),
            Ok(Some(_)) => seen = true,
            Ok(None) => ensure!(!seen, "run \"{name}\" was acknowledged and is gone"),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
    anyhow::bail!("the watch of run \"{name}\" ended")
}

/// Whether it succeeded; none while it runs.
fn outcome(run: &PipelineRun) -> Option<bool> {
    let succeeded = conditions::find(&run.status.as_ref()?.conditions, "Succeeded")?;
    match (succeeded.status.as_str(), succeeded.reason.as_str()) {
        ("True", "Succeeded") => Some(true),
        ("False", "Failed") => Some(false),
        ("Unknown", _) => None,
        // Neither is meant by any of these runs.
        _ => Some(succeeded.status != "True"),
    }
}

/// Steps side by side, one after the other with a result between them, a sidecar in some, and a task at the end.
fn pipeline_run(name: &str, succeeds: bool, lines: &Path, random: &mut SmallRng) -> Result<PipelineRun> {
    let mut step = |id: &str, then: &str| {
        let hundredths = random.random_range(0..LONGEST);
        let pause = format!("sleep {}.{:02}", hundredths / 100, hundredths % 100);
        let (_, step) = id.split_once('-').unwrap_or_default();
        json!({
            "name": step, "image": "host:1", "volumeMounts": [{"name": "lines", "mountPath": "/lines"}],
            "script": format!("#!/bin/sh\nset -e\necho $$ >> /lines/{name}-{id}\n{pause}\n{then}\n"),
        })
    };
    let first = [step("first-a", ""), step("first-b", &format!("printf %s {name} > $(results.told.path)"))];
    let code = if succeeds { 0 } else { 3 };
    let check = format!("[ \"$(params.told)\" = {name} ] || exit 9\nexit {code}");
    let second = step("second-a", &check);
    let last = step("last-a", "");
    let volumes = json!([{"name": "lines", "hostPath": {"path": lines}}]);
    let sidecars = if random.random_range(0..3) == 0 {
        json!([{"name": "beside", "image": "host:1", "command": ["sleep", "1000"]}])
    } else {
        json!([])
    };
    let run = json!({
        "metadata": {"name": name},
        "spec": {"pipelineSpec": {
            "tasks": [
                {"name": "first", "taskSpec": {
                    "results": [{"name": "told"}], "volumes": volumes, "steps": first, "sidecars": sidecars}},
                {"name": "second", "params": [{"name": "told", "value": "$(tasks.first.results.told)"}],
                 "taskSpec": {"params": [{"name": "told"}], "volumes": volumes, "steps": [second]}},
            ],
            "finally": [{"name": "last", "taskSpec": {"volumes": volumes, "steps": [last]}}],
        }},
    });
    Ok(serde_json::from_value(run)?)
}

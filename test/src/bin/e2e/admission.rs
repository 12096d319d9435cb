//! The table of right and wrong objects, held against a real API server with our webhook. Nothing of it is stored but what
//! is to be updated, and that is nobody's to run.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use ropewalk_test::harness::{Kind, Namespace, World};
use ropewalk_test::objects::{Case, Outcome, Settings, table};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

/// Where the ConfigMaps are.
const SYSTEM: &str = "tekton-pipelines";

/// How long a process may take to notice a ConfigMap.
const NOTICED: Duration = Duration::from_secs(30);

/// Nothing tells that it has.
const LOOK: Duration = Duration::from_millis(200);

/// Every object under the flags and defaults that the table names. In one process nobody changes these; the rest of the table
/// is a test of its own there, with a server for each.
pub(crate) async fn objects(world: &World) -> Result<()> {
    let namespace = world.namespace("objects").await?;
    let mut table = table()?;
    let plain = table.remove(&Settings::default()).context("most of the table needs no settings")?;
    let mut counts = judge_all(world, &namespace, &plain).await?;
    if world.kind() == Kind::Cluster {
        let maps = Maps::read(world.client()).await?;
        let mut judged = Ok(());
        for (settings, cases) in &table {
            judged = judge_under(world, &namespace, &maps, settings, cases, &mut counts).await;
            if judged.is_err() {
                break;
            }
        }
        maps.write(&Settings::default()).await?;
        judged?;
    }
    print(&counts);
    // The webhook answers for what only it can know.
    let (written, all) =
        (counts.get(&Outcome::AsWritten).copied().unwrap_or_default(), counts.values().sum::<usize>());
    ensure!(written * 10 >= all * 8, "only {written} of {all} objects were judged by the webhook");
    namespace.finish().await
}

type Counts = BTreeMap<Outcome, usize>;

async fn judge_all(world: &World, namespace: &Namespace<'_>, cases: &[Case]) -> Result<Counts> {
    let (mut counts, mut wrong) = (Counts::new(), Vec::new());
    for case in cases {
        match case.judged_by(&world.client(), namespace.name()).await {
            Ok(outcome) => *counts.entry(outcome).or_default() += 1,
            Err(difference) => wrong.push(format!("{difference:#}")),
        }
    }
    ensure!(wrong.is_empty(), "{} of {} objects:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    Ok(counts)
}

/// The webhook hears of a ConfigMap in its own time: what is wrong until then counts only if it stays so.
async fn judge_under(
    world: &World,
    namespace: &Namespace<'_>,
    maps: &Maps,
    settings: &Settings,
    cases: &[Case],
    counts: &mut Counts,
) -> Result<()> {
    maps.write(settings).await?;
    let deadline = Instant::now() + NOTICED;
    loop {
        match judge_all(world, namespace, cases).await {
            Ok(found) => {
                for (outcome, count) in found {
                    *counts.entry(outcome).or_default() += count;
                }
                return Ok(());
            }
            Err(wrong) if Instant::now() > deadline => {
                return Err(wrong.context(format!("under {settings:?}")));
            }
            Err(_) => sleep(LOOK).await,
        }
    }
}

#[expect(clippy::print_stdout, reason = "this is the program's output")]
fn print(counts: &Counts) {
    let of = |outcome| counts.get(&outcome).copied().unwrap_or_default();
    println!(
        "        {} objects judged as written, {} refused by the API server itself, {} without an unknown field it dropped",
        of(Outcome::AsWritten),
        of(Outcome::ByServer),
        of(Outcome::Pruned)
    );
}

/// The ConfigMaps as they are installed.
struct Maps {
    api: Api<ConfigMap>,
    installed: Settings,
}

impl Maps {
    async fn read(client: Client) -> Result<Self> {
        let api = Api::<ConfigMap>::namespaced(client, SYSTEM);
        let data = async |name: &str| anyhow::Ok(api.get(name).await?.data.unwrap_or_default());
        let installed =
            Settings { flags: data("feature-flags").await?, defaults: data("config-defaults").await? };
        Ok(Self { api, installed })
    }

    /// As they are installed, but for these; what neither has goes.
    async fn write(&self, settings: &Settings) -> Result<()> {
        let Settings { flags, defaults } = &self.installed;
        for (name, installed, changed) in
            [("feature-flags", flags, &settings.flags), ("config-defaults", defaults, &settings.defaults)]
        {
            let now = self.api.get(name).await?.data.unwrap_or_default();
            let keys = now.keys().chain(installed.keys()).chain(changed.keys());
            let value = |key: &String| changed.get(key).or_else(|| installed.get(key)).cloned();
            let data: Map<String, Value> = keys.map(|key| (key.clone(), value(key).into())).collect();
            let patch = Patch::Merge(json!({ "data": data }));
            self.api.patch(name, &PatchParams::default(), &patch).await?;
        }
        Ok(())
    }
}

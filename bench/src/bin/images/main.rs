//! What images cost: `cargo run --release -p ropewalk-bench --bin images`.
//!
//! - An image of 300 MB, made here and pushed to a `docker-registry` on this machine, pulled and unpacked by us; the floor is
//!   `skopeo copy` and `umoci unpack` of the same, in turns. With CPU, peak memory and bytes on the disk of each.
//! - A pod of it whose image has to come, and one whose image is there.
//! - A container that runs `true`, from the creation of its pod until it has succeeded, with the `builtin` runtime and with
//!   `runc`, in turns; the floor is `runc run` of the bundle that umoci made.

#![expect(clippy::print_stdout, reason = "figures are this program's output")]

mod made;
mod measured;

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use kube::runtime::wait::await_condition;
use measured::{Used, disk};
use ropewalk_bench::PATIENCE;
use ropewalk_bench::figures::{median, ms, ratio};
use ropewalk_bench::objects::bare_pod;
use ropewalk_core::images::keyring::Keyring;
use ropewalk_images::{Limits, Store};
use ropewalk_pull::Puller;
use ropewalk_standalone::node::{RuntimeKind, shim};
use ropewalk_standalone::{Config, Standalone};
use ropewalk_test::harness::Kind;
use ropewalk_test::harness::registry::{self, Registry};
use serde_json::Value;
use tokio::time::timeout;

/// The first argument of the process that pulls.
const PULL: &str = "__pull";

#[derive(Parser)]
#[command(about = "Prints what pulling, unpacking and running an image costs, beside skopeo, umoci and runc")]
struct Args {
    /// Size of the image, unpacked
    #[arg(long, default_value_t = 300)]
    megabytes: usize,

    /// Pulls of each
    #[arg(long, default_value_t = 5)]
    pulls: usize,

    /// Containers of each runtime
    #[arg(long, default_value_t = 20)]
    containers: usize,
}

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(first) if first == "__shim" => return Ok(shim::main(arguments)),
        Some(first) if first == measured::MEASURE => return measured::measure(arguments),
        Some(first) if first == PULL => {
            let mut text =
                || arguments.next().and_then(|argument| argument.into_string().ok()).context("two texts");
            let (directory, image) = (text()?, text()?);
            return tokio::runtime::Runtime::new()?.block_on(pull(Path::new(&directory), &image));
        }
        _ => {}
    }
    let args = Args::parse();
    let there = |program: &str| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
    let lacking = Kind::Standalone.lacks().or_else(registry::lacks);
    let programs = ["skopeo", "umoci", "runc"].into_iter().filter(|program| !there(program));
    let lacking: Vec<_> = lacking.into_iter().chain(programs).collect();
    if !lacking.is_empty() {
        println!("SKIPPED: figures of images, which need {}", lacking.join(" and "));
        let required = std::env::var_os("ROPEWALK_REQUIRE_TOOLS").is_some();
        return Ok(if required { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    tokio::runtime::Runtime::new()?.block_on(run(&args))?;
    Ok(ExitCode::SUCCESS)
}

/// What the process does that is measured: what a node does when an image is not there.
async fn pull(directory: &Path, image: &str) -> Result<ExitCode> {
    let store = Store::open(&directory.join("images"), Limits::default())?;
    let puller = Puller::new(store, ropewalk_pull::registries(directory.join(ropewalk_pull::HOSTS)));
    let pulled = puller.pull(&image.parse()?, Keyring::default(), "", |_| {}).await;
    pulled.map_err(|error| anyhow::anyhow!(ropewalk_api::errors::chain(&*error)))?;
    Ok(ExitCode::SUCCESS)
}

async fn run(args: &Args) -> Result<()> {
    // Not below /tmp, which may be memory and which containers find empty.
    let root = tempfile::tempdir_in("/var/lib")?;
    let served = root.path().join("registry");
    fs::create_dir(&served)?;
    let registry = Registry::start(Ipv4Addr::LOCALHOST.into(), &served).await?;
    let made = made::push(&registry, "bench/app", args.megabytes).await?;
    let image = format!("{}/bench/app:1", registry.host());
    println!(
        "image: {} layers, {} files, {} MB, {} MB as transferred",
        made.layers,
        made.files,
        made.bytes / 1_000_000,
        made.transferred / 1_000_000
    );
    let bundle = pulls(root.path(), &image, args.pulls)?;
    containers(root.path(), &image, &bundle, args.containers).await
}

/// Prints what each way costs; a bundle that umoci made.
fn pulls(root: &Path, image: &str, count: usize) -> Result<std::path::PathBuf> {
    let [ours, theirs] = ["ours", "theirs"].map(|name| root.join(name));
    let own = std::env::current_exe()?;
    let (mut our, mut copy, mut unpack, mut on_disk) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        for directory in [&ours, &theirs] {
            if directory.exists() {
                fs::remove_dir_all(directory)?;
            }
            fs::create_dir(directory)?;
        }
        // What one left to be written is not for the other to wait for.
        ensure!(Command::new("sync").status()?.success(), "sync fails");
        our.push(measured::run(Command::new(&own).arg(PULL).arg(&ours).arg(image))?);
        let layout = format!("{}/layout:1", theirs.display());
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["copy", "--quiet", "--src-tls-verify=false"]);
        copy.push(measured::run(skopeo.arg(format!("docker://{image}")).arg(format!("oci:{layout}")))?);
        let mut umoci = Command::new("umoci");
        umoci.args(["unpack", "--image", &layout]);
        unpack.push(measured::run(umoci.arg(theirs.join("bundle")))?);
        on_disk.push(measured::run(Command::new("sync").arg("--file-system").arg(&theirs))?);
    }
    println!("\npull and unpack, medians of {count}: s, CPU s, MiB at most");
    let of = |all: &[Used]| Used::median(all);
    let (our, parts) = (of(&our), [of(&copy), of(&unpack), of(&on_disk)]);
    let all = Used::one_after_the_other(&parts);
    for (name, used) in ["skopeo copy", "umoci unpack", "until it is on the disk"].into_iter().zip(&parts) {
        println!("  {name:<26} {used}");
    }
    println!("{:<28} {all}", "floor: all of these");
    println!("{:<28} {our}, {:.2} times the floor", "ours, on the disk", ratio(our.time, all.time));
    let mib = |bytes: u64| bytes >> 20;
    println!(
        "on the disk, MiB: ours {}; layout {} and bundle {}",
        mib(disk(&ours)?),
        mib(disk(&theirs.join("layout"))?),
        mib(disk(&theirs.join("bundle"))?)
    );
    Ok(theirs.join("bundle"))
}

/// A world in this process that pulls its images.
struct World {
    standalone: Standalone,
    pods: Api<Pod>,
    image: String,
    count: usize,
}

impl World {
    fn start(data_root: &Path, runtime: RuntimeKind, image: &str) -> Result<Self> {
        let config = Config { data_root: data_root.to_owned(), runtime, ..Config::default() };
        let standalone = Standalone::start(config).context("cannot start the world")?;
        let pods = Api::default_namespaced(standalone.client());
        Ok(Self { standalone, pods, image: image.to_owned(), count: 0 })
    }

    /// From the creation of a pod with one container that runs `true` until it has succeeded.
    async fn pod(&mut self) -> Result<Duration> {
        self.count += 1;
        let name = format!("pod-{}", self.count);
        let pod = bare_pod(&name, &self.image)?;
        let begun = Instant::now();
        self.pods.create(&PostParams::default(), &pod).await?;
        let phase = |pod: Option<&Pod>| pod.and_then(|pod| pod.status.as_ref()?.phase.clone());
        let ended = await_condition(self.pods.clone(), &name, move |pod: Option<&Pod>| {
            matches!(phase(pod).as_deref(), Some("Succeeded" | "Failed"))
        });
        let ended =
            timeout(PATIENCE, ended).await.with_context(|| format!("pod \"{name}\" does not end"))??;
        let took = begun.elapsed();
        let status = ended.and_then(|pod| pod.status).context("no status")?;
        ensure!(
            status.phase.as_deref() == Some("Succeeded"),
            "pod \"{name}\" has failed: {:?}",
            status.message
        );
        Ok(took)
    }
}

async fn containers(root: &Path, image: &str, bundle: &Path, count: usize) -> Result<()> {
    let mut builtin = World::start(&root.join("builtin"), RuntimeKind::Builtin, image)?;
    let mut runc = World::start(&root.join("runc"), RuntimeKind::Runc("runc".into()), image)?;
    let pulled = builtin.pod().await?;
    let here = builtin.pod().await?;
    println!(
        "\na pod's start, work and end, ms: with the pull {:.0}, the next one {:.0}",
        ms(pulled),
        ms(here)
    );
    // Its first pod pulls, and its second is the first that does not.
    for _ in 0..2 {
        runc.pod().await?;
    }
    edit(bundle)?;
    let (mut with_builtin, mut with_runc, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..count {
        with_builtin.push(builtin.pod().await?);
        with_runc.push(runc.pod().await?);
        bare.push(runc_alone(bundle, number)?);
    }
    let (builtin_took, runc_took, floor) = (median(with_builtin), median(with_runc), median(bare));
    println!("\none container that runs true, medians of {count} in turns: ms");
    println!("{:<28} {:>8.1}", "floor: runc run", ms(floor));
    for (name, took) in [("pod with builtin", builtin_took), ("pod with runc", runc_took)] {
        println!("{name:<28} {:>8.1}, {:.2} times the floor", ms(took), ratio(took, floor));
    }
    builtin.standalone.stop().await?;
    runc.standalone.stop().await?;
    Ok(())
}

/// Makes the bundle one that needs no terminal and runs what the pods run.
fn edit(bundle: &Path) -> Result<()> {
    let path = bundle.join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&path)?)?;
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = serde_json::json!(["/bin/true"]);
    Ok(fs::write(&path, spec.to_string())?)
}

fn runc_alone(bundle: &Path, number: usize) -> Result<Duration> {
    let name = format!("ropewalk-bench-{}-{number}", std::process::id());
    let begun = Instant::now();
    let output = Command::new("runc")
        .args(["run", "--bundle"])
        .arg(bundle)
        .arg(&name)
        .stdin(Stdio::null())
        .output()?;
    let took = begun.elapsed();
    if !output.status.success() {
        bail!("runc run fails: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(took)
}

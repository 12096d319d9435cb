//! What is left when processes are killed: nothing, once the command runs again.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use ropewalk_standalone::node::Instance;
use serde_json::json;

use crate::network;
use crate::world::{Left, World, outcome, phase, pod, script, test, with};

type Test = (&'static str, fn());

/// The first argument that makes this binary a process to be killed.
pub(crate) const VICTIM: &str = "__victim";

/// How many moments the victim is killed at, and the time between two of them: together they cover everything
/// from before its first container to when all have long run.
const MOMENTS: u32 = 20;
const STEP: Duration = Duration::from_millis(8);

pub(crate) fn all() -> Vec<Test> {
    vec![
        ("a_kill_at_any_moment_leaves_nothing", a_kill_at_any_moment_leaves_nothing),
        ("a_killed_shim_takes_its_container_along", a_killed_shim_takes_its_container_along),
    ]
}

/// Runs pods in an instance below the given directory until it is killed.
pub(crate) fn victim(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let root = PathBuf::from(arguments.next().expect("a directory"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let world = World::start_in(&root, network::own);
        println!("{}", world.instance.as_ref().expect("an instance").data_dir().display());
        let mounts = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "m", "mountPath": "/m"}]});
        let endless = "setsid sh -c 'trap \"\" TERM INT; while :; do sleep 1000; done' & echo up; sleep 1000";
        let volumes = json!([{"name": "v", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory"}}]);
        for name in ["one", "two"] {
            world
                .create(pod(
                    name,
                    json!({"volumes": volumes, "initContainers": [with(script("init", "touch /v/x"), mounts.clone())],
                           "containers": [with(script("a", endless), mounts.clone()), script("b", endless)]}),
                ))
                .await;
        }
        std::future::pending::<()>().await;
    });
    ExitCode::SUCCESS
}

fn a_kill_at_any_moment_leaves_nothing() {
    let root = tempfile::tempdir().expect("a directory");
    let executable = std::env::current_exe().expect("this program");
    let mut earlier = Vec::new();
    for moment in 0..MOMENTS {
        let mut victim = Command::new(&executable)
            .arg(VICTIM)
            .arg(root.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the victim starts");
        let mut line = String::new();
        let mut output = BufReader::new(victim.stdout.take().expect("its output"));
        output.read_line(&mut line).expect("its directory");
        // The moment of the kill is what is tried; no event announces it.
        std::thread::sleep(STEP * moment);
        victim.kill().expect("killed");
        victim.wait().expect("reaped");
        let left = Left::of(Path::new(line.trim()));
        let instance = Instance::create(root.path()).expect("the next run starts");
        left.assert_nothing();
        instance.remove().expect("removed");
        earlier.push(left.without_network());
    }
    // Nor did anything appear later.
    earlier.iter().for_each(Left::assert_nothing);
}

fn a_killed_shim_takes_its_container_along() {
    test(async |world: &mut World| {
        let spec = json!({"containers": [{"name": "c", "image": "host", "command": ["sleep", "1000"]}]});
        world.create(pod("p", spec)).await;
        let running = world.wait("p", phase(&["Running"])).await.expect("the pod");
        kill(world.process(&running, "c", "shim"), Signal::SIGKILL).expect("killed");
        let (code, reason, _) = outcome(&world.ended("p").await, "c");
        assert_eq!((code, reason.as_str()), (137, "ContainerStatusUnknown"));
        let command = std::fs::read(format!("/proc/{}/cmdline", world.process(&running, "c", "init")))
            .unwrap_or_default();
        assert!(command.is_empty(), "the container still runs: {}", String::from_utf8_lossy(&command));
    });
}

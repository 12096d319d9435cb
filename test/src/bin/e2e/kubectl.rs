//! A session with the real kubectl, from the first object to the last deletion: what is typed, whether it works, and what
//! must be read. The same for both worlds.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Namespace as Object;
use kube::api::{Api, PostParams};
use ropewalk_standalone::node::RootfsMode;
use ropewalk_standalone::{Config, Standalone};
use ropewalk_test::harness::images::IMAGE;
use ropewalk_test::harness::{Kind, PATIENCE, World};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// Where the newest kubectl is, as `hack/newest-kubectl` prints it.
const NEWEST: &str = "ROPEWALK_NEWEST_KUBECTL";

const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: map}\ndata: {a: '1', b: '1'}\n";

const TASK: &str = r"
apiVersion: tekton.dev/v1
kind: Task
metadata:
  name: greet
spec:
  description: first
  results:
    - name: word
  steps:
    - name: say
      image: IMAGE
      script: |
        echo hello
        printf hi > $(results.word.path)
    - name: more
      image: IMAGE
      script: echo more
";

/// It runs until it is cancelled.
const IDLE: &str = r"
apiVersion: tekton.dev/v1
kind: TaskRun
metadata:
  name: idle
spec:
  taskSpec:
    steps:
      - name: first
        image: IMAGE
        script: echo first
      - name: idle
        image: IMAGE
        script: |
          echo idling
          exec sleep 3600
";

/// What is missing for a session with the machine's kubectl, if anything.
pub(crate) fn lacks() -> Option<&'static str> {
    let found =
        std::process::Command::new("kubectl").args(["version", "--client"]).stdout(Stdio::null()).status();
    (!found.is_ok_and(|status| status.success())).then_some("kubectl")
}

/// And with the newest one.
pub(crate) fn lacks_newest() -> Option<&'static str> {
    let found = std::env::var_os(NEWEST).is_some_and(|path| PathBuf::from(path).is_file());
    (!found).then_some("ROPEWALK_NEWEST_KUBECTL, as in: ROPEWALK_NEWEST_KUBECTL=$(hack/newest-kubectl)")
}

pub(crate) async fn machines(world: &World) -> Result<()> {
    session(world, "kubectl".into()).await
}

pub(crate) async fn newest(world: &World) -> Result<()> {
    session(world, std::env::var_os(NEWEST).context(NEWEST)?.into()).await
}

/// Where the session takes place. Of the standalone world it is a server of its own, as nobody else is let in over a
/// socket there.
async fn session(world: &World, program: PathBuf) -> Result<()> {
    // Below /tmp nothing is there for containers.
    let home = tempfile::tempdir_in("/var/lib")?;
    if world.kind() == Kind::Cluster {
        let namespace = world.namespace("kubectl").await?;
        // The node gets the image with the first object that names it.
        namespace.apply(&TASK.replace("IMAGE", IMAGE)).await?;
        let kubeconfig = std::env::var_os("KUBECONFIG").context("KUBECONFIG")?.into();
        let kubectl = Kubectl { program, kubeconfig, home, namespace: namespace.name().to_owned() };
        kubectl.says(["delete", "task", "greet"], "deleted").await?;
        play(&kubectl).await?;
        return namespace.finish().await;
    }
    let standalone = Standalone::start(Config {
        rootfs: RootfsMode::Host,
        data_root: home.path().join("data"),
        listen: Some(([127, 0, 0, 1], 0).into()),
        ..Config::default()
    })?;
    let kubeconfig = standalone.served().context("nothing is served")?.kubeconfig.clone();
    let namespace = "session".to_owned();
    let object: Object = serde_json::from_value(json!({ "metadata": { "name": namespace } }))?;
    Api::all(standalone.client()).create(&PostParams::default(), &object).await?;
    let kubectl = Kubectl { program, kubeconfig, home, namespace };
    let played = play(&kubectl).await;
    standalone.stop().await?;
    played
}

async fn play(kubectl: &Kubectl) -> Result<()> {
    Box::pin(objects(kubectl)).await?;
    Box::pin(changes(kubectl)).await?;
    Box::pin(runs(kubectl)).await?;
    Box::pin(knowledge(kubectl)).await
}

/// Create, apply from both sides, diff, and the forms of get.
async fn objects(kubectl: &Kubectl) -> Result<()> {
    let task = TASK.replace("IMAGE", IMAGE);
    kubectl.reads(["create", "-f", "-"], &task, "task.tekton.dev/greet created").await?;
    kubectl.refuses(["create", "-f", "-"], &task, "tasks.tekton.dev \"greet\" already exists").await?;
    kubectl.says(["create", "configmap", "made", "--from-literal=k=v"], "configmap/made created").await?;
    kubectl.equals(["get", "cm", "made", "-o", "jsonpath={.data.k}"], "v").await?;

    let apply = ["apply", "-f", "-"];
    kubectl.reads(apply, MAP, "configmap/map created").await?;
    kubectl.reads(apply, MAP, "configmap/map unchanged").await?;
    kubectl.reads(["diff", "-f", "-"], MAP, "").await?;
    let changed = MAP.replace("a: '1'", "a: '2'");
    kubectl.refuses(["diff", "-f", "-"], &changed, "+  a: \"2\"").await?;
    kubectl.reads(apply, &changed, "configmap/map configured").await?;
    // What is left out goes.
    kubectl.reads(apply, &MAP.replace(", b: '1'", ""), "configmap/map configured").await?;
    kubectl.equals(["get", "cm", "map", "-o", "jsonpath={.data}"], r#"{"a":"1"}"#).await?;

    let (map, changed) = (MAP.replace("map", "shared"), changed.replace("map", "shared"));
    let ours = ["apply", "--server-side", "-f", "-"];
    let theirs = ["apply", "--server-side", "--field-manager=other", "-f", "-"];
    let forced = ["apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", "-"];
    kubectl.reads(ours, &map, "configmap/shared serverside-applied").await?;
    kubectl.refuses(theirs, &changed, "conflict with \"kubectl\": .data.a").await?;
    kubectl.equals(["get", "cm", "shared", "-o", "jsonpath={.data.a}"], "1").await?;
    kubectl.reads(forced, &changed, "configmap/shared serverside-applied").await?;
    kubectl.equals(["get", "cm", "shared", "-o", "jsonpath={.data.a}"], "2").await?;
    kubectl.refuses(ours, &map, "conflict with \"other\": .data.a").await?;

    kubectl.says(["get", "task", "greet", "-o", "yaml"], "  description: first\n").await?;
    kubectl.says(["get", "task", "greet", "-o", "json"], "\"description\": \"first\"").await?;
    kubectl.equals(["get", "task", "greet", "-o", "name"], "task.tekton.dev/greet\n").await?;
    kubectl.equals(["get", "task", "greet", "-o", "jsonpath={.spec.steps[*].name}"], "say more").await?;
    let columns = "custom-columns=N:.metadata.name,D:.spec.description";
    kubectl.equals(["get", "task", "-o", columns], "N       D\ngreet   first\n").await?;
    kubectl.refuses(["get", "task", "gone"], "", "tasks.tekton.dev \"gone\" not found").await
}

/// Label, annotate, patch in every way, edit.
async fn changes(kubectl: &Kubectl) -> Result<()> {
    kubectl.says(["label", "task", "greet", "tier=one"], "task.tekton.dev/greet labeled").await?;
    kubectl.refuses(["label", "task", "greet", "tier=two"], "", "already has a value (one)").await?;
    kubectl.says(["label", "task", "greet", "tier=two", "--overwrite"], "labeled").await?;
    kubectl.equals(["get", "task", "-l", "tier=two", "-o", "name"], "task.tekton.dev/greet\n").await?;
    kubectl.equals(["get", "task", "-l", "tier=one", "-o", "name"], "").await?;
    kubectl.says(["annotate", "task", "greet", "note=here"], "task.tekton.dev/greet annotated").await?;
    kubectl.equals(["get", "task", "greet", "-o", "jsonpath={.metadata.annotations.note}"], "here").await?;

    let described = ["get", "task", "greet", "-o", "jsonpath={.spec.description}"];
    let merge = ["patch", "task", "greet", "--type=merge", "--patch", r#"{"spec":{"description":"merged"}}"#];
    kubectl.says(merge, "task.tekton.dev/greet patched").await?;
    kubectl.equals(described, "merged").await?;
    let operation = r#"[{"op":"replace","path":"/spec/description","value":"patched"}]"#;
    kubectl.says(["patch", "task", "greet", "--type=json", "--patch", operation], "patched").await?;
    kubectl.equals(described, "patched").await?;
    let failing = r#"[{"op":"test","path":"/spec/description","value":"other"}]"#;
    kubectl.refuses(["patch", "task", "greet", "--type=json", "--patch", failing], "", "").await?;
    let strategic = r#"{"data":{"c":"patched"}}"#;
    kubectl.says(["patch", "cm", "map", "--patch", strategic], "configmap/map patched").await?;
    kubectl.equals(["get", "cm", "map", "-o", "jsonpath={.data}"], r#"{"a":"1","c":"patched"}"#).await?;
    let refused = ["patch", "task", "greet", "--patch", r#"{"spec":{"description":"x"}}"#];
    kubectl.refuses(refused, "", "is not supported by tekton.dev/v1").await?;

    kubectl.says(["edit", "task", "greet"], "task.tekton.dev/greet edited").await?;
    kubectl.equals(described, "edited").await
}

/// Watch, wait, logs, describe, and deletion with what is owned.
async fn runs(kubectl: &Kubectl) -> Result<()> {
    let mut watched = kubectl.follow(["get", "taskruns", "--watch", "--no-headers"])?;
    let run = "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {name: greets}\nspec: {taskRef: {name: greet}}\n";
    kubectl.reads(["create", "-f", "-"], run, "taskrun.tekton.dev/greets created").await?;
    let wait = ["wait", "taskrun/greets", "--for=condition=Succeeded", "--timeout=120s"];
    kubectl.says(wait, "taskrun.tekton.dev/greets condition met").await?;
    let ended = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.starts_with(&["greets", "True", "Succeeded"])
    };
    let lines = watched.until(ended).await.context("the watch does not tell the end")?;
    assert!(lines[0].starts_with("greets"), "{lines:?}");
    watched.stop().await?;
    kubectl.equals(["get", "tr", "greets", "-o", "jsonpath={.status.results[0].value}"], "hi").await?;
    kubectl.says(["get", "pod", "greets-pod", "-o", "wide"], "NODE").await?;
    kubectl.equals(["logs", "greets-pod", "-c", "step-say"], "hello\n").await?;
    kubectl.equals(["logs", "greets-pod", "-c", "step-more", "--tail=1"], "more\n").await?;
    kubectl
        .refuses(["logs", "greets-pod", "-c", "step-none"], "", "step-none is not valid for pod greets-pod")
        .await?;
    kubectl.says(["describe", "taskrun", "greets"], "All Steps have completed executing").await?;
    kubectl.says(["describe", "pod", "greets-pod"], "step-say:").await?;

    let idle = IDLE.replace("IMAGE", IMAGE);
    kubectl.reads(["create", "-f", "-"], &idle, "taskrun.tekton.dev/idle created").await?;
    let mut log = kubectl.log_of("idle-pod", "step-idle").await?;
    // The step has no end of its own: what it says is told while it runs.
    log.until(|line| line == "idling").await.context("the log is not followed")?;
    let inside = |script| ["exec", "idle-pod", "-c", "step-idle", "--", "/bin/sh", "-c", script];
    kubectl.equals(inside("echo inside"), "inside\n").await?;
    kubectl.refuses(inside("exit 3"), "", "exit code 3").await?;
    let cancel = r#"{"spec":{"status":"TaskRunCancelled"}}"#;
    kubectl.says(["patch", "taskrun", "idle", "--type=merge", "--patch", cancel], "patched").await?;
    let wait = ["wait", "taskrun/idle", "--for=condition=Succeeded=false", "--timeout=120s"];
    kubectl.says(wait, "condition met").await?;
    log.ended().await.context("the log does not end with its container")?;
    let reason = r#"jsonpath={.status.conditions[?(@.type=="Succeeded")].reason}"#;
    kubectl.equals(["get", "tr", "idle", "-o", reason], "TaskRunCancelled").await?;

    // The pod goes with its run, or is left to itself.
    let owner = "jsonpath={.metadata.ownerReferences[*].name}";
    kubectl.equals(["get", "pod", "greets-pod", "-o", owner], "greets").await?;
    let again = run.replace("name: greets", "name: orphans");
    kubectl.reads(["create", "-f", "-"], &again, "created").await?;
    let wait = ["wait", "taskrun/orphans", "--for=condition=Succeeded", "--timeout=120s"];
    kubectl.says(wait, "condition met").await?;
    kubectl.says(["delete", "taskrun", "orphans", "--cascade=orphan"], "\"orphans\" deleted").await?;
    kubectl.equals(["get", "pod", "orphans-pod", "-o", owner], "").await?;
    kubectl.says(["delete", "taskrun", "greets", "--cascade=foreground"], "\"greets\" deleted").await?;
    kubectl.refuses(["get", "pod", "greets-pod"], "", "pods \"greets-pod\" not found").await?;
    kubectl.says(["delete", "pod", "orphans-pod", "--wait=false"], "\"orphans-pod\" deleted").await?;
    kubectl.says(["delete", "task,cm", "--all"], "\"greet\" deleted").await?;
    kubectl.refuses(["get", "task", "greet"], "", "tasks.tekton.dev \"greet\" not found").await
}

/// Explain, access, and what the server has.
async fn knowledge(kubectl: &Kubectl) -> Result<()> {
    // Kubernetes 1.20 tells no types where unknown fields are kept.
    kubectl.says(["explain", "taskrun.spec.params"], "Values for the Task's params").await?;
    kubectl.says(["explain", "pod.spec.containers.image"], "image <string>").await?;
    kubectl.refuses(["explain", "taskrun.spec.nothing"], "", "field \"nothing\" does not exist").await?;
    kubectl.equals(["auth", "can-i", "create", "taskruns.tekton.dev"], "yes\n").await?;
    kubectl.refuses(["auth", "can-i", "create", "taskruns.tekton.dev", "--as=nobody"], "", "no").await?;
    kubectl
        .refuses(["get", "taskruns", "--as=nobody"], "", "User \"nobody\" cannot list resource \"taskruns\"")
        .await?;
    let listed = kubectl.prints(["api-resources", "--api-group=tekton.dev", "--no-headers"]).await?;
    for (plural, short, kind) in
        [("taskruns", "tr,trs", "TaskRun"), ("pipelineruns", "pr,prs", "PipelineRun")]
    {
        let row = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = row.filter(|words| words[0] == plural).collect::<Vec<_>>();
        assert_eq!(row, [vec![plural, short, "tekton.dev/v1", "true", kind]], "{listed}");
    }
    kubectl.says(["api-versions"], "tekton.dev/v1\n").await?;
    kubectl.says(["version"], "Server Version: v1.").await
}

struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    /// Its cache, and what it may write.
    home: TempDir,
    namespace: String,
}

impl Kubectl {
    fn command<const N: usize>(&self, arguments: [&str; N]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["--namespace", &self.namespace])
            .arg(format!("--cache-dir={}", self.home.path().join("cache").display()))
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", self.home.path())
            .env("KUBE_EDITOR", "sed -i s/patched/edited/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Whether it worked, what it printed, and what it printed about errors.
    async fn run<const N: usize>(&self, arguments: [&str; N], stdin: &str) -> Result<(bool, String, String)> {
        let mut child =
            self.command(arguments).stdin(Stdio::piped()).spawn().context("cannot start kubectl")?;
        let mut input = child.stdin.take().context("kubectl has no input")?;
        // Who needs no input need not take any.
        input.write_all(stdin.as_bytes()).await.ok();
        drop(input);
        let output = timeout(PATIENCE, child.wait_with_output())
            .await
            .with_context(|| format!("kubectl {arguments:?} does not end"))??;
        let text = |bytes| String::from_utf8(bytes).context("kubectl prints no text");
        Ok((output.status.success(), text(output.stdout)?, text(output.stderr)?))
    }

    async fn prints<const N: usize>(&self, arguments: [&str; N]) -> Result<String> {
        let (worked, printed, errors) = self.run(arguments, "").await?;
        ensure!(worked, "kubectl {arguments:?}: {printed}{errors}");
        Ok(printed)
    }

    async fn equals<const N: usize>(&self, arguments: [&str; N], expected: &str) -> Result<()> {
        let printed = self.prints(arguments).await?;
        ensure!(printed == expected, "kubectl {arguments:?} prints {printed:?}, not {expected:?}");
        Ok(())
    }

    async fn says<const N: usize>(&self, arguments: [&str; N], part: &str) -> Result<()> {
        self.reads(arguments, "", part).await
    }

    async fn reads<const N: usize>(&self, arguments: [&str; N], stdin: &str, part: &str) -> Result<()> {
        let (worked, printed, errors) = self.run(arguments, stdin).await?;
        ensure!(worked && printed.contains(part), "kubectl {arguments:?} wants {part:?}: {printed}{errors}");
        Ok(())
    }

    async fn refuses<const N: usize>(&self, arguments: [&str; N], stdin: &str, part: &str) -> Result<()> {
        let (worked, printed, errors) = self.run(arguments, stdin).await?;
        let all = printed + &errors;
        ensure!(!worked && all.contains(part), "kubectl {arguments:?} is to fail with {part:?}: {all}");
        Ok(())
    }

    /// Leaves it running.
    fn follow<const N: usize>(&self, arguments: [&str; N]) -> Result<Followed> {
        let mut child =
            self.command(arguments).stderr(Stdio::inherit()).spawn().context("cannot start kubectl")?;
        let output = child.stdout.take().context("kubectl has no output")?;
        Ok(Followed { child, lines: BufReader::new(output).lines() })
    }

    /// Follows the log of a container that may have yet to start, which `kubectl logs` does not wait for.
    async fn log_of(&self, pod: &str, container: &str) -> Result<Followed> {
        let named = format!("pod/{pod}");
        let started =
            format!("--for=jsonpath={{.status.containerStatuses[?(@.name==\"{container}\")].containerID}}");
        self.says(["wait", &named, "--for=create", "--timeout=120s"], "condition met").await?;
        self.says(["wait", &named, &started, "--timeout=120s"], "condition met").await?;
        self.follow(["logs", "--follow", pod, "-c", container])
    }
}

/// A kubectl that prints as it goes.
struct Followed {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Followed {
    /// All lines up to one that is as wanted.
    async fn until(&mut self, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let mut seen = Vec::new();
        let found = timeout(PATIENCE, async {
            while let Some(line) = self.lines.next_line().await? {
                let found = wanted(&line);
                seen.push(line);
                if found {
                    return anyhow::Ok(true);
                }
            }
            Ok(false)
        });
        match found.await {
            Ok(Ok(true)) => Ok(seen),
            Ok(Err(error)) => Err(error),
            Ok(Ok(false)) | Err(_) => bail!("only {seen:?} was printed"),
        }
    }

    /// Waits for its end, which has to be a good one.
    async fn ended(mut self) -> Result<()> {
        let status = timeout(PATIENCE, self.child.wait()).await.context("kubectl does not end")??;
        ensure!(status.success(), "kubectl ends with {status}");
        Ok(())
    }

    async fn stop(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }
}

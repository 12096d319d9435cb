//! A node is drained, and comes back.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use ropewalk_test::harness::{Kind, PATIENCE, World, set};
use tokio::process::Command;

use crate::marked::{is_running, repairing};

/// A pod's grace period when it names none, and a moment for the node to see to it.
const GONE: Duration = Duration::from_secs(35);

/// Pods at three stages: one that waits for a ConfigMap, before any step; one whose step runs; and one whose step runs and
/// whose run allows that it runs again. Upstream makes a pod that is gone again under the same name, whatever ran in it
/// (contract 5.11). Ours differs as the third deviation in design.md says: no started step runs again unasked.
fn yaml(namespace: &str) -> String {
    format!(
        r#"
apiVersion: tekton.dev/v1
kind: TaskRun
metadata:
  name: waiting
  labels:
    drained: {namespace}
spec:
  taskSpec:
    volumes:
      - name: settings
        configMap:
          name: settings
    steps:
      - name: read
        image: bash
        script: cat /settings/key
        volumeMounts:
          - name: settings
            mountPath: /settings
---
apiVersion: tekton.dev/v1
kind: TaskRun
metadata:
  name: started
  labels:
    drained: {namespace}
spec:
  retries: 0
  taskSpec:
    steps:
      - name: sleep
        image: bash
        command: [sleep, "1000"]
---
apiVersion: tekton.dev/v1
kind: TaskRun
metadata:
  name: again
  labels:
    drained: {namespace}
  annotations:
    ropewalk.dev/rerun-lost-steps: "true"
spec:
  taskSpec:
    results:
      - name: ran
    volumes:
      - name: notes
        hostPath:
          path: /tmp/ropewalk-e2e/{namespace}/again
          type: DirectoryOrCreate
    steps:
      - name: sleep
        image: bash
        volumeMounts:
          - name: notes
            mountPath: /notes
        script: |
          echo x >> /notes/ran
          if [ $(wc -l < /notes/ran) = 1 ]; then exec sleep 1000; fi
          wc -l < /notes/ran | tr -d '\n' > $(results.ran.path)
          rm /notes/ran
"#
    )
}

const SETTINGS: &str = "
apiVersion: v1
kind: ConfigMap
metadata:
  name: settings
data:
  key: value
";

pub(crate) async fn drained(world: &World) -> Result<()> {
    let namespace = world.namespace("drained").await?;
    let runs = namespace.apply(&yaml(namespace.name())).await?;
    let [waiting, started, again] = &runs[..] else { bail!("three runs are not {runs:?}") };
    let pods = Api::<Pod>::namespaced(world.client(), namespace.name());
    namespace.until(started, PATIENCE, is_running(0)).await?;
    namespace.until(again, PATIENCE, is_running(0)).await?;
    let placed = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let before = [
        until(&pods, "waiting-pod", PATIENCE, placed).await?,
        until(&pods, "again-pod", PATIENCE, placed).await?,
    ];
    let test = async {
        match world.kind() {
            Kind::Cluster => drain(world, namespace.name()).await?,
            // There is one node, which nothing can be moved to or from; pods are taken away as a drain does.
            Kind::Standalone => {
                for run in &runs {
                    pods.delete(&format!("{}-pod", run.name), &DeleteParams::default()).await?;
                }
            }
        }
        for pod in &before {
            let another = |there: &Pod| there.metadata.uid != pod.metadata.uid;
            until(&pods, &pod.name_any(), GONE, another).await?;
        }
        namespace.apply(SETTINGS).await?;
        anyhow::Ok(())
    };
    repairing(test, async || uncordon(world).await).await?;

    let ended = namespace.done(waiting, PATIENCE).await?;
    assert_eq!((ended.status(), ended.reason()), ("True", "Succeeded"), "{ended}");
    assert_eq!(ended.value["status"]["annotations"]["ropewalk.dev/pod-recreations"], "1");
    assert_eq!(namespace.children(&ended).await?, set(["Pod waiting-pod"]));

    let ended = namespace.done(again, PATIENCE).await?;
    assert_eq!((ended.status(), ended.reason()), ("True", "Succeeded"), "{ended}");
    assert_eq!(ended.value["status"]["results"][0]["value"], "2", "once before, and once after");
    assert_eq!(namespace.children(&ended).await?, set(["Pod again-pod"]));

    let ended = namespace.done(started, PATIENCE).await?;
    assert_eq!(ended.status(), "False", "{ended}");
    // Mostly the node tells how the step ended before the pod is gone, and that is what counts (contract 12.7).
    assert!(["StepFailed", "PodEvicted"].contains(&ended.reason()), "{ended}");
    namespace.pod_gone("started-pod", GONE).await?;
    assert_eq!(namespace.children(&ended).await?, set([]), "nothing runs again unasked");
    namespace.finish().await
}

/// As who maintains a node does; the pods of this test only, since there is no other node for the rest.
async fn drain(world: &World, label: &str) -> Result<()> {
    let node = node(world).await?;
    let output = Command::new("kubectl")
        .args(["drain", &node, "--ignore-daemonsets", "--delete-emptydir-data"])
        .args([format!("--pod-selector=drained={label}"), format!("--timeout={}s", GONE.as_secs())])
        .output()
        .await
        .context("cannot run kubectl")?;
    ensure!(
        output.status.success(),
        "kubectl drain failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

async fn uncordon(world: &World) -> Result<()> {
    if world.kind() == Kind::Cluster {
        Api::<Node>::all(world.client()).uncordon(&node(world).await?).await?;
    }
    Ok(())
}

async fn node(world: &World) -> Result<String> {
    let nodes = Api::<Node>::all(world.client()).list(&ListParams::default()).await?.items;
    ensure!(nodes.len() == 1, "the test is for one node, and there are {}", nodes.len());
    Ok(nodes[0].name_any())
}

/// Waits until the pod is as wanted.
async fn until(
    pods: &Api<Pod>,
    name: &str,
    patience: Duration,
    wanted: impl Fn(&Pod) -> bool,
) -> Result<Pod> {
    let mut states = pin!(watch_object(pods.clone(), name).default_backoff());
    let reached = async {
        while let Some(state) = states.next().await {
            if let Ok(Some(pod)) = state
                && wanted(&pod)
            {
                return Some(pod);
            }
        }
        None
    };
    let reached = tokio::time::timeout(patience, reached).await.ok().flatten();
    reached.with_context(|| format!("pod \"{name}\" is not as wanted after {patience:?}"))
}

//! A node is drained, and comes back.

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use ropewalk_test::harness::level::until;
use ropewalk_test::harness::{GONE, Kind, PATIENCE, World, set};
use tokio::process::Command;

use crate::marked::{is_running, repairing};

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
        until(pods.clone(), "waiting-pod", PATIENCE, placed).await?,
        until(pods.clone(), "again-pod", PATIENCE, placed).await?,
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
            until(pods.clone(), &pod.name_any(), GONE, another).await?;
        }
        namespace.apply(SETTINGS).await?;
        anyhow::Ok(())
    };
    Box::pin(repairing(test, async || uncordon(world).await)).await?;

    let ended = namespace.done(waiting, PATIENCE).await?;
    assert_eq!((ended.status(), ended.reason()), ("True", "Succeeded"), "{ended}");
    assert_eq!(ended.value["status"]["annotations"]["ropewalk.dev/pod-recreations"], "1");
    assert_eq!(namespace.children(&ended).await?, set(["Pod waiting-pod"]));

    let ended = namespace.done(again, PATIENCE).await?;
    assert_eq!((ended.status(), ended.reason()), ("True", "Succeeded"), "{ended}");
    assert_eq!(ended.value["status"]["results"][0]["value"], "2", "once before, and once after");
    assert_eq!(namespace.children(&ended).await?, set(["Pod again-pod"]));

    let ended = namespace.done(started, PATIENCE).await?;
    // When the node's word on the step's end comes a moment before the pod is gone, it is heard or not (contract 12.7). What
    // was heard decides the reason, and either way it is said that the pod was taken away.
    let step = &ended.value["status"]["steps"][0];
    let (reason, why) = if step["terminated"].is_object() {
        ("StepFailed", "pod \"started-pod\" was deleted before its steps had ended")
    } else {
        ("PodEvicted", "pod \"started-pod\" is gone, and step \"sleep\" had started")
    };
    assert_eq!((ended.status(), ended.reason()), ("False", reason), "{ended}");
    assert!(ended.to_string().contains(why), "{ended}");
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

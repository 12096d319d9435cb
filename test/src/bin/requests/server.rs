//! A server that cases are sent to: ours in this process, or a cluster's, by the same client.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::{Request, Response, header};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use kube::Client;
use kube::client::Body;
use ropewalk_apiserver::{ResourceTable, State};
use ropewalk_core::settings::Settings;
use ropewalk_standalone::admission::Webhooks;
use ropewalk_standalone::server::{NoLogs, Server};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::case::{Action, Call, Case, LAST, Step};
use crate::kinds::{KINDS, Kind};
use crate::normal::{Raw, normalise};

/// Cases at once: enough to hide the waiting of some behind the work of others.
const AT_ONCE: usize = 16;

/// How long an answer, an event or a state may take. A cluster's controllers work through queues.
const PATIENCE: Duration = Duration::from_mins(1);

/// Between two looks at a state that something else brings about.
const PAUSE: Duration = Duration::from_millis(100);

/// How long all namespaces of a run may take to end, some hundred of them: a cluster takes a few at a time.
const ENDING: Duration = Duration::from_mins(10);

const NAMESPACES: &str = "/api/v1/namespaces";

/// A server, by a client that may do everything.
pub(crate) struct Target {
    client: Client,
    /// Begins the names of namespaces, so that runs on one cluster do not meet.
    prefix: String,
    /// Whether controllers in processes of their own fill a namespace.
    cluster: bool,
}

/// An answer made comparable.
pub(crate) type Answer = Value;

impl Target {
    /// Our API server, with the admission that `ropewalk up` has.
    pub(crate) fn ours() -> Result<Self> {
        let table =
            ropewalk_api::crd::all().iter().try_fold(ResourceTable::built_in(), ResourceTable::with_crd)?;
        let state = State::new(table, 1, Timestamp::now());
        let admission = Webhooks::new(Arc::default(), &Settings::default());
        let server = Server::new(state, Arc::new(admission), Arc::new(NoLogs));
        Ok(Self { client: server.client(), prefix: "requests".into(), cluster: false })
    }

    /// The cluster that the environment's kubeconfig leads to.
    pub(crate) async fn cluster() -> Result<Self> {
        let client = ropewalk_cluster::client::connect(None).await?;
        let prefix = format!("requests-{}", std::process::id());
        Ok(Self { client, prefix, cluster: true })
    }

    /// All answers, by case and step.
    pub(crate) async fn run(&self, cases: &[Case]) -> Result<BTreeMap<(String, String), Answer>> {
        let answers: Result<Vec<_>> = stream::iter(cases.iter().enumerate())
            .map(async |(index, case)| {
                let namespace = format!("{}-{index}", self.prefix);
                let answers =
                    self.run_case(case, &namespace).await.with_context(|| format!("case {}", case.name))?;
                anyhow::Ok(
                    answers
                        .into_iter()
                        .map(|(step, answer)| ((case.name.clone(), step), answer))
                        .collect::<Vec<_>>(),
                )
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await;
        if self.cluster {
            self.clean().await.context("what cases leave on the cluster cannot be removed")?;
        }
        Ok(answers?.into_iter().flatten().collect())
    }

    /// Removes what cases made outside of their namespaces, and waits until these are gone: the cluster is to be as it was,
    /// and whoever uninstalls the definitions next finds no objects of them.
    async fn clean(&self) -> Result<()> {
        let kinds = KINDS.iter().filter(|kind| !kind.namespaced).map(Kind::list);
        for list in kinds.chain([NAMESPACES.to_owned()]) {
            for name in self.left(&list).await? {
                let url = format!("{list}/{name}");
                if list != NAMESPACES {
                    // A case that broke off may have left finalizers that nobody takes off.
                    let bare = json!({ "metadata": { "finalizers": null } });
                    self.send(&crate::case::merge_patch(url.clone(), &bare)).await?;
                }
                self.send(&crate::case::delete(url)).await?;
            }
        }
        let end = Instant::now() + ENDING;
        loop {
            let left = self.left(NAMESPACES).await?;
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("{} namespaces do not end, \"{}\" among them", left.len(), left[0]);
            }
            // A cluster ends namespaces in its own time, and this looks once a second for all of them.
            sleep(PAUSE * 10).await;
        }
    }

    /// The names of what this run made in a list.
    async fn left(&self, list: &str) -> Result<Vec<String>> {
        let (code, _, body) = whole(self.send(&crate::case::get(list)).await?).await?;
        if code != 200 {
            bail!("cannot list \"{list}\": {body}");
        }
        let names = body["items"].as_array().into_iter().flatten();
        let names = names.filter_map(|item| item["metadata"]["name"].as_str());
        let own = format!("{}-", self.prefix);
        Ok(names.filter(|name| name.starts_with(&own)).map(str::to_owned).collect())
    }

    async fn run_case(&self, case: &Case, namespace: &str) -> Result<Vec<(String, Answer)>> {
        self.make_namespace(namespace).await?;
        let mut raw: Vec<Raw> = Vec::new();
        let mut watches = BTreeMap::new();
        for Step { name, action } in &case.steps {
            let answer = match action {
                Action::Send(call) => {
                    let response = self.send(&filled(call, namespace, &raw)?).await;
                    Some(whole(response.with_context(|| format!("step {name}"))?).await?)
                }
                Action::Open(call) => {
                    let response = self.send(&filled(call, namespace, &raw)?).await?;
                    watches.insert(name.as_str(), response);
                    None
                }
                Action::Collect(watch) => {
                    let response = watches.remove(watch.as_str()).context("there is no such watch")?;
                    Some(events(response).await.with_context(|| format!("step {name}"))?)
                }
                Action::Until(path, code) => {
                    let call = filled(&crate::case::get(path), namespace, &raw)?;
                    let code = self.until(&call, *code).await.with_context(|| format!("step {name}"))?;
                    Some((code, Vec::new(), Value::Null))
                }
                Action::Collector => {
                    self.collector(namespace).await?;
                    None
                }
            };
            if let Some((code, warnings, body)) = answer {
                raw.push(Raw { step: name.clone(), code, warnings, body });
            }
        }
        let call = crate::case::delete(format!("/api/v1/namespaces/{namespace}"));
        self.send(&call).await?;
        Ok(normalise(&raw, namespace))
    }

    /// A namespace with all that controllers put there.
    async fn make_namespace(&self, name: &str) -> Result<()> {
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        let (code, _, body) =
            whole(self.send(&crate::case::post("/api/v1/namespaces", &namespace)).await?).await?;
        if code != 201 {
            bail!("cannot make namespace \"{name}\": {body}");
        }
        if self.cluster {
            // Pods are admitted once their service account has a token; the roots come on their own.
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a" },
                "spec": { "containers": [{ "name": "a", "image": "example.dev/a:1" }] },
            });
            let path = format!("/api/v1/namespaces/{name}/pods?dryRun=All");
            let ready = self.until(&crate::case::post(path, &pod), 201).await?;
            let path = format!("/api/v1/namespaces/{name}/configmaps/kube-root-ca.crt");
            if ready != 201 || self.until(&crate::case::get(path), 200).await? != 200 {
                bail!("namespace \"{name}\" does not become ready for pods");
            }
        }
        Ok(())
    }

    /// Waits until a cluster's garbage collector has heard of every ConfigMap made in the namespace so far: it hears
    /// of them in order, and collects the last one, whose owner there never was.
    async fn collector(&self, namespace: &str) -> Result<()> {
        if !self.cluster {
            return Ok(());
        }
        let maps = format!("/api/v1/namespaces/{namespace}/configmaps");
        let witness = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": {
            "name": "witness",
            "ownerReferences": [{ "apiVersion": "v1", "kind": "ConfigMap", "name": "nobody", "uid": "nobody" }],
        } });
        let (code, _, body) = whole(self.send(&crate::case::post(maps.as_str(), &witness)).await?).await?;
        if code != 201 {
            bail!("cannot make ConfigMap \"witness\": {body}");
        }
        if self.until(&crate::case::get(format!("{maps}/witness")), 404).await? != 404 {
            bail!(
                "the garbage collector does not collect ConfigMap \"witness\" of namespace \"{namespace}\""
            );
        }
        Ok(())
    }

    async fn send(&self, call: &Call) -> Result<Response<Body>> {
        let mut request = Request::builder().method(call.method.clone()).uri(&call.path);
        for (name, value) in &call.headers {
            request = request.header(name, *value);
        }
        let request = request.body(Body::from(call.body.clone().into_bytes()))?;
        Ok(timeout(PATIENCE, self.client.send(request)).await??)
    }

    /// The status a request has when it is the wanted one, or in the end.
    async fn until(&self, call: &Call, wanted: u16) -> Result<u16> {
        let end = Instant::now() + PATIENCE;
        loop {
            let (code, ..) = whole(self.send(call).await?).await?;
            if code == wanted || Instant::now() > end {
                return Ok(code);
            }
            // Cases ask what a request answers, and no event tells when a cluster begins to admit pods.
            sleep(PAUSE).await;
        }
    }
}

/// The call with everything in it that earlier answers said.
fn filled(call: &Call, namespace: &str, earlier: &[Raw]) -> Result<Call> {
    let fill = |text: &str| -> Result<String> {
        let mut text = text.replace("<ns>", namespace);
        for answer in earlier {
            let begin = format!("<{}:", answer.step);
            while let Some(start) = text.find(&begin) {
                let end = text[start..].find('>').context("a reference without end")? + start;
                let pointer = &text[start + begin.len()..end];
                // A server that refused the earlier request shows that there; here it is asked all the same.
                let value = answer.body.pointer(pointer).cloned().unwrap_or_else(|| Value::from("none"));
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                text.replace_range(start..=end, &value);
            }
        }
        Ok(text)
    };
    Ok(Call { path: fill(&call.path)?, body: fill(&call.body)?, ..call.clone() })
}

type Received = (u16, Vec<String>, Value);

async fn whole(response: Response<Body>) -> Result<Received> {
    let code = response.status().as_u16();
    let warnings = response.headers().get_all(header::WARNING).iter();
    let warnings = warnings.map(|value| value.to_str().unwrap_or_default().to_owned()).collect();
    let bytes = timeout(PATIENCE, response.into_body().collect()).await??.to_bytes();
    let body = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes).into_owned()));
    Ok((code, warnings, body))
}

/// The events of a watch: `{"events": [...]}`. What refuses one is no stream, and is handed over as it is.
async fn events(response: Response<Body>) -> Result<Received> {
    if response.status() != 200 {
        return whole(response).await;
    }
    let mut body = response.into_body();
    let (mut buffer, mut events) = (Vec::new(), Vec::new());
    let end = Instant::now() + PATIENCE;
    while let Ok(frame) = timeout_at(end, body.frame()).await {
        let Some(frame) = frame else {
            return Ok((200, Vec::new(), json!({ "events": events, "end": "closed" })));
        };
        buffer.extend_from_slice(frame?.data_ref().map(AsRef::as_ref).unwrap_or_default());
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line)?;
            if is_last(&event) {
                return Ok((200, Vec::new(), json!({ "events": events })));
            }
            events.push(event);
        }
    }
    Ok((200, Vec::new(), json!({ "events": events, "end": "never" })))
}

fn is_last(event: &Value) -> bool {
    let names = ["/object/metadata/name", "/object/rows/0/object/metadata/name"];
    names.iter().any(|pointer| {
        event.pointer(pointer).and_then(Value::as_str).is_some_and(|name| name.ends_with(LAST))
    })
}

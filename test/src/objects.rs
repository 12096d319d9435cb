//! The table of right and wrong objects in `api/tests/objects`: read, and held against whoever judges objects. How it
//! reads is in the README there. Reads files; asks an API server, which keeps nothing but what is to be updated.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use http::Request;
use http::request::Builder;
use kube::Client;
use ropewalk_api::config::Config;
use ropewalk_api::kinds::{self, Kind};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// What an API server puts in front of the words of either webhook.
const DEFAULTING: &str = "admission webhook \"webhook.pipeline.tekton.dev\" denied the request: mutation failed: cannot decode \
                          incoming new object: ";
const VALIDATING: &str =
    "admission webhook \"validation.webhook.pipeline.tekton.dev\" denied the request: validation failed: ";

/// What the errors begin with that an API server finds before a webhook, or instead of it: names, and the form of what
/// its schemas spell out.
const SERVERS_OWN: [&str; 5] = [
    "Invalid resource name",
    "invalid resource name ",
    "unknown field ",
    "field \"",
    // Sources of volumes are spelled out, and 1.20 takes an empty text for null.
    "missing field(s): spec.workspaces[",
];

/// Who manages the runs that updates are tried on: not our controllers, which would write to them meanwhile.
pub(crate) const MANAGER: &str = "test.ropewalk.dev/objects";

/// ConfigMaps under which an object is judged, without what has its default.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Settings {
    /// `feature-flags`.
    pub flags: BTreeMap<String, String>,
    /// `config-defaults`.
    pub defaults: BTreeMap<String, String>,
}

impl Settings {
    /// As the processes read them.
    pub fn config(&self) -> Result<Config> {
        Config::from_config_maps(&self.defaults, &self.flags, &BTreeMap::new())
            .context("these settings cannot be used")
    }
}

/// One object of the table.
#[derive(Clone, Debug)]
pub struct Case {
    /// What holds, in a sentence, and the contract's section.
    pub rule: String,
    /// Its kind.
    pub kind: &'static Kind,
    /// All of it.
    pub object: Value,
    /// What it was before, if it is an update.
    pub old: Option<Value>,
    /// Every error, in order; none for one that is let in. `…` stands for one line.
    pub errors: Vec<String>,
    /// It is defaulting that refuses it.
    by_defaulting: bool,
    /// An API server refuses it whatever the webhooks say.
    server_refuses: bool,
}

/// What became of an object.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Outcome {
    /// As the table says, to the letter.
    AsWritten,
    /// Refused by the API server itself, in its own words.
    ByServer,
    /// A field that does not exist was dropped by the API server, as ones do that are not told to be strict.
    Pruned,
}

impl Case {
    /// Holds what an API server said, which is nothing when it let the object in, against the table.
    ///
    /// # Errors
    /// Both, when they differ.
    pub fn compare(&self, verdict: &str, admitted: Option<&Value>) -> Result<Outcome> {
        if self.is_exactly(verdict) {
            return Ok(Outcome::AsWritten);
        }
        let all = |beginnings: &[&str]| {
            let begins = |error: &String| beginnings.iter().any(|beginning| error.starts_with(beginning));
            !self.errors.is_empty() && self.errors.iter().all(begins)
        };
        let by_webhook = verdict.starts_with("admission webhook ");
        if !verdict.is_empty() && (self.server_refuses || !by_webhook && all(&SERVERS_OWN)) {
            return Ok(Outcome::ByServer);
        }
        if verdict.is_empty()
            && all(&["unknown field "])
            && admitted.is_some_and(|admitted| self.lacks(admitted))
        {
            return Ok(Outcome::Pruned);
        }
        // What is left without the unknown field may be wrong for want of the one that was meant.
        if by_webhook && verdict.starts_with(VALIDATING) && all(&["unknown field "]) {
            return Ok(Outcome::Pruned);
        }
        let spec = &self.object["spec"];
        bail!(
            "{}\n  {} {spec}\n  expected {:?}\n  found    {verdict:?}",
            self.rule,
            self.kind.kind,
            self.errors
        )
    }

    fn is_exactly(&self, verdict: &str) -> bool {
        if self.errors.is_empty() {
            return verdict.is_empty();
        }
        let prefix = if self.by_defaulting { DEFAULTING } else { VALIDATING };
        let Some(text) = verdict.strip_prefix(prefix) else { return false };
        let expected = self.errors.join("\n");
        let (mut found, mut wanted) = (text.lines(), expected.lines());
        loop {
            match (found.next(), wanted.next()) {
                (None, None) => return true,
                (Some(line), Some("…")) if !line.is_empty() => {}
                (Some(line), Some(expected)) if line == expected => {}
                _ => return false,
            }
        }
    }

    /// Every field that the errors call unknown is gone.
    fn lacks(&self, admitted: &Value) -> bool {
        self.errors.iter().all(|error| {
            let path = error.split('"').nth(1).unwrap_or_default().replace(['.', '['], "/").replace(']', "");
            self.object.pointer(&format!("/{path}")).is_some()
                && admitted.pointer(&format!("/{path}")).is_none()
        })
    }

    /// Asks an API server, and compares. Nothing is left of the object.
    pub async fn judged_by(&self, client: &Client, namespace: &str) -> Result<Outcome> {
        let (group, version) = (self.kind.group, self.kind.version);
        let all = format!("/apis/{group}/{version}/namespaces/{namespace}/{}", self.kind.plural);
        let (answered, before) = match &self.old {
            None => {
                let create = Request::post(format!("{all}?dryRun=All&fieldValidation=Strict"));
                (send(client, create, "application/json", &self.object).await?, None)
            }
            Some(old) => {
                let one = format!("{all}/{}", old["metadata"]["name"].as_str().unwrap_or_default());
                self.store(client, &all, &one, old).await?;
                let update = Request::patch(format!("{one}?dryRun=All&fieldValidation=Strict"));
                (send(client, update, "application/json-patch+json", &self.update()).await?, Some(one))
            }
        };
        if let Some(before) = before {
            send(client, Request::delete(before), "application/json", &json!({})).await?.map_err(refused)?;
        }
        match answered {
            Ok(admitted) => self.compare("", Some(&admitted)),
            Err(verdict) => self.compare(&verdict, None),
        }
    }

    /// Writes the object as it was before, and its status as a controller would.
    async fn store(&self, client: &Client, all: &str, one: &str, old: &Value) -> Result<()> {
        let mut old = old.clone();
        let status = old["status"].take();
        self.managed(&mut old["spec"]);
        send(client, Request::post(all), "application/json", &old).await?.map_err(refused)?;
        if status.is_object() {
            let write = Request::patch(format!("{one}/status"));
            let status = json!({ "status": status });
            send(client, write, "application/merge-patch+json", &status).await?.map_err(refused)?;
        }
        Ok(())
    }

    /// What makes the old object the new one.
    fn update(&self) -> Value {
        let mut spec = self.object["spec"].clone();
        self.managed(&mut spec);
        let metadata = self.object["metadata"].as_object().into_iter().flatten();
        let metadata = metadata.filter(|(key, _)| *key != "name");
        metadata
            .map(|(key, value)| json!({ "op": "add", "path": format!("/metadata/{key}"), "value": value }))
            .chain([json!({ "op": "replace", "path": "/spec", "value": spec })])
            .collect()
    }

    /// Keeps our controllers from a run, unless it is its manager that is updated.
    fn managed(&self, spec: &mut Value) {
        let about_it = |object: &Value| object["spec"].get("managedBy").is_some();
        let run = matches!(self.kind.kind, "TaskRun" | "PipelineRun");
        if run && !about_it(&self.object) && !self.old.as_ref().is_some_and(about_it) {
            spec["managedBy"] = MANAGER.into();
        }
    }
}

fn refused(verdict: impl fmt::Display) -> anyhow::Error {
    anyhow!("an object to be updated was refused: {verdict}")
}

/// The object answered, or the words of a refusal.
async fn send(
    client: &Client,
    request: Builder,
    content: &str,
    body: &Value,
) -> Result<Result<Value, String>> {
    let request = request.header(http::header::CONTENT_TYPE, content).body(body.to_string().into_bytes())?;
    match client.request(request).await {
        Ok(object) => Ok(Ok(object)),
        Err(kube::Error::Api(status)) => Ok(Err(status.message.clone())),
        Err(error) => Err(error.into()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(rename = "rule")]
    title: String,
    contract: String,
    #[serde(default)]
    flags: BTreeMap<String, String>,
    #[serde(default)]
    defaults: BTreeMap<String, String>,
    #[serde(default)]
    invalid: Vec<Row>,
    #[serde(default)]
    valid: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    metadata: Option<Value>,
    old: Option<Old>,
    flags: Option<BTreeMap<String, String>>,
    defaults: Option<BTreeMap<String, String>>,
    #[serde(default)]
    errors: Vec<String>,
    #[serde(default)]
    mutation: Vec<String>,
    #[serde(default)]
    server: Option<Server>,
    #[serde(flatten)]
    spec: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Server {
    Refuses,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Old {
    spec: Option<Value>,
    status: Option<Value>,
}

/// The whole table, by the settings that it needs.
pub fn table() -> Result<BTreeMap<Settings, Vec<Case>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/tests/objects");
    let mut table = BTreeMap::<Settings, Vec<Case>>::new();
    let mut paths: Vec<_> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    for path in paths {
        let rules: Vec<Rule> = serde_saphyr::from_multiple(&fs::read_to_string(&path)?)
            .with_context(|| format!("\"{}\" is no part of the table", path.display()))?;
        for Rule { title, contract, flags, defaults, invalid, valid } in rules {
            let rule = format!("{title} ({contract})");
            for (row, wrong) in
                invalid.into_iter().map(|row| (row, true)).chain(valid.into_iter().map(|row| (row, false)))
            {
                let settings = Settings {
                    flags: row.flags.clone().unwrap_or_else(|| flags.clone()),
                    defaults: row.defaults.clone().unwrap_or_else(|| defaults.clone()),
                };
                let case = case(&rule, row)?;
                if case.errors.is_empty() == wrong {
                    bail!("{rule}: wrong objects have errors, and right ones none: {}", case.object);
                }
                table.entry(settings).or_default().push(case);
            }
        }
    }
    Ok(table)
}

fn case(rule: &str, row: Row) -> Result<Case> {
    let (kind, spec) =
        row.spec.into_iter().next().with_context(|| format!("{rule}: an object has no kind"))?;
    let kind = kinds::find(&kind).with_context(|| format!("{rule}: unknown kind {kind}"))?;
    let metadata = row.metadata.unwrap_or_else(|| json!({ "name": "x" }));
    let mut object = json!({ "apiVersion": kind.api_version(), "kind": kind.kind, "metadata": metadata });
    if !spec.is_null() {
        object["spec"] = spec;
    }
    let old = row.old.map(|old| {
        let mut before = object.clone();
        before["metadata"] = json!({ "name": metadata["name"] });
        if let Some(spec) = old.spec {
            before["spec"] = spec;
        }
        before["status"] = old.status.unwrap_or_default();
        before
    });
    let by_defaulting = !row.mutation.is_empty();
    let errors = if by_defaulting { row.mutation } else { row.errors };
    let server_refuses = row.server.is_some();
    Ok(Case { rule: rule.to_owned(), kind, object, old, errors, by_defaulting, server_refuses })
}

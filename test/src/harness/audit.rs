//! The API server's audit log: who asked for what. Reads files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

/// What annotations about mutating webhooks begin with, one for each that was asked.
const ASKED: &str = "mutation.webhook.admission.k8s.io/";

/// The user our controller is, as installed.
pub const CONTROLLER: &str = "system:serviceaccount:tekton-pipelines:tekton-pipelines-controller";

/// The verbs that change something.
pub const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];

/// The log of the cluster that `hack/cluster` started on this machine. A request is in it before it is answered.
#[derive(Clone, Debug)]
pub struct Audit {
    folder: PathBuf,
}

/// One request, by what it asked for.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Request {
    /// Who.
    pub user: String,
    /// By which program, as it names itself: `kubelet`, `kube-scheduler`; empty for most of those in Rust.
    pub agent: String,
    /// `create`, `patch`, `watch`, ...
    pub verb: String,
    /// Such as `taskruns` or `taskruns/status`.
    pub resource: String,
    /// The object; empty for lists, watches and names that the server makes.
    pub name: String,
    /// The answer's HTTP status.
    pub code: u16,
    /// The mutating webhooks that were asked, in this order.
    pub asked: Vec<String>,
}

impl Audit {
    /// None where there is no such log: the cluster is not ours, or elsewhere.
    pub fn find() -> Option<Self> {
        let folder = Path::new("/var/lib/ropewalk-cluster/log");
        folder.join("audit.log").exists().then(|| Self { folder: folder.to_owned() })
    }

    /// Every request about the namespace and what is in it, in the order of their answers.
    pub fn requests(&self, namespace: &str) -> Result<Vec<Request>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // Full files are renamed to `audit-TIME.log`.
            if name.starts_with("audit") && path.extension().is_some_and(|extension| extension == "log") {
                files.push(path);
            }
        }
        // A dash sorts before the dot: times in order, then the file being written.
        files.sort();
        let needle = format!("\"namespace\":\"{namespace}\"");
        let mut requests = Vec::new();
        for file in files {
            let reader = BufReader::new(
                File::open(&file).with_context(|| format!("cannot read \"{}\"", file.display()))?,
            );
            for line in reader.lines() {
                let line = line?;
                if line.contains(&needle) {
                    requests.extend(parse(&line, namespace)?);
                }
            }
        }
        Ok(requests)
    }
}

/// How often each of these requests was made, by user, verb and resource.
pub fn tally<'a>(
    requests: impl IntoIterator<Item = &'a Request>,
) -> BTreeMap<(&'a str, &'a str, &'a str), usize> {
    let mut counts = BTreeMap::new();
    for Request { user, verb, resource, .. } in requests {
        *counts.entry((user.as_str(), verb.as_str(), resource.as_str())).or_default() += 1;
    }
    counts
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    verb: String,
    user: User,
    #[serde(default)]
    user_agent: String,
    object_ref: Option<Object>,
    response_status: Option<Status>,
    stage: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
struct Object {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

/// What is said about a webhook.
#[derive(Deserialize)]
struct Asked {
    webhook: String,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

/// None for what is no answer in this namespace: watches are logged at their begin, too.
fn parse(line: &str, namespace: &str) -> Result<Option<Request>> {
    let line: Line = serde_json::from_str(line).context("the audit log has a line that cannot be read")?;
    let object = line.object_ref.unwrap_or_default();
    if object.namespace != namespace || line.stage != "ResponseComplete" {
        return Ok(None);
    }
    let resource = match object.subresource.as_str() {
        "" => object.resource,
        subresource => format!("{}/{subresource}", object.resource),
    };
    let code = line.response_status.map_or(0, |status| status.code);
    let agent = line.user_agent.split('/').next().unwrap_or_default().to_owned();
    let asked = line.annotations.iter().filter(|(key, _)| key.starts_with(ASKED));
    let asked = asked.map(|(_, text)| serde_json::from_str(text).map(|asked: Asked| asked.webhook));
    let asked = asked.collect::<Result<_, _>>().context("the audit log tells of a webhook in another way")?;
    let user = line.user.username;
    Ok(Some(Request { user, agent, verb: line.verb, resource, name: object.name, code, asked }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"kind":"Event","stage":"ResponseComplete","requestURI":"/x","verb":"patch","user":{"username":"me","groups":["g"]},"userAgent":"kubectl/v1 (linux)","objectRef":{"resource":"taskruns","namespace":"n","name":"a","apiGroup":"tekton.dev","subresource":"status"},"responseStatus":{"metadata":{},"code":200},"annotations":{"authorization.k8s.io/decision":"allow","mutation.webhook.admission.k8s.io/round_0_index_2":"{\"configuration\":\"c\",\"webhook\":\"w\",\"mutated\":false}"}}"#;

    #[test]
    fn a_request_by_what_it_asked_for() {
        let request = parse(LINE, "n").unwrap().unwrap();
        assert_eq!(
            (request.user.as_str(), request.agent.as_str(), request.verb.as_str()),
            ("me", "kubectl", "patch")
        );
        assert_eq!(
            (request.resource.as_str(), request.name.as_str(), request.code),
            ("taskruns/status", "a", 200)
        );
        assert_eq!(request.asked, ["w"]);
        assert_eq!(tally([&request, &request]), BTreeMap::from([(("me", "patch", "taskruns/status"), 2)]));
    }

    #[test]
    fn other_namespaces_and_begun_watches_do_not_count() {
        assert_eq!(parse(LINE, "m").unwrap(), None);
        assert_eq!(parse(&LINE.replace("ResponseComplete", "ResponseStarted"), "n").unwrap(), None);
    }
}

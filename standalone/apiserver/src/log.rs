//! The `log` subresource of pods: which container is meant, and the wording when that is not clear. Pure.

use serde_json::Value;

use crate::{
    object,
    route::Query,
    status::{Failure, Result},
};

/// A request for the log of one container, checked against the pod; the shell streams the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRequest {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod, so that a pod of the same name made later is not read by mistake.
    pub uid: String,
    /// Name of the container; it exists in the pod's spec.
    pub container: String,
    /// Keep the stream open until the container ends.
    pub follow: bool,
    /// The log of the container's previous run.
    pub previous: bool,
    /// Put an RFC 3339 time before each line.
    pub timestamps: bool,
    /// Only the last so many lines.
    pub tail_lines: Option<u64>,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
    /// Only lines of the last so many seconds.
    pub since_seconds: Option<u64>,
    /// Only lines from this time on.
    pub since_time: Option<jiff::Timestamp>,
}

fn names(pod: &Value, list: &str) -> Vec<String> {
    let Some(containers) = object::at(pod, list).and_then(Value::as_array) else { return Vec::new() };
    containers.iter().map(|container| object::text(container, "name").to_owned()).collect()
}

/// Reads the query of `GET .../pods/<name>/log`, with the messages of kube-apiserver.
pub(crate) fn request(pod: &Value, query: &Query) -> Result<LogRequest> {
    let containers = names(pod, "spec.containers");
    let init = names(pod, "spec.initContainers");
    let name = object::name(pod);
    let container = match query.get("container").filter(|container| !container.is_empty()) {
        Some(container) if containers.iter().chain(&init).any(|known| known == container) => {
            container.to_owned()
        }
        Some(container) => {
            return Err(Failure::bad_request(format!("container {container} is not valid for pod {name}")));
        }
        None => {
            let default = object::at(pod, "metadata.annotations")
                .and_then(|notes| notes.get("kubectl.kubernetes.io/default-container"))
                .and_then(Value::as_str);
            match (containers.as_slice(), default) {
                (_, Some(default)) if containers.iter().any(|known| known == default) => default.to_owned(),
                ([only], _) if init.is_empty() => only.clone(),
                _ => return Err(ambiguous(name, &containers, &init)),
            }
        }
    };
    let since_time = query
        .get("sinceTime")
        .map(|text| {
            text.parse().map_err(|_| Failure::bad_request(format!("sinceTime {text:?} is not RFC 3339")))
        })
        .transpose()?;
    Ok(LogRequest {
        namespace: object::namespace(pod).to_owned(),
        pod: name.to_owned(),
        uid: object::uid(pod).to_owned(),
        container,
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        tail_lines: query.number("tailLines")?,
        limit_bytes: query.number("limitBytes")?,
        since_seconds: query.number("sinceSeconds")?,
        since_time,
    })
}

fn ambiguous(pod: &str, containers: &[String], init: &[String]) -> Failure {
    let mut choices = format!("choose one of: [{}]", containers.join(" "));
    if !init.is_empty() {
        choices = format!("{choices} or one of the init containers: [{}]", init.join(" "));
    }
    Failure::bad_request(format!("a container name must be specified for pod {pod}, {choices}"))
}

//! The `log` subresource of pods: which container is meant, and the wording when that is not clear or there is no log
//! yet. Pure.

use serde_json::Value;

use crate::{
    object,
    route::Query,
    status::{Failure, FieldError, Result},
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

/// The container a request is about, in the words of kube-apiserver when that is not clear.
pub(crate) fn container(pod: &Value, query: &Query) -> Result<String> {
    let names = |list| object::at(pod, list).and_then(Value::as_array).into_iter().flatten().map(name_of);
    let pod_name = object::name(pod);
    let mut all = names("spec.initContainers").chain(names("spec.containers"));
    match query.text("container") {
        "" => {}
        given if all.any(|name| name == given) => return Ok(given.to_owned()),
        given => {
            return Err(Failure::bad_request(format!("container {given} is not valid for pod {pod_name}")));
        }
    }
    let mut regular = names("spec.containers");
    if let (Some(only), None) = (regular.next(), regular.next()) {
        return Ok(only.to_owned());
    }
    let choices = all.collect::<Vec<_>>().join(" ");
    Err(Failure::bad_request(format!(
        "a container name must be specified for pod {pod_name}, choose one of: [{choices}]"
    )))
}

fn name_of(container: &Value) -> &str {
    object::text(container, "name")
}

/// The status of one container, if the node has said something about it.
pub(crate) fn status_of<'a>(pod: &'a Value, container: &str) -> Option<&'a Value> {
    let lists = ["status.containerStatuses", "status.initContainerStatuses"];
    let all = lists.iter().filter_map(|list| object::at(pod, list)?.as_array()).flatten();
    all.into_iter().find(|status| name_of(status) == container)
}

/// Reads the query of `GET .../pods/<name>/log`, with the messages of kube-apiserver and kubelet. `None` for a pod
/// without a node, whose log is empty.
pub(crate) fn request(pod: &Value, query: &Query) -> Result<Option<LogRequest>> {
    let name = object::name(pod);
    let (tail_lines, limit_bytes) = (query.integer("tailLines")?, query.integer("limitBytes")?);
    let since_seconds = query.integer("sinceSeconds")?;
    let since_time = query
        .get("sinceTime")
        .map(|text| {
            text.parse().map_err(|_| Failure::bad_request(format!("sinceTime {text:?} is not RFC 3339")))
        })
        .transpose()?;
    let mut faults = Vec::new();
    let mut at_least = |field: &str, value: Option<i64>, least: i64, why: &str| {
        let wrong = value.filter(|value| *value < least);
        faults.extend(wrong.map(|value| FieldError::invalid(field, &Value::from(value), why)));
        value.and_then(|value| u64::try_from(value).ok())
    };
    let tail_lines = at_least("tailLines", tail_lines, 0, "must be greater than or equal to 0");
    let limit_bytes = at_least("limitBytes", limit_bytes, 1, "must be greater than 0");
    let since_seconds = at_least("sinceSeconds", since_seconds, 1, "must be greater than 0");
    if since_seconds.is_some() && since_time.is_some() {
        let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        faults.push(FieldError::forbidden("", why));
    }
    if !faults.is_empty() {
        return Err(Failure::invalid_kind("", "PodLogOptions", name, &faults));
    }
    let container = container(pod, query)?;
    if object::text(pod, "spec.nodeName").is_empty() {
        return Ok(None);
    }
    let previous = query.flag("previous");
    if let Some(why) = unavailable(pod, &container, previous) {
        return Err(Failure::bad_request(why));
    }
    Ok(Some(LogRequest {
        namespace: object::namespace(pod).to_owned(),
        pod: name.to_owned(),
        uid: object::uid(pod).to_owned(),
        container,
        follow: query.flag("follow"),
        previous,
        timestamps: query.flag("timestamps"),
        tail_lines,
        limit_bytes,
        since_seconds,
        since_time,
    }))
}

/// Why a container has no log, in the kubelet's words; `None` if it has one.
fn unavailable(pod: &Value, container: &str, previous: bool) -> Option<String> {
    let who = format!("container {container:?} in pod {:?}", object::name(pod));
    let Some(status) = status_of(pod, container) else { return Some(format!("{who} is not available")) };
    let has = |path| object::at(status, path).is_some_and(|state| !state.is_null());
    if previous {
        return (!has("lastState.terminated")).then(|| format!("previous terminated {who} not found"));
    }
    if has("state.running") || has("state.terminated") || has("lastState.terminated") {
        return None;
    }
    if !has("state.waiting") {
        return Some(format!("{who} is waiting to start - no logs yet"));
    }
    let reason = match object::text(status, "state.waiting.reason") {
        "ErrImagePull" => "image can't be pulled",
        "ImagePullBackOff" => "trying and failing to pull image",
        other => other,
    };
    Some(format!("{who} is waiting to start: {reason}"))
}

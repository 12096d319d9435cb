//! The `exec` and `attach` subresources of pods: which container a command is to run in or output is wanted of, why none
//! can, and how its end is told. Pure.

use serde_json::{Value, json};

use crate::{
    log,
    log::LogRequest,
    object,
    route::Query,
    status::{Failure, Result},
};

/// A request to run a command in a container, checked against the pod; the shell runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRequest {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod, so that one of the same name made later is not entered by mistake.
    pub uid: String,
    /// Name of the container; the node said that it runs.
    pub container: String,
    /// The command and its arguments, at least one word.
    pub command: Vec<String>,
    /// Which of its streams the client is at the other end of.
    pub streams: Streams,
    /// Whether it has a terminal.
    pub tty: bool,
}

/// Standard streams, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    /// What the client writes.
    pub stdin: bool,
    /// What the command prints.
    pub stdout: bool,
    /// What it complains about; never with a terminal, which makes one stream of both.
    pub stderr: bool,
}

/// Reads the query of `.../pods/<name>/exec`, with the messages of kube-apiserver and kubelet.
pub(crate) fn request(pod: &Value, query: &Query) -> Result<ExecRequest> {
    let (container, tty, streams) = wanted(pod, query)?;
    let command: Vec<String> = query.all("command").map(str::to_owned).collect();
    if command.is_empty() {
        return Err(Failure::bad_request("you must specify at least one command for the container"));
    }
    check_running(pod, &container)?;
    let (namespace, uid) = (object::namespace(pod).to_owned(), object::uid(pod).to_owned());
    Ok(ExecRequest { namespace, pod: object::name(pod).to_owned(), uid, container, command, streams, tty })
}

/// Reads the query of `.../pods/<name>/attach`. What a container writes goes into its log, and from there to whoever
/// attaches; what a container reads was decided when it started, and that is nothing.
pub(crate) fn attach(pod: &Value, query: &Query) -> Result<LogRequest> {
    let (container, tty, streams) = wanted(pod, query)?;
    if streams.stdin || tty {
        return Err(Failure::bad_request(
            "containers have no input and no terminal here, only their output can be attached to: leave out stdin and \
             tty, or run a command of your own with exec",
        ));
    }
    check_running(pod, &container)?;
    Ok(LogRequest {
        namespace: object::namespace(pod).to_owned(),
        pod: object::name(pod).to_owned(),
        uid: object::uid(pod).to_owned(),
        container,
        follow: true,
        previous: false,
        timestamps: false,
        tail_lines: Some(0),
        limit_bytes: None,
        since_seconds: None,
        since_time: None,
    })
}

/// The container, whether with a terminal, and the streams, of a pod that has a node.
fn wanted(pod: &Value, query: &Query) -> Result<(String, bool, Streams)> {
    let container = log::container(pod, query)?;
    if object::text(pod, "spec.nodeName").is_empty() {
        let name = object::name(pod);
        return Err(Failure::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let tty = query.flag("tty");
    let stderr = query.flag("stderr") && !tty;
    let streams = Streams { stdin: query.flag("stdin"), stdout: query.flag("stdout"), stderr };
    if streams == (Streams { stdin: false, stdout: false, stderr: false }) {
        return Err(Failure::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok((container, tty, streams))
}

fn check_running(pod: &Value, container: &str) -> Result<()> {
    let status = log::status_of(pod, container);
    let running = status.and_then(|status| object::at(status, "state.running"));
    if running.is_none_or(Value::is_null) {
        return Err(Failure::internal(format!("container not found ({container:?})")));
    }
    Ok(())
}

/// The `Status` that tells a client how its command ended: the exit code, or why it could not be run.
pub fn exec_status(ended: &std::result::Result<i32, String>) -> Value {
    match ended {
        Ok(0) => json!({ "metadata": {}, "status": "Success" }),
        Ok(code) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit code {code}"),
            "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
        }),
        Err(why) => {
            let why = format!("error executing command in container: {why}");
            let mut failure = Failure::internal(format!("Internal error occurred: {why}"));
            *failure.details = json!({ "causes": [{ "message": why }] });
            failure.to_value()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str, pod: &Value) -> std::result::Result<ExecRequest, String> {
        request(pod, &Query::parse(query)).map_err(|failure| format!("{} {}", failure.code, failure.message))
    }

    fn pod(state: &Value) -> Value {
        json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "u" },
            "spec": { "nodeName": "here", "containers": [{ "name": "a" }, { "name": "b" }] },
            "status": { "containerStatuses": [{ "name": "a", "state": state }] },
        })
    }

    #[test]
    fn the_query_becomes_a_request() {
        let pod = pod(&json!({ "running": {} }));
        let made = ExecRequest {
            namespace: "n".into(),
            pod: "p".into(),
            uid: "u".into(),
            container: "a".into(),
            command: vec!["sh".into(), "-c".into(), "echo a b".into()],
            streams: Streams { stdin: false, stdout: true, stderr: true },
            tty: false,
        };
        let command = "command=sh&command=-c&command=echo+a%20b";
        let query = format!("container=a&{command}&stdout=true&stderr=true");
        assert_eq!(asked(&query, &pod), Ok(made.clone()));
        // A terminal is one stream.
        let streams = Streams { stdin: true, stdout: true, stderr: false };
        let terminal = ExecRequest { streams, tty: true, ..made };
        assert_eq!(asked(&format!("{query}&tty=1&stdin=1"), &pod), Ok(terminal));
    }

    #[test]
    fn refusals_say_what_is_missing() {
        let running = json!({ "running": {} });
        let mut unbound = pod(&running);
        unbound["spec"]["nodeName"] = Value::Null;
        for (query, pod, expected) in [
            (
                "command=x&stdout=1",
                pod(&running),
                "400 a container name must be specified for pod p, choose one of: [a b]",
            ),
            ("container=c&command=x&stdout=1", pod(&running), "400 container c is not valid for pod p"),
            ("container=a&command=x&stdout=1", unbound, "400 pod p does not have a host assigned"),
            (
                "container=a&command=x",
                pod(&running),
                "400 you must specify at least 1 of stdin, stdout, stderr",
            ),
            (
                "container=a&stdout=1",
                pod(&running),
                "400 you must specify at least one command for the container",
            ),
            ("container=b&command=x&stdout=1", pod(&running), "500 container not found (\"b\")"),
            (
                "container=a&command=x&stdout=1",
                pod(&json!({ "terminated": { "exitCode": 0 } })),
                "500 container not found (\"a\")",
            ),
        ] {
            assert_eq!(asked(query, &pod), Err(expected.to_owned()), "{query}");
        }
    }

    #[test]
    fn output_can_be_attached_to_and_input_cannot() {
        let running = pod(&json!({ "running": {} }));
        let asked = |query: &str, pod: &Value| {
            attach(pod, &Query::parse(query)).map_err(|failure| (failure.code, failure.message))
        };
        let log = asked("container=a&stdout=true&stderr=true", &running).unwrap();
        assert_eq!((log.container.as_str(), log.follow, log.tail_lines), ("a", true, Some(0)), "from now on");
        for query in ["container=a&stdout=1&stdin=1", "container=a&stdout=1&tty=1"] {
            let (code, why) = asked(query, &running).unwrap_err();
            assert!(code == 400 && why.contains("no input and no terminal"), "{why}");
        }
        assert_eq!(asked("container=a", &running).unwrap_err().0, 400);
        let ended = pod(&json!({ "terminated": { "exitCode": 0 } }));
        assert_eq!(asked("container=a&stdout=1", &ended).unwrap_err().0, 500);
    }

    #[test]
    fn the_end_is_told_as_a_status() {
        assert_eq!(exec_status(&Ok(0)), json!({ "metadata": {}, "status": "Success" }));
        let failed = exec_status(&Ok(3));
        assert_eq!(failed["reason"], "NonZeroExitCode");
        assert_eq!(failed["details"]["causes"], json!([{ "reason": "ExitCode", "message": "3" }]));
        let broken = exec_status(&Err("no such file".into()));
        assert_eq!((&broken["code"], &broken["reason"]), (&json!(500), &json!("InternalError")));
        assert!(broken["message"].as_str().unwrap().ends_with("in container: no such file"));
    }
}

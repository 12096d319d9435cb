//! What a case is: a pod, and what must be seen of it.

use anyhow::{Result, anyhow, ensure};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use ropewalk_test::harness::Kind;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The container of pods that have but one.
pub(crate) const ONLY: &str = "c";

/// One case.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) metadata: Value,
    pub(crate) spec: Value,
    /// What the pod refers to: objects without a namespace.
    pub(crate) objects: Vec<Value>,
    /// The only world where it means anything, if there is one.
    pub(crate) world: Option<Kind>,
    /// The pod is looked at once this holds.
    pub(crate) until: Box<dyn Fn(&Pod) -> bool + Send + Sync>,
    /// The pod is deleted once its container has written this line; what is seen is how it was just before it went.
    pub(crate) deleted_after: Option<&'static str>,
    pub(crate) wanted: Vec<Wanted>,
}

/// Says whether it was seen.
pub(crate) type Wanted = Box<dyn Fn(&Seen) -> Result<()> + Send + Sync>;

/// What was seen of a pod.
pub(crate) struct Seen {
    pub(crate) pod: Pod,
    /// What containers wrote, by their names.
    pub(crate) logs: BTreeMap<String, String>,
}

/// A container that runs a script.
pub(crate) fn container(name: &str, script: &str) -> Value {
    json!({ "name": name, "image": super::world::IMAGE, "command": ["sh", "-c", script] })
}

/// `base` with further fields.
pub(crate) fn with(mut base: Value, fields: Value) -> Value {
    merge(&mut base, fields);
    base
}

/// Objects are merged, and anything else is replaced.
fn merge(base: &mut Value, more: Value) {
    match (base, more) {
        (Value::Object(base), Value::Object(more)) => {
            for (name, value) in more {
                merge(base.entry(name).or_insert(Value::Null), value);
            }
        }
        (base, more) => *base = more,
    }
}

/// A pod of this spec, which is not started again.
pub(crate) fn pod(name: &'static str, spec: Value) -> Case {
    Case {
        name,
        metadata: json!({}),
        // Old API servers refuse pods whose service account has no token yet.
        spec: with(
            json!({
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": false,
            }),
            spec,
        ),
        objects: Vec::new(),
        world: None,
        until: Box::new(|pod| matches!(phase(pod), "Succeeded" | "Failed")),
        deleted_after: None,
        wanted: Vec::new(),
    }
}

/// A pod of one container that runs a script.
pub(crate) fn script(name: &'static str, script: &str) -> Case {
    pod(name, json!({ "containers": [container(ONLY, script)] }))
}

impl Case {
    /// With these fields in its only container.
    pub(crate) fn container(mut self, fields: Value) -> Self {
        merge(&mut self.spec["containers"][0], fields);
        self
    }

    /// With these fields in its spec.
    pub(crate) fn spec(mut self, fields: Value) -> Self {
        merge(&mut self.spec, fields);
        self
    }

    /// With an emptyDir `v` at `/v` of every container.
    pub(crate) fn sharing(mut self) -> Self {
        self.spec["volumes"] = json!([{ "name": "v", "emptyDir": {} }]);
        for list in ["initContainers", "containers"] {
            for container in self.spec[list].as_array_mut().into_iter().flatten() {
                container["volumeMounts"] = json!([{ "name": "v", "mountPath": "/v" }]);
            }
        }
        self
    }

    /// With this volume at `/v` of its only container.
    pub(crate) fn volume(self, source: Value) -> Self {
        let volume = with(json!({ "name": "v" }), source);
        self.spec(json!({ "volumes": [volume] }))
            .container(json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v" }] }))
    }

    pub(crate) fn metadata(mut self, fields: Value) -> Self {
        merge(&mut self.metadata, fields);
        self
    }

    pub(crate) fn object(mut self, object: Value) -> Self {
        self.objects.push(object);
        self
    }

    /// It means nothing, or something else, in the other world.
    pub(crate) fn only(self, world: Kind) -> Self {
        Self { world: Some(world), ..self }
    }

    pub(crate) fn until(self, until: impl Fn(&Pod) -> bool + Send + Sync + 'static) -> Self {
        Self { until: Box::new(until), ..self }
    }

    pub(crate) fn deleted_after(self, line: &'static str) -> Self {
        Self { deleted_after: Some(line), ..self }
    }

    /// The pod never runs: its container waits for this reason, and says why in words that hold these.
    pub(crate) fn refused(self, reason: &'static str, words: &'static [&'static str]) -> Self {
        let waits = move |pod: &Pod| {
            let state = status(pod, ONLY).and_then(|status| status.state.as_ref());
            state
                .and_then(|state| state.waiting.as_ref())
                .is_some_and(|waiting| waiting.reason.as_deref() == Some(reason))
        };
        self.until(move |pod| waits(pod) || matches!(phase(pod), "Succeeded" | "Failed")).also(move |seen| {
            let waiting = seen.state(ONLY)?.waiting.ok_or_else(|| anyhow!("it was not refused"))?;
            let message = waiting.message.unwrap_or_default();
            for word in words {
                ensure!(message.contains(word), "\"{word}\" is not in: {message}");
            }
            Ok(())
        })
    }

    /// The pod is evicted, and this is why.
    pub(crate) fn evicted(self, message: &'static str) -> Self {
        self.failed("Evicted", message.to_owned())
    }

    /// The node does not take the pod, for this reason and in these words.
    pub(crate) fn rejected(self, reason: &'static str, words: &str) -> Self {
        self.failed(reason, format!("Pod was rejected: {words}"))
    }

    fn failed(self, reason: &'static str, message: String) -> Self {
        self.also(move |seen| {
            let status = seen.pod.status.clone().unwrap_or_default();
            let found = (status.phase.as_deref(), status.reason.as_deref(), status.message.as_deref());
            ensure!(found == (Some("Failed"), Some(reason), Some(message.as_str())), "it is {found:?}");
            Ok(())
        })
    }

    pub(crate) fn also(mut self, wanted: impl Fn(&Seen) -> Result<()> + Send + Sync + 'static) -> Self {
        self.wanted.push(Box::new(wanted));
        self
    }

    /// Its only container ends with this code, for this reason.
    pub(crate) fn exits(self, code: i32, reason: &'static str) -> Self {
        self.ends(ONLY, code, reason)
    }

    /// A container ends with this code, for this reason.
    pub(crate) fn ends(self, container: &'static str, code: i32, reason: &'static str) -> Self {
        self.also(move |seen| {
            let (found, why) = seen.ended(container)?;
            ensure!((found, why.as_str()) == (code, reason), "\"{container}\" ended with {found}, {why}");
            Ok(())
        })
    }

    /// Its only container ends well, and has written this.
    pub(crate) fn says(self, text: impl Into<String>) -> Self {
        self.exits(0, "Completed").writes(ONLY, text)
    }

    /// A container has written this.
    pub(crate) fn writes(self, container: &'static str, text: impl Into<String>) -> Self {
        let text = text.into();
        self.also(move |seen| {
            let log = seen.log(container)?;
            ensure!(log == text, "\"{container}\" wrote {log:?} and not {text:?}");
            Ok(())
        })
    }

    /// Its only container leaves this message.
    pub(crate) fn leaves(self, message: impl Into<String>) -> Self {
        let message = message.into();
        self.also(move |seen| {
            let found = seen.message(ONLY)?;
            ensure!(found == message, "the message is {found:?} and not {message:?}");
            Ok(())
        })
    }

    /// Its only container was started again so often.
    pub(crate) fn restarts(self, count: i32) -> Self {
        self.also(move |seen| {
            let found = seen.status(ONLY)?.restart_count;
            ensure!(found == count, "it was started again {found} times");
            Ok(())
        })
    }
}

impl Seen {
    pub(crate) fn status(&self, container: &str) -> Result<&ContainerStatus> {
        status(&self.pod, container).ok_or_else(|| anyhow!("\"{container}\" has no status"))
    }

    pub(crate) fn state(&self, container: &str) -> Result<ContainerState> {
        Ok(self.status(container)?.state.clone().unwrap_or_default())
    }

    /// Exit code and reason.
    pub(crate) fn ended(&self, container: &str) -> Result<(i32, String)> {
        let ended = self.state(container)?.terminated;
        let ended = ended.ok_or_else(|| anyhow!("\"{container}\" has not ended"))?;
        Ok((ended.exit_code, ended.reason.unwrap_or_default()))
    }

    /// Termination message.
    pub(crate) fn message(&self, container: &str) -> Result<String> {
        let ended = self.state(container)?.terminated;
        let ended = ended.ok_or_else(|| anyhow!("\"{container}\" has not ended"))?;
        Ok(ended.message.unwrap_or_default())
    }

    pub(crate) fn log(&self, container: &str) -> Result<&str> {
        let log = self.logs.get(container);
        log.map(String::as_str).ok_or_else(|| anyhow!("\"{container}\" has no log"))
    }

    /// The number in hexadecimal behind `<name>:` in a log that holds part of `/proc/<pid>/status`.
    pub(crate) fn mask(&self, name: &str) -> Result<u64> {
        let line = self.log(ONLY)?.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let line = line.ok_or_else(|| anyhow!("no {name} in the log: {:?}", self.logs))?;
        Ok(u64::from_str_radix(line.trim(), 16)?)
    }
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

pub(crate) fn status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let all = pod.status.as_ref()?;
    let init = all.init_container_statuses.iter().flatten();
    init.chain(all.container_statuses.iter().flatten()).find(|status| status.name == container)
}

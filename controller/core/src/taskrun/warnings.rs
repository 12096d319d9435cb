//! What nodes say of pods in Warning events: on a real kubelet a volume that cannot be mounted is told nowhere else.
//! Pure.

use k8s_openapi::api::core::v1::Pod;

use super::containers::{self, Seen};
use crate::diagnosis::quoted;

/// Reasons of events about a volume or the pod's sandbox: over once any container has been made.
const BEFORE_CONTAINERS: [&str; 5] =
    ["FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedCreatePodSandBox", "NetworkNotReady"];

/// Reasons of events about a container that cannot be made. Others are left out, first of all those that repeat what a
/// container printed, as `Unhealthy` does.
const ABOUT_CONTAINERS: [&str; 4] = ["Failed", "BackOff", "InspectFailed", "ErrImageNeverPull"];

/// Hexadecimal digits of what can only be an id; those of container runtimes have 64.
const ID: usize = 32;

/// What a Warning event says of a pod. Whoever may create events in the namespace may have written it: it informs, and
/// nothing is decided by it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PodWarning {
    /// The pod.
    pub pod_uid: String,
    /// The event's reason.
    pub reason: String,
    /// The event's message, in one line and bounded.
    pub message: String,
}

impl PodWarning {
    /// An event's words, if they are such as keep a pod from starting.
    pub fn new(pod_uid: &str, reason: &str, message: &str) -> Option<Self> {
        let known = BEFORE_CONTAINERS.contains(&reason) || ABOUT_CONTAINERS.contains(&reason);
        // `Error: ErrImagePull` only names what the container's status explains.
        let empty = message.strip_prefix("Error: ").unwrap_or(message).split_whitespace().nth(1).is_none();
        let message = || match reason {
            "FailedMount" => with_volumes_in_order(message),
            "FailedCreatePodSandBox" => without_ids(message),
            _ => message.to_owned(),
        };
        (known && !empty).then(|| Self {
            pod_uid: pod_uid.to_owned(),
            reason: reason.to_owned(),
            message: quoted(&message()),
        })
    }

    /// What it is about: a later one about the same takes its place.
    pub fn subject(&self) -> (&str, &str) {
        (&self.reason, self.message.split_once(": ").map_or(self.message.as_str(), |(subject, _)| subject))
    }

    /// The part that a container's status says too, if any does.
    pub(super) fn cause(&self) -> &str {
        let about_container = ABOUT_CONTAINERS.contains(&self.reason.as_str());
        let cause = self.message.split_once(": ").filter(|_| about_container);
        cause.map_or(&self.message, |(_, cause)| cause)
    }

    /// Whether the pod is still where it was when this was said.
    pub(super) fn holds(&self, pod: &Pod) -> bool {
        if pod.metadata.uid.as_deref() != Some(&self.pod_uid) {
            return false;
        }
        let all: Vec<Seen<'_>> = containers::init(pod).into_iter().chain(containers::regular(pod)).collect();
        if BEFORE_CONTAINERS.contains(&self.reason.as_str()) {
            let sandbox_ready = containers::conditions(pod).iter().any(|condition| {
                condition.type_ == "PodReadyToStartContainers" && condition.status == "True"
            });
            return !sandbox_ready
                && !all.iter().any(|seen| seen.is_running() || seen.terminated().is_some());
        }
        let mut waiting = all.iter().filter(|seen| !seen.is_running() && seen.terminated().is_none());
        // One image after the other is pulled; what was said of one that is there by now is over.
        waiting.any(|seen| {
            !self.message.contains("image \"") || self.message.contains(&format!("image \"{}\"", seen.image))
        })
    }
}

/// The kubelet names the volumes that it waits for, and then all of them, in an order that changes every time.
fn with_volumes_in_order(message: &str) -> String {
    let lists = message.split_once("unmounted volumes=[").and_then(|(before, rest)| {
        let (waited_for, rest) = rest.split_once(']')?;
        let after = rest.strip_prefix(", unattached volumes=[").and_then(|all| all.split_once(']'));
        Some((before, waited_for, after.map_or(rest, |(_, after)| after)))
    });
    let Some((before, waited_for, after)) = lists else { return message.to_owned() };
    let mut names: Vec<&str> = waited_for.split(' ').collect();
    names.sort_unstable();
    format!("{before}unmounted volumes=[{}]{after}", names.join(" "))
}

/// Every try to make a sandbox has an id of its own, which makes old news look new.
fn without_ids(message: &str) -> String {
    let is_id = |word: &str| word.len() >= ID && word.bytes().all(|c| c.is_ascii_hexdigit());
    let words = message.split('"').map(|word| if is_id(word) { "..." } else { word });
    words.collect::<Vec<_>>().join("\"")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    const MISSING: &str =
        "MountVolume.SetUp failed for volume \"cfg\" : configmap \" docker-config\" not found";

    #[rstest]
    #[case("FailedMount", MISSING, Some(MISSING))]
    #[case(
        "FailedMount",
        "Unable to attach or mount volumes: unmounted volumes=[d cfg], unattached volumes=[b cfg d a]: timed out",
        Some("Unable to attach or mount volumes: unmounted volumes=[cfg d]: timed out")
    )]
    #[case(
        "FailedCreatePodSandBox",
        "failed to setup network for sandbox \"0123456789abcdef0123456789abcdef\": plugin type=\"bridge\" failed",
        Some("failed to setup network for sandbox \"...\": plugin type=\"bridge\" failed")
    )]
    #[case("Failed", "Failed to pull image \"i\": not found", Some("Failed to pull image \"i\": not found"))]
    #[case("Failed", "Error: secret \"s\" not found", Some("Error: secret \"s\" not found"))]
    #[case("Failed", "Error: ErrImagePull", None)]
    #[case("Failed", "", None)]
    #[case("Unhealthy", "Readiness probe failed: what the container printed", None)]
    #[case("FailedPostStartHook", "hook failed: what the container printed", None)]
    fn only_what_keeps_a_pod_from_starting_is_told(
        #[case] reason: &str,
        #[case] message: &str,
        #[case] expected: Option<&str>,
    ) {
        let warning = PodWarning::new("u", reason, message);
        assert_eq!(warning.map(|warning| warning.message).as_deref(), expected);
    }

    #[test]
    fn a_later_word_about_the_same_volume_takes_the_place_of_the_earlier() {
        let about = |message: &str| PodWarning::new("u", "FailedMount", message).expect("a warning");
        let other = about("MountVolume.SetUp failed for volume \"cfg\" : failed to sync configmap cache");
        assert_eq!(about(MISSING).subject(), other.subject());
        assert_ne!(about(MISSING).subject(), about(&MISSING.replace("cfg", "other")).subject());
    }

    fn pod(status: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "uid": "u"},
            "spec": {"initContainers": [{"name": "prepare", "image": "e"}],
                     "containers": [{"name": "step-a", "image": "one"}, {"name": "step-b", "image": "two"}]},
            "status": status,
        }))
        .expect("a pod")
    }

    fn status(name: &str, state: &str) -> serde_json::Value {
        json!([{"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": {state: {"exitCode": 0}}}])
    }

    #[rstest]
    #[case::nothing_made("FailedMount", MISSING, json!({}), true)]
    #[case::init_runs("FailedMount", MISSING, json!({"initContainerStatuses": status("prepare", "running")}), false)]
    #[case::init_done("FailedMount", MISSING, json!({"initContainerStatuses": status("prepare", "terminated")}), false)]
    #[case::init_waits("FailedMount", MISSING, json!({"initContainerStatuses": status("prepare", "waiting")}), true)]
    #[case::sandbox_made(
        "FailedMount", MISSING,
        json!({"conditions": [{"type": "PodReadyToStartContainers", "status": "True"}]}), false)]
    #[case::image_waits(
        "Failed", "Failed to pull image \"one\": x", json!({"containerStatuses": status("step-b", "running")}), true)]
    #[case::image_there(
        "Failed", "Failed to pull image \"two\": x", json!({"containerStatuses": status("step-b", "running")}), false)]
    fn what_was_said_holds_as_long_as_it_matters(
        #[case] reason: &str,
        #[case] message: &str,
        #[case] status: serde_json::Value,
        #[case] expected: bool,
    ) {
        let warning = PodWarning::new("u", reason, message).expect("a warning");
        assert_eq!(warning.holds(&pod(&status)), expected);
        assert!(!PodWarning { pod_uid: "another".to_owned(), ..warning }.holds(&pod(&json!({}))));
    }
}

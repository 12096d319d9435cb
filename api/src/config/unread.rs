//! Keys of `config-defaults` and `feature-flags` that this engine does not act on (contract 3.1, 3.2). Their values are held to
//! what upstream takes: a ConfigMap that is refused there is refused here, where it is written, and not in the release that
//! begins to read it. Pure.
//!
//! What upstream takes as any text, it takes here: `default-cloud-events-sink`, `default-task-run-workspace-binding`,
//! `enable-step-actions`, `enable-tekton-oci-bundles` and `enable-informer-cache-transforms`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    LocalObjectReference, PodSecurityContext, ResourceRequirements, Toleration,
};
use ropewalk_entrypoint_protocol::duration::GoDuration;
use ropewalk_quantity::Quantity;
use serde::Deserialize;

use super::parse::Reader;

/// An object in etcd has no room for a longer result, in bytes.
const MAX_RESULT: i64 = 1_572_864;

/// `default-affinity-assistant-pod-template` (contract 1.1).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "that they can be read is all that is asked")]
struct AffinityAssistantTemplate {
    node_selector: Option<BTreeMap<String, String>>,
    tolerations: Option<Vec<Toleration>>,
    image_pull_secrets: Option<Vec<LocalObjectReference>>,
    security_context: Option<PodSecurityContext>,
    priority_class_name: Option<String>,
    service_account_name: Option<String>,
}

pub(super) fn check_defaults(reader: &mut Reader<'_>) {
    for key in [
        "default-imagepullbackoff-timeout",
        "default-create-container-error-timeout",
        "default-maximum-resolution-timeout",
        "default-sidecar-log-polling-interval",
    ] {
        reader.check(
            key,
            |text| text.parse::<GoDuration>().is_ok(),
            "a length of time such as \"30s\" or \"1m30s\"",
        );
    }
    reader.check("default-step-ref-concurrency-limit", |text| text.parse::<i64>().is_ok(), "a whole number");
    reader.yaml("default-affinity-assistant-pod-template", &mut None::<AffinityAssistantTemplate>);
    let mut resources = None::<BTreeMap<String, ResourceRequirements>>;
    reader.yaml("default-container-resource-requirements", &mut resources);
    if !resources.iter().flat_map(BTreeMap::values).all(are_quantities) {
        reader.refuse_value(
            "default-container-resource-requirements",
            "quantities such as \"500m\" or \"1Gi\"",
        );
    }
}

fn are_quantities(resources: &ResourceRequirements) -> bool {
    let quantities = resources.limits.iter().chain(&resources.requests).flat_map(BTreeMap::values);
    quantities.into_iter().all(|quantity| quantity.0.parse::<Quantity>().is_ok())
}

pub(super) fn check_features(reader: &mut Reader<'_>) {
    for key in [
        "enable-kubernetes-sidecar",
        "enable-termination-message-compression",
        "enable-wait-exponential-backoff",
        "keep-pod-on-cancel",
        "running-in-environment-with-injected-sidecars",
        "send-cloudevents-for-runs",
        "set-security-context-read-only-root-filesystem",
    ] {
        reader.flag(key, &mut false);
    }
    for (key, words, expected) in [
        (
            "coschedule",
            &["workspaces", "pipelineruns", "isolate-pipelinerun", "disabled"][..],
            "\"workspaces\", \"pipelineruns\", \"isolate-pipelinerun\" or \"disabled\"",
        ),
        ("enforce-nonfalsifiability", &["none", "spire"], "\"none\" or \"spire\""),
        (
            "results-from",
            &["termination-message", "sidecar-logs"],
            "\"termination-message\" or \"sidecar-logs\"",
        ),
        (
            "trusted-resources-verification-no-match-policy",
            &["ignore", "warn", "fail"],
            "\"ignore\", \"warn\" or \"fail\"",
        ),
    ] {
        reader.check(key, |text| words.contains(&text.to_lowercase().as_str()), expected);
    }
    reader.check(
        "max-result-size",
        |text| text.parse().is_ok_and(|size: i64| size < MAX_RESULT),
        "a whole number below 1572864",
    );
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use crate::config::Config;

    /// What is wrong with one key of both ConfigMaps.
    fn wrong(key: &str, value: &str) -> Vec<String> {
        let data = [(key.to_owned(), value.to_owned())].into();
        let read = Config::from_config_maps(&data, &data, &[].into());
        read.err().map_or_else(Vec::new, |errors| errors.0.into_iter().map(|error| error.expected).collect())
    }

    #[rstest]
    #[case("default-imagepullbackoff-timeout", "5m")]
    #[case("default-create-container-error-timeout", "0")]
    #[case("default-maximum-resolution-timeout", "1m30s")]
    #[case("default-sidecar-log-polling-interval", "100ms")]
    #[case("default-step-ref-concurrency-limit", "5")]
    #[case("default-affinity-assistant-pod-template", "nodeSelector: {disk: ssd}\npriorityClassName: high\n")]
    #[case("default-affinity-assistant-pod-template", "unheardOf: true")]
    #[case(
        "default-container-resource-requirements",
        "place-scripts: {requests: {memory: 64Mi, cpu: 2}}\nprefix-scripts: {}\ndefault: {limits: {cpu: 100m}}\n"
    )]
    #[case("default-task-run-workspace-binding", "emptyDir: {")]
    #[case("keep-pod-on-cancel", "T")]
    #[case("coschedule", "PipelineRuns")]
    #[case("enforce-nonfalsifiability", "spire")]
    #[case("results-from", "sidecar-logs")]
    #[case("trusted-resources-verification-no-match-policy", "Fail")]
    #[case("max-result-size", "1572863")]
    #[case("enable-tekton-oci-bundles", "whatever")]
    fn what_upstream_takes_is_taken(#[case] key: &str, #[case] value: &str) {
        assert_eq!(wrong(key, value), Vec::<String>::new());
    }

    #[rstest]
    #[case("default-imagepullbackoff-timeout", "5", "a length of time such as")]
    #[case("default-create-container-error-timeout", "soon", "a length of time such as")]
    #[case("default-maximum-resolution-timeout", "1 m", "a length of time such as")]
    #[case("default-sidecar-log-polling-interval", "ms", "a length of time such as")]
    #[case("default-step-ref-concurrency-limit", "five", "a whole number")]
    #[case("default-affinity-assistant-pod-template", "nodeSelector: ssd", "YAML of the right form (")]
    #[case("default-container-resource-requirements", "default: [", "YAML of the right form (")]
    #[case("default-container-resource-requirements", "default: {limits: {cpu: lots}}", "quantities such as")]
    #[case(
        "default-container-resource-requirements",
        "default: {requests: {memory: 1 Gi}}",
        "quantities such as"
    )]
    #[case("enable-kubernetes-sidecar", "yes", "\"true\" or \"false\"")]
    #[case("enable-termination-message-compression", "yes", "\"true\" or \"false\"")]
    #[case("enable-wait-exponential-backoff", "yes", "\"true\" or \"false\"")]
    #[case("keep-pod-on-cancel", "yes", "\"true\" or \"false\"")]
    #[case("running-in-environment-with-injected-sidecars", "yes", "\"true\" or \"false\"")]
    #[case("send-cloudevents-for-runs", "yes", "\"true\" or \"false\"")]
    #[case("set-security-context-read-only-root-filesystem", "yes", "\"true\" or \"false\"")]
    #[case("coschedule", "nodes", "\"workspaces\", \"pipelineruns\"")]
    #[case("enforce-nonfalsifiability", "true", "\"none\" or \"spire\"")]
    #[case("results-from", "logs", "\"termination-message\" or")]
    #[case("trusted-resources-verification-no-match-policy", "skip", "\"ignore\", \"warn\"")]
    #[case("max-result-size", "1572864", "a whole number below 1572864")]
    #[case("max-result-size", "4Ki", "a whole number below 1572864")]
    fn what_upstream_refuses_is_refused(#[case] key: &str, #[case] value: &str, #[case] expected: &str) {
        let wrong = wrong(key, value);
        assert!(wrong.len() == 1 && wrong[0].starts_with(expected), "{wrong:?}");
    }
}

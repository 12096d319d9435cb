//! The webhook of the engine's own ConfigMaps: a value that cannot be used is refused where it is written, and so is
//! never stored (contract 1.0 and 3). Pure.

use std::collections::BTreeMap;

use ropewalk_api::config::{Config, LeaderElection};
use ropewalk_cluster::config::ConfigMapNames;
use serde_json::Value;

use crate::admit::{Denial, Operation, Request, refuse};

/// The name clients see when a ConfigMap is refused.
pub const CONFIG_WEBHOOK: &str = "config.webhook.pipeline.tekton.dev";

/// Checks the ConfigMaps that the engine reads, by their names. All else passes.
///
/// # Errors
/// The values that cannot be used.
pub fn validate_config_map(request: &Request<'_>, names: &ConfigMapNames) -> Result<(), Denial> {
    if request.kind != "ConfigMap" || !request.group.is_empty() || request.operation == Operation::Delete {
        return Ok(());
    }
    // An API server lets only texts through.
    let data = request.object["data"].as_object().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let data: BTreeMap<String, String> = data.map(|(key, value)| (key.clone(), text(value))).collect();
    let none = BTreeMap::new();
    let read = |defaults, features, observability| {
        Config::from_config_maps(defaults, features, observability)
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let checked = match request.object["metadata"]["name"].as_str().unwrap_or_default() {
        name if name == names.defaults => read(&data, &none, &none),
        name if name == names.features => read(&none, &data, &none),
        name if name == names.observability => read(&none, &none, &data),
        name if name == names.leader_election => LeaderElection::from_config_map(&data)
            .map(drop)
            .map_err(|error| format!("ConfigMap \"{name}\" cannot be used: {error}")),
        _ => Ok(()),
    };
    checked.map_err(|errors| refuse(CONFIG_WEBHOOK, format!("validation failed: {errors}")))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn check(name: &str, data: &Value, operation: Operation) -> Result<(), String> {
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
        let request = Request {
            operation,
            group: "",
            kind: "ConfigMap",
            subresource: None,
            object: &object,
            old_object: None,
        };
        let names = ConfigMapNames {
            defaults: "config-defaults".to_owned(),
            features: "feature-flags".to_owned(),
            observability: "of-our-own".to_owned(),
            leader_election: "config-leader-election-controller".to_owned(),
        };
        validate_config_map(&request, &names).map_err(|denial| denial.message())
    }

    #[rstest]
    #[case::good("feature-flags", json!({"enable-api-fields": "alpha", "_example": "anything"}))]
    #[case::empty("config-defaults", Value::Null)]
    #[case::foreign("config-of-somebody-else", json!({"enable-api-fields": "omega"}))]
    #[case::elsewhere_named("config-observability", json!({"metrics.taskrun.level": "omega"}))]
    #[case::leader_election("config-leader-election-controller", json!({"lease-duration": "1m"}))]
    #[case::another_map("config-defaults", json!({"enable-api-fields": "omega"}))]
    fn passes(#[case] name: &str, #[case] data: Value) {
        assert_eq!(check(name, &data, Operation::Create), Ok(()));
    }

    #[rstest]
    #[case("feature-flags", "enable-api-fields", "omega", "\"stable\", \"beta\" or \"alpha\"")]
    #[case("config-defaults", "default-timeout-minutes", "1h", "a whole number of minutes")]
    fn refuses_what_cannot_be_used(
        #[case] name: &str,
        #[case] key: &str,
        #[case] value: &str,
        #[case] expected: &str,
    ) {
        let data = json!({key: value});
        let reason =
            format!("ConfigMap \"{name}\" has \"{value}\" for the key \"{key}\", expected {expected}");
        let message =
            format!("admission webhook \"{CONFIG_WEBHOOK}\" denied the request: validation failed: {reason}");
        assert_eq!(check(name, &data, Operation::Update), Err(message));
        assert_eq!(check(name, &data, Operation::Delete), Ok(()));
    }

    #[rstest]
    #[case("of-our-own", "metrics.taskrun.level", "omega", "for the key \"metrics.taskrun.level\"")]
    #[case(
        "config-leader-election-controller",
        "lease-duration",
        "12",
        "ConfigMap \"config-leader-election-controller\" cannot be used: \"12\" for the key \"lease-duration\""
    )]
    #[case(
        "config-leader-election-controller",
        "lease-duration",
        "1s",
        "has to be longer than \"renew-deadline\""
    )]
    fn refuses_by_the_names_there_are(
        #[case] name: &str,
        #[case] key: &str,
        #[case] value: &str,
        #[case] expected: &str,
    ) {
        let message = check(name, &json!({key: value}), Operation::Update).expect_err("it cannot be used");
        assert!(message.contains(expected), "{message}");
    }
}

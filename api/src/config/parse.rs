//! Reading the ConfigMaps (contract 3.1, 3.2 and 9.3). Pure; keys this engine does not act on are only checked.

use std::collections::BTreeMap;
use std::fmt;

use ropewalk_entrypoint_protocol::duration::GoDuration;
use serde::de::DeserializeOwned;

use super::{ApiFields, Config, Defaults, FeatureFlags, observability, unread};

/// A value that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("ConfigMap \"{map}\" has \"{value}\" for the key \"{key}\", expected {expected}")]
pub struct ConfigError {
    /// `config-defaults`, `feature-flags` or `config-observability`.
    pub map: &'static str,
    /// The key.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// What would be right, in words.
    pub expected: String,
}

/// Everything wrong with the ConfigMaps.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl Config {
    /// The configuration in the data of `config-defaults`, `feature-flags` and `config-observability`; absent keys
    /// have their defaults.
    ///
    /// # Errors
    /// Every value that cannot be used. The webhook refuses such a ConfigMap; a process keeps what it had before.
    pub fn from_config_maps(
        defaults: &BTreeMap<String, String>,
        features: &BTreeMap<String, String>,
        observability: &BTreeMap<String, String>,
    ) -> Result<Self, ConfigErrors> {
        let mut reader = Reader { map: "config-defaults", data: defaults, errors: Vec::new() };
        let defaults = read_defaults(&mut reader);
        unread::check_defaults(&mut reader);
        let mut reader = Reader { map: "feature-flags", data: features, errors: reader.errors };
        let features = read_features(&mut reader);
        unread::check_features(&mut reader);
        let mut reader = Reader { map: "config-observability", data: observability, errors: reader.errors };
        let observability = observability::read(&mut reader);
        if reader.errors.is_empty() {
            Ok(Self { defaults, features, observability })
        } else {
            Err(ConfigErrors(reader.errors))
        }
    }
}

fn read_defaults(reader: &mut Reader<'_>) -> Defaults {
    let mut defaults = Defaults::default();
    reader.set(
        "default-timeout-minutes",
        &mut defaults.timeout,
        |text| {
            let minutes: i64 = text.parse().ok()?;
            Some(GoDuration::from_secs(minutes.checked_mul(60)?))
        },
        "a whole number of minutes",
    );
    reader.text("default-service-account", &mut defaults.service_account);
    reader.text("default-managed-by-label-value", &mut defaults.managed_by);
    reader.text("default-resolver-type", &mut defaults.resolver_type);
    reader.list("default-forbidden-env", &mut defaults.forbidden_env, str::trim);
    reader.set(
        "default-max-matrix-combinations-count",
        &mut defaults.max_matrix_combinations,
        // Less than none admits no matrix, as none does.
        |text| Some(usize::try_from(text.parse::<i64>().ok()?).unwrap_or(0)),
        "a whole number",
    );
    reader.yaml("default-pod-template", &mut defaults.pod_template);
    defaults
}

fn read_features(reader: &mut Reader<'_>) -> FeatureFlags {
    let mut flags = FeatureFlags::default();
    reader.set(
        "enable-api-fields",
        &mut flags.enable_api_fields,
        |text| {
            let levels = [ApiFields::Stable, ApiFields::Beta, ApiFields::Alpha];
            levels.into_iter().find(|level| level.as_str().eq_ignore_ascii_case(text))
        },
        "\"stable\", \"beta\" or \"alpha\"",
    );
    reader.flag("await-sidecar-readiness", &mut flags.await_sidecar_readiness);
    reader.flag("enable-provenance-in-status", &mut flags.enable_provenance_in_status);
    reader.flag("enable-param-enum", &mut flags.enable_param_enum);
    reader.flag("enable-cel-in-whenexpression", &mut flags.enable_cel_in_when_expression);
    reader.flag("enable-artifacts", &mut flags.enable_artifacts);
    reader.flag("enable-concise-resolver-syntax", &mut flags.enable_concise_resolver_syntax);
    reader.flag("set-security-context", &mut flags.set_security_context);
    reader.flag("disable-creds-init", &mut flags.disable_creds_init);
    reader.flag("require-git-ssh-secret-known-hosts", &mut flags.require_git_ssh_secret_known_hosts);
    // Upstream does not trim these.
    reader.list("disable-inline-spec", &mut flags.disable_inline_spec, |entry| entry);
    flags
}

pub(super) struct Reader<'a> {
    map: &'static str,
    data: &'a BTreeMap<String, String>,
    errors: Vec<ConfigError>,
}

impl<'a> Reader<'a> {
    /// The value of a key; an empty one is as good as none.
    fn value(&self, key: &str) -> Option<&'a str> {
        self.data.get(key).map(String::as_str).filter(|value| !value.trim().is_empty())
    }

    pub(super) fn set<T>(
        &mut self,
        key: &'static str,
        field: &mut T,
        parse: impl Fn(&str) -> Option<T>,
        expected: &str,
    ) {
        let Some(value) = self.value(key) else { return };
        match parse(value.trim()) {
            Some(parsed) => *field = parsed,
            None => self.refuse(key, value, expected.to_owned()),
        }
    }

    /// A value that nobody acts on.
    pub(super) fn check(&mut self, key: &'static str, is_right: impl Fn(&str) -> bool, expected: &str) {
        self.set(key, &mut (), |text| is_right(text).then_some(()), expected);
    }

    fn text(&mut self, key: &str, field: &mut String) {
        if let Some(value) = self.value(key) {
            value.clone_into(field);
        }
    }

    fn list(&mut self, key: &str, field: &mut Vec<String>, entry: impl Fn(&str) -> &str) {
        if let Some(value) = self.value(key) {
            *field =
                value.split(',').map(|text| entry(text).to_owned()).filter(|text| !text.is_empty()).collect();
        }
    }

    /// A boolean in any of Go's spellings.
    pub(super) fn flag(&mut self, key: &'static str, field: &mut bool) {
        let parse = |text: &str| match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
            _ => None,
        };
        self.set(key, field, parse, "\"true\" or \"false\"");
    }

    pub(super) fn yaml<T: DeserializeOwned>(&mut self, key: &'static str, field: &mut Option<T>) {
        let Some(value) = self.value(key) else { return };
        match serde_saphyr::from_str(value) {
            Ok(parsed) => *field = Some(parsed),
            Err(error) => self.refuse(key, value, format!("YAML of the right form ({error})")),
        }
    }

    /// What has the right form, and is wrong all the same.
    pub(super) fn refuse_value(&mut self, key: &'static str, expected: &str) {
        if let Some(value) = self.value(key) {
            self.refuse(key, value, expected.to_owned());
        }
    }

    fn refuse(&mut self, key: &'static str, value: &str, expected: String) {
        self.errors.push(ConfigError { map: self.map, key, value: value.to_owned(), expected });
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn nothing_given_is_the_default() {
        let empty = map(&[("default-service-account", ""), ("_example", "anything")]);
        assert_eq!(Config::from_config_maps(&empty, &map(&[]), &map(&[])), Ok(Config::default()));
    }

    #[test]
    fn a_negative_count_of_combinations_is_none() {
        let defaults = map(&[("default-max-matrix-combinations-count", "-1")]);
        let config = Config::from_config_maps(&defaults, &map(&[]), &map(&[])).unwrap();
        assert_eq!(config.defaults.max_matrix_combinations, 0);
    }

    #[test]
    fn every_key_is_read() {
        let defaults = map(&[
            ("default-timeout-minutes", "0"),
            ("default-service-account", "robot"),
            ("default-managed-by-label-value", "me"),
            ("default-pod-template", "nodeSelector:\n  disk: ssd\nhostNetwork: true\n"),
            ("default-forbidden-env", "PATH, HOME"),
            ("default-max-matrix-combinations-count", "8"),
            ("default-resolver-type", "git"),
        ]);
        let features = map(&[
            ("enable-api-fields", "Alpha"),
            ("await-sidecar-readiness", "False"),
            ("enable-provenance-in-status", "f"),
            ("enable-param-enum", "1"),
            ("enable-cel-in-whenexpression", "true"),
            ("enable-artifacts", "T"),
            ("enable-concise-resolver-syntax", "TRUE"),
            ("disable-inline-spec", "pipeline, taskrun"),
            ("set-security-context", "true"),
            ("disable-creds-init", "true"),
            ("require-git-ssh-secret-known-hosts", "true"),
        ]);
        let config = Config::from_config_maps(&defaults, &features, &map(&[])).unwrap();
        let Defaults { timeout, service_account, managed_by, pod_template, .. } = &config.defaults;
        assert_eq!(timeout, &GoDuration::ZERO);
        assert_eq!((service_account.as_str(), managed_by.as_str()), ("robot", "me"));
        let pod_template = pod_template.as_ref().unwrap();
        assert_eq!(pod_template.node_selector["disk"], "ssd");
        assert!(pod_template.host_network);
        assert_eq!(config.defaults.forbidden_env, ["PATH", "HOME"]);
        assert_eq!(config.defaults.max_matrix_combinations, 8);
        assert_eq!(config.defaults.resolver_type, "git");
        assert_eq!(
            config.features,
            FeatureFlags {
                enable_api_fields: ApiFields::Alpha,
                await_sidecar_readiness: false,
                enable_provenance_in_status: false,
                enable_param_enum: true,
                enable_cel_in_when_expression: true,
                enable_artifacts: true,
                enable_concise_resolver_syntax: true,
                disable_inline_spec: vec!["pipeline".to_owned(), " taskrun".to_owned()],
                set_security_context: true,
                disable_creds_init: true,
                require_git_ssh_secret_known_hosts: true,
            }
        );
    }

    #[rstest]
    #[case("default-timeout-minutes", "1h", "a whole number of minutes")]
    #[case("default-max-matrix-combinations-count", "many", "a whole number")]
    fn wrong_defaults(#[case] key: &str, #[case] value: &str, #[case] expected: &str) {
        let error = Config::from_config_maps(&map(&[(key, value)]), &map(&[]), &map(&[])).unwrap_err();
        let text = format!(
            "ConfigMap \"config-defaults\" has \"{value}\" for the key \"{key}\", expected {expected}"
        );
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn all_errors_are_reported() {
        let features = map(&[("enable-api-fields", "gamma"), ("enable-artifacts", "yes")]);
        let observability = map(&[("metrics.taskrun.level", "step")]);
        let error =
            Config::from_config_maps(&map(&[("default-pod-template", "a: [")]), &features, &observability)
                .unwrap_err();
        assert_eq!(
            error.0.iter().map(|error| error.key).collect::<Vec<_>>(),
            ["default-pod-template", "enable-api-fields", "enable-artifacts", "metrics.taskrun.level"]
        );
        assert_eq!(error.0[3].map, "config-observability");
    }

    #[test]
    fn metrics_have_the_levels_asked_for() {
        use crate::config::{DurationType, Observability, PipelineRunLevel, TaskRunLevel};

        let observability = map(&[
            ("metrics.taskrun.level", "taskrun"),
            ("metrics.taskrun.duration-type", "lastvalue"),
            ("metrics.pipelinerun.level", "namespace"),
            ("metrics.pipelinerun.duration-type", "lastvalue"),
            ("metrics.running-pipelinerun.level", "pipelinerun"),
            ("metrics.count.enable-reason", "true"),
            ("metrics.taskrun.throttle.enable-namespace", "true"),
            ("metrics-protocol", "prometheus"),
        ]);
        let config = Config::from_config_maps(&map(&[]), &map(&[]), &observability).unwrap();
        assert_eq!(
            config.observability,
            Observability {
                taskrun_level: TaskRunLevel::TaskRun,
                taskrun_duration: DurationType::LastValue,
                pipelinerun_level: PipelineRunLevel::Namespace,
                pipelinerun_duration: DurationType::LastValue,
                running_pipelinerun_level: Some(PipelineRunLevel::PipelineRun),
                reason: true,
                throttle_namespace: true,
            }
        );
    }
}

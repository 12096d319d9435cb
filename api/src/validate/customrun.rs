//! CustomRun (contract 2.6). It has no rule for updates: its spec stays open to change.

use super::{FieldError, FieldErrors, Validated, common};
use crate::config::Config;
use crate::{CustomRun, CustomRunSpec};

impl Validated for CustomRun {
    /// Unlike for all other kinds, only the first thing wrong.
    fn validate(&self, _config: &Config) -> FieldErrors {
        let metadata = self.validate_metadata();
        if !metadata.is_empty() {
            return metadata;
        }
        let CustomRunSpec { params, workspaces, .. } = &self.spec;
        let rules = [
            subject(&self.spec),
            status(&self.spec),
            common::unique_params(params),
            common::workspace_bindings(workspaces),
        ];
        rules.into_iter().find(|errors| !errors.is_empty()).unwrap_or_default().via_field("spec")
    }
}

fn subject(spec: &CustomRunSpec) -> FieldErrors {
    let (field, api_version, kind) = match (&spec.custom_ref, &spec.custom_spec) {
        (Some(_), Some(_)) => return FieldError::both(&["customRef", "customSpec"]).into(),
        (None, None) => return FieldError::neither(&["customRef", "customSpec"]).into(),
        (Some(custom_ref), None) => ("customRef", &custom_ref.api_version, &custom_ref.kind),
        (None, Some(custom_spec)) => ("customSpec", &custom_spec.api_version, &custom_spec.kind),
    };
    for (text, part) in [(api_version, "apiVersion"), (kind, "kind")] {
        if text.is_empty() {
            return FieldErrors::from(FieldError::missing(&[part])).via_field(field);
        }
    }
    FieldErrors::default()
}

fn status(spec: &CustomRunSpec) -> FieldErrors {
    if !spec.status.is_empty() || spec.status_message.is_empty() {
        return FieldErrors::default();
    }
    let message = &spec.status_message;
    FieldError::invalid(
        format!("statusMessage should not be set if status is not set, but it is currently set to {message}"),
        "statusMessage",
    )
    .into()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    #[rstest]
    #[case(json!({"customRef": {"apiVersion": "a/v1", "kind": "K"}}), "")]
    #[case(json!({"customSpec": {"apiVersion": "a/v1", "kind": "K"}, "status": "anything", "statusMessage": "x"}), "")]
    #[case(json!({}), "expected exactly one, got neither: spec.customRef, spec.customSpec")]
    #[case(json!({"customRef": {}, "customSpec": {}}), "expected exactly one, got both: spec.customRef, spec.customSpec")]
    #[case(json!({"customRef": {"name": "n"}}), "missing field(s): spec.customRef.apiVersion")]
    #[case(json!({"customSpec": {"apiVersion": "a/v1"}, "statusMessage": "x"}), "missing field(s): spec.customSpec.kind")]
    #[case(
        json!({"customRef": {"apiVersion": "a/v1", "kind": "K"}, "statusMessage": "x", "params": [{"name": "a"}, {"name": "a"}]}),
        "invalid value: statusMessage should not be set if status is not set, but it is currently set to x: spec.statusMessage"
    )]
    #[case(
        json!({"customRef": {"apiVersion": "a/v1", "kind": "K"}, "params": [{"name": "a"}, {"name": "A"}]}),
        "expected exactly one, got both: spec.params[A].name"
    )]
    fn only_the_first_thing_wrong_is_named(#[case] spec: Value, #[case] text: &str) {
        let run: CustomRun = serde_json::from_value(
            json!({"apiVersion": "tekton.dev/v1beta1", "kind": "CustomRun", "metadata": {"name": "r"}, "spec": spec}),
        )
        .unwrap();
        assert_eq!(run.validate(&Config::default()).to_string(), text);
    }
}

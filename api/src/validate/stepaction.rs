//! StepAction (contract 2.6).

use k8s_openapi::api::core::v1::VolumeMount;

use super::usage::{self, Around, Pool};
use super::{FieldError, FieldErrors, Validated, common, params};
use crate::config::{ApiFields, Config};
use crate::{ParamType, Step, StepAction, StepActionSpec, variables};

impl Validated for StepAction {
    fn validate(&self, config: &Config) -> FieldErrors {
        let mut errors = self.validate_metadata();
        errors.also(spec(&self.spec, config).via_field("spec"));
        errors
    }
}

/// Paths from the spec on.
fn spec(spec: &StepActionSpec, config: &Config) -> FieldErrors {
    let mut errors = FieldErrors::default();
    if spec.image.is_empty() {
        errors.push(FieldError::missing(&["Image"]));
    }
    if !(spec.script.is_empty() || spec.command.is_empty()) {
        errors.push(FieldError::new("script cannot be used with command", &["script"]));
    }
    if spec.script.contains("$(params") {
        errors.push(FieldError::new("param substitution in scripts is not allowed.", &["script"]));
    }
    if spec.script.trim_start().starts_with("#!win") {
        errors.also(common::gate("windows script support", ApiFields::Alpha, config, "script"));
    }
    errors.also(params::of_a_step_action(&spec.params));
    errors.also(params::step_results(&spec.results));
    errors.also(usage::step_action_variables(&as_step(spec), &Pool::new(&spec.params, Around::Nothing)));
    errors.also(volume_mounts(spec));
    errors
}

/// The step this becomes, as far as its variables are looked at: upstream leaves out the working directory and where
/// volumes are mounted. Params in the script are refused above, whatever they name.
fn as_step(spec: &StepActionSpec) -> Step {
    let script = if spec.script.contains("$(params") { String::new() } else { spec.script.clone() };
    let mounts = spec.volume_mounts.iter();
    Step {
        image: spec.image.clone(),
        command: spec.command.clone(),
        args: spec.args.clone(),
        env: spec.env.clone(),
        script,
        results: spec.results.clone(),
        volume_mounts: mounts
            .map(|mount| VolumeMount { name: mount.name.clone(), ..VolumeMount::default() })
            .collect(),
        ..Step::default()
    }
}

/// Which volume is mounted is for the Task to say, through a param.
fn volume_mounts(spec: &StepActionSpec) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for (index, mount) in spec.volume_mounts.iter().enumerate() {
        let path = format!("volumeMounts[{index}].name");
        let reference = variables::whole(&mount.name).and_then(|variable| {
            let used = usage::param_reference(&variable)?.used;
            used.key.is_none().then_some(used.name)
        });
        let Some(name) = reference else {
            errors.push(
                FieldError::invalid(&mount.name, &path)
                    .detail("expect the Name to be a single param reference"),
            );
            continue;
        };
        let declared = spec.params.iter().find(|param| param.name == name);
        if declared.is_some_and(|param| param.value_type() != ParamType::String) {
            errors.push(FieldError::invalid(&mount.name, &path).detail("the param must be of type string"));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    #[rstest]
    #[case(json!({"image": "i", "script": "x"}), "")]
    #[case(
        json!({"image": "i", "params": [{"name": "v"}], "args": ["$(params.v)"], "volumeMounts": [{"name": "$(params.v)", "mountPath": "/v"}]}),
        ""
    )]
    #[case(json!({}), "missing field(s): spec.Image")]
    #[case(json!({"image": "i", "script": "x", "command": ["y"]}), "script cannot be used with command: spec.script")]
    #[case(json!({"image": "i", "script": "$(params.x)"}), "param substitution in scripts is not allowed.: spec.script")]
    #[case(json!({"image": "i", "args": ["$(params.no)"]}), "non-existent variable in \"$(params.no)\": spec.args[0]")]
    #[case(
        json!({"image": "i", "script": "$(step.results.no.path)", "results": [{"name": "r"}]}),
        "non-existent variable in \"$(step.results.no.path)\": spec.script"
    )]
    #[case(
        json!({"image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}),
        "invalid value: v: spec.volumeMounts[0].name\nexpect the Name to be a single param reference"
    )]
    #[case(
        json!({"image": "i", "params": [{"name": "a", "type": "weird"}]}),
        "invalid value: weird: spec.params.a.type"
    )]
    fn rules(#[case] spec: Value, #[case] text: &str) {
        let action: StepAction = serde_json::from_value(
            json!({"apiVersion": "tekton.dev/v1beta1", "kind": "StepAction", "metadata": {"name": "a"}, "spec": spec}),
        )
        .unwrap();
        assert_eq!(action.validate(&Config::default()).to_string(), text);
    }
}

//! Declared params and results: names, types, defaults, enums (contract 2.2).

use std::collections::{BTreeMap, BTreeSet};

use super::names::{is_dns_label, is_param_name, is_result_name, label_detail};
use super::{FieldError, FieldErrors};
use crate::config::Config;
use crate::{ParamSpec, ParamType, ParamValue, PropertySpec, StepResult, TaskResult, references};

/// The declared params of a Task, with paths from `params` on.
pub(super) fn of_a_task(params: &[ParamSpec], config: &Config) -> FieldErrors {
    let mut errors = of_a_step_action(params);
    errors.also(allowed(params, config));
    errors
}

/// The declared params of a StepAction, with paths from `params` on. Upstream does not look at what they allow.
pub(super) fn of_a_step_action(params: &[ParamSpec]) -> FieldErrors {
    let mut errors = shapes(params);
    errors.also(without_properties(params));
    errors.also(names(params));
    errors
}

/// The declared params of a Pipeline, with paths from `params` on. Upstream takes any name here, and asks for the
/// properties of objects only where steps use them.
pub(super) fn of_a_pipeline(params: &[ParamSpec], with_steps: bool, config: &Config) -> FieldErrors {
    let mut errors = shapes(params);
    if with_steps {
        errors.also(without_properties(params));
    }
    errors.also(allowed(params, config));
    errors
}

fn shapes(params: &[ParamSpec]) -> FieldErrors {
    let mut errors = FieldErrors::default();
    let mut seen = BTreeSet::new();
    for param in params {
        errors.also(types(param).via_field("params"));
        if !seen.insert(param.name.as_str()) {
            errors.push(FieldError::new(
                "parameter appears more than once",
                &[&format!("params[{}]", param.name)],
            ));
        }
    }
    errors
}

fn without_properties(params: &[ParamSpec]) -> FieldErrors {
    params
        .iter()
        .filter(|param| param.value_type() == ParamType::Object && param.properties.is_empty())
        .map(|param| FieldError::missing(&[&format!("params.{}.properties", param.name)]))
        .collect()
}

fn allowed(params: &[ParamSpec], config: &Config) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for param in params {
        errors.also(allowed_values(param, config).via_key("params", &param.name));
    }
    errors
}

fn types(param: &ParamSpec) -> FieldErrors {
    let (name, mut errors) = (&param.name, FieldErrors::default());
    let declared = param.param_type.as_deref().unwrap_or("string");
    if !is_type(declared) {
        errors.push(FieldError::invalid(declared, &format!("{name}.type")));
        return errors;
    }
    if let Some(default) = param.default.as_ref().filter(|default| default.kind().as_str() != declared) {
        errors.push(FieldError::new(
            format!("\"{declared}\" type does not match default value's type: \"{}\"", default.kind()),
            &[&format!("{name}.type"), &format!("{name}.default.type")],
        ));
    }
    errors.also(property_types(name, &param.properties));
    errors
}

fn property_types(name: &str, properties: &BTreeMap<String, PropertySpec>) -> FieldErrors {
    let wrong: Vec<&str> = properties
        .iter()
        .filter(|(_, property)| property.property_type.as_deref().is_some_and(|text| text != "string"))
        .map(|(key, _)| key.as_str())
        .collect();
    if wrong.is_empty() {
        return FieldErrors::default();
    }
    FieldError::invalid(
        format!(
            "The value type specified for these keys [{}] is invalid, the type must be string",
            wrong.join(" ")
        ),
        &format!("{name}.properties"),
    )
    .into()
}

fn is_type(text: &str) -> bool {
    [ParamType::String, ParamType::Array, ParamType::Object].iter().any(|known| known.as_str() == text)
}

fn names(params: &[ParamSpec]) -> FieldErrors {
    let (mut plain, mut objects) = (Vec::new(), Vec::new());
    for param in params {
        if param.value_type() == ParamType::Object {
            let names = std::iter::once(&param.name).chain(param.properties.keys());
            objects.extend(names.map(String::as_str).filter(|name| !is_param_name(name, false)));
        } else if !is_param_name(&param.name, true) {
            plain.push(param.name.as_str());
        }
    }
    let mut errors = FieldErrors::default();
    if !plain.is_empty() {
        errors.push(
            FieldError::new(
                format!(
                    "The format of following array and string variable names is invalid: [{}]",
                    plain.join(" ")
                ),
                &["params"],
            )
            .detail(
                "String/Array Names: must only contain alphanumeric characters, hyphens (-), underscores (_), and \
                 dots (.), and must begin with a letter or an underscore (_)",
            ),
        );
    }
    if !objects.is_empty() {
        errors.push(
            FieldError::new(
                format!(
                    "The format of following object variable and key names is invalid: [{}]",
                    objects.join(" ")
                ),
                &["params"],
            )
            .detail(
                "Object Names: must only contain alphanumeric characters, hyphens (-) and underscores (_), and \
                 must begin with a letter or an underscore (_)",
            ),
        );
    }
    errors
}

fn allowed_values(param: &ParamSpec, config: &Config) -> FieldErrors {
    let mut errors = FieldErrors::default();
    if param.allowed.is_empty() {
        return errors;
    }
    let mut error = |text: String| errors.push(FieldError::new(text, &[""]));
    if !config.features.enable_param_enum {
        error("feature flag `enable-param-enum` should be set to true to use Enum".to_owned());
    }
    if param.value_type() != ParamType::String {
        error("enum can only be set with string type param".to_owned());
    }
    let mut seen = BTreeSet::new();
    for value in param.allowed.iter().filter(|value| !seen.insert(value.as_str())) {
        error(format!("parameter enum value {value} appears more than once"));
    }
    if let Some(ParamValue::String(default)) = &param.default
        && !param.allowed.contains(default)
    {
        error(format!("param default value {default} not in the enum list"));
    }
    errors
}

/// The declared results of a Task, with paths from `results` on.
pub(super) fn task_results(results: &[TaskResult]) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for (index, result) in results.iter().enumerate() {
        let TaskResult { name, result_type, properties, value, .. } = result;
        let mut own = result_rules(name, result_type.as_deref(), properties);
        if let Some(value) = value {
            own.also(result_value(name, value));
        }
        errors.also(own.via_index("results", index));
    }
    errors
}

/// The declared results of a step or StepAction, with paths from `results` on.
pub(super) fn step_results(results: &[StepResult]) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for (index, result) in results.iter().enumerate() {
        let StepResult { name, result_type, properties, .. } = result;
        errors.also(result_rules(name, result_type.as_deref(), properties).via_index("results", index));
    }
    errors
}

fn result_rules(name: &str, declared: Option<&str>, keys: &BTreeMap<String, PropertySpec>) -> FieldErrors {
    let mut errors = FieldErrors::default();
    if !is_result_name(name) {
        errors.push(
            FieldError::new(format!("invalid key name \"{name}\""), &["name"])
                .detail(result_name_detail("Name")),
        );
    }
    match declared {
        Some("object") if keys.is_empty() => {
            errors.push(FieldError::missing(&[&format!("{name}.properties")]));
        }
        Some("object") => errors.also(property_types(name, keys)),
        Some(text) if !text.is_empty() && !is_type(text) => {
            errors
                .push(FieldError::invalid(text, "type").detail("type must be one of string, array, object"));
        }
        _ => {}
    }
    errors
}

fn result_value(name: &str, value: &ParamValue) -> FieldErrors {
    let ParamValue::String(text) = value else {
        return FieldError::new(
            format!("Invalid Type. Wanted string but got: \"{}\"", value.kind()),
            &[&format!("{name}.type")],
        )
        .into();
    };
    let path = format!("{name}.value");
    if text.is_empty() {
        return FieldErrors::default();
    }
    let Some((step, result)) = references::step_result(text) else {
        return FieldError::new(
            format!(
                "Could not extract step name and result name. Expected value to look like \
                 $(steps.<stepName>.results.<resultName>) but got \"{text}\""
            ),
            &[&path],
        )
        .into();
    };
    let mut errors = FieldErrors::default();
    if !is_dns_label(step) {
        errors.push(
            FieldError::new(format!("invalid extracted step name \"{step}\""), &[&path])
                .detail(label_detail("stepName in $(steps.<stepName>.results.<resultName>)")),
        );
    }
    if !is_result_name(result) {
        errors.push(
            FieldError::new(format!("invalid extracted result name \"{result}\""), &[&path])
                .detail(result_name_detail("resultName in $(steps.<stepName>.results.<resultName>)")),
        );
    }
    errors
}

fn result_name_detail(what: &str) -> String {
    format!(
        "{what} must consist of alphanumeric characters, '-', '_', and must start and end with an alphanumeric \
         character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
         '^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$')"
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    #[rstest]
    #[case(json!([{"name": "a", "type": "string"}, {"name": "b.c", "type": "array", "default": []}]), "")]
    #[case(json!([{"name": "a", "type": "int"}]), "invalid value: int: params.a.type")]
    #[case(
        json!([{"name": "a", "type": "array", "default": "x"}]),
        "\"array\" type does not match default value's type: \"string\": params.a.default.type, params.a.type"
    )]
    #[case(json!([{"name": "a", "type": "object"}]), "missing field(s): params.a.properties")]
    #[case(
        json!([{"name": "a", "type": "object", "properties": {"k": {"type": "array"}, "l": {}}}]),
        "invalid value: The value type specified for these keys [k] is invalid, the type must be string: \
         params.a.properties"
    )]
    #[case(
        json!([{"name": "a"}, {"name": "A"}, {"name": "a"}]),
        "parameter appears more than once: params[a]"
    )]
    #[case(
        json!([{"name": "a", "enum": ["x"]}]),
        "feature flag `enable-param-enum` should be set to true to use Enum: params[a]"
    )]
    fn declared_params(#[case] params: Value, #[case] text: &str) {
        let params: Vec<ParamSpec> = serde_json::from_value(params).unwrap();
        assert_eq!(of_a_task(&params, &Config::default()).to_string(), text);
    }

    #[rstest]
    #[case("1a", json!({}), "The format of following array and string variable names is invalid: [1a]: params")]
    #[case("a.b", json!({"k": {}}), "The format of following object variable and key names is invalid: [a.b]: params")]
    #[case("a", json!({"k.l": {}}), "The format of following object variable and key names is invalid: [k.l]: params")]
    fn names_of_params(#[case] name: &str, #[case] properties: Value, #[case] text: &str) {
        let params: Vec<ParamSpec> =
            serde_json::from_value(json!([{"name": name, "properties": properties}])).unwrap();
        let rendered = names(&params).to_string();
        assert_eq!(rendered.lines().next(), Some(text));
    }

    #[rstest]
    #[case(json!({"name": "a", "enum": ["x", "y"], "default": "y"}), "")]
    #[case(json!({"name": "a", "enum": ["x", "x"]}), "parameter enum value x appears more than once: ")]
    #[case(json!({"name": "a", "enum": ["x"], "default": "y"}), "param default value y not in the enum list: ")]
    #[case(json!({"name": "a", "enum": ["x"], "type": "array"}), "enum can only be set with string type param: ")]
    fn enums(#[case] param: Value, #[case] text: &str) {
        let mut config = Config::default();
        config.features.enable_param_enum = true;
        assert_eq!(allowed_values(&serde_json::from_value(param).unwrap(), &config).to_string(), text);
    }

    #[rstest]
    #[case(json!({"name": "a.b-c", "type": "string"}), "")]
    #[case(json!({"name": "a", "value": "$(steps.s.results.r)"}), "")]
    #[case(json!({"name": "a", "type": "object"}), "missing field(s): results[0].a.properties")]
    #[case(json!({"name": "a", "type": "int"}), "invalid value: int: results[0].type\ntype must be one of string, array, object")]
    #[case(json!({"name": "a", "value": ["x"]}), "Invalid Type. Wanted string but got: \"array\": results[0].a.type")]
    #[case(
        json!({"name": "a", "value": "x"}),
        "Could not extract step name and result name. Expected value to look like \
         $(steps.<stepName>.results.<resultName>) but got \"x\": results[0].a.value"
    )]
    fn declared_results(#[case] result: Value, #[case] text: &str) {
        assert_eq!(task_results(&[serde_json::from_value(result).unwrap()]).to_string(), text);
    }

    #[test]
    fn a_result_name_is_checked() {
        let results: Vec<StepResult> = serde_json::from_value(json!([{"name": "_a"}])).unwrap();
        let rendered = step_results(&results).to_string();
        assert_eq!(rendered.lines().next(), Some("invalid key name \"_a\": results[0].name"));
    }
}

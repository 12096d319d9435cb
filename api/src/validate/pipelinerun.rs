//! PipelineRun (contract 2.4), and what may change in one (contract 12.1).

use std::collections::BTreeMap;

use super::pipeline::Within;
use super::{FieldError, FieldErrors, Validated, common, pipeline, update};
use crate::config::Config;
use crate::defaults::Defaulted;
use crate::{
    GoDuration, PipelineRun, PipelineRunSpec, PipelineTaskRunSpec, conditions, pipelinerun_spec_status,
    references,
};

const STATUSES: [&str; 4] = [
    pipelinerun_spec_status::CANCELLED,
    pipelinerun_spec_status::CANCELLED_RUN_FINALLY,
    pipelinerun_spec_status::STOPPED_RUN_FINALLY,
    pipelinerun_spec_status::PENDING,
];

impl Validated for PipelineRun {
    fn validate(&self, config: &Config) -> FieldErrors {
        let mut errors = self.validate_metadata();
        errors.also(spec(&self.spec, config).via_field("spec"));
        errors
    }

    fn validate_update(&self, old: &Self, config: &Config) -> FieldErrors {
        let (new, old_spec) = (&self.spec, &old.spec);
        let mut errors = FieldErrors::default();
        let started = old.status.as_ref().is_some_and(|status| status.start_time.is_some());
        if new.status == pipelinerun_spec_status::PENDING && started {
            let text = "PipelineRun cannot be Pending after it is started";
            errors.push(FieldError::invalid(text, "spec.status"));
        }
        let done = old.status.as_ref().is_some_and(|status| conditions::is_done(&status.conditions));
        let spec = update::Change {
            managed_by: (old_spec.managed_by.as_deref(), new.managed_by.as_deref()),
            same: |free: bool| {
                let mut before = old_spec.clone();
                before.managed_by.clone_from(&new.managed_by);
                if free {
                    before.status.clone_from(&new.status);
                }
                let mut defaulted = before.clone();
                defaulted.set_defaults(config);
                update::is_same_spec(&before, new) || update::is_same_spec(&defaulted, new)
            },
        };
        errors.also(spec.validate(done, "PipelineRun", "status").via_field("spec"));
        errors
    }
}

/// Paths from the spec on.
fn spec(spec: &PipelineRunSpec, config: &Config) -> FieldErrors {
    let mut errors = FieldErrors::default();
    match (&spec.pipeline_ref, &spec.pipeline_spec) {
        (Some(_), Some(_)) => errors.push(FieldError::both(&["pipelineRef", "pipelineSpec"])),
        (None, None) => errors.push(FieldError::neither(&["pipelineRef", "pipelineSpec"])),
        _ => {}
    }
    if let Some(pipeline_ref) = &spec.pipeline_ref {
        let reference = common::Reference {
            name: &pipeline_ref.name,
            resolver: &pipeline_ref.resolver,
            params: &pipeline_ref.params,
            variables: false,
        };
        errors.also(reference.validate(config).via_field("pipelineRef"));
    }
    if let Some(pipeline_spec) = &spec.pipeline_spec {
        if config.features.disable_inline_spec.iter().any(|kind| kind == "pipelinerun") {
            errors.push(FieldError::disallowed(&["pipelineSpec"]));
        }
        errors.also(
            pipeline::pipeline_spec(pipeline_spec, Within::Run(spec), config).via_field("pipelineSpec"),
        );
    }
    if !(spec.status.is_empty() || STATUSES.contains(&spec.status.as_str())) {
        let [a, b, c, d] = STATUSES;
        errors.push(FieldError::invalid(format!("{} should be {a}, {b}, {c} or {d}", spec.status), "status"));
    }
    errors.also(params(spec));
    errors.also(timeouts(spec, config));
    errors.also(workspaces(spec));
    let template = spec.task_run_template.pod_template.as_ref();
    errors.also(common::forbidden_env(template, config, "taskRunTemplate.PodTemplate.Env"));
    for (index, task_run_spec) in spec.task_run_specs.iter().enumerate() {
        errors.also(self::task_run_spec(task_run_spec, spec, config).via_index("taskRunSpecs", index));
    }
    errors
}

fn params(spec: &PipelineRunSpec) -> FieldErrors {
    let mut errors = common::unique_params(&spec.params);
    for param in &spec.params {
        let found = references::in_value(&param.value);
        if !found.is_empty() {
            let keys: Vec<&str> = found.iter().map(references::ResultRef::key).collect();
            errors.push(FieldError::invalid(
                format!(
                    "cannot use result expressions in [{}] as PipelineRun parameter values",
                    keys.join(" ")
                ),
                &format!("params[{}].value", param.name),
            ));
        }
    }
    errors
}

fn timeouts(spec: &PipelineRunSpec, config: &Config) -> FieldErrors {
    let Some(timeouts) = &spec.timeouts else { return FieldErrors::default() };
    let mut errors = common::not_negative(timeouts.pipeline, "timeouts.pipeline");
    let pipeline = timeouts.pipeline.unwrap_or(config.defaults.timeout);
    for (part, path) in [(timeouts.tasks, "timeouts.tasks"), (timeouts.finally, "timeouts.finally")] {
        errors.also(common::not_negative(part, path));
        let Some(part) = part.filter(|_| !pipeline.is_zero()) else { continue };
        if part.is_zero() {
            let text = "0s (no timeout) should be <= pipeline duration";
            errors.push(FieldError::invalid(text, path));
        } else if part > pipeline {
            errors.push(FieldError::invalid(format!("{part} should be <= pipeline duration"), path));
        }
    }
    if let (Some(tasks), Some(finally)) = (timeouts.tasks, timeouts.finally)
        && tasks.as_nanos().saturating_add(finally.as_nanos()) > pipeline.as_nanos()
    {
        let text = format!("{tasks} + {finally} should be <= pipeline duration");
        errors.push(FieldError::invalid(&text, "timeouts.tasks"));
        errors.push(FieldError::invalid(&text, "timeouts.finally"));
    }
    errors
}

fn workspaces(spec: &PipelineRunSpec) -> FieldErrors {
    let mut errors = FieldErrors::default();
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, binding) in spec.workspaces.iter().enumerate() {
        let name = &binding.name;
        if let Some(first) = first.get(name.as_str()) {
            errors.push(FieldError::new(
                format!(
                    "workspace \"{name}\" provided by pipelinerun more than once, at index {first} and {index}"
                ),
                &[&format!("workspaces[{index}].name")],
            ));
        }
        first.entry(name).or_insert(index);
        errors.also(common::workspace_binding(binding).via_index("workspaces", index));
    }
    errors
}

fn task_run_spec(spec: &PipelineTaskRunSpec, run: &PipelineRunSpec, config: &Config) -> FieldErrors {
    let whole = spec.compute_resources.is_some();
    let mut errors = common::overrides(&spec.step_specs, &spec.sidecar_specs, whole, config);
    errors.also(common::forbidden_env(spec.pod_template.as_ref(), config, "PodTemplate.Env"));
    errors.also(common::not_negative(spec.timeout, "timeout"));
    let timeouts = run.timeouts.as_ref();
    let default = config.defaults.timeout;
    let (limit, what) = match (timeouts.and_then(|t| t.tasks), timeouts.and_then(|t| t.pipeline)) {
        (Some(tasks), _) => (tasks, "pipeline tasks duration".to_owned()),
        (None, Some(pipeline)) => (pipeline, "pipeline duration".to_owned()),
        (None, None) => (default, format!("default pipeline duration {default}")),
    };
    if let Some(timeout) = spec.timeout.filter(|timeout| limit > GoDuration::ZERO && *timeout > limit) {
        errors.push(FieldError::invalid(format!("{timeout} should be <= {what}"), "timeout"));
    }
    errors
}

#[cfg(test)]
mod tests;

//! TaskRun (contract 2.5), and what may change in one (contract 12.1).

use std::collections::BTreeSet;

use super::usage::{Around, Pool};
use super::{FieldError, FieldErrors, Validated, common, task, update};
use crate::config::{ApiFields, Config};
use crate::defaults::Defaulted;
use crate::{TaskBreakpoints, TaskRun, TaskRunSpec, conditions, taskrun_spec_status};

impl Validated for TaskRun {
    fn validate(&self, config: &Config) -> FieldErrors {
        let mut errors = self.validate_metadata();
        errors.also(spec(&self.spec, config).via_field("spec"));
        errors
    }

    fn validate_update(&self, old: &Self, config: &Config) -> FieldErrors {
        let (new, old_spec) = (&self.spec, &old.spec);
        let mut errors = FieldErrors::default();
        let started = old.status.as_ref().is_some_and(|status| status.start_time.is_some());
        if new.status == taskrun_spec_status::PENDING && started {
            errors.push(FieldError::invalid("TaskRun cannot be Pending after it is started", "spec.status"));
        }
        let done = old.status.as_ref().is_some_and(|status| conditions::is_done(&status.conditions));
        let spec = update::Change {
            managed_by: (old_spec.managed_by.as_deref(), new.managed_by.as_deref()),
            same: |free: bool| {
                let mut before = old_spec.clone();
                before.managed_by.clone_from(&new.managed_by);
                if free {
                    before.status.clone_from(&new.status);
                    before.status_message.clone_from(&new.status_message);
                }
                let mut defaulted = before.clone();
                defaulted.set_defaults(config);
                update::is_same_spec(&before, new) || update::is_same_spec(&defaulted, new)
            },
        };
        errors.also(spec.validate(done, "TaskRun", "status and statusMessage").via_field("spec"));
        errors
    }
}

/// Paths from the spec on.
fn spec(spec: &TaskRunSpec, config: &Config) -> FieldErrors {
    let mut errors = FieldErrors::default();
    match (&spec.task_ref, &spec.task_spec) {
        (Some(_), Some(_)) => errors.push(FieldError::both(&["taskRef", "taskSpec"])),
        (None, None) => errors.push(FieldError::neither(&["taskRef", "taskSpec"])),
        _ => {}
    }
    if let Some(task_ref) = &spec.task_ref {
        let reference = common::Reference {
            name: &task_ref.name,
            resolver: &task_ref.resolver,
            params: &task_ref.params,
            variables: false,
        };
        errors.also(reference.validate(config).via_field("taskRef"));
    }
    if let Some(task_spec) = &spec.task_spec {
        if config.features.disable_inline_spec.iter().any(|kind| kind == "taskrun") {
            errors.push(FieldError::disallowed(&["taskSpec"]));
        }
        let pool = Pool::new(&task_spec.params, Around::Nothing).given(&spec.params);
        errors.also(task::task_spec(task_spec, &pool, config).via_field("taskSpec"));
    }
    errors.also(common::unique_params(&spec.params));
    errors.also(common::workspace_bindings(&spec.workspaces));
    errors.also(status(spec));
    if spec.retries < 0 {
        errors.push(FieldError::invalid(format!("{} must be >=0", spec.retries), "retries"));
    }
    errors.also(common::not_negative(spec.timeout, "timeout"));
    errors.also(common::forbidden_env(spec.pod_template.as_ref(), config, "PodTemplate.Env"));
    if let Some(debug) = &spec.debug {
        errors.also(common::gate("debug", ApiFields::Alpha, config, "debug"));
        if let Some(breakpoints) = &debug.breakpoints {
            errors.also(self::breakpoints(breakpoints).via_field("debug.breakpoints"));
        }
    }
    let whole = spec.compute_resources.is_some();
    errors.also(common::overrides(&spec.step_specs, &spec.sidecar_specs, whole, config));
    errors
}

fn status(spec: &TaskRunSpec) -> FieldErrors {
    let mut errors = FieldErrors::default();
    let statuses = [taskrun_spec_status::CANCELLED, taskrun_spec_status::PENDING];
    if spec.status.is_empty() {
        if !spec.status_message.is_empty() {
            errors.push(FieldError::invalid(
                format!(
                    "statusMessage should not be set if status is not set, but it is currently set to {}",
                    spec.status_message
                ),
                "statusMessage",
            ));
        }
    } else if !statuses.contains(&spec.status.as_str()) {
        let text = format!("{} should be {}", spec.status, statuses.join(" or "));
        errors.push(FieldError::invalid(text, "status"));
    }
    errors
}

fn breakpoints(breakpoints: &TaskBreakpoints) -> FieldErrors {
    let mut errors = FieldErrors::default();
    // Required even when only `beforeSteps` is set.
    if breakpoints.on_failure != "enabled" {
        errors.push(FieldError::invalid(
            format!(
                "{} is not a valid onFailure breakpoint value, onFailure breakpoint is only allowed to be set as enabled",
                breakpoints.on_failure
            ),
            "onFailure",
        ));
    }
    let mut seen = BTreeSet::new();
    for (index, step) in breakpoints.before_steps.iter().enumerate() {
        if !seen.insert(step) {
            errors.push(FieldError::new(
                format!("before step must be unique, the same step: {step} is defined multiple times at"),
                &[&format!("beforeSteps[{index}]")],
            ));
        }
    }
    errors
}

#[cfg(test)]
mod tests;

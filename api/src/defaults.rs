//! Defaulting, as the mutating webhook does it (contract 3.3). Pure and idempotent: what is set stays as it is.
//!
//! [`Defaulted`] holds at every write. [`label_new`] is for creation only: the labels and annotations of the engine are
//! set then, so that no later write is needed for them.

use std::collections::BTreeMap;

use kube::ResourceExt;
use ropewalk_entrypoint_protocol::value::ParamType;

use crate::config::{Config, Defaults};
use crate::validate::is_label_value;
use crate::{
    CustomRun, ParamSpec, Pipeline, PipelineRef, PipelineRun, PipelineRunSpec, PipelineSpec, PipelineTask,
    PodTemplate, PropertySpec, ResolutionRequest, StepAction, StepResult, Task, TaskRef, TaskResult, TaskRun,
    TaskRunSpec, TaskSpec, TimeoutFields, VerificationPolicy, labels,
};

/// A kind with fields that are filled in.
pub trait Defaulted {
    /// Fills in what is absent; doing it twice changes nothing more.
    fn set_defaults(&mut self, config: &Config);
}

impl Defaulted for Task {
    fn set_defaults(&mut self, config: &Config) {
        self.spec.set_defaults(config);
    }
}

impl Defaulted for TaskSpec {
    fn set_defaults(&mut self, config: &Config) {
        self.params.iter_mut().for_each(default_param);
        self.results.iter_mut().for_each(default_task_result);
        for step_ref in self.steps.iter_mut().filter_map(|step| step.step_ref.as_mut()) {
            default_resolver(&step_ref.name, &mut step_ref.resolver, config);
        }
    }
}

impl Defaulted for TaskRun {
    fn set_defaults(&mut self, config: &Config) {
        if !config.defaults.managed_by.is_empty() {
            self.labels_mut()
                .entry(labels::MANAGED_BY.to_owned())
                .or_insert_with(|| config.defaults.managed_by.clone());
        }
        self.spec.set_defaults(config);
    }
}

impl Defaulted for TaskRunSpec {
    fn set_defaults(&mut self, config: &Config) {
        if let Some(task_ref) = &mut self.task_ref {
            default_task_ref(task_ref, config);
        }
        if let Some(task_spec) = &mut self.task_spec {
            task_spec.set_defaults(config);
        }
        self.timeout.get_or_insert(config.defaults.timeout);
        default_service_account(&mut self.service_account_name, &config.defaults);
        default_pod_template(&mut self.pod_template, &config.defaults);
    }
}

impl Defaulted for Pipeline {
    fn set_defaults(&mut self, config: &Config) {
        self.spec.set_defaults(config);
    }
}

impl Defaulted for PipelineSpec {
    fn set_defaults(&mut self, config: &Config) {
        self.params.iter_mut().for_each(default_param);
        for task in self.tasks.iter_mut().chain(&mut self.finally) {
            task.set_defaults(config);
        }
    }
}

impl Defaulted for PipelineTask {
    fn set_defaults(&mut self, config: &Config) {
        if let Some(task_ref) = &mut self.task_ref {
            default_task_ref(task_ref, config);
        }
        if let Some(embedded) = &mut self.task_spec {
            embedded.task_spec.set_defaults(config);
        }
    }
}

impl Defaulted for PipelineRun {
    fn set_defaults(&mut self, config: &Config) {
        self.spec.set_defaults(config);
    }
}

impl Defaulted for PipelineRunSpec {
    fn set_defaults(&mut self, config: &Config) {
        if let Some(PipelineRef { name, resolver, .. }) = &mut self.pipeline_ref {
            default_resolver(name, resolver, config);
        }
        if let Some(pipeline_spec) = &mut self.pipeline_spec {
            pipeline_spec.set_defaults(config);
        }
        self.timeouts
            .get_or_insert_with(TimeoutFields::default)
            .pipeline
            .get_or_insert(config.defaults.timeout);
        default_service_account(&mut self.task_run_template.service_account_name, &config.defaults);
        default_pod_template(&mut self.task_run_template.pod_template, &config.defaults);
    }
}

impl Defaulted for StepAction {
    fn set_defaults(&mut self, _: &Config) {
        self.spec.params.iter_mut().for_each(default_param);
        self.spec.results.iter_mut().for_each(default_step_action_result);
    }
}

impl Defaulted for CustomRun {
    fn set_defaults(&mut self, config: &Config) {
        default_service_account(&mut self.spec.service_account_name, &config.defaults);
    }
}

impl Defaulted for VerificationPolicy {
    /// What is absent says what it stands for.
    fn set_defaults(&mut self, _: &Config) {}
}

impl Defaulted for ResolutionRequest {
    /// Nothing is left out but what does not matter.
    fn set_defaults(&mut self, _: &Config) {}
}

/// What the engine writes on a new object, besides defaults.
pub trait New {
    /// Sets the engine's labels and annotations; `release` is the release of the engine. Only runs get any.
    fn label_new(&mut self, _release: &str) {}
}

impl New for Task {}
impl New for Pipeline {}
impl New for StepAction {}
impl New for CustomRun {}
impl New for VerificationPolicy {}
impl New for ResolutionRequest {}

impl New for TaskRun {
    fn label_new(&mut self, release: &str) {
        note_release(self.annotations_mut(), release);
        let task = self.spec.task_ref.as_ref().filter(|task_ref| task_ref.resolver.is_empty());
        // A label may not be all that a reference may: `example.dev/task` is a name, and the run would be refused for it.
        if let Some(name) = task.map(|task_ref| task_ref.name.clone()).filter(|name| is_label_value(name)) {
            self.labels_mut().entry(labels::TASK.to_owned()).or_insert(name);
        }
    }
}

impl New for PipelineRun {
    fn label_new(&mut self, release: &str) {
        note_release(self.annotations_mut(), release);
        let name = pipeline_label(self);
        if is_label_value(&name) {
            self.labels_mut().entry(labels::PIPELINE.to_owned()).or_insert(name);
        }
    }
}

/// The value of `tekton.dev/pipeline` while the Pipeline itself is not known yet (contract 7.9). Empty for a run that
/// has neither a name nor a prefix of one.
fn pipeline_label(run: &PipelineRun) -> String {
    let own_name = || match &run.metadata.name {
        Some(name) if !name.is_empty() => name.clone(),
        _ => prefix(run),
    };
    match &run.spec.pipeline_ref {
        Some(reference) if reference.resolver.is_empty() => reference.name.clone(),
        Some(reference) => {
            let text = |name: &str| {
                let param = reference.params.iter().find(|param| param.name == name)?;
                param.value.as_str().map(str::to_owned)
            };
            match (text("kind").as_deref(), text("name")) {
                (Some("pipeline"), Some(name)) => name,
                _ => own_name(),
            }
        }
        None if run.metadata.generate_name.as_deref().is_some_and(|name| !name.is_empty()) => prefix(run),
        None => own_name(),
    }
}

fn prefix(run: &PipelineRun) -> String {
    let prefix = run.metadata.generate_name.as_deref().unwrap_or_default();
    prefix.strip_suffix('-').unwrap_or(prefix).to_owned()
}

/// Chains signs finished runs and says so in annotations; a new run that brings them would pass for signed.
fn note_release(annotations: &mut BTreeMap<String, String>, release: &str) {
    annotations.retain(|key, _| !key.starts_with(labels::CHAINS_PREFIX));
    if !release.is_empty() {
        annotations.insert(labels::RELEASE.to_owned(), release.to_owned());
    }
}

fn default_task_ref(task_ref: &mut TaskRef, config: &Config) {
    default_resolver(&task_ref.name, &mut task_ref.resolver, config);
    if task_ref.kind.is_empty() && task_ref.resolver.is_empty() {
        "Task".clone_into(&mut task_ref.kind);
    }
}

fn default_resolver(name: &str, resolver: &mut String, config: &Config) {
    if name.is_empty() && resolver.is_empty() {
        resolver.clone_from(&config.defaults.resolver_type);
    }
}

fn default_service_account(name: &mut String, defaults: &Defaults) {
    if name.is_empty() {
        name.clone_from(&defaults.service_account);
    }
}

fn default_param(param: &mut ParamSpec) {
    default_properties(&mut param.properties);
    if is_unset(param.param_type.as_ref()) {
        param.param_type = Some(param.value_type().to_string());
    }
}

fn default_task_result(result: &mut TaskResult) {
    default_properties(&mut result.properties);
    if is_unset(result.result_type.as_ref()) {
        result.result_type = Some(result.value_type().to_string());
    }
}

/// Only a StepAction's results: those of an inline step take the type of what is written (contract 5.6).
fn default_step_action_result(result: &mut StepResult) {
    default_properties(&mut result.properties);
    if is_unset(result.result_type.as_ref()) {
        let inferred = if result.properties.is_empty() { ParamType::String } else { ParamType::Object };
        result.result_type = Some(inferred.to_string());
    }
}

fn default_properties(properties: &mut BTreeMap<String, PropertySpec>) {
    for property in properties.values_mut().filter(|property| is_unset(property.property_type.as_ref())) {
        property.property_type = Some(ParamType::String.to_string());
    }
}

fn is_unset(text: Option<&String>) -> bool {
    text.is_none_or(String::is_empty)
}

fn default_pod_template(given: &mut Option<PodTemplate>, defaults: &Defaults) {
    if let Some(default) = &defaults.pod_template {
        *given = Some(merge_pod_templates(given.take().unwrap_or_default(), default));
    }
}

/// `given` over `default` (contract 1.1): `env` and `volumes` are merged by name, `hostNetwork` is ORed, any other field
/// takes the default only when it is unset.
pub fn merge_pod_templates(given: PodTemplate, default: &PodTemplate) -> PodTemplate {
    fn or<T: Clone + Default + PartialEq>(given: T, default: &T) -> T {
        if given == T::default() { default.clone() } else { given }
    }
    fn by_name<T: Clone>(mut given: Vec<T>, default: &[T], name: impl Fn(&T) -> &str) -> Vec<T> {
        let missing: Vec<T> = default
            .iter()
            .filter(|item| !given.iter().any(|mine| name(mine) == name(item)))
            .cloned()
            .collect();
        given.extend(missing);
        given
    }
    PodTemplate {
        node_selector: or(given.node_selector, &default.node_selector),
        env: by_name(given.env, &default.env, |env| &env.name),
        tolerations: or(given.tolerations, &default.tolerations),
        affinity: or(given.affinity, &default.affinity),
        security_context: or(given.security_context, &default.security_context),
        volumes: by_name(given.volumes, &default.volumes, |volume| &volume.name),
        runtime_class_name: or(given.runtime_class_name, &default.runtime_class_name),
        automount_service_account_token: or(
            given.automount_service_account_token,
            &default.automount_service_account_token,
        ),
        dns_policy: or(given.dns_policy, &default.dns_policy),
        dns_config: or(given.dns_config, &default.dns_config),
        enable_service_links: or(given.enable_service_links, &default.enable_service_links),
        priority_class_name: or(given.priority_class_name, &default.priority_class_name),
        scheduler_name: or(given.scheduler_name, &default.scheduler_name),
        image_pull_secrets: or(given.image_pull_secrets, &default.image_pull_secrets),
        host_aliases: or(given.host_aliases, &default.host_aliases),
        host_network: given.host_network || default.host_network,
        host_users: or(given.host_users, &default.host_users),
        topology_spread_constraints: or(
            given.topology_spread_constraints,
            &default.topology_spread_constraints,
        ),
    }
}

#[cfg(test)]
mod tests;

//! Step containers: the template merged in, the command wrapped by the entrypoint (contract 1.2, 5.3, 5.4).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, EnvVar, ResourceRequirements, SecurityContext, VolumeMount};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use ropewalk_api::config::Config;
use ropewalk_api::{Step, StepTemplate, TaskRun, TaskSpec};
use ropewalk_entrypoint_protocol::flags::{Credential, OnError, StepFlags};
use ropewalk_entrypoint_protocol::paths;
use serde_json::Value;

use super::scripts::Placed;
use super::sidecar::some;
use super::workspaces::Mounted;
use super::{PodError, STEP_PREFIX, resources, step_containers, volumes};
use crate::credentials::Credentials;
use crate::images::{Image, Lookup, PLATFORM_COMMANDS};
use crate::settings::Settings;
use crate::taskrun::resolve::Resolved;

type Quantities = BTreeMap<String, Quantity>;

/// What a step's container depends on besides the step.
pub(super) struct Inputs<'a> {
    pub(super) run: &'a TaskRun,
    pub(super) task: &'a Resolved,
    pub(super) config: &'a Config,
    pub(super) settings: &'a Settings,
    pub(super) mounted: &'a Mounted,
    pub(super) scripts: &'a Placed,
    /// None where `disable-creds-init` is set.
    pub(super) credentials: Option<&'a Credentials>,
    /// All steps as [`merged`] leaves them.
    pub(super) steps: &'a [Step],
    /// The first step waits until the controller says that the sidecars are ready.
    pub(super) wait_for_ready: bool,
}

/// The steps with their template beneath them.
pub(super) fn merged(task: &Resolved, mounted: &Mounted) -> Vec<Step> {
    let mut template = task.spec.step_template.as_deref().cloned().unwrap_or_default();
    template.volume_mounts.extend(mounted.shared.iter().cloned());
    task.spec.steps.iter().map(|step| merge(&template, step)).collect()
}

/// The containers of all steps, in order.
pub(super) fn containers(inputs: &Inputs<'_>) -> Result<Vec<Container>, PodError> {
    let names = step_containers(inputs.steps);
    inputs.steps.iter().enumerate().map(|(index, step)| container(inputs, &names, index, step)).collect()
}

fn container(
    inputs: &Inputs<'_>,
    names: &[String],
    index: usize,
    step: &Step,
) -> Result<Container, PodError> {
    let name = names[index].clone();
    let own = own_command(inputs, step, &name)?;
    let mut env = step.env.clone();
    env.extend(own.map(|image| EnvVar {
        name: PLATFORM_COMMANDS.to_owned(),
        value: Some(image.commands.render(!step.args.is_empty())),
        value_from: None,
    }));
    if let Some(template) = &inputs.task.pod_template {
        let forbidden = &inputs.config.defaults.forbidden_env;
        env.extend(template.env.iter().filter(|variable| !forbidden.contains(&variable.name)).cloned());
    }
    let mounts = mounts(inputs, index, step, names.len());
    let mut flags = flags(inputs, index, step, &name)?;
    let mut working_dir = absolute_working_dir(&step.working_dir);
    if inputs.settings.image_volumes {
        flags.steps = names.to_vec();
        flags.script = inputs.scripts.of_step(index).cloned();
        // The runtime would make it too, but as root and for root.
        if let Some(dir) = working_dir.take_if(|dir| volumes::in_workspace(&mounts, dir)) {
            working_dir = Some(paths::WORKSPACE.to_owned());
            flags.working_dir = Some(dir);
        }
        // Earlier steps may use the directories of later ones.
        if index == 0 {
            let mut dirs = working_dirs(inputs.steps);
            dirs.retain(|dir| volumes::in_workspace(&mounts, dir) && Some(dir) != flags.working_dir.as_ref());
            flags.make_dirs = dirs.iter().map(|dir| literal(dir)).collect();
        }
        flags.working_dir = flags.working_dir.map(|dir| literal(&dir));
    }
    Ok(Container {
        image: Some(own.map_or_else(|| step.image.clone(), |image| image.reference.clone())),
        command: Some(vec![paths::ENTRYPOINT.to_owned()]),
        args: Some(flags.render()),
        working_dir,
        env_from: some(step.env_from.clone()),
        env: some(env),
        resources: resources::of_step(inputs.run, step, names.len()),
        volume_mounts: Some(mounts),
        volume_devices: some(step.volume_devices.clone()),
        image_pull_policy: step.image_pull_policy.clone(),
        security_context: step.security_context.as_deref().cloned(),
        termination_message_path: Some(paths::TERMINATION.to_owned()),
        name,
        ..Container::default()
    })
}

/// An argument of which kubelets make `text`: they replace `$(X)` in arguments, as they do not in working directories.
pub(super) fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

/// The working directories below `/workspace`, where nobody else makes them (contract 5.2).
pub(super) fn working_dirs(steps: &[Step]) -> BTreeSet<String> {
    let below = |dir: &String| dir.strip_prefix(paths::WORKSPACE).is_some_and(|rest| rest.starts_with('/'));
    steps.iter().filter_map(|step| absolute_working_dir(&step.working_dir)).filter(below).collect()
}

/// The images whose own command is run, because their steps have neither command nor script.
pub(crate) fn bare_images(spec: &TaskSpec) -> BTreeSet<String> {
    let template = spec.step_template.as_deref().cloned().unwrap_or_default();
    let steps = spec.steps.iter().map(|step| merge(&template, step));
    steps.filter(is_bare).map(|step| step.image).collect()
}

fn is_bare(step: &Step) -> bool {
    step.command.is_empty() && step.script.is_empty()
}

/// The image of a step that runs the command of its image.
fn own_command<'a>(
    inputs: &'a Inputs<'_>,
    step: &Step,
    container: &str,
) -> Result<Option<&'a Image>, PodError> {
    if !is_bare(step) {
        return Ok(None);
    }
    let shown = container.strip_prefix(STEP_PREFIX).unwrap_or(container).to_owned();
    match inputs.task.images.get(&step.image) {
        Some(Lookup::Found(image)) => Ok(Some(image)),
        Some(Lookup::Failed(cause)) => {
            Err(PodError::Image { step: shown, image: step.image.clone(), cause: cause.clone() })
        }
        Some(Lookup::Pending { .. }) | None => Err(PodError::NoCommand(shown)),
    }
}

/// A working directory, cleaned; a relative one is beneath `/workspace`. None when the image decides.
fn absolute_working_dir(dir: &str) -> Option<String> {
    if dir.is_empty() {
        return None;
    }
    let path = if dir.starts_with('/') { dir.to_owned() } else { format!("{}/{dir}", paths::WORKSPACE) };
    Some(clean(&path))
}

/// A path without empty and dot parts.
pub(super) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    format!("/{}", parts.join("/"))
}

fn mounts(inputs: &Inputs<'_>, index: usize, step: &Step, steps: usize) -> Vec<VolumeMount> {
    let mut mounts = step.volume_mounts.clone();
    mounts.extend(inputs.mounted.steps[index].iter().cloned());
    if inputs.scripts.of_step(index).is_some() {
        mounts.push(volumes::of_script(index, inputs.settings));
    }
    mounts.extend(volumes::of_step(index, steps, inputs.credentials));
    for implicit in volumes::implicit(index, inputs.credentials, inputs.settings) {
        // Somebody who mounts a volume of their own at /workspace means it.
        if mounts.iter().all(|own| clean(&own.mount_path) != implicit.mount_path) {
            mounts.push(implicit);
        }
    }
    mounts
}

fn flags(inputs: &Inputs<'_>, index: usize, step: &Step, container: &str) -> Result<StepFlags, PodError> {
    let spec = &inputs.task.spec;
    let shown = container.strip_prefix(STEP_PREFIX).unwrap_or(container);
    let (entrypoint, args) = match (inputs.scripts.of_step(index), step.command.split_first()) {
        (Some(script), _) => (Some(script.path.clone()), step.args.clone()),
        (None, Some((program, rest))) => {
            (Some(program.clone()), rest.iter().chain(&step.args).cloned().collect())
        }
        (None, None) => (None, step.args.clone()),
    };
    let wait_files = match index.checked_sub(1) {
        Some(previous) => vec![paths::run_out(previous)],
        None if inputs.wait_for_ready => vec![paths::DOWNWARD_READY.to_owned()],
        None => Vec::new(),
    };
    let on_error = match step.on_error.as_str() {
        "" => None,
        "continue" => Some(OnError::Continue),
        "stopAndFail" => Some(OnError::StopAndFail),
        other => {
            return Err(PodError::OnError { step: shown.to_owned(), value: other.to_owned() });
        }
    };
    let credentials = inputs.credentials.map(|credentials| credentials.flags.clone()).unwrap_or_default();
    let stream = |config: &Option<ropewalk_api::StepOutputConfig>| {
        config.as_ref().and_then(|config| config.path.clone()).filter(|path| !path.is_empty())
    };
    Ok(StepFlags {
        wait_files,
        wait_file_content: index == 0 && inputs.wait_for_ready,
        post_file: paths::run_out(index),
        termination_path: paths::TERMINATION.to_owned(),
        step_metadata_dir: paths::status_dir(index),
        credentials: credentials.into_iter().map(|it| Credential { url: literal(&it.url), ..it }).collect(),
        on_error,
        timeout: step.timeout.filter(|timeout| !timeout.is_zero()),
        stdout_path: stream(&step.stdout_config),
        stderr_path: stream(&step.stderr_config),
        step_results: step.results.iter().map(|result| result.name.clone()).collect(),
        when_expressions: step.when.clone(),
        results: (!spec.results.is_empty()).then(|| {
            spec.results
                .iter()
                .filter(|result| result.value.is_none())
                .map(|result| result.name.clone())
                .collect()
        }),
        entrypoint,
        args,
        ..StepFlags::default()
    })
}

/// A step with its template beneath it, by the rules of Kubernetes' strategic merge: what the step sets wins, lists
/// with a key are merged by it, other lists are replaced.
fn merge(template: &StepTemplate, step: &Step) -> Step {
    let text = |own: &String, base: &String| if own.is_empty() { base.clone() } else { own.clone() };
    Step {
        image: text(&step.image, &template.image),
        // A script is a command: the template's command is not its argument.
        command: if step.script.is_empty() { list(&step.command, &template.command) } else { Vec::new() },
        args: list(&step.args, &template.args),
        working_dir: text(&step.working_dir, &template.working_dir),
        env_from: list(&step.env_from, &template.env_from),
        env: by_key(&step.env, &template.env, |variable: &EnvVar| &variable.name),
        compute_resources: resources_over(
            step.compute_resources.as_ref(),
            template.compute_resources.as_ref(),
        ),
        volume_mounts: by_key(&step.volume_mounts, &template.volume_mounts, |mount| &mount.mount_path),
        volume_devices: by_key(&step.volume_devices, &template.volume_devices, |device| &device.device_path),
        image_pull_policy: step.image_pull_policy.clone().or_else(|| template.image_pull_policy.clone()),
        security_context: security_over(
            step.security_context.as_deref(),
            template.security_context.as_deref(),
        )
        .map(Box::new),
        ..step.clone()
    }
}

fn list<T: Clone>(own: &[T], base: &[T]) -> Vec<T> {
    if own.is_empty() { base.to_vec() } else { own.to_vec() }
}

fn by_key<T: Clone>(own: &[T], base: &[T], key: impl Fn(&T) -> &String) -> Vec<T> {
    let replaced = base.iter().map(|item| own.iter().find(|mine| key(mine) == key(item)).unwrap_or(item));
    let added = own.iter().filter(|item| base.iter().all(|theirs| key(theirs) != key(item)));
    replaced.chain(added).cloned().collect()
}

fn resources_over(
    own: Option<&ResourceRequirements>,
    base: Option<&ResourceRequirements>,
) -> Option<ResourceRequirements> {
    let (Some(own), Some(base)) = (own, base) else { return own.or(base).cloned() };
    let map = |own: &Option<Quantities>, base: &Option<Quantities>| {
        let mut merged = base.clone().unwrap_or_default();
        merged.extend(own.clone().unwrap_or_default());
        (!merged.is_empty()).then_some(merged)
    };
    Some(ResourceRequirements {
        claims: own.claims.clone().or_else(|| base.claims.clone()),
        limits: map(&own.limits, &base.limits),
        requests: map(&own.requests, &base.requests),
    })
}

fn security_over(own: Option<&SecurityContext>, base: Option<&SecurityContext>) -> Option<SecurityContext> {
    let (Some(own), Some(base)) = (own, base) else { return own.or(base).cloned() };
    let mut merged = serde_json::to_value(base).unwrap_or_default();
    overlay(&mut merged, serde_json::to_value(own).unwrap_or_default());
    serde_json::from_value(merged).ok().or_else(|| Some(own.clone()))
}

fn overlay(base: &mut Value, own: Value) {
    match (base, own) {
        (Value::Object(base), Value::Object(own)) => {
            for (key, value) in own {
                overlay(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, own) => *base = own,
    }
}

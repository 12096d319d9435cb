//! Compute resources of steps and sidecars (contract 5.10; LimitRanges are the API server's).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use ropewalk_api::{Sidecar, Step, TaskRun};

use super::quantity::{amount, share};

type Quantities = BTreeMap<String, Quantity>;

/// The resources of one of `steps` steps: its part of the run's own, else its own with the run's `stepSpecs` over them.
pub(super) fn of_step(run: &TaskRun, step: &Step, steps: usize) -> Option<ResourceRequirements> {
    if let Some(task) = &run.spec.compute_resources {
        return Some(split(task, steps));
    }
    let over = run.spec.step_specs.iter().find(|spec| spec.name == step.name);
    merge(step.compute_resources.as_ref(), over.map(|spec| &spec.compute_resources))
}

/// The resources of a sidecar, with the run's `sidecarSpecs` over them.
pub(super) fn of_sidecar(run: &TaskRun, sidecar: &Sidecar) -> Option<ResourceRequirements> {
    let over = run.spec.sidecar_specs.iter().find(|spec| spec.name == sidecar.name);
    merge(sidecar.compute_resources.as_ref(), over.map(|spec| &spec.compute_resources))
}

/// Requests are shared out, because steps hold theirs all at once; a limit holds for whichever step is running.
fn split(task: &ResourceRequirements, steps: usize) -> ResourceRequirements {
    let limits = task.limits.clone().unwrap_or_default();
    let mut requests = limits.clone();
    requests.extend(task.requests.clone().unwrap_or_default());
    for (name, quantity) in &mut requests {
        *quantity = share(name, quantity, steps);
    }
    ResourceRequirements { claims: task.claims.clone(), limits: some(limits), requests: some(requests) }
}

fn merge(
    own: Option<&ResourceRequirements>,
    over: Option<&ResourceRequirements>,
) -> Option<ResourceRequirements> {
    let (Some(own), Some(over)) = (own, over) else { return over.or(own).cloned() };
    let map = |own: &Option<Quantities>, over: &Option<Quantities>| {
        let mut merged = own.clone().unwrap_or_default();
        merged.extend(over.clone().unwrap_or_default());
        some(merged)
    };
    Some(ResourceRequirements {
        claims: over.claims.clone().or_else(|| own.claims.clone()),
        limits: map(&own.limits, &over.limits),
        requests: map(&own.requests, &over.requests),
    })
}

fn some(quantities: Quantities) -> Option<Quantities> {
    (!quantities.is_empty()).then_some(quantities)
}

/// What is wrong with a pod's resources: the first request that is above its limit.
pub fn check(pod: &Pod) -> Result<(), String> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    for resources in containers.filter_map(|container| container.resources.as_ref()) {
        let (Some(requests), Some(limits)) = (&resources.requests, &resources.limits) else { continue };
        for (name, request) in requests {
            let Some(limit) = limits.get(name) else { continue };
            if amount(request) > amount(limit) {
                return Err(format!(
                    "invalid request resource value: {} must be less or equal to limit {}",
                    request.0, limit.0
                ));
            }
        }
    }
    Ok(())
}

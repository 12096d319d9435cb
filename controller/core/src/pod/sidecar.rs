//! Sidecar containers (contract 5.7).

use k8s_openapi::api::core::v1::Container;
use ropewalk_api::names::MAX_NAME;
use ropewalk_api::{Sidecar, TaskRun, TaskSpec};
use ropewalk_entrypoint_protocol::flags::ScriptFlags;
use ropewalk_entrypoint_protocol::paths;

use super::scripts::Placed;
use super::workspaces::Mounted;
use super::{SIDECAR_PREFIX, resources, volumes};
use crate::settings::Settings;

/// The containers of a Task's sidecars, in order.
pub(super) fn containers(
    run: &TaskRun,
    spec: &TaskSpec,
    mounted: &Mounted,
    scripts: &Placed,
    settings: &Settings,
) -> Vec<Container> {
    spec.sidecars
        .iter()
        .enumerate()
        .map(|(index, sidecar)| {
            let mut container = container(sidecar, container_name(&sidecar.name, index));
            container.resources = resources::of_sidecar(run, sidecar);
            let mut mounts = sidecar.volume_mounts.clone();
            for mount in mounted.shared.iter().chain(&mounted.sidecars[index]) {
                if mounts.iter().all(|own| own.mount_path != mount.mount_path) {
                    mounts.push(mount.clone());
                }
            }
            if let Some(script) = scripts.of_sidecar(index) {
                mounts.push(volumes::of_sidecar_script(index, settings));
                if settings.image_volumes {
                    let args = sidecar.args.clone();
                    let flags = ScriptFlags { script: script.clone(), root: None, args };
                    container.command = Some(vec![paths::ENTRYPOINT.to_owned()]);
                    container.args = Some(flags.render());
                    mounts.push(volumes::of_bin());
                } else {
                    container.command = Some(vec![script.path.clone()]);
                }
            }
            container.volume_mounts = some(mounts);
            container
        })
        .collect()
}

/// `sidecar-<name>`; a sidecar need not have a name, but its container must.
fn container_name(name: &str, index: usize) -> String {
    let name = if name.is_empty() {
        format!("{SIDECAR_PREFIX}unnamed-{index}")
    } else {
        format!("{SIDECAR_PREFIX}{name}")
    };
    let cut: String = name.chars().take(MAX_NAME).collect();
    cut.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

fn container(sidecar: &Sidecar, name: String) -> Container {
    let path = &sidecar.termination_message_path;
    Container {
        name,
        image: Some(sidecar.image.clone()),
        command: some(sidecar.command.clone()),
        args: some(sidecar.args.clone()),
        working_dir: (!sidecar.working_dir.is_empty()).then(|| sidecar.working_dir.clone()),
        ports: some(sidecar.ports.clone()),
        env_from: some(sidecar.env_from.clone()),
        env: some(sidecar.env.clone()),
        volume_devices: some(sidecar.volume_devices.clone()),
        liveness_probe: sidecar.liveness_probe.as_deref().cloned(),
        readiness_probe: sidecar.readiness_probe.as_deref().cloned(),
        startup_probe: sidecar.startup_probe.as_deref().cloned(),
        lifecycle: sidecar.lifecycle.as_deref().cloned(),
        termination_message_path: (!path.is_empty()).then(|| path.clone()),
        termination_message_policy: sidecar.termination_message_policy.clone(),
        image_pull_policy: sidecar.image_pull_policy.clone(),
        security_context: sidecar.security_context.as_deref().cloned(),
        stdin: sidecar.stdin.then_some(true),
        stdin_once: sidecar.stdin_once.then_some(true),
        tty: sidecar.tty.then_some(true),
        ..Container::default()
    }
}

pub(super) fn some<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}

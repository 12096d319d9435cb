//! The volumes every pod has, and who mounts them (contract 5.3).

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, DownwardAPIVolumeSource, EmptyDirVolumeSource, ImageVolumeSource,
    ObjectFieldSelector, Volume, VolumeMount,
};
use ropewalk_api::labels;
use ropewalk_entrypoint_protocol::paths;

use super::scripts::Placed;
use super::step::clean;
use crate::credentials::Credentials;
use crate::settings::Settings;

const WORKSPACE: &str = "tekton-internal-workspace";
const HOME: &str = "tekton-internal-home";
const RESULTS: &str = "tekton-internal-results";
const STEPS: &str = "tekton-internal-steps";
const ARTIFACTS: &str = "tekton-internal-artifacts";
const SCRIPTS: &str = "tekton-internal-scripts";
const SIDECAR_SCRIPTS: &str = "tekton-internal-sidecar-scripts";
const BIN: &str = "tekton-internal-bin";
const DOWNWARD: &str = "tekton-internal-downward";

/// A volume of one container alone: what it writes there no other can change.
fn own(kind: &str, index: usize) -> String {
    format!("{kind}-{index}")
}

fn run_volume(index: usize) -> String {
    own("tekton-internal-run", index)
}

fn creds_volume(index: usize) -> String {
    own("tekton-creds-init-home", index)
}

/// The engine's own volumes, in the contract's order; those of the Task follow.
///
/// Where each container makes its links and its script itself, it does so in volumes of its own: in a common one a step
/// could change what a later one runs or believes.
pub(super) fn of_pod(
    steps: usize,
    scripts: &Placed,
    credentials: Option<&Credentials>,
    settings: &Settings,
) -> Vec<Volume> {
    let mut volumes: Vec<Volume> = [WORKSPACE, HOME, RESULTS].map(empty_dir).into();
    let secrets = credentials.map(|credentials| credentials.volumes.clone()).unwrap_or_default();
    if settings.image_volumes {
        volumes.push(empty_dir(ARTIFACTS));
        volumes.extend(secrets);
        volumes.push(image(BIN, &settings.entrypoint_image));
    } else {
        volumes.extend([STEPS, ARTIFACTS].map(empty_dir));
        volumes.extend(secrets);
        if !scripts.is_empty() {
            volumes.push(empty_dir(SCRIPTS));
        }
        volumes.push(empty_dir(BIN));
    }
    volumes.push(downward());
    for index in 0..steps {
        volumes.extend(credentials.map(|_| memory(&creds_volume(index))));
        volumes.push(empty_dir(&run_volume(index)));
        if settings.image_volumes {
            volumes.push(empty_dir(&own(STEPS, index)));
            if scripts.of_step(index).is_some() {
                volumes.push(empty_dir(&own(SCRIPTS, index)));
            }
        }
    }
    if settings.image_volumes {
        volumes.extend(scripts.sidecars().map(|index| empty_dir(&own(SIDECAR_SCRIPTS, index))));
    }
    volumes
}

/// Mounts of the step at `index` that precede the implicit ones: downward, credentials, run directories.
pub(super) fn of_step(index: usize, steps: usize, credentials: Option<&Credentials>) -> Vec<VolumeMount> {
    let mut mounts = Vec::new();
    if index == 0 {
        mounts.push(read_only(DOWNWARD, paths::DOWNWARD));
    }
    mounts.extend(credentials.map(|_| mount(&creds_volume(index), paths::CREDS)));
    for other in 0..steps {
        let (name, path) = (run_volume(other), paths::run_dir(other));
        mounts.push(if other == index { mount(&name, &path) } else { read_only(&name, &path) });
    }
    mounts
}

/// Mounts the step at `index` gets unless it has something else at the same path.
pub(super) fn implicit(
    index: usize,
    credentials: Option<&Credentials>,
    settings: &Settings,
) -> Vec<VolumeMount> {
    let mut mounts = vec![
        of_bin(),
        mount(WORKSPACE, paths::WORKSPACE),
        mount(HOME, paths::HOME),
        mount(RESULTS, paths::RESULTS),
        if settings.image_volumes {
            mount(&own(STEPS, index), paths::STEPS)
        } else {
            read_only(STEPS, paths::STEPS)
        },
        mount(ARTIFACTS, paths::ARTIFACTS),
    ];
    mounts.extend(credentials.iter().flat_map(|credentials| credentials.mounts.iter().cloned()));
    mounts
}

/// Whether a directory lies beneath the workspace every pod has, for a container with these mounts, and in no volume of
/// the user's.
pub(super) fn in_workspace(mounts: &[VolumeMount], dir: &str) -> bool {
    let around = |(path, _): &(String, &VolumeMount)| {
        dir.strip_prefix(path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let all = mounts.iter().map(|mount| (clean(&mount.mount_path), mount)).filter(around);
    let deepest = all.max_by_key(|(path, _)| path.len());
    deepest.is_some_and(|(path, mount)| mount.name == WORKSPACE && path != dir)
}

/// The mount of the entrypoint.
pub(super) fn of_bin() -> VolumeMount {
    read_only(BIN, paths::BIN)
}

/// The mount of the step at `index`, which runs a script.
pub(super) fn of_script(index: usize, settings: &Settings) -> VolumeMount {
    if settings.image_volumes {
        mount(&own(SCRIPTS, index), paths::SCRIPTS)
    } else {
        read_only(SCRIPTS, paths::SCRIPTS)
    }
}

/// The mount of the sidecar at `index`, which runs a script.
pub(super) fn of_sidecar_script(index: usize, settings: &Settings) -> VolumeMount {
    if settings.image_volumes {
        mount(&own(SIDECAR_SCRIPTS, index), paths::SCRIPTS)
    } else {
        read_only(SCRIPTS, paths::SCRIPTS)
    }
}

/// Mounts of the init container: only what it writes to.
pub(super) fn of_prepare(scripts: bool, working_dirs: bool) -> Vec<VolumeMount> {
    let mut mounts = vec![mount(BIN, paths::BIN), mount(STEPS, paths::STEPS)];
    if scripts {
        mounts.push(mount(SCRIPTS, paths::SCRIPTS));
    }
    if working_dirs {
        mounts.push(mount(WORKSPACE, paths::WORKSPACE));
    }
    mounts
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}

fn read_only(name: &str, path: &str) -> VolumeMount {
    VolumeMount { read_only: Some(true), ..mount(name, path) }
}

fn empty_dir(name: &str) -> Volume {
    Volume { name: name.to_owned(), empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() }
}

fn image(name: &str, reference: &str) -> Volume {
    let source = ImageVolumeSource { reference: Some(reference.to_owned()), ..ImageVolumeSource::default() };
    Volume { name: name.to_owned(), image: Some(source), ..Volume::default() }
}

/// Credentials are never written to a disk.
fn memory(name: &str) -> Volume {
    let source =
        EmptyDirVolumeSource { medium: Some("Memory".to_owned()), ..EmptyDirVolumeSource::default() };
    Volume { name: name.to_owned(), empty_dir: Some(source), ..Volume::default() }
}

fn downward() -> Volume {
    let ready = DownwardAPIVolumeFile {
        path: "ready".to_owned(),
        field_ref: Some(ObjectFieldSelector {
            field_path: format!("metadata.annotations['{}']", labels::READY),
            ..ObjectFieldSelector::default()
        }),
        ..DownwardAPIVolumeFile::default()
    };
    Volume {
        name: DOWNWARD.to_owned(),
        downward_api: Some(DownwardAPIVolumeSource {
            items: Some(vec![ready]),
            ..DownwardAPIVolumeSource::default()
        }),
        ..Volume::default()
    }
}

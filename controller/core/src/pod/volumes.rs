//! The volumes every pod has, and who mounts them (contract 5.3).

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, DownwardAPIVolumeSource, EmptyDirVolumeSource, ObjectFieldSelector, Volume,
    VolumeMount,
};
use ropewalk_api::labels;
use ropewalk_entrypoint_protocol::paths;

const WORKSPACE: &str = "tekton-internal-workspace";
const HOME: &str = "tekton-internal-home";
const RESULTS: &str = "tekton-internal-results";
const STEPS: &str = "tekton-internal-steps";
const ARTIFACTS: &str = "tekton-internal-artifacts";
const SCRIPTS: &str = "tekton-internal-scripts";
const BIN: &str = "tekton-internal-bin";
const DOWNWARD: &str = "tekton-internal-downward";

fn run_volume(index: usize) -> String {
    format!("tekton-internal-run-{index}")
}

fn creds_volume(index: usize) -> String {
    format!("tekton-creds-init-home-{index}")
}

/// The engine's own volumes, in the contract's order; those of the Task follow.
pub(super) fn of_pod(steps: usize, scripts: bool) -> Vec<Volume> {
    let mut volumes: Vec<Volume> = [WORKSPACE, HOME, RESULTS, STEPS, ARTIFACTS].map(empty_dir).into();
    if scripts {
        volumes.push(empty_dir(SCRIPTS));
    }
    volumes.push(empty_dir(BIN));
    volumes.push(downward());
    for index in 0..steps {
        volumes.push(memory(&creds_volume(index)));
        volumes.push(empty_dir(&run_volume(index)));
    }
    volumes
}

/// Mounts of the step at `index` that precede the implicit ones: downward, credentials, run directories.
pub(super) fn of_step(index: usize, steps: usize) -> Vec<VolumeMount> {
    let mut mounts = Vec::new();
    if index == 0 {
        mounts.push(read_only(DOWNWARD, paths::DOWNWARD));
    }
    mounts.push(mount(&creds_volume(index), paths::CREDS));
    for other in 0..steps {
        let (name, path) = (run_volume(other), paths::run_dir(other));
        mounts.push(if other == index { mount(&name, &path) } else { read_only(&name, &path) });
    }
    mounts
}

/// Mounts every step gets unless it has something else at the same path.
pub(super) fn implicit() -> Vec<VolumeMount> {
    vec![
        read_only(BIN, paths::BIN),
        mount(WORKSPACE, paths::WORKSPACE),
        mount(HOME, paths::HOME),
        mount(RESULTS, paths::RESULTS),
        read_only(STEPS, paths::STEPS),
        mount(ARTIFACTS, paths::ARTIFACTS),
    ]
}

/// The mount of a container that runs a script.
pub(super) fn of_script() -> VolumeMount {
    read_only(SCRIPTS, paths::SCRIPTS)
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

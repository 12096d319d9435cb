//! Workspaces as volumes and mounts (contract 5.9).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use ropewalk_api::names::short_hash;
use ropewalk_api::{TaskRun, WorkspaceBinding, WorkspaceDeclaration, WorkspaceUsage};
use sha2::{Digest, Sha256};

use crate::taskrun::resolve::Resolved;

/// What the bound workspaces of a Task add to its pod.
pub(super) struct Mounted {
    /// One per distinct source.
    pub(super) volumes: Vec<Volume>,
    /// For every step and sidecar.
    pub(super) shared: Vec<VolumeMount>,
    /// For single steps, by index.
    pub(super) steps: Vec<Vec<VolumeMount>>,
    /// For single sidecars, by index.
    pub(super) sidecars: Vec<Vec<VolumeMount>>,
}

/// The name of the claim made from a template, the same for every attempt of its owner.
pub fn claim_name(template: &PersistentVolumeClaim, workspace: &str, owner_uid: &str) -> String {
    let digest = Sha256::digest(format!("{workspace}{owner_uid}").as_bytes());
    let base = template.metadata.name.as_deref().filter(|name| !name.is_empty()).unwrap_or("pvc");
    format!("{base}-{:02x}{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3], digest[4])
}

/// The claim to create for a binding with a `volumeClaimTemplate`; none for other bindings.
pub fn claim(
    binding: &WorkspaceBinding,
    namespace: &str,
    owner: &OwnerReference,
) -> Option<PersistentVolumeClaim> {
    let mut claim = binding.volume_claim_template.clone()?;
    claim.metadata.name = Some(claim_name(&claim, &binding.name, &owner.uid));
    claim.metadata.generate_name = None;
    claim.metadata.namespace = Some(namespace.to_owned());
    claim.metadata.owner_references = Some(vec![owner.clone()]);
    claim.status = None;
    Some(claim)
}

/// The claim a binding leads to, of its own or made from a template.
pub(crate) fn bound_claim(binding: &WorkspaceBinding, owner_uid: &str) -> Option<String> {
    match (&binding.persistent_volume_claim, &binding.volume_claim_template) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(template)) => Some(claim_name(template, &binding.name, owner_uid)),
        (None, None) => None,
    }
}

/// The volume of each bound workspace, by the workspace's name. A claim bound twice is one volume, because a pod that
/// lists it twice is refused by some storage drivers.
pub fn volume_names(bindings: &[WorkspaceBinding], owner_uid: &str) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    let mut by_claim: BTreeMap<String, String> = BTreeMap::new();
    for binding in bindings {
        let claim = bound_claim(binding, owner_uid);
        if let Some(name) = claim.as_ref().and_then(|claim| by_claim.get(claim)) {
            names.insert(binding.name.clone(), name.clone());
            continue;
        }
        let mut text = binding.name.clone();
        let mut name = format!("ws-{}", short_hash(&text, 5));
        while names.values().any(|taken| *taken == name) {
            text.push('$');
            name = format!("ws-{}", short_hash(&text, 5));
        }
        if let Some(claim) = claim {
            by_claim.insert(claim, name.clone());
        }
        names.insert(binding.name.clone(), name);
    }
    names
}

/// Turns the bound workspaces into volumes and mounts. A workspace that a step or sidecar lists for itself is seen by
/// those that list it and by nobody else.
pub(super) fn mount(run: &TaskRun, task: &Resolved) -> Mounted {
    let owner_uid = run.metadata.uid.as_deref().unwrap_or_default();
    let names = volume_names(&task.workspaces, owner_uid);
    let spec = &task.spec;
    let mut mounted = Mounted {
        volumes: Vec::new(),
        shared: Vec::new(),
        steps: vec![Vec::new(); spec.steps.len()],
        sidecars: vec![Vec::new(); spec.sidecars.len()],
    };
    for declaration in &spec.workspaces {
        let Some(binding) = task.workspaces.iter().find(|binding| binding.name == declaration.name) else {
            continue;
        };
        let name = &names[&binding.name];
        if mounted.volumes.iter().all(|volume| volume.name != *name) {
            mounted.volumes.push(volume(name, binding, owner_uid));
        }
        let usage = |usages: &[WorkspaceUsage]| {
            usages
                .iter()
                .find(|usage| usage.name == declaration.name)
                .map(|usage| mount_of(name, declaration, binding, &usage.mount_path))
        };
        let mut isolated = false;
        for (index, step) in spec.steps.iter().enumerate() {
            if let Some(mount) = usage(&step.workspaces) {
                isolated = true;
                mounted.steps[index].push(mount);
            }
        }
        for (index, sidecar) in spec.sidecars.iter().enumerate() {
            if let Some(mount) = usage(&sidecar.workspaces) {
                isolated = true;
                mounted.sidecars[index].push(mount);
            }
        }
        if !isolated {
            mounted.shared.push(mount_of(name, declaration, binding, ""));
        }
    }
    mounted
}

fn mount_of(
    volume: &str,
    declaration: &WorkspaceDeclaration,
    binding: &WorkspaceBinding,
    own_path: &str,
) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: if own_path.is_empty() { declaration.path() } else { own_path.to_owned() },
        sub_path: (!binding.sub_path.is_empty()).then(|| binding.sub_path.clone()),
        read_only: declaration.read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn volume(name: &str, binding: &WorkspaceBinding, owner_uid: &str) -> Volume {
    let from_template =
        binding.volume_claim_template.as_ref().map(|template| PersistentVolumeClaimVolumeSource {
            claim_name: claim_name(template, &binding.name, owner_uid),
            read_only: None,
        });
    Volume {
        name: name.to_owned(),
        persistent_volume_claim: binding.persistent_volume_claim.clone().or(from_template),
        empty_dir: binding.empty_dir.clone(),
        config_map: binding.config_map.clone(),
        secret: binding.secret.clone(),
        projected: binding.projected.clone(),
        csi: binding.csi.clone(),
        ..Volume::default()
    }
}

//! Workspaces: what a Task declares and what a run binds (contract 1.1).

use k8s_openapi::api::core::v1::{
    CSIVolumeSource, ConfigMapVolumeSource, EmptyDirVolumeSource, PersistentVolumeClaim,
    PersistentVolumeClaimVolumeSource, ProjectedVolumeSource, SecretVolumeSource,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{is_false, or_default};

/// A workspace a Task declares.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceDeclaration {
    /// The name runs bind.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where it is mounted; `/workspace/<name>` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount_path: Option<String>,
    /// Mounted read-only.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// A run need not bind it.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub optional: bool,
}

impl WorkspaceDeclaration {
    /// The mount path, defaulted.
    pub fn path(&self) -> String {
        match self.mount_path.as_deref() {
            Some(path) if !path.is_empty() => path.to_owned(),
            _ => format!("/workspace/{}", self.name),
        }
    }
}

/// What a run binds a workspace to: exactly one of the sources.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceBinding {
    /// The declared name.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// A directory of the volume.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub sub_path: String,
    /// A claim made for the run and owned by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_claim_template: Option<PersistentVolumeClaim>,
    /// A claim that exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<PersistentVolumeClaimVolumeSource>,
    /// A directory that lives as long as the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<EmptyDirVolumeSource>,
    /// A ConfigMap's keys as files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapVolumeSource>,
    /// A Secret's keys as files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretVolumeSource>,
    /// Several sources in one directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projected: Option<ProjectedVolumeSource>,
    /// A CSI driver's ephemeral volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub csi: Option<CSIVolumeSource>,
}

//! The engine's configuration as one immutable value: the `config-defaults`, `feature-flags` and
//! `config-observability` ConfigMaps (contract 3 and 9.3); and how a process leads, which it reads once.

mod leader_election;
mod observability;
mod parse;
mod unread;

pub use leader_election::{LeaderElection, LeaderElectionError};
pub use observability::{DurationType, Observability, PipelineRunLevel, TaskRunLevel};
pub use parse::{ConfigError, ConfigErrors};

use ropewalk_entrypoint_protocol::duration::GoDuration;

use crate::v1::PodTemplate;

/// Everything the ConfigMaps decide.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `config-defaults`.
    pub defaults: Defaults,
    /// `feature-flags`.
    pub features: FeatureFlags,
    /// `config-observability`.
    pub observability: Observability,
}

/// `config-defaults` (contract 3.1).
#[derive(Clone, Debug, PartialEq)]
pub struct Defaults {
    /// `default-timeout-minutes`; zero is unlimited.
    pub timeout: GoDuration,
    /// `default-service-account`.
    pub service_account: String,
    /// `default-managed-by-label-value`.
    pub managed_by: String,
    /// `default-pod-template`.
    pub pod_template: Option<PodTemplate>,
    /// `default-forbidden-env`.
    pub forbidden_env: Vec<String>,
    /// `default-max-matrix-combinations-count`.
    pub max_matrix_combinations: usize,
    /// `default-resolver-type`.
    pub resolver_type: String,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            timeout: GoDuration::from_secs(60 * 60),
            service_account: "default".to_owned(),
            managed_by: "tekton-pipelines".to_owned(),
            pod_template: None,
            forbidden_env: Vec::new(),
            max_matrix_combinations: 256,
            resolver_type: String::new(),
        }
    }
}

/// How far experimental fields are let in: `enable-api-fields`.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum ApiFields {
    /// Stable fields only.
    Stable,
    /// Beta too.
    #[default]
    Beta,
    /// Everything.
    Alpha,
}

impl ApiFields {
    /// As in the ConfigMap.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Beta => "beta",
            Self::Alpha => "alpha",
        }
    }
}

/// `feature-flags` (contract 3.2), as far as this engine acts on them.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "a mirror of the ConfigMap")]
pub struct FeatureFlags {
    /// `enable-api-fields`.
    pub enable_api_fields: ApiFields,
    /// `await-sidecar-readiness`.
    pub await_sidecar_readiness: bool,
    /// `enable-provenance-in-status`.
    pub enable_provenance_in_status: bool,
    /// `enable-param-enum`.
    pub enable_param_enum: bool,
    /// `enable-cel-in-whenexpression`.
    pub enable_cel_in_when_expression: bool,
    /// `enable-artifacts`.
    pub enable_artifacts: bool,
    /// `enable-concise-resolver-syntax`.
    pub enable_concise_resolver_syntax: bool,
    /// `disable-inline-spec`, split at commas.
    pub disable_inline_spec: Vec<String>,
    /// `set-security-context`.
    pub set_security_context: bool,
    /// `disable-creds-init`.
    pub disable_creds_init: bool,
    /// `require-git-ssh-secret-known-hosts`.
    pub require_git_ssh_secret_known_hosts: bool,
}

impl Default for FeatureFlags {
    fn default() -> Self {
        Self {
            enable_api_fields: ApiFields::Beta,
            await_sidecar_readiness: true,
            enable_provenance_in_status: true,
            enable_param_enum: false,
            enable_cel_in_when_expression: false,
            enable_artifacts: false,
            enable_concise_resolver_syntax: false,
            disable_inline_spec: Vec::new(),
            set_security_context: false,
            disable_creds_init: false,
            require_git_ssh_secret_known_hosts: false,
        }
    }
}

//! Validation, as the validating webhook does it (contract 2). Pure.
//!
//! The webhook, the controllers, `ropewalk lint` and the one-process server all call [`Validated::validate`], and so
//! cannot disagree. Objects are validated after defaulting. All errors of an object are collected; texts and paths
//! are upstream's.

pub mod cel;
mod common;
mod customrun;
mod errors;
mod graph;
mod names;
mod params;
mod pipeline;
mod pipeline_results;
mod pipeline_task;
mod pipeline_variables;
mod pipelinerun;
mod resolutionrequest;
mod stepaction;
mod task;
mod taskrun;
mod update;
mod usage;
mod verificationpolicy;

pub use errors::{FieldError, FieldErrors};
pub(crate) use names::{is_dns_subdomain, is_label_value};
pub use update::is_same_spec;

use kube::Resource;

use crate::config::Config;

/// A kind with rules.
pub trait Validated: Resource + Sized {
    /// Everything wrong with the object, whatever it was before.
    fn validate(&self, config: &Config) -> FieldErrors;

    /// Everything wrong with the change from `old` to this, beside what [`Validated::validate`] finds (contract 12.1).
    /// Only runs have such rules.
    fn validate_update(&self, _old: &Self, _config: &Config) -> FieldErrors {
        FieldErrors::default()
    }

    /// What every object must have (contract 2.1).
    fn validate_metadata(&self) -> FieldErrors {
        let name = self.meta().name.as_deref().unwrap_or_default();
        let generated = self.meta().generate_name.as_deref().is_some_and(|prefix| !prefix.is_empty());
        if name.is_empty() && generated {
            // The API server makes the name after admission.
            return FieldErrors::default();
        }
        names::validate_object_name(name).via_field("metadata")
    }
}

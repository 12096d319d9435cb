//! The `tekton.dev` API, `resolution.tekton.dev` included: kinds, defaulting, validation and configuration. Pure: no IO, no clock, no environment.
//!
//! Field names, shapes and texts mirror Tekton Pipelines v1.15; `docs/deviations.md` lists where we differ.

pub mod conditions;
pub mod config;
pub mod conversion;
pub mod crd;
pub mod defaults;
pub mod errors;
#[cfg(test)]
mod files;
pub mod kinds;
pub mod labels;
pub mod names;
pub mod references;
mod resolution;
#[cfg(test)]
mod round_trip;
pub mod schema;
pub mod strict;
mod v1;
mod v1alpha1;
mod v1beta1;
pub mod validate;
pub mod warnings;

pub use resolution::*;
pub use ropewalk_entrypoint_protocol::duration::GoDuration;
pub use ropewalk_entrypoint_protocol::value::{ParamType, ParamValue};
pub use ropewalk_entrypoint_protocol::variables;
pub use ropewalk_entrypoint_protocol::when::WhenExpression;
pub use v1::*;
pub use v1alpha1::*;
pub use v1beta1::*;

/// The API group of every kind here but one.
pub const GROUP: &str = "tekton.dev";
/// The API group of ResolutionRequest.
pub const RESOLUTION_GROUP: &str = "resolution.tekton.dev";
/// Our own group: annotations and condition types that are not Tekton's live under it.
pub const ROPEWALK_GROUP: &str = "ropewalk.dev";

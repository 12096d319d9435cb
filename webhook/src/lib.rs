//! Admission of the `tekton.dev` kinds, defaulting and validation, and their conversion between versions, behind
//! Kubernetes' webhook protocols.
//!
//! [`admit`] is pure: the one-process server calls it in its request path. [`router`] is the same behind HTTP, for a
//! cluster; it does no IO of its own either. The process around it, with its certificates, is the binary next door.

mod admit;
mod config_maps;
mod convert;
mod merge;
mod metrics;
mod router;

pub use admit::{
    DEFAULTING_WEBHOOK, Decision, Denial, Mutated, Operation, Problem, Problems, Request, Settings,
    VALIDATING_WEBHOOK,
};
pub use admit::{admit, lint, mutate, validate};
pub use config_maps::{CONFIG_WEBHOOK, validate_config_map};
pub use metrics::Metrics;
pub use router::{ConfigSource, router};

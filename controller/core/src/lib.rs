//! Every decision the engine makes, as pure functions: `plan(&Snapshot) -> Plan`.
//!
//! Nothing here reads a clock, a file, the environment or an API server: what a decision needs stands in its snapshot.

pub mod cache;
pub mod credentials;
pub mod dag;
pub mod diagnosis;
pub mod events;
pub mod images;
pub mod metrics;
pub mod outcome;
pub mod pipelinerun;
pub mod plan;
pub mod pod;
pub mod settings;
pub mod snapshot;
pub mod substitution;
pub mod taskrun;

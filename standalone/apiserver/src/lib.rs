//! A Kubernetes API server as a pure function: request and state in, response and changes out.
//!
//! No IO, no clock, no randomness, no async: [`handle`] takes the time as an argument, and the UIDs and name
//! suffixes it makes come from the seed given to [`State::new`]. The process wraps it in a lock, a tower service and
//! a watch fan-out; the simulation calls it directly.
//!
//! Objects are plain JSON values. What the server knows of a kind stands in the [`ResourceTable`] (versions, names,
//! scope, schema, printer columns), so that a custom resource and a built-in one take the same path.

mod access;
mod admission;
mod apply;
mod body;
mod builtin;
mod defaults;
mod delete;
mod discovery;
mod exec;
mod gc;
mod handle;
mod health;
mod log;
mod names;
mod object;
mod openapi;
mod options;
mod patch;
mod print;
mod read;
mod resources;
mod route;
mod scheduler;
mod schema;
mod selector;
mod state;
mod status;
mod strategic;
mod table;
mod typed;
mod types;
mod watch;
mod write;

pub use access::{AUDIENCE, Caller, NoTokens, Tokens, User, authenticate, install, install_roles};
pub use admission::{Admission, AdmissionDecision, AdmissionRequest, NoAdmission, Operation};
pub use body::Body;
pub use exec::{ExecRequest, Streams, exec_status};
pub use handle::{BODY_LIMIT, Context, Handled, Outcome, handle, handle_for};
pub use log::LogRequest;
pub use state::{Delta, DeltaKind, HISTORY, ObjectKey, Room, State};
pub use status::Failure;
pub use table::{Behaviour, Column, Convert, Resource, ResourceId, ResourceTable, TableError, Version};
pub use watch::WatchPlan;

#[cfg(test)]
mod tests;

//! Admission of the `tekton.dev` kinds: defaulting and validation behind Kubernetes' webhook protocol.
//!
//! [`admit`] is pure: the one-process server calls it in its request path. [`router`] is the same behind HTTP, for a
//! cluster; it does no IO of its own either, whoever serves it owns the socket and its TLS.

mod admit;
mod merge;
mod router;

pub use admit::{
    DEFAULTING_WEBHOOK, Decision, Denial, Mutated, Operation, Problem, Request, Settings, VALIDATING_WEBHOOK,
};
pub use admit::{admit, lint, mutate, validate};
pub use router::{ConfigSource, router};
